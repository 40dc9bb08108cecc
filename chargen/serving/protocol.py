"""The protocol: OpenAI's text completions. A token is a character; fields that are left out have chargen's defaults."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.files.reading import DamagedError, converted, parsed
from chargen.serving.texts import Job, Part, Score
from chargen.serving.worker import Mail, Worker
from chargen.writing.best import choice_of
from chargen.writing.clone import RECALLED, Clone
from chargen.writing.generate import LENGTH, Until, beginning, opening
from chargen.writing.given import known_seed, known_stop
from chargen.writing.sampler import Filter, filters, generators
from chargen.writing.words import ANY, BASE, BOOK

MOST_PROMPT = RECALLED  # characters of a prompt, all of which the filters follow
MOST_LENGTH = 100_000  # characters that a continuation may have
MOST_LIKELIEST = 20  # alternatives of each character
FILTERS = 16  # lists of filters that are kept for later requests with the same settings


class RequestError(ChargenError):
    """What is wrong with a request."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True)
class StreamOptions:
    """What a stream has besides the text."""

    include_usage: bool | None = None


@dataclass(frozen=True)
class Request:
    """The fields of the protocol. Those of `SampleConfig` may be given too, by their names there."""

    model: str | None = None
    prompt: str | tuple[str, ...] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MOST_LENGTH)] | None = None
    n: Annotated[int, Meta(ge=1, le=256)] | None = None
    stop: str | tuple[str, ...] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LIKELIEST)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    suffix: str | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, at least one."""
        return (self.prompt or "",) if isinstance(self.prompt, str | None) else self.prompt

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


def read(body: bytes) -> tuple[Request, SampleConfig]:
    """Return the request in a body, and the settings of the draw. Raises RequestError that names the field."""
    try:
        values = parsed(body)
        if not isinstance(values, dict):
            raise DamagedError("it is not a JSON object")
        request = converted(values, Request)
        names = {f.name for f in dataclasses.fields(SampleConfig)} - {"length", "random_seed"}
        given = {name: values[name] for name in names if values.get(name) is not None}
        if given.get("words", ANY) not in (ANY, BOOK, BASE):  # the command line takes a file here
            raise DamagedError(f"words: give {ANY}, {BOOK} or {BASE}")
        config = SampleConfig.from_json(given)
    except DamagedError as error:
        field, colon, _ = str(error).partition(":")
        raise RequestError(str(error), param=field if colon else None) from None
    if not request.prompts:
        raise RequestError("prompt: give a text, or a list of at least one", param="prompt")
    if "" in request.stops:
        raise RequestError("stop is empty: give the text before which to end", param="stop")
    for name, instead in (
        ("presence_penalty", ": no_repeat keeps a text from repeating itself"),
        ("frequency_penalty", ": no_repeat keeps a text from repeating itself"),
        ("logit_bias", ": allow and forbid choose the characters"),
        ("suffix", ": the model reads only what comes before"),
    ):
        if getattr(request, name):
            raise RequestError(f"{name} is not supported{instead}", param=name)
    length = config.length if request.max_tokens is None else request.max_tokens
    return request, replace(config, length=length)


class Served:
    """A model that is served."""

    def __init__(self, name: str, clone: Clone) -> None:
        """Take a clone of one row that has read nothing."""
        self.name, self.clone, self.worker, self.created = name, clone, Worker(clone), int(time.time())
        self.filters = lru_cache(FILTERS)(self._filters)

    def _filters(self, config: SampleConfig) -> Sequence[Filter]:
        return filters(config, self.clone.vocabulary, self.clone.words, self.clone.base_words)

    def about(self) -> dict[str, Any]:
        """Return the model as the protocol lists it."""
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "chargen"}


class Prompt(NamedTuple):
    """A prompt, in the characters of the model."""

    text: str
    ids: Sequence[int]


class Completion:
    """A request to a model, and the choices of its answer."""

    def __init__(self, request: Request, config: SampleConfig, served: Served) -> None:
        """Take a request as `read` returns it. Raises RequestError for what the model cannot do."""
        self.request, self.config, self.served = request, config, served
        self.count = request.n or 1
        if self.count * config.best_of > (most := served.worker.most_rows):
            raise RequestError(f"n: with best_of there are more than {most} texts; ask for fewer", param="n")
        vocabulary = served.clone.vocabulary
        self._prompts = [self._prompt(text) for text in request.prompts]
        self._stops = tuple(known_stop(vocabulary, stop)[0] for stop in request.stops)
        try:
            self._filters = served.filters(replace(config, length=0, best_of=1))
            self._choice = choice_of(served.clone, config) if config.best_of > 1 else None
        except ChargenError as error:
            raise RequestError(str(error)) from None
        self._head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion"}
        self._head |= {"created": int(time.time()), "model": served.name}  # type: ignore[dict-item]
        self._written, self._characters = dict[int, int](), 0
        self._read = defaultdict[int, list[Score]](list)  # scores of a prompt, by its job's first choice

    def _prompt(self, text: str) -> Prompt:
        if len(text) > MOST_PROMPT:
            code = "context_length_exceeded"
            raise RequestError(f"prompt: it has more than {MOST_PROMPT:,} characters", 413, "prompt", code)
        vocabulary = self.served.clone.vocabulary
        try:
            seed, _ = known_seed(vocabulary, text)
        except ChargenError as error:
            raise RequestError(str(error), param="prompt") from None
        return Prompt(seed, vocabulary.encode(beginning(self.served.clone) + seed or opening(vocabulary)).tolist())

    @property
    def texts(self) -> int:
        """The number of texts that are written."""
        return len(self._prompts) * self.count

    def jobs(self, mail: Mail) -> list[Job]:
        """Return the jobs that write the texts. The texts of each prompt are those of ``chargen sample``."""
        seed = secrets.randbits(32) if self.request.seed is None else self.request.seed
        found = []
        for number, prompt in enumerate(self._prompts):
            drawing = generators(seed, self.count)
            step = self.count if self._choice is None else 1  # the best of branches is one text for itself
            for first in range(0, self.count, step):
                index = number * self.count + first
                job = Job(
                    prompt=prompt.ids,
                    until=Until(self.config.length, self._stops, end=self.served.clone.vocabulary.end),
                    filters=self._filters,
                    generators=drawing[first : first + step],
                    put=partial(mail.put, index),
                    greedy=not self.config.temperature,
                    choice=self._choice,
                    likeliest=self.request.logprobs,
                    scores_prompt=bool(self.request.echo and prompt.text),
                )
                found.append(job)
        return found

    def choices(self, parts: Iterable[tuple[int, Part]]) -> list[dict[str, Any]]:
        """Return what parts add to the choices of the answer, each choice with its text so far."""
        found: dict[int, dict[str, Any]] = {}
        for first, part in parts:
            if part.read:
                self._read[first] += part.scores
                continue
            index, piece = first + part.piece.sample, part.piece
            choice = found.setdefault(index, {"index": index, "text": "", "logprobs": None, "finish_reason": None})
            text, scores = piece.text, [*part.scores]
            self._characters += len(text)
            if index not in self._written:
                before = self._prompts[index // self.count].text
                self._written[index] = 0 if self.request.echo else len(before)
                if self.request.echo:
                    text, scores = before + text, self._read[first] + scores
            if self.request.logprobs is not None:
                self._add_scores(choice, text, scores)
            self._written[index] += len(text)
            choice["text"] += text
            if piece.stopped_by is not None:
                choice["finish_reason"] = "length" if piece.stopped_by == LENGTH else "stop"
        return [found[index] for index in sorted(found)]

    def _add_scores(self, choice: dict[str, Any], text: str, scores: Sequence[Score]) -> None:
        choice["logprobs"] = choice["logprobs"] or {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        into, at = choice["logprobs"], self._written[choice["index"]]
        for place, (character, score) in enumerate(zip(text, scores, strict=True), at):
            into["tokens"].append(character)
            into["token_logprobs"].append(None if score.nats is None else -score.nats)
            into["top_logprobs"].append(None if score.nats is None else {c: -nats for c, nats in score.likeliest})
            into["text_offset"].append(place)

    @property
    def usage(self) -> dict[str, int]:
        """The characters that have been read and written."""
        read = sum(len(prompt.text) for prompt in self._prompts)
        return {
            "prompt_tokens": read,
            "completion_tokens": self._characters,
            "total_tokens": read + self._characters,
        }

    def whole(self, parts: Iterable[tuple[int, Part]]) -> bytes:
        """Return the answer that has all parts."""
        return encoded({**self._head, "choices": self.choices(parts), "usage": self.usage})

    def event(self, choices: list[dict[str, Any]]) -> bytes:
        """Return an event of a stream."""
        return b"data: " + encoded({**self._head, "choices": choices}) + b"\n\n"

    def last_events(self) -> bytes:
        """Return the events that end a stream."""
        options, done = self.request.stream_options, b"data: [DONE]\n\n"
        if options is None or not options.include_usage:
            return done
        return b"data: " + encoded({**self._head, "choices": [], "usage": self.usage}) + b"\n\n" + done


def encoded(value: Any) -> bytes:
    """Return JSON in ASCII, because texts may have surrogates."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def error_of(message: str, status: int, param: str | None = None, code: str | None = None) -> bytes:
    """Return an error as the protocol has it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return encoded({"error": {"message": message, "type": kind, "param": param, "code": code}})
