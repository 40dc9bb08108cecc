"""Sampling at its limits: any length, any count, any expression, and every way to end it."""

import io
import json
import re
import resource
import shlex
import signal
import subprocess
import time
import tracemalloc
from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.bits import bits
from chargen.commands import sample
from chargen.commands.common import Stop
from chargen.config import ModelConfig, SampleConfig
from chargen.files.disk import PREFIX
from chargen.store.modelfile import ModelFile, weight_shapes
from chargen.terminal import Clusters
from chargen.text.vocabulary import UNKNOWN, Vocabulary
from chargen.writing import originality, pattern
from chargen.writing.clone import Clone
from chargen.writing.generate import LENGTH, SIGNAL, Piece, Until, batch_rows, generate, samples, seed_of
from chargen.writing.sampler import LONGEST_EXPRESSION, expression, filters, generators
from chargen.writing.showing import Collected, JsonLines, Plain, Shaded, in_turn, kept, show
from tests.conftest import SMALL, command, invoke

LETTERS = "\n abcdehnot"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model of a few letters."""
    random, config = np.random.default_rng(3), ModelConfig(units=8, embedding=4)
    weights = {
        name: random.normal(size=s).astype(np.float32) for name, s in weight_shapes(len(LETTERS), config).items()
    }
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    ModelFile(weights=weights, vocabulary=Vocabulary(LETTERS), config=config, summary={}, extra={}).write(path)
    return path


def drawn(model, *arguments):
    return invoke("sample", "--model", model, "--length", 30, "--random-seed", 1, *arguments)


# Memory


class Nowhere(io.StringIO):
    encoding = "utf-8"

    def write(self, text):
        return len(text)


def grown(writer, characters, rows=1, report=None):
    """The peak memory of showing samples, in bytes."""
    drawn = (Piece(k, "é" * (i < characters), (1.5,), None if i < characters else LENGTH) for i in range(characters + 1)
             for k in range(rows))  # fmt: skip
    ends = (piece if piece.text else piece._replace(nats=()) for piece in drawn)
    tracemalloc.start()
    show(ends, writer, report)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("writer", "rows", "report", "most"),
    [
        (lambda: Plain(Nowhere(), "The", 1), 1, None, 0),
        (lambda: Shaded(Nowhere(), "The", 1), 1, None, 0),
        (lambda: JsonLines(Nowhere(), "The", {"random_seed": 1}), 1, None, 30),  # its text and its nats
        (lambda: Plain(Nowhere(), "The", 1), 1, lambda sample, text: None, 12),  # its text
        (lambda: Plain(Nowhere(), "The", 2), 2, None, 30),  # what the second has drawn when the first ends
    ],
)
def test_a_writer_keeps_what_it_needs_and_no_more(writer, rows, report, most):
    grown(writer(), 1000, report=report)
    assert grown(writer(), 15_000, rows, report) - grown(writer(), 5_000, rows, report) < most * 10_000 + 20_000


def test_a_letter_with_endless_marks_is_split():
    clusters = Clusters()
    whole = clusters.add("e" + "\u0301\u0323" * 20_000, [1.0] * 40_001) + clusters.release()
    assert max(len(text) for text, _ in whole) == 32
    assert sum(nats for _, nats in whole) == 40_001


def test_a_text_of_many_blocks_is_compared_as_one(monkeypatch):
    random = np.random.default_rng(0)
    book = random.integers(0, 2, 400).astype(np.uint8)
    text = np.concatenate([random.integers(0, 3, 40), book[30:70], random.integers(0, 3, 20), book[100:170]])
    places = originality.build(book)
    whole = originality.compare(text, book, places)
    monkeypatch.setattr(originality, "BLOCK", 7)
    assert originality.compare(text, book, places) == whole
    assert whole.longest >= 70


# Counts


def test_a_batch_is_bounded_whatever_the_count_the_length_and_the_vocabulary():
    assert [batch_rows(count, 1000, 60) for count in (1, 8, 10**9)] == [1, 8, 256]
    assert batch_rows(8, 5_000_000, 60) == 1
    assert batch_rows(10**9, 0, 60) == 256
    assert batch_rows(500, 10, 1_000_000) == 4


def test_samples_are_the_same_in_any_batch(model, monkeypatch):
    alone = [json.loads(drawn(model, "--json", "--count", n).stdout.splitlines()[-1])["text"] for n in (1, 2, 3, 4, 5)]
    monkeypatch.setattr("chargen.writing.generate.BATCH_ROWS", 2)
    records = [json.loads(line) for line in drawn(model, "--json", "--count", 5).stdout.splitlines()]
    assert [r["text"] for r in records] == alone
    assert [r["index"] for r in records] == [0, 1, 2, 3, 4]
    assert len(set(alone)) == 5


def test_a_billion_samples_start_at_once_in_little_memory(model):
    clone = Clone.open(model)
    tracemalloc.start()
    clone.feed("a")
    pieces = samples(clone, 10**9, Until(2), (), lambda count, first: generators(1, count, first))
    first = [piece for piece in in_turn(islice(pieces, 2000)) if piece.text]
    assert [piece.sample for piece in first] == [n // 2 for n in range(len(first))]
    assert len(first) > 1500
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_many_alternatives_are_scored_in_batches(model, monkeypatch):
    clone = Clone.open(model)
    clone.feed("a")
    whole = pattern.scores(clone, ["a", "no", "the", "a b", "on"])
    monkeypatch.setattr(pattern, "BATCH_ROWS", 2)
    np.testing.assert_allclose(pattern.scores(clone, ["a", "no", "the", "a b", "on"]), whole, atol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=4), min_size=1, max_size=4), st.randoms())
def test_interleaved_pieces_are_put_in_order(texts, random):
    pieces = [iter([*(Piece(k, t, (0.5,) * len(t)) for t in parts), Piece(k, "", (), LENGTH)])
              for k, parts in enumerate(texts)]  # fmt: skip
    order = [k for k, parts in enumerate(texts) for _ in range(len(parts) + 1)]
    random.shuffle(order)
    shown = list(in_turn(next(pieces[k]) for k in order))
    assert [p.sample for p in shown] == sorted(p.sample for p in shown)
    assert ["".join(p.text for p in shown if p.sample == k) for k in range(len(texts))] == list(map("".join, texts))
    assert [p.sample for p in shown if p.stopped_by] == list(range(len(texts)))
    assert all(len(p.text) == len(p.nats) for p in shown)


def test_collected_pieces_are_yielded_in_blocks():
    collected = Collected()
    for n in range(10_000):
        collected.add(Piece(3, "字", (float(n),)))
    collected.add(Piece(3, "", (), LENGTH))
    pieces = list(collected.pieces(3))
    assert max(len(p.text) for p in pieces) < 5000
    assert [n for p in pieces for n in p.nats] == list(range(10_000))


@settings(max_examples=30)
@given(st.text(), st.text(), st.lists(st.floats(0, 50)), st.booleans())
def test_json_in_blocks_is_json(seed, text, nats, utf8):
    out = io.TextIOWrapper(io.BytesIO(), "utf-8" if utf8 else "ascii", "surrogatepass", newline="")
    settings_ = {"random_seed": 3, "stop": ["ü"]}
    show(iter([Piece(0, text, nats), Piece(0, "", (), LENGTH)]), JsonLines(out, seed, settings_))
    record = {
        "seed": seed,
        "text": text,
        "log_probabilities": [round(-cost, 6) for cost in nats],
        "bits_per_character": bits(sum(nats) / len(nats)) if nats else None,
        "random_seed": 3,
        "index": 0,
        "stopped_by": LENGTH,
        "settings": settings_,
    }
    assert out.buffer.getvalue().decode("utf-8", "surrogatepass") == json.dumps(record, ensure_ascii=not utf8) + "\n"


# Expressions


@pytest.mark.parametrize(
    "wanted",
    [
        *("[a-z ]", ".", r"\s", r"\w", r"\W", "a|b", "(a|b)", "(?:a|[0-9])+", "^[a-z]$", "[a-z]+", ".*", "(?i)[aeiou]"),
        *(
            "[]]",
            "[^]]",
            "[[a]",
            "{",
            "a|{",
            r"\\|\[",
            r"\x41|\u0042|\103",
            r"[\x00-\x20]",
            r"\N{LATIN SMALL LETTER A}",
        ),
        *("", "a|", "()", "((a?|b?)*)*", r"[^\W\d_]", "[a-z]?|[0-9]*?", "#", "-"),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_an_expression_of_characters_matches_as_re_does(wanted):
    matches = expression("--allow", wanted).fullmatch
    for character in map(chr, range(256)):
        assert bool(matches(character)) == bool(re.fullmatch(wanted, character, re.DOTALL)), character


@pytest.mark.parametrize("option", ["--allow", "--forbid"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("(?:|){30}b", "one character at a time"),
        ("a{99999999999}", "one character at a time"),
        ("(a?|b?)(a?|b?)" * 40 + "c", "one character at a time"),
        ("(?:" * 3000 + "a" + ")" * 3000, "longer than|one character at a time"),
        ("(" * 900 + "a" + ")" * 900, "one character at a time"),
        ("ab", "one character at a time"),
        ("(?=a)a", "one character at a time"),
        ("[]|" * 3000 + "(", "not a regular expression"),
        ("a" * (LONGEST_EXPRESSION + 1), "longer than 10,000 characters"),
        ("[", "not a regular expression"),
        (r"\p{L}", "not a regular expression"),
        ("a**", "not a regular expression"),
        ("(a", "not a regular expression"),
        ("*", "not a regular expression"),
    ],
)
def test_other_expressions_are_refused_in_one_line(model, option, wrong, message):
    result = drawn(model, option, wrong)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert re.match(f"Error: {option} .*({message})", last), last
    assert len(last) < 300
    with pytest.raises(ChargenError, match=message):
        filters(SampleConfig(**{option[2:]: wrong}), Vocabulary("ab"))


# Stopping


class StopAfter:
    """Acts as if Ctrl-C came after ``characters`` characters."""

    def __init__(self, characters):
        self.left = characters

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def signal(self):
        self.left -= 1
        return signal.SIGINT * (self.left <= 0)


@pytest.fixture
def stopped(monkeypatch):
    monkeypatch.setattr(sample, "Stop", lambda: StopAfter(7))


@pytest.mark.parametrize("words", [(), ("--output", "drawn")])
def test_when_stopped_it_writes_an_object_for_each_sample_begun(model, here, stopped, words):
    whole = drawn(model, "--json", "--count", 3, *words)
    assert whole.exit_code == 130
    text = (here / "drawn").read_text() if words else whole.stdout
    records = [json.loads(line) for line in text.splitlines()]
    assert [r["stopped_by"] for r in records] == [SIGNAL] * 3
    assert [len(r["text"]) for r in records] == [len(r["log_probabilities"]) for r in records] == [7] * 3
    assert ("drawn holds what was drawn so far" in whole.stderr) == bool(words)


def test_when_stopped_it_writes_all_samples_begun(model, stopped):
    result = drawn(model, "--count", 3, "--seed", "a")
    assert re.findall("^--- ([123]) of 3 ---\na.{7}\n", result.stdout, re.M | re.S) == ["1", "2", "3"]


def test_when_stopped_it_writes_what_was_held_back_too(model):
    clone = Clone.open(model)
    stop = StopAfter(9)
    clone.feed("a")
    free = "".join(p.text for p in generate(clone.repeat(1), Until(20), (), generators(1, 1)))
    until = Until(20, (free[5:15],), lambda: stop.signal)
    pieces = list(generate(clone, until, (), generators(1, 1)))
    assert "".join(p.text for p in pieces) == free[:9]
    assert [p.text for p in pieces][-1] == free[5:9]


def test_when_stopped_in_a_pattern_the_sample_ends(model, here):
    (here / "words").write_text("a\tb\nno\ton\n" * 5)
    words = pattern.Pattern(pattern.parse((here / "words").read_text(), "words"), " ")
    drawing = partial(generators, 1)
    pieces = pattern.fill_all(Clone.open(model), 3, words, drawing, lambda: True)
    assert [(p.sample, p.stopped_by) for p in pieces] == [(0, None), (0, SIGNAL)]


def test_closing_the_terminal_keeps_the_file(model, here):
    words = ("sample", "--model", str(model), "--seed", "a", "--length", "100000000", "--output", "drawn")
    with subprocess.Popen(command(*words), cwd=here, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in here.glob(f"{PREFIX}*/text")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP
    assert (here / "drawn").read_text().startswith("a")
    assert not list(here.glob(f"{PREFIX}*"))


def test_a_sighup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


# Files


def test_on_a_full_disk_the_whole_characters_that_fit_are_kept(here):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, before[1]))
    try:
        with pytest.raises(ChargenError, match="drawn is cut short: File too large; it holds the first 20,000 bytes"):
            fill(here / "drawn")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (here / "drawn").read_text("utf-8") == "é" * 10_000
    assert [file.name for file in here.iterdir() if file.name != "book.txt"] == ["drawn"]


def fill(path):
    with kept(path) as file:
        for _ in range(30_000):
            file.write("é")


def test_an_exception_keeps_what_was_written(here):
    def stopped():
        with kept(here / "drawn") as file:
            file.write("text")
            raise SystemExit(130)

    with pytest.raises(SystemExit):
        stopped()
    assert (here / "drawn").read_text() == "text"


def test_a_file_that_appeared_meanwhile_is_kept_and_the_text_too(here):
    def met():
        with kept(here / "drawn") as file:
            (here / "drawn").write_text("mine")
            file.write("text")

    with pytest.raises(ChargenError, match="File exists; the text is in ") as error:
        met()
    assert (here / "drawn").read_text() == "mine"
    (ours,) = here.glob(f"{PREFIX}*/text")
    assert ours.read_text() == "text"
    assert ours.parent.name in str(error.value)


def test_a_name_of_the_greatest_length_is_written(model, here):
    name = "n" * 255
    assert drawn(model, "--output", name).exit_code == 0
    assert len((here / name).read_text()) == 30


@pytest.mark.parametrize("words", [("--pattern", "wrong"), ("--allow", "x")])
def test_a_failure_leaves_no_file(model, here, words):
    (here / "wrong").write_text("xyz")
    arguments = ("--model", model, "--random-seed", 1, "--output", "drawn", *words)
    assert invoke("sample", *arguments).exit_code == 1
    assert sorted(file.name for file in here.iterdir()) == ["book.txt", "wrong"]


# Seeds


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("It was. The end", "The"),
        ("\n\n  *** Then, they", "Then"),
        ("בְּרֵאשִׁית בָּרָא", "בְּרֵאשִׁית"[:12]),
        ("ACGTTGCAACGTTGCA\nACGT", "ACGTTGCAACGT"),
        ("第一回 甄士隱", "第一回"),
        ("12:30 13:00", "12:30"),
        ("--- ---", "---"),
        ("\x00\x1b🙂🙃\n", "🙂🙃"),
        ("\ufffd\ufffd!", "!"),
        ("\n\t \x00", ""),
        ("don't", "don"),
        ("", ""),
    ],
)  # fmt: skip
def test_an_advised_seed_is_from_the_text(text, seed):
    assert seed_of(text) == seed
    assert seed in text


@pytest.mark.long
@pytest.mark.parametrize("text", ["ACGTTGCAAC" * 80, "בראשית ברא אלהים את השמים\n" * 40, "--flag\n" * 200])
def test_the_command_printed_after_training_works(here, text):
    (here / "book.txt").write_text(text, "utf-8")
    result = invoke("train", "book.txt", *SMALL, "--steps", 5)
    advice = result.stdout.splitlines()[-1].removeprefix("done; write with: ")
    words = shlex.split(advice)
    assert words[:2] == ["chargen", "sample"]
    done = invoke(*words[1:], "--length", 20, "--random-seed", 1)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(words[-1])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"a\nb\tc", "a\nb\tc"),
        (r"\\n", r"\n"),
        (r"\x41\u05d0\U0001F642\xe9", "Aא🙂é"),
        (r"\u00411", "A1"),
        ("plain é", "plain é"),
        ("", ""),
    ],
)
def test_escapes_are_replaced(typed, meant):
    assert sample.unescaped(typed) == meant


@pytest.mark.parametrize("typed", ["\\", r"a\q", r"\x4", r"\u123", r"\U00110000", r"\ud800", r"\N{BULLET}", "\\\n"])
@pytest.mark.parametrize("option", ["--seed", "--stop"])
def test_an_invalid_escape_is_refused_in_one_line(model, typed, option):
    result = drawn(model, "-e", option, typed)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert r"is no escape that -e reads: \n, \t" in result.stderr.splitlines()[-1]


def test_escapes_are_replaced_in_seeds_stops_and_separators(model, here):
    assert drawn(model, "-e", "--seed", r"the\n").stdout.startswith("the\n")
    record = json.loads(drawn(model, "-e", "--seed", "a", "--stop", r"\n", "--stop", r"\x6f", "--json").stdout)
    assert record["settings"]["stop"] == ["\n", "o"]
    assert not set(record["text"]) & set("\no")
    (here / "words").write_text("a\nb\n")
    words = ("--model", model, "-e", "--pattern", "words", "--separator", r"\n", "--no-seed", "--random-seed", 1)
    assert invoke("sample", *words).stdout == "a\nb"


def test_a_seed_that_loses_characters_says_how_to_give_them(model):
    result = drawn(model, "--seed", r"the\n")
    assert result.stdout.startswith("then")
    assert "never seen \\ (U+005C): left out of the seed; with -e, \\n is a line's end" in result.stderr
    assert "; with -e" in drawn(model, "--stop", r"\n").stderr
    result = drawn(model, "--seed", "XYZ" + "".join(map(chr, range(0x4E00, 0x5000))))
    assert result.exit_code == 1
    assert len(result.stderr) < 300
    assert "and 507 more" in result.stderr
    assert "give characters that it knows, such as bcdehnot" in result.stderr


def test_the_unknown_character_is_not_among_those_that_are_suggested(tmp_path):
    vocabulary, config = Vocabulary("abc" + UNKNOWN, UNKNOWN), ModelConfig(layers=1, units=3, embedding=2)
    weights = {name: np.ones(shape, np.float32) for name, shape in weight_shapes(4, config).items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(tmp_path / "m")
    result = invoke("sample", "--model", tmp_path / "m", "--seed", "☃")
    assert result.stderr.endswith("give characters that it knows, such as abc\n")
