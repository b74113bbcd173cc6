"""What ``info`` says of a grid: sizes and directions along the file's own axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known, is_usable
from napari_medgs.data.stored_axes import stored_axes, stored_shape

SPACES = {0: "not set", 1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI 152", 5: "template"}
_TILT = 1e-3  # of a step that goes along another axis, too


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Return what matters of a grid: sizes along the stored axes, and how these lie.

    ``shape``, ``spacing_mm``, ``extent_mm`` and ``affine`` are those of the canonical grid, whose
    z, y, x run to superior, posterior and left; what is ``stored_...`` is in the order z, y, x of
    the file, in which places are given on the command line.
    """
    order, _ = stored_axes(grid)
    stored = np.argsort(order)
    spacing = np.asarray(grid.spacing)
    source = grid.source
    record: dict[str, Any] = {
        "stored_shape": list(stored_shape(grid)),
        "stored_spacing_mm": spacing[stored].tolist(),
        "stored_extent_mm": (np.asarray(stored_shape(grid)) * spacing[stored]).tolist(),
        "stored_axes": _directions(grid),
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing),
        "extent_mm": [n * s for n, s in zip(grid.shape, grid.spacing)],
        "affine": grid.affine.tolist(),
    }
    if is_usable(np.asarray(source.get("affine", 0.0), dtype=np.float64)):
        from nibabel.orientations import aff2axcodes

        record["file_orientation"] = "".join(aff2axcodes(np.asarray(source["affine"])))
    if is_orientation_known(grid):
        ends = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in grid.shape)), -1).reshape(-1, 3)
        corners = grid.to_world(ends)
        spans = zip(corners.min(axis=0).tolist(), corners.max(axis=0).tolist())
        record["world_mm"] = {axis: list(span) for axis, span in zip("RAS", spans)}
    header = source.get("header")
    if isinstance(header, dict) and "sform_code" in header:
        for form in ("sform", "qform"):
            code = header.get(f"{form}_code", 0)
            record[form] = f"{code} ({SPACES.get(code, 'unknown space')})"
    if isinstance(source.get("qform_apart_mm"), float):
        record["qform_apart_from_sform_mm"] = source["qform_apart_mm"]
    return record


def _directions(grid: Grid) -> dict[str, str]:
    """Return where the stored axes run to, such as ``{"z": "superior", ...}``."""
    order, flip = stored_axes(grid)
    if not is_orientation_known(grid):
        return {}
    ends = (("superior", "inferior"), ("posterior", "anterior"), ("left", "right"))
    found = ["", "", ""]
    for axis, (stored, flipped) in enumerate(zip(order, flip)):
        found[stored] = ends[axis][int(flipped)]
    steps = np.abs(grid.affine[:3, :3])
    tilted = (steps / steps.max(axis=0) > _TILT).sum(axis=0) > 1
    for axis, stored in enumerate(order):
        if tilted[axis]:
            found[stored] = f"about {found[stored]}"
    return dict(zip("zyx", found))
