"""What is measured for one case: one number record a method, prompt and seed, kept in a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.io._atomic import atomic_path
from napari_medgs.metrics import hd95
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.api import fit_for_segmentation
from segmentation_baselines import BASELINES, OURS, run_limited, scaled
from segmentation_cases import BACKGROUND, Case, choose_slices, simulate_scribbles
from suite.results import plain

DISTANCE = "signed distance"


class Store:
    """Numbers by case and key, kept in a folder so that an interrupted run goes on.

    Parameters
    ----------
    folder : Path, optional
        One JSON file a case; nothing is kept without it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._cases: dict[str, dict[str, Any]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def case(self, name: str) -> dict[str, Any]:
        """Return all numbers of a case by key."""
        if name not in self._cases:
            file = None if self._folder is None else self._folder / f"{name}.json"
            known = file is not None and file.is_file()
            self._cases[name] = json.loads(file.read_text()) if file and known else {}
        return self._cases[name]

    def get(self, name: str, key: str, make: Callable[[], Any]) -> Any:
        """Return a number record; make and keep it when it is not there."""
        record = self.case(name)
        if key not in record:
            record[key] = plain(make())
            if self._folder is not None:
                with atomic_path(self._folder / f"{name}.json") as temporary:
                    temporary.write_text(json.dumps(record, indent=1))
        return record[key]

    def forget_ours(self, name: str) -> None:
        """Drop what depends on our solver; baselines stay."""
        record = self.case(name)
        for key in list(record):
            if key.endswith(f"/{OURS}") or key.split("/")[0] in ("auc", "user"):
                del record[key]


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


def ratios_of(guess: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    """Return the volume of every class over its true one."""
    there = range(1, int(truth.max()) + 1)
    return [float(np.count_nonzero(guess == k) / np.count_nonzero(truth == k)) for k in there]


def hd95_of(guess: NDArray[Any], truth: NDArray[Any], grid: Grid) -> float:
    """Return the mean HD95 in mm over classes; the image's diagonal where a class is missing."""
    diagonal = float(np.linalg.norm(np.asarray(truth.shape) * grid.spacing))
    values = []
    for k in range(1, int(truth.max()) + 1):
        mine, right = guess == k, truth == k
        values.append(hd95(mine, right, grid) if mine.any() and right.any() else diagonal)
    return float(np.mean(values))


class Bench:
    """One case made ready as far as it is asked for: image, truth, field and model.

    Parameters
    ----------
    case : Case
    folder : Path
        Of the real volumes.
    params : SegmentParams, optional
    """

    def __init__(self, case: Case, folder: Path, params: SegmentParams | None = None) -> None:
        self.case = case
        self.params = params
        self.volume, self.truth = cropped(*case.load(folder))
        self.axis = self.volume.grid.coarsest_axis()
        self.classes = int(self.truth.max())
        self.seconds_fit = self.seconds_setup = 0.0

    @cached_property
    def field(self) -> GaussianField:
        """Our field, fitted once."""
        started = time.perf_counter()
        field = fit_for_segmentation(self.volume)
        self.seconds_fit = time.perf_counter() - started
        return field

    @cached_property
    def model(self) -> SegmentModel:
        """Our model, set up once."""
        field = self.field
        started = time.perf_counter()
        model = SegmentModel(self.volume, field, self.params)
        self.seconds_setup = time.perf_counter() - started
        return model

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """The scaled contrasts that all baselines get."""
        return scaled(self.volume.data)

    def facts(self) -> dict[str, Any]:
        """Return what is measured but once."""
        gaussians = len(self.model.field)
        return {
            "shape": list(self.truth.shape),
            "classes": self.classes,
            "gaussians": gaussians,
            "seconds_fit": self.seconds_fit,
            "seconds_setup": self.seconds_setup,
        }

    def marks(self, slices: int, seed: int) -> NDArray[np.uint8]:
        """Return simulated strokes."""
        return simulate_scribbles(self.truth, self.axis, slices, seed)

    def painted(self, count: int) -> NDArray[np.uint8]:
        """Return marks on whole slices: everything in them is labeled."""
        marks = np.zeros(self.truth.shape, np.uint8)
        for z in choose_slices(self.truth, self.axis, count):
            index = tuple(z if a == self.axis else slice(None) for a in range(3))
            marks[index] = self.truth[index] + 1
        return marks

    def solve(self, marks: NDArray[np.uint8]) -> tuple[float, NDArray[Any]]:
        """Return the seconds of one of our full updates, and class indices."""
        result = self.model.update(Prompts(labels=marks, background=BACKGROUND))
        return result.seconds, indices(result.labels)

    def score(self, seconds: float, guess: NDArray[Any] | None) -> dict[str, Any]:
        """Return the numbers of one run."""
        if guess is None:
            return {"seconds": seconds, "late": True}
        return {
            "seconds": seconds,
            "dice": float(np.mean(dice_of(guess, self.truth))),
            "volume": ratios_of(guess, self.truth),
            "hd95": hd95_of(guess, self.truth, self.volume.grid),
        }

    def ours(self, marks: NDArray[np.uint8]) -> dict[str, Any]:
        """Return our numbers; the second of two runs counts, the first may compile."""
        self.solve(marks)
        return self.score(*self.solve(marks))

    def baseline(self, name: str, marks: NDArray[np.uint8], limit: float) -> dict[str, Any]:
        """Return a baseline's numbers."""
        arguments = (self.images, marks, self.volume.spacing)
        return self.score(*run_limited(name, arguments, limit))

    def distance(self, marks: NDArray[np.uint8]) -> dict[str, Any]:
        """Return the numbers of signed-distance interpolation between painted slices."""
        from napari_medgs.interpolation import interpolate_labels

        others = tuple(a for a in range(3) if a != self.axis)
        where = np.flatnonzero(marks.any(axis=others))
        started = time.perf_counter()
        between = interpolate_labels(
            np.maximum(marks, 1) - 1,
            where,
            slice_axis=self.axis,
            method="linear",
            spacing=self.volume.spacing,
        )
        return self.score(time.perf_counter() - started, between)


def indices(labels: NDArray[Any]) -> NDArray[Any]:
    """Turn label values of the scribbles (k + 1) into class indices."""
    return np.where(labels > 0, labels.astype(np.int64) - 1, 0)


def measure_case(
    bench: Callable[[], Bench],
    name: str,
    store: Store,
    slices: list[int],
    seeds: int,
    limit: float,
    methods: list[str],
    say: Callable[[str], None],
) -> None:
    """Measure strokes and painted slices of one case, as far as the store lacks them."""

    def marks(count: int, seed: int) -> NDArray[np.uint8]:
        return bench().marks(count, seed)

    if OURS in methods:
        store.get(name, f"facts/{OURS}", lambda: bench().facts())
    for count in slices:
        for seed in range(seeds):
            cells = []
            for method in methods:

                def make(method: str = method, count: int = count, seed: int = seed) -> Any:
                    if method == OURS:
                        return bench().ours(marks(count, seed))
                    return bench().baseline(method, marks(count, seed), limit)

                row = store.get(name, f"strokes/{count}/{seed}/{method}", make)
                cells.append(f"{method} {row.get('dice', np.nan):.3f} ({row['seconds']:.2f} s)")
            say(f"{name}, strokes on {count}: {'  '.join(cells)}")
        if count < 2:
            continue
        for method in (OURS, DISTANCE):
            if method == OURS and OURS not in methods:
                continue

            def paint(method: str = method, count: int = count) -> Any:
                painted = bench().painted(count)
                return bench().ours(painted) if method == OURS else bench().distance(painted)

            row = store.get(name, f"painted/{count}/{method}", paint)
            say(f"{name}, {count} painted: {method} {row['dice']:.3f}")


def known_methods(methods: list[str]) -> list[str]:
    """Return the methods in the order of the tables."""
    return [m for m in (OURS, *BASELINES) if m in methods]
