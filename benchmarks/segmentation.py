"""Interactive segmentation: strokes and painted slices simulated from the truth.

    napari-medgs benchmark segmentation
    python benchmarks/segmentation.py [--data DIR] [--split report|tune|all] [--cases NAME ...]
        [--slices 1 3 5] [--seeds 1] [--limit 90] [--skip NAME ...] [--rounds 10] [--json FILE]

Volumes are cropped to what is not zero, for everyone. Ours: the field is fitted once with default
settings (its time is given apart), the model is set up once, ``seconds`` is one full update.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from segmentation_baselines import BASELINES, OURS, run_limited, scaled
from segmentation_cases import (
    BACKGROUND,
    Case,
    cases_of,
    choose_slices,
    scribble_slice,
    simulate_scribbles,
)
from segmentation_report import summarise

from napari_medgs.benchmark.registry import Context, find_data
from napari_medgs.benchmark.results import CaseResult, plain
from napari_medgs.geometry import Grid
from napari_medgs.metrics import hd95
from napari_medgs.segment import Prompts, SegmentModel
from napari_medgs.segment.api import fit_for_segmentation
from napari_medgs.volume import Volume


def cropped(volume: Volume, truth: NDArray[Any]) -> tuple[Volume, NDArray[Any]]:
    """Leave away the zero margin of an image (an empty background, say)."""
    there = (volume.data != 0).any(axis=0)
    box = []
    for axis in range(3):
        hits = np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    if np.prod([s.stop - s.start for s in box]) > 0.9 * there.size:
        return volume, truth
    data = np.ascontiguousarray(volume.data[(slice(None), *box)])
    affine = volume.affine.copy()
    affine[:3, 3] = volume.grid.to_world(np.array([s.start for s in box]))
    return Volume.from_array(data, affine=affine), np.ascontiguousarray(truth[tuple(box)])


def dice_of(guess: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    """Return the Dice of every class."""
    scores = []
    for k in range(1, int(truth.max()) + 1):
        mine, right = guess == k, truth == k
        total = np.count_nonzero(mine) + np.count_nonzero(right)
        scores.append(2 * np.count_nonzero(mine & right) / max(total, 1))
    return scores


def hd95_of(guess: NDArray[Any], truth: NDArray[Any], grid: Grid) -> float:
    """Return the mean HD95 in mm over classes; the image's diagonal where a class is missing."""
    diagonal = float(np.linalg.norm(np.asarray(truth.shape) * grid.spacing))
    values = []
    for k in range(1, int(truth.max()) + 1):
        mine, right = guess == k, truth == k
        values.append(hd95(mine, right, grid) if mine.any() and right.any() else diagonal)
    return float(np.mean(values))


class Bench:
    """One case made ready: image, truth, field and model."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.volume, self.truth = cropped(*case.load(folder))
        self.axis = self.volume.grid.coarsest_axis()
        started = time.perf_counter()
        self.field = fit_for_segmentation(self.volume)
        self.seconds_fit = time.perf_counter() - started
        started = time.perf_counter()
        self.model = SegmentModel(self.volume, self.field)
        self.seconds_setup = time.perf_counter() - started
        self.images = scaled(self.volume.data)
        self.classes = int(self.truth.max())

    def ours(self, marks: NDArray[np.uint8]) -> tuple[float, NDArray[Any]]:
        """Return the seconds of a full update and class indices."""
        result = self.model.update(Prompts(labels=marks, background=BACKGROUND))
        return result.seconds, self.indices(result.labels)

    @staticmethod
    def indices(labels: NDArray[Any]) -> NDArray[Any]:
        """Turn label values of the scribbles (k + 1) into class indices."""
        return np.where(labels > 0, labels.astype(np.int64) - 1, 0)

    def painted(self, count: int) -> NDArray[np.uint8]:
        """Return marks on whole slices: everything in them is labelled."""
        marks = np.zeros(self.truth.shape, np.uint8)
        for z in choose_slices(self.truth, self.axis, count):
            index = tuple(z if a == self.axis else slice(None) for a in range(3))
            marks[index] = self.truth[index] + 1
        return marks


def score(bench: Bench, seconds: float, guess: NDArray[Any] | None) -> dict[str, Any]:
    """Return the numbers of one run."""
    if guess is None:
        return {"seconds": seconds, "late": True}
    return {
        "seconds": seconds,
        "dice": float(np.mean(dice_of(guess, bench.truth))),
        "hd95": hd95_of(guess, bench.truth, bench.volume.grid),
    }


def run_strokes(
    bench: Bench, slices: int, seed: int, limit: float, methods: list[str]
) -> dict[str, dict[str, Any]]:
    """Return every method's numbers for one scribble image."""
    marks = simulate_scribbles(bench.truth, bench.axis, slices, seed)
    rows = {}
    if OURS in methods:
        bench.ours(marks)  # compiles what is not compiled yet
        rows[OURS] = score(bench, *bench.ours(marks))
    for name in BASELINES:
        if name in methods:
            arguments = (bench.images, marks, bench.volume.spacing)
            rows[name] = score(bench, *run_limited(name, arguments, limit))
    return rows


