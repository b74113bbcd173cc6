"""How much of a segmentation is chance of the fit: the same strokes on several fits of the image.

    python benchmarks/segmentation_fits.py [--data DIR] [--split report|tune|all | --half A|B]
        [--cases NAME ...] [--fits 5] [--iterations 40] [--records DIR]

The fits differ by their seed alone; 0 is the default, and that of all other tables. Strokes are
those of ``segmentation.py`` with its first seed.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from napari_medgs.segmentation.api import FIT_PARAMS
from segmentation_brush import benches, parser_of_benches
from segmentation_measure import Bench, Store, dice_of, ratios_of

SLICES = (1, 3, 5)
LOW, HIGH = 0.8, 1.25  # of volumes over the true ones
Run = dict[str, list[float]]


def measure(bench: Bench, seed: int, iterations: int) -> Run:
    """Return Dice and volume over the true one of every class for every number of slices."""
    from napari_medgs.segmentation import fit_for_segmentation

    params = replace(FIT_PARAMS, seed=seed, iterations=iterations)
    other = copy.copy(bench)
    other.__dict__.pop("model", None)
    other.__dict__["field"] = fit_for_segmentation(bench.volume, params)
    out: Run = {}
    for count in SLICES:
        labels = other.solve(other.marks(count, 0))[1]
        out[f"dice {count}"] = dice_of(labels, bench.truth)
        out[f"volume {count}"] = ratios_of(labels, bench.truth)
    return out


def table(runs: dict[str, list[Run]], grouped: bool) -> list[str]:
    """Return lines of Markdown: mean Dice and volumes of every fit, then over the fits."""
    hippocampi = sum(name.startswith("hippo") for name in runs) if grouped else 1
    weight = [1 / max(hippocampi, 1) if n.startswith("hippo") else 1.0 for n in runs]
    heads = [f"Dice, {n} slices" for n in SLICES]
    heads += [f"{LOW} to {HIGH}, {n}" for n in SLICES]
    lines = ["| seed of the fit | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    rows = []
    for seed in range(min(map(len, runs.values()))):
        dice = [
            np.average(
                [np.mean(fits[seed][f"dice {n}"]) for fits in runs.values()], weights=weight
            )
            for n in SLICES
        ]
        ratios = [
            np.concatenate([fits[seed][f"volume {n}"] for fits in runs.values()]) for n in SLICES
        ]
        rows.append([*dice, *(np.mean((r >= LOW) & (r <= HIGH)) for r in ratios)])
        lines.append(f"| {seed} | " + " | ".join(_cells(rows[-1])) + " |")
    lines.append("| mean | " + " | ".join(_cells(np.mean(rows, axis=0))) + " |")
    spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(heads))
    lines.append("| standard deviation | " + " | ".join(_cells(spread)) + " |")
    return lines


def _cells(numbers: list[float]) -> list[str]:
    half = len(SLICES)
    shares = [f"{100 * share:.0f} %" for share in numbers[half:]]
    return [f"{dice:.3f}" for dice in numbers[:half]] + shares


def main() -> None:
    """Run from the command line."""
    parser = parser_of_benches(__doc__)
    parser.add_argument("--fits", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=FIT_PARAMS.iterations)
    given = parser.parse_args()
    store = Store(given.records)
    runs: dict[str, list[Run]] = {}
    for name, bench in benches(given):
        runs[name] = [
            store.get(
                name,
                f"fits/{given.iterations}/{seed}",
                lambda b=bench, s=seed: measure(b, s, given.iterations),
            )
            for seed in range(given.fits)
        ]
        dice = [f"{np.mean(r['dice 3']):.3f}" for r in runs[name]]
        print(name, *dice, flush=True)
    print("\n".join(["", *table(runs, given.half is None)]))


if __name__ == "__main__":
    main()
