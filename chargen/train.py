"""The training loop: truncated back-propagation through time, as an iterator of records.

The state crosses a window's border, the gradient does not (Williams and Peng 1990).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from math import ceil, isfinite
from typing import Any, NamedTuple

import tensorflow as tf

from chargen import ChargenError, __version__
from chargen.bits import bits
from chargen.config import TrainConfig
from chargen.corpus import Part
from chargen.evaluate import in_order
from chargen.model import CharLM, dropout_mask, reset_rows, state_arrays, state_of
from chargen.modelfile import Checkpoint, ModelFile
from chargen.optimizer import Adam, learning_rate
from chargen.run import Progress, Run
from chargen.streams import Streams
from chargen.unroll import State, row_groups
from chargen.vocabulary import Vocabulary

MOST_VALIDATIONS = 30  # of a run
FEWEST_STEPS = 10  # between validations, where a run is short
# Between validations, as a multiple of the validation text: a validation then takes 3 to 5 % of the time.
READ_BETWEEN = 8
MEASURED_SHARE, MEASURED_SECONDS, UNMEASURED_STEPS = 0.05, 8, 3  # the first steps compile, and are left out
CHECKPOINT_SECONDS = 60
MOST_RECOVERIES = 3


class Planned(NamedTuple):
    """The machine's speed is known, and with it how many steps fit into the minutes that were given."""

    stop: int
    epochs: float
    characters_per_second: float


class Step(NamedTuple):
    """An update was made."""

    step: int
    epoch: float
    bpc: float  # of the training characters since the last validation


class Validation(NamedTuple):
    """The validation text was scored; the record is the new line of ``metrics.jsonl``."""

    record: dict[str, Any]
    best: bool


class Recovery(NamedTuple):
    """A loss or a gradient was not finite: training went back to a checkpoint, at a lower rate."""

    failed: int  # the step whose update was not made
    step: int  # the checkpoint's
    factor: float


