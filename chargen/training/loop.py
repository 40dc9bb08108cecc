"""The training loop: truncated back-propagation through time, as an iterator of records.

The state crosses a window's border, the gradient does not (Williams and Peng 1990).

A session runs under the tf.distribute strategy in whose scope it is made: each replica computes some of the rows, and
sums are over all of them. Each worker reads its own rows only. All workers take the same decisions, because a decision
follows from the step, from a sum over all workers, or from what the chief broadcasts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from chargen import ChargenError, __version__
from chargen.bits import bits
from chargen.network.model import CharLM
from chargen.store.modelfile import Checkpoint, ModelFile, state_arrays, state_of, with_temperature
from chargen.store.run import Progress
from chargen.training.distribute import all_gatherer, all_reduce, broadcast, current_worker, rows_of, to_replicas
from chargen.training.evaluate import in_order, reading_time
from chargen.training.jobs import Job
from chargen.training.optimizer import Adam
from chargen.training.plan import fixed
from chargen.training.schedule import (
    Planned,
    Replanned,
    Seconds,
    Stopwatch,
    TextSizes,
    changed,
    fitting,
    learning_rate,
    replanned,
    validation_interval,
)
from chargen.training.step import Controls, compile_step

# Trained models are overconfident. The best model's logits are divided by the temperature, one of these, at which the
# validation text costs least (Guo et al. 2017): 0.011 nats after 3 minutes on a 1 MB play. See `chargen help choices`.
TEMPERATURES = tuple(1.04**k for k in range(-2, 12))
# With many distinct characters, all temperatures would take twice the time of a validation; four cost 0.001 nats.
FEW_TEMPERATURES, FEW_TEMPERATURES_VOCABULARY = TEMPERATURES[2:9:2], 2000
CHECKPOINT_SECONDS = 60
MOST_RECOVERIES = 3


class Step(NamedTuple):
    """An update was made."""

    step: int
    epoch: float
    bpc: float  # mean over the training characters since the last validation


class Validation(NamedTuple):
    """The validation text was scored; the record is the new line of ``metrics.jsonl``."""

    record: dict[str, Any]
    best: bool


class Recovery(NamedTuple):
    """A loss or a gradient was not finite: training went back to a checkpoint, at a lower learning rate."""

    failed: int  # the step whose update or validation was not finite
    step: int  # the checkpoint's
    factor: float  # of the learning rate


Record = Planned | Replanned | Step | Validation | Recovery


class Requests(NamedTuple):
    """What a worker requests of all workers, because of its own clock or signals.

    Requests travel with a step and are read with its loss, so all workers act on them at the same step. A request that
    cannot be granted at once is repeated with the next step.
    """

    stop: bool = False
    save: bool = False  # the last checkpoint is old
    plan: bool = False  # the speed is known, or has changed


class Pending(NamedTuple):
    """An update that was dispatched and whose outcome was not read yet."""

    step: int
    nats: tf.Tensor  # () float32, summed over the window
    made: tf.Tensor  # () bool: whether the loss and the gradient were finite
    requests: tf.Tensor  # (3,) float32, summed over the workers


class Diverged(Exception):  # noqa: N818  - not an error of the run: training recovers from it
    """The loss, the gradient or the validation of a step is not finite."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Session:
    """A run that is being trained: the weights, the optimizer, the LSTM state and the progress, in memory and on disk.

    It goes on from the run's checkpoint, if there is one. A validation carries a state of its own, so it cannot disturb
    the training state.
    """

    def __init__(self, job: Job, model: CharLM) -> None:
        self.run, self.model, self.worker = job.run, model, current_worker()
        self._job, settings = job, job.run.config.train
        self._rows = rows_of(settings.batch_size, self.worker)
        self._window = settings.batch_size * settings.seq_length
        self._sizes = TextSizes(self._window, len(job.validation.ids), len(job.training.ids))
        vocabulary = job.corpus.vocabulary
        few = len(vocabulary) >= FEW_TEMPERATURES_VOCABULARY
        self._temperatures = FEW_TEMPERATURES if few else TEMPERATURES
        self._adam = Adam(model.named_weights(), settings.clip_norm)
        self._update = compile_step(model, self._adam, settings)
        self._evaluate, self._gather = in_order(model, self.worker, self._temperatures), all_gatherer()
        self._state = to_replicas(model.zero_state(self._rows.stop - self._rows.start))
        # The outcome of an update is read one step late, so that the host never waits for the step that is running.
        self._pending: Pending | None = None
        self._rate, self._lap, self._stopwatch = 0.0, time.monotonic(), Stopwatch()
        self._saved = self._lap
        self.progress, checkpoint = Progress(), self.run.checkpoint()
        self._base_words = None if checkpoint is None else checkpoint.base_words
        if checkpoint is not None:
            self._restore(checkpoint)
        self.nothing_left = checkpoint is not None and self.run.finished(self.progress)

    def begin(self, began: float) -> None:
        """Write the first checkpoint, remove metrics that are later than it, and start to read the text.

        The time since ``began``, a `time.monotonic`, counts towards the run's minutes.
        """
        if self.progress.finished:  # the schedule before this one
            self.progress = self.progress.reopened()
        self._stopwatch.begin(began - self.progress.used)
        self._metrics = [record for record in self.run.metrics() if record["step"] <= self.progress.step]
        self.run.write_metrics(self._metrics)
        self.save()
        self._windows = self._job.streams.read_ahead(self.progress.step, self._rows)

    def close(self) -> None:
        """Stop reading the text."""
        self._windows.close()

    def requests(self, *, stop: bool) -> Requests:
        """Return what this worker requests. Only the chief's clock counts."""
        chief = self.worker.rank == 0
        old = time.monotonic() - self._saved > CHECKPOINT_SECONDS
        due = chief and self._stopwatch.is_due(self.run.config, self.progress.step, self._sizes)
        return Requests(stop, chief and old, due)

    def dispatch(self, requests: Requests) -> Requests:
        """Start the next update; return the requests of the one before. Raises Diverged if that was not made."""
        config, step = self.run.config, self.progress.step
        assert config.train.learning_rate is not None
        rate = learning_rate(step, config.start, config.stop, config.train.learning_rate, config.knot)
        self._rate = self.progress.factor * rate
        counters = tf.constant(step, tf.int64), tf.constant(self._rate), tf.constant(requests, tf.float32)
        drops = tf.constant([config.train.dropout or 0, config.train.weight_drop or 0], tf.float32)
        window = to_replicas(next(self._windows))
        self._state, *result = self._update(window, self._state, Controls(*counters, drops))
        granted = self._settle()
        self.progress = self.progress.stepped()
        self._pending = Pending(self.progress.step, *result)
        self._stopwatch.lap()
        return granted

    def _settle(self) -> Requests:
        """Account for the pending update and return its requests. Raises Diverged if the update was not made."""
        if self._pending is None:
            return Requests()
        (step, nats, made, requests), self._pending = self._pending, None
        if not made:
            raise Diverged(step)
        self.progress = self.progress.counted(float(nats), self._window)
        return Requests(*(requests.numpy() > 0).tolist())

    def _tick(self) -> None:
        """Add the time since the last call to the progress."""
        before, self._lap = self._lap, time.monotonic()
        self.progress = self.progress.elapsed(self._lap - before, self._stopwatch.used())

    def skip_time(self) -> None:
        """Leave out the time that the caller used since the last validation. It counts towards the minutes only."""
        self._lap = time.monotonic()
        self._stopwatch.validated()

    def training_record(self) -> Step | None:
        """Return the record of the last step, if characters were counted since the last validation."""
        progress = self.progress
        if not progress.characters:
            return None
        return Step(progress.step, progress.step / self._job.streams.windows, bits(progress.nats / progress.characters))

    def save(self) -> None:
        """Write a checkpoint of the last update. Raises Diverged if that was not made."""
        self._settle()
        self._tick()
        extra = {f"optimizer/{name}": moment.numpy() for name, moment in self._adam.moments.items()}
        extra |= {f"state/{name}": array for name, array in state_arrays(self._gather(self._state)).items()}
        summary = {**self._summary(), "progress": asdict(self.progress)}
        model, words = self.model, self._base_words
        checkpoint = Checkpoint(model.arrays(), self._job.corpus.vocabulary, model.config, summary, extra, None, words)
        checkpoint.write(self.run.checkpoint_path)
        self._saved = time.monotonic()

    def save_last(self) -> None:
        """Write a checkpoint of the last update, if that was made; else the one before is the last whole one."""
        with suppress(Diverged):
            self.save()

    def _summary(self) -> dict[str, Any]:
        config = self.run.config
        summary = {"text": config.name, "characters": config.characters, "sha256": config.sha256}
        return {**summary, **config.reading, "chargen": __version__, "step": self.progress.step}

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.progress = Progress.of(checkpoint)
        self.model.assign(checkpoint.weights)
        if not checkpoint.extra:  # the run begins with another model's weights
            return
        for name, moment in self._adam.moments.items():
            moment.assign(checkpoint.extra[f"optimizer/{name}"])
        carried = {n.removeprefix("state/"): a for n, a in checkpoint.extra.items() if n.startswith("state/")}
        self._state = to_replicas(state_of({n: a[self._rows] for n, a in carried.items()}))

    def validation_is_due(self) -> bool:
        """Return whether the validation text is to be scored after this step."""
        config, step = self.run.config, self.progress.step
        if config.stop is None:
            return False
        interval = validation_interval(config.stop - config.start, self._sizes)
        return step == config.stop or (step - config.start) % interval == 0

    def validate(self) -> Validation:
        """Score the validation text and write all files. Raises Diverged if the last update or the score is not finite.

        The files are written in an order such that a kill between them loses nothing: the older checkpoint makes again
        whatever was not written.
        """
        self._settle()
        self._tick()
        nats, temperature = self._score()
        if not isfinite(nats):
            raise Diverged(self.progress.step)
        record = self._metrics_record(nats, temperature)
        self._tick()
        best = self.progress.best is None or nats < self.progress.best
        self.progress = self.progress.validated(nats, self.run.config.stop, self.run.config.train.patience)
        if best:
            self._write_model(nats, temperature)
        self._metrics = [*self._metrics, record]
        self.run.write_metrics(self._metrics)
        self.save()
        return Validation(record, best)

    def _score(self) -> tuple[float, float]:
        """Return the nats per character of the validation text at the best temperature, and that temperature."""
        validation = self._job.validation
        nats = all_reduce(self._evaluate(*validation).sum(-1, dtype="float64")) / (len(validation.ids) - 1)
        best = int(nats.argmin())  # the index of the first NaN, if there is one
        return float(nats[best]), self._temperatures[best]

    def _metrics_record(self, nats: float, temperature: float) -> dict[str, Any]:
        progress = self.progress
        return {
            "step": progress.step,
            "epoch": round(progress.step / self._job.streams.windows, 4),
            "characters": progress.step * self._window,
            "seconds": round(progress.seconds, 2),
            "training_bpc": bits(progress.nats / progress.characters),
            "validation_bpc": bits(nats),
            "temperature": round(temperature, 4),
            "learning_rate": self._rate,
            "characters_per_second": round(progress.characters / progress.clock),
        }

    def _write_model(self, nats: float, temperature: float) -> None:
        summary = {**self._summary(), "validation_bpc": bits(nats), "temperature": temperature}
        weights = with_temperature(self.model.arrays(), temperature)
        corpus = self._job.corpus
        words = (corpus.words, self._base_words)
        model = ModelFile(weights, corpus.vocabulary, self.model.config, summary, {}, *words)
        model.write(self.run.model_path)

    def plan(self) -> Planned | Replanned | None:
        """Fix the number of steps that fit into the minutes at the measured speed, for the first time or again.

        Return None if the present plan still fits. The checkpoint is written before the configuration. So no checkpoint
        is older than the knot, and no learning rate before the knot is needed again. A collective.
        """
        self._settle()
        config, step, streams = self.run.config, self.progress.step, self._job.streams
        before = time.monotonic()
        self.save()
        validation, saving = self._stopwatch.validation_seconds, time.monotonic() - before
        if config.stop is None:  # nothing was validated yet
            own = reading_time(self._evaluate, *self._job.validation)
            slowest = float(all_reduce(own * np.eye(self.worker.workers)[self.worker.rank]).max())
            validation = slowest + saving
        seconds = self._stopwatch.left(config.train.minutes or 0), self._stopwatch.step_seconds, validation
        left, *each = json.loads(broadcast(json.dumps(seconds).encode()))
        self._stopwatch.restart(validation=each[1])
        self._lap = time.monotonic()
        more = fitting(config, step, left, Seconds(*each), self._sizes)
        stop = step + more
        if config.stop is None:
            self.run.reconfigure(fixed(config, stop, streams.characters))
            return Planned(stop, stop / streams.windows, self._window / each[0])
        if not changed(config, step, more):
            return None
        self.run.reconfigure(replanned(config, step, more))
        return Replanned(stop, config.stop)

    def recover(self, failed: int) -> Recovery:
        """Go back to the last checkpoint, at half the learning rate. Raises ChargenError at the fourth time."""
        self._pending = None
        if self.progress.recoveries == MOST_RECOVERIES:
            raise ChargenError(
                f"training diverged for the {MOST_RECOVERIES + 1}th time, at step {failed:,}: the best model "
                "so far is intact; train again with a lower --learning-rate or --clip-norm"
            )
        self._restore(Checkpoint.read(self.run.checkpoint_path))
        self._windows.close()
        self._windows = self._job.streams.read_ahead(self.progress.step, self._rows)
        self.progress = self.progress.recovered()
        self.save()
        self._stopwatch.skip()
        return Recovery(failed, self.progress.step, self.progress.factor)


