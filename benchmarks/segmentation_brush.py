"""Whether more in the same slices makes a mask worse: thicker brushes, outlines, whole slices.

    python benchmarks/segmentation_brush.py [--data DIR] [--split report|tune|all | --half A|B]
        [--cases NAME ...] [--slices 1 3] [--seeds 1] [--fields DIR] [--records DIR]

Strokes of the benchmark, one pixel wide, are drawn again with wider round brushes that stay within
their class. "Painted" are classes that are filled up to their border, while the background keeps
its thin strokes. "Outlined" strokes have a line of background around all classes, two pixels away,
and so have "painted, outlined" classes. "Full" slices are labeled to the last voxel. Each says
more than thin strokes, and nothing wrong. Of "one end" only a third of every class's thin strokes
is left in a slice, that at one end. ``--half`` takes the groups of ``segmentation_wide.py``
instead of the cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.morphology import dilation, disk

from segmentation_cases import BACKGROUND, cases_of
from segmentation_measure import Bench, Store, dice_of
from segmentation_more import FALL
from segmentation_wide import fitted, wide_benches
from suite.registry import find_data

BRUSHES = (1, 3, 5, 7)  # pixels
PAINTED, OUTLINED, BOTH, FULL = "painted", "outlined", "painted, outlined", "full"
END = "one end"
OUTSIDE = 2  # pixels between a class and its outline


def brushed(
    marks: NDArray[np.uint8], truth: NDArray[np.uint8], axis: int, width: int
) -> NDArray[np.uint8]:
    """Return strokes drawn with a brush of some pixels, each within its class."""
    out = marks.copy()
    for z in np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis))):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        plane = out[index]
        for value in np.unique(marks[index])[1:]:
            wide = dilation(marks[index] == value, disk(width // 2))
            plane[wide & (truth[index] == value - 1) & (plane == 0)] = value
    return out


def painted(marks: NDArray[np.uint8], truth: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Return the strokes of the background, and in their slices all of each marked class."""
    out = marks.copy()
    for z in np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis))):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        for value in np.unique(marks[index]):
            if value > 1:
                out[index][truth[index] == value - 1] = value
    return out


def outlined(marks: NDArray[np.uint8], truth: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Return the same marks with a line of background around all classes."""
    out = marks.copy()
    for z in np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis))):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        near = binary_dilation(truth[index] > 0, iterations=OUTSIDE)
        out[index][binary_dilation(near) & ~near & (marks[index] == 0)] = BACKGROUND
    return out


def full(marks: NDArray[np.uint8], truth: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Return the marked slices, fully labeled."""
    out = marks.copy()
    for z in np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis))):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        out[index] = truth[index] + BACKGROUND
    return out


def one_end(marks: NDArray[np.uint8], axis: int, seed: int) -> NDArray[np.uint8]:
    """Return strokes of which every class keeps the third at one end, along its longest extent."""
    rng = np.random.default_rng([seed, 77])
    out = marks.copy()
    for z in np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis))):
        plane = out[tuple(z if a == axis else slice(None) for a in range(3))]
        for value in np.unique(plane)[2:]:  # past none and the background
            pixels = np.argwhere(plane == value)
            offset = pixels - pixels.mean(axis=0)
            along = offset @ np.linalg.eigh(offset.T @ offset)[1][:, -1]
            along *= rng.choice((-1, 1))
            plane[tuple(pixels[along > np.quantile(along, 1 / 3)].T)] = 0
    return out


def measure(bench: Bench, slices: int, seed: int) -> dict[str, list[float]]:
    """Return the Dice of every class for every brush."""
    thin = bench.marks(slices, seed)
    sets = {f"{w}": brushed(thin, bench.truth, bench.axis, w) for w in BRUSHES}
    sets[PAINTED] = painted(thin, bench.truth, bench.axis)
    sets[OUTLINED] = outlined(thin, bench.truth, bench.axis)
    sets[BOTH] = outlined(sets[PAINTED], bench.truth, bench.axis)
    sets[FULL] = full(thin, bench.truth, bench.axis)
    sets[END] = one_end(thin, bench.axis, seed)
    return {name: dice_of(bench.solve(marks)[1], bench.truth) for name, marks in sets.items()}


def parser_of_benches(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of which cases, or groups of structures, are measured."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="report", choices=("report", "tune", "all"))
    parser.add_argument("--half", choices=("A", "B", "all"))
    parser.add_argument("--cases", nargs="*", default=())
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--records", type=Path)
    return parser


def benches(given: argparse.Namespace) -> Iterator[tuple[str, Bench]]:
    """Iterate over the names and benches that were asked for."""
    data = find_data(given.data)
    if given.fields is not None:
        given.fields.mkdir(parents=True, exist_ok=True)
    if given.half is not None:
        for _, name, bench in wide_benches(data, given.half, (), given.fields):
            yield name, bench
        return
    for case in cases_of(given.split, tuple(given.cases)):
        yield case.name, fitted(Bench(case, data), case.name, given.fields)


def table(runs: dict[str, list[dict[str, list[float]]]], grouped: bool) -> list[str]:
    """Return lines of Markdown: mean Dice by brush, and falls against thin strokes."""
    lines = []
    for brush in (*map(str, BRUSHES), PAINTED, OUTLINED, BOTH, FULL, END):
        dice: list[float] = []
        change: list[float] = []
        weight: list[float] = []
        hippocampi = sum(name.startswith("hippo") for name in runs) if grouped else 1
        for name, sets in runs.items():
            share = 1 / max(hippocampi, 1) if name.startswith("hippo") else 1.0
            for run in sets:
                for before, after in zip(run["1"], run[brush], strict=True):
                    dice.append(after)
                    change.append(after - before)
                    weight.append(share / len(run[brush]) / len(sets))
        steps = np.array(change)
        means = [
            np.average(v, weights=weight)
            for v in (dice, 100.0 * (steps < -FALL), np.maximum(-steps, 0))
        ]
        lines.append(f"| {brush} | {means[0]:.3f} | {means[1]:.0f} % | {means[2]:.4f} |")
    return lines


def main() -> None:
    """Run from the command line."""
    parser = parser_of_benches(__doc__)
    parser.add_argument("--slices", nargs="*", type=int, default=[1, 3])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    store = Store(given.records)
    runs: dict[int, dict[str, list[dict[str, list[float]]]]] = {n: {} for n in given.slices}
    for name, bench in benches(given):
        for count in given.slices:
            runs[count][name] = [
                store.get(
                    name,
                    f"brush/{count}/{seed}",
                    lambda b=bench, n=count, s=seed: measure(b, n, s),
                )
                for seed in range(given.seeds)
            ]
            cells = [f"{np.mean(d):.3f}" for d in runs[count][name][0].values()]
            print(name, count, *cells, flush=True)
    for count in given.slices:
        print(
            f"\nStrokes on {count} slices\n\n| pixels | Dice | fell by more than .01 | mean fall |"
        )
        print("|---|--:|--:|--:|")
        print("\n".join(table(runs[count], given.half is None)))


if __name__ == "__main__":
    main()
