"""Names of array types that all packages use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubles", "Floats", "Indices", "Labels"]

Floats = NDArray[np.float32]
"""Images, rendered values and tables of Gaussians."""

Doubles = NDArray[np.float64]
"""Coordinates, affines and sums that need the precision."""

Indices = NDArray[np.int64]
"""Row numbers and voxel indices."""

Labels = NDArray[np.int32]
"""Label images in the values of their masks."""
