"""The command ``segment`` on a noisy CT at several sizes, and its stages in a viewer.

    python benchmarks/large_sizes.py [--data DIR] [--sizes 100,512,512 ...] [--only command stages]

The CT is that of ``large_image.py``, resampled to each size. Strokes lie on five slices of the
spleen, background strokes around it. The command runs in a process of its own, which reads,
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

from large_image import make_ct
from suite.registry import find_data

SIZES = ("100,512,512", "200,512,512", "400,512,512", "400,700,700")
PLACES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the stroked slices within the organ
CORRECTED = (0.28, 0.43, 0.58)  # of the slices of corrections: in the organ, outside, in the organ
PATCH = 15  # voxels: half the sides of what is drawn outside
PARTS = ("command", "stages")


def strokes_on(truth: NDArray[Any]) -> NDArray[np.uint8]:
    """Return strokes (Z, Y, X): 1 in the organ, 2 around it."""
    from scipy import ndimage

    strokes = np.zeros(truth.shape, np.uint8)
    there = np.flatnonzero(truth.any(axis=(1, 2)))
    for place in PLACES:
        z = there[int(place * len(there))]
        inside = ndimage.distance_transform_edt(truth[z] > 0)
        outside = ndimage.distance_transform_edt(truth[z] == 0)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        reach = int(inside.max() / 2)
        strokes[z, y - 1 : y + 2, x - reach : x + reach] = 1
        strokes[z][(outside > 12) & (outside < 15)] = 2
    return strokes


def correct(strokes: NDArray[np.uint8], truth: NDArray[Any], turn: int) -> None:
    """Draw one more stroke on a slice without strokes, in place."""
    from scipy import ndimage

    there = np.flatnonzero(truth.any(axis=(1, 2)))
    z = there[int(CORRECTED[turn] * len(there))]
    if turn % 2 == 0:
        inside = ndimage.distance_transform_edt(truth[z] > 0)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        reach = int(inside.max() / 3)
        strokes[z, y - 1 : y + 2, x - reach : x + reach] = 1
        return
    outside = ndimage.distance_transform_edt(truth[z] == 0)
    ring = (outside > 12) & (outside < 15)
    y, x = np.argwhere(ring)[0]
    place = z, slice(max(y - PATCH, 0), y + PATCH), slice(max(x - PATCH, 0), x + PATCH)
    strokes[place][ring[place[1:]]] = 2


def measure_stages(data: Path, shape: tuple[int, int, int]) -> list[str]:
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
        truth = make_ct(data, Path(name) / "ct.nii.gz", shape) > 0
        volume = timed(lambda: read_volume(Path(name) / "ct.nii.gz"))
    strokes = strokes_on(truth)
    field = timed(lambda: fit_for_segmentation(volume))
    model = timed(lambda: SegmentModel(volume, field, SegmentParams()))

    def update(quick: bool) -> None:
        prompts = Prompts(labels=strokes.copy(), unlabeled=0, background=2)
        result = timed(lambda: model.update(prompts, quick=quick))
        assert result.incremental == quick

    update(False)
    for turn in range(len(CORRECTED)):
        correct(strokes, truth, turn)
        update(True)
    update(False)
    return cells


def measure(data: Path, shape: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """Return wall seconds, CPU seconds, peak memory in GB and Dice."""
    import nibabel

    with tempfile.TemporaryDirectory() as name:
        image, mask = Path(name) / "ct.nii.gz", Path(name) / "mask.nii.gz"
        prompts = Path(name) / "strokes.nii.gz"
        truth = make_ct(data, image, shape) > 0
        affine = nibabel.load(image).affine
        drawn = strokes_on(truth).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(drawn, affine), prompts)
        command = [sys.executable, "-m", "napari_medgs", "segment", str(image)]
        command += ["--prompts", str(prompts), "--background-label", "2", "-o", str(mask)]
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--quiet"])
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"segment failed on {shape}: exit status {process.returncode}")
        found = np.asarray(nibabel.load(mask).dataobj).transpose(2, 1, 0) == 1
    dice = 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum())
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9, float(dice)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    sizes = [tuple(int(n) for n in text.split(",")) for text in given.sizes]
    print(f"load before the run {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if "command" in given.only:
        print("| voxels | millions | s | CPU s | peak, GB | Dice |")
        print("|---|--:|--:|--:|--:|--:|")
        for z, y, x in sizes:
            seconds, cpu, peak, dice = measure(find_data(given.data), (z, y, x))
            row = f"| {z} x {y} x {x} | {z * y * x / 1e6:.0f} | {seconds:.0f} | {cpu:.0f} "
            print(row + f"| {peak:.2f} | {dice:.3f} |", flush=True)
    if "stages" in given.only:
        print("\n| voxels | reading | fit | set-up | first answer | quick, in the organ ", end="")
        print("| quick, outside | quick, in the organ | full |\n|---|" + 8 * "--:|")
        for z, y, x in sizes:
            cells = measure_stages(find_data(given.data), (z, y, x))
            print(f"| {z} x {y} x {x} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
