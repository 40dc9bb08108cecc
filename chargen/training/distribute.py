"""Data-parallel training on several devices or machines, by a tf.distribute strategy.

Without ``--distribute`` the strategy is TensorFlow's default one, whose collectives do nothing. So the training code is
written once, for any number of replicas.

A replica is a device that computes some of the batch's rows. A worker is a process with one replica, or with one per
GPU. Replica r of N has the rows B·r/N .. B·(r+1)/N, and the replicas of a worker have adjacent rows.

Every worker has to call the functions marked as collectives, in the same order: each call waits for the others.
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

BROADCAST_PIECE = 2**22  # int32 numbers that are broadcast at once: 16 MB
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Worker(NamedTuple):
    """A process that trains, among ``workers`` of them."""

    rank: int  # 0 is the chief, which decides and writes the files
    workers: int


ONE_WORKER = Worker(0, 1)


def this_worker(name: str) -> Worker:
    """Return the worker that this process is: by TF_CONFIG for ``workers``, else the only one.

    Raises ChargenError if TF_CONFIG is missing or invalid.
    """
    if name != "workers":
        return ONE_WORKER
    if not os.environ.get("TF_CONFIG"):
        raise ChargenError(
            "--distribute workers needs the environment variable TF_CONFIG, which a launcher such as Kubernetes' "
            "training operator sets; to try it on this machine: chargen launch --workers 2 -- train"
        )
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        addresses = {job: [str(address) for address in cluster.get(job, [])] for job in ("chief", "worker")}
        if kind not in addresses:
            raise ChargenError(f"TF_CONFIG makes this process a {kind}, but chargen has only chief and worker")
        addresses[kind][index]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ChargenError(
            f"TF_CONFIG does not name the workers and this process's rank; an example: {EXAMPLE}"
        ) from None
    everyone = addresses["chief"] + addresses["worker"]
    wrong = [a for a in everyone if not a.rpartition(":")[2].isdigit() or everyone.count(a) > 1]
    if wrong or index < 0 or len(addresses["chief"]) > 1:
        problem = f"{wrong[0]} is not the address of exactly one worker" if wrong else "there is more than one chief"
        raise ChargenError(f"TF_CONFIG does not name the workers: {problem}; an example: {EXAMPLE}")
    return Worker(index if kind == "chief" else index + len(addresses["chief"]), len(everyone))


def replicas(name: str) -> int:
    """Return the number of replicas over which a batch is divided, before there is a strategy.

    Raises ChargenError as `this_worker` does.
    """
    devices = 1 if name == "none" else max(1, len(tf.config.list_physical_devices("GPU")))
    return this_worker(name).workers * devices


def strategy(name: str) -> tf.distribute.Strategy:
    """Return the strategy for a value of ``--distribute``; ``workers`` waits until all workers have joined.

    Raises ChargenError if this worker cannot join, or as `this_worker` does.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    this_worker(name)
    communication = tf.distribute.experimental.CommunicationImplementation
    ring = tf.distribute.experimental.CommunicationOptions(implementation=communication.RING)
    gpus = tf.config.list_physical_devices("GPU")
    # A Python signal handler would only run after all workers have joined.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=None if gpus else ring)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        own = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        address = own.cluster_spec().task_address(own.task_type, own.task_id)
        raise ChargenError(
            f"this worker, {address}, cannot join the others: {str(error).splitlines()[0]}; check that the address is "
            "this machine's and that the port is free"
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def current_worker() -> Worker:
    """Return the worker that this process is under the strategy in scope."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return this_worker("workers" if resolver is not None and resolver.cluster_spec().as_dict() else "none")


def rows_of(count: int, worker: Worker) -> slice:
    """Return the rows of a worker, of ``count`` rows in all."""
    return slice(count * worker.rank // worker.workers, count * (worker.rank + 1) // worker.workers)


def to_replicas(values: Any) -> Any:
    """Return a nest of arrays, whose first axis is this worker's rows, divided among the worker's replicas."""
    here = tf.distribute.get_strategy()
    own = here.num_replicas_in_sync // current_worker().workers

    def distributed(array: Any) -> Any:
        def part(context: Any) -> tf.Tensor:
            return tf.constant(array[rows_of(len(array), Worker(context.replica_id_in_sync_group % own, own))])

        return here.experimental_distribute_values_from_function(part)

    return tf.nest.map_structure(lambda array: None if array is None else distributed(array), values)


def all_gatherer() -> Callable[[Any], Any]:
    """Return a compiled function that gathers a nest of per-replica rows into all rows. A collective."""
    here = tf.distribute.get_strategy()

    def together(values: Any) -> Any:
        # An argument has no device, and TensorFlow places the result on the input's device: identity gives it one.
        return tf.distribute.get_replica_context().all_gather(tf.nest.map_structure(tf.identity, values), axis=0)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def gather(values: Any) -> Any:
        everything = here.run(together, (values,))
        return tf.nest.map_structure(lambda value: here.experimental_local_results(value)[0], everything)

    return gather  # type: ignore[no-any-return]


def all_reduce(numbers: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the sum over all workers of an array that has the same shape and dtype in each. A collective."""
    here = tf.distribute.get_strategy()
    own = here.num_replicas_in_sync // current_worker().workers
    array = np.asarray(numbers)

    def part(context: Any) -> tf.Tensor:
        return tf.constant(array if context.replica_id_in_sync_group % own == 0 else np.zeros_like(array))

    return np.array(here.reduce("SUM", here.experimental_distribute_values_from_function(part), axis=None))


def broadcast(data: bytes) -> bytes:
    """Return the chief's bytes in every worker. A collective."""
    chief = current_worker().rank == 0
    length = int(all_reduce(np.int64(len(data) if chief else 0)))
    numbers = np.zeros(-(-length // 4), np.int32)
    if chief:
        numbers.view(np.uint8)[:length] = np.frombuffer(data, np.uint8)
    pieces = [all_reduce(numbers[start : start + BROADCAST_PIECE]) for start in range(0, len(numbers), BROADCAST_PIECE)]
    return b"".join(piece.tobytes() for piece in pieces)[:length]


def broadcast_run(run: Run | None, folder: Path) -> tuple[Run, Path]:
    """Return the chief's run, and its path at the chief. A collective.

    The chief gives its run, which is returned. Every other worker gives None, and gets a copy, in ``folder``, of the
    files that training reads.
    """
    if run is not None and current_worker().workers == 1:
        return run, run.path
    given = b"" if run is None else os.fsencode(run.path)
    path = Path(os.fsdecode(broadcast(given)))
    kept = [f"{CORPUS}/{name}" for name in corpus.FILES]
    for name in (CONFIG, METRICS, CHECKPOINT, *kept):
        data = broadcast(read_regular(run.path / name, FILE_BYTES) if run and (run.path / name).exists() else b"")
        if run is None and data:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
    return run or Run(folder), path


@contextmanager
def together(run: Path | None = None) -> Iterator[None]:
    """Turn the errors that TensorFlow raises when another worker stops into a ChargenError that says how to go on.

    The connections of a killed worker are closed, which the others notice at once. A worker that hangs, or whose
    network fails, sends no heartbeat, which they notice after 10 to 20 seconds.
    """
    try:
        yield
    except GONE as error:
        if "ollective" not in str(error):
            raise
        with_ = f" with chargen train --resume {quote(str(run))}" if run else ""
        raise ChargenError(f"a worker stopped (its log says why): start all workers again{with_}") from None