def train(
    model: CharLM, vocabulary: Vocabulary, streams: Streams, validation: Part, run: Run, began: float | None = None
) -> Generator[Planned | Step | Validation | Recovery]:
    """Train ``model`` as ``run.config`` says, from the run's checkpoint if it has one; yield what happens.

    A run that was given minutes is measured first: after some 5 % of them the number of steps is fixed, and written to
    the run's configuration; all that follows is a function of the step. The minutes count from ``began``, a
    `time.monotonic`; from now, if it isn't given.

    Files are written before the record that tells of them is yielded. Whoever stops iterating and closes the
    iterator (``close()``, which leaving a ``for`` loop does too in CPython) finds a checkpoint of the last step made.

    Raises ChargenError if the run is finished, if training diverges for the fourth time, or if a file can't be
    written.
    """
    config, settings = run.config, run.config.train
    began = time.monotonic() if began is None else began
    adam = Adam(model.named_weights(), settings.clip_norm)
    update = compile_step(model, adam, settings)
    evaluate = in_order(model)
    summary = {"text": config.name, "characters": config.characters, "sha256": config.sha256, "chargen": __version__}
    window_size = streams.batch_size * streams.seq_length

    state, progress = model.zero_state(settings.batch_size), Progress()
    # The last update's sum of nats and whether it was made: looked at one step late, so that the host never waits for
    # the step that is running.
    pending: tuple[tf.Tensor, tf.Tensor] | None = None
    lap = saved = time.monotonic()
    metrics: list[dict[str, Any]] = []

    def tick() -> None:
        nonlocal lap, progress
        passed, lap = time.monotonic() - lap, time.monotonic()
        progress = replace(progress, clock=progress.clock + passed, seconds=progress.seconds + passed)

    def settle() -> bool:
        """Account for the pending update; return False if it was not made."""
        nonlocal pending, progress
        if pending is None:
            return True
        (nats, made), pending = pending, None
        if made:
            characters = progress.characters + window_size
            progress = replace(progress, nats=progress.nats + float(nats), characters=characters)
        return bool(made)

    def restore(checkpoint: Checkpoint) -> None:
        nonlocal state, progress
        model.assign(checkpoint.weights)
        for name, moment in adam.moments.items():
            moment.assign(checkpoint.extra[f"optimizer/{name}"])
        carried = {n.removeprefix("state/"): a for n, a in checkpoint.extra.items() if n.startswith("state/")}
        state, progress = state_of(carried), Progress.of(checkpoint)

    def save() -> None:
        nonlocal saved
        tick()
        extra = {f"optimizer/{name}": moment.numpy() for name, moment in adam.moments.items()}
        extra |= {f"state/{name}": array for name, array in state_arrays(state).items()}
        told = {**summary, "step": progress.step, "progress": asdict(progress)}
        Checkpoint(model.arrays(), vocabulary, model.config, told, extra).write(run.checkpoint_path)
        saved = time.monotonic()

    def validate() -> Validation | None:
        """Score the validation text and write all files; None, and no files, if the score is not finite."""
        nonlocal progress, metrics
        tick()
        nats = float(evaluate(*validation).mean(dtype="float64"))
        if not isfinite(nats):
            return None
        best = progress.best is None or nats < progress.best
        record = {
            "step": progress.step,
            "epoch": round(progress.step / streams.windows, 4),
            "characters": progress.step * window_size,
            "seconds": round(progress.seconds, 2),
            "training_bpc": bits(progress.nats / progress.characters),
            "validation_bpc": bits(nats),
            "learning_rate": rate,
            "characters_per_second": round(progress.characters / progress.clock),
        }
        tick()
        worse = 0 if best else progress.worse + 1
        progress = replace(
            progress,
            best=nats if best else progress.best,
            worse=worse,
            nats=0.0,
            characters=0,
            clock=0.0,
            finished=progress.step == config.stop or (settings.patience is not None and worse >= settings.patience),
        )
        # In this order: whatever file a kill keeps from being written, the older checkpoint makes it again.
        if best:
            told = {**summary, "step": progress.step, "validation_bpc": bits(nats)}
            ModelFile(model.arrays(), vocabulary, model.config, told, {}).write(run.model_path)
        metrics = [*metrics, record]
        run.write_metrics(metrics)
        save()
        return Validation(record, best)

    if (checkpoint := run.checkpoint()) is not None:
        restore(checkpoint)
        if run.finished(progress):
            raise ChargenError(f"{run.path} is finished, at step {progress.step:,}")
        if progress.finished:  # the schedule before this one was
            progress = replace(progress, finished=False, worse=0)
    metrics = [record for record in run.metrics() if record["step"] <= progress.step]
    run.write_metrics(metrics)
    save()

    laps = [time.monotonic()]
    windows = streams.read_ahead(progress.step)
    try:
        while not progress.finished:
            if config.stop is None and (seconds := _measured(laps, settings)):
                settle()
                evaluate(*validation)  # which compiles it
                before = time.monotonic()
                evaluate(*validation)
                save()
                validated_in = time.monotonic() - before
                left = 60 * (settings.minutes or 0) - (time.monotonic() - began)
                more = steps_in(
                    left, seconds, validated_in, window_size, len(validation.ids), progress.step - config.start
                )
                config = replace(config, stop=progress.step + more)
                run.reconfigure(config)
                yield Planned(progress.step + more, (progress.step + more) / streams.windows, window_size / seconds)
                lap = time.monotonic()
            rate = progress.factor * learning_rate(progress.step, config.start, config.stop, settings.learning_rate)
            state, *result = update(*next(windows), state, tf.constant(progress.step, tf.int64), tf.constant(rate))
            made = settle()
            pending = (result[0], result[1])
            progress = replace(progress, step=progress.step + 1)
            laps.append(time.monotonic())
            due = config.stop is not None and (
                progress.step == config.stop
                or progress.step % interval(config.stop - config.start, window_size, len(validation.ids)) == 0
            )
            late = time.monotonic() - saved > CHECKPOINT_SECONDS
            if due or late:
                made = settle() and made
            validated = validate() if due and made else None
            if not made or (due and validated is None):
                failed, pending = progress.step, None
                if progress.recoveries == MOST_RECOVERIES:
                    raise ChargenError(
                        f"training diverged for the {MOST_RECOVERIES + 1}th time, at step {failed:,}: the best model "
                        "so far is intact; train again with a lower --learning-rate or --clip-norm"
                    )
                restore(Checkpoint.read(run.checkpoint_path))
                windows.close()
                windows = streams.read_ahead(progress.step)
                progress = replace(progress, factor=progress.factor / 2, recoveries=progress.recoveries + 1)
                save()
                yield Recovery(failed, progress.step, progress.factor)
            elif validated is not None:
                yield validated
                lap = time.monotonic()  # what the caller does with a validation is not training
            else:
                if late:
                    save()
                if progress.characters:
                    average = bits(progress.nats / progress.characters)
                    yield Step(progress.step, progress.step / streams.windows, average)
    except GeneratorExit:
        if settle():
            save()
        raise
    except tf.errors.ResourceExhaustedError:
        raise ChargenError(
            "there is not enough memory for a step of this size: train with a smaller --batch-size, --seq-length or "
            f"--units; {run.path} is as it was at its last checkpoint"
        ) from None
    finally:
        windows.close()


