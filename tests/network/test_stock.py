import numpy as np

from chargen.network.stock import stateful_clone
from chargen.store.run import open_model
from chargen.writing.clone import Clone


def test_the_stateful_keras_clone_writes_the_same_greedy_text(trained):
    file = open_model(trained)
    keras_clone = stateful_clone(file)
    ids, drawn = file.vocabulary.encode("the cat "), []
    for _ in range(60):
        logits = keras_clone(ids[None].astype(np.int32))
        ids = np.array([np.argmax(logits[0, -1])])
        drawn.append(ids[0])
    clone = Clone.open(trained)
    clone.feed("the cat ")
    assert file.vocabulary.decode(drawn) == "".join(clone.generate(60, temperature=0))


def test_its_layers_are_stateful_and_of_batch_1(trained):
    keras_clone = stateful_clone(open_model(str(trained)))
    assert [layer.stateful for layer in keras_clone.layers[1:-1]] == [True, True]
    assert keras_clone.input_shape == (1, None)
