"""Quality by the bytes of what is kept: fields of several sizes against coarser grids."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs._typing import Floats
from suite.fit_bars import Bar
from suite.fit_baselines import psnr_of
from suite.registry import Context
from suite.results import Table

COUNTS, QUICK_COUNTS = (2_000, 4_000, 8_000, 16_000, 32_000), (500, 1_000)
FACTORS, QUICK_FACTORS = (1.5, 2.0, 2.5, 3.0, 4.0), (2.0,)


def coarse_copy(image: Floats, factor: float) -> tuple[int, Floats]:
    """Keep (Z, Y, X) on a grid ``factor`` times coarser; return its bytes and it, brought back."""
    from scipy.ndimage import gaussian_filter, zoom

    size = [max(2, round(n / factor)) for n in image.shape]
    smooth = gaussian_filter(image, 0.4 * np.sqrt(factor**2 - 1))
    small = zoom(smooth, [s / n for s, n in zip(size, image.shape)], order=1)
    back = zoom(small, [n / s for s, n in zip(small.shape, image.shape)], order=3)
    return small.size * 4, np.clip(back, 0, 1)


def measure_bytes(head: Bar, context: Context) -> dict[str, list[tuple[int, float]]]:
    """Return (bytes, PSNR in dB) of fields and of coarser grids of one image."""
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.fitting.problem import make_problem

    volume, _ = head.load(context)
    common: dict[str, Any] = {"threads": context.threads, "seed": context.seed}
    fields = []
    for count in QUICK_COUNTS if context.quick else COUNTS:
        metrics = fit(volume, FitParams(gaussians=count, **common)).metrics
        fields.append((int(metrics["bytes"]), float(metrics["psnr"])))
        context.say(f"  {count:,} Gaussians: {metrics['psnr']:.2f} dB")
    problem = make_problem(volume, FitParams(**common), None, {})
    image = problem.target.images[0]
    grids = []
    for factor in QUICK_FACTORS if context.quick else FACTORS:
        size, back = coarse_copy(image, factor)
        error = float(np.sum((back - image) ** 2, dtype=np.float64))
        grids.append((size, psnr_of(problem, error)))
    return {"Gaussian field": fields, "coarser grid": grids}


def bytes_table(name: str, curves: dict[str, list[tuple[int, float]]]) -> Table:
    """Return the points as a table."""
    rows = tuple(
        (what, size, f"{psnr:.2f}") for what, points in curves.items() for size, psnr in points
    )
    return Table(f"{name}: quality by bytes", ("kept as", "bytes", "dB"), rows)
