"""The imports, read from the source: they point one way, and TensorFlow stays where it is named."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chargen

PACKAGE = Path(chargen.__file__).parent

# Lowest first: a module imports only modules that stand before it.
ORDER = [
    *("__init__", "process", "bits", "reading", "config", "vocabulary", "arrays", "disk", "modelfile"),
    *("documents", "corpus", "streams"),
    *("run", "plan", "sampler", "generate", "clone", "pattern", "originality", "terminal"),
    *("showing", "interactive"),
    *("baseline", "surprisal", "plot"),
    *("unroll", "model", "optimizer", "distribute", "evaluate", "train", "keras_face"),
    *("export.__init__", "export.proof", "export.html", "export.numpy", "export.sample", "export.onnx"),
    *("export.keras", "export.savedmodel", "export.litert"),
    *("lab.__init__", "lab.page", "lab.learning", "lab.streams", "lab.stateful", "lab.alphabet", "lab.encoding"),
    *("lab.outputs", "lab.divisible", "lab.cosine", "lab.state", "lab.memory", "lab.author", "lab.lengths"),
    *("lab.temperature", "bench", "shell", "commands.__init__"),
    *("commands.train", "commands.sample", "commands.eval", "commands.plot", "commands.export", "commands.lab"),
    *("commands.launch", "commands.bench"),
    *("cli", "__main__"),
]
TENSORFLOW = {"unroll", "model", "optimizer", "distribute", "evaluate", "train", "keras_face", "bench"}
TENSORFLOW |= {"export.keras", "export.savedmodel", "export.litert"}
TENSORFLOW |= {module for module in ORDER if module.startswith("lab.")} - {"lab.__init__", "lab.page"}


def place(name):
    """A module's name in ORDER; a package is its ``__init__``."""
    return f"{name}.__init__" if (PACKAGE / name.replace(".", "/")).is_dir() else name


def imported(module):
    """The names of the modules that a module imports, at its top or inside its functions; not for types alone."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":  # the package's face, made when asked for
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "chargen":
            names = (place(alias.name) for alias in node.names)
            yield from (name if name in ORDER else "__init__" for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield place((node.module or "").removeprefix("chargen."))


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in PACKAGE.rglob("*.py")
        if "corpora" not in file.parts
    )


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    ours = {name for name in imported(module) if name in ORDER}
    assert ours <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [m for m in ORDER if m not in TENSORFLOW and ORDER.index(m) < ORDER.index("shell")])
def test_tensorflow_stays_below_its_line(module):
    outside = {name.split(".")[0] for name in imported(module)}
    assert not outside & {"tensorflow", "keras"}
    assert not set(imported(module)) & TENSORFLOW


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["export", "--help"],
        ["lab"],
        ["sample", "--seed", "the ", "--length", "5", "--model"],
    ],
)
def test_help_and_sample_never_import_tensorflow(arguments, trained):
    if arguments[-1] == "--model":
        arguments = [*arguments, str(trained)]
    program = (
        "import sys\nfrom chargen.cli import main\nmain(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'tqdm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_command_line_starts_without_numpy_whose_threads_a_command_still_has_to_set():
    program = "import sys, chargen.cli\nprint({'numpy', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
