"""Fits of real volumes to a quality: seconds in this process, memory in one of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from suite.isolated import allowed_bytes, run_isolated
from suite.registry import Context
from suite.results import Table, median


@dataclass(frozen=True)
class Bar:
    """One volume and the quality that a fit must reach.

    Attributes
    ----------
    name : str
    image : str
        File in the data folder.
    quality : float
        PSNR in dB.
    mask : str
        File of labels to fit as well; empty for none.
    """

    name: str
    image: str
    quality: float
    mask: str = ""

    def load(self, context: Context) -> tuple[Volume, NDArray[Any] | None]:
        """Return the volume and its labels, if any."""
        from napari_medgs.io import read_labels, read_volume

        volume = read_volume(context.file(self.image))
        if not self.mask:
            return volume, None
        return volume, read_labels(context.file(self.mask), like=volume.grid)[0]

    def task(self, context: Context) -> dict[str, Any]:
        """Return the task for a process of its own."""
        task: dict[str, Any] = {
            "images": [str(context.file(self.image))],
            "params": {"quality": self.quality, "threads": context.threads, "seed": context.seed},
        }
        if self.mask:
            task["mask"] = str(context.file(self.mask))
            del task["params"]["quality"]  # a mask needs all steps: quality is the image's only
        return task


HEADLINE = Bar("brain T1", "mr_ms_lesions_patient07/T1.nii.gz", 36.0)
JOINT = Bar(
    "glioma T1c + mask", "mr_brats4_glioma/t1c.nii.gz", 42.0, "mr_brats4_glioma/seg_brats23.nii.gz"
)
BARS = (
    HEADLINE,
    Bar("abdomen CT", "ct_totalseg_example/ct.nii.gz", 40.0),
    Bar("glioma T1c", "mr_brats4_glioma/t1c.nii.gz", 42.0),
    JOINT,
)
QUICK_HEADLINE = Bar("vertebra CT", "ct_vertebra_tptbox/ct.nii.gz", 28.0)
QUICK_BARS = (
    QUICK_HEADLINE,
    Bar("cord T1 + mask", "mr_spinalcord_t1/t1w.nii.gz", 23.0, "mr_spinalcord_t1/seg.nii.gz"),
)


def shape_text(volume: Volume) -> str:
    """Return "182 x 218 x 182"."""
    return " x ".join(str(n) for n in volume.grid.shape)


def measure_bar(bar: Bar, context: Context) -> dict[str, Any]:
    """Fit a bar's volume a few times here, and once elsewhere for its memory.

    Returns
    -------
    dict
        Medians of seconds (to the quality, initialization included, measuring the result not)
        and seconds_all, psnr, ssim, n_gaussians, dice where there is a mask, peak and allowed
        bytes.
    """
    from napari_medgs.fitting import FitParams, fit

    volume, mask = bar.load(context)
    params = FitParams(**bar.task(context)["params"])
    runs = [fit(volume, params, mask) for _ in range(context.runs)]
    metrics = [run.metrics for run in runs]
    alone = run_isolated(bar.task(context))
    report: dict[str, Any] = {
        "name": bar.name,
        "shape": list(volume.grid.shape),
        "goal_db": bar.quality,
        "seconds": median([m["seconds_fit"] for m in metrics]),
        "seconds_all": median([m["seconds"] for m in metrics]),
        "runs": [m["seconds_fit"] for m in metrics],
        "seconds_to_goal": median([time_to(run.history, bar.quality) for run in runs]),
        **{key: metrics[0][key] for key in ("psnr", "ssim", "n_gaussians", "bytes", "iterations")},
        "peak_bytes": alone["peak_bytes"],
        "bytes_before": alone["bytes_before"],
        "allowed_bytes": allowed_bytes(alone["voxels"], alone["channels"]),
    }
    for key in ("dice", "dice_mean"):
        if key in metrics[0]:
            report[key] = metrics[0][key]
    context.say(
        f"  {bar.name}: {report['seconds']:.2f} s, {report['psnr']:.2f} dB, "
        f"peak {report['peak_bytes'] / 1e9:.2f} GB"
    )
    return report


def time_to(history: list[dict[str, Any]], quality: float) -> float:
    """Return when the fit's PSNR first reached a quality; NaN if it never did."""
    for entry in history:
        if entry["psnr"] is not None and entry["psnr"] >= quality:
            return float(entry["seconds"])
    return float("nan")


def bars_table(reports: list[dict[str, Any]]) -> Table:
    """Return the bars as a table."""
    rows = []
    for r in reports:
        dice = f"{r['dice_mean']:.4f}" if "dice_mean" in r else None
        met = np.isfinite(r["seconds_to_goal"])
        rows.append(
            (
                r["name"],
                " x ".join(str(n) for n in r["shape"]),
                r["goal_db"],
                r["seconds_to_goal"] if met else "not reached",
                r["seconds_all"],
                f"{r['psnr']:.2f}",
                f"{r['ssim']:.4f}",
                r["n_gaussians"],
                dice,
                f"{r['peak_bytes'] / 1e9:.2f}",
                f"{r['allowed_bytes'] / 1e9:.2f}",
            )
        )
    columns = (
        *("volume", "shape", "goal dB", "s to goal", "s in all", "dB", "SSIM", "Gaussians"),
        *("Dice", "peak GB", "allowed GB"),
    )
    return Table("Fits to a quality", columns, tuple(rows))
