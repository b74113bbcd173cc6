"""The command ``segment`` on a noisy CT at several sizes, and its stages in a viewer.

    python benchmarks/large_sizes.py [--data DIR] [--sizes 100,512,512 ...] [--only command stages]
        [--classes 1 or 5]

With one class the CT is that of ``large_image.py``, resampled to each size; with five it is a body
at 3 mm, whose pelvis has five classes. Strokes lie on five slices of every class, background
strokes around them. The command runs in a process of its own, which reads,
fits, segments and writes: time, CPU time, peak memory, Dice. Then the same is done step by step in
this process, with corrections on further slices: wall seconds, CPU seconds in brackets.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from large_image import NOISE, make_ct
from suite.registry import find_data

SIZES = ("100,512,512", "200,512,512", "400,512,512", "400,700,700")
PLACES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the stroked slices within the organ
CORRECTED = (0.28, 0.43, 0.58)  # of the slices of corrections: in the organ, outside, in the organ
PELVIS = 88, 89, 90, 91, 104  # labels of the body's CT
PATCH = 15  # voxels: half the sides of what is drawn outside
PARTS = ("command", "stages")


def make_pelvis(folder: Path, target: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Write a body's CT as NIfTI; return its pelvis, five classes (Z, Y, X)."""
    import nibabel
    from scipy import ndimage

    from napari_medgs import read_labels, read_volume

    small = read_volume(folder / "ct_totalseg_example" / "ct.nii.gz")
    found, *_ = read_labels(folder / "ct_totalseg_example" / "seg_ml.nii.gz")
    classes = np.zeros(found.shape, np.uint8)
    for k, value in enumerate(PELVIS, 1):
        classes[found == value] = k
    zoom = [n / m for n, m in zip(shape, small.shape, strict=True)]
    image = ndimage.zoom(small.data[0].astype(np.float32), zoom, order=1)
    rng = np.random.default_rng(0)
    for part in image:
        part += rng.normal(0, NOISE, part.shape).astype(np.float32)
    affine = np.diag([*(-s / f for s, f in zip(small.grid.spacing[::-1], zoom[::-1])), 1.0])
    affine[2, 2] *= -1
    array = np.rint(image).astype(np.int16).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, affine), target)
    return ndimage.zoom(classes, zoom, order=0)


