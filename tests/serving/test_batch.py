"""The continuous batch writes what `chargen sample` writes, whoever else is in it."""

from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.config import SampleConfig
from chargen.serving.batch import Batch
from chargen.serving.texts import Job, Part
from chargen.text.vocabulary import END, Vocabulary
from chargen.text.words import packed
from chargen.writing.best import Choice, best_of, best_samples
from chargen.writing.clone import Clone
from chargen.writing.generate import LENGTH, STUCK, WHOLE, Until, generate, samples
from chargen.writing.sampler import filters, generators
from tests.export.test_export import random_model

MODEL = random_model(2)
WORDS = packed(["gear", "haet", "lor", "teal"])
CONFIGS = [
    SampleConfig(temperature=0),
    SampleConfig(temperature=0.8),
    SampleConfig(temperature=1.5, top_k=9, top_p=0.9, min_p=0.05),
    SampleConfig(temperature=1, words="book"),
    SampleConfig(temperature=1, words="book", new_words=0.5),
    SampleConfig(temperature=0.3, no_repeat=4),
    SampleConfig(temperature=1, words="book", no_repeat=7),
]
FILTERS = [filters(config, MODEL.vocabulary, WORDS) for config in CONFIGS]


def clone():
    return Clone(MODEL.weights, MODEL.vocabulary, (WORDS, None))


class Client:
    """A job, and what comes of it."""

    def __init__(self, prompt="The", which=1, length=30, count=1, stops=(), seed=5, choice=None, **fields):
        self.prompt, self.until, self.which, self.seed, self.choice = prompt, Until(length, stops), which, seed, choice
        self.parts, self.texts, self.ends, self.scores = [], defaultdict(str), {}, defaultdict(list)
        config = CONFIGS[which]
        self.job = Job(
            [MODEL.vocabulary.id_of(c) for c in prompt],
            self.until,
            FILTERS[which],
            generators(seed, count),
            self.take,
            greedy=not config.temperature,
            choice=choice,
            **fields,
        )

    def take(self, part):
        self.parts.append(part)
        if not part.read:
            piece = part.piece
            assert piece.sample not in self.ends, "a text goes on after its end"
            self.texts[piece.sample] += piece.text
            self.scores[piece.sample] += part.scores
            if piece.stopped_by is not None:
                self.ends[piece.sample] = piece.stopped_by

    def expected(self):
        """The texts and their ends as `chargen sample` has them."""
        model, count = clone(), len(self.job.generators)
        model.feed(self.prompt)
        texts: dict[int, str] = defaultdict(str)
        ends = {}
        chosen, drawing = filters(CONFIGS[self.which], MODEL.vocabulary, WORDS), partial(generators, self.seed)
        if self.choice is None:
            found = samples(model, count, self.until, chosen, None if self.job.greedy else drawing)
        else:
            found = best_samples(model, count, self.until, chosen, (drawing, self.choice))
        for piece in found:
            texts[piece.sample] += piece.text
            if piece.stopped_by is not None:
                ends[piece.sample] = piece.stopped_by
        return texts, ends


def run(batch, most=2000):
    steps = 0
    while batch.busy and steps < most:
        batch.step()
        steps += 1
    assert not batch.busy
    return steps


CLIENTS = st.builds(
    Client,
    prompt=st.text(alphabet="Thaeglor \n", min_size=1, max_size=9),
    which=st.integers(0, len(CONFIGS) - 1),
    length=st.integers(0, 40),
    count=st.integers(1, 3),
    stops=st.lists(st.text(alphabet="Thaeglor ", min_size=1, max_size=2), max_size=2).map(tuple),
    seed=st.integers(0, 2**32),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(CLIENTS, st.integers(0, 12)), min_size=1, max_size=6))
def test_texts_are_those_of_sample_whenever_others_join_and_leave(clients):
    batch = Batch(clone())
    for client, steps in clients:
        batch.add(client.job)
        for _ in range(steps):
            batch.step()
    run(batch)
    for client, _ in clients:
        assert (client.texts, client.ends) == client.expected()


@pytest.mark.parametrize("which", [1, 3, 5])
def test_the_best_of_several_branches_is_that_of_sample(which):
    choice = Choice(3, 2.0)
    clients = [Client("Hae"[::-1].replace("H", "l"), which, 120, 1, ("ll",), seed, choice) for seed in range(3)]
    batch = Batch(clone())
    for client in [*clients, other := Client(length=50)]:
        batch.add(client.job)
        batch.step()
    run(batch)
    for client in [*clients, other]:
        assert (client.texts, client.ends) == client.expected()


