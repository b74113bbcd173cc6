"""Time and peak memory of fits by the size of the volume, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.data.volume import Volume
from suite.isolated import allowed_bytes, run_isolated
from suite.registry import Context
from suite.results import BenchmarkError, Table, median
from suite.worker import LARGE, resampled

IMAGE = "mr_brain_freesurfer/norm.nii.gz"
EDGES = (128, 192, 256)
LARGE_LIMIT = 6_000_000_000
LARGE_STEPS = 10
THICK = (124, 369, 369)  # of the size of the brain in MedGS's paper, which is not at hand
THICK_LIMIT = 60.0  # seconds that the command may take for it on two cores


def growth(voxels: list[int], amounts: list[float]) -> float:
    """Return the exponent p of amounts ~ voxels^p (1 is linear)."""
    return float(np.polyfit(np.log(voxels), np.log(amounts), 1)[0])


def thick_slices(image: Path, shape: tuple[int, int, int]) -> Volume:
    """Return a scan as if taken in fewer, thicker slices of finer pixels.

    Averaged over a slice's thickness, then interpolated linearly.
    """
    from scipy.ndimage import uniform_filter1d

    from napari_medgs.io import read_volume

    volume = read_volume(image)
    ratio = max(1, round(volume.grid.shape[0] / shape[0]))
    data = uniform_filter1d(volume.data[:1].astype(np.float32), ratio, axis=1, mode="nearest")
    return resampled(Volume.from_array(data, spacing=volume.grid.spacing), shape)


def time_command(arguments: list[str]) -> float:
    """Return the wall seconds of a command line of ours, starting Python included.

    Raises
    ------
    BenchmarkError
        When it fails; with the last line that it said.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "napari_medgs", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchmarkError(f"napari-medgs {arguments[0]} failed: {last}")
    return seconds


def measure_frames_between(context: Context) -> dict[str, Any]:
    """Fit thick slices with frames between them, by the command and alone for its memory.

    Returns
    -------
    dict
        The worker's answer, with the shape, and "command_seconds".
    """
    from napari_medgs.io import write_image

    shape = (16, 40, 40) if context.quick else THICK
    with tempfile.TemporaryDirectory() as folder:
        image, field = Path(folder) / "thick.nii.gz", Path(folder) / "thick.medgs.safetensors"
        volume = thick_slices(context.file(IMAGE), shape)
        write_image(image, volume.data, volume.grid)
        del volume
        words = ["fit", str(image), "-o", str(field), "--interpolate", "--quiet"]
        words += ["--json", str(Path(folder) / "numbers.json"), "--seed", str(context.seed)]
        if context.threads:
            words += ["--threads", str(context.threads)]
        seconds = time_command(words)
        params = {"threads": context.threads, "seed": context.seed, "interpolate": True}
        report = run_isolated({"images": [str(image)], "params": params})
        numbers = json.loads((Path(folder) / "numbers.json").read_text(encoding="utf-8"))
    targets = numbers["through_plane_targets"]
    report.update(shape=list(shape), command_seconds=seconds, between=targets)
    context.say(f"  {list(shape)} with frames between: {seconds:.1f} s")
    return report


def measure_scaling(context: Context) -> dict[str, Any]:
    """Fit one anatomy at several resolutions and as thick slices, and a synthetic volume once.

    Returns
    -------
    dict
        "sizes", a list of reports; "exponent", of the fit's seconds in voxels; "between", the
        report of the thick slices; "large", the report of the synthetic volume.
    """
    image = str(context.file(IMAGE))
    common = {"threads": context.threads, "seed": context.seed}
    sizes = []
    for edge in (40, 56, 72) if context.quick else EDGES:
        task = {"images": [image], "shape": [edge] * 3, "params": common}
        answers = [run_isolated(task) for _ in range(1 if context.quick else min(context.runs, 3))]
        report = dict(answers[0])
        report["seconds_fit"] = median([a["seconds_fit"] for a in answers])
        report["seconds"] = median([a["seconds"] for a in answers])
        report["shape"] = [edge] * 3
        sizes.append(report)
        context.say(f"  {edge}^3: {report['seconds_fit']:.2f} s")
    between = measure_frames_between(context)
    large_shape = [24, 96, 96] if context.quick else list(LARGE)
    params = {**common, "iterations": LARGE_STEPS}
    large = run_isolated({"synthetic": large_shape, "params": params})
    large["shape"] = large_shape
    context.say(f"  {large_shape}: peak {large['peak_bytes'] / 1e9:.2f} GB")
    seconds = [s["seconds_fit"] for s in sizes]
    return {
        "sizes": sizes,
        "exponent": growth([s["voxels"] for s in sizes], seconds),
        "between": between,
        "large": large,
    }


def scaling_table(scaling: dict[str, Any]) -> Table:
    """Return the sizes as a table."""
    rows = []
    named = [("brain T1, 80 steps", report) for report in scaling["sizes"]]
    named.append(("brain T1 in thick slices, with frames between", scaling["between"]))
    named.append((f"synthetic CT, {LARGE_STEPS} steps", scaling["large"]))
    for name, report in named:
        allowed = allowed_bytes(report["voxels"], report["channels"])
        if report is scaling["between"]:  # a stack of twice the slices, the motion in it
            allowed += allowed_bytes(report["voxels"], report["channels"])
        rows.append(
            (
                name,
                " x ".join(str(n) for n in report["shape"]),
                report["metrics"]["n_gaussians"],
                report["seconds_fit"],
                report["seconds_fit"] / report["voxels"] * 1e6,
                f"{report['metrics']['psnr']:.2f}",
                f"{report['peak_bytes'] / 1e9:.2f}",
                f"{min(allowed, LARGE_LIMIT) / 1e9:.2f}",
            )
        )
    columns = ("volume", "shape", "Gaussians", "s", "s / Mvoxel", "dB", "peak GB", "allowed GB")
    return Table("Scaling", columns, tuple(rows))
