"""Files that have our names and are damaged, or somebody else's: each is refused in one line that names it."""

import json
import os
import resource
import shutil
import socket
from dataclasses import asdict, replace

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.files.arrays import with_checksum
from chargen.store.modelfile import Checkpoint, ModelFile, Progress, weight_shapes
from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.text.vocabulary import Vocabulary
from chargen.training.plan import Machine, Request, plan
from chargen.writing.clone import Clone
from chargen.writing.originality import build, index
from tests.conftest import invoke

SHAPE = ModelConfig(layers=2, units=3, embedding=2)
NESTED = "[" * 100_000 + "]" * 100_000
SPARSE = 30 * 2**30


def weights(characters):
    generator = np.random.default_rng(0)
    return {n: generator.normal(size=s).astype(np.float32) for n, s in weight_shapes(characters, SHAPE).items()}


@pytest.fixture
def model(tmp_path):
    """A model of four characters that nothing was trained for."""
    path = tmp_path / "model.safetensors"
    summary = {"step": 7, "validation_bpc": 2.5, "temperature": 1.1}
    ModelFile(weights(4), Vocabulary("\nabc"), SHAPE, summary, {}).write(path)
    return path


@pytest.fixture
def run(here):
    """A run at step 20 of 100, with a model, a checkpoint of 4 streams and two lines of metrics; its text is cached."""
    return half_way(here)


def half_way(here, steps=100):
    """Return a run in ``here`` that has made 20 steps of so many; no step was made for it."""
    settings = TrainConfig(steps=steps, batch_size=4, seq_length=8, cache=str(here / "cache"))
    corpus = read(["book.txt"], settings, cache=here / "cache")
    config = plan(
        Request(SHAPE, settings, {*asdict(SHAPE), "steps", "batch_size", "seq_length"}), corpus, Machine(1e11)
    )
    run = Run.create(here / "run", config, corpus)
    learnt = weights(len(corpus.vocabulary))
    extra = {f"optimizer/{moment}/{name}": np.square(array) for name, array in learnt.items() for moment in "mv"}
    extra |= {f"state/lstm_{n}/{part}": np.full((4, 3), 0.5, np.float32) for n in range(2) for part in "hc"}
    told = {"text": "book", "characters": len(corpus.ids), "sha256": corpus.sha256, "chargen": "0.1.0", "step": 20}
    progress = Progress(step=20, seconds=3.5, best=1.5)
    ModelFile(learnt, corpus.vocabulary, SHAPE, {**told, "validation_bpc": 2.0}, {}).write(run.model_path)
    checkpoint = Checkpoint(learnt, corpus.vocabulary, SHAPE, {**told, "progress": asdict(progress)}, extra)
    checkpoint.write(run.checkpoint_path)
    line = {"epoch": 0.1, "seconds": 1.5, "training_bpc": 3.0, "validation_bpc": 2.5, "temperature": 1.0}
    line |= {"learning_rate": 0.01, "characters_per_second": 1000}
    run.write_metrics({"step": n, "characters": 32 * n, **line} for n in (10, 20))
    return run


def parts(data):
    """Return the two objects of a file's header, that of the arrays and that of chargen's, and the arrays' bytes."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    return table, json.loads(table.pop("__metadata__")["chargen"]), data[8 + length :]


def whole(table, told, arrays):
    """Return a file of these parts, and a checksum that is right: what nobody but an enemy writes."""
    told = told if isinstance(told, str) else json.dumps(told)
    head = json.dumps({"__metadata__": {"chargen": told}, **table}).encode()
    return with_checksum(len(head).to_bytes(8, "little") + head + arrays)


def changed(path, change):
    table, told, arrays = parts(path.read_bytes())
    arrays = bytearray(arrays)
    told = change(table, told, arrays) or told
    path.write_bytes(whole(table, told, bytes(arrays)))


def retyped(name, kind):
    """Return a change of an array's type in the table."""
    return lambda table, told, arrays: table[name].update(dtype=kind)


def numbered(name, value):
    """Return a change of an array's first number."""

    def change(table, told, arrays):
        at = table[name]["data_offsets"][0]
        arrays[at : at + 4] = np.float32(value).tobytes()

    return change


def valued(*names, value):
    """Return a change of a value in the header, by the names of the way to it."""

    def change(table, told, arrays):
        place = told
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value

    return change


