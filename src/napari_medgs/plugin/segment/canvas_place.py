"""Places of the mouse on one canvas, in voxels of the image, and lines the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.plugin.layer_frame import visible_slice
from napari_medgs.plugin.layer_orientation import layer_matrix

if TYPE_CHECKING:
    from napari_medgs.plugin.layer_frame import LayerFrame

Place = tuple[float, float, float]
"""Along z, y, x of the canonical grid."""


class CanvasPlace:
    """Between the canvas of a viewer and the canonical grid of an image.

    Parameters
    ----------
    model : napari.components.ViewerModel
        The viewer of the canvas.
    image : napari.layers.Image
    frame : LayerFrame
    """

    def __init__(self, model: Any, image: Any, frame: LayerFrame) -> None:
        self._model, self._image, self._frame = model, image, frame
        self._to_world = layer_matrix(image)

    @property
    def slice(self) -> tuple[int, int] | None:
        """Axis and index of the slice on show; None in 3D and outside the image."""
        return visible_slice(self._model.dims, self._image, self._frame)

    def voxel(self, position: Any) -> Place | None:
        """Return the place below the mouse in voxels, also beside the image; None in 3D."""
        if self._model.dims.ndisplay != 2:
            return None
        image = self._image
        inside = image.world_to_data(np.asarray(position, float)[-image.ndim :])
        z, y, x = (float(v) for v in self._frame.points_from_layer(np.asarray(inside))[0])
        return z, y, x

    def voxel_inside(self, position: Any) -> Place | None:
        """Return the place below the mouse in voxels, if it is in the image."""
        place = self.voxel(position)
        if place is None:
            return None
        shape = self._frame.grid.shape
        inside = all(-0.5 <= p < n - 0.5 for p, n in zip(place, shape, strict=True))
        return place if inside else None

    def line(self, line: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
        """Turn a line in a plane of the grid, (P, 2), into (x, y) on the canvas."""
        places = np.insert(line, axis, index, axis=1)
        data = self._frame.points_to_layer(places)
        n = self._image.ndim
        world = data @ self._to_world[:n, :n].T + self._to_world[:n, n]
        dims = self._model.dims
        down, across = (axis - (dims.ndim - n) for axis in dims.displayed)
        return world[:, [across, down]]

    def projection(self, canvas: Any) -> NDArray[np.float64]:
        """Return the matrix (4, 4) from voxels (z, y, x, 1) to pixels (x w, y w, depth, w) in 3D.

        Parameters
        ----------
        canvas : object
            Napari's.
        """
        n, dims = self._image.ndim, self._model.dims
        # The image of the unit vectors says what an affine map does.
        corners = np.vstack([np.zeros(3), np.eye(3)])
        data = self._frame.points_to_layer(corners)
        world = data @ self._to_world[:n, :n].T + self._to_world[:n, n]
        shown = [axis - (dims.ndim - n) for axis in dims.displayed]
        places = world[:, shown][:, ::-1]  # vispy's x, y, z
        to_scene = np.eye(4)
        to_scene[:3, 3] = places[0]
        to_scene[:3, :3] = (places[1:] - places[0]).T
        transform = canvas.view.transform * canvas.view.scene.transform
        to_pixels = np.asarray(transform.map(np.eye(4)), np.float64).T
        return np.asarray(to_pixels @ to_scene)
