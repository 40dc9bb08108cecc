"""Damaged states are refused in one line; damaged caches of texts and indexes are made again."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.files.arrays import with_checksum
from chargen.store.run import Run
from chargen.text.corpus import read
from chargen.training.plan import Machine, Request, plan
from chargen.writing.clone import Clone
from chargen.writing.originality import build, index
from tests.conftest import invoke
from tests.files.damage import (
    NESTED,
    SHAPE,
    SPARSE,
    changed,
    numbered,
    refused,
    retyped,
    valued,
)


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
def test_an_invalid_state_is_refused(model, state, change, words):
    if words == ["not a file of chargen's"]:
        state.write_bytes(state.read_bytes().replace(b'{\\"checksum', b'{\\"a\\": ' + NESTED.encode() + b"\\"))
    else:
        changed(state, change)
    refused(invoke("sample", "--model", model, "--length", 5, "--load-state", state), str(state), *words)


def test_a_state_replaces_no_other_file(model, state, tmp_path):
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


def told(*, with_new_checksum=True, **values):
    """Return a change of the cache's corpus.json, ``with_new_checksum`` or its old one."""

    def made(folder):
        data = json.dumps({**json.loads((folder / "corpus.json").read_text()), **values}).encode()
        (folder / "corpus.json").write_bytes(with_checksum(data) if with_new_checksum else data)

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
    told(notes=["new"], with_new_checksum=False),
    told(unknown="a", with_new_checksum=False),
    told(checksum="0", with_new_checksum=False),
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
def test_a_damaged_text_that_only_the_run_has_is_refused(here, number):
    settings = TrainConfig(steps=100)
    corpus = replace(read(["book.txt"], settings), files=("-",))
    run = Run.create(here / "run", plan(Request(SHAPE.to_json(), settings, {"steps"}), corpus, Machine(1e11)), corpus)
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
