"""The case "compression": compressed fields against image codecs at equal PSNR and SSIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from suite.compression_codecs import codecs
from suite.compression_use import USES, use_row, use_table
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table

if TYPE_CHECKING:
    from napari_medgs.compression import CompressParams

IMAGES = {
    "brain T1, 1 mm": "mr_ms_lesions_patient07/T1.nii.gz",
    "abdominal CT, 3 mm": "ct_totalseg_example/ct.nii.gz",
    "glioma MR, 1 mm": "mr_brats4_glioma/t1c.nii.gz",
    "spleen CT, 5 mm slices": "ct_spleen_msd_crop/ct.nii.gz",
    "hippocampus MR, 35 x 51 x 35": "hippocampus_msd/images/hippocampus_001.nii.gz",
}
QUALITIES, MIDDLE = (32.0, 36.0, 40.0), 36.0
NOISE = (0.05, 0.1)
NOISY = ("brain T1, 1 mm", "abdominal CT, 3 mm")
CROP = (64, 96, 96)


@dataclass(frozen=True)
class Point:
    """One compressed image.

    Attributes
    ----------
    what : str
        Settings.
    size : int
        Bytes.
    psnr, ssim : float
        Against the image, scaled to its percentile span and clipped.
    per_gaussian, ratio, loss, seconds, fit_seconds : float
        Of fields: bytes a Gaussian, how many times smaller than the exact file, PSNR lost by
        compression (dB), CPU seconds of it and of the fit.
    """

    what: str
    size: int
    psnr: float
    ssim: float
    per_gaussian: float = math.nan
    ratio: float = math.nan
    loss: float = math.nan
    seconds: float = math.nan
    fit_seconds: float = math.nan


def scores(truth: Floats, shown: Floats) -> tuple[float, float]:
    """Return PSNR (dB) and mean slice-wise SSIM of a volume in [0, 1]."""
    from napari_medgs.fitting.heldout import slice_scores

    given = np.ascontiguousarray(np.clip(shown, 0, 1)[None], np.float32)
    return slice_scores(np.ascontiguousarray(truth[None]), given, np.arange(len(truth)), 1)


def bytes_at(points: Sequence[Point], value: float, measure: str = "psnr") -> float:
    """Return the bytes at which a codec reaches a quality: log-linear between its points.

    NaN below its coarsest and above its finest point: nothing is extrapolated.
    """
    known = sorted((getattr(p, measure), p.size) for p in points)
    quality, size = np.array([q for q, _ in known]), np.array([float(s) for _, s in known])
    if len(known) < 2 or not quality[0] <= value <= quality[-1]:
        return math.nan
    return float(np.exp(np.interp(value, quality, np.log(size))))


def profiles(quality: float, context: Context) -> dict[str, CompressParams]:
    """Return the compressions of a fit of some quality, by what they are called."""
    from napari_medgs.compression import CompressParams

    threads = context.threads
    if context.quick:
        return {"small": CompressParams(iterations=10, threads=threads)}
    wanted = {
        "small": CompressParams(threads=threads),
        "at most 0.3 dB": CompressParams(max_loss=0.3, threads=threads),
    }
    if quality == MIDDLE:
        wanted["small, step 3.6"] = CompressParams(step=3.6, threads=threads)
        wanted["faithful"] = CompressParams(profile="faithful", threads=threads)
    return wanted


def field_points(volume: Volume, context: Context) -> tuple[list[Point], GaussianField]:
    """Fit and compress an image to several qualities; return the points and a field."""
    import time

    from napari_medgs.compression import compress
    from napari_medgs.fitting import FitParams, fit

    points = []
    for quality in QUALITIES[:1] if context.quick else QUALITIES:
        params = FitParams(quality=quality, threads=context.threads, seed=context.seed)
        begun = time.process_time()
        field = fit(volume, params).field
        fit_seconds = time.process_time() - begun
        for what, one in profiles(quality, context).items():
            begun = time.process_time()
            made = compress(field, one, volume).metrics
            seconds, name = time.process_time() - begun, f"{quality:g} dB, {what}"
            numbers = (made[k] for k in ("bytes", "psnr", "ssim", "bytes_per_gaussian", "ratio"))
            points.append(Point(name, *numbers, made["loss"], seconds, fit_seconds))
            context.say(f"  {name}: {made['bytes']:,} bytes, {made['psnr']:.2f} dB")
    return points, field


def scaled(field: GaussianField, volume: Volume) -> Floats:
    """Return the image as codecs get it: slices first, the percentile span as [0, 1]."""
    from napari_medgs.compression.problem import scaled_images

    return scaled_images(field, volume)[0]


def codec_points(
    image: Floats, context: Context, truth: Floats | None = None
) -> dict[str, list[Point]]:
    """Return the points of every codec; scored against ``truth`` where it is not the image."""
    found: dict[str, list[Point]] = {}
    for codec in codecs(image, context.quick):
        for setting in codec.settings:
            size, back = codec.run(image, setting)
            psnr, ssim = scores(image if truth is None else truth, back)
            found.setdefault(codec.name, []).append(Point(str(setting), size, psnr, ssim))
        context.say(f"  {codec.name}: {len(codec.settings)} settings")
    return found


def ratio_text(theirs: float, ours: float) -> str:
    """Return how many times larger another file is; "lost" where it is smaller."""
    if not math.isfinite(theirs):
        return "-"
    return f"{theirs / ours:.2f}" + (" (lost)" if theirs < ours else "")


def equal_table(
    title: str, ours: list[Point], others: dict[str, list[Point]], measure: str
) -> Table:
    """Return the bytes of every codec at the quality of ours, relative to ours."""
    rows = []
    for point in ours:
        ratios = [
            ratio_text(bytes_at(points, getattr(point, measure), measure), point.size)
            for points in others.values()
        ]
        rows.append(
            (point.what, point.size, f"{point.per_gaussian:.2f}", f"{point.ratio:.1f}",
             f"{point.loss:.2f}", f"{point.psnr:.2f}", f"{point.ssim:.3f}",
             f"{point.fit_seconds:.1f}", f"{point.seconds:.1f}", *ratios)
        )  # fmt: skip
    columns = ("fit, profile", "bytes", "bytes a Gaussian", "times smaller", "dB lost", "PSNR",
               "SSIM", "fit, CPU s", "CPU s", *others)  # fmt: skip
    return Table(title, columns, tuple(rows))


def noise_rows(name: str, volume: Volume, sigma: float, context: Context) -> list[tuple[str, ...]]:
    """Return the PSNR to the noise-free crop at equal bytes, of codecs that see the noisy one."""
    from napari_medgs.compression import CompressParams, compress
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.fitting.problem import scale_intensities
    from napari_medgs.rendering import render

    start = [max(0, (n - c) // 2) for n, c in zip(volume.data.shape[1:], CROP, strict=True)]
    box = tuple(slice(s, s + c) for s, c in zip(start, CROP, strict=True))
    clean = scale_intensities(volume.data[(0, *box)].astype(np.float32), (0.5, 99.5))[0]
    rng = np.random.default_rng(context.seed)
    noisy = (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)
    seen = Volume.from_array(noisy)
    counts = (1500,) if context.quick else (1500, 3000, 6000)
    others: dict[str, list[Point]] = {}
    rows = []
    for count in counts:
        field = fit(seen, FitParams(gaussians=count, threads=context.threads, slice_axis=0)).field
        steps = 10 if context.quick else 60
        made = compress(field, CompressParams(iterations=steps, threads=context.threads), seen)
        scale, low = field.info.intensity_scale[0], field.info.intensity_offset[0]
        truth = np.clip((clean - low) / scale, 0, 1).astype(np.float32)
        if not others:  # the span is that of the noisy image, for every number of Gaussians
            clipped = np.clip((noisy - low) / scale, 0, 1).astype(np.float32)
            others = codec_points(clipped, context, truth)
        shown = (render(made.field, threads=context.threads)[0] - low) / scale
        size = len(made.data)
        cells = [_psnr_at(points, size) for points in others.values()]
        texts = [f"{cell:.2f}" if math.isfinite(cell) else "-" for cell in cells]
        row = (f"{name}, sigma {sigma:g}", f"{size:,}", f"{scores(truth, shown)[0]:.2f}", *texts)
        rows.append(row)
    best = [max(p.psnr for p in points) for points in others.values()]
    rows.append((f"{name}, sigma {sigma:g}", "any", "", *(f"{b:.2f}" for b in best)))
    return [("", "", "", *others), *rows]


def _psnr_at(points: Sequence[Point], size: int) -> float:
    """Return a codec's PSNR at a number of bytes, NaN outside of its points."""
    known = sorted((p.size, p.psnr) for p in points)
    sizes = np.array([s for s, _ in known], float)
    if not sizes[0] <= size <= sizes[-1]:
        return math.nan
    return float(np.interp(math.log(size), np.log(sizes), [p for _, p in known]))


