"""Whether more strokes make a mask worse: nested random slices, 1, 3 and 5 of them.

    python benchmarks/segmentation_more.py [--data DIR] [--split report|tune|all]
        [--cases NAME ...] [--seeds 3] [--close] [--records DIR]

The first slice is drawn among those that show most classes, the others among all that show one;
with ``--close`` there are 1, 2 and 4 slices instead, the first and those beside it. Every slice
keeps its strokes when more are added. A class counts from the first set on in which it has a
stroke. With a folder of records an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_cases import cases_of, scribble_slice
from segmentation_measure import Bench, Store, dice_of
from suite.registry import find_data

FALL = 0.01  # of a class's Dice that counts as one
COUNTS, CLOSE_COUNTS = (1, 3, 5), (1, 2, 4)
BESIDE = (1, 3, -2)  # of the first slice


def nested_marks(
    truth: NDArray[np.uint8], axis: int, seed: int, close: bool = False
) -> list[NDArray[np.uint8]]:
    """Return strokes on more and more slices, each set within the next.

    Parameters
    ----------
    truth : (Z, Y, X) ndarray of uint8
    axis : int
        Normal of the slices.
    seed : int
    close : bool
        On slices beside the first instead of random ones.

    Returns
    -------
    list of (Z, Y, X) ndarray of uint8
        As :func:`segmentation_cases.simulate_scribbles` gives them.
    """
    rng = np.random.default_rng([seed, 77])
    other = tuple(a for a in range(3) if a != axis)
    shown = sum((truth == k).any(axis=other).astype(int) for k in range(1, int(truth.max()) + 1))
    first = int(rng.choice(np.flatnonzero(shown == np.max(shown))))
    showing = [int(z) for z in np.flatnonzero(shown)]
    if close:
        rest = [first + step for step in BESIDE if first + step in showing]
    else:
        rest = rng.permutation([z for z in showing if z != first]).tolist()
    counts = CLOSE_COUNTS if close else COUNTS
    marks = np.zeros(truth.shape, np.uint8)
    sets = []
    for number, z in enumerate([first, *rest[: counts[-1] - 1]], start=1):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        marks[index] = scribble_slice(truth[index], np.random.default_rng([seed, z, 78]))
        if number in counts:
            sets.append(marks.copy())
    return sets


def measure(bench: Bench, seed: int, close: bool) -> list[list[float | None]]:
    """Return the Dice of every class for every set of strokes, None without a stroke of it."""
    rows: list[list[float | None]] = []
    for marks in nested_marks(bench.truth, bench.axis, seed, close):
        _, guess = bench.solve(marks)
        marked = set(np.unique(marks).tolist())
        rows.append(
            [d if k + 2 in marked else None for k, d in enumerate(dice_of(guess, bench.truth))]
        )
    return rows


def steps_of(rows: list[list[float | None]]) -> list[float]:
    """Return by how much each class's Dice changed with each addition of slices."""
    return [
        after - before
        for low, high in pairwise(rows)
        for before, after in zip(low, high, strict=True)
        if before is not None and after is not None
    ]


def summary(runs: dict[str, list[list[list[float | None]]]]) -> list[tuple[Any, ...]]:
    """Return a row per group of cases (all hippocampi are one) and their mean."""
    groups: dict[str, list[list[list[float | None]]]] = {}
    for name, sets in runs.items():
        groups.setdefault("hippocampus" if name.startswith("hippo") else name, []).extend(sets)
    rows: list[tuple[Any, ...]] = []
    for group, sets in groups.items():
        steps = np.array([s for rows_of in sets for s in steps_of(rows_of)])
        dice = [
            np.mean([d for rows_of in sets for d in rows_of[i] if d is not None])
            for i in range(min(len(r) for r in sets))
        ]
        dice += [np.nan] * (len(COUNTS) - len(dice))
        falls = steps < -FALL
        loss = float(np.maximum(-steps, 0).mean())
        rows.append((group, *dice, len(steps), 100 * float(falls.mean()), loss))
    mean = [float(np.nanmean([r[i] for r in rows])) for i in (1, 2, 3, 5, 6)]
    rows.append(("**mean**", *mean[:3], sum(r[4] for r in rows), *mean[3:]))
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="report", choices=("report", "tune", "all"))
    parser.add_argument("--cases", nargs="*", default=())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--records", type=Path)
    given = parser.parse_args()
    store, runs = Store(given.records), {}
    for case in cases_of(given.split, tuple(given.cases)):
        made: list[Bench] = []

        def bench(case: Any = case, made: list[Bench] = made) -> Bench:
            if not made:
                made.append(Bench(case, find_data(given.data)))
            return made[0]

        runs[case.name] = [
            store.get(
                case.name,
                f"{'close' if given.close else 'more'}/{seed}",
                lambda s=seed: measure(bench(), s, given.close),
            )
            for seed in range(given.seeds)
        ]
        print(case.name, *summary({case.name: runs[case.name]})[0][1:], flush=True)
    counts = " | ".join(map(str, CLOSE_COUNTS if given.close else COUNTS))
    print(f"\n| case | {counts} | steps | fell by more than .01 | mean fall |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for group, *dice, steps, share, loss in summary(runs):
        cells = " | ".join(f"{d:.3f}" for d in dice)
        print(f"| {group} | {cells} | {steps} | {share:.1f} % | {loss:.4f} |")


if __name__ == "__main__":
    main()
