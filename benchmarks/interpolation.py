"""Slices and masks left out: motion compensation and fields against plain interpolation.

    python benchmarks/run.py interpolation interpolation-dense mask-interpolation
    python benchmarks/interpolation.py [--data DIR] [--images T1 ...] [--masks aorta ...]
                                       [--step 2] [--no-field] [--quick] [--json FILE]

Images: every ``step``-th slice is kept, the others are predicted. Intensities are clipped to the
0.5 to 99.5 percentile of the volume and scaled to [0, 1]; heads are cropped to their box and 4
voxels. Dense: crops of three of these, over-sampled along the slice axis by resampling. PSNR is
pooled over all left-out voxels, SSIM is scikit-image's default (7 x 7) per slice.
Masks: every third slice (from the structure's first) is kept; Dice over the left-out slices.
HD95 is in mm, over the left-out slices. Motion settings were chosen on these very volumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume, spacing_affine
from napari_medgs.fitting import FitParams, fit
from napari_medgs.fitting.heldout import slice_scores
from napari_medgs.interpolation import (
    interpolate_auto,
    interpolate_baseline,
    interpolate_labels,
    interpolate_stack,
)
from napari_medgs.io import read_labels, read_volume
from napari_medgs.metrics import hd95
from suite.registry import Context, find_data
from suite.results import CaseResult, Ratio, Table

IMAGES = {
    "CT 3 mm": ("ct_totalseg_example/ct.nii.gz", False),
    "CT aorta": ("ct_aorta_totalseg/ct.nii.gz", False),
    "T1": ("mr_ms_lesions_patient07/T1.nii.gz", True),
    "FLAIR": ("mr_ms_lesions_patient07/FLAIR.nii.gz", True),
    "T2-FLAIR glioma": ("mr_brats4_glioma/t2f.nii.gz", True),
    "T1 brain": ("mr_brain_freesurfer/norm.nii.gz", True),
    "CT spleen 5 mm": ("ct_spleen_msd_crop/ct.nii.gz", False),
    "cine MR 10 mm": ("noseg_cinema/mnms_sax_ed.nii.gz", False),
}
# Crop (planes, rows, columns) of an image; factor and spline order of the resampling.
DENSE: dict[str, tuple[str, tuple[slice, slice, slice], float, int]] = {
    "CT spleen, 1.5 x, cubic": ("CT spleen 5 mm", np.s_[:, :, :], 1.5, 3),
    "T1, 2 x, cubic": ("T1", np.s_[10:40, 20:140, 10:130], 2.0, 3),
    "CT, 2 x, linear": ("CT 3 mm", np.s_[20:50, :120, :120], 2.0, 1),
}
QUICK_IMAGES = ("CT aorta", "cine MR 10 mm")
MASKS = ("glioma", "10 organs", "aorta", "hippocampus")
PLAIN = ("nearest", "linear", "cubic", "spline")


def load_image(path: Path, crop: bool) -> NDArray[np.float32]:
    """Return a stack (Z, Y, X) scaled to [0, 1], coarsest axis first."""
    volume = read_volume(path)
    data = volume.data[0].astype(np.float32)
    low, high = np.percentile(data, (0.5, 99.5))
    if crop:
        there = np.argwhere(data > 0)
        first, last = np.maximum(there.min(axis=0) - 4, 0), there.max(axis=0) + 5
        data = data[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    data = np.moveaxis(data, volume.grid.coarsest_axis(), 0)
    return np.ascontiguousarray(np.clip((data - low) / (high - low), 0, 1), np.float32)


def load_dense(data: Path, name: str) -> NDArray[np.float32]:
    """Return a stack (Z, Y, X) in [0, 1] that is over-sampled along its first axis."""
    from scipy.ndimage import zoom

    image, crop, factor, order = DENSE[name]
    path, cropped = IMAGES[image]
    some = load_image(data / path, cropped)[crop]
    return np.clip(zoom(some, (factor, 1, 1), order=order), 0, 1).astype(np.float32)


def two_sided_dis(kept: NDArray[np.float32], step: int) -> NDArray[np.float32] | None:
    """Interpolate with OpenCV's DIS flow, both slices warped; None without OpenCV."""
    try:
        import cv2
    except ImportError:
        return None
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = kept.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    pad = max(0, 32 - min(height, width))
    frames = []
    for a, b in pairwise(kept):
        first, second = ((np.pad(s, pad, mode="edge") * 255).astype(np.uint8) for s in (a, b))
        forth, back = dis.calc(first, second, None), dis.calc(second, first, None)
        flow = (forth - back) / 2
        flow = flow[pad : pad + height, pad : pad + width]

        def moved(image: NDArray[np.float32], share: float, flow: Any = flow) -> Any:
            at = (x + share * flow[..., 0], y + share * flow[..., 1])
            return cv2.remap(image, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

        for k in range(1, step):
            t = k / step
            frames.append((1 - t) * moved(a, -t) + t * moved(b, 1 - t))
    return np.stack(frames).astype(np.float32)


def pooled_psnr(guess: NDArray[Any], truth: NDArray[Any]) -> float:
    """PSNR in dB over all voxels, the guess clipped to [0, 1]."""
    return float(-10 * np.log10(np.mean((np.clip(guess, 0, 1) - truth) ** 2)))


def image_case(
    stack: NDArray[np.float32], step: int, threads: int | None, with_field: bool
) -> dict[str, tuple[float, float, float]]:
    """Return PSNR, SSIM and seconds by method."""
    depth = (len(stack) - 1) // step * step + 1
    stack = stack[:depth]
    where = np.arange(0, depth, step)
    wanted = np.setdiff1d(np.arange(depth), where)
    kept, truth = np.ascontiguousarray(stack[where]), stack[wanted]
    found: dict[str, tuple[float, float, float]] = {}

    def note(name: str, guess: NDArray[Any] | None, seconds: float) -> None:
        if guess is not None:
            clipped = np.clip(guess, 0, 1).astype(np.float32)
            _, ssim = slice_scores(truth[None], clipped[None], np.arange(len(truth)), threads)
            found[name] = (pooled_psnr(guess, truth), ssim, seconds)

    for name in PLAIN:
        started = time.perf_counter()
        note(name, interpolate_baseline(kept, where, wanted, name), time.perf_counter() - started)
    started = time.perf_counter()
    note("DIS flow", two_sided_dis(kept, step), time.perf_counter() - started)
    started = time.perf_counter()
    frames, _ = interpolate_stack(kept, where, wanted, threads=threads)
    note("motion", frames, time.perf_counter() - started)
    started = time.perf_counter()
    frames, _, selection = interpolate_auto(kept, where, wanted, threads=threads)
    weights = ", ".join(f"{m} {selection.weights[m]:.2f}" for m in selection.used)
    note(f"selected: {weights}", frames, time.perf_counter() - started)
    if with_field:
        params = FitParams(holdout=step, percentiles=(0, 100), slice_axis=0, threads=threads)
        for name, one in (
            ("field, free between slices", replace(params, interpolate=False)),
            ("field", params),
        ):
            metrics = fit(Volume.from_array(stack), one).metrics
            found[name] = (
                metrics["psnr_heldout"],
                metrics["ssim_heldout"],
                metrics["seconds_fit"],
            )
    return found


def mask_cases(data: Path, name: str, quick: bool) -> Iterator[tuple[Any, Any, Any]]:
    """Yield masks (Z, Y, X), images (C, Z, Y, X) and spacings of a group of structures."""
    if name == "glioma":
        images = [read_volume(data / f"mr_brats4_glioma/{c}.nii.gz") for c in ("t1c", "t2f")]
        labels, _ = read_labels(data / "mr_brats4_glioma/seg_brats23.nii.gz", images[0].grid)
        both = np.concatenate([image.data for image in images])
        yield labels > 0, both, images[0].spacing
        yield np.isin(labels, (1, 3)), both, images[0].spacing
    elif name == "10 organs":
        image = read_volume(data / "ct_totalseg_example/ct.nii.gz")
        labels, _ = read_labels(data / "ct_totalseg_example/seg_ml.nii.gz", image.grid)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        for value in np.argsort(sizes)[::-1][:10]:
            yield labels == value, image.data, image.spacing
    elif name == "aorta":
        image = read_volume(data / "ct_aorta_totalseg/ct.nii.gz")
        labels, _ = read_labels(data / "ct_aorta_totalseg/seg_aorta.nii.gz", image.grid)
        yield labels > 0, image.data, image.spacing
    else:
        for path in sorted((data / "hippocampus_msd/labels").glob("*.nii.gz"))[
            : 4 if quick else 24
        ]:
            image = read_volume(data / "hippocampus_msd/images" / path.name)
            labels, _ = read_labels(path, image.grid)
            yield labels > 0, image.data, image.spacing


def mask_case(
    mask: NDArray[np.bool_], image: NDArray[Any], step: int, spacing: tuple[float, ...]
) -> dict[str, tuple[float, float]]:
    """Return Dice and HD95 (mm) on the left-out slices by method."""
    hits = [np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != a))) for a in range(3)]
    box = [slice(hits[0][0], min(len(mask), hits[0][-1] + 1 + step))]
    box += [slice(max(0, h[0] - 8), h[-1] + 9) for h in hits[1:]]
    mask, image = mask[tuple(box)], image[(slice(None), *box)]
    where = np.arange(0, len(mask), step)
    wanted = np.array([z for z in range(where[-1]) if z % step])
    labels, truth = mask.astype(np.uint8), mask[wanted]

    one = Grid((1, *truth.shape[1:]), spacing_affine(spacing))

    def score(guess: NDArray[np.bool_]) -> tuple[float, float]:
        overlap = float(2 * (guess & truth).sum() / (guess.sum() + truth.sum()))
        # Slice by slice: the kept ones between them would hide how far off the others are.
        far = [hd95(g[None], t[None], one) for g, t in zip(guess, truth, strict=True)]
        return overlap, float(np.nanmean(far))

    nearest = interpolate_baseline(labels.astype(np.float32)[where], where, wanted, "nearest")
    scores = {"nearest": score(nearest > 0)}
    sparse = np.zeros_like(labels)
    sparse[where] = labels[where]
    contour = itk_contour(sparse)
    if contour is not None:
        scores["ITK contour"] = score(contour[wanted] > 0)
    for name, method, help_of in (
        ("distance, linear", "linear", None),
        ("distance, cubic", "cubic", None),
        ("distance, motion", "flow", None),
        ("with the image", "flow", image),
    ):
        filled = interpolate_labels(labels, where, image=help_of, method=method)
        scores[name] = score(filled[wanted] > 0)
    return scores


