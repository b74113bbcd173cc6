"""Values between voxels, for compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


# Inlined as source: the caller's rules of rounding count, not those of a function of its own.
@njit(inline="always")
def trilinear(volume: Any, z: Any, y: Any, x: Any) -> Any:
    """Interpolate linearly between voxels; outside, the nearest voxel counts.

    Parameters
    ----------
    volume : (Z, Y, X) ndarray
    z, y, x : float
        In voxels.

    Returns
    -------
    float32
        For a volume of float32 or of 16-bit integers.
    """
    depth, height, width = volume.shape
    one = np.float32(1)
    z = min(max(z, np.float32(0)), np.float32(depth - 1))
    y = min(max(y, np.float32(0)), np.float32(height - 1))
    x = min(max(x, np.float32(0)), np.float32(width - 1))
    z0, y0, x0 = int(z), int(y), int(x)
    z1, y1, x1 = min(z0 + 1, depth - 1), min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fz, fy, fx = np.float32(z - z0), np.float32(y - y0), np.float32(x - x0)
    near = (one - fy) * ((one - fx) * volume[z0, y0, x0] + fx * volume[z0, y0, x1])
    near += fy * ((one - fx) * volume[z0, y1, x0] + fx * volume[z0, y1, x1])
    far = (one - fy) * ((one - fx) * volume[z1, y0, x0] + fx * volume[z1, y0, x1])
    far += fy * ((one - fx) * volume[z1, y1, x0] + fx * volume[z1, y1, x1])
    return (one - fz) * near + fz * far
