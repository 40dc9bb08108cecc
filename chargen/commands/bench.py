"""``chargen bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from chargen.commands.common import UNROLLS, Command, Finite, Group, Whole, configured, options, quiet, say
from chargen.config import ModelConfig, TrainConfig

# The sizes of a benchmark's model: a run's would follow the text and the machine.
SIZES = {"units": 384, "output_rank": 0, "batch_size": 64, "seq_length": 64}

# Options of several benchmarks.
MODEL = click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A run or a model file. [default: an untrained model of 2 x 512]",
)
ROUNDS = click.option(
    "--rounds", type=Whole(1), default=9, show_default=True, help="Number of rounds; the best one counts."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")


@click.group(cls=Group, short_help="Measure speed and memory, beside other programs.")
def bench() -> None:
    """Measure the speed of chargen and of what people would use instead, in alternating rounds."""


def leave_out_failed(figures: dict[str, dict[str, Any]]) -> None:
    """Remove the sides that failed; write the reasons to standard error."""
    for name in [name for name, figure in figures.items() if "failed" in figure]:
        say(f"left out: {figures.pop(name)['failed']}", err=True)


def megabytes(size: int | None, unit: float = 1e6) -> str:
    """Return a number of bytes in megabytes, for a person; None is unknown, as on Windows."""
    return "unknown" if size is None else f"{size / unit:,.0f} MB"


@bench.command(
    "train",
    cls=Command,
    short_help="Training steps, beside stock Keras and PyTorch.",
    epilog="""
    chargen bench train
    chargen bench train --layers 2 --units 512 --batch-size 64 --torch
    chargen bench train book.txt --precision float32 --json
    """,
)
@click.argument("files", nargs=-1, type=click.Path(exists=True))
@options(ModelConfig, defaults=SIZES)
@options(TrainConfig, ("batch_size", "seq_length", "precision", "threads"), SIZES)
@click.option("--torch", is_flag=True, help="Measure PyTorch too, in float32 and bfloat16; it must be installed.")
@click.option("--rounds", type=Whole(1), default=12, show_default=True, help="Number of rounds; the best one counts.")
@AS_JSON
def bench_train(files: tuple[str, ...], torch: bool, rounds: int, as_json: bool, **values: Any) -> None:
    """Measure training steps on FILES, in characters per second, beside stock Keras's fit of the same model.

    Each side is compared with chargen in the same precision.
    """
    from chargen.bench import train
    from chargen.bench.sides import interleaved
    from chargen.text.corpus import read

    model = configured(ModelConfig, values)
    sides = train.sides({**values, "files": list(files)}, torch=torch)
    operations = train.operations_per_character(len(read(files).vocabulary), model)
    with quiet():
        figures = interleaved(sides, rounds)
    leave_out_failed(figures)
    ours = figures["chargen"]
    ceiling = figures[f"large product, {ours['precision']}"]["per_second"]
    if as_json:
        result = {
            "characters_per_second": ours["per_second"],
            "others": {n: f["per_second"] for n, f in figures.items() if "product" not in n},
            **{key: ours[key] for key in ("precision", "unroll", "shards", "threads")},
            "gflops": operations * ours["per_second"] / 1e9,
            "share_of_ceiling": operations * ours["per_second"] / ceiling,
            "first_step_seconds": ours["first_step_seconds"],
            "peak_memory": ours["peak_memory"],
        }
        click.echo(json.dumps(result))
        return
    say(
        f"{model.layers} x {model.units}, {values['batch_size']} streams x {values['seq_length']}; chargen computes "
        f"{ours['precision']} by {UNROLLS[ours['unroll']]}\n\n"
        f"{'':18} characters/s  chargen is  GFLOP/s  ceiling  1st step   memory"
    )
    for name, figure in figures.items():
        if "product" in name:
            continue
        flops = operations * figure["per_second"]
        precision = ours["precision"] if name == "chargen" else name.split(", ")[1]
        ceiling = figures[f"large product, {precision}"]["per_second"]
        equal = ours if precision == ours["precision"] else figures.get(f"chargen, {precision}", ours)
        say(
            f"{name:18}{figure['per_second']:13,.0f}{equal['per_second'] / figure['per_second']:10.2f} x"
            f"{flops / 1e9:9,.0f}{flops / ceiling:9.0%}{figure['first_step_seconds']:8.1f} s"
            f"{megabytes(figure['peak_memory'], 2**20):>9}"
        )


@bench.command(
    "scale",
    cls=Command,
    short_help="Training with 1, 2 and 4 workers.",
    epilog="""
    chargen bench scale
    chargen bench scale book.txt --units 1024 --batch-size 128 --json
    """,
)
@click.argument("files", nargs=-1, type=click.Path(exists=True))
@options(ModelConfig, defaults=SIZES)
@options(TrainConfig, ("batch_size", "seq_length", "precision"), SIZES)
@click.option("--steps", type=Whole(20), default=60, show_default=True, help="Training steps.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object for each number of workers.")
def bench_scale(files: tuple[str, ...], steps: int, as_json: bool, **values: Any) -> None:
    """Measure training on FILES with 1, 2 and 4 workers on this machine: characters per second, and bytes exchanged.

    The workers share this machine's cores. So the figures show what distributing costs, not what more machines gain.
    """
    from chargen.bench.scale import scale

    if not as_json:
        say("workers  characters/s   of one  bytes per worker and step: in a ring  measured")
    first = 0.0
    for workers in (1, 2, 4):
        figures = scale({**values, "files": list(files)}, workers, steps)
        first = first or figures["characters_per_second"]
        measured = figures.get("loopback_bytes")
        if as_json:
            click.echo(json.dumps(figures))
            continue
        say(
            f"{workers:7}{figures['characters_per_second']:14,.0f}{figures['characters_per_second'] / first:8.2f} x"
            f"{figures['ring_bytes']:38,.0f}{'-' if measured is None else f'{measured:,.0f}':>10}"
        )


@bench.command(
    "sample",
    cls=Command,
    short_help="Sampling, beside stock Keras.",
    epilog="""
    chargen bench sample
    chargen bench sample --model runs/book --json
    """,
)
@MODEL
@ROUNDS
@AS_JSON
def bench_sample(model: Path | None, rounds: int, as_json: bool) -> None:
    """Measure sampling: characters per second at several counts, the latency, and the same model in stock Keras."""
    from chargen.bench import sample
    from chargen.bench.sides import interleaved
    from chargen.files.disk import temporary
    from chargen.store.run import find_model

    with temporary() as folder:
        path = str(find_model(model) if model else sample.untrained(folder / "model.safetensors"))
        figures = interleaved(sample.sides(path), rounds)
        latency = sample.first_character_seconds(path)
    leave_out_failed(figures)
    one = figures["chargen, count 1"]["per_second"]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "characters_per_second": {name: figure["per_second"] for name, figure in figures.items()},
                    "first_character_seconds": latency,
                    "bytes_per_character": figures.get("reading the weights", {}).get("bytes"),
                }
            )
        )
        return
    say(f"first character after {latency:.2f} s\n\n{'':24}characters/s   chargen is")
    for name, figure in figures.items():
        say(f"{name:24}{figure['per_second']:12,.0f}   {one / figure['per_second']:9.2f} x")


@bench.command(
    "serve",
    cls=Command,
    short_help="A server with 1, 8 and 64 clients, beside sampling.",
    epilog="""
    chargen bench serve
    chargen bench serve --model runs/book --json
    """,
)
@MODEL
@ROUNDS
@AS_JSON
def bench_serve(model: Path | None, rounds: int, as_json: bool) -> None:
    """Measure clients of a server that ask for texts at once: characters per second, and the wait for the first one.

    They are compared with the samples that `chargen sample --count 64` draws in one batch.
    """
    from chargen.bench import sample, serve
    from chargen.bench.sides import interleaved
    from chargen.files.disk import temporary
    from chargen.store.run import find_model

    with temporary() as folder:
        path = str(find_model(model) if model else sample.untrained(folder / "model.safetensors"))
        with serve.started(path) as server:
            figures = interleaved(serve.sides(path, server.port), rounds)
    if as_json:
        click.echo(json.dumps({"ready_seconds": server.seconds, "sides": figures}))
        return
    say(f"ready after {server.seconds:.2f} s\n\n{'':18}characters/s  of count 64  first character p50       p99")
    batch = figures["sample --count 64"]["per_second"]
    for name, figure in figures.items():
        line = f"{name:18}{figure['per_second']:12,.0f}{figure['per_second'] / batch:13.0%}"
        if "first_p50_seconds" in figure:
            p50, p99 = (1000 * figure[f"first_{which}_seconds"] for which in ("p50", "p99"))
            line += f"{p50:18,.0f} ms{p99:7,.0f} ms"
        say(line)


@bench.command(
    "corpus",
    cls=Command,
    short_help="Reading a large text.",
    epilog="""
    chargen bench corpus
    chargen bench corpus --megabytes 1000 --files 10000 --json
    """,
)
@click.option(
    "--megabytes",
    "size",
    type=Finite(1, 1e6),
    default=1000,
    show_default=True,
    help="Size of the generated text in millions of bytes; it takes three times as much disk space.",
)
@click.option("--files", type=Whole(1, 10**6), default=1, show_default=True, help="Number of files to write it to.")
@AS_JSON
def bench_corpus(size: float, files: int, as_json: bool) -> None:
    """Measure how fast a large text is read, how much memory training takes, and how long its steps wait for text."""
    from chargen.bench.corpus import figures

    found = figures(size, files)
    if as_json:
        click.echo(json.dumps(found))
        return
    small, large = found["training_memory_of_1_megabyte"], found["training_memory"]
    more = "" if large is None else f" of memory, {megabytes(large - small)} more than on a text of 1 MB"
    say(
        f"{size:,.0f} MB in {files:,} file{'s' * (files > 1)}, {found['characters']:,} characters\n\n"
        f"reading, on one core   {found['megabytes_per_second']:,.0f} MB/s, "
        f"{megabytes(found['reading_memory'])} of memory; from the cache {found['reading_again_seconds']:.1f} s\n"
        f"training               {megabytes(large)}{more}\n"
        f"a step of 1 x 128      {1e3 * found['step_seconds']:.1f} ms, of which "
        f"{1e3 * found['waiting_seconds']:.2f} ms are spent waiting for text",
        indent=23,
    )