def run_images(context: Context) -> CaseResult:
    """Run the suite's case ``interpolation``: every 2nd, 3rd and 5th slice kept."""
    result = CaseResult("interpolation", "Slices that were left out")
    if context.quick:
        _images(context, result, QUICK_IMAGES, 2, True)
        return result
    for step in (2, 3, 5):
        _images(context, result, tuple(IMAGES), step, True)
    result.notes.append(
        "The settings of the motion estimate were tuned on these volumes. DIS is OpenCV's "
        "dense inverse search flow, both neighbors warped to the middle. "
        "'field' is what `fit --holdout every:K` reports."
    )
    return result


def run_dense(context: Context) -> CaseResult:
    """Run the suite's case ``interpolation-dense``: every 2nd slice of over-sampled stacks."""
    result = CaseResult("interpolation-dense", "Slices left out of over-sampled volumes")
    names = tuple(DENSE)
    _images(context, result, names[:1] if context.quick else names, 2, True)
    result.notes.append(
        "Crops of real volumes, resampled along the slice axis by scipy.ndimage.zoom. The "
        "sharpness of the selection was chosen on crops of the same volumes."
    )
    return result


def run_masks(context: Context) -> CaseResult:
    """Run the suite's case ``mask-interpolation``: every 3rd and 5th labeled slice kept."""
    result = CaseResult("mask-interpolation", "Masks of slices that were left out")
    for step in (3,) if context.quick else (3, 5):
        _masks(context, result, MASKS[2:] if context.quick else MASKS, step)
    if importlib.util.find_spec("itk") is None:
        result.notes.append(
            "ITK's morphological contour interpolation was left out: "
            "itk-morphologicalcontourinterpolation is not installed."
        )
    result.notes.append("The settings were tuned on these structures.")
    return result