def refused(result, *words):
    """Check that a command has ended with one line of an error that has these words in it."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert len(line) < 450
    assert all(word in line for word in words), line


HEADERS = [
    *((retyped("embedding", kind), ["embedding", "dtype"]) for kind in ("I32", "BOOL", "U8", "F64", "F16", "no", "")),
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
def test_a_header_that_cannot_be_true_is_refused_though_its_checksum_is_right(model, change, words):
    changed(model, change)
    refused(invoke("sample", "--model", model, "--length", 5), str(model), *words)


def test_a_model_that_is_only_changed_and_sealed_again_is_read(model):
    changed(model, valued("summary", "step", value=8))
    assert ModelFile.read(model).summary["step"] == 8


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "a socket", "30 GB", "nothing", "a dangling link"])
def test_what_is_no_regular_file_of_a_plausible_size_is_refused_at_once(model, kind, monkeypatch):
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


def test_a_file_that_is_longer_than_its_header_says_is_not_read(model):
    os.truncate(model, SPARSE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChargenError, match="no such file of chargen's has more"):
        ModelFile.read(model)
    os.truncate(model, 2**33)
    with pytest.raises(ChargenError, match="longer than its header says"):
        ModelFile.read(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_all_of_a_model_is_under_the_checksum(model):
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
    *((name, -1) for name in ("step", "nats", "characters", "clock", "seconds", "best", "worse", "factor")),
    *((name, None) for name in ("step", "seconds", "factor", "finished")),
    *[("step", 10**30), ("step", 7.5), ("factor", 2), ("finished", 1), ("recoveries", [])],
]


@pytest.mark.parametrize(("name", "value"), PROGRESS)
def test_a_checkpoint_whose_progress_cannot_be_is_refused_by_name(run, name, value):
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
def test_a_checkpoint_that_cannot_be_is_refused(run, change, words):
    before = run.config_path.read_bytes()
    changed(run.checkpoint_path, change)
    refused(invoke("train", "--resume", run.path), "checkpoint.safetensors", *words)
    assert run.config_path.read_bytes() == before


def test_a_checkpoint_of_a_run_that_begins_with_a_model_has_neither_moments_nor_state(run):
    file = Checkpoint.read(run.checkpoint_path)
    Checkpoint(file.weights, file.vocabulary, file.config, file.summary, {}).write(run.checkpoint_path)
    assert run.checkpoint().extra == {}


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "30,"])
def test_a_run_with_something_else_in_place_of_a_file_is_refused_at_once(run, name, kind):
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
def test_a_configuration_that_cannot_be_is_refused_by_the_name_of_its_field(run, names, value, word):
    told = json.loads(run.config_path.read_text())
    place = told
    for name in names[:-1]:
        place = place[name]
    if names:
        place[names[-1]] = value
    run.config_path.write_text(json.dumps(told if names else value))
    refused(invoke("train", "--resume", run.path), "config.json is damaged", word)


@pytest.mark.parametrize("part", ["", "model", "train", "execution"])
def test_a_configuration_without_one_of_its_fields_is_refused(run, part):
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
def test_a_configuration_that_is_no_json_is_refused(run, content):
    run.config_path.write_text(content)
    refused(invoke("train", "--resume", run.path), "config.json is damaged")
    run.config_path.write_bytes(b"\xff\xfe")
    refused(invoke("train", "--resume", run.path), "config.json is damaged")


def test_a_configuration_names_files_that_are_not_utf8(run):
    """Python has a lone surrogate for each byte of a name that is none."""
    told = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**told, "files": ["/caf\udce9.txt"], "name": "caf\udce9"}))
    assert Run(run.path).config.files == ("/caf\udce9.txt",)
    refused(invoke("train", "--resume", run.path), "is gone")


def test_a_configuration_names_files_that_no_disk_has(run):
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
def test_a_line_of_the_metrics_that_is_no_record_is_named(run, line):
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    refused(invoke("plot", run.path, "--output", run.path / "a.svg"), "metrics.jsonl is damaged: line 3")


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_value_of_the_metrics_that_cannot_be_is_named(run, name, value):
    path = run.path / "metrics.jsonl"
    first, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(last), name: value})}\n")
    refused(invoke("plot", run.path, "--output", run.path / "a.svg"), f"line 2: {name}")


@pytest.fixture
def state(model, tmp_path):
    clone = Clone.open(model)
    clone.feed("ab")
    clone.save_state(tmp_path / "state", np.random.default_rng(1))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (retyped("lstm_0/h", "I32"), ["'lstm_0/h'", "dtype"]),
        (numbered("lstm_1/c", np.nan), ["'lstm_1/c'", "not finite"]),
        (lambda table, told, arrays: table["lstm_0/h"].update(shape=[3, 1]), ["h and c"]),
        (lambda table, told, arrays: table["lstm_0/h"].update(shape=[3]), ["h and c"]),
        (lambda table, told, arrays: table["lstm_0/h"].update(shape=[]), ["'lstm_0/h'"]),
        (lambda table, told, arrays: table.update(a=table.pop("lstm_0/h")), ["h and c"]),
        (valued("generator", value={"state": 1}), ["generator"]),
        (valued("generator", "bit_generator", value="MT19937"), ["generator.bit_generator"]),
        (valued("generator", "state", "inc", value=-1), ["generator"]),
        (valued("generator", "state", "state", value=2**128), ["generator"]),
        (valued("generator", "state", "state", value="1"), ["generator.state.state"]),
        (valued("generator", "has_uint32", value=2**40), ["generator"]),
        (valued("generator", "uinteger", value=None), ["generator.uinteger"]),
        (valued("model", value="another"), ["model"]),
        (valued("model", value="0" * 64), ["of another model"]),
        (valued("format", value=2), ["format 2"]),
        (lambda table, told, arrays: told.pop("generator") and None, ["generator", "missing"]),
        (lambda table, told, arrays: NESTED, ["not a file of chargen's"]),
    ],
)
def test_a_state_that_cannot_be_is_refused(model, state, change, words):
    if words == ["not a file of chargen's"]:
        state.write_bytes(state.read_bytes().replace(b'{\\"checksum', b'{\\"a\\": ' + NESTED.encode() + b"\\"))
    else:
        changed(state, change)
    refused(invoke("sample", "--model", model, "--length", 5, "--load-state", state), str(state), *words)


def test_a_state_is_not_saved_over_anything_else(model, state, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", SPARSE)
    for name in ("pipe", "big"):
        result = invoke("sample", "--model", model, "--length", 5, "--save-state", tmp_path / name)
        refused(result, name, "is no saved state: name another file")


CORPUS = ["one\n", "two, and more\n", "3"]


def cached(tmp_path):
    paths = []
    for number, text in enumerate(CORPUS):
        paths.append(str(tmp_path / f"{number}.txt"))
        (tmp_path / f"{number}.txt").write_text(text)
    corpus = read(paths, cache=tmp_path / "cache")
    [folder] = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    return paths, corpus, folder


def resaved(name, change):
    """Return a change of an array of the cache by NumPy."""

    def made(folder):
        np.save(folder / name, change(np.load(folder / name)))

    return made


def told(*, sealed=True, **values):
    """Return a change of the cache's corpus.json, whose checksum is right again if it is sealed."""

    def made(folder):
        data = json.dumps({**json.loads((folder / "corpus.json").read_text()), **values}).encode()
        (folder / "corpus.json").write_bytes(with_checksum(data) if sealed else data)

    return made


