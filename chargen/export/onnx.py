"""An ONNX file: Gather for the embedding, ONNX's own LSTM operator for each layer, MatMul for the logits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from chargen.export import Export
from chargen.export.verify import Ids, Read, Reference, compare
from chargen.writing.clone import Floats

OPSET = 17  # from 2022, which the runtimes of browsers and phones support
IR_VERSION = 8  # of the file format that belongs to it

NOTE = """
import json
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("$name")
metadata = session.get_modelmeta().custom_metadata_map["chargen"]
characters = json.loads(metadata)["vocabulary"]
shapes = {i.name: i.shape for i in session.get_inputs() if i.name != "ids"}
state = {name: np.zeros(shapes[name], np.float32) for name in shapes}
text = unread = $seed
for _ in range(100):
    ids = [[characters.index(character) for character in unread]]
    logits, *after = session.run(None, {"ids": ids, **state})
    state = dict(zip(state, after))
    unread = characters[logits[0, -1].argmax()]
    text += unread
print(text)
"""


def write(export: Export, path: Path) -> None:
    """Write the file: ids (1, T) int64, ``h_0``, ``c_0``, ... (1, 1, H) -> logits (1, T, V), ``next_h_0``, ...."""
    model = onnx_model(export)
    if export.quantize == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        logging.disable(logging.WARNING)  # it advises a preparation that changes nothing here
        try:
            quantize_dynamic(model, path, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            logging.disable(logging.NOTSET)
        model = onnx.load(path)
    helper.set_model_props(model, {"chargen": export.json})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def onnx_model(export: Export) -> onnx.ModelProto:
    """Return the model as a graph with float32 weights."""
    weights, config = export.model.weights, export.model.config
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(weights["embedding"]), "embedding"),
        numpy_helper.from_array(np.array([1], np.int64), "direction"),  # the axis of the one direction
    ]
    # The LSTM operator reads (T, 1, E or H), time first, and returns (T, 1, 1, H).
    nodes = [
        helper.make_node("Transpose", ["ids"], ["ids_by_time"], perm=[1, 0]),
        helper.make_node("Gather", ["embedding", "ids_by_time"], ["outputs_0"]),
    ]
    states, after = [], []
    shape = (1, 1, config.units)
    for n in range(config.layers):
        bias = by_gate(weights[f"lstm_{n}/bias"])
        arrays = {
            f"kernel_{n}": by_gate(weights[f"lstm_{n}/kernel"]).T[None],  # (1, 4H, E or H)
            f"recurrent_kernel_{n}": by_gate(weights[f"lstm_{n}/recurrent_kernel"]).T[None],  # (1, 4H, H)
            f"bias_{n}": np.concatenate([bias, np.zeros_like(bias)])[None],  # (1, 8H): a bias for each of two products
        }
        initializers += [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
        inputs = [f"outputs_{n}", *arrays, "", f"h_{n}", f"c_{n}"]
        nodes += [
            helper.make_node(
                "LSTM", inputs, [f"all_{n}", f"next_h_{n}", f"next_c_{n}"], f"lstm_{n}", hidden_size=config.units
            ),
            helper.make_node("Squeeze", [f"all_{n}", "direction"], [f"outputs_{n + 1}"]),
        ]
        states += [helper.make_tensor_value_info(f"{field}_{n}", TensorProto.FLOAT, shape) for field in "hc"]
        after += [helper.make_tensor_value_info(f"next_{field}_{n}", TensorProto.FLOAT, shape) for field in "hc"]
    initializers += [
        numpy_helper.from_array(np.ascontiguousarray(weights["dense/kernel"]), "dense_kernel"),
        numpy_helper.from_array(np.ascontiguousarray(weights["dense/bias"]), "dense_bias"),
    ]
    nodes += [
        helper.make_node("MatMul", [f"outputs_{config.layers}", "dense_kernel"], ["products"]),
        helper.make_node("Add", ["products", "dense_bias"], ["logits_by_time"]),
        helper.make_node("Transpose", ["logits_by_time"], ["logits"], perm=[1, 0, 2]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, (1, "T"))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, "T", len(export.model.vocabulary)))
    graph = helper.make_graph(nodes, "char_lm", [ids, *states], [logits, *after], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "chargen"
    return model


def by_gate(weights: Floats) -> Floats:
    """Reorder the gates in the last axis from Keras's i, f, g, o to ONNX's i, o, f, c."""
    i, f, g, o = np.split(np.asarray(weights, np.float32), 4, -1)
    return np.concatenate([i, o, f, g], -1)


def load(path: Path) -> Callable[[], Read]:
    """Load the file with onnxruntime; return the ``start`` for `compare`."""
    session = onnxruntime.InferenceSession(path)
    zero = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name != "ids"}

    def start() -> Read:
        state = zero

        def read(ids: Ids) -> Floats:
            nonlocal state
            logits, *after = session.run(None, {"ids": ids.astype(np.int64)[None], **state})
            state = dict(zip(state, after, strict=True))
            return np.asarray(logits[0], np.float32)

        return read

    return start


def verify(path: Path, reference: Reference) -> list[str]:
    """Compare the file, loaded by onnxruntime, with the clone."""
    return compare(load(path), reference, "onnxruntime")
