"""Training on several devices or machines: a tf.distribute strategy by its name, and what a training asks of it.

TensorFlow carries everything. Without ``--distribute`` the strategy is its default one, under which a collective of
one replica is no operation at all; so whatever trains is written once, for any number of replicas.

A replica is a device that computes a share of the batch's rows; a worker is a process, with one replica or, where it
has several GPUs, more. Replica r of N has rows B·r/N .. B·(r+1)/N, and a worker's replicas follow each other.

What is named a collective here has to be called by all workers, in the same order: a worker waits in it for the others.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from chargen import ChargenError
from chargen.files.reading import FILE_BYTES, read_regular
from chargen.store.run import CHECKPOINT, CONFIG, CORPUS, METRICS, Run
from chargen.text import corpus

PIECE = 2**22  # int32 numbers of what is shared that travel at once: 16 MB
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Place(NamedTuple):
    """Which of the workers a process is."""

    number: int  # 0 is the chief
    workers: int


ALONE = Place(0, 1)


def place(name: str) -> Place:
    """Return which worker this process is by TF_CONFIG, if it is ``workers`` that train; else the only one.

    Raises ChargenError if TF_CONFIG isn't there or doesn't say it.
    """
    if name != "workers":
        return ALONE
    if not os.environ.get("TF_CONFIG"):
        raise ChargenError(
            "--distribute workers needs the variable TF_CONFIG, in which a launcher such as Kubernetes' training "
            "operator names all workers and this one; to try it out here: chargen launch --workers 2 -- train"
        )
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        addresses = {job: [str(address) for address in cluster.get(job, [])] for job in ("chief", "worker")}
        if kind not in addresses:
            raise ChargenError(f"TF_CONFIG makes this process a {kind}: chargen has only chief and worker")
        addresses[kind][index]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ChargenError(f"TF_CONFIG doesn't name the workers and which of them this is: {EXAMPLE} does") from None
    everyone = addresses["chief"] + addresses["worker"]
    wrong = [a for a in everyone if not a.rpartition(":")[2].isdigit() or everyone.count(a) > 1]
    if wrong or index < 0 or len(addresses["chief"]) > 1:
        problem = f"{wrong[0]} is not an address of one worker's own" if wrong else "there is more than one chief"
        raise ChargenError(f"TF_CONFIG doesn't name the workers: {problem}; {EXAMPLE} does")
    return Place(index if kind == "chief" else index + len(addresses["chief"]), len(everyone))


def replicas(name: str) -> int:
    """Return over how many replicas a batch is divided, before there is a strategy. Raises ChargenError as `place`."""
    devices = 1 if name == "none" else max(1, len(tf.config.list_physical_devices("GPU")))
    return place(name).workers * devices


def strategy(name: str) -> tf.distribute.Strategy:
    """Return the strategy of a name; for ``workers``, when all of them are there.

    Raises ChargenError if the workers can't be joined, or as `place`.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    place(name)
    communication = tf.distribute.experimental.CommunicationImplementation
    ring = tf.distribute.experimental.CommunicationOptions(implementation=communication.RING)
    gpus = tf.config.list_physical_devices("GPU")
    # Handlers in Python would only be called when all the others have come.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=None if gpus else ring)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        own = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        address = own.cluster_spec().task_address(own.task_type, own.task_id)
        raise ChargenError(
            f"this worker, {address}, can't join the others: {str(error).splitlines()[0]}; is the address its own, "
            "and the port free?"
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def whereabouts() -> Place:
    """Return which worker this process is under the strategy in scope."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return place("workers" if resolver is not None and resolver.cluster_spec().as_dict() else "none")


def share_of(count: int, which: Place) -> slice:
    """Return the rows of a worker, of so many."""
    return slice(count * which.number // which.workers, count * (which.number + 1) // which.workers)


def spread(values: Any) -> Any:
    """Return values of this worker's rows, given to its replicas: a nest of arrays whose first axis is the rows."""
    here = tf.distribute.get_strategy()
    own = here.num_replicas_in_sync // whereabouts().workers

    def distributed(array: Any) -> Any:
        def part(context: Any) -> tf.Tensor:
            return tf.constant(array[share_of(len(array), Place(context.replica_id_in_sync_group % own, own))])

        return here.experimental_distribute_values_from_function(part)

    return tf.nest.map_structure(lambda array: None if array is None else distributed(array), values)


def gatherer() -> Callable[[Any], Any]:
    """Return a compiled function from a nest of values of each replica's rows to those of all rows. A collective."""
    here = tf.distribute.get_strategy()

    def together(values: Any) -> Any:
        # The identity's as an argument has no device, which is where TensorFlow would put the outcome.
        return tf.distribute.get_replica_context().all_gather(tf.nest.map_structure(tf.identity, values), axis=0)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def gather(values: Any) -> Any:
        everything = here.run(together, (values,))
        return tf.nest.map_structure(lambda value: here.experimental_local_results(value)[0], everything)

    return gather  # type: ignore[no-any-return]


def total(numbers: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the sum over all workers of an array, of the same shape and type in each. A collective."""
    here = tf.distribute.get_strategy()
    own = here.num_replicas_in_sync // whereabouts().workers
    array = np.asarray(numbers)

    def part(context: Any) -> tf.Tensor:
        return tf.constant(array if context.replica_id_in_sync_group % own == 0 else np.zeros_like(array))

    return np.array(here.reduce("SUM", here.experimental_distribute_values_from_function(part), axis=None))


def share(data: bytes) -> bytes:
    """Return the chief's bytes, whatever the others give. A collective."""
    chief = whereabouts().number == 0
    length = int(total(np.int64(len(data) if chief else 0)))
    numbers = np.zeros(-(-length // 4), np.int32)
    if chief:
        numbers.view(np.uint8)[:length] = np.frombuffer(data, np.uint8)
    pieces = [total(numbers[start : start + PIECE]) for start in range(0, len(numbers), PIECE)]
    return b"".join(piece.tobytes() for piece in pieces)[:length]


def same_run(run: Run | None, folder: Path) -> tuple[Run, Path]:
    """Return the chief's run for it to be trained here, and the chief's path of it. A collective.

    The chief gives the run, which is returned. All others give None, and get a copy of what training needs of it, in
    ``folder``.
    """
    if run is not None and whereabouts().workers == 1:
        return run, run.path
    given = b"" if run is None else os.fsencode(run.path)
    path = Path(os.fsdecode(share(given)))
    kept = [f"{CORPUS}/{name}" for name in corpus.FILES]
    for name in (CONFIG, METRICS, CHECKPOINT, *kept):
        data = share(read_regular(run.path / name, FILE_BYTES) if run and (run.path / name).exists() else b"")
        if run is None and data:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
    return run or Run(folder), path


@contextmanager
def together(run: Path | None = None) -> Iterator[None]:
    """While entered, another worker's end is a ChargenError that tells how to go on, whatever TensorFlow makes of it.

    A killed worker's connections are closed, which the others see at once; of one that hangs or is cut off no heartbeat
    comes any more, which they see after 10 to 20 seconds.
    """
    try:
        yield
    except GONE as error:
        if "ollective" not in str(error):
            raise
        with_ = f" with chargen train --resume {quote(str(run))}" if run else ""
        raise ChargenError(f"a worker is gone, its own last words tell why: start all workers again{with_}") from None
