"""How noisy a scaled image is, which says how much its classes weigh against it."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Floats

SAMPLE = 2_000_000  # voxels of an image looked at
APART = np.float32(0.02)  # from the background's intensity: what holds something
TO_SIGMA = 1.4826  # from the median of absolute values to a standard deviation
LEAST = 100  # values that a median is taken of


def noise_variance(image: Floats, background: float) -> float:
    """Return the variance of the noise of an image, 0 where there is too little to tell.

    From second differences along rows and along columns, the smaller of both: edges are few,
    and what changes slowly leaves none. Texture of single voxels counts as noise.

    Parameters
    ----------
    image : (Z, Y, X) ndarray of float32
        Scaled to [0, 1].
    background : float
        Its most common intensity: voxels of about that intensity, and clipped ones, are no part.
    """
    step = max(1, round(image.size / SAMPLE))
    some = image[step // 2 :: step] if step < len(image) else image[len(image) // 2 :][:1]
    found = []
    for axis in (1, 2):
        lines = np.moveaxis(some, axis, 2)
        if lines.shape[2] < 4:
            continue
        inside = (lines > 0) & (lines < 1)
        # Whether it counts is asked of the next voxel, whose noise has no part in the difference.
        counts = inside[..., 1:-2] & (np.abs(lines[..., 3:] - np.float32(background)) > APART)
        bend = np.abs(np.diff(lines[..., :-1], 2, axis=2)[counts])
        if len(bend) >= LEAST:
            # White noise of variance v has second differences of variance (1 + 4 + 1) v.
            found.append((TO_SIGMA * float(np.median(bend))) ** 2 / 6)
    return min(found, default=0.0)
