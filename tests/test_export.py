import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from chargen import ChargenError
from chargen.clone import Clone
from chargen.config import ModelConfig
from chargen.export import FORMATS, Export, check, export
from chargen.export.proof import LARGEST, Evidence, drawn
from chargen.modelfile import ModelFile, weight_shapes
from chargen.run import open_model
from chargen.vocabulary import Vocabulary
from tests.conftest import chargen

PAIRS = [(name, numbers) for name, form in FORMATS.items() for numbers in form.quantizations]
SCRIPTS = [(name, numbers) for name, numbers in PAIRS if FORMATS[name].snippet]
LAYERS = {"of 1 layer": 1, "of 3 layers": 3}

# A process with this before its program is without chargen, wherever it is installed.
WITHOUT_CHARGEN = "import sys; sys.modules['chargen'] = None\n"


def random_model(layers, units=20):
    """A model that has learnt nothing, of accents, Chinese, emoji, and characters that markup and JSON escape."""
    random = np.random.default_rng(layers)
    vocabulary = Vocabulary("".join(sorted("\n \"$&'<>\\Thaeglorty{}éß漢字仮😀🧑\u0301")))
    config = ModelConfig(layers=layers, units=units, embedding=7)
    weights = {
        name: (random.normal(size=shape) * (1 if name == "embedding" else 2 / shape[0] ** 0.5)).astype(np.float32)
        for name, shape in weight_shapes(len(vocabulary), config).items()
    }
    return ModelFile(weights=weights, vocabulary=vocabulary, config=config, summary={"text": "book"}, extra={})


@pytest.fixture(scope="session")
def models(trained):
    return {"trained, of 2 layers": open_model(trained)} | {name: random_model(n) for name, n in LAYERS.items()}


def exported(model, name, numbers, folder, clone=None, *, force=False):
    """The artefact's path and what its proof found, of an export to a folder."""
    clone = clone or Clone(model.weights, model.vocabulary)
    evidence = Evidence(clone, drawn(clone), "a text that the model drew", numbers)
    return export(Export(model, "book", name, numbers), folder, evidence, force=force)


def greedy(model, seed, length):
    clone = Clone(model.weights, model.vocabulary)
    clone.feed(seed)
    return seed + "".join(clone.generate(length, temperature=0))


@pytest.mark.parametrize("which", ["trained, of 2 layers", *LAYERS])
@pytest.mark.parametrize(("name", "numbers"), PAIRS)
def test_every_format_says_in_its_own_runtime_what_the_model_says(models, tmp_path, which, name, numbers):
    before = {key: array.copy() for key, array in models[which].weights.items()}
    path, found = exported(models[which], name, numbers, tmp_path)
    assert name == "html" or "characters a second in" in found[0]  # a page's is the browser's, if there is one
    assert ("greedy characters equal" if numbers == "none" else "% allowed") in found[-1]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, f"{path.name}.md"])
    assert all((array == before[key]).all() for key, array in models[which].weights.items())


@pytest.mark.parametrize(("name", "numbers"), SCRIPTS)
def test_the_note_beside_an_artefact_runs_where_there_is_no_chargen(models, tmp_path, name, numbers):
    model = models["of 3 layers"]
    path, _ = exported(model, name, numbers, tmp_path)
    note = (tmp_path / f"{path.name}.md").read_text("utf-8")
    _, program, _ = note.split("```")
    assert len(program.splitlines()) <= 25
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHARGEN + program.removeprefix("python\n")],
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "utf-8", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = greedy(model, "The", 100)
    if numbers == "none":
        assert done.stdout.decode().startswith(expected + "\n")
    else:
        assert len(done.stdout.decode().removesuffix("\n")) == len(expected)


def about(path, name):
    """What an artefact says of itself, read as somebody without chargen would."""
    if name == "savedmodel":
        return json.loads((path / "chargen.json").read_text("utf-8"))
    if name in ("keras", "litert"):
        return json.loads(zipfile.ZipFile(path).read("chargen.json"))
    if name == "onnx":
        import onnx

        return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["chargen"])
    if name == "html":
        page = path.read_text("utf-8")
        return json.loads(page.split('id="about">')[1].split("</script>")[0])
    data = (path / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["chargen"])


@pytest.mark.parametrize("name", FORMATS)
def test_an_artefact_carries_vocabulary_configuration_and_summary(models, tmp_path, name):
    model = models["trained, of 2 layers"]
    path, _ = exported(model, name, FORMATS[name].quantizations[0], tmp_path)
    told = about(path, name)
    assert told["vocabulary"] == model.vocabulary.characters
    assert told["model"] == model.config.to_json()
    assert told["summary"]["validation_bpc"] == model.summary["validation_bpc"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_says_something_else_is_removed(models, tmp_path, name):
    model = models["of 1 layer"]
    bias = model.weights["dense/bias"].copy()
    bias[0] += 4
    clone = Clone({**model.weights, "dense/bias": bias}, model.vocabulary)
    with pytest.raises(ChargenError, match="failed its proof"):
        exported(model, name, FORMATS[name].quantizations[0], tmp_path, clone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["savedmodel", "onnx"])
def test_what_exists_is_left_unless_it_is_to_be_replaced(models, tmp_path, name):
    path, _ = exported(models["of 1 layer"], name, "none", tmp_path)
    old = about(path, name)
    with pytest.raises(ChargenError, match="exists and is left as it is"):
        exported(models["of 3 layers"], name, "none", tmp_path)
    assert about(path, name) == old
    exported(models["of 3 layers"], name, "none", tmp_path, force=True)
    assert about(path, name)["model"]["layers"] == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, f"{path.name}.md"])


