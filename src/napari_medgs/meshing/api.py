"""Surfaces of labels, of a field's classes and of intensities, in RAS millimeters.

Masks become signed distances in mm before marching cubes, so that thick slices give slopes and
not terraces. ``smooth_mm`` smooths these distances; the level is then chosen such that the
surface encloses the volume of the voxels. Measured on spheres, this leaves a third of the normal
error of Taubin smoothing at equal detail, and the surface cannot intersect itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, ImageError, LabelError, ParameterError
from napari_medgs.meshing.class_margins import class_margins, cut_slabs
from napari_medgs.meshing.largest import keep_largest, keep_largest_positive, largest_part
from napari_medgs.meshing.level_surface import march_closed, surface_with_volume
from napari_medgs.meshing.params import MeshParams
from napari_medgs.meshing.signed_distance import (
    check_size,
    covering,
    resampled,
    signed_distance,
    smoothed,
    smoothing_margin,
)
from napari_medgs.meshing.surface import Surface, closed_mesh, decimate_mesh, volume_and_area
from napari_medgs.metrics.volumes import label_boxes, voxel_counts

if TYPE_CHECKING:
    from trimesh import Trimesh

    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume

ISO_LABEL = 1
_DEFAULT_SMOOTHING = 0.7  # of the median spacing: removes the voxel steps and little else


def mesh(
    source: GaussianField | Volume | NDArray[Any],
    grid: Grid | None = None,
    params: MeshParams | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> dict[int, Trimesh]:
    """Return closed surfaces of a field, a label image or an image, in RAS mm.

    Parameters
    ----------
    source : GaussianField, Volume or (Z, Y, X) ndarray
        A field, whose classes become surfaces at any resolution; a label image of integers; or
        an image, whose isosurface at ``params.level`` is returned.
    grid : Grid, optional
        Of an array; fields and volumes have their own.
    params : MeshParams, optional
    backend, threads : str and int, optional
        How fields are rendered.

    Returns
    -------
    dict of int to Trimesh
        One mesh per label, with outward normals; label 1 for an image.

    Raises
    ------
    GeometryError
        When an array comes without its grid, or shapes differ.
    LabelError, ParameterError, ImageError
        As the functions for each kind of source.

    See Also
    --------
    mesh_from_field, mesh_from_labels, mesh_from_image
    napari_medgs.io.meshes.save_meshes : writes the result.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> from napari_medgs.meshing import mesh
    >>> labels = np.zeros((8, 8, 8), np.uint8)
    >>> labels[2:6, 2:6, 2:6] = 1
    >>> round(mesh(labels, Grid((8, 8, 8), np.diag([2.0, 1.0, 1.0, 1.0])))[1].volume)
    128
    """
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume

    params = params or MeshParams()
    if isinstance(source, GaussianField):
        return mesh_from_field(source, params, backend=backend, threads=threads)
    if isinstance(source, Volume):
        return mesh_from_image(source.channel(params.channel), source.grid, params)
    if grid is None:
        raise GeometryError("An array needs the grid of its voxels: pass grid as well.")
    array = np.asarray(source)
    if params.level is None and (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        return mesh_from_labels(array, grid, params)
    return mesh_from_image(array, grid, params)


def mesh_from_labels(
    labels: NDArray[Any], grid: Grid, params: MeshParams | None = None
) -> dict[int, Trimesh]:
    """Return one closed surface, in RAS mm with outward normals, for every label.

    Parameters
    ----------
    labels : (Z, Y, X) integer or boolean ndarray
    grid : Grid
        Any affine: oblique, flipped, anisotropic, permuted.
    params : MeshParams, optional
        ``level`` and ``head`` must be left at their defaults.

    Returns
    -------
    dict of int to Trimesh
        By label value, with ``metadata["label"]``.

    Raises
    ------
    LabelError
        When labels are not integers, or a wanted label has no voxel.
    GeometryError
        When shapes differ.
    ParameterError
        When a setting of fields is given.

    Notes
    -----
    Each volume is that of the label's voxels within 0.2 % (2 % of a few voxels), unless a coarse
    ``spacing`` or a wide ``smooth_mm`` loses thin parts. Neighboring labels are smoothed
    independently: their surfaces meet within a fraction of a voxel. Marching cubes of [1]_.

    References
    ----------
    .. [1] Lewiner et al., "Efficient implementation of marching cubes' cases with topological
       guarantees", J. Graph. Tools 8, 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> labels = np.zeros((8, 8, 8), int)
    >>> labels[2:6, 2:6, 2:6] = 3
    >>> surface = mesh_from_labels(labels, Grid((8, 8, 8)))[3]
    >>> surface.is_watertight, round(surface.volume)
    (True, 64)
    """
    params = params or MeshParams()
    if params.level is not None or params.head is not None:
        raise ParameterError("level and head are settings of fields: leave them out for a mask.")
    labels = np.asarray(labels)
    if labels.shape != grid.shape:
        raise GeometryError(f"The labels have shape {labels.shape}, their grid {grid.shape}.")
    params.check_extent(grid)
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    counts = voxel_counts(labels)
    present = [v for v in counts if v > 0]
    if not present and min(counts) < 0:
        raise LabelError("The mask has only negative labels: surfaces are made of those above 0.")
    wanted = _choose_labels(params, present, "The mask")
    sigma = params.smooth_mm
    if sigma is None:
        sigma = _DEFAULT_SMOOTHING * sorted(grid.spacing)[1]
    boxes = label_boxes(labels, wanted)
    meshes = {}
    for value in wanted:
        inside, count = labels[boxes[value]] == value, counts[value]
        if params.largest_only:
            inside = largest_part(inside)
            count = int(np.count_nonzero(inside))
        distance, part = signed_distance(inside, boxes[value], grid, sigma, params.spacing)
        if params.spacing is not None:
            distance, part = resampled(distance, part, covering(part, params.spacing))
        volume = count * grid.voxel_volume
        meshes[value] = _finish(surface_with_volume(distance, part, volume), params, value)
    return meshes


def mesh_from_field(
    field: GaussianField,
    params: MeshParams | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> dict[int, Trimesh]:
    """Return closed surfaces of a field's classes, or of its image at an intensity.

    Parameters
    ----------
    field : GaussianField
    params : MeshParams, optional
    backend : str
        Renderer, see :func:`~napari_medgs.rendering.backends`.
    threads : int, optional
        CPU threads of the renderer.

    Returns
    -------
    dict of int to Trimesh
        By label value, as in the mask that the field was fitted to; label 1 for an image.
        Without ``params.labels``, classes that are nowhere the most probable are omitted.

    Raises
    ------
    LabelError
        When a wanted label is no class of the field, or nowhere the most probable.
    ParameterError
        When the head is missing, or an image's level.
    ImageError
        When no intensity is above the level.

    See Also
    --------
    mesh : takes fields, masks and images alike, with an example.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> from napari_medgs.meshing import MeshParams, mesh_from_field
    >>> head = mg.make_phantom(spacing=8.0)
    >>> volume = mg.Volume(head.image[None], head.grid)
    >>> params = mg.FitParams(gaussians=400, iterations=20)
    >>> field = mg.fit(volume, params, head.labels).field
    >>> mesh_from_field(field, MeshParams(labels=(5,)))[5].is_watertight
    True
    """
    from napari_medgs.rendering import render

    params = params or MeshParams()
    info = field.info
    params.check_extent(info.grid)
    grid = params.grid_over(info.grid)
    check_size(grid, 4)
    head = params.head or ("seg" if info.class_names else "image")
    if head == "image":
        _check_level(params)
        if params.channel >= len(info.image_channels):
            raise ParameterError(
                f"The field has {len(info.image_channels)} image channels, none numbered "
                f"{params.channel}."
            )
        image = render(field, "image", grid=grid, backend=backend, threads=threads)
        return mesh_from_image(image[params.channel], grid, replace(params, spacing=None))
    if not info.class_names:
        raise ParameterError("The field has no classes: fit it with a mask, or give a level.")
    level = 0.5 if params.level is None else params.level
    if not 0 < level < 1:
        raise ParameterError(
            f"The level of a class is a probability between 0 and 1: not {level}."
        )
    wanted = _choose_labels(params, [v for v in info.label_values if v != 0], "The field")

    def slabs() -> Iterator[tuple[int, Floats]]:
        # Rendered twice rather than held: the logits of many classes would not fit.
        for start, slab in cut_slabs(grid, len(info.class_names)):
            yield start, render(field, "seg", grid=slab, backend=backend, threads=threads)

    index = [info.label_values.index(v) for v in wanted]
    margins = class_margins(
        slabs,
        grid,
        index,
        float(np.log(level / (1 - level))),
        smoothing_margin(params.smooth_mm or 0.0, grid),
    )
    meshes = {}
    for value, found in zip(wanted, margins, strict=True):
        if found is None:
            if params.labels is None:
                continue
            raise LabelError(
                f"Label {value} is nowhere in the field: there is no surface to make."
            )
        margin, part = found
        if params.largest_only:
            keep_largest_positive(margin)
        surface = march_closed(margin, part)
        if params.smooth_mm:
            # Bounded first: logits far from the surface say nothing about where it is.
            bounded = smoothed(np.tanh(0.5 * margin), part, params.smooth_mm)
            surface = surface_with_volume(bounded, part, volume_and_area(*surface)[0])
        meshes[value] = _finish(surface, params, value)
    if not meshes:
        raise LabelError("The field is background everywhere: there is no surface to make.")
    return meshes


def mesh_from_image(image: NDArray[Any], grid: Grid, params: MeshParams) -> dict[int, Trimesh]:
    """Return the closed isosurface around all intensities above ``params.level``, as label 1.

    Parameters
    ----------
    image : (Z, Y, X) ndarray
        Finite, in the units of the level.
    grid : Grid
    params : MeshParams
        ``level`` is required; ``smooth_mm`` smooths the image.

    Returns
    -------
    dict of int to Trimesh
        One mesh, as label 1.

    Raises
    ------
    ParameterError
        When the level is missing.
    ImageError
        When the image is not finite, or not above the level anywhere.
    GeometryError
        When shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> z, y, x = np.mgrid[:9, :9, :9] - 4.0
    >>> ball = 3.0 - np.sqrt(z**2 + y**2 + x**2)
    >>> mesh_from_image(ball, Grid((9, 9, 9)), MeshParams(level=0.0))[1].is_watertight
    True
    """
    level = _check_level(params)
    image = np.asarray(image)
    if image.shape != grid.shape:
        raise GeometryError(f"The image has shape {image.shape}, its grid {grid.shape}.")
    params.check_extent(grid)
    image = Volume(image[None], grid).fill_nan().data[0]
    values = np.subtract(image, level, dtype=np.float32, casting="unsafe")
    if not np.isfinite(values).all():
        raise ImageError(
            "The image's values are too large for single precision (3.4e38); divide them first."
        )
    if params.smooth_mm:
        values = smoothed(values, grid, params.smooth_mm)
    if params.spacing is not None:
        values, grid = resampled(values, grid, params.grid_over(grid))
    if params.largest_only:
        keep_largest_positive(values)
    points, faces = march_closed(values, grid)
    if not len(faces):
        raise ImageError(
            f"No intensity is above the level {level:g}: choose a lower one (the largest is "
            f"{float(image.max()):g})."
        )
    return {ISO_LABEL: _finish((points, faces), params, ISO_LABEL)}


def _choose_labels(params: MeshParams, present: list[int], owner: str) -> list[int]:
    """Return the labels to make surfaces of, or say which there are."""
    if not present:
        raise LabelError(f"{owner} contains no label: there is no surface to make.")
    if params.labels is None:
        return sorted(present)
    absent = sorted(set(params.labels) - set(present))
    if absent or not params.labels:
        known = ", ".join(map(str, sorted(present)[:20])) + (" ..." if len(present) > 20 else "")
        missing = ", ".join(map(str, absent)) or "(none named)"
        raise LabelError(f"{owner} has no label {missing}; it has {known}.")
    return sorted(set(params.labels))


def _check_level(params: MeshParams) -> float:
    if params.level is None:
        raise ParameterError(
            "An isosurface of an image needs a level: set the intensity at which it lies."
        )
    if params.labels not in (None, (ISO_LABEL,)):
        raise ParameterError(
            "An image has no labels: leave them out, or fit the field with a mask."
        )
    return params.level


def _finish(points_faces: Surface, params: MeshParams, label: int) -> Trimesh:
    surface = closed_mesh(*points_faces)
    if params.largest_only:
        surface = keep_largest(surface)
    if params.decimate is not None:
        faces = params.decimate if params.decimate > 1 else params.decimate * len(surface.faces)
        surface = decimate_mesh(surface, round(faces))
    surface.metadata["label"] = label
    return surface