def run(context: Context) -> CaseResult:
    """Compare compressed fields with image codecs."""
    from napari_medgs.io import read_volume

    tables: list[Table] = []
    ratios: list[Ratio] = []
    curves: dict[str, Any] = {}
    names = list(IMAGES)[-1:] if context.quick else list(IMAGES)
    for name in names:
        context.say(f"compression: {name}")
        volume = read_volume(context.file(IMAGES[name]))
        ours, field = field_points(volume, context)
        others = codec_points(scaled(field, volume), context)
        for measure, title in (("psnr", "PSNR"), ("ssim", "SSIM")):
            heading = f"{name}: bytes of the codec / bytes of the field at equal {title}"
            tables.append(equal_table(heading, ours, others, measure))
        main = next((p for p in ours if p.what == "36 dB, small"), ours[0])
        for codec, points in others.items():
            theirs = bytes_at(points, main.psnr)
            if math.isfinite(theirs):
                what = f"{name}: bytes at {main.psnr:.1f} dB"
                ratios.append(Ratio(what, codec, main.size, theirs))
        curves[name] = {
            "compressed field": [(p.size, p.psnr) for p in ours if p.what.endswith("small")],
            **{codec: [(p.size, p.psnr) for p in points] for codec, points in others.items()},
        }
    rows: list[tuple[str, ...]] = []
    head: tuple[str, ...] = ()
    for name in NOISY[:1] if context.quick else NOISY:
        volume = read_volume(context.file(IMAGES[name]))
        for sigma in NOISE[:1] if context.quick else NOISE:
            context.say(f"compression: {name} with noise")
            head, *more = noise_rows(name, volume, sigma, context)
            rows += more
    columns = ("image, noise added", "bytes", "field", *head[3:])
    context.say("compression: fields in use")
    uses = list(USES)[-1:] if context.quick else list(USES)
    tables.append(use_table([use_row(name, context) for name in uses]))
    tables.append(Table("PSNR to the image without noise, at equal bytes", columns, tuple(rows)))
    notes = [
        "Ratios above 1: the field is smaller. The bytes of a codec at the quality of the field "
        "lie log-linearly between its settings; '-' is outside of them. 'dB lost' is against the "
        "fit, and negative where fine-tuning goes further than a fit that ends when its quality "
        "is met. CPU seconds are those of the compression: 180 steps of fine-tuning in small, 60 "
        "in faithful, up to 540 for a largest loss.",
        "In use: five sets of strokes on 3 slices, the mean Dice against the mask; 'another fit' "
        "is the exact field of another seed, to show what chance does. Classes of the field are "
        "scored against the mask that was fitted; distances are those of the vertices of either "
        "mesh to the other's surface.",
        "Codecs get the image as the fit does (0.5 to 99.5 percentile span, clipped): JPEG 2000 "
        "(OpenJPEG) as one tall image of 8 bits, JPEG XL a picture a slice, ZFP, SZ3 and SPERR in "
        "3D, HEVC (x265 slow) and AV1 (SVT preset 6) as a 10-bit video.",
    ]
    return CaseResult(
        "compression",
        "compressed fields against image codecs",
        ratios=ratios,
        tables=tables,
        notes=notes,
        numbers={"curves": curves},
    )