def test_a_step_lets_all_in_that_fit_and_a_later_one_the_rest():
    batch = Batch(clone())
    batch.most_rows = 4
    first, second, third = (Client(length=length, count=2) for length in (3, 9, 5))
    for client in (first, second, third):
        batch.add(client.job)
    for _ in range(3 + 3):
        assert not third.parts
        batch.step()
    assert set(first.ends) == {0, 1}
    assert run(batch) == 3 + 5
    assert third.texts == third.expected()[0]


def test_no_text_waits_for_another_to_end():
    batch = Batch(clone())
    long, late = Client(length=1000), Client("T", length=1)
    batch.add(long.job)
    for _ in range(10):
        batch.step()
    batch.add(late.job)
    batch.step()
    assert not late.ends
    batch.step()
    assert late.ends
    assert not long.ends


def test_a_text_that_nobody_wants_any_more_frees_its_rows():
    batch = Batch(clone())
    batch.most_rows = 4
    running, waiting, next_one = Client(length=1000, count=4), Client(), Client(length=2)
    branching = Client(length=1000, choice=Choice(4, 2.0))
    for client in (running, waiting, branching, next_one):
        batch.add(client.job)
    for _ in range(5):
        batch.step()
    running.job.cancelled = waiting.job.cancelled = True
    batch.step()
    assert batch.jobs == {branching.job, next_one.job}
    for _ in range(5):
        batch.step()
    branching.job.cancelled = True
    assert run(batch) <= 5
    assert next_one.ends
    assert not waiting.parts


def test_characters_are_scored_by_the_model_before_any_filter():
    client = Client("Tha", which=2, length=12, count=2, likeliest=3, scores_prompt=True)
    batch = Batch(clone())
    batch.add(Client(length=5, which=2).job)
    batch.add(client.job)
    run(batch)
    read = [part for part in client.parts if part.read]
    assert [part.piece.text for part in read] == list("Tha")
    for number in range(2):
        ids = [MODEL.vocabulary.id_of(c) for c in "Tha" + client.texts[number]]
        logits = clone().read(ids).astype(float)
        nats = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits
        scores = [score for part in read for score in part.scores] + client.scores[number]
        assert scores[0] == (None, ())
        assert len(scores) == len(ids)
        for place, (score, id) in enumerate(zip(scores[1:], ids[1:], strict=True)):
            assert score.nats == pytest.approx(nats[place, id], abs=1e-4)
            best = np.sort(nats[place])[:3]
            np.testing.assert_allclose([cost for _, cost in score.likeliest], best, atol=1e-4)


def test_the_scores_end_with_the_text_at_a_stop():
    client = Client(length=400, stops=("e", "ll"), likeliest=0)
    batch = Batch(clone())
    batch.add(client.job)
    run(batch)
    assert client.ends == {0: "e"}
    assert len(client.scores[0]) == len(client.texts[0])


def test_a_text_without_length_is_read_only():
    client = Client("Thaegl", length=0, count=2, likeliest=1, scores_prompt=True)
    batch = Batch(clone())
    batch.add(client.job)
    assert run(batch) == 6
    assert client.texts == {0: "", 1: ""}
    assert set(client.ends) == {0, 1}


def test_a_text_ends_where_nothing_may_be_repeated():
    client = Client("T", which=5, length=10_000)
    batch = Batch(clone())
    client.job.filters = filters(SampleConfig(temperature=0.3, no_repeat=1), MODEL.vocabulary)
    batch.add(client.job)
    run(batch)
    assert client.ends == {0: STUCK}
    assert len(set(client.texts[0])) == len(client.texts[0]) == len(MODEL.vocabulary) - 1


def test_a_text_ends_where_the_model_ends_a_document():
    characters = "".join(sorted({*MODEL.vocabulary.characters[:-1], END}))
    model = Clone(MODEL.weights, Vocabulary(characters, None, END), (None, None), 2.0)
    ended = set()
    for choice in (None, Choice(3, 2.0)):
        for seed in range(20):
            generator, until = np.random.default_rng(seed), Until(40, end=END)
            parts: list[Part] = []
            prompt = [model.vocabulary.id_of(END)]
            batch = Batch(model)
            batch.add(Job(prompt, until, (), [generator], parts.append, choice=choice))
            while batch.busy:
                batch.step()
            alone = model.repeat(1)
            alone.feed(END)
            drawing = [np.random.default_rng(seed)]
            if choice is None:
                found = list(generate(alone, until, (), drawing))
            else:
                found = list(best_of(alone, until, (), (drawing[0], choice)))
            assert "".join(part.piece.text for part in parts) == "".join(piece.text for piece in found)
            assert parts[-1].piece.stopped_by == found[-1].stopped_by
            assert not any(END in part.piece.text for part in parts)
            ended.add(found[-1].stopped_by)
    assert ended == {WHOLE, LENGTH}
