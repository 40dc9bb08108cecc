"""Damaged models, checkpoints, configurations and metrics, and other files in their place: refused in one line each."""

import json
import os
import resource
import socket

import numpy as np
import pytest

from chargen import ChargenError
from chargen.store.modelfile import Checkpoint, ModelFile
from chargen.store.run import Run
from tests.conftest import invoke
from tests.files.damage import (
    NESTED,
    SPARSE,
    changed,
    numbered,
    refused,
    retyped,
    valued,
)

HEADERS = [
    *((retyped("embedding", kind), ["embedding", "dtype"]) for kind in ("I32", "BOOL", "U8", "F64", "I64", "no", "")),
    (retyped("embedding", 3), ["embedding", "dtype"]),
    *((numbered("lstm_1/bias", value), ["lstm_1/bias", "not finite"]) for value in (np.nan, np.inf, -np.inf)),
    (valued("model", "layers", value=10**9), ["model.layers"]),
    (valued("model", "layers", value=900), ["lstm_2/kernel", "missing"]),
    (valued("model", "layers", value=1), ["lstm_1", "none of that name"]),
    (valued("model", "units", value=10**18), ["model.units"]),
    (valued("model", "units", value=60_000), ["lstm_0/kernel", "shape"]),
    (valued("model", "units", value=10**400), ["model.units"]),
    (valued("model", "units", value=3.0), ["model.units"]),
    (valued("model", "units", value=True), ["model.units"]),
    (valued("model", "embedding", value=-2), ["model.embedding"]),
    (valued("model", value=[1]), ["model"]),
    (valued("unknown", value=3), ["unknown"]),
    (valued("unknown", value="x"), ["unknown"]),
    (valued("unknown", value=["a"]), ["unknown"]),
    (valued("vocabulary", value="abcd"[::-1]), ["vocabulary", "order"]),
    (valued("vocabulary", value="\nab"), ["embedding", "shape"]),
    (valued("vocabulary", value=7), ["vocabulary"]),
    (valued("summary", value=None), ["summary"]),
    (valued("summary", "temperature", value="hot"), ["summary.temperature"]),
    (valued("summary", "temperature", value=0), ["summary.temperature"]),
    (valued("summary", "temperature", value=float("nan")), ["summary.temperature"]),
    (valued("summary", "validation_bpc", value=float("inf")), ["summary.validation_bpc"]),
    (valued("summary", "step", value=float("inf")), ["summary.step"]),
    (valued("summary", "step", value=-1), ["summary.step"]),
    (valued("format", value="1"), ["format"]),
    (valued("format", value=10**400), ["format"]),
    (valued("format", value=9), ["format 9", "install"]),
    (valued("kind", value={}), ["kind"]),
    (valued("kind", value="x" * 10**6), ["not a model", "xxx..."]),
    (lambda table, told, arrays: told.pop("model") and None, ["model", "missing"]),
    (lambda table, told, arrays: f'{{"a": {NESTED}, {json.dumps(told)[1:]}', ["not a file of chargen's"]),
    (lambda table, told, arrays: f"[{json.dumps(told)}]", ["not a file of chargen's"]),
    (lambda table, told, arrays: table.pop("dense/bias") and None, ["cut short, or longer"]),
    (lambda table, told, arrays: table["dense/bias"].update(shape=[2, 2]), ["dense/bias", "shape"]),
    (lambda table, told, arrays: table["dense/bias"].update(shape=[2**60]), ["dense/bias"]),
    (lambda table, told, arrays: table["dense/bias"].update(shape=[-4]), ["dense/bias"]),
    (lambda table, told, arrays: table["dense/bias"].update(data_offsets=[16, 32]), ["cut short, or longer"]),
    (lambda table, told, arrays: table["dense/bias"].update(data_offsets="all"), ["dense/bias"]),
    (lambda table, told, arrays: table.update({"one\ttoo\nmany": table["dense/bias"]}), ["cut short, or longer"]),
    (lambda table, told, arrays: table.update(a={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), ["'a'"]),
    (lambda table, told, arrays: table.update(dense={"\ud800": 1}), ["dense"]),
]


@pytest.mark.parametrize(("change", "words"), HEADERS)
def test_an_invalid_header_is_refused_although_its_checksum_is_right(model, change, words):
    changed(model, change)
    refused(invoke("sample", "--model", model, "--length", 5), str(model), *words)


def test_a_changed_model_with_a_new_checksum_is_read(model):
    changed(model, valued("summary", "step", value=8))
    assert ModelFile.read(model).summary["step"] == 8


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "a socket", "30 GB", "nothing", "a dangling link"])
def test_a_model_that_is_no_regular_file_or_too_large_is_refused_without_reading(model, kind, monkeypatch):
    monkeypatch.chdir(model.parent)
    model.unlink()
    if kind == "a pipe":
        os.mkfifo(model)
    elif kind == "a folder":
        model.mkdir()
    elif kind == "a device":
        model.symlink_to("/dev/zero")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(model.name)
    elif kind == "a dangling link":
        model.symlink_to("nowhere")
    else:
        model.touch()
        os.truncate(model, SPARSE if kind == "30 GB" else 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChargenError, match=r"^model.safetensors .*read") as error:
        ModelFile.read(type(model)(model.name))
    assert kind.startswith(("30", "n", "a dang")) or kind in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_file_longer_than_its_header_says_is_not_read(model):
    os.truncate(model, SPARSE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChargenError, match="no such file of chargen's has more"):
        ModelFile.read(model)
    os.truncate(model, 2**33)
    with pytest.raises(ChargenError, match="longer than its header says"):
        ModelFile.read(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_checksum_covers_every_byte_of_a_model(model):
    data = model.read_bytes()
    for place in range(0, len(data), 13):
        model.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ChargenError, match=r"model\.safetensors (is|has)"):
            ModelFile.read(model)
    model.write_bytes(data)
    assert len(ModelFile.read(model).vocabulary) == 4


