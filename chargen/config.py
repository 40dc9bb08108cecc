"""Every option once: its name, type, default, range and help. The command line and the files are made from these."""

import dataclasses
import sys
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from msgspec import Meta

from chargen.files.reading import converted


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive: bool = False,
    choices: tuple[str, ...] = (),
    planned: bool = False,
) -> Any:
    """Declare a field that is also a command-line option.

    ``minimum`` and ``maximum`` are the ends of its range; ``exclusive`` leaves both ends out of it. ``choices``, if
    there are any, are the only values. What is ``planned`` is chosen by `plan` where training isn't told.
    """
    limits = {"minimum": minimum, "maximum": maximum, "exclusive": exclusive, "choices": choices}
    return field(default=default, metadata={"help": help, "planned": planned, **limits})


class Config:
    """What the configurations share: the way to JSON and back."""

    _types: ClassVar[dict[str, tuple[type, bool]]]

    def __init_subclass__(cls) -> None:
        """Add to each field's type its range and its choices, which `converted` checks."""
        cls._types = {}
        for name, hint in cls.__annotations__.items():
            choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            plain, optional = next(c for c in choices if c is not type(None)), type(None) in choices
            cls._types[name] = plain, optional
            declared = _declared(plain, **vars(cls)[name].metadata)
            cls.__annotations__[name] = declared | None if optional else declared

    @classmethod
    def types(cls) -> dict[str, tuple[type, bool]]:
        """For each field its plain type, and whether it may be None."""
        return cls._types

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; fields that are missing take their defaults, unknown ones are passed over.

        Raises ChargenError that names the field if a value has the wrong type or is out of its range.
        """
        return converted(values, cls)


def _declared(
    kind: type, *, minimum: float | None, maximum: float | None, exclusive: bool, choices: tuple[str, ...], **_: Any
) -> Any:
    """Return a type with the range and the choices that a value of it may have."""
    if choices:
        return Literal[choices]
    if kind not in (int, float):
        return kind
    highest = 2**63 - 1 if kind is int else sys.float_info.max
    low, high = (highest if end is None else kind(end) for end in (-highest if minimum is None else minimum, maximum))
    return Annotated[kind, Meta(gt=low, lt=high) if exclusive else Meta(ge=low, le=high)]


@dataclass(frozen=True)
class ModelConfig(Config):
    """The shape of the network; with the vocabulary's size it fixes the shape of every weight."""

    layers: int = option(1, "LSTM layers, one above the other.", minimum=1, maximum=1000, planned=True)
    units: int = option(384, "Units of each LSTM layer.", minimum=1, maximum=2**16, planned=True)
    embedding: int = option(64, "Numbers that stand for a character at the input.", minimum=1, maximum=2**16)
    output_rank: int = option(
        0,
        "Rank of the last layer, which is trained as two thin matrices; 0: as a whole one.",
        minimum=0,
        maximum=2**16,
        planned=True,
    )


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained."""

    minutes: float | None = option(
        None,
        "Time to train; 10 unless --epochs or --steps is given.",
        minimum=0,
        maximum=1e6,
        exclusive=True,
    )
    epochs: float | None = option(
        None, "Passes over the training text, in place of --minutes.", minimum=0, maximum=1e6, exclusive=True
    )
    steps: int | None = option(None, "Updates of the weights, in place of --minutes.", minimum=1, maximum=10**12)
    batch_size: int = option(64, "Streams: places of the text that are read side by side.", minimum=1, planned=True)
    seq_length: int = option(
        64, "Characters in a window, through which the gradient flows back.", minimum=1, planned=True
    )
    learning_rate: float = option(
        0.014,
        "Adam's highest rate: reached after a warm-up, left by a cosine.",
        minimum=0,
        maximum=10,
        exclusive=True,
        planned=True,
    )
    # None until the number of steps is known, which minutes become when they have begun; nothing is blanked before.
    dropout: float | None = option(
        0.1,
        "Share of each layer's outputs that is blanked at random in training.",
        minimum=0,
        maximum=0.95,
        planned=True,
    )
    weight_drop: float | None = option(
        0.0,
        "Share of the recurrent kernels' weights that is blanked at random in training, anew for each step.",
        minimum=0,
        maximum=0.95,
        planned=True,
    )
    clip_norm: float = option(
        1.0, "Longest gradient: a longer one is shortened to it.", minimum=0, maximum=1e6, exclusive=True
    )
    validation: float = option(
        0.1,
        "Share of the text, at its end, that is kept for validation.",
        minimum=0,
        maximum=1,
        exclusive=True,
    )
    # So many are scored in a second to half a minute, and their bpc is by chance within 0.005 of that of a whole text.
    held_out: int | None = option(500_000, "Characters, at the most, that are kept for validation.", minimum=2)
    patience: int | None = option(None, "Stop after this many validations without a better one.", minimum=1)
    random_seed: int = option(
        0, "The random generator's number: of first weights and dropout.", minimum=0, maximum=2**63 - 1
    )
    encoding: str = option("utf-8", "Encoding of the text files.")
    join: bool = option(False, "Read on from one file into the next; else the state restarts where a file begins.")
    keep_boilerplate: bool = option(False, "Keep Project Gutenberg's header and licence.")
    min_count: int = option(
        1, "Characters that occur less often become one unknown character, which is never drawn.", minimum=1
    )
    normalize: str = option(
        "nfc",
        "Unicode normalization of the text; none keeps its characters as they are.",
        choices=("nfc", "none"),
    )
    cache: str | None = option(
        None, "Folder where texts are kept as they are read, for all runs; the platform's for caches, if not given."
    )
    precision: str = option(
        "auto",
        "Numbers of the matrix products; auto takes the faster that the processor has.",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int | None = option(None, "Processor cores to use; all, if not given.", minimum=1, maximum=1024)
    distribute: str = option(
        "none",
        "What trains: this process; mirrored, all its GPUs; workers, those of TF_CONFIG, of which this is one.",
        choices=("none", "mirrored", "workers"),
    )


@dataclass(frozen=True)
class Execution(Config):
    """How a model is computed: chosen once, when a run begins, and kept, as it decides the last bits of every number.

    `unroll.choose` makes it.
    """

    unroll: str = option("keras", "What computes the LSTM layers.", choices=("keras", "loop", "onednn"))
    precision: str = option("float32", "Numbers of the matrix products.", choices=("float32", "bfloat16"))
    shards: int = option(1, "Groups of rows that are computed side by side.", minimum=1, maximum=1024)
    threads: int = option(0, "Processor cores; 0 leaves them to TensorFlow.", minimum=0, maximum=1024)


@dataclass(frozen=True)
class SampleConfig(Config):
    """How text is drawn from a model."""

    length: int = option(1000, "Characters to write after the seed.", minimum=0)
    allow: str | None = option(None, "Regular expression of the characters that may be drawn, such as '[a-z ]'.")
    forbid: str | None = option(None, "Regular expression of the characters that may not be drawn.")
    temperature: float = option(
        0.7,
        "Sampling temperature: below 1 sharpens the distribution; 0 always takes the most likely character.",
        minimum=0,
        maximum=100,
    )
    top_k: int | None = option(None, "Keep the K most likely characters (top-k).", minimum=1)
    top_p: float | None = option(
        None, "Keep the most likely characters whose probabilities add up to P (top-p).", minimum=0, maximum=1
    )
    min_p: float | None = option(
        None, "Keep characters at least P times as probable as the most likely one (min-p).", minimum=0, maximum=1
    )
    random_seed: int | None = option(
        None, "Seed of the random generator: the same number draws the same text.", minimum=0, maximum=2**63 - 1
    )
