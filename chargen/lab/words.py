"""Words or characters? A model of each, and two ways to give words to an LSTM, in the same time."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from chargen.bits import bits
from chargen.lab import Answer, Conclusion, Picture, Setting, Table, plotted
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import word_pattern

EXPECT = """A word model has several thousand symbols, most of which it sees a few times. It can't read or write a word
that it has not seen, so a new text costs it much where a name or a rare form comes. A character model has to learn to
spell and invents words now and then, but it can write any word. One-hot vectors of words give each word weights of its
own; an embedding has far fewer weights, and words that are used alike can share what is learnt of them."""

BATCH, WINDOW = 64, 100  # rows, and characters of a window
EMBEDDING = {"characters": 32, "words, one-hot": 0, "words, embedding": 64}  # numbers per symbol; 0 is one-hot
UNKNOWN = 0  # the symbol of words that occur once in the training text, or never
TEMPERATURE = 0.7


class Symbols(NamedTuple):
    """A text as symbols."""

    training: Any  # ids (N,)
    validation: Any  # ids (M,)
    names: Sequence[str]  # of the symbols; the unknown one's is empty
    spelling: float  # nats that the unknown symbols of the validation text cost to spell, each character alike
    characters: int  # of the validation text


@dataclass
class Learnt:
    """A trained model and its scores."""

    model: Any
    curve: list[tuple[float, float]]  # seconds of the processor, bits per character
    known: float  # bits per character of the known symbols, at the best moment

    @property
    def best(self) -> float:
        """The bits per character at the best moment."""
        return min(score for _, score in self.curve)


def characters(text: str, border: int) -> Symbols:
    """Return the characters of a text as symbols, those from ``border`` on for validation."""
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text).astype(np.int32) + 1
    return Symbols(ids[:border], ids[border:], ["", *vocabulary.characters], 0.0, len(text) - border)


def words(text: str, border: int) -> Symbols:
    """Return a text as words, each with the space before it, and the other characters between them.

    A word that occurs less than twice before ``border`` is unknown.
    """
    pattern = re.compile(f" ?(?:{word_pattern(Vocabulary.of(text)).pattern})|.", re.DOTALL)
    training, validation = (pattern.findall(part) for part in (text[:border], text[border:]))
    names = ["", *sorted(token for token, count in Counter(training).items() if count > 1)]
    numbers = {name: number for number, name in enumerate(names)}
    read, held = (np.array([numbers.get(t, UNKNOWN) for t in tokens], np.int32) for tokens in (training, validation))
    # An unknown word is spelt, each of its characters and the mark of its end as likely as any other.
    length = sum(len(token) + 1 for token in validation if token not in numbers)
    return Symbols(read, held, names, length * float(np.log(len(set(text)) + 1)), len(text) - border)


def network(symbols: int, units: int, embedding: int) -> Any:
    """Return a stock Keras model: ids (B, T) -> logits (B, T, V), from one-hot vectors or from an embedding."""
    if embedding:
        read = keras.layers.Embedding(symbols, embedding)
    else:
        read = keras.layers.Lambda(lambda ids: keras.ops.one_hot(ids, symbols), output_shape=(None, symbols))
    lstm = keras.layers.LSTM(units, return_sequences=True)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), read, lstm, keras.layers.Dense(symbols)])
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def learn(symbols: Symbols, embedding: int, setting: Setting) -> Learnt:
    """Train for the same time of the processor, whatever the model; score the validation text now and then."""
    keras.utils.set_random_seed(setting.random_seed)
    random = np.random.default_rng(setting.random_seed)
    model = network(len(symbols.names), setting.pick(128, 96), embedding)
    seconds, laps = setting.pick(40.0, 16.0), setting.pick(8, 4)
    length = max(2, round(WINDOW * len(symbols.validation) / symbols.characters))
    whole = score(model, symbols)  # compiles the scoring
    learnt, spent = Learnt(model, [(0.0, whole[0])], whole[1]), 0.0

    def step() -> None:
        starts = random.integers(0, len(symbols.training) - length, BATCH)
        windows = symbols.training[starts[:, None] + np.arange(length + 1)]
        model.train_on_batch(windows[:, :-1], windows[:, 1:])

    step()  # compiles the step
    weights = model.get_weights()
    for lap in range(1, laps + 1):
        while spent < seconds * lap / laps:
            began = time.process_time()
            step()
            spent += time.process_time() - began
        every, known = score(model, symbols)
        if every < learnt.best:
            learnt.known, weights = known, model.get_weights()
        learnt.curve.append((spent, every))
    model.set_weights(weights)
    return learnt


def score(model: Any, symbols: Symbols) -> tuple[float, float]:
    """Return the bits per character of the validation text: of all of it, and of its known symbols alone."""
    rows = 16
    ids = symbols.validation[: len(symbols.validation) // rows * rows].reshape(rows, -1)
    logits = np.asarray(model.predict_on_batch(ids[:, :-1]))
    costs = keras.losses.sparse_categorical_crossentropy(ids[:, 1:], logits, from_logits=True)
    nats, is_known = np.asarray(costs, np.float64), ids[:, 1:] != UNKNOWN
    lengths = np.array([len(name) for name in symbols.names])[ids[:, 1:]]
    share = ids[:, 1:].size / len(symbols.validation)
    everything = bits((nats.sum() + share * symbols.spelling) / (share * symbols.characters))
    return float(everything), float(bits((nats * is_known).sum() / lengths.sum()))


def written(model: Any, symbols: Symbols, length: int, random_seed: int) -> list[str]:
    """Return what a model writes: one text for each row, of ``length`` symbols, at a temperature of 0.7."""
    random = np.random.default_rng(random_seed)
    ids = symbols.training[random.integers(0, len(symbols.training), 32)][:, None]
    for _ in range(length):
        logits = np.asarray(model.predict_on_batch(np.pad(ids, ((0, 0), (0, length - ids.shape[1])))), np.float64)
        logits = logits[:, ids.shape[1] - 1] / TEMPERATURE
        logits[:, UNKNOWN] = -np.inf
        drawn = (logits + random.gumbel(size=logits.shape)).argmax(1).astype(np.int32)
        ids = np.concatenate([ids, drawn[:, None]], 1)
    return ["".join(symbols.names[n] for n in row) for row in ids]


def invented(texts: Sequence[str], book: str) -> float:
    """Return the share of the words in texts that do not occur in a book. The words at both ends may be cut."""
    find = word_pattern(Vocabulary.of(book)).findall
    known = {word.lower() for word in find(book)}
    found = [word.lower() for text in texts for word in find(text)[1:-1]]
    return sum(word not in known for word in found) / max(1, len(found))


def answer(setting: Setting) -> Answer:
    """Train the three models for the same time; compare what the validation text costs, and what they write."""
    text, border = setting.text, len(setting.text) * 9 // 10
    spelt, worded = characters(text, border), words(text, border)
    is_word = np.array([len(name) != 1 for name in worded.names])[worded.validation]
    unseen = float((worded.validation == UNKNOWN).sum() / is_word.sum())
    rows, curves, made = [], {}, {}
    for way, embedding in EMBEDDING.items():
        symbols = spelt if way == "characters" else worded
        learnt = learn(symbols, embedding, setting)
        texts = written(learnt.model, symbols, setting.pick(100, 40), setting.random_seed)
        made[way], curves[way] = invented(texts, text[:border]), learnt.curve[1:]
        rows.append((way, len(symbols.names) - 1, learnt.model.count_params(), learnt.best, learnt.known, made[way]))
    by_characters, hot, embedded = (row[3] for row in rows)
    best = "words, embedding" if embedded < hot else "words, one-hot"
    return Answer(
        [
            Conclusion(
                f"After the same time, characters reached {by_characters:.3f} bits per character and words "
                f"{min(hot, embedded):.3f}: {'characters' if by_characters < min(hot, embedded) else 'words'} are "
                f"better. Without the words that it does not know, a word model has {min(r[4] for r in rows[1:]):.3f}.",
                by_characters < min(hot, embedded),
            ),
            Conclusion(
                f"A word model can neither read nor write {unseen:.1%} of the words of the validation text, and "
                f"invents words only where it leaves out a space: {made[best]:.1%}. The character model can write "
                f"any, and invents {made['characters']:.1%}.",
                unseen > 0 and made["characters"] > made[best],
            ),
            Conclusion(
                f"With an embedding of words, the model has {rows[1][2] / rows[2][2]:.1f} times fewer weights than "
                f"with one-hot vectors, and reached {embedded:.3f} bits per character instead of {hot:.3f}.",
                embedded < hot,
            ),
        ],
        [Table(("symbols", "number", "weights", "bits per character", "of known ones", "words invented"), rows)],
        [
            Picture(
                "Validation text, by training time of the processor.",
                plotted(curves, "seconds of the processor", "bits per character"),
            )
        ],
    )
