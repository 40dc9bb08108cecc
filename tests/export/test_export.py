import dataclasses
import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.export import FORMATS, Export, check, export, module
from chargen.export.verify import TOLERANCE, Reference, compare, drawn
from chargen.store.modelfile import ModelFile, weight_shapes
from chargen.store.run import open_model
from chargen.text.vocabulary import UNKNOWN, Vocabulary
from chargen.writing.clone import Clone
from tests.conftest import chargen, invoke, once

PAIRS = [(name, numbers) for name, form in FORMATS.items() for numbers in form.quantizations]
SLOW = {"savedmodel", "keras"}  # TensorFlow takes seconds
LONG = pytest.mark.long
SCRIPTS = [pytest.param(*p, marks=[LONG] * (p[0] in SLOW)) for p in PAIRS if FORMATS[p[0]].snippet]
TRAINED = "trained, of 2 layers"
LAYERS = {"of 1 layer": 1, "of 3 layers": 3}
EVERY = [
    pytest.param(*pair, which, marks=[LONG] * (pair[0] in SLOW and which == "of 1 layer"))
    for pair in PAIRS
    for which in (TRAINED, *LAYERS)
]

# Before a program, this hides chargen from it.
WITHOUT_CHARGEN = "import sys; sys.modules['chargen'] = None\n"


def random_model(layers, units=20):
    """An untrained model with accents, Chinese, emoji, and characters that markup and JSON escape.

    With one layer it has an unknown character, which no runtime may draw.
    """
    random = np.random.default_rng(layers)
    unknown = UNKNOWN if layers == 1 else None
    characters = "\n \"$&'<>\\Thaeglorty{}éß漢字仮😀🧑\u0301" + (unknown or "")
    vocabulary = Vocabulary("".join(sorted(characters)), unknown)
    config = ModelConfig(layers=layers, units=units, embedding=7)
    weights = {
        name: (random.normal(size=shape) * (1 if name == "embedding" else 2 / shape[0] ** 0.5)).astype(np.float32)
        for name, shape in weight_shapes(len(vocabulary), config).items()
    }
    return ModelFile(weights, vocabulary, config, {"text": "book"}, {}).for_inference()


@pytest.fixture(scope="session")
def models(trained):
    """A trained model and random ones."""
    return {TRAINED: open_model(trained)} | {name: random_model(n) for name, n in LAYERS.items()}


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory, models):
    """Return a function that returns an artefact's path and the results of its verification. Each is made once."""

    def made(which, name, numbers):
        def build(folder):
            _, found = exported(models[which], name, numbers, folder / "out")
            (folder / "found.json").write_text(json.dumps(found))

        label = re.sub(r"\W+", "-", f"{which}-{name}-{numbers}")
        folder = once(tmp_path_factory, f"artefact-{label}", build)
        path = folder / "out" / Export(models[which], "book", name, numbers).filename
        return path, json.loads((folder / "found.json").read_text())

    return made


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    """The pages are opened in a browser by test_page."""
    monkeypatch.setattr("chargen.export.html.browser", lambda: None)


def exported(model, name, numbers, folder, clone=None, **options):
    """Export to a folder; return the artefact's path and the results of its verification."""
    clone = clone or Clone(model.weights, model.vocabulary)
    reference = Reference(clone, drawn(clone), "a text that the model drew", numbers)
    return export(Export(model, "book", name, numbers), folder, reference, **options)


def greedy(model, seed, length):
    clone = Clone(model.weights, model.vocabulary)
    clone.feed(seed)
    return seed + "".join(clone.generate(length, temperature=0))


@pytest.mark.parametrize(("name", "numbers", "which"), EVERY)
def test_every_format_agrees_with_the_model_in_its_own_runtime(models, artefacts, name, numbers, which):
    before = {key: array.copy() for key, array in models[which].weights.items()}
    path, found = artefacts(which, name, numbers)
    assert name == "html" or "characters a second in" in found[0]  # the speed of a page is measured in a browser
    assert ("greedy characters are equal" if numbers == "none" else "% allowed") in found[1]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, f"{path.name}.md"])
    assert all((array == before[key]).all() for key, array in models[which].weights.items())


