"""From napari's layers to canonical volumes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import (
    SPL,
    canonical_affine,
    canonical_axes,
    from_canonical,
    to_canonical,
)
from napari_medgs.errors import GeometryError, ImageError
from napari_medgs.plugin.layer_orientation import (
    GRID_KEY,
    TRANSFORM_KEY,
    Matrix,
    axis_units,
    layer_matrix,
    napari_nifti_metadata,
    place_source,
    unit_scale,
    world_to_ras,
)

if TYPE_CHECKING:
    pass

ITEMS_KEY = "medgs_items"


@dataclass(frozen=True)
class LayerFrame:
    """How the array of a layer relates to the canonical grid.

    Attributes
    ----------
    grid : Grid
        Canonical (z, y, x) grid in RAS mm.
    order : (int, int, int)
        Axis of the layer's 3D array that runs along canonical axis 0, 1, 2.
    flips : (bool, bool, bool)
        Whether it runs backwards.
    ndim : int
        2 for a flat layer (one slice, without the first axis), else 3.
    """

    grid: Grid
    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    ndim: int = 3

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn the layer's array (2D or 3D) into (Z, Y, X)."""
        array = array[None] if array.ndim == 2 else array
        return to_canonical(array, self.order, self.flips)

    def to_layer(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn a canonical array (Z, Y, X) into the layer's axes."""
        turned = np.ascontiguousarray(from_canonical(array, self.order, self.flips))
        return turned[0] if self.ndim == 2 else turned

    def points_to_layer(self, points: NDArray[Any]) -> NDArray[Any]:
        """Turn canonical voxel coordinates (P, 3) into the layer's data coordinates (P, ndim)."""
        last = np.asarray(self.grid.shape) - 1
        moved = np.where(self.flips, last - points, points)[:, np.argsort(self.order)]
        return moved[:, 1:] if self.ndim == 2 else moved

    def points_from_layer(self, points: NDArray[Any]) -> NDArray[Any]:
        """Turn the layer's data coordinates (P, ndim) into canonical voxel coordinates (P, 3)."""
        points = np.asarray(points, float).reshape(-1, self.ndim)
        if self.ndim == 2:
            points = np.hstack([np.zeros((len(points), 1)), points])
        moved = points[:, list(self.order)]
        last = np.asarray(self.grid.shape) - 1
        return np.where(self.flips, last - moved, moved)

    def canonical_axis(self, layer_axis: int) -> int:
        """Return the canonical axis of an axis of the layer's array (counted in its ndim)."""
        return self.order.index(layer_axis + (3 - self.ndim))

    def canonical_position(self, axis: int, position: float) -> float:
        """Turn a data coordinate along a canonical axis into canonical voxels."""
        return self.grid.shape[axis] - 1 - position if self.flips[axis] else position

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "grid": self.grid.to_dict(),
            "order": list(self.order),
            "flips": [bool(f) for f in self.flips],
            "ndim": self.ndim,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> LayerFrame:
        """Make a frame of :meth:`to_dict`."""
        a, b, c = record["order"]
        f, g, h = record["flips"]
        return cls(Grid.from_dict(record["grid"]), (a, b, c), (f, g, h), int(record["ndim"]))


def geometry_kwargs(layer: Any) -> dict[str, Any]:
    """Return everything that puts another layer at the same place, in the same units."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def grid_kwargs(grid: Grid) -> dict[str, Any]:
    """Return what places a canonical array (Z, Y, X) of a grid in the viewer, with metadata.

    The scale is the spacing, the translation puts the grid's middle at its true place (in
    superior, posterior, left mm). Oblique grids are drawn straight, because napari cannot
    slice them otherwise; the true grid is in ``metadata["medgs_grid"]``. ``metadata["affine"]``
    is what napari-nifti's writer expects there.
    """
    scale = np.asarray(grid.spacing)
    middle = (np.asarray(grid.shape) - 1) / 2
    world = np.linalg.inv(SPL)[:3, :3] @ grid.to_world(middle)
    translate = world - scale * middle
    transform = np.eye(4)
    transform[:3, :3] = np.diag(scale)
    transform[:3, 3] = translate
    return {
        "scale": tuple(scale),
        "translate": tuple(translate),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
        "metadata": {
            **napari_nifti_metadata(grid),
            GRID_KEY: grid.to_dict(),
            TRANSFORM_KEY: transform.tolist(),
        },
    }


def check_layer(layer: Any, *, colors: bool = False) -> None:
    """Refuse layers that are no scalar 2D or 3D image, nor an RGB one where those are welcome.

    Raises
    ------
    ImageError
        For RGB, for sets of items, and for more than three dimensions.
    """
    if getattr(layer, "rgb", False) and not colors:
        raise ImageError(
            f"{layer.name!r} is an RGB image. Right-click it and choose 'Split RGB': every color "
            "is then a contrast of its own."
        )
    if ITEMS_KEY in layer.metadata:
        raise ImageError(
            f"{layer.name!r} is a set of {layer.metadata[ITEMS_KEY]} separate items. Open one of "
            "them with the Load widget."
        )
    if layer.ndim not in (2, 3):
        raise ImageError(
            f"{layer.name!r} has {layer.ndim} dimensions; 2 or 3 are needed. Open one of its "
            "volumes with the Load widget, or right-click it and choose 'Split Stack'."
        )


def check_sliceable(layer: Any, dims: Any) -> None:
    """Refuse a layer that napari cannot draw in the viewer's slices.

    napari cuts a transform down to the two displayed axes; where it swaps one of them with the
    hidden axis, nothing is left, and every layer with that transform fails.

    Parameters
    ----------
    layer : napari.layers.Layer
    dims : napari.components.Dims

    Raises
    ------
    GeometryError
        When that is so in the slices that are shown now (in 3D: that come back after it).
    """
    if layer.ndim != 3:
        return
    shown = [axis - (dims.ndim - 3) for axis in dims.order[-2:]]
    if min(shown) < 0:
        return
    part = layer_matrix(layer)[np.ix_(shown, shown)]
    if abs(np.linalg.det(part)) <= 1e-9 * np.abs(layer_matrix(layer)[:3, :3]).max() ** 2:
        raise GeometryError(
            f"napari cannot show {layer.name!r} in these slices, because its transform swaps "
            "axes: transpose the image itself, or open its file with the Load widget."
        )


def array_of(layer: Any) -> NDArray[Any]:
    """Return the full-resolution data of a layer as a numpy array."""
    return np.asarray(layer.data[0] if getattr(layer, "multiscale", False) else layer.data)


def frame_of(layer: Any, *, colors: bool = False) -> LayerFrame:
    """Return the canonical frame of an Image or Labels layer from any reader.

    The grid that our own reader stored counts as long as the layer has not been moved since, and
    the affine that napari-nifti stored where it agrees with the layer's shape and transform.
    Otherwise the viewer's world is taken as superior, posterior, left millimeters, and the grid's
    ``source`` says that this was assumed.

    Raises
    ------
    ImageError, GeometryError
        See :func:`check_layer`; or when the layer's transform is singular.
    """
    check_layer(layer, colors=colors)
    stored = layer.metadata.get(GRID_KEY)
    before = layer.metadata.get(TRANSFORM_KEY)
    if stored is not None and before is not None and layer.ndim == 3:
        grid = Grid.from_dict(stored)
        matrix = _in_millimeters(layer, unit_scale(layer))
        if grid.shape == _shape(layer) and np.allclose(matrix, before, rtol=1e-5, atol=1e-6):
            return LayerFrame(grid)
    world = world_to_ras(layer)
    return frame_in_world(layer, SPL if world is None else world, place_source(layer))


def frame_in_world(
    layer: Any, world: Matrix, source: dict[str, Any], *, unit: float | None = None
) -> LayerFrame:
    """Return the frame of a layer in a world whose place in the patient is given.

    Parameters
    ----------
    layer : napari.layers.Image or Labels
    world : (4, 4) ndarray
        Maps world millimeters to RAS millimeters.
    source : dict
        For the grid.
    unit : float, optional
        Millimeters per world unit, for a layer without a length unit.

    Raises
    ------
    GeometryError
        When the layer's transform is singular.
    """
    scale = unit_scale(layer) if axis_units(layer) is not None or unit is None else unit
    matrix, shape = layer_matrix(layer), _shape(layer)
    if layer.ndim == 2:
        full = np.eye(4)
        full[1:, 1:] = matrix
        full[0, 0] = np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) or 1.0
        matrix, shape = full, (1, *shape)
    affine = world @ np.diag([scale, scale, scale, 1.0]) @ matrix
    try:
        order, flips = canonical_axes(affine)
        affine = canonical_affine(affine, shape, order, flips)
        grid = Grid((shape[order[0]], shape[order[1]], shape[order[2]]), affine, source)
    except GeometryError as error:
        raise GeometryError(
            f"The transform of the layer {layer.name!r} is singular: set its scale to the size of "
            "its voxels."
        ) from error
    return LayerFrame(grid, order, flips, layer.ndim)


def slice_position(dims: Any, layer: Any, axis: int) -> float:
    """Return where a viewer cuts a layer along a hidden axis, in its data coordinates.

    napari leaves out what turns or shears a layer out of the slice, so that only the viewer's
    position along this axis counts, wherever in the slice one looks.
    """
    start, slope = _along(layer, axis)
    return start + slope * float(dims.point[axis + dims.ndim - layer.ndim])


def world_of_slice(layer: Any, axis: int, position: float) -> float:
    """Return the viewer's position at which it cuts a layer there; see :func:`slice_position`."""
    start, slope = _along(layer, axis)
    return (position - start) / slope if slope else start