PROGRESS = [
    *((name, float("inf")) for name in ("step", "nats", "seconds", "best", "worse", "factor")),
    *((name, "1") for name in ("step", "nats", "clock", "best", "recoveries", "finished")),
    *((name, -1) for name in ("step", "nats", "characters", "clock", "seconds", "used", "best", "worse", "factor")),
    *((name, None) for name in ("step", "seconds", "factor", "finished")),
    *[("step", 10**30), ("step", 7.5), ("factor", 2), ("finished", 1), ("recoveries", [])],
]


@pytest.mark.parametrize(("name", "value"), PROGRESS)
def test_invalid_progress_in_a_checkpoint_is_refused_by_its_field(run, name, value):
    changed(run.checkpoint_path, valued("summary", "progress", name, value=value))
    refused(invoke("train", "--resume", run.path), "checkpoint.safetensors", f"summary.progress.{name}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (retyped("optimizer/m/embedding", "I32"), ["optimizer/m/embedding", "dtype"]),
        (retyped("dense/bias", "I32"), ["dense/bias", "dtype"]),
        (numbered("dense/kernel", np.nan), ["dense/kernel", "not finite"]),
        (numbered("optimizer/v/dense/kernel", np.inf), ["optimizer/v/dense/kernel", "not finite"]),
        (numbered("state/lstm_1/c", np.nan), ["state/lstm_1/c", "not finite"]),
        (lambda table, told, arrays: table["state/lstm_1/c"].update(shape=[3, 4]), ["state/lstm_1/c", "shape"]),
        (lambda table, told, arrays: table["state/lstm_0/h"].update(shape=[12]), ["state/lstm_0", "shape"]),
        (lambda table, told, arrays: table.update({"state/x": table.pop("state/lstm_1/c")}), ["state/lstm_1/c"]),
        (lambda table, told, arrays: table.update({"m": table.pop("optimizer/m/dense/bias")}), ["'m'"]),
        (lambda table, told, arrays: told["summary"].pop("progress") and None, ["summary.progress", "missing"]),
        (lambda table, told, arrays: told["summary"].pop("sha256") and None, ["summary.sha256", "missing"]),
        (valued("summary", "sha256", value="no"), ["summary.sha256"]),
        (valued("summary", "sha256", value="0" * 64), ["of another run"]),
        (valued("kind", value="model"), ["not a checkpoint"]),
    ],
)
def test_an_invalid_checkpoint_is_refused(run, change, words):
    before = run.config_path.read_bytes()
    changed(run.checkpoint_path, change)
    refused(invoke("train", "--resume", run.path), "checkpoint.safetensors", *words)
    assert run.config_path.read_bytes() == before


