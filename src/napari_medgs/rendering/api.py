"""Rendering of fields on their own or another grid, as label image, and at points."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.intensities import from_unit
from napari_medgs.errors import ParameterError
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.registry import make_engine

View = Literal["image", "seg", "probability"]
MANY_CLASSES = 20  # with more, labels are rendered without a volume of logits for each class


def render(
    field: GaussianField,
    head: View = "image",
    *,
    grid: Grid | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Floats:
    """Render one head of a field on a grid.

    Parameters
    ----------
    field : GaussianField
    head : {"image", "seg", "probability"}
        The image in its original units, the class logits, or their softmax.
    grid : Grid, optional
        Where to render; the field's own grid by default. Any position and orientation.
    backend : str
        See :func:`~napari_medgs.rendering.backends`.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (C, Z, Y, X) ndarray of float32

    Raises
    ------
    ParameterError
        When the field has no such head.
    BackendError
        When the backend cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=20)).field
    >>> mg.render(field).shape
    (1, 1, 16, 16)
    >>> finer = volume.grid.with_spacing((1.0, 0.5, 0.5))
    >>> mg.render(field, grid=finer).shape
    (1, 1, 32, 32)
    """
    field = only_head(field, head)
    if grid is not None and not grid.matches(field.info.grid, 1e-6):
        try:
            field = field.on_grid(grid)
        except ParameterError:
            return _finish(_render_oblique(field, grid, threads), field, head)
    stack = render_stack(field, backend=backend, threads=threads)
    return _finish(np.moveaxis(stack, 1, field.info.slice_axis + 1), field, head)


def render_labels(
    field: GaussianField,
    *,
    grid: Grid | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> NDArray[np.integer[Any]]:
    """Render the most probable label of every voxel.

    Parameters
    ----------
    field : GaussianField
        One that was fitted with a mask.
    grid : Grid, optional
        Where to render; the field's own grid by default.
    backend : str
        See :func:`~napari_medgs.rendering.backends`.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (Z, Y, X) ndarray of int32
        In the mask's own values; int64 where one is too large for int32.

    Raises
    ------
    ParameterError
        When the field has no classes.
    BackendError
        When the backend cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> mask = np.zeros((1, 16, 16), np.uint8)
    >>> mask[0, 4:12, 4:12] = 7
    >>> volume = mg.Volume.from_array(100.0 * mask)
    >>> params = mg.FitParams(gaussians=60, iterations=40, slice_axis=0)
    >>> field = mg.fit(volume, params, mask).field
    >>> int(mg.render_labels(field)[0, 8, 8])
    7
    """
    values = np.asarray(field.info.label_values, np.int64)
    if np.abs(values).max(initial=0) <= np.iinfo(np.int32).max:
        values = values.astype(np.int32)
    if MANY_CLASSES < len(values) <= 255 and _renders_on_cpu(field, backend):
        from napari_medgs.rendering.cpu.labels import label_stack

        try:
            placed = field if grid is None else field.on_grid(grid)
        except ParameterError:
            pass  # axes that are not the field's: at points, below
        else:
            stack = label_stack(placed, threads)
            return values[np.moveaxis(stack, 0, field.info.slice_axis)]
    logits = render(field, "seg", grid=grid, backend=backend, threads=threads)
    labels: NDArray[Any] = values[logits.argmax(axis=0)]
    return labels


def _renders_on_cpu(field: GaussianField, backend: str) -> bool:
    from napari_medgs.rendering.registry import choose_engine

    blend = field.info.blend
    return blend != "alpha" and choose_engine(backend, blend)[0] == "cpu"


def render_stack(
    field: GaussianField,
    *,
    slices: NDArray[Any] | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Floats:
    """Render all channels on the slice-first grid, image values still scaled to [0, 1].

    Parameters
    ----------
    field : GaussianField
    slices : (S,) ndarray of int, optional
        Increasing indices along the slice axis; all by default.
    backend : str
        See :func:`~napari_medgs.rendering.backends`.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (C, S, Y, X) ndarray of float32
        Image channels, then class logits; the slice axis comes first of the three.

    Raises
    ------
    BackendError
        When the backend cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.rendering import render_stack
    >>> volume = mg.Volume.from_array(np.random.default_rng(0).random((6, 8, 9), np.float32))
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> render_stack(field, slices=np.array([0, 3])).shape
    (1, 2, 8, 9)
    """
    from napari_medgs.rendering.parameters import to_parameters

    engine = make_engine(EngineSpec.of_field(field, threads), backend)
    rendered: Floats = engine.render(to_parameters(field), slices)
    return rendered


def render_points(
    field: GaussianField,
    points: NDArray[Any],
    head: View = "image",
    *,
    threads: int | None = None,
) -> Floats:
    """Render one head at points.

    Parameters
    ----------
    field : GaussianField
    points : (P, 3) ndarray
        (z, y, x) in voxels of the field's canonical grid, fractions included.
    head : {"image", "seg", "probability"}
        The image in its original units, the class logits, or their softmax.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (P, C) ndarray of float32

    Raises
    ------
    ParameterError
        When the points have another shape, or the field has no such head.
    BackendError
        For the alpha blend, which is defined on whole slices.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.rendering import render_points
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=20)).field
    >>> render_points(field, np.array([[0.0, 3.5, 3.5], [0.0, 2.0, 12.0]])).shape
    (2, 1)
    """
    from napari_medgs.rendering.cpu.points import render_at_points

    points = np.asarray(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ParameterError(f"Points must have shape (P, 3), not {points.shape}.")
    field = only_head(field, head)
    stacked = points[:, list(field.info.stack_axes)]
    values = render_at_points(field, stacked, threads)
    return _finish(values.T, field, head).T


def only_head(field: GaussianField, head: View) -> GaussianField:
    """Return the field with the channels of one head alone."""
    info = field.info
    if head not in ("image", "seg", "probability"):
        raise ParameterError(f"Unknown head {head!r}; choose image, seg or probability.")
    if head == "image":
        if not info.image_channels:
            raise ParameterError("The field has no image head.")
        kept, changes = field.head_channels("image"), {"class_names": (), "label_values": ()}
    else:
        if not info.class_names:
            raise ParameterError("The field has no seg head: fit it with a mask first.")
        kept = field.head_channels("seg")
        changes = {"image_channels": (), "intensity_scale": (), "intensity_offset": ()}
    arrays = {name: getattr(field, name) for name in field.tensor_names()}
    arrays["values"] = field.values[:, kept]
    arrays["background"] = field.background[kept]
    from dataclasses import replace

    return GaussianField(**arrays, info=replace(info, **changes))  # type: ignore[arg-type]


def _render_oblique(field: GaussianField, grid: Grid, threads: int | None) -> Floats:
    """Render on a grid whose axes are not the field's, slab by slab, at points."""
    from napari_medgs.rendering.cpu.points import render_at_points

    depth, height, width = grid.shape
    out = np.empty((field.info.channels, depth, height, width), np.float32)
    plane = np.moveaxis(np.indices((1, height, width)), 0, -1).reshape(-1, 3).astype(np.float64)
    axes = list(field.info.stack_axes)
    for z in range(depth):
        plane[:, 0] = z
        voxels = field.info.grid.to_voxel(grid.to_world(plane))
        values = render_at_points(field, voxels[:, axes].astype(np.float32), threads)
        out[:, z] = values.T.reshape(-1, height, width)
    return out


def _finish(values: Floats, field: GaussianField, head: View) -> Floats:
    """Turn channels-first values into what the head promises: units or probabilities."""
    info = field.info
    if head == "image":
        for c, (scale, offset) in enumerate(
            zip(info.intensity_scale, info.intensity_offset, strict=True)
        ):
            from_unit(values[c], scale, offset)
    elif head == "probability":
        values -= values.max(axis=0)
        np.exp(values, out=values)
        values /= values.sum(axis=0)
    return np.ascontiguousarray(values)
