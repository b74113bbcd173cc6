"""Strokes on slices of several orientations: one beside three parallel ones, say.

    python benchmarks/segmentation_orientations.py [--data DIR] [--split report|tune|all |
        --half A|B] [--cases NAME ...] [--seed 0] [--fields DIR] [--records DIR]

"3 + 1" is three slices of the coarsest axis and one of another orientation, "1 + 1 + 1" one of
each. ``--half`` takes the groups of ``segmentation_wide.py`` instead of the cases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmentation_brush import benches, parser_of_benches
from segmentation_cases import simulate_scribbles
from segmentation_measure import Bench, Store, dice_of
from segmentation_more import FALL

SETS = {
    "1": (1, 0, 0),
    "1 + 1": (1, 1, 0),
    "1 + 1 + 1": (1, 1, 1),
    "3": (3, 0, 0),
    "3 + 1": (3, 1, 0),
    "3 + 1 + 1": (3, 1, 1),
    "5": (5, 0, 0),
}
STEPS = (("1", "1 + 1"), ("1 + 1", "1 + 1 + 1"), ("3", "3 + 1"), ("3 + 1", "3 + 1 + 1"))


def strokes(bench: Bench, counts: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Return strokes on so many slices of every orientation, the coarsest axis first."""
    axes = [bench.axis, *(a for a in range(3) if a != bench.axis)]
    marks = np.zeros(bench.truth.shape, np.uint8)
    for axis, count in zip(axes, counts, strict=True):
        if count:
            more = simulate_scribbles(bench.truth, axis, count, seed)
            np.copyto(marks, more, where=(marks == 0) & (more > 0))
    return marks


def measure(bench: Bench, seed: int) -> dict[str, list[float]]:
    """Return the Dice of every class for every set of strokes."""
    return {
        name: dice_of(bench.solve(strokes(bench, counts, seed))[1], bench.truth)
        for name, counts in SETS.items()
    }


def table(runs: dict[str, dict[str, list[float]]], grouped: bool) -> list[str]:
    """Return lines of Markdown: mean Dice of every set, and falls from one to the next."""
    hippocampi = sum(name.startswith("hippo") for name in runs) if grouped else 1
    weight = [1 / max(hippocampi, 1) if n.startswith("hippo") else 1.0 for n in runs]
    lines = ["| slices | Dice |", "|---|--:|"]
    for name in SETS:
        means = [np.mean(run[name]) for run in runs.values()]
        lines.append(f"| {name} | {np.average(means, weights=weight):.3f} |")
    lines += ["", "| from | to | fell by more than .01 | mean fall |", "|---|---|--:|--:|"]
    for first, second in STEPS:
        change = np.concatenate([np.subtract(r[second], r[first]) for r in runs.values()])
        fell, mean = 100 * (change < -FALL).mean(), np.maximum(-change, 0).mean()
        lines.append(f"| {first} | {second} | {fell:.0f} % | {mean:.4f} |")
    return lines


def main() -> None:
    """Run from the command line."""
    parser = parser_of_benches(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    store = Store(given.records)
    runs: dict[str, dict[str, list[float]]] = {}
    for name, bench in benches(given):
        key = f"orientations/{given.seed}"
        runs[name] = store.get(name, key, lambda b=bench: measure(b, given.seed))
        print(name, *(f"{np.mean(d):.3f}" for d in runs[name].values()), flush=True)
    print("\n".join(["", *table(runs, given.half is None)]))


if __name__ == "__main__":
    main()