def test_the_checkpoint_of_a_run_that_starts_from_a_model_has_neither_moments_nor_state(run):
    file = Checkpoint.read(run.checkpoint_path)
    Checkpoint(file.weights, file.vocabulary, file.config, file.summary, {}).write(run.checkpoint_path)
    assert run.checkpoint().extra == {}


def test_a_state_without_rows_is_not_that_of_a_run(run):
    file = Checkpoint.read(run.checkpoint_path)
    extra = {name: array[:0] if name.startswith("state/") else array for name, array in file.extra.items()}
    Checkpoint(file.weights, file.vocabulary, file.config, file.summary, extra).write(run.checkpoint_path)
    refused(invoke("train", "--resume", run.path), "config.json", "train.batch_size: the checkpoint has 0 streams")


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "30,"])
def test_a_run_with_something_else_in_place_of_a_file_is_refused_without_reading(run, name, kind):
    path = run.path / name
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, SPARSE)
    with pytest.raises(ChargenError, match=rf"{name} can't be read: it (is|has) {kind}|{name} .*(32,212|{kind})"):
        everything(run.path)


def everything(path):
    """Read all that is in a run."""
    run = Run(path)
    run.metrics()
    run.corpus()
    run.checkpoint()
    ModelFile.read(run.model_path)


CONFIGS: list[tuple[tuple[str, ...], object, str]] = [
    ((), [], ""),
    ((), None, ""),
    ((), "{}", ""),
    (("format",), 9, "format"),
    (("format",), 10**300, "format"),
    (("format",), True, "format"),
    (("model",), None, "model"),
    (("model", "layers"), "two", "model.layers"),
    (("model", "layers"), 10**9, "model.layers"),
    (("model", "shape"), 1, "model.shape"),
    (("train", "batch_size"), 5, "train.batch_size: the checkpoint has 4 streams"),
    (("train", "batch_size"), 0, "train.batch_size"),
    (("train", "dropout"), float("nan"), "train.dropout"),
    (("train", "dropout"), 0.96, "train.dropout"),
    (("train", "learning_rate"), float("inf"), "train.learning_rate"),
    (("train", "learning_rate"), "fast", "train.learning_rate"),
    (("model", "units"), None, "model.units"),
    (("train", "learning_rate"), None, "train.learning_rate: it is null"),
    (("train", "dropout"), None, "train.dropout: it is null"),
    (("train", "weight_drop"), None, "train.weight_drop: it is null"),
    (("train", "random_seed"), 2**63, "train.random_seed"),
    (("train", "steps"), None, "minutes, epochs and steps"),
    (("train", "minutes"), 5, "minutes, epochs and steps"),
    (("train", "encoding"), "klingon", "train.encoding"),
    (("train", "encoding"), "base64", "train.encoding"),
    (("train", "precision"), "float8", "train.precision"),
    (("train", "cache"), "\0", "a path"),
    (("execution", "unroll"), "steps", "execution.unroll"),
    (("execution", "shards"), 10**9, "execution.shards"),
    (("execution", "threads"), 10**9, "execution.threads"),
    (("execution", "threads"), -1, "execution.threads"),
    (("start",), "0", "start"),
    (("start",), float("inf"), "start"),
    (("start",), 21, "start, stop"),
    (("stop",), 19, "start, stop"),
    (("stop",), None, "stop"),
    (("stop",), -1, "stop"),
    (("stop",), 1e3, "stop"),
    (("files",), "book.txt", "files"),
    (("files",), [1], "files"),
    (("files",), ["a\0b"], "a path"),
    (("files",), None, "files"),
    (("name",), 3, "name"),
    (("characters",), "many", "characters"),
    (("characters",), 7, "characters"),
    (("sha256",), "0", "sha256"),
    (("parent",), 3, "parent"),
    (("known",), ["ba", None], "vocabulary"),
    (("known",), ["ab", "c"], "unknown"),
    (("known",), [1], "known"),
    (("known",), {}, "known"),
    (("more",), 1, "more"),
    (("\ud800",), 1, "config.json"),
]