def _along(layer: Any, axis: int) -> tuple[float, float]:
    origin, point = np.zeros(layer.ndim), np.zeros(layer.ndim)
    point[axis] = 1
    start = float(layer.world_to_data(origin)[axis])
    return start, float(layer.world_to_data(point)[axis]) - start


def is_cut_straight(dims: Any, layer: Any) -> bool:
    """Tell whether a viewer's slices are those of a layer's array, not oblique to it."""
    if layer.ndim != 3 or dims.ndim < 3:
        return True
    hidden = [a - (dims.ndim - 3) for a in dims.order[:-2] if a >= dims.ndim - 3]
    inverse = np.linalg.pinv(layer_matrix(layer))[:3, :3]
    mixed = [np.delete(line, a) for a in hidden for line in (inverse[a], inverse[:, a])]
    return all(bool(np.abs(m).max() <= 1e-6 * np.abs(inverse).max()) for m in mixed)


def visible_slice(dims: Any, layer: Any, frame: LayerFrame) -> tuple[int, int] | None:
    """Return canonical axis and index of the slice of a layer that a viewer shows.

    Parameters
    ----------
    dims : napari.components.Dims
    layer : napari.layers.Layer
    frame : LayerFrame

    Returns
    -------
    (int, int) or None
        None in the 3D view and outside the layer.
    """
    if dims.ndisplay != 2:
        return None
    if layer.ndim == 2:
        return 0, 0
    hidden = [a - (dims.ndim - layer.ndim) for a in dims.not_displayed]
    hidden = [a for a in hidden if a >= 0]
    if len(hidden) != 1:
        return None
    axis = frame.canonical_axis(hidden[0])
    index = round(frame.canonical_position(axis, slice_position(dims, layer, hidden[0])))
    return (axis, index) if 0 <= index < frame.grid.shape[axis] else None


