"""A TensorFlow SavedModel with two signatures, ``step`` and ``generate``, whose loop runs inside the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from chargen.export import Export
from chargen.export.verify import GREEDY_CHARACTERS, TOLERANCE, Read, Reference, compare, disagreement, stepwise
from chargen.network.model import CharLM
from chargen.network.unroll import State
from chargen.store.modelfile import LayerState

METADATA_NAME = "chargen.json"

NOTE = """
import json, tensorflow as tf

characters = json.load(open("$name/chargen.json"))["vocabulary"]
model = tf.saved_model.load("$name")
step, generate = model.signatures["step"], model.signatures["generate"]
inputs = step.structured_input_signature[1].items()
state = {name: tf.zeros(i.shape) for name, i in inputs if name != "ids"}
text = $seed
for at in range(len(text) + 99):
    state = step(ids=tf.constant([[characters.index(text[at])]]), **state)
    logits = state.pop("logits")
    if at >= len(text) - 1:
        text += characters[int(tf.argmax(logits[0, 0]))]
print(text)

ids = [[characters.index(character) for character in $seed]]
inputs = {"ids": ids, "length": 100, "temperature": 0.7, "random_seed": 1}
inputs = {name: tf.constant(inputs[name]) for name in inputs}
print("".join(characters[id] for id in generate(**inputs)["ids"][0]))
"""


def named(state: State) -> dict[str, Any]:
    """Return a state as the signatures name it: ``h_0``, ``c_0``, ``h_1``, ..., each (1, H) float32."""
    return {f"{field}_{n}": getattr(layer, field) for n, layer in enumerate(state) for field in layer._fields}


def unnamed(state: dict[str, Any]) -> State:
    """Return the state from its names: the inverse of `named`."""
    return tuple(LayerState(*(state[f"{f}_{n}"] for f in LayerState._fields)) for n in range(len(state) // 2))


def step_function(model: CharLM) -> Any:
    """Return the signature ``step``: ids (1, 1) int32, state -> logits (1, 1, V), state."""
    specs = {name: tf.TensorSpec((1, model.config.units), tf.float32, name) for name in named(model.zero_state(1))}

    @tf.function(input_signature=[tf.TensorSpec((1, 1), tf.int32, "ids"), *specs.values()])  # type: ignore[untyped-decorator]
    def step(ids: tf.Tensor, *state: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, after = model.step(ids, unnamed(dict(zip(specs, state, strict=True))))
        return {"logits": logits, **named(after)}

    return step


def generate_function(model: CharLM) -> Any:
    """Return the signature ``generate``: ids (1, n), length, temperature, random seed -> ids (1, length).

    It reads ``ids``, of which there must be at least one, from a zero state, and continues them. Temperature 0 takes
    the most likely character. Draw t is a function of the random seed and t (Philox, Salmon et al. 2011).
    """

    def draw(logits: tf.Tensor, temperature: tf.Tensor, random_seed: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        key = tf.stack([random_seed, at])
        noisy = tf.random.stateless_categorical(logits / tf.maximum(temperature, 1e-6), 1, key, tf.int32)[:, 0]
        return tf.where(temperature > 0, noisy, tf.argmax(logits, -1, tf.int32))

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec((1, None), tf.int32, "ids"),
            tf.TensorSpec((), tf.int32, "length"),
            tf.TensorSpec((), tf.float32, "temperature"),
            tf.TensorSpec((), tf.int32, "random_seed"),
        ]
    )
    def generate(
        ids: tf.Tensor, length: tf.Tensor, temperature: tf.Tensor, random_seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        given = tf.shape(ids)[1]
        drawn = tf.TensorArray(tf.int32, length)

        def go_on(at: tf.Tensor, id: tf.Tensor, state: State, drawn: tf.TensorArray) -> tuple[Any, ...]:
            logits, state = model.step(id[:, None], state)
            after = tf.minimum(at + 1, given - 1)
            draws = at + 1 >= given
            id = tf.where(draws, draw(logits[:, 0], temperature, random_seed, at), ids[:, after])
            drawn = tf.cond(draws, lambda: drawn.write(at + 1 - given, id), lambda: drawn)
            return at + 1, id, state, drawn

        *_, drawn = tf.while_loop(
            lambda at, *_: at < given + length - 1, go_on, (0, ids[:, 0], model.zero_state(1), drawn)
        )
        return {"ids": tf.transpose(drawn.stack())}

    return generate


def save(model: CharLM, folder: Path, signatures: dict[str, Callable[[CharLM], Any]]) -> None:
    """Write a SavedModel with the signatures, name -> function that makes it. Raises OSError if it can't be written."""
    module = tf.Module()
    module.weights = [weight.value for weight in model.named_weights().values()]
    module.functions = {name: make(model) for name, make in signatures.items()}
    try:
        tf.saved_model.save(module, str(folder), dict(module.functions))
    except tf.errors.OpError as error:  # such as a full disk
        raise OSError(error.message) from None


def write(export: Export, path: Path) -> None:
    """Write the folder, with the metadata in it as ``chargen.json``."""
    save(CharLM.of(export.model), path, {"step": step_function, "generate": generate_function})
    (path / METADATA_NAME).write_text(export.json, "utf-8")


def load(path: Path) -> Callable[[], Read]:
    """Load the folder with TensorFlow alone; return the ``start`` for `compare`, which reads by ``step``."""
    model = tf.saved_model.load(str(path))
    signature = model.signatures["step"]

    def step(id: int, state: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        after = dict(signature(ids=tf.constant([[id]]), **state))
        return after.pop("logits"), after

    specs = signature.structured_input_signature[1]
    return stepwise(step, {name: tf.zeros(spec.shape) for name, spec in specs.items() if name != "ids"})


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the two signatures, loaded by TensorFlow, with the clone."""
    found = compare(load(path), reference, "TensorFlow")
    generate = tf.saved_model.load(str(path)).signatures["generate"]
    ids, clone = reference.ids[:GREEDY_CHARACTERS], reference.clone
    drawn = generate(
        ids=tf.constant(ids[None], tf.int32),
        length=tf.constant(GREEDY_CHARACTERS),
        temperature=tf.constant(0.0),
        random_seed=tf.constant(0),
    )["ids"].numpy()[0]
    clone.reset_states()
    logits = clone.read(ids)[-1]
    for id in drawn:
        if logits.max() - logits[id] >= TOLERANCE:
            raise disagreement("TensorFlow", "generate, at temperature 0, draws another text")
        logits = clone.step(np.array([id]))[0]
    return [*found, f"generate, at temperature 0, draws the same {GREEDY_CHARACTERS} characters as the clone"]
