"""The imports, read from the source: they point one way, and TensorFlow stays below its line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chargen

PACKAGE = Path(chargen.__file__).parent

# Modules and folders at the top of the package: each imports only what stands before it, or its own folder.
ORDER = [
    *("__init__", "process", "bits", "terminal", "files", "config", "machine", "plot"),
    *(
        "text",
        "store",
        "writing",
        "serving",
        "network",
        "training",
        "export",
        "lab",
        "bench",
        "commands",
        "cli",
        "__main__",
    ),
]
ABOVE_THE_LINE = ORDER[: ORDER.index("network")]
# Modules below the line that stay free of TensorFlow too.
FREE = {"training.plan", "training.compressor", "lab", "lab.page"}
FREE |= {"export", "export.html", "export.numpy", "export.onnx", "export.verify"}
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
    if "corpora" not in file.parts
}


def imported(module):
    """The modules that a module imports, at its top or inside its functions; not for types alone."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":  # the public face, loaded when asked for
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = (node.module or "").removeprefix("chargen").removeprefix(".")
            for alias in node.names:
                name = f"{package}.{alias.name}".removeprefix(".")
                yield name if name in MODULES else package or "__init__"


def ours(module):
    return {name for name in imported(module) if name in MODULES and name != module}


def room(module):
    return module.split(".")[0]


def test_every_module_and_folder_has_its_place():
    assert {room(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    before = ORDER[: ORDER.index(room(module)) + 1]
    assert {room(name) for name in ours(module)} <= set(before)


def test_no_imports_go_in_a_circle():
    left = {module: ours(module) for module in MODULES}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in ABOVE_THE_LINE or m in FREE])
def test_tensorflow_stays_below_its_line(module):
    assert not {room(name) for name in imported(module)} & {"tensorflow", "keras", "network"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["export", "--help"],
        ["lab"],
        ["help"],
        ["help", "training"],
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
