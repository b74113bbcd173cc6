"""Interactive segmentation: strokes and painted slices simulated from the truth.

    python benchmarks/run.py segmentation
    python benchmarks/segmentation.py [--data DIR] [--split report|tune|all] [--cases NAME ...]
        [--slices 1 3 5] [--seeds 1] [--limit 60] [--skip NAME ...] [--rounds 10]
        [--records DIR] [--forget-ours]

Volumes are cropped to what is not zero, for everyone. Ours: the field is fitted once with default
settings (its time is given apart), the model is set up once, ``seconds`` is one full update.

With a folder of records (or its name in MEDGS_BENCHMARK_RECORDS) an interrupted run goes on where
it stopped, and ``--forget-ours`` measures ours again but not the baselines. MEDGS_BENCHMARK_ROUNDS
is the number of rounds of simulated users in the suite, 10 unless it is set; 0 leaves them out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segmentation_baselines import BASELINES, OURS
from segmentation_cases import Case, cases_of
from segmentation_latency import latency_apart
from segmentation_measure import Bench, Store, known_methods, measure_case
from segmentation_report import summarize
from segmentation_users import error_auc, measure_users
from suite.registry import Context, find_data
from suite.results import CaseResult

LIMIT = 60.0
USER_HIPPOCAMPI = 5  # more say nothing new about simulated users


def measure(
    cases: list[Case],
    folder: Path,
    store: Store,
    slices: list[int],
    seeds: int,
    limit: float,
    methods: list[str],
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run everything that the store lacks; return what it holds of these cases."""
    hippocampi = 0
    for case in cases:
        made: list[Bench] = []

        def bench(case: Case = case, made: list[Bench] = made) -> Bench:
            if not made:
                made.append(Bench(case, folder))
            return made[0]

        measure_case(bench, case.name, store, slices, seeds, limit, methods, say)
        if OURS not in methods:
            continue
        for count in slices:
            value = store.get(case.name, f"auc/{count}", lambda n=count: error_auc(bench(), n, 0))
            if value is not None:
                say(f"{case.name}, area under the curve, {count} slices: {value:.3f}")
        hippocampi += case.is_hippocampus
        if rounds and not (case.is_hippocampus and hippocampi > USER_HIPPOCAMPI):
            measure_users(bench, case.name, store, rounds, say)
    return {case.name: {"split": case.split, **store.case(case.name)} for case in cases}


def run(context: Context) -> CaseResult:
    """Run as a case of the suite."""
    names = ("cord_t2", "hippocampus_008") if context.quick else ()
    slices, rounds = ([1, 3], 2) if context.quick else ([1, 3, 5], 10)
    if not context.quick:
        rounds = int(os.environ.get("MEDGS_BENCHMARK_ROUNDS", rounds))
    place = os.environ.get("MEDGS_BENCHMARK_RECORDS")
    store = Store(Path(place) if place else None)
    methods = [OURS, *BASELINES]
    records = measure(
        list(cases_of("report", names)), context.data, store, slices, 1, LIMIT, methods, rounds,
        context.say,
    )  # fmt: skip
    latency = None
    if not context.quick:
        latency = store.get("latency", OURS, lambda: latency_apart(context.data, 9))
    result = summarize(records, slices, 1, methods, LIMIT, latency)
    if place:
        result.notes.append(
            "Records were kept between runs: seconds of different methods may have been "
            "measured at different times, under different loads and with one thread. The "
            "latency table is measured in one run, in a separate process, with all threads."
        )
    return result


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="report", choices=("report", "tune", "all"))
    parser.add_argument("--cases", nargs="*", default=())
    parser.add_argument("--slices", nargs="*", type=int, default=[1, 3, 5])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--skip", nargs="*", default=())
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--forget-ours", action="store_true")
    given = parser.parse_args()
    store = Store(given.records)
    cases = list(cases_of(given.split, tuple(given.cases)))
    if given.forget_ours:
        for case in cases:
            store.forget_ours(case.name)
    methods = known_methods([m for m in (OURS, *BASELINES) if m not in given.skip])
    records = measure(
        cases, find_data(given.data), store, given.slices, given.seeds, given.limit, methods,
        given.rounds, lambda line: print(line, flush=True),
    )  # fmt: skip
    result = summarize(records, given.slices, given.seeds, methods, given.limit)
    for ratio in result.ratios:
        numbers = f"{ratio.ours:.3f} / {ratio.theirs:.3f}"
        print(f"{ratio.what}, {ratio.baseline}: {ratio} ({numbers}; {ratio.note})")
    for table in result.tables:
        print(f"\n{table.title}\n" + "\t".join(table.columns))
        for row in table.rows:
            print("\t".join(str(c) for c in row))


if __name__ == "__main__":
    main()
