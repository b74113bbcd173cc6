"""Seconds and memory from stroke to mask: 256 x 256 x 150 voxels of brain MRI, five classes.

    python benchmarks/segmentation_latency.py [--data DIR] [--runs 9]

Prints JSON. To be run in a process of its own: memory is the largest the process ever had, the
libraries, the image and the fit of its field included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.threads import default_threads
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation import Prompts, SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation
from segmentation_cases import BACKGROUND, all_cases, scribble_slice, simulate_scribbles
from suite.registry import find_data

DEPTH = 150
LEAST = 200  # voxels of classes in a slice that a background stroke corrects


def brain(folder: Path) -> tuple[Volume, NDArray[np.uint8], int]:
    """Return the part of a brain MRI that is measured on, its five classes and the slice axis."""
    case = next(c for c in all_cases() if c.name == "deep_brain")
    volume, truth = case.load(folder)
    axis = volume.grid.coarsest_axis()
    hits = np.flatnonzero((truth > 0).any(axis=tuple(a for a in range(3) if a != axis)))
    start = min(max(0, (int(hits[0]) + int(hits[-1]) - DEPTH) // 2), volume.shape[axis] - DEPTH)
    index = tuple(slice(start, start + DEPTH) if a == axis else slice(None) for a in range(3))
    affine = volume.affine.copy()
    corner = np.zeros(3)
    corner[axis] = start
    affine[:3, 3] = volume.grid.to_world(corner)
    data = np.ascontiguousarray(volume.data[(slice(None), *index)])
    return Volume.from_array(data, affine=affine), np.ascontiguousarray(truth[index]), axis


def measure_latency(folder: Path, runs: int) -> dict[str, Any]:
    """Return seconds of set-up, and of every full and quick update, preview and suggestion."""
    volume, truth, axis = brain(folder)
    began = time.perf_counter()
    field = fit_for_segmentation(volume)
    fitted = time.perf_counter()
    model = SegmentModel(volume, field)
    ready = time.perf_counter()
    marks = simulate_scribbles(truth, axis, 3, 0)
    rng = np.random.default_rng(5)
    model.update(Prompts(labels=marks, background=BACKGROUND))  # compiles
    seconds: dict[str, list[float]] = {"full": [], "quick": [], "preview": [], "suggest": []}
    inside = np.flatnonzero((truth > 0).any(axis=tuple(a for a in range(3) if a != axis)))
    for run in range(runs + 1):
        z = int(rng.choice(inside))
        plane = tuple(z if a == axis else slice(None) for a in range(3))
        stroke = scribble_slice(truth[plane], rng)
        marks[plane] = np.where(stroke > 0, stroke, marks[plane])
        prompts = Prompts(labels=marks, background=BACKGROUND)
        steps = {
            "preview": lambda p=prompts, z=z: model.preview_slice(axis, z, p),
            "quick": lambda p=prompts: model.update(p, quick=True),
            "full": lambda p=prompts: model.update(p),
            "suggest": lambda: model.suggest(1, axis),
        }
        for name, step in steps.items():
            start_time = time.perf_counter()
            step()
            if run:  # the first of each compiles
                seconds[name].append(time.perf_counter() - start_time)
    seconds |= measure_corrections(model, marks, axis, runs, rng)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "shape": list(truth.shape),
        "classes": int(truth.max()),
        "gaussians": len(field),
        "threads": default_threads(),
        "seconds_fit": fitted - began,
        "seconds_setup": ready - fitted,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def measure_corrections(
    model: SegmentModel,
    marks: NDArray[np.uint8],
    axis: int,
    runs: int,
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    """Return seconds with background strokes in classes, each alone in its slice."""
    stack = np.moveaxis(marks, axis, 0)
    steps = {
        "preview_of_correction": lambda p, z: model.preview_slice(axis, z, p),
        "quick_correction": lambda p, z: model.update(p, quick=True),
        "full_correction": lambda p, z: model.update(p),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    labels = np.moveaxis(
        model.update(Prompts(labels=marks, background=BACKGROUND)).labels, axis, 0
    )
    for run in range(runs + 1):
        free = [
            z for z in range(len(stack)) if not stack[z].any() and (labels[z] > 1).sum() > LEAST
        ]
        z = int(rng.choice(free))
        places = np.argwhere(labels[z] > 1)
        row, column = places[rng.integers(len(places))]
        stack[z, row : row + 2, column : column + 6] = BACKGROUND
        for name, step in steps.items():
            began = time.perf_counter()
            step(Prompts(labels=marks, background=BACKGROUND), z)
            if run:  # the first of each compiles
                seconds[name].append(time.perf_counter() - began)
    return seconds


def latency_apart(folder: Path, runs: int) -> dict[str, Any]:
    """Return :func:`measure_latency` of a process of its own."""
    command = [sys.executable, __file__, "--data", str(folder), "--runs", str(runs)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    print(json.dumps(measure_latency(find_data(given.data), given.runs)))