@pytest.mark.parametrize(("names", "value", "word"), CONFIGS)
def test_an_invalid_configuration_is_refused_by_its_field(run, names, value, word):
    told = json.loads(run.config_path.read_text())
    place = told
    for name in names[:-1]:
        place = place[name]
    if names:
        place[names[-1]] = value
    run.config_path.write_text(json.dumps(told if names else value))
    refused(invoke("train", "--resume", run.path), "config.json is damaged", word)


@pytest.mark.parametrize("part", ["", "model", "train", "execution"])
def test_a_configuration_with_a_missing_field_is_refused(run, part):
    told = json.loads(run.config_path.read_text())
    for name in told[part] if part else told:
        one = json.loads(run.config_path.read_text())
        del (one[part] if part else one)[name]
        with pytest.raises(ChargenError, match=f"config.json is damaged: {part}.?{name}: it is missing"):
            Run(written(run.path / "config.json", json.dumps(one)))
        written(run.path / "config.json", json.dumps(told))


def written(path, text):
    path.write_text(text)
    return path.parent


@pytest.mark.parametrize("content", ["", "{", NESTED, '{"format": ' + "9" * 5000 + "}", "\ufeff{}", "{}{}"])
def test_a_configuration_that_is_not_json_is_refused(run, content):
    run.config_path.write_text(content)
    refused(invoke("train", "--resume", run.path), "config.json is damaged")
    run.config_path.write_bytes(b"\xff\xfe")
    refused(invoke("train", "--resume", run.path), "config.json is damaged")


def test_a_configuration_may_name_files_that_are_not_utf8(run):
    """Python has a lone surrogate for each byte of a name that is none."""
    told = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**told, "files": ["/caf\udce9.txt"], "name": "caf\udce9"}))
    assert Run(run.path).config.files == ("/caf\udce9.txt",)
    refused(invoke("train", "--resume", run.path), "is gone")


def test_a_configuration_with_impossible_file_names_is_refused(run):
    told = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**told, "files": ["x" * 10_000]}))
    assert invoke("train", "--resume", run.path).exit_code == 1


LINES = [
    *(f'{{"step": 41{rest}' for rest in ("}", "", "}}", ', "step": "x"}')),
    *("", "[]", "3", "null", '"step"', NESTED, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
]
ODD: dict[str, list[object]] = {
    **{name: [None, "1", [], -1, float("nan")] for name in ("epoch", "validation_bpc", "seconds")},
    "step": [10, 9, 0, 41.0, float("inf"), 10**30, None],
    "characters": [0, 41, "32", float("inf")],
    "characters_per_second": [1.5, -1],
}
VALUES = [
    *((name, value) for name, values in ODD.items() for value in values),
]


@pytest.mark.parametrize("line", LINES)
def test_an_invalid_line_of_the_metrics_is_refused_by_its_number(run, line):
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    refused(invoke("plot", run.path, "--output", run.path / "a.svg"), "metrics.jsonl is damaged: line 3")


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_an_invalid_value_in_the_metrics_is_refused_by_its_field(run, name, value):
    path = run.path / "metrics.jsonl"
    first, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(last), name: value})}\n")
    refused(invoke("plot", run.path, "--output", run.path / "a.svg"), f"line 2: {name}")
