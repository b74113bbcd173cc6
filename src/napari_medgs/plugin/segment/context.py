"""The image being segmented and its layers, shared by the parts of the Segment widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.plugin.layer_frame import (
    LayerFrame,
    check_sliceable,
    is_cut_straight,
    same_place,
    visible_slice,
    world_of_slice,
)
from napari_medgs.plugin.layer_metadata import SESSION_KEY, SOURCE_KEY, role_of
from napari_medgs.plugin.layer_volumes import volume_from_layers
from napari_medgs.plugin.report import prepared_volume, show_hint
from napari_medgs.plugin.responsive import run_responsive

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

KINDS = {
    "points": "Points", "boxes": "Shapes", "uncertainty": "Image", "probability": "Image"
}  # fmt: skip

OBLIQUE = (
    "{!r} is turned or sheared against the viewer's slices, and napari shows and paints such "
    "layers out of place: strokes may land beside the brush, or in other slices. Open its file "
    "with MedGS, which shows it straight and keeps its place in the patient."
)


@dataclass
class SegmentContext:
    """The viewer, the chosen images as one volume, and the layers of the session.

    Attributes
    ----------
    viewer : napari.Viewer
    sources : list of napari.layers.Image
        One per contrast; the first gives the geometry.
    volume : Volume or None
    frame : LayerFrame or None
        Between the first source's axes and the canonical grid.
    strokes_layer, result_layer : napari.layers.Labels or None
    session_key : str or None
        What the layers of the session are marked with.
    """

    viewer: Any
    sources: list[Any] = field(default_factory=list)
    volume: Volume | None = None
    frame: LayerFrame | None = None
    strokes_layer: Any = None
    result_layer: Any = None
    session_key: str | None = None

    @property
    def image(self) -> Any:
        """The first source, or None."""
        return self.sources[0] if self.sources else None

    def load_images(self, layers: Sequence[Any]) -> tuple[Volume, LayerFrame]:
        """Return volume and frame of image layers; those of the same layers are kept.

        Raises
        ------
        ImageError, GeometryError
            For layers that cannot be segmented.
        """
        for layer in layers[:1]:
            check_sliceable(layer, self.viewer.dims)
            if not is_cut_straight(self.viewer.dims, layer):
                show_hint(OBLIQUE.format(layer.name))
        if self.volume is None or self.frame is None or list(layers) != self.sources:
            volume, frame, remarks = run_responsive(partial(_loaded, layers), "Reading the image")
            for text in remarks:
                show_hint(text)
            self.sources, self.volume, self.frame = list(layers), volume, frame
            return volume, frame
        return self.volume, self.frame

    def forget_images(self) -> None:
        """Drop the volume, as other images are chosen."""
        self.sources, self.volume, self.frame = [], None, None

    def visible_slice(self) -> tuple[int, int] | None:
        """Return canonical axis and index of the visible slice.

        None in the 3D view, outside the image, and without an image.
        """
        if self.image is None or self.frame is None:
            return None
        return visible_slice(self.viewer.dims, self.image, self.frame)

    def show_slice(self, axis: int, position: Sequence[float]) -> Any:
        """Move the viewer along a canonical axis to a position in canonical voxels.

        Returns
        -------
        (1, D) ndarray
            The position in the image layer's data coordinates.
        """
        assert self.frame is not None
        image, dims = self.image, self.viewer.dims
        data = self.frame.points_to_layer(np.asarray([position], float))
        if image.ndim == 3:
            along = self.frame.order[axis]
            world = world_of_slice(image, along, float(data[0][along]))
            dims.set_point(along + dims.ndim - 3, world)
        return data

    def show_busiest_slice(self, marked: NDArray[np.bool_]) -> None:
        """Move the viewer to the slice with most marked voxels, unless one is visible.

        Parameters
        ----------
        marked : (Z, Y, X) ndarray of bool
            On the canonical grid. The visible orientation is kept.
        """
        place = self.visible_slice()
        if place is None:
            return
        axis, index = place
        counts = marked.sum(axis=tuple(a for a in range(3) if a != axis))
        if counts.any() and not counts[index]:
            position = [0.0, 0.0, 0.0]
            position[axis] = float(counts.argmax())
            self.show_slice(axis, position)

    def find_layer(self, role: str) -> Any | None:
        """Return the layer of the session with a role that was made for the image, if any.

        Parameters
        ----------
        role : {"result", "points", "boxes", "uncertainty", "probability"}
        """
        kind = KINDS.get(role, "Labels")
        for layer in self._layers_of(self.session_key):  # copies of it come later
            if type(layer).__name__ != kind or role_of(layer) != role:
                continue
            mine = self.image is not None and layer.metadata.get(SOURCE_KEY) == self.image.name
            if mine and (kind != "Labels" or same_place(layer, self.image)):
                return layer
        return None

    def strokes_of(self, key: str, strokes: NDArray[Any]) -> Any | None:
        """Return the Labels layer of an ended session that still holds its strokes, if any.

        Parameters
        ----------
        key : str
            What the session's layers are marked with.
        strokes : (Z, Y, X) ndarray of int
            On the canonical grid.
        """
        assert self.frame is not None
        for layer in self._layers_of(key):
            may = type(layer).__name__ == "Labels" and role_of(layer) in (None, "strokes")
            if may and same_place(layer, self.image):
                shown = self.frame.to_canonical(np.asarray(layer.data))
                if np.array_equal(shown, strokes):
                    return layer
        return None

    def _layers_of(self, key: str | None) -> list[Any]:
        layers = self.viewer.layers
        return [] if key is None else [x for x in layers if x.metadata.get(SESSION_KEY) == key]

    def mark_layers(self, layer: Any, key: str) -> None:
        """Take over a layer of strokes, and what belongs to it, for the session that begins."""
        for other in self._layers_of(layer.metadata.get(SESSION_KEY)):
            other.metadata[SESSION_KEY] = key
        layer.metadata[SESSION_KEY] = self.session_key = key

    def hide_other_sessions(self) -> None:
        """Hide the layers of other sessions of the image; what was painted there is kept."""
        for layer in self.viewer.layers:
            key, source = (layer.metadata.get(k) for k in (SESSION_KEY, SOURCE_KEY))
            if key is None or self.image is None or layer is self.strokes_layer:
                continue
            ours = source == self.image.name
            if key == self.session_key:
                hidden = not ours and role_of(layer) is not None  # of the image before
            else:
                own = source is None and type(layer).__name__ == "Labels"
                hidden = ours or (own and same_place(layer, self.image))
            if hidden:
                layer.visible = False

    def move_below_strokes(self, layer: Any) -> None:
        """Move a layer below the strokes, which must stay visible."""
        layers = self.viewer.layers
        layers.move(layers.index(layer), layers.index(self.strokes_layer))


def _loaded(layers: Sequence[Any]) -> tuple[Volume, LayerFrame, tuple[str, ...]]:
    """Return images as a segmentation takes them, with remarks for the user; for a thread."""
    volume, frame = volume_from_layers(layers)
    volume, remarks = prepared_volume(volume)
    return volume, frame, remarks
