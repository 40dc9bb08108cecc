"""What the terminal shows of a training: a progress bar, and above it a table with previews of the model's text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chargen.terminal import cut, fitted, width

if TYPE_CHECKING:
    from chargen.config import TrainConfig
    from chargen.network.model import CharLM
    from chargen.store.runconfig import RunConfig
    from chargen.text.corpus import Advance
    from chargen.text.vocabulary import Vocabulary
    from chargen.training.jobs import Job
    from chargen.training.loop import Record, Recovery, Validation
    from chargen.training.schedule import Planned, Replanned

PREVIEW_CHARACTERS = 96  # written at each validation, or more where the terminal is wider
PREVIEW_ITEMS = 12  # of a text whose documents end with a character of their own
TITLES = """
                          bits per character
    step   epoch    time  training  validation      rate  characters/s"""


@contextmanager
def reading() -> Iterator[Advance]:
    """Show a progress bar if reading takes long; yield the function to call with the number of characters just read."""
    from tqdm import tqdm

    with tqdm(
        desc="reading", unit=" characters", unit_scale=True, miniters=1, delay=1, disable=None, leave=False
    ) as bar:
        yield bar.update


class Screen:
    """What the terminal shows of a training: a progress bar, and above it a table with previews."""

    def __init__(self, job: Job, model: CharLM) -> None:
        from tqdm import tqdm

        self._job, self._model, self._titled = job, model, False
        self._window = job.streams.batch_size * job.streams.seq_length
        stop = job.run.config.stop
        self._bar = tqdm(
            total=None if stop is None else stop * self._window,
            bar_format="{desc} |{bar}| {percentage:3.0f}% {rate_noinv_fmt} {remaining} left",
            unit=" characters",
            unit_scale=True,
            disable=None,  # where standard error is not a terminal
            leave=False,
        )

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, record: Record) -> None:
        """Show a record of the training."""
        from chargen.training.loop import Step, Validation
        from chargen.training.schedule import Planned, Replanned

        if isinstance(record, Step):
            self._advance(record.step, f"epoch {record.epoch:.2f}  {record.bpc:.3f} bpc")
        elif isinstance(record, Planned):
            self._bar.total = record.stop * self._window
            self._write(fitted(planned_line(record, self._job.run.config), sys.stdout, indent=10))
        elif isinstance(record, Replanned):
            self._bar.total = record.stop * self._window
            self._write(fitted(replanned_line(record), sys.stdout))
        elif isinstance(record, Validation):
            if not self._titled:
                self._write(TITLES)
                self._titled = True
            self._write(table_line(record))
            vocabulary = self._job.corpus.vocabulary
            before = vocabulary.decode(self._job.validation.ids[:PREVIEW_CHARACTERS])
            text = preview(self._model, vocabulary, before, record, max(PREVIEW_CHARACTERS, width(sys.stdout)))
            self._write(cut(f"  {text}", sys.stdout))
        else:
            self._write(fitted(recovery_line(record), sys.stdout))
        sys.stdout.flush()

    def _advance(self, step: int, description: str) -> None:
        bar = self._bar
        if not bar.n:  # a resumed run starts where it stopped
            bar.initial = bar.n = bar.last_print_n = (step - 1) * self._window
        bar.set_description_str(description, refresh=False)
        bar.update(step * self._window - bar.n)

    def _write(self, line: str) -> None:
        self._bar.write(line, file=sys.stdout)


def dropout_line(training: TrainConfig) -> str:
    """Return the dropout rates, in a line, as far as they are known."""
    rates = {"dropout": training.dropout, "weight drop": training.weight_drop}
    known = [f"{name} {rate:g}" for name, rate in rates.items() if rate is not None]
    later = " and ".join(name for name, rate in rates.items() if rate is None)
    return ", ".join([*known, f"{later} follow once the speed is known"] if later else known)


def planned_line(planned: Planned, config: RunConfig) -> str:
    """Return, in a line, how long the training will be at the measured speed."""
    from chargen.training.schedule import most_passes

    passes = planned.epochs * (1 - config.start / planned.stop)
    enough = config.parent is not None and passes >= most_passes(config)
    return (
        f"time      {planned.characters_per_second:,.0f} characters a second: {planned.stop:,} steps, "
        f"{planned.epochs:.1f} epochs{', as more would not help' if enough else ''}; {dropout_line(config.train)}"
    )


def replanned_line(replanned: Replanned) -> str:
    """Return, in a line, how long the training will be now that its speed has changed."""
    pace = "slower" if replanned.stop < replanned.before else "faster"
    return f"training is {pace} than planned: {replanned.stop:,} steps instead of {replanned.before:,}"


def recovery_line(recovery: Recovery) -> str:
    """Return, in a line, where training goes on after it diverged."""
    return (
        f"the loss of step {recovery.failed:,} is not finite: back to step {recovery.step:,}, with "
        f"{recovery.factor:g} of the learning rate"
    )


def table_line(validation: Validation) -> str:
    """Return a validation as a line of the table under TITLES."""
    r = validation.record
    minutes, seconds = divmod(round(r["seconds"]), 60)
    return (
        f"{r['step']:8,}  {r['epoch']:6.2f}  {minutes:3}:{seconds:02}  {r['training_bpc']:8.3f}  "
        f"{r['validation_bpc']:10.3f}  {r['learning_rate']:8.6f}  {r['characters_per_second']:12,}"
        f"{'  best' if validation.best else ''}"
    )


def preview(model: CharLM, vocabulary: Vocabulary, before: str, validation: Validation, length: int) -> str:
    """Return, in a line, how the model that was just validated continues the text ``before``, or items of its own."""
    from chargen.config import SampleConfig
    from chargen.store.modelfile import ModelFile, with_temperature
    from chargen.writing.clone import Clone
    from chargen.writing.generate import Until
    from chargen.writing.sampler import generators

    weights = with_temperature(model.arrays(), validation.record["temperature"])
    clone = Clone(ModelFile(weights, vocabulary, model.config, {}, {}).for_inference().weights, vocabulary)
    if vocabulary.end is not None:
        clone.feed(vocabulary.end)
        rows, texts = clone.repeat(PREVIEW_ITEMS), [""] * PREVIEW_ITEMS
        drawn = generators(validation.record["step"], PREVIEW_ITEMS)
        for piece in rows.write(SampleConfig(), Until(length), drawn):
            texts[piece.sample] += piece.text
        return " ".join(", ".join(texts).split())
    clone.feed(before)
    return " ".join("".join(clone.generate(length, random_seed=validation.record["step"])).split())
