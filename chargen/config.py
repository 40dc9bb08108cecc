"""Every option once: name, type, default, range, help, and whether --resume allows it.

The command line and the files are made from these.
"""

import dataclasses
import sys
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from msgspec import Meta

from chargen.files.reading import converted

BASE, SCRATCH = "english", "scratch"  # what --from calls the base model, and a run that begins from no model


def option(
    default: Any,
    help: str,
    *,
    group: str = "",
    metavar: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive: bool = False,
    choices: tuple[str, ...] = (),
    planned: bool = False,
    on_resume: bool = False,
) -> Any:
    """Declare a field that is also a command-line option. With MISSING for its ``default``, the field must be given.

    ``group`` is the heading under which --help lists it, ``metavar`` the name of its value there. ``minimum`` and
    ``maximum`` are the ends of its range; ``exclusive`` excludes both. ``choices``, if there are any, are the only
    values. A ``planned`` option is chosen by `training.plan` unless it is given. An ``on_resume`` option
    may be given with --resume.
    """
    shown = {"help": help, "group": group, "metavar": metavar}
    limits = {"minimum": minimum, "maximum": maximum, "exclusive": exclusive, "choices": choices}
    uses = {"planned": planned, "on_resume": on_resume}
    return field(default=default, metadata={**shown, **uses, **limits})