def test_the_saved_model_draws_inside_its_graph(models, tmp_path):
    import tensorflow as tf

    model = models["of 3 layers"]
    path, _ = exported(model, "savedmodel", "none", tmp_path)
    generate = tf.saved_model.load(str(path)).signatures["generate"]

    def text(seed, length, temperature, random_seed):
        drawn_ids = generate(
            ids=tf.constant([model.vocabulary.encode(seed).astype(np.int32)]),
            length=tf.constant(length),
            temperature=tf.constant(temperature),
            random_seed=tf.constant(random_seed),
        )["ids"].numpy()
        assert drawn_ids.shape == (1, length)
        return model.vocabulary.decode(drawn_ids[0])

    assert "The" + text("The", 100, 0.0, 0) == greedy(model, "The", 100)
    assert text("é", 40, 0.8, 1) == text("é", 40, 0.8, 1)
    assert text("é", 40, 0.8, 1) != text("é", 40, 0.8, 2)
    # A draw is by the model's probabilities: the first characters of many texts occur as often as it expects.
    clone = Clone(model.weights, model.vocabulary)
    logits = clone.feed("T").astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    draws = [model.vocabulary.encode(text("T", 1, 1.0, n))[0] for n in range(1000)]
    counts = np.bincount(draws, minlength=len(expected))
    assert np.abs(counts / 1000 - expected).max() < 0.06


def test_the_onnx_file_reads_a_whole_window_as_it_reads_characters(models, tmp_path):
    import onnxruntime

    model = models["of 3 layers"]
    path, _ = exported(model, "onnx", "none", tmp_path)
    assert [node.op_type for node in __import__("onnx").load(path).graph.node].count("LSTM") == 3
    session = onnxruntime.InferenceSession(path)
    zero = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name != "ids"}
    ids = model.vocabulary.encode("The gray 漢字😀").astype(np.int64)
    whole, *_ = session.run(None, {"ids": ids[None], **zero})
    parts, state = [], zero
    for part in (ids[:3], ids[3:4], ids[4:]):
        logits, *after = session.run(None, {"ids": part[None], **state})
        state = dict(zip(state, after, strict=True))
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


def test_the_command_writes_into_the_run_and_tells_what_it_found(trained, here):
    (here / "runs").mkdir()
    (here / "runs" / "book").symlink_to(trained)
    done = chargen("export", cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/book/exports/book.savedmodel, ")
    assert "characters of the validation text within" in done.stdout
    assert done.stderr == ""
    again = chargen("export", "--format", "savedmodel", cwd=here)
    assert again.returncode == 1
    assert "--force" in again.stderr
    moved = chargen(
        "export", "--format", "numpy", "--format", "onnx", "--quantize", "none", "--output", "out", cwd=here
    )
    assert moved.returncode == 0, moved.stderr
    assert sorted(file.name for file in (here / "out").iterdir()) == [
        "book.numpy", "book.numpy.md", "book.onnx", "book.onnx.md",
    ]  # fmt: skip


def test_a_model_by_itself_is_compared_on_a_text_that_it_draws(trained, here):
    (here / "mine.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    done = chargen("export", "--model", "mine.safetensors", "--format", "litert", "--quantize", "int8", cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "exports" / "mine.int8.tflite").exists()
    assert "5,000 characters of a text that the model drew" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        (["--format", "keras", "--quantize", "int8"], "litert: none, float16, int8", 2),
        (["--format", "exe"], "'savedmodel', 'keras', 'litert', 'onnx', 'html', 'numpy'", 2),
        (["--output", "book.txt"], "book.txt", 2),
        (["--format", "numpy", "--output", "book.txt/here"], "name another folder", 1),
    ],
)
def test_what_can_not_be_exported_is_refused_in_one_line(trained, here, arguments, told, code):
    done = chargen("export", "--model", str(trained), *arguments, cwd=here)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_format_whose_packages_are_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr("chargen.export.find_spec", lambda name: None)
    with pytest.raises(ChargenError, match=r"pip install 'chargen\[onnx\]'"):
        check("onnx")
    check("numpy")

    from click.testing import CliRunner

    from chargen.cli import main

    told = CliRunner().invoke(main, ["export", "--help"]).output
    assert "chargen[litert]" in told.replace("\n", "")


def test_a_proof_reads_ties_as_ties_and_no_further():
    from chargen.export.proof import compare

    model = random_model(1)
    clone = Clone(model.weights, model.vocabulary)
    ids = drawn(clone)
    other = Clone(model.weights, model.vocabulary)

    def start(change):
        other.reset_states()
        return lambda some: other.read(some) + change(len(some))

    evidence = Evidence(clone, ids, "a text", "none")
    assert compare(lambda: start(lambda n: np.float32(0.9 * LARGEST)), evidence, "here")
    with pytest.raises(ChargenError, match="a logit differs"):
        compare(lambda: start(lambda n: np.float32(1.1 * LARGEST)), evidence, "here")
    with pytest.raises(ChargenError, match="no logits"):
        compare(lambda: start(lambda n: np.float32(np.nan)), evidence, "here")
    with pytest.raises(ChargenError, match="not equal"):  # right in a window, wrong by the character
        compare(
            lambda: start(lambda n: 0 if n > 1 else np.linspace(0, 9, len(model.vocabulary), dtype=np.float32)),
            evidence,
            "here",
        )