def interval(steps: int, window: int, held_out: int) -> int:
    """Return how many steps there are from one validation to the next, in a schedule of so many steps.

    ``window`` is the characters of a step, ``held_out`` those of the validation text.
    """
    return max(FEWEST_STEPS, ceil(steps / MOST_VALIDATIONS), ceil(READ_BETWEEN * held_out / window))


def steps_in(seconds: float, step: float, validation: float, window: int, held_out: int, done: int = 0) -> int:
    """Return how many steps fit into so many seconds, with the validations among them; one at the least.

    ``step`` and ``validation`` are the seconds that each takes, ``done`` the steps already made of the schedule.
    """
    fitting, too_many = 1, max(2, int(seconds / step) + 1)
    while too_many - fitting > 1:  # the validations depend on the steps, and the other way round
        steps = (fitting + too_many) // 2
        if steps * step + ceil(steps / interval(steps + done, window, held_out)) * validation <= seconds:
            fitting = steps
        else:
            too_many = steps
    return fitting


def _measured(laps: list[float], settings: TrainConfig) -> float | None:
    """Return the seconds of a step, from the times between steps, once they were taken long enough."""
    laps = laps[UNMEASURED_STEPS:]
    enough = min(MEASURED_SECONDS, MEASURED_SHARE * 60 * (settings.minutes or 0))
    if len(laps) < 2 or laps[-1] - laps[0] < enough:
        return None
    return (laps[-1] - laps[0]) / (len(laps) - 1)


def compile_step(model: CharLM, adam: Adam, settings: TrainConfig) -> Callable[..., tuple[State, tf.Tensor, tf.Tensor]]:
    """Return the training step as one compiled function.

    It takes a window, x, y (B, T) int32, begins (B,) bool, restarts (B, T) bool or None, for which it is another
    function; the state, the step int64 and the rate float32. It updates the weights, and returns the state after the
    window, the sum of nats over it, and whether the update was made: not if the loss or the gradient is not finite.
    """
    groups = row_groups(settings.batch_size, model.execution.chains)

    def chain(
        rows: slice,
        x: tf.Tensor,
        y: tf.Tensor,
        begins: tf.Tensor,
        restarts: Any,
        state: State,
        step: tf.Tensor,
        kept: Any,
    ) -> Any:
        """Compute the sum of nats over some rows, their state after the window, and the gradient of the mean loss."""
        x, y, begins, state = tf.nest.map_structure(lambda a: a[rows], (x, y, begins, state))
        restarts = None if restarts is None else restarts[rows]
        count, length = x.shape
        masks = None
        if settings.dropout:
            shape, layers = (length, model.config.units), range(model.config.layers)
            seed = settings.random_seed
            masks = [dropout_mask(settings.dropout, count, shape, seed, n, step, rows.start) for n in layers]
        variables = [weight.value for weight in model.named_weights().values()]
        with tf.GradientTape() as tape:
            carried = tf.nest.map_structure(tf.stop_gradient, reset_rows(state, begins))
            kernels = kept and [lstm.cell.recurrent_kernel * mask for lstm, mask in zip(model.lstm, kept, strict=True)]
            logits, state = model(x, carried, masks, kernels, restarts)
            nats = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
            loss = nats / (settings.batch_size * length)
        return nats, state, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    def weight_mask(layer: int, step: tf.Tensor) -> tf.Tensor:
        """Return what a layer's recurrent kernel is multiplied by (Merity, Keskar and Socher 2018: DropConnect)."""
        units, place = model.config.units, model.config.layers + layer
        return dropout_mask(settings.weight_drop, 1, (units, 4 * units), settings.random_seed, place, step)[0]

    @tf.function  # type: ignore[untyped-decorator]
    def update(
        x: tf.Tensor, y: tf.Tensor, begins: tf.Tensor, restarts: Any, state: State, step: tf.Tensor, rate: tf.Tensor
    ) -> tuple[State, tf.Tensor, tf.Tensor]:
        kept = [weight_mask(n, step) for n in range(model.config.layers)] if settings.weight_drop else None
        parts = [chain(rows, x, y, begins, restarts, state, step, kept) for rows in groups]
        nats = tf.add_n([nats for nats, _, _ in parts])
        state = tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *[after for _, after, _ in parts])
        gradients = [tf.add_n(sums) for sums in zip(*[own for _, _, own in parts], strict=True)]
        norm = tf.linalg.global_norm(gradients)
        made = tf.math.is_finite(nats) & tf.math.is_finite(norm)
        if made:
            adam.apply(dict(zip(model.named_weights(), gradients, strict=True)), norm, rate, step + 1)
        return state, nats, made

    return update  # type: ignore[no-any-return]