def _shape(layer: Any) -> tuple[int, ...]:
    # The colors of an RGB layer are a last axis that is none of its dimensions.
    array = layer.data[0] if layer.multiscale else layer.data
    return tuple(int(n) for n in array.shape)[: layer.ndim]


def _in_millimeters(layer: Any, scale: float) -> Matrix:
    matrix: Matrix = np.diag([*[scale] * layer.ndim, 1.0]) @ layer_matrix(layer)
    return matrix


def layer_to_ras(layer: Any, world: Matrix | None = None) -> Matrix:
    """Return the matrix (4, 4) from a 3D layer's data coordinates to RAS millimeters.

    Parameters
    ----------
    layer : napari.layers.Layer
    world : (4, 4) ndarray, optional
        From world to RAS millimeters; by default as in :func:`frame_of`.
    """
    if world is None:
        world = world_to_ras(layer)
    to_ras: Matrix = (SPL if world is None else world) @ _in_millimeters(layer, unit_scale(layer))
    return to_ras


def same_place(first: Any, second: Any) -> bool:
    """Tell whether two layers have equal shapes and transforms (within 1/1000 voxel).

    Units count where both layers have lengths; a layer in pixels takes the other's unit. Where
    the orientation of both is known, their places in the patient are compared.
    """
    if first.ndim != second.ndim:
        return False
    shapes = [tuple((x.data[0] if x.multiscale else x.data).shape) for x in (first, second)]
    if shapes[0] != shapes[1]:
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shapes[0][: first.ndim]]))
    corners = corners.reshape(first.ndim, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    units = [axis_units(first), axis_units(second)]
    if None in units:
        units = [(1.0,) * first.ndim] * 2
    matrices = [
        np.diag([*(unit or ()), 1.0]) @ layer_matrix(layer)
        for unit, layer in zip(units, (first, second))
    ]
    worlds = [w for w in (world_to_ras(first), world_to_ras(second)) if w is not None]
    if len(worlds) == 2:
        matrices = [world @ matrix for world, matrix in zip(worlds, matrices)]
    try:
        offset = np.linalg.solve(matrices[0], matrices[1] @ corners) - corners
    except np.linalg.LinAlgError:
        return False
    return bool(np.abs(offset).max() < 1e-3)
