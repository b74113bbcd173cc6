"""Classes that are annotated on slices of their own, instead of all of them on the same slices.

    python benchmarks/segmentation_apart.py [--data DIR] [--split report|tune|all | --half A|B]
        [--cases NAME ...] [--slices 1 3 5] [--seeds 1] [--fields DIR] [--records DIR]

"Together" are strokes of the benchmark: each annotated slice has strokes of all classes that it
shows. "Apart" every class has as many annotated slices of its own, spread over its extent, with
strokes of this class and of the background alone, as people do who annotate each structure where
it shows best. "Apart, one shared" has one slice with all classes besides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from segmentation_brush import benches, parser_of_benches
from segmentation_cases import BACKGROUND, simulate_scribbles
from segmentation_measure import Bench, Store, dice_of

TOGETHER, APART, SHARED = "together", "apart", "apart, one shared"
CLEAR = 2  # pixels between background strokes and all classes
SHARED_SEED = 7


def annotated(marks: NDArray[np.uint8], axis: int) -> list[tuple[int | slice, ...]]:
    """Return index expressions of the slices with marks."""
    used = np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != axis)))
    return [tuple(int(z) if a == axis else slice(None) for a in range(3)) for z in used]


def apart(bench: Bench, slices: int, seed: int) -> NDArray[np.uint8]:
    """Return strokes of every class on slices of its own."""
    out = np.zeros(bench.truth.shape, np.uint8)
    for k in range(1, int(bench.truth.max()) + 1):
        mine = (bench.truth == k).astype(np.uint8)
        marks = simulate_scribbles(mine, bench.axis, slices, seed)
        for index in annotated(marks, bench.axis):
            clear = distance_transform_edt(bench.truth[index] == 0) > CLEAR
            plane = out[index]
            plane[(marks[index] == BACKGROUND) & clear & (plane == 0)] = BACKGROUND
            plane[marks[index] > BACKGROUND] = BACKGROUND + k
    return out


def measure(bench: Bench, slices: int, seed: int) -> dict[str, list[float]]:
    """Return the Dice of every class for every way to annotate."""
    sets = {TOGETHER: bench.marks(slices, seed), APART: apart(bench, slices, seed)}
    shared = bench.marks(1, seed + SHARED_SEED)
    sets[SHARED] = np.where(shared > 0, shared, sets[APART])
    return {name: dice_of(bench.solve(marks)[1], bench.truth) for name, marks in sets.items()}


def main() -> None:
    """Measure and print tables."""
    parser = parser_of_benches(__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=(1, 3, 5))
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    store = Store(given.records)
    runs: dict[int, dict[str, list[dict[str, list[float]]]]] = {}
    for name, bench in benches(given):
        if bench.truth.max() < 2:
            continue
        group = "hippocampus" if given.half is None and name.startswith("hippocampus") else name
        for count in given.slices:
            for seed in range(given.seeds):

                def make(bench: Bench = bench, count: int = count, seed: int = seed) -> object:
                    return measure(bench, count, seed)

                row = store.get(name, f"apart/{count}/{seed}", make)
                runs.setdefault(count, {}).setdefault(group, []).append(row)
                shown = "  ".join(f"{way} {np.mean(dice):.3f}" for way, dice in row.items())
                print(f"{name}, {count} slices: {shown}", flush=True)
    print("\n| slices | cases | together | apart | apart, one shared |\n|--:|--:|--:|--:|--:|")
    for count, groups in runs.items():
        means = [
            np.mean([np.mean([np.mean(r[way]) for r in rows]) for rows in groups.values()])
            for way in (TOGETHER, APART, SHARED)
        ]
        print(f"| {count} | {len(groups)} | " + " | ".join(f"{m:.3f}" for m in means) + " |")


if __name__ == "__main__":
    main()
