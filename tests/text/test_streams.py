import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.text.streams import Streams, fit, windows_per_epoch


def letters(ids):
    return ["".join(chr(ord("a") + i) for i in row) for row in ids]


def test_the_alphabet_in_two_streams_of_three():
    streams = Streams(np.arange(26, dtype=np.uint8), 2, 3)
    first, second = streams.read(0), streams.read(1)
    assert letters(first.x) == ["abc", "mno"]
    assert letters(first.y) == ["bcd", "nop"]
    assert letters(second.x) == ["def", "pqr"]
    assert streams.windows == 4
    assert streams.dropped == 1
    assert first.x.dtype == np.int32


def test_between_epochs_a_row_continues_with_the_text_of_the_row_below():
    streams = Streams(np.arange(26, dtype=np.uint8), 2, 3)
    rows = [letters(streams.read(position).x) for position in range(8)]
    assert "".join(row[0] for row in rows) == "abcdefghijkl" + "mnopqrstuvwx"
    assert "".join(row[1] for row in rows) == "mnopqrstuvwx" + "abcdefghijkl"
    begins = [streams.read(position).begins.tolist() for position in range(12)]
    assert begins[0] == [True, True]
    assert begins[4] == [False, True]  # the row that wraps round to the start of the text
    assert begins[8] == [True, False]
    assert all(begins[position] == [False, False] for position in range(12) if position % 4)


@given(st.integers(2, 300), st.integers(1, 7), st.integers(1, 9), st.integers(1, 4))
def test_streams_are_contiguous_and_y_is_x_one_later(characters, batch_size, seq_length, epochs):
    ids = np.arange(characters, dtype=np.uint16)
    if not windows_per_epoch(characters, batch_size, seq_length):
        with pytest.raises(ChargenError, match=f"{characters} characters"):
            Streams(ids, batch_size, seq_length)
        return
    streams = Streams(ids, batch_size, seq_length)
    seen = np.zeros((epochs, characters), int)
    before = None
    for position in range(epochs * streams.windows):
        window = streams.read(position)
        assert (window.y == window.x + 1).all()
        np.add.at(seen[position // streams.windows], window.x, 1)
        if before is not None:
            goes_on = window.x[:, 0] == before.y[:, -1]
            assert (goes_on | window.begins).all()
            assert (window.x[window.begins, 0] == 0).all()
            assert window.begins.sum() == (position % streams.windows == 0)
        before = window
    assert (seen[:, : characters - 1 - streams.dropped] == 1).all()
    assert not seen[:, characters - 1 - streams.dropped :].any()
    assert streams.dropped < batch_size * seq_length


@given(st.integers(2, 5000), st.integers(1, 64), st.integers(1, 128))
def test_fitting_sizes_waste_little_of_the_text(characters, batch_size, seq_length):
    batch, length = fit(characters, batch_size, seq_length)
    assert 1 <= batch <= batch_size
    assert 1 <= length <= seq_length
    streams = Streams(np.zeros(characters, np.uint8), batch, length)
    assert batch == 1 or streams.dropped * 20 <= characters


def test_the_sizes_asked_for_are_kept_where_they_fit():
    assert fit(100_000, 16, 64) == (16, 64)


def test_sizes_that_do_not_fit_are_refused_with_some_that_fit():
    with pytest.raises(ChargenError, match=r"100 characters.*--batch-size (\d+) --seq-length (\d+)") as refusal:
        Streams(np.zeros(100, np.uint8), 16, 64)
    words = str(refusal.value).split()
    batch, length = (int(words[words.index(name) + 1]) for name in ("--batch-size", "--seq-length"))
    assert Streams(np.zeros(100, np.uint8), batch, length).windows


def test_the_state_restarts_where_a_document_begins():
    streams = Streams(np.arange(26, dtype=np.uint8), 2, 3, np.array([6, 13, 14, 25]))  # g, n, o; z is not read
    windows = [streams.read(position) for position in range(8)]
    assert [w.begins.tolist() for w in windows[:4]] == [[True, True], [False] * 2, [True, False], [False] * 2]
    assert [w.restarts if w.restarts is None else w.restarts.tolist() for w in windows[:4]] == [
        [[False, False, False], [False, True, True]],
        None,
        None,
        None,
    ]
    assert windows[4].restarts is not None
    assert windows[4].restarts.tolist() == [[False, True, True], [False] * 3]  # the rows have moved up
    assert windows[4].begins.tolist() == [False, True]


@given(st.lists(st.integers(1, 199), unique=True, max_size=12), st.integers(1, 5), st.integers(1, 9))
def test_every_document_begins_once_in_an_epoch(starts, batch_size, seq_length):
    streams = Streams(np.arange(200, dtype=np.uint8), batch_size, seq_length, np.array(sorted(starts), np.int64))
    begun = []
    for position in range(streams.windows, 2 * streams.windows):
        window = streams.read(position)
        begun += window.x[:, 0][window.begins].tolist()
        if window.restarts is not None:
            assert window.restarts.any()
            assert not window.restarts[:, 0].any()
            begun += window.x[window.restarts].tolist()
    assert sorted(begun) == [0, *sorted(s for s in starts if s < 199 - streams.dropped)]


def test_windows_read_ahead_are_the_same():
    streams = Streams(np.arange(200, dtype=np.uint8), 3, 7, np.array([50]))
    ahead = streams.read_ahead(5)
    for position in range(5, 25):
        for read, plain in zip(next(ahead), streams.read(position), strict=True):
            np.testing.assert_array_equal(read, plain)
    ahead.close()
