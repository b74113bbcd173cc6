"""Closed surfaces at a level of sampled values, or around a given volume."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.data.grid import Grid
from napari_medgs.meshing.signed_distance import shifted
from napari_medgs.meshing.surface import Surface, close_border, march, volume_and_area

_TOLERANCE = 2e-3  # of the volume
_MOST_HALVINGS = 24


def march_closed(values: Floats, grid: Grid) -> Surface:
    """Return the closed surface around the positive values."""
    return march(close_border(values), shifted(grid, (-1, -1, -1), grid.shape).affine)


def surface_with_volume(values: Floats, grid: Grid, volume: float) -> Surface:
    """Return the level surface that encloses a volume, values being about distances in mm."""
    inside = min(max(round(volume / grid.voxel_volume), 1), values.size - 1)
    ranks = [values.size - inside - 1, values.size - inside]
    level = float(np.partition(values, ranks, axis=None)[ranks].mean())
    highest = float(values.max())
    best: tuple[float, Surface] = (np.inf, march(values[:1, :1, :1] * 0, grid.affine))
    slope, previous = 1.0, None
    # Levels around too much and around too little: the volume falls as the level rises.
    wide, narrow = float(values.min()), highest
    for _ in range(5):
        surface = march_closed(values - np.float32(level), grid)
        enclosed, area = volume_and_area(*surface)
        error = enclosed - volume
        if error > 0:
            wide = max(wide, level)
        else:
            narrow = min(narrow, level)
        if abs(error) < best[0] and len(surface[1]):
            best = abs(error), surface
        if abs(error) <= _TOLERANCE * volume or not area:
            break
        if previous is not None and level != previous[0]:
            # How fast the values really rise across the surface: below 1 where it is thin.
            moved = (previous[1] - enclosed) / area
            slope = float(np.clip((level - previous[0]) / moved if moved else 1.0, 0.05, 5.0))
        previous = level, enclosed
        level = min(level + slope * error / area, 0.5 * (level + highest))
    for _ in range(_MOST_HALVINGS):
        # Around a few voxels the distances are too far from linear for the steps above.
        if best[0] <= _TOLERANCE * volume:
            break
        level = 0.5 * (wide + narrow)
        surface = march_closed(values - np.float32(level), grid)
        error = volume_and_area(*surface)[0] - volume
        if abs(error) < best[0] and len(surface[1]):
            best = abs(error), surface
        if error > 0:
            wide = level
        else:
            narrow = level
    return best[1]
