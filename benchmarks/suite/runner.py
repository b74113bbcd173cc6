"""Run cases of the suite and write what they measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from suite.check import store_results
from suite.machine import describe_machine
from suite.markdown import write_results
from suite.registry import Context, choose, load
from suite.results import CaseResult, median, plain

Answer = TypeVar("Answer")


def timed(task: Callable[[], Answer], runs: int = 1) -> tuple[float, Answer]:
    """Return the median seconds of some runs of a task, and its last answer."""
    seconds = []
    answer = None
    for _ in range(max(1, runs)):
        start = time.perf_counter()
        answer = task()
        seconds.append(time.perf_counter() - start)
    return median(seconds), answer  # type: ignore[return-value]


def side_by_side(tasks: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Return median seconds of tasks that take turns, so that noise hits all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(max(1, runs)):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def run_suite(
    names: list[str] | None,
    context: Context,
    *,
    json_file: Path | None = None,
    markdown: Path | None = None,
    store: Path | None = None,
    command: str = "python benchmarks/run.py",
) -> dict[str, Any]:
    """Run cases one after the other; write the results after every one.

    Parameters
    ----------
    names : list of str, optional
        All registered cases by default.
    context : Context
    json_file : Path, optional
        Gets the machine and all results.
    markdown : Path, optional
        Gets one section a case, replaced in place.
    store : Path, optional
        JSON file of all cases' latest results; those of this run are replaced in it.
    command : str
        What to quote as the command.

    Returns
    -------
    dict
        "machine" and "cases" (by name), JSON-able.

    Raises
    ------
    MedGSError
        For unknown names, missing data, unusable files.
    """
    from napari_medgs.io._atomic import atomic_path

    wanted = choose(names)
    report: dict[str, Any] = {"machine": describe_machine(), "quick": context.quick, "cases": {}}
    for name in wanted:
        context.say(f"{name}: start")
        start = time.perf_counter()
        result: CaseResult = load(name)(context)
        seconds = time.perf_counter() - start
        context.say(f"{name}: done in {seconds:.0f} s")
        for ratio in result.ratios:
            context.say(f"{name}: {ratio} {ratio.what}, against {ratio.baseline}")
        report["cases"][name] = {**result.to_dict(), "seconds": seconds}
        if json_file is not None:
            text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False)
            with atomic_path(json_file) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        if markdown is not None:
            today = date.today().isoformat()
            write_results(markdown, [result], report["machine"], command, today)
        if store is not None:
            store_results(store, report)
    return report
