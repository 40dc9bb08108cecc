"""How options are named and their values refused."""

import pytest

from tests.conftest import invoke


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["train", "--from", "book.txt", "--output-rank", "3", "--layers", "2"], "--layers, --output-rank"),
        (["train", "--resume", "run", "--keep-boilerplate", "--from", "book.txt"], "--from, --keep-boilerplate"),
        (["train", "--minutes", "3", "--steps", "3"], "--minutes, --steps"),
        (["sample", "--pattern", "book.txt", "--stop", "a", "--top-k", "3"], "--stop, --top-k"),
        (["sample", "--seed-from-book", "--seed", "a"], "--seed-from-book"),
    ],
)
def test_options_are_named_as_they_are_typed(here, arguments, options):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert f" {options}" in done.stderr.splitlines()[-1]
    assert "_" not in done.stderr