def make(
    classes: int, folder: Path, target: Path, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Write an image; return its classes (Z, Y, X)."""
    if classes == len(PELVIS):
        return make_pelvis(folder, target, shape)
    return (make_ct(folder, target, shape) > 0).astype(np.uint8)


def slice_at(truth: NDArray[Any], label: int, place: float) -> int:
    """Return a slice of a class by its place from one end to the other."""
    there = np.flatnonzero((truth == label).any(axis=(1, 2)))
    return int(there[int(place * len(there))])


def draw_line(plane: NDArray[np.uint8], truth: NDArray[Any], label: int, part: float) -> None:
    """Draw a line of three voxels in width through the deepest place of a class in a slice."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(truth == label)
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    reach = max(int(inside.max() * part), 1)
    line = np.s_[max(y - 1, 0) : y + 2, max(x - reach, 0) : x + reach]
    plane[line][truth[line] == label] = label


def strokes_on(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return strokes (Z, Y, X): in every class, and one label more around them."""
    from scipy import ndimage

    strokes = np.zeros(truth.shape, np.uint8)
    last = int(truth.max())
    for label in range(1, last + 1):
        for place in PLACES:
            z = slice_at(truth, label, place)
            draw_line(strokes[z], truth[z], label, 1 / 2)
            outside = ndimage.distance_transform_edt(truth[z] == 0)
            strokes[z][(outside > 12) & (outside < 15)] = last + 1
    return strokes


def correct(strokes: NDArray[np.uint8], truth: NDArray[Any], turn: int) -> None:
    """Draw one more stroke on a slice without strokes, in place."""
    from scipy import ndimage

    z = slice_at(truth, 1, CORRECTED[turn])
    if turn % 2 == 0:
        draw_line(strokes[z], truth[z], 1, 1 / 3)
        return
    outside = ndimage.distance_transform_edt(truth[z] == 0)
    ring = (outside > 12) & (outside < 15)
    y, x = np.argwhere(ring)[0]
    place = z, slice(max(y - PATCH, 0), y + PATCH), slice(max(x - PATCH, 0), x + PATCH)
    strokes[place][ring[place[1:]]] = truth.max() + 1


def measure_stages(classes: int, data: Path, shape: tuple[int, int, int]) -> list[str]:
    """Return wall seconds (CPU seconds) of every stage, as a viewer does them."""
    from napari_medgs import read_volume
    from napari_medgs.segmentation import Prompts, SegmentParams, fit_for_segmentation
    from napari_medgs.segmentation.model import SegmentModel

    cells: list[str] = []

    def timed(task: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        out = task()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        cells.append(f"{wall:.2f} ({cpu:.2f})")
        return out

    with tempfile.TemporaryDirectory() as name:
        truth = make(classes, data, Path(name) / "ct.nii.gz", shape)
        volume = timed(lambda: read_volume(Path(name) / "ct.nii.gz"))
    strokes = strokes_on(truth)
    field = timed(lambda: fit_for_segmentation(volume))
    model = timed(lambda: SegmentModel(volume, field, SegmentParams()))

    def update(quick: bool) -> None:
        prompts = Prompts(labels=strokes.copy(), unlabeled=0, background=classes + 1)
        result = timed(lambda: model.update(prompts, quick=quick))
        assert result.incremental == quick

    update(False)
    for turn in range(len(CORRECTED)):
        correct(strokes, truth, turn)
        update(True)
    update(False)
    return cells


def measure(
    classes: int, data: Path, shape: tuple[int, int, int]
) -> tuple[float, float, float, float]:
    """Return wall seconds, CPU seconds, peak memory in GB and mean Dice."""
    import nibabel

    with tempfile.TemporaryDirectory() as name:
        image, mask = Path(name) / "ct.nii.gz", Path(name) / "mask.nii.gz"
        prompts = Path(name) / "strokes.nii.gz"
        truth = make(classes, data, image, shape)
        affine = nibabel.load(image).affine
        drawn = strokes_on(truth).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(drawn, affine), prompts)
        command = [sys.executable, "-m", "napari_medgs", "segment", str(image)]
        command += [
            "--prompts",
            str(prompts),
            "--background-label",
            str(classes + 1),
            "-o",
            str(mask),
        ]
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--quiet"])
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"segment failed on {shape}: exit status {process.returncode}")
        found = np.asarray(nibabel.load(mask).dataobj).transpose(2, 1, 0)
    dice = []
    for label in range(1, classes + 1):
        mine, true = found == label, truth == label
        dice.append(2 * np.count_nonzero(mine & true) / (mine.sum() + true.sum()))
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    return seconds, cpu, peak, float(np.mean(dice))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--classes", type=int, choices=(1, len(PELVIS)), default=1)
    given = parser.parse_args()
    sizes = [tuple(int(n) for n in text.split(",")) for text in given.sizes]
    print(f"load before the run {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if "command" in given.only:
        print("| voxels | millions | s | CPU s | peak, GB | Dice |")
        print("|---|--:|--:|--:|--:|--:|")
        for z, y, x in sizes:
            seconds, cpu, peak, dice = measure(given.classes, find_data(given.data), (z, y, x))
            row = f"| {z} x {y} x {x} | {z * y * x / 1e6:.0f} | {seconds:.0f} | {cpu:.0f} "
            print(row + f"| {peak:.2f} | {dice:.3f} |", flush=True)
    if "stages" in given.only:
        print("\n| voxels | reading | fit | set-up | first answer | quick, in the organ ", end="")
        print("| quick, outside | quick, in the organ | full |\n|---|" + 8 * "--:|")
        for z, y, x in sizes:
            cells = measure_stages(given.classes, find_data(given.data), (z, y, x))
            print(f"| {z} x {y} x {x} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
