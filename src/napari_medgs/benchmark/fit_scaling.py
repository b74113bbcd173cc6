"""Time and peak memory of fits by the size of the volume, each in a process of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs.benchmark.isolated import allowed_bytes, run_isolated
from napari_medgs.benchmark.registry import Context
from napari_medgs.benchmark.results import Table, median
from napari_medgs.benchmark.worker import LARGE

IMAGE = "mr_brain_freesurfer/norm.nii.gz"
EDGES = (128, 192, 256)
LARGE_LIMIT = 6_000_000_000
LARGE_STEPS = 10


def growth(voxels: list[int], amounts: list[float]) -> float:
    """Return the exponent p of amounts ~ voxels^p (1 is linear)."""
    return float(np.polyfit(np.log(voxels), np.log(amounts), 1)[0])


def measure_scaling(context: Context) -> dict[str, Any]:
    """Fit one anatomy at several resolutions, and a large synthetic volume once.

    Returns
    -------
    dict
        "sizes", a list of reports; "exponent", of the fit's seconds in voxels; "large", the
        report of the synthetic volume.
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
    large_shape = [24, 96, 96] if context.quick else list(LARGE)
    params = {**common, "iterations": LARGE_STEPS}
    large = run_isolated({"synthetic": large_shape, "params": params})
    large["shape"] = large_shape
    context.say(f"  {large_shape}: peak {large['peak_bytes'] / 1e9:.2f} GB")
    seconds = [s["seconds_fit"] for s in sizes]
    return {
        "sizes": sizes,
        "exponent": growth([s["voxels"] for s in sizes], seconds),
        "large": large,
    }


def scaling_table(scaling: dict[str, Any]) -> Table:
    """Return the sizes as a table."""
    rows = []
    for report in [*scaling["sizes"], scaling["large"]]:
        allowed = allowed_bytes(report["voxels"], report["channels"])
        large = report is scaling["large"]
        rows.append(
            (
                f"synthetic CT, {LARGE_STEPS} steps" if large else "brain T1, 80 steps",
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
