"""The process that :func:`~suite.isolated.run_isolated` starts.

Reads one JSON task from standard input, writes one JSON line to standard output.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from suite.isolated import peak_bytes

LARGE = (300, 512, 512)


def synthetic_volume(shape: tuple[int, int, int], seed: int = 0) -> Volume:
    """Make a CT-like volume slice by slice: an ellipse of tissue with organs, int16.

    Made without temporaries of the volume's size, so that a peak of memory is the fit's.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    data = np.empty((1, *shape), np.int16)
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1)[None]
    organs = [
        (*rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 1), *rng.uniform(0.08, 0.25, 3))
        for _ in range(24)
    ]
    levels = rng.uniform(-80, 220, len(organs))
    for z in range(depth):
        w = z / max(depth - 1, 1)
        picture = np.full((height, width), -1000, np.float32)
        picture[(x / 0.85) ** 2 + (y / 0.65) ** 2 < 1 - 0.3 * (w - 0.5) ** 2] = 20
        for (cx, cy, cz, rx, ry, rz), level in zip(organs, levels):
            room = 1 - ((w - cz) / rz) ** 2
            if room > 0:
                bent = cx + 0.1 * np.sin(4 * w)
                picture[((x - bent) / rx) ** 2 + ((y - cy) / ry) ** 2 < room] = level
        picture += rng.standard_normal(picture.shape, dtype=np.float32) * 8
        data[0, z] = picture
    return Volume.from_array(data, spacing=(1.0, 0.8, 0.8))


def resampled(volume: Volume, shape: tuple[int, int, int]) -> Volume:
    """Return a volume of another shape over the same field of view, by linear interpolation."""
    from scipy.ndimage import zoom

    if tuple(volume.grid.shape) == tuple(shape):
        return volume
    factors = [new / old for new, old in zip(shape, volume.grid.shape)]
    data = np.stack([zoom(c.astype(np.float32), factors, order=1) for c in volume.data])
    spacing = tuple(s / f for s, f in zip(volume.grid.spacing, factors))
    return Volume.from_array(data, spacing=spacing)


def _warm(channels: int, classes: int, threads: int | None) -> None:
    """Load the kernels for these channel counts with a tiny fit."""
    from napari_medgs.fitting import FitParams, fit

    rng = np.random.default_rng(0)
    data = rng.random((channels, 12, 16, 16), dtype=np.float32)
    mask = rng.integers(0, classes, (12, 16, 16)) if classes else None
    if mask is not None:
        mask.reshape(-1)[:classes] = np.arange(classes)
    params = FitParams(gaussians=50, iterations=3, threads=threads)
    fit(Volume.from_array(data), params, mask)


def run_fit(task: dict[str, Any]) -> dict[str, Any]:
    """Fit as told and report.

    Parameters
    ----------
    task : dict
        ``images`` (paths) or ``synthetic`` (shape); optional ``mask`` (path), ``shape`` (resample
        to it) and ``params`` (of :class:`~napari_medgs.fitting.FitParams`).

    Returns
    -------
    dict
        seconds and seconds_fit (without measuring the quality), peak_bytes of the process,
        bytes_before (resident peak before the fit), voxels, channels, metrics.
    """
    from napari_medgs.fitting import FitParams, fit

    mask: NDArray[Any] | None = None
    if "synthetic" in task:
        volume = synthetic_volume(tuple(task["synthetic"]))
    else:
        from napari_medgs.io import read_labels, read_volumes

        volume = read_volumes([Path(p) for p in task["images"]])
        if "mask" in task:
            mask, _ = read_labels(Path(task["mask"]), like=volume.grid)
    if "shape" in task:
        volume = resampled(volume, tuple(task["shape"]))
    params = FitParams(**task.get("params", {}))
    classes = 0 if mask is None else len(np.unique(mask[mask >= 0]))
    _warm(len(volume.data), classes, params.threads)
    before = peak_bytes()
    start = time.perf_counter()
    result = fit(volume, params, mask)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "seconds_fit": result.metrics["seconds_fit"],
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "voxels": int(np.prod(volume.grid.shape)),
        "channels": len(volume.data) + classes,
        "metrics": result.metrics,
    }


def main() -> None:
    """Answer one task."""
    task = json.loads(sys.stdin.read())
    print(json.dumps(run_fit(task)))


if __name__ == "__main__":
    main()
