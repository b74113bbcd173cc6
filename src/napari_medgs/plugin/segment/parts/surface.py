"""The part on show as a translucent surface, on canvases that show 3D."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.plugin.layer_orientation import layer_matrix
from napari_medgs.plugin.report import LOGGER
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree
    from napari_medgs.plugin.layer_frame import LayerFrame
    from napari_medgs.plugin.segment.parts.picker import PartPicker

COLOR = (1.0, 0.84, 0.31, 0.45)
FINEST = 80  # voxels along the longest side: a part is found by its shape, not by its details
REST_MS = 90  # of the mouse
ABOVE = 800_000


@dataclass(frozen=True)
class SurfaceOfPart:
    """Make triangles around the cells of a part.

    Attributes
    ----------
    tree : PartTree
    part : PartSelection
    frame : LayerFrame
    to_world : (4, 4) ndarray
        From the layer's data coordinates.
    """

    tree: PartTree
    part: PartSelection
    frame: LayerFrame
    to_world: NDArray[np.float64]

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return vertices (V, 3) in the viewer's world and faces (F, 3)."""
        from skimage.measure import marching_cubes

        inside = self.tree.leaf_mask(self.part.nodes)[self.tree.cells]
        box = []
        for axis in range(3):
            rest = tuple(a for a in range(3) if a != axis)
            where = np.flatnonzero(inside.any(axis=rest))
            box.append(slice(int(where[0]), int(where[-1]) + 1))
        crop = inside[tuple(box)]
        step = max(1, -(-max(crop.shape) // FINEST))
        coarse = np.pad(crop[::step, ::step, ::step], 1).astype(np.float32)
        vertices, faces, _, _ = marching_cubes(coarse, 0.5)
        voxels = (vertices - 1) * step + [part.start for part in box]
        data = self.frame.points_to_layer(voxels)
        return data @ self.to_world[:3, :3].T + self.to_world[:3, 3], faces


class PartSurface:
    """Shows the part on show in 3D, some tenths of a second after it has changed.

    Parameters
    ----------
    owner : QWidget
        Whose life timer and thread share.
    places : callable
        Returns viewers and canvases as pairs; those that show 3D are drawn on.
    """

    def __init__(self, owner: Any, places: Callable[[], list[tuple[Any, Any]]]) -> None:
        self._places = places
        self._runner = Runner(owner, 20)
        self._wanted: tuple[PartPicker, Any, LayerFrame] | None = None
        self._nodes: list[tuple[Any, Any]] = []  # canvas, mesh
        self._timer = QTimer(owner)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        self._timer.timeout.connect(self._make)

    @property
    def is_shown(self) -> bool:
        """Whether there is a surface."""
        return any(node.visible for _, node in self._nodes)

    def follow(self, picker: PartPicker, image: Any, frame: LayerFrame) -> None:
        """Show the picker's part once the mouse rests."""
        self._wanted = (picker, image, frame)
        if self._spaces():
            self._timer.start()

    def _spaces(self) -> list[tuple[Any, Any]]:
        return [(model, canvas) for model, canvas in self._places() if model.dims.ndisplay == 3]

    def _make(self) -> None:
        if self._wanted is None or not self._spaces():
            return
        picker, image, frame = self._wanted
        if picker.shown is None or image.ndim != 3:
            self.hide()
        elif self._runner.busy:
            self._timer.start()
        else:
            self._runner.start(
                SurfaceOfPart(picker.tree, picker.shown, frame, layer_matrix(image)),
                returned=self._draw,
                errored=lambda error: LOGGER.info("no surface of the part", exc_info=error),
            )

    def _draw(self, made: tuple[NDArray[Any], NDArray[Any]]) -> None:
        if self._wanted is None:
            return
        from vispy.scene.visuals import Mesh  # type: ignore[import-untyped]

        vertices, faces = made
        known = dict(self._nodes)
        for model, canvas in self._spaces():
            node = known.get(canvas)
            if node is None:
                node = Mesh(color=COLOR, parent=canvas.view.scene)
                node.order = ABOVE
                node.set_gl_state("translucent", depth_test=False, cull_face=False)
                self._nodes.append((canvas, node))
            axes = list(model.dims.displayed)[::-1]
            axes = [axis - (model.dims.ndim - 3) for axis in axes]
            node.set_data(
                vertices[:, axes].astype(np.float32), faces.astype(np.uint32), color=COLOR
            )
            node.visible = True

    def hide(self) -> None:
        """Show none."""
        for _, node in self._nodes:
            node.visible = False

    def close(self) -> None:
        """Take the surfaces away."""
        self._timer.stop()
        self._wanted = None
        for _, node in self._nodes:
            with contextlib.suppress(RuntimeError):
                node.parent = None
        self._nodes = []

    def shut_down(self) -> None:
        """Stop what is being made."""
        self.close()
        self._runner.shut_down()