class Config:
    """The conversion to JSON and back that all configurations share."""

    _types: ClassVar[dict[str, tuple[type, bool]]]

    def __init_subclass__(cls) -> None:
        """Add its range and choices to each field's type, so that `converted` checks them."""
        cls._types = {}
        for name, hint in cls.__annotations__.items():
            choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            plain, optional = next(c for c in choices if c is not type(None)), type(None) in choices
            cls._types[name] = plain, optional
            declared = _declared(plain, **vars(cls)[name].metadata)
            cls.__annotations__[name] = declared | None if optional else declared

    @classmethod
    def types(cls) -> dict[str, tuple[type, bool]]:
        """Return the plain type of each field, and whether it may be None."""
        return cls._types

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the configuration that `to_json` wrote. Missing fields get their defaults, unknown ones are ignored.

        Raises ChargenError, naming the field, for a value of the wrong type or out of range.
        """
        return converted(values, cls)


def _declared(
    kind: type, *, minimum: float | None, maximum: float | None, exclusive: bool, choices: tuple[str, ...], **_: Any
) -> Any:
    """Return a type that is restricted to a range and to choices."""
    if choices:
        return Literal[choices]
    if kind not in (int, float):
        return kind
    highest = 2**63 - 1 if kind is int else sys.float_info.max
    low, high = (highest if end is None else kind(end) for end in (-highest if minimum is None else minimum, maximum))
    return Annotated[kind, Meta(gt=low, lt=high) if exclusive else Meta(ge=low, le=high)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The shape of the network, which a run with --from takes from its parent.

    With the size of the vocabulary it determines the shape of every weight.
    """

    layers: int = option(1, "Number of LSTM layers.", group="Network", minimum=1, maximum=1000)
    units: int = option(MISSING, "Units of each LSTM layer.", group="Network", minimum=1, maximum=2**16, planned=True)
    embedding: int = option(64, "Size of the character embedding.", group="Network", minimum=1, maximum=2**16)
    output_rank: int = option(
        0, "Rank of the output layer; 0 is full rank.", group="Network", minimum=0, maximum=2**16, planned=True
    )


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained."""

    minutes: float | None = option(
        None,
        "Training time; 10 unless --epochs or --steps is given.",
        group="How long",
        minimum=0,
        maximum=1e6,
        exclusive=True,
        on_resume=True,
    )
    epochs: float | None = option(
        None,
        "Passes over the training text, instead of --minutes.",
        group="How long",
        minimum=0,
        maximum=1e6,
        exclusive=True,
        on_resume=True,
    )
    steps: int | None = option(
        None,
        "Updates of the weights, instead of --minutes.",
        group="How long",
        minimum=1,
        maximum=10**12,
        on_resume=True,
    )
    batch_size: int = option(
        64,
        "Streams: parts of the text read side by side.",
        group="Optimisation",
        minimum=1,
        planned=True,
    )
    seq_length: int = option(
        64,
        "Window: characters of each stream in a step.",
        group="Optimisation",
        minimum=1,
        planned=True,
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate (warm-up, cosine decay).",
        group="Optimisation",
        minimum=0,
        maximum=10,
        exclusive=True,
        planned=True,
    )
    # Both are None, and count as 0, until the number of steps is known. A run given minutes has to be measured first.
    dropout: float | None = option(
        None, "Dropout rate on each layer's outputs.", group="Optimisation", minimum=0, maximum=0.95, planned=True
    )
    weight_drop: float | None = option(
        None,
        "Dropout rate on the recurrent kernels.",
        group="Optimisation",
        minimum=0,
        maximum=0.95,
        planned=True,
    )
    clip_norm: float = option(
        1.0,
        "Norm to which larger gradients are clipped.",
        group="Optimisation",
        minimum=0,
        maximum=1e6,
        exclusive=True,
    )
    validation: float = option(
        0.1,
        "Fraction of the text kept for validation.",
        group="Text",
        minimum=0,
        maximum=1,
        exclusive=True,
    )
    # Half a million characters are scored in at most half a minute, and their bpc is within 0.005 of a longer text's.
    held_out: int | None = option(500_000, "Maximum characters for validation.", group="Text", minimum=2)
    patience: int | None = option(
        None, "Stop after this many validations without improvement.", group="How long", minimum=1, on_resume=True
    )
    random_seed: int = option(
        0,
        "Seed of initial weights and dropout.",
        group="Optimisation",
        minimum=0,
        maximum=2**63 - 1,
    )
    encoding: str | None = option(None, "Encoding of the text files; by default UTF-8 or a guess.", group="Text")
    document: str = option(
        "file",
        "What makes a document: a file, a paragraph or a line.",
        group="Text",
        choices=("file", "paragraph", "line"),
    )
    column: str | None = option(
        None, "Read this column of CSV, TSV or JSON lines, each row a document.", group="Text", metavar="NAME"
    )
    join: bool = option(False, "Carry the state from one file into the next.", group="Text")
    keep_boilerplate: bool = option(
        False, "Keep the header and licence of Project Gutenberg, and the imprints of EPUBs.", group="Text"
    )
    keep_markup: bool = option(False, "Read Markdown and HTML as they are, with their marks.", group="Text")
    min_count: int = option(
        1,
        "Characters occurring less often become unknown.",
        group="Text",
        minimum=1,
    )
    unwrap: bool = option(False, "Join the lines of paragraphs that are hard-wrapped.", group="Text")
    normalize: str = option("nfc", "Unicode normalization of the text.", group="Text", choices=("nfc", "none"))
    cache: str | None = option(
        None,
        "Folder of cached texts; by default the platform's.",
        group="Where it is kept",
        metavar="FOLDER",
        on_resume=True,
    )
    precision: str = option(
        "auto",
        "Number format of products; auto is the faster one.",
        group="Machine",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int | None = option(
        None, "Processor cores to use; by default all.", group="Machine", minimum=1, maximum=1024
    )
    distribute: str = option(
        "none",
        "mirrored: all GPUs; workers: several processes.",
        group="Machine",
        choices=("none", "mirrored", "workers"),
        on_resume=True,
    )


@dataclass(frozen=True)
class Execution(Config):
    """How a model is computed. It is chosen when a run begins, by `network.execution.choose`, and kept with the run.

    It decides the last bits of every number.
    """

    unroll: str = option("keras", "What computes the LSTM layers.", choices=("keras", "loop", "onednn"))
    precision: str = option("float32", "Number format of the matrix products.", choices=("float32", "bfloat16"))
    shards: int = option(1, "Groups of rows, each computed on one thread.", minimum=1, maximum=1024)
    threads: int = option(0, "Processor cores; 0 leaves the choice to TensorFlow.", minimum=0, maximum=1024)


@dataclass(frozen=True)
class SampleConfig(Config):
    """How text is drawn from a model."""

    length: int = option(1000, "Characters to write after the seed.", group="Length", minimum=0)
    allow: str | None = option(
        None,
        "Regular expression of the characters that may be drawn, such as '[a-z ]'.",
        group="Drawing",
        metavar="REGEX",
    )
    forbid: str | None = option(
        None, "Regular expression of the characters that may not be drawn.", group="Drawing", metavar="REGEX"
    )
    temperature: float = option(
        0.7,
        "Sampling temperature: below 1 sharpens the distribution; 0 always takes the most likely character.",
        group="Drawing",
        minimum=0,
        maximum=100,
    )
    top_k: int | None = option(
        None, "Keep the K most likely characters (top-k).", group="Drawing", metavar="K", minimum=1
    )
    top_p: float | None = option(
        None,
        "Keep the most likely characters whose probabilities add up to P (top-p).",
        group="Drawing",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    min_p: float | None = option(
        None,
        "Keep characters at least P times as probable as the most likely one (min-p).",
        group="Drawing",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    words: str = option(
        "any",
        "Write only words of the book, of the book and its base model, or of FILE.",
        group="Drawing",
        metavar="any|book|base|FILE",
    )
    new_words: float = option(
        0.0,
        "With --words: probability that a word may be a new one.",
        group="Drawing",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    no_repeat: int | None = option(
        None, "Never write the same N characters twice.", group="Drawing", metavar="N", minimum=1
    )
    best_of: int = option(
        1,
        "Draw each sentence N times; keep the one as predictable as the book.",
        group="Drawing",
        metavar="N",
        minimum=1,
        maximum=256,
    )
    random_seed: int | None = option(
        None,
        "Seed of the random generator: the same number draws the same text.",
        group="Drawing",
        minimum=0,
        maximum=2**63 - 1,
    )


def resumable() -> set[str]:
    """Return the names of the options that may be given with --resume."""
    return {f.name for f in dataclasses.fields(TrainConfig) if f.metadata["on_resume"]}