def train(
    session: Session, stopping: Callable[[], bool] = lambda: False, began: float | None = None
) -> Generator[Record]:
    """Train as the run's configuration says; yield what happens. Files are written before their record is yielded.

    A run that was given minutes is measured first: after about 5 % of them, at most 8 seconds, the number of steps is
    fixed, and with it the dropout. When the speed changes, the number of steps is changed, and the learning rate goes
    on smoothly from where it is. Each plan is written to the run's configuration. Everything that follows depends only
    on the configuration and the step.

    The minutes count from ``began``, a `time.monotonic`; by default from now. A resumed run counts the time that it
    used up to its checkpoint, and goes on with the rest. The time between a stop and the resumption does not count.

    When ``stopping`` returns true in any worker, training ends after one or two steps with a checkpoint of the last
    one. Closing the iterator (``close()``; leaving a ``for`` loop does it in CPython) writes one too, but not with
    several workers, as a worker does not have the state of all rows.

    A finished run yields nothing. Raises ChargenError if training diverges for the fourth time, if memory runs out, or
    if a file cannot be written.
    """
    if session.nothing_left:
        return
    session.begin(time.monotonic() if began is None else began)
    granted = Requests()
    try:
        while not (session.progress.finished or granted.stop):
            try:
                if granted.plan and (planned := session.plan()) is not None:
                    yield planned
                granted = session.dispatch(session.requests(stop=stopping()))
                if session.validation_is_due():
                    yield session.validate()
                    session.skip_time()
                    continue
                if granted.save:
                    session.save()
                if (record := session.training_record()) is not None:
                    yield record
            except Diverged as diverged:
                granted = Requests()
                yield session.recover(diverged.step)
        if not session.progress.finished:
            session.save_last()
    except GeneratorExit:
        if session.worker.workers == 1:
            session.save_last()
        raise
    except tf.errors.ResourceExhaustedError:
        raise ChargenError(
            "there is not enough memory for a step of this size: train with a smaller --batch-size, --seq-length or "
            f"--units; {session.run.path} is as it was at its last checkpoint"
        ) from None
    finally:
        session.close()