def replaced(name, make):
    """Return a change of a file in a folder, or of the folder itself, for something else."""

    def made(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return made


CACHES = [
    resaved("ids.npy", lambda ids: np.where(np.arange(len(ids)) == 3, ids ^ 1, ids)),
    resaved("ids.npy", lambda ids: ids * 2),
    resaved("ids.npy", lambda ids: -ids.astype(np.int8)),
    resaved("ids.npy", lambda ids: np.ones_like(ids)),
    resaved("ids.npy", lambda ids: np.full_like(ids, 255)),
    resaved("ids.npy", lambda ids: ids.astype(np.uint16)),
    resaved("ids.npy", lambda ids: ids.astype(bool)),
    resaved("ids.npy", lambda ids: ids[::-1]),
    resaved("ids.npy", lambda ids: ids[:-1]),
    resaved("ids.npy", lambda ids: ids[None]),
    resaved("ids.npy", lambda ids: np.concatenate([ids, ids])),
    resaved("ids.npy", lambda ids: np.asarray(np.array(["a"]), object)),
    resaved("starts.npy", lambda starts: starts + 1),
    resaved("starts.npy", lambda starts: starts * 1000),
    resaved("starts.npy", lambda starts: starts[::-1]),
    resaved("starts.npy", lambda starts: starts.astype(np.float64)),
    resaved("starts.npy", lambda starts: starts[:1]),
    resaved("starts.npy", lambda starts: starts[:0]),
    told(notes=["new"], sealed=False),
    told(unknown="a", sealed=False),
    told(checksum="0", sealed=False),
    told(vocabulary=7),
    told(vocabulary="ab"),
    told(unknown="x"),
    told(characters=2**50),
    told(characters=0),
    told(documents=2),
    told(notes="none"),
    told(sha256="x"),
    told(ids=1),
    told(starts=2**70),
    *(replaced(name, os.mkfifo) for name in ("ids.npy", "starts.npy", "corpus.json")),
    *(replaced(name, lambda path: path.mkdir()) for name in ("ids.npy", "starts.npy", "corpus.json")),
    *(replaced(name, lambda path: path.symlink_to("/dev/zero")) for name in ("ids.npy", "starts.npy", "corpus.json")),
    *(replaced(name, lambda path: path.write_text(NESTED)) for name in ("ids.npy", "starts.npy", "corpus.json")),
    *(replaced(name, lambda path: None) for name in ("ids.npy", "starts.npy", "corpus.json")),
    lambda folder: os.truncate(folder / "ids.npy", SPARSE),
    lambda folder: os.truncate(folder / "corpus.json", SPARSE),
    lambda folder: [file.unlink() for file in folder.iterdir()],
    replaced("", lambda path: path.write_text("a file")),
    replaced("", os.mkfifo),
    replaced("", lambda path: path.symlink_to(path.parent)),
    replaced("", lambda path: path.symlink_to("nowhere")),
]


@pytest.mark.parametrize("number", range(len(CACHES)))
def test_a_damaged_cache_is_made_again(tmp_path, number):
    paths, before, folder = cached(tmp_path)
    ids = before.ids.copy()
    files = [(folder / name).read_bytes() for name in ("ids.npy", "starts.npy", "corpus.json")]
    CACHES[number](folder)
    after = read(paths, cache=tmp_path / "cache")
    assert (after.ids == ids).all()
    assert (after.starts == before.starts).all()
    assert (after.vocabulary, after.sha256) == (before.vocabulary, before.sha256)
    assert after.notes == (f"{folder} was damaged: it was made again",)
    assert files == [(folder / name).read_bytes() for name in ("ids.npy", "starts.npy", "corpus.json")]
    assert read(paths, cache=tmp_path / "cache").notes == ()


@pytest.mark.parametrize("number", range(12))
def test_a_text_that_only_the_run_has_is_refused_when_it_is_damaged(here, number):
    settings = TrainConfig(steps=100)
    corpus = replace(read(["book.txt"], settings), files=("-",))
    run = Run.create(here / "run", plan(Request(SHAPE, settings, {"steps"}), corpus, Machine(1e11)), corpus)
    assert (run.corpus().ids == corpus.ids).all()
    CACHES[number](run.path / "corpus")
    with pytest.raises(ChargenError, match=r"corpus is damaged: ids\.npy.*; restore it|ids.npy can't be read"):
        run.corpus()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: path.write_bytes(b""),
        lambda path: changed(path, retyped("places", "F32")),
        lambda path: changed(path, valued("sha256", value="0" * 64)),
        lambda path: changed(path, valued("sha256", value=0)),
        lambda path: changed(path, lambda table, told, arrays: arrays.__setitem__(slice(0, 4), b"\xff" * 4)),
        lambda path: changed(path, lambda table, told, arrays: table.update(x=table.pop("places"))),
        lambda path: changed(path, lambda table, told, arrays: f'{{"a": {NESTED}, {json.dumps(told)[1:]}'),
        lambda path: os.truncate(path, SPARSE),
        replaced("", os.mkfifo),
        replaced("", lambda path: path.symlink_to("/dev/zero")),
    ],
)
def test_a_damaged_index_is_made_again(here, change):
    corpus = read(["book.txt"])
    places, path = build(corpus.ids), here / "originality.safetensors"
    assert (index(corpus, path) == places).all()
    data = path.read_bytes()
    change(path)
    assert (index(corpus, path) == places).all()
    assert path.read_bytes() == data