def run_painted(bench: Bench, slices: int) -> dict[str, dict[str, Any]]:
    """Return ours and signed-distance interpolation for fully labelled slices."""
    from napari_medgs.interpolate import interpolate_labels

    marks = bench.painted(slices)
    rows = {OURS: score(bench, *bench.ours(marks))}
    where = np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != bench.axis)))
    started = time.perf_counter()
    between = interpolate_labels(
        np.maximum(marks, 1) - 1,
        where,
        slice_axis=bench.axis,
        method="linear",
        spacing=bench.volume.spacing,
    )
    rows["signed distance"] = score(bench, time.perf_counter() - started, between)
    return rows


def corrective_user(bench: Bench, rounds: int, seed: int, suggest: str) -> list[float]:
    """Return the mean Dice after each round of a simulated user.

    "error": the user finds the slice with the most wrong voxels and strokes the middle of its
    largest wrong patch of each class. "suggested" and "random": annotates the suggested, or a
    random, slice as in the beginning.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    rng = np.random.default_rng([seed, 77])
    marks = simulate_scribbles(bench.truth, bench.axis, 1, seed)
    others = tuple(a for a in range(3) if a != bench.axis)
    depth = bench.truth.shape[bench.axis]
    scores = []
    for _ in range(rounds + 1):
        guess = bench.ours(marks)[1]
        scores.append(float(np.mean(dice_of(guess, bench.truth))))
        wrong = guess != bench.truth
        if suggest == "error":
            z = int(wrong.sum(axis=others).argmax())
        elif suggest == "suggested":
            z = bench.model.suggest(1, bench.axis)[0].index
        else:
            used = marks.any(axis=others)
            z = int(rng.choice(np.flatnonzero(~used))) if not used.all() else 0
        index = tuple(z if a == bench.axis else slice(None) for a in range(3))
        if suggest != "error":
            if depth > 1:
                marks[index] = scribble_slice(bench.truth[index], rng)
            continue
        for k in range(bench.classes + 1):
            pieces = label(wrong[index] & (bench.truth[index] == k))
            if not pieces.any():
                continue
            sizes = np.bincount(pieces.reshape(-1))
            sizes[0] = 0
            inside = distance_transform_edt(pieces == sizes.argmax())
            stroke = inside >= max(1.0, 0.7 * inside.max())
            marks[index][stroke] = k + 1
    return scores


def error_auc(bench: Bench, slices: int, seed: int) -> float:
    """Return how well uncertainty ranks wrong voxels: area under the ROC curve.

    Counted in the box of the truth and a margin of a tenth of the image; far air would flatter.
    """
    from sklearn.metrics import roc_auc_score

    marks = simulate_scribbles(bench.truth, bench.axis, slices, seed)
    result = bench.model.update(Prompts(labels=marks, background=BACKGROUND))
    wrong = bench.indices(result.labels) != bench.truth
    box = []
    for axis in range(3):
        hits = np.flatnonzero((bench.truth > 0).any(axis=tuple(a for a in range(3) if a != axis)))
        pad = int(0.1 * bench.truth.shape[axis]) + 1
        box.append(slice(max(0, int(hits[0]) - pad), int(hits[-1]) + 1 + pad))
    part = tuple(box)
    if not wrong[part].any():
        return 1.0
    return float(roc_auc_score(wrong[part].reshape(-1), result.uncertainty()[part].reshape(-1)))


def measure(
    cases: list[Case],
    folder: Path,
    slices: list[int],
    seeds: int,
    limit: float,
    methods: list[str],
    rounds: int,
    say: Any,
) -> dict[str, Any]:
    """Run everything; return a record a case."""
    records: dict[str, Any] = {}
    for case in cases:
        bench = Bench(case, folder)
        record: dict[str, Any] = {
            "split": case.split,
            "shape": list(bench.truth.shape),
            "classes": bench.classes,
            "gaussians": len(bench.field),
            "seconds_fit": bench.seconds_fit,
            "seconds_setup": bench.seconds_setup,
            "strokes": {},
            "painted": {},
            "auc": {},
        }
        for count in slices:
            runs = [run_strokes(bench, count, seed, limit, methods) for seed in range(seeds)]
            record["strokes"][count] = {name: [run[name] for run in runs] for name in runs[0]}
            line = "  ".join(
                f"{name} {np.mean([r.get('dice', 0) for r in rows]):.3f}"
                f" ({np.median([r['seconds'] for r in rows]):.2f} s)"
                for name, rows in record["strokes"][count].items()
            )
            say(f"{case.name}, strokes on {count}: {line}")
            if OURS in methods:
                record["auc"][count] = error_auc(bench, count, 0)
            if count > 1:
                record["painted"][count] = run_painted(bench, count)
                line = "  ".join(
                    f"{n} {r['dice']:.3f}" for n, r in record["painted"][count].items()
                )
                say(f"{case.name}, {count} painted: {line}")
        if rounds:
            record["user"] = {
                kind: corrective_user(bench, rounds, 0, kind)
                for kind in ("error", "suggested", "random")
            }
            for kind, scores in record["user"].items():
                say(f"{case.name}, {kind}: {' '.join(f'{s:.3f}' for s in scores)}")
        records[case.name] = record
    return records


def run(context: Context) -> CaseResult:
    """Run as a case of the suite."""
    names = ("cord_t2", "hippocampus_008") if context.quick else ()
    slices = [1, 3] if context.quick else [1, 3, 5]
    limit, methods = 30.0 if context.quick else 90.0, [OURS, *BASELINES]
    records = measure(
        list(cases_of("report", names)), context.data, slices, 1, limit, methods,
        2 if context.quick else 10, context.say,
    )  # fmt: skip
    return summarise(records, slices, methods, limit)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="report", choices=("report", "tune", "all"))
    parser.add_argument("--cases", nargs="*", default=())
    parser.add_argument("--slices", nargs="*", type=int, default=[1, 3, 5])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=90.0)
    parser.add_argument("--skip", nargs="*", default=())
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--json")
    given = parser.parse_args()
    methods = [m for m in (OURS, *BASELINES) if m not in given.skip]
    records = measure(
        list(cases_of(given.split, tuple(given.cases))), find_data(given.data), given.slices,
        given.seeds, given.limit, methods, given.rounds, lambda line: print(line, flush=True),
    )  # fmt: skip
    if given.json:
        Path(given.json).write_text(json.dumps(plain(records), indent=1))
    result = summarise(records, given.slices, methods, given.limit)
    for ratio in result.ratios:
        numbers = f"{ratio.ours:.3f} / {ratio.theirs:.3f}"
        print(f"{ratio.what}, {ratio.baseline}: {ratio} ({numbers}; {ratio.note})")
    for table in result.tables:
        print(f"\n{table.title}\n" + "\t".join(table.columns))
        for row in table.rows:
            print("\t".join(str(c) for c in row))


if __name__ == "__main__":
    main()
