"""The command ``segment`` on a noisy CT at several sizes: time, CPU time and peak memory.

    python benchmarks/large_sizes.py [--data DIR] [--sizes 100,512,512 200,512,512 ...]

The CT is that of ``large_image.py``, resampled to each size. Strokes lie on five slices of the
spleen, background strokes around it. The command runs in a process of its own, which reads,
fits, segments and writes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from large_image import make_ct
from suite.registry import find_data

SIZES = ("100,512,512", "200,512,512", "400,512,512", "400,700,700")
PLACES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the stroked slices within the organ


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
    given = parser.parse_args()
    print(f"load before the run {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    print("| voxels | millions | s | CPU s | peak, GB | Dice |")
    print("|---|--:|--:|--:|--:|--:|")
    for text in given.sizes:
        z, y, x = (int(n) for n in text.split(","))
        seconds, cpu, peak, dice = measure(find_data(given.data), (z, y, x))
        row = f"| {z} x {y} x {x} | {z * y * x / 1e6:.0f} | {seconds:.0f} | {cpu:.0f} "
        print(row + f"| {peak:.2f} | {dice:.3f} |", flush=True)


if __name__ == "__main__":
    main()
