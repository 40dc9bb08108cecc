import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors.numpy import save

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.files.arrays import with_checksum
from chargen.files.disk import write_beside
from chargen.store.modelfile import Checkpoint, ModelFile, Progress, extend_vocabulary, weight_shapes
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed
from chargen.writing.clone import Clone

SHAPE = ModelConfig(layers=2, units=3, embedding=2)
TOLD = {"sha256": "0" * 64, "progress": asdict(Progress())}


@pytest.fixture
def model():
    generator = np.random.default_rng(0)
    weights = {n: generator.normal(size=s).astype(np.float32) for n, s in weight_shapes(4, SHAPE).items()}
    return ModelFile(weights, Vocabulary("a\n字😀"[1] + "a字😀"), SHAPE, {"step": 7}, {})


def test_a_model_comes_back_as_it_was(model, tmp_path):
    model.write(tmp_path / "m")
    back = ModelFile.read(tmp_path / "m")
    assert (back.vocabulary, back.config, back.summary, back.extra) == (model.vocabulary, SHAPE, {"step": 7}, {})
    assert all((back.weights[name] == model.weights[name]).all() for name in model.weights)


def test_the_words_of_the_text_travel_with_the_model(model, tmp_path):
    replace(model, words=packed(["b"]), base_words=packed(["a"])).write(tmp_path / "m")
    back = ModelFile.read(tmp_path / "m")
    for file in (back, back.for_inference()):
        assert (file.words, file.base_words) == (packed(["b"]), packed(["a"]))
    begun = back.for_training()
    assert (begun.words, begun.base_words) == (None, packed(["a", "b"]))
    model.write(tmp_path / "old")
    old = ModelFile.read(tmp_path / "old")
    assert (old.words, old.base_words, old.for_training().base_words) == (None, None, None)


def test_equal_models_are_equal_files(model, tmp_path):
    model.write(tmp_path / "a")
    model.write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_checkpoint_opens_as_the_model_in_it(model, tmp_path):
    extra = {f"optimizer/{moment}/{name}": array for name, array in model.weights.items() for moment in "mv"}
    extra |= {f"state/lstm_{n}/{field}": np.ones((2, 3), np.float32) for n in range(2) for field in "hc"}
    Checkpoint(model.weights, model.vocabulary, SHAPE, TOLD, extra).write(tmp_path / "c")
    back = ModelFile.read(tmp_path / "c")
    assert set(back.weights) == set(model.weights)
    assert (back.extra["state/lstm_0/h"] == 1).all()


def test_a_file_cut_short_anywhere_is_refused(model, tmp_path):
    model.write(tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ChargenError, match="cut short"):
            ModelFile.read(tmp_path / "cut")


@pytest.mark.parametrize(
    "data", [b"some text that is no model", save({"a": np.zeros(2)}), save({"a": np.zeros(2)}, {"chargen": "[1]"})]
)
def test_a_file_of_another_kind_is_refused(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ChargenError, match="not a file of chargen's"):
        ModelFile.read(tmp_path / "x")


def changed(path, change):
    """Change the header of a file, and its checksum too."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["chargen"])
    change(inner)
    header["__metadata__"]["chargen"] = json.dumps(inner)
    text = json.dumps(header).encode()
    path.write_bytes(with_checksum(len(text).to_bytes(8, "little") + text + data[8 + length :]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=2), "format 2, and this chargen reads format 1"),
        (lambda h: h["model"].update(units=4), "damaged"),
        (lambda h: h["model"].update(units="3"), "units"),
        (lambda h: h.update(vocabulary="ab"), "damaged"),
        (lambda h: h.update(vocabulary="ab字a"), "code-point order"),
        (lambda h: h.pop("model"), "damaged"),
        (lambda h: h.pop("vocabulary"), "damaged"),
        (lambda h: h.pop("summary"), "damaged"),
        (lambda h: h["model"].update(layers=3), "damaged"),
    ],
)
def test_a_later_format_and_a_damaged_header_are_refused(model, tmp_path, change, message):
    model.write(tmp_path / "m")
    changed(tmp_path / "m", change)
    with pytest.raises(ChargenError, match=message):
        ModelFile.read(tmp_path / "m")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ChargenError, match="No such file"):
        ModelFile.read(tmp_path / "none")
    with pytest.raises(ChargenError, match="it is a folder"):
        ModelFile.read(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_beside(tmp_path / "f", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ChargenError, match=r"f can't be written: No space left on device"):
        write_beside(tmp_path / "f", b"new")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("f", b"old")]


def test_the_unknown_character_is_never_drawn_and_a_checkpoint_keeps_what_was_learnt_of_it(model, tmp_path):
    vocabulary = Vocabulary("\nab\ufffd", "\ufffd")
    for kind, name in ((ModelFile, "m"), (Checkpoint, "c")):
        kind(model.weights, vocabulary, SHAPE, TOLD, {}).write(tmp_path / name)
    for name in "mc":
        read = ModelFile.read(tmp_path / name).for_inference()
        assert read.vocabulary.unknown == "\ufffd"
        assert not read.weights["dense/kernel"][:, 3].any()
        assert read.weights["dense/bias"][3] == np.float16(-60_000)
        assert (read.weights["dense/kernel"][:, :3] == model.weights["dense/kernel"][:, :3]).all()
        clone = Clone(read.weights, read.vocabulary)
        assert "\ufffd" not in "".join(clone.generate(200, temperature=100, random_seed=1))
    kept = Checkpoint.read(tmp_path / "c")
    assert (kept.weights["dense/bias"] == model.weights["dense/bias"]).all()


def test_a_model_with_an_extended_vocabulary_keeps_the_logits_of_the_old_characters(model):
    vocabulary = Vocabulary("\n!a字😀🧑")
    weights = extend_vocabulary(model, vocabulary, 1)
    old, new = Clone(model.weights, model.vocabulary), Clone(weights, vocabulary)
    for clone in (old, new):
        clone.feed("a字")
    np.testing.assert_allclose(new.logits[0, [0, 2, 3, 4]], old.logits[0], rtol=1e-6)
    np.testing.assert_allclose(new.logits[0, [1, 5]], old.logits[0].mean(), rtol=1e-4)
    assert (weights["embedding"][[0, 2, 3, 4]] == model.weights["embedding"]).all()
    assert abs(weights["embedding"][[1, 5]]).max() < 1
    assert (weights["embedding"] == extend_vocabulary(model, vocabulary, 1)["embedding"]).all()
