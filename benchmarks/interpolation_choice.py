"""The choice among motion, a cubic and a spline, without any fit, on crops of many volumes.

    python benchmarks/run.py interpolation-choice

Crops of 49 slices and 96 x 96 pixels of every shared volume: as they are, along the in-plane axes,
and over-sampled along the slice axis and along rows by resampling and by zero filling. Every
second slice is left out. What counts is how much less the chosen interpolant errs than the best
of motion, Catmull-Rom and a cubic spline, found with the slices left out in view. Settings were
chosen on the volumes of the half "tune".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interpolation import load_image
from napari_medgs.interpolation import (
    interpolate_auto,
    interpolate_baseline,
    interpolate_stack,
)
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table

Stack = NDArray[np.float32]
SHAPE = (49, 96, 96)
# Fewer slices than this say too little about a method.
MIN_SLICES = 8


@dataclass(frozen=True)
class Source:
    """A volume of the data folder: its file, its half, and whether it is a head to crop."""

    path: str
    half: str
    head: bool = False


SOURCES = {
    "CT 3 mm": Source("ct_totalseg_example/ct.nii.gz", "tune"),
    "T1": Source("mr_ms_lesions_patient07/T1.nii.gz", "tune", True),
    "T1 with contrast": Source("mr_ms_lesions_patient07/T1POST.nii.gz", "tune", True),
    "T2": Source("mr_ms_lesions_patient07/T2.nii.gz", "tune", True),
    "FLAIR": Source("mr_ms_lesions_patient07/FLAIR.nii.gz", "tune", True),
    "CT vertebra": Source("ct_vertebra_tptbox/ct.nii.gz", "tune"),
    "cine MR 10 mm": Source("noseg_cinema/mnms_sax_ed.nii.gz", "tune"),
    "T2 spinal cord": Source("mr_spinalcord_t2/t2.nii.gz", "tune"),
    "CT aorta": Source("ct_aorta_totalseg/ct.nii.gz", "report"),
    "CT spleen 5 mm": Source("ct_spleen_msd_crop/ct.nii.gz", "report"),
    "T1 brain": Source("mr_brain_freesurfer/norm.nii.gz", "report", True),
    "T1 glioma": Source("mr_brats4_glioma/t1n.nii.gz", "report", True),
    "T1 glioma with contrast": Source("mr_brats4_glioma/t1c.nii.gz", "report", True),
    "T2 glioma": Source("mr_brats4_glioma/t2w.nii.gz", "report", True),
    "T2-FLAIR glioma": Source("mr_brats4_glioma/t2f.nii.gz", "report", True),
    "T1 spinal cord": Source("mr_spinalcord_t1/t1w.nii.gz", "report"),
    "T2* spinal cord": Source("mr_spinalcord_t2s_gm/t2s.nii.gz", "report"),
    "cine MR, second": Source("noseg_cinema/mnms2_sax_ed.nii.gz", "report"),
}
QUICK_SOURCES = ("cine MR 10 mm", "T1 spinal cord")


def middle(stack: Stack, shape: tuple[int, int, int] = SHAPE) -> Stack:
    """Return the crop of at most this shape in the middle."""
    some = (
        slice(max(0, (n - m) // 2), max(0, (n - m) // 2) + m)
        for n, m in zip(stack.shape, shape, strict=True)
    )
    return np.ascontiguousarray(stack[tuple(some)])


def spline_zoom(stack: Stack, factor: float, order: int = 3) -> Stack:
    """Resample along the first axis by a spline of this order."""
    from scipy.ndimage import zoom

    return np.clip(zoom(stack, (factor, 1, 1), order=order), 0, 1).astype(np.float32)


def cubic_zoom(stack: Stack, factor: float) -> Stack:
    """Resample along the first axis by Catmull-Rom."""
    where = np.arange(len(stack))
    wanted = np.linspace(0, len(stack) - 1, round(len(stack) * factor))
    return np.clip(interpolate_baseline(stack, where, wanted, "cubic"), 0, 1)


def half_band(stack: Stack) -> Stack:
    """Drop the upper half of the frequencies along the first axis.

    So is a 3D MR scan whose scanner doubled its slices by zero filling. With every second slice
    left out it is sampled just as densely as it needs to be.
    """
    from scipy.fft import dct, idct

    spectrum = dct(middle(stack), axis=0)
    spectrum[(len(spectrum) + 1) // 2 :] = 0
    return np.clip(idct(spectrum, axis=0), 0, 1).astype(np.float32)


def zero_filled(stack: Stack, factor: float) -> Stack:
    """Resample along the first axis by zero filling its discrete Fourier transform."""
    from scipy.signal import resample

    wanted = round(len(stack) * factor)
    return np.clip(resample(stack.astype(np.float64), wanted, axis=0), 0, 1).astype(np.float32)


def linear_zoom(stack: Stack, factor: float) -> Stack:
    """Resample along the first axis linearly."""
    return spline_zoom(stack, factor, 1)


def dense(zoom: Callable[[Stack, float], Stack], factor: float) -> Callable[[Stack], Stack]:
    """Return a function that crops a stack and resamples it."""

    def resampled(stack: Stack) -> Stack:
        slices = int(-(-SHAPE[0] // factor))
        if zoom is zero_filled:
            slices += 4  # its ends are those of a period, and are cut off
        return middle(zoom(middle(stack, (slices, *SHAPE[1:])), factor))

    return resampled


def rows_first(make: Callable[[Stack], Stack]) -> Callable[[Stack], Stack]:
    """Return the same with rows for slices."""
    return lambda stack: make(np.swapaxes(stack, 0, 1))


ZOOMS = {"linear": linear_zoom, "cubic": cubic_zoom, "spline": spline_zoom, "zero": zero_filled}
VARIANTS: dict[str, Callable[[Stack], Stack]] = {
    "as it is": middle,
    "in plane": rows_first(middle),
    "columns": lambda stack: middle(np.moveaxis(stack, 2, 0)),
}
for _factor in (1.5, 2, 3):
    for _name, _zoom in ZOOMS.items():
        VARIANTS[f"{_factor} x, {_name}"] = dense(_zoom, _factor)
        VARIANTS[f"{_factor} x, {_name}, rows"] = rows_first(dense(_zoom, _factor))
VARIANTS["half band"] = half_band


def choice_case(stack: Stack, threads: int | None) -> tuple[dict[str, float], str]:
    """Return mean squared errors by method, "chosen" among them, and what was chosen."""
    depth = (len(stack) - 1) // 2 * 2 + 1
    where, wanted = np.arange(0, depth, 2), np.arange(1, depth, 2)
    kept, truth = np.ascontiguousarray(stack[where]), stack[wanted]
    frames, _, selection = interpolate_auto(kept, where, wanted, threads=threads)
    found = {
        "chosen": frames,
        "motion": interpolate_stack(kept, where, wanted, threads=threads)[0],
    }
    found |= {m: interpolate_baseline(kept, where, wanted, m) for m in ("cubic", "spline")}
    errors = {m: float(np.mean((np.clip(f, 0, 1) - truth) ** 2)) for m, f in found.items()}
    return errors, ", ".join(f"{m} {selection.weights[m]:.2f}" for m in selection.used)


def crops(data: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, Stack]]:
    """Yield volume, variant and stack; not those of which too few slices would be left."""
    for name in names:
        source = SOURCES[name]
        stack = load_image(data / source.path, source.head)
        for variant, make in VARIANTS.items():
            some = make(stack)
            if (len(some) + 1) // 2 >= MIN_SLICES:
                yield name, variant, some


def _mean_and_worst(gains: list[float]) -> str:
    return f"{np.mean(gains):+.2f}, {min(gains):+.2f}" if gains else ""


def run(context: Context) -> CaseResult:
    """Run the suite's case ``interpolation-choice``."""
    result = CaseResult("interpolation-choice", "Interpolant chosen between slices")
    gains: dict[tuple[str, str], float] = {}
    rows: dict[str, list[str]] = {}
    for name, variant, stack in crops(
        context.data, QUICK_SOURCES if context.quick else tuple(SOURCES)
    ):
        errors, chosen = choice_case(stack, context.threads)
        best = min(errors[m] for m in ("motion", "cubic", "spline"))
        gains[name, variant] = 10 * float(np.log10(best / errors["chosen"]))
        result.numbers[f"{name}, {variant}"] = {**errors, "weights": chosen}
        rows.setdefault(name, []).append(variant)
        context.say(f"{name}, {variant}: {gains[name, variant]:+.2f} dB to the best, {chosen}")
    summary = []
    for half in ("tune", "report"):
        for variant in (*VARIANTS, "all"):
            some = np.array(
                [
                    gain
                    for (name, made), gain in gains.items()
                    if SOURCES[name].half == half and variant in (made, "all")
                ]
            )
            if len(some):
                summary.append(
                    (
                        half,
                        variant,
                        len(some),
                        f"{some.mean():+.2f}",
                        f"{some.min():+.2f}",
                        int((some < -0.1).sum()),
                        int((some < -0.3).sum()),
                    )
                )
        if len(some):
            result.ratios.append(
                Ratio(
                    f"volumes of the half {half}, mean squared error of the slices left out",
                    "the best of motion, cubic and spline for each",
                    float(10 ** (-some.mean() / 10)),
                    1.0,
                    note=f"{some.mean():+.2f} dB on average over {len(some)} crops",
                )
            )
    result.tables.append(
        Table(
            "Chosen interpolant against the best single method, dB",
            ("half", "variant", "crops", "mean", "worst", "below -0.1", "below -0.3"),
            tuple(summary),
        )
    )
    kinds = {
        "as scanned": ("as it is", "in plane", "columns"),
        **{f"{f} x": tuple(v for v in VARIANTS if v.startswith(f"{f} x")) for f in (1.5, 2, 3)},
        "half band": ("half band",),
    }
    result.tables.append(
        Table(
            "Mean and worst by volume",
            ("volume", "half", *kinds),
            tuple(
                (
                    name,
                    SOURCES[name].half,
                    *(
                        _mean_and_worst([gains[name, v] for v in some if v in made])
                        for some in kinds.values()
                    ),
                )
                for name, made in rows.items()
            ),
        )
    )
    result.notes.append(
        "Every second slice left out of 49 x 96 x 96 crops. 'In plane' takes rows, 'columns' "
        "columns for slices. The others are resampled along the slice axis, or along rows, "
        "before slices are left out: linearly, by Catmull-Rom, by a spline, or by zero filling "
        "of the discrete Fourier transform. 'Half band' is the crop as it is with the lower half "
        "of its frequencies along the slices only (cosine transform): the slices kept are then "
        "just as many as the band needs. Empty: fewer than eight slices would be left. The best "
        "method is known only with the slices left out in view."
    )
    return result
