"""The suite on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import MedGSCommand
from napari_medgs.errors import FileError
from suite.check import compare, load_results
from suite.registry import ENTRIES, Context, choose, find_data, source_folder
from suite.results import BenchmarkError

NAMES = ", ".join(ENTRIES)


def benchmark(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Which cases ({NAMES}); all by default."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all numbers to a JSON file."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the real volumes.",
            show_default="the one MEDGS_TEST_DATA names",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Markdown file whose sections are replaced.",
            show_default="benchmarks/RESULTS.md of the source tree, not with --quick",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write nothing but --json; fail where a ratio fell below 0.7 of the one in this "
            "JSON file (benchmarks/results.json, say).",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and short: to see that it works, not to quote.")
    ] = False,
    runs: Annotated[
        int, typer.Option(min=1, max=99, help="Runs of each short timing; the median counts.")
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random choices.")] = 0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads for all.", show_default="all CPUs"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only failures.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure ours and its baselines on this machine.

    Writes a Markdown table and, with --json, all numbers.
    """
    del debug  # read by the command class
    from suite.runner import run_suite

    choose(names)
    for path in (json_file, results):
        if path is not None and not os.access(path.resolve().parent, os.W_OK):
            raise FileError(f"{path}: its folder does not exist or is not writable.")
    stored = load_results(check) if check is not None else {}
    root = source_folder()
    store = None
    if check is not None:
        results = None
    elif results is None and root is not None and not quick:
        results = root / "benchmarks" / "RESULTS.md"
        store = root / "benchmarks" / "results.json"
    context = Context(
        data=find_data(data),
        quick=quick,
        runs=runs,
        threads=threads,
        seed=seed,
        say=(lambda line: None) if quiet else typer.echo,
    )
    words = ["benchmarks/run.py", *(names or []), *(["--quick"] if quick else [])]
    report = run_suite(
        names,
        context,
        json_file=json_file,
        markdown=results,
        store=store,
        command=" ".join(words),
    )
    if check is not None:
        count, falls = compare(report["cases"], stored)
        if not count:
            raise FileError(f"{check} holds no ratio of these cases: nothing was compared.")
        if falls:
            raise BenchmarkError("Ratios fell: " + "; ".join(falls) + ".")
        if not quiet:
            typer.echo(f"{count} ratios are no worse than in {check}")
    if results is not None and not quiet:
        typer.echo(f"wrote {results}")


def main() -> None:
    """Run the command line; ends the process with the exit status."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("benchmark", cls=MedGSCommand)(benchmark)
    app(prog_name="benchmarks/run.py")