@pytest.mark.parametrize(("name", "numbers"), SCRIPTS)
def test_the_note_beside_an_artefact_runs_without_chargen(models, artefacts, name, numbers):
    model = models["of 3 layers"]
    path, _ = artefacts("of 3 layers", name, numbers)
    note = path.with_name(f"{path.name}.md").read_text("utf-8")
    _, program, _ = note.split("```")
    assert len(program.splitlines()) <= 20
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHARGEN + program.removeprefix("python\n")],
        cwd=path.parent,
        env={
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
        },
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
    """Return the metadata of an artefact, read without chargen."""
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
    data = (path if name == "chargen" else path / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["chargen"])


@pytest.mark.parametrize("name", FORMATS)
def test_an_artefact_contains_vocabulary_configuration_and_summary(models, artefacts, name):
    model = models[TRAINED]
    path, _ = artefacts(TRAINED, name, FORMATS[name].quantizations[0])
    metadata = about(path, name)
    assert metadata["vocabulary"] == model.vocabulary.characters
    assert metadata["model"] == model.config.to_json()
    assert metadata["summary"]["validation_bpc"] == model.summary["validation_bpc"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_does_not_agree_with_the_model_is_removed(models, tmp_path, name):
    model = models["of 1 layer"]
    bias = model.weights["dense/bias"].copy()
    bias[0] += 4
    clone = Clone({**model.weights, "dense/bias": bias}, model.vocabulary)
    with pytest.raises(ChargenError, match="does not agree with the model"):
        exported(model, name, FORMATS[name].quantizations[0], tmp_path, clone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [pytest.param("savedmodel", marks=LONG), "onnx"])
def test_an_existing_artefact_is_replaced_only_with_force(models, artefacts, tmp_path, name):
    path, _ = artefacts("of 1 layer", name, "none")
    path = Path(shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)) / path.name
    old = about(path, name)
    with pytest.raises(ChargenError, match="exists and is left as it is"):
        exported(models["of 3 layers"], name, "none", tmp_path)
    assert about(path, name) == old
    exported(models["of 3 layers"], name, "none", tmp_path, force=True)
    assert about(path, name)["model"]["layers"] == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, f"{path.name}.md"])


def test_the_saved_model_draws_inside_its_graph(models, artefacts):
    import tensorflow as tf

    model = models["of 3 layers"]
    path, _ = artefacts("of 3 layers", "savedmodel", "none")
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
    assert text("The", 0, 1.0, 0) == ""
    assert text("é", 40, 0.8, 1) == text("é", 40, 0.8, 1)
    assert text("é", 40, 0.8, 1) != text("é", 40, 0.8, 2)
    # Draws follow the model's probabilities: so do the frequencies of the first characters of many texts.
    clone = Clone(model.weights, model.vocabulary)
    logits = clone.feed("T").astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    draws = [model.vocabulary.encode(text("T", 1, 1.0, n))[0] for n in range(1000)]
    counts = np.bincount(draws, minlength=len(expected))
    assert np.abs(counts / 1000 - expected).max() < 0.06


def test_the_onnx_file_reads_a_window_and_single_characters_alike(models, artefacts):
    import onnx
    import onnxruntime

    model = models["of 3 layers"]
    path, _ = artefacts("of 3 layers", "onnx", "none")
    assert [node.op_type for node in onnx.load(path).graph.node].count("LSTM") == 3
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


def test_the_command_writes_into_the_run_and_reports_the_verification(copied, here):
    done = invoke("export")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("runs/book/exports/book.savedmodel, ")
    assert "characters of the validation text" in done.stdout
    assert done.stderr == ""
    again = invoke("export", "--format", "savedmodel")
    assert again.exit_code == 1
    assert "--force" in again.stderr
    words = ["--format", "numpy", "--format", "onnx", "--quantize", "none", "--output", "out"]
    moved = chargen("export", *words, cwd=here)  # once in a process of its own
    assert (moved.returncode, moved.stderr) == (0, "")
    assert sorted(file.name for file in (here / "out").iterdir()) == [
        "book.numpy", "book.numpy.md", "book.onnx", "book.onnx.md",
    ]  # fmt: skip


