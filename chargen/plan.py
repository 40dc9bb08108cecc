"""Sizes and steps, from the text and what was asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from shlex import quote

from chargen import ChargenError
from chargen.config import Execution, ModelConfig, TrainConfig
from chargen.corpus import Corpus
from chargen.run import Progress, Run, RunConfig
from chargen.streams import fit, windows_per_epoch

EPOCHS = 10  # where neither epochs nor steps are asked for


def plan(corpus: Corpus, model: ModelConfig, train: TrainConfig, asked: Collection[str]) -> RunConfig:
    """Return the configuration of a new run on a corpus; its execution is still to be chosen, by `unroll.choose`.

    A batch size or a window whose name is in ``asked`` is left as it is; the others are made smaller where the text
    is too short for them (see `streams.fit`).
    """
    characters = len(corpus.split(train.validation)[0])
    batch_size, seq_length = train.batch_size, train.seq_length
    if "batch_size" not in asked:
        batch_size, seq_length = fit(characters, batch_size, seq_length, shorten="seq_length" not in asked)
    elif "seq_length" not in asked:
        seq_length = max(1, min(seq_length, (characters - 1) // batch_size))
    train = replace(train, batch_size=batch_size, seq_length=seq_length)
    return RunConfig(
        model=model,
        train=train,
        execution=Execution(),
        start=0,
        stop=_steps(train, characters),
        files=corpus.files,
        name=corpus.name,
        characters=len(corpus.ids),
        sha256=corpus.sha256,
    )


def resume(run: Run, corpus: Corpus, train: TrainConfig, asked: Collection[str]) -> RunConfig:
    """Return the configuration with which a run goes on; of ``train`` only what is in ``asked`` counts.

    A finished run gets a new schedule, of the epochs or steps that are asked for, from the step where it is. Raises
    ChargenError if they are asked for and the run is not finished, or the other way round.
    """
    config, checkpoint = run.config, run.checkpoint()
    progress = Progress() if checkpoint is None else Progress.of(checkpoint)
    length = [name for name in ("epochs", "steps") if name in asked]
    if "patience" in asked:
        config = replace(config, train=replace(config.train, patience=train.patience))
    if not run.finished(progress):
        if length:
            raise ChargenError(
                f"--{length[0]} would change the schedule of a run that is not finished: finish it with "
                f"`chargen train --resume {quote(str(run.path))}`, then train it further"
            )
        return config
    if not length:
        raise ChargenError(
            f"{run.path} is finished, at step {progress.step:,}: train it further with "
            f"`chargen train --resume {quote(str(run.path))} --epochs 5`"
        )
    settings = replace(config.train, epochs=train.epochs, steps=train.steps)
    characters = len(corpus.split(settings.validation)[0])
    return replace(config, train=settings, start=progress.step, stop=progress.step + _steps(settings, characters))


def _steps(config: TrainConfig, characters: int) -> int:
    """Return how many steps are asked for on a training text of so many characters; one at the least."""
    if config.steps is not None:
        return config.steps
    epochs = EPOCHS if config.epochs is None else config.epochs
    return max(1, round(epochs * windows_per_epoch(characters, config.batch_size, config.seq_length)))