ITK_PROGRAM = """
import os, sys, itk, numpy as np
image = itk.GetImageFromArray(np.load(sys.argv[1]))
np.save(sys.argv[1], itk.GetArrayFromImage(itk.morphological_contour_interpolator(image, axis=2)))
os._exit(0)
"""


def itk_contour(sparse: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Fill the empty slices with ITK's morphological contour interpolation; None without it.

    In a process of its own: the package's 2.1 corrupts the heap and would abort at exit.
    """
    if importlib.util.find_spec("itk") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.npy"
        np.save(file, sparse)
        done = subprocess.run([sys.executable, "-c", ITK_PROGRAM, file], capture_output=True)
        return np.load(file) if done.returncode == 0 else None


def _images(
    context: Context, result: CaseResult, names: tuple[str, ...], step: int, with_field: bool
) -> None:
    rows = []
    for name in names:
        if name in DENSE:
            stack = load_dense(context.data, name)
        else:
            path, crop = IMAGES[name]
            stack = load_image(context.file(path), crop)
        found = image_case(stack, step, context.threads, with_field)
        for method, (psnr, ssim, seconds) in found.items():
            rows.append((name, method, round(psnr, 2), round(ssim, 4), round(seconds, 2)))
        result.numbers[f"every {step}: {name}"] = found
        best = max(found[m][0] for m in ("linear", "cubic", "spline"))
        # What ``fit`` gives, not the best of several on the very slices.
        ours = list(found)[-1]
        context.say(f"{name}: {ours} {found[ours][0]:.2f} dB, best plain {best:.2f} dB")
        result.ratios.append(
            Ratio(
                f"{name}, 1 of {step} slices kept, mean squared error of the others",
                "best of linear, Catmull-Rom and spline",
                10 ** (-found[ours][0] / 10),
                10 ** (-best / 10),
                note=f"{ours} {found[ours][0]:.2f} dB, {best:.2f} dB",
            )
        )
    columns = ("volume", "method", "PSNR, dB", "SSIM", "seconds")
    result.tables.append(Table(f"1 of {step} slices kept", columns, tuple(rows)))


def _masks(context: Context, result: CaseResult, names: tuple[str, ...], step: int) -> None:
    rows = []
    for name in names:
        scores = [
            mask_case(mask, image, step, spacing)
            for mask, image, spacing in mask_cases(context.data, name, context.quick)
        ]
        mean = {
            key: tuple(float(np.nanmean([score[key][k] for score in scores])) for k in (0, 1))
            for key in scores[0]
        }
        cells = (f"{overlap:.4f} / {far:.2f}" for overlap, far in mean.values())
        rows.append((name, len(scores), *cells))
        result.numbers[f"every {step}: {name}"] = mean
        context.say(f"{name}: " + ", ".join(f"{k} {v[0]:.4f}" for k, v in mean.items()))
        columns = ("structures", "count", *mean)
        plain = max(mean[k][0] for k in mean if "motion" not in k and "image" not in k)
        result.ratios.append(
            Ratio(
                f"{name}, 1 of {step} slices kept, 1 - Dice of the others",
                "best of the plain methods",
                1 - mean["with the image"][0],
                1 - plain,
                note=f"Dice {mean['with the image'][0]:.4f}, {plain:.4f}",
            )
        )
    title = f"1 of {step} slices kept: Dice / HD95 in mm"
    result.tables.append(Table(title, columns, tuple(rows)))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", nargs="*", choices=(*IMAGES, *DENSE), default=tuple(IMAGES))
    parser.add_argument("--masks", nargs="*", choices=MASKS, default=MASKS)
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--mask-step", type=int, default=3)
    parser.add_argument("--no-field", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = Context(find_data(options.data), quick=options.quick)
    result = CaseResult("interpolation", "Slices and masks that were left out")
    if options.images:
        _images(context, result, tuple(options.images), options.step, not options.no_field)
    if options.masks:
        _masks(context, result, tuple(options.masks), options.mask_step)
    for table in result.tables:
        print("\n" + table.title, "\n")
        print(" | ".join(table.columns))
        for row in table.rows:
            print(" | ".join(str(cell) for cell in row))
    if options.json:
        options.json.write_text(json.dumps(result.numbers, indent=1))


if __name__ == "__main__":
    main()