def test_a_model_without_a_run_is_compared_on_a_text_that_it_draws(trained, here):
    (here / "mine.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    done = invoke("export", "--model", "mine.safetensors", "--format", "litert", "--quantize", "int8")
    assert done.exit_code == 0, done.stderr
    assert (here / "exports" / "mine.int8.tflite").exists()
    assert "5,000 characters of a text that the model drew" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--format", "keras", "--quantize", "int8"], "litert: none, float16, int8", 2),
        (["--format", "exe"], "'savedmodel', 'keras', 'litert', 'onnx', 'html', 'numpy', 'chargen'", 2),
        (["--output", "book.txt"], "book.txt", 2),
        (["--format", "numpy", "--output", "book.txt/here"], "name another folder", 1),
    ],
)
def test_an_export_that_is_not_possible_is_refused_in_one_line(trained, here, arguments, message, code):
    done = invoke("export", "--model", trained, *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_the_error_for_a_format_with_missing_packages_says_what_to_install(monkeypatch):
    monkeypatch.setattr("chargen.export.find_spec", lambda name: None)
    with pytest.raises(ChargenError, match=r"pip install 'chargen\[onnx\]'"):
        check("onnx")
    check("numpy")
    assert "chargen[litert]" in invoke("export", "--help").output.replace("\n", "")


def artefact(model, window=None, step=None):
    """Return a ``start`` for `compare` by a clone whose logits are changed, in windows and at single characters."""
    other = Clone(model.weights, model.vocabulary)

    def start():
        other.reset_states()

        def read(ids):
            change = window if len(ids) > 1 else step
            logits = other.read(ids)
            return logits if change is None else change(logits)

        return read

    return start


def shifted(by):
    """Return a change that adds to every other logit."""
    return lambda logits: logits + np.where(np.arange(logits.shape[1]) % 2, np.float32(by), np.float32(0))


def shouting(logits):
    """Make the first character by far the most likely."""
    return logits + np.eye(1, logits.shape[1], dtype=np.float32) * 99


@pytest.mark.parametrize(
    ("window", "step", "exact", "int8"),
    [
        (shifted(0.8 * TOLERANCE), shifted(0.8 * TOLERANCE), None, None),
        (shifted(1.2 * TOLERANCE), None, "0.001 allowed", None),
        (None, shouting, "not equal", "% allowed"),
        (None, lambda logits: logits * np.nan, "finite logits", "finite logits"),
        (lambda logits: logits[:, 1:], None, "finite logits", "finite logits"),
    ],
)
@pytest.mark.parametrize("numbers", ["none", "int8"])
def test_verification_fails_where_an_artefact_computes_something_else(numbers, window, step, exact, int8):
    model = random_model(1)
    clone = Clone(model.weights, model.vocabulary)
    reference = Reference(clone, drawn(clone), "a text", numbers)
    message = exact if numbers == "none" else int8
    if message is None:
        assert compare(artefact(model, window, step), reference, "here")
    else:
        with pytest.raises(ChargenError, match=message):
            compare(artefact(model, window, step), reference, "here")


def test_at_a_tie_an_artefact_may_take_either_character():
    model = random_model(1)
    kernel, bias = model.weights["dense/kernel"].copy(), model.weights["dense/bias"].copy()
    kernel[:, 1], bias[1] = kernel[:, 0], bias[0]
    bias[:2] += 9  # the first two are always tied as the most likely
    model = dataclasses.replace(model, weights={**model.weights, "dense/kernel": kernel, "dense/bias": bias})
    clone = Clone(model.weights, model.vocabulary)

    def swapped(by):
        return lambda logits: logits + np.where(np.arange(logits.shape[1]) == 1, np.float32(by), np.float32(0))

    reference = Reference(clone, drawn(clone), "a text", "none")
    assert "are equal" in compare(artefact(model, swapped(1e-4), swapped(1e-4)), reference, "here")[1]
    with pytest.raises(ChargenError, match="does not agree with the model"):
        compare(artefact(model, None, shifted(2 * TOLERANCE)), reference, "here")


@pytest.mark.parametrize(("quantize", "worst"), [("float16", 0.005), ("int8", 0.02)])
def test_smaller_numbers_are_refused_above_their_allowed_growth(quantize, worst):
    model = random_model(1)
    clone = Clone(model.weights, model.vocabulary)
    reference = Reference(clone, drawn(clone), "a text", quantize)

    def cost(temperature):
        start = artefact(model, lambda logits: logits / temperature, lambda logits: logits / temperature)
        try:
            found = compare(start, reference, "here")[1]
        except ChargenError as error:
            found = str(error)
        (percent,) = re.findall(r"\((.*?)%,", found)
        return float(percent) / 100, "does not agree" in found

    outcomes = [cost(np.float32(temperature)) for temperature in np.linspace(1, 4, 16)]
    assert {failed for _, failed in outcomes} == {True, False}
    assert all(failed == (change > worst) for change, failed in outcomes if abs(change - worst) > 1e-4)


def test_unknown_characters_of_the_text_do_not_hide_a_difference():
    """Their logit of -60,000 would be nearly all of the bits, of which a share is allowed."""
    model = random_model(1)
    clone = Clone(model.weights, model.vocabulary)
    ids = drawn(clone)[:1000].copy()
    ids[::10] = model.vocabulary.id_of(UNKNOWN)
    reference = Reference(clone, ids, "a text", "int8")
    assert "on 900 characters" in compare(artefact(model), reference, "here")[1]
    with pytest.raises(ChargenError, match="does not agree"):
        compare(artefact(model, shouting), reference, "here")


def test_a_vocabulary_of_one_character_is_exported(tmp_path):
    config = ModelConfig(units=4, embedding=2)
    weights = {name: np.ones(shape, np.float32) for name, shape in weight_shapes(1, config).items()}
    model = ModelFile(weights=weights, vocabulary=Vocabulary("a"), config=config, summary={}, extra={})
    for name in ("numpy", "onnx", "html"):
        for numbers in FORMATS[name].quantizations:
            assert exported(model, name, numbers, tmp_path)[0].exists()


def test_a_2x512_model_is_a_page_of_less_than_5_mb(tmp_path):
    config = ModelConfig(layers=2, units=512)
    characters = "".join(map(chr, range(32, 132)))
    random = np.random.default_rng(0)
    shapes = weight_shapes(len(characters), config)
    weights = {name: random.normal(size=shape).astype(np.float32) / 20 for name, shape in shapes.items()}
    model = ModelFile(weights=weights, vocabulary=Vocabulary(characters), config=config, summary={}, extra={})
    module("html").write(Export(model, "big", "html", "int8"), tmp_path / "big.html")
    assert (tmp_path / "big.html").stat().st_size < 5_000_000


def test_without_the_validation_text_of_the_model_a_drawn_text_is_used(trained, here):
    run = here / 'my "best" run'
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps({**config, "files": [str(here / "gone.txt")]}), "utf-8")
    done = invoke("export", "--model", run, "--format", "numpy")
    assert done.exit_code == 0, done.stderr
    assert "a text that the model drew" in done.stdout
    assert (run / "exports" / "my-best-run.numpy").is_dir()
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    random_model(1).write(run / "other.safetensors")
    done = invoke("export", "--model", run / "other.safetensors", "--format", "numpy")
    assert done.exit_code == 0, done.stderr
    assert "a text that the model drew" in done.stdout
    assert (run / "exports" / "other.numpy").is_dir()


def test_the_webassembly_of_the_page_is_compiled_from_its_source():
    import wasmtime

    here = files("chargen.export").joinpath("page")
    assert wasmtime.wat2wasm(here.joinpath("product.wat").read_text()) == here.joinpath("product.wasm").read_bytes()
