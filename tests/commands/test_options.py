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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--units", "0"], "--units 0: give a whole number from 1 to 65536"),
        (["train", "--units", "1.5"], "--units 1.5: give a whole number from 1 to 65536"),
        (["train", "--batch-size", "-1"], "--batch-size -1: give a whole number of at least 1"),
        (["train", "--dropout", "1"], "--dropout 1: give a number from 0 to 0.95"),
        (["train", "--minutes", "0"], "--minutes 0: give a number above 0 and below 1000000"),
        (["train", "--minutes", "inf"], "--minutes inf: give a number above 0 and below 1000000"),
        (["sample", "--top-p", "nan"], "--top-p nan: give a number from 0 to 1"),
        (["sample", "--top-k", ""], "--top-k '': give a whole number of at least 1"),
        (["sample", "--count", "x\n"], "--count 'x\\n': give a whole number of at least 1"),
        (["bench", "corpus", "--megabytes", "much"], "--megabytes much: give a number from 1 to 1000000"),
    ],
)
def test_a_number_that_an_option_does_not_take_is_refused_with_its_range(here, arguments, message):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {message}"
