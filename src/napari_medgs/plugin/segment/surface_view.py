"""The mask as a smooth surface in 3D, made in a thread, that follows the mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtWidgets import QPushButton

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.layer_metadata import ROLE_KEY
from napari_medgs.plugin.layer_orientation import layer_matrix
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.model import ResultUpdate
from napari_medgs.plugin.viewing.side_view import OUTGROWN
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.plugin.layer_frame import LayerFrame

FACES = 60_000  # of a class: as smooth to the eye as more, and quickly drawn
FROM_THE_FRONT = (0.0, 15.0, -80.0)  # a little from above
LIGHT = (-0.5, 1.0, 0.8)  # to the patient's left, front and head, in RAS
DARKEST = 0.25
MAKING = "Making the surface ..."
Color = tuple[float, float, float, float]


@dataclass(frozen=True)
class SurfaceData:
    """Triangles of all classes in the viewer's world.

    Attributes
    ----------
    vertices : (V, 3) ndarray
    faces : (F, 3) ndarray of int
    colors : (V, 4) ndarray
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    colors: NDArray[np.float64]


@dataclass(frozen=True)
class MakeSurface:
    """Make the surfaces of all labels of a mask on the canonical grid.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
    frame : LayerFrame
    colors : mapping of int to (4,) float
    to_world : (4, 4) ndarray
        From the layer's data coordinates.
    """

    labels: NDArray[Any]
    frame: LayerFrame
    colors: Mapping[int, Color]
    to_world: NDArray[np.float64]

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> SurfaceData:
        """Return the triangles."""
        from napari_medgs.meshing import MeshParams, mesh_from_labels

        grid = self.frame.grid
        meshes = mesh_from_labels(
            np.ascontiguousarray(self.labels), grid, MeshParams(decimate=FACES)
        )
        vertices, faces, colors, count = [], [], [], 0
        to_voxels = np.linalg.inv(grid.affine)
        for value, mesh in meshes.items():
            voxels = np.asarray(mesh.vertices) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            inside = self.frame.points_to_layer(voxels)
            vertices.append(inside @ self.to_world[:3, :3].T + self.to_world[:3, 3])
            faces.append(np.asarray(mesh.faces) + count)
            colors.append(shaded(self.colors[value], np.asarray(mesh.vertex_normals)))
            count += len(inside)
        return SurfaceData(np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors))


def shaded(color: Color, normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colors (V, 4) of vertices in a light from the patient's front, left and top.

    napari's own light comes from behind where the camera mirrors an axis, as upright anatomy
    needs it.
    """
    light = np.asarray(LIGHT) / np.linalg.norm(LIGHT)
    bright = DARKEST + (1 - DARKEST) * (0.5 + 0.5 * normals @ light)
    colors = np.tile(np.asarray(color, float), (len(normals), 1))
    colors[:, :3] *= bright[:, None]
    return colors


class SurfaceView:
    """Shows the mask in 3D while its button is down, without the image's volume.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    button : QPushButton
        Checkable.
    controller : SegmentController
    context : SegmentContext
    colors : callable
        Returns the color of a class by its value.
    """

    title = "The surface"
    made = Signal(object)  # SurfaceData

    def __init__(
        self,
        owner: Any,
        button: QPushButton,
        controller: SegmentController,
        context: SegmentContext,
        colors: Callable[[int], Color],
    ) -> None:
        self._owner, self._button = owner, button
        self._controller, self._context = controller, context
        self._colors = colors
        self.runner = Runner(owner)
        self.layer: Any = None
        self.wanted_elsewhere: Callable[[], bool] = lambda: False
        self._hidden: list[Any] = []
        self._order: tuple[int, ...] | None = None
        self._slice_camera: tuple[tuple[float, ...], float] | None = None
        self._space_camera: tuple[tuple[float, ...], float] | None = None
        self._fitted = 0.0  # diagonal of the surface that the camera was fitted to
        self._ended = False
        self._wanted = self._made = 0  # how often a surface was asked for, and which one is drawn
        button.toggled.connect(self._on_toggled)
        controller.shown.connect(self._on_shown)
        context.viewer.dims.events.ndisplay.connect(self._on_ndisplay)

    @property
    def is_on(self) -> bool:
        """Whether the surface is what is shown."""
        return self._button.isChecked()

    @property
    def _camera(self) -> Any:
        viewer = self._context.viewer
        return getattr(viewer, "scene", viewer).camera

    def _on_toggled(self, on: bool) -> None:
        if on:
            if not self._show():
                self._button.setChecked(False)
        else:
            self._hide()

    @guarded
    def _show(self) -> bool:
        context, state = self._context, self._controller.state
        if self._controller.layers is None or context.frame is None or not state.volumes_ml:
            raise ParameterError("There is no mask to show in 3D yet: paint strokes first.")
        if context.image.ndim < 3:
            raise ParameterError("A single slice has no surface to show.")
        viewer = context.viewer
        self._order = tuple(viewer.dims.order)
        camera = self._camera
        flat = viewer.dims.ndisplay == 2
        self._slice_camera = (tuple(camera.center), camera.zoom) if flat else None
        self._hidden = [x for x in viewer.layers if x.visible and x is not self.layer]
        for layer in self._hidden:
            layer.visible = False
        if self.layer is not None:
            self.layer.visible = True
        viewer.dims.order = tuple(range(viewer.dims.ndim))  # others misplace surfaces
        viewer.dims.ndisplay = 3
        if self._space_camera is not None:
            self._camera.center, self._camera.zoom = self._space_camera
        elif self.layer is not None:
            self._fit(self.layer)
        self.update()
        return True

    def _hide(self) -> None:
        viewer = self._context.viewer
        self.runner.stop()
        self._space_camera = None
        if self.layer is not None and viewer.dims.ndisplay == 3:  # else napari has changed it
            self._space_camera = (tuple(self._camera.center), self._camera.zoom)
        if self.layer is not None and self.layer in viewer.layers:
            self.layer.visible = False
        for layer in self._hidden:
            if layer in viewer.layers:
                layer.visible = True
        self._hidden = []
        viewer.dims.ndisplay = 2
        if self._order is not None and len(self._order) == viewer.dims.ndim:
            viewer.dims.order = self._order
        self._order = None
        if self._slice_camera is not None:  # the surface had a center and zoom of its own
            self._camera.center, self._camera.zoom = self._slice_camera
            self._slice_camera = None

    def _on_ndisplay(self, event: Any = None) -> None:
        if self.is_on and self._context.viewer.dims.ndisplay == 2 and self._hidden:
            self._button.setChecked(False)

    def _on_shown(self, update: ResultUpdate) -> None:
        if self._is_wanted() and update is not ResultUpdate.PREVIEW:
            self.update()

    def _is_wanted(self) -> bool:
        return self.is_on or self.wanted_elsewhere()

    def update(self) -> None:
        """Make the surface anew, now or after the one that is being made."""
        self._wanted += 1
        if not self.runner.busy:
            self._start()

    def _start(self) -> None:
        controller, frame = self._controller, self._context.frame
        volumes = controller.state.volumes_ml
        if controller.layers is None or frame is None or not volumes:
            return
        self._made = self._wanted
        if self.is_on and self.layer is None:
            controller.state.message = MAKING  # the canvas is empty meanwhile
        # A preview of a slice may be in the layer, which the session's own mask has not.
        labels = controller.layers.segmenter.labels.astype(np.min_scalar_type(max(volumes)))
        colors = {value: self._colors(value) for value in volumes}
        self.runner.start(
            MakeSurface(labels, frame, colors, layer_matrix(self._context.image)),
            returned=self._draw,
            errored=lambda error: show_failure(error, self.title),
            finished=self._on_finished,
        )

    def _on_finished(self) -> None:
        if self._controller.state.message == MAKING:
            self._controller.state.message = ""
        if self._is_wanted() and self._made != self._wanted:
            call_later(self._owner, self._go_on)

    def _go_on(self) -> None:
        if self._ended:  # the widget is gone since
            return
        if self._is_wanted() and not self.runner.busy:
            self._start()

    def close(self) -> None:
        """Show the image again, as the session ends."""
        self._button.setChecked(False)
        self.layer = self._space_camera = None

    def shut_down(self) -> None:
        """Stop what is being made, and stop listening."""
        self._ended = True
        self.runner.shut_down()
        self._context.viewer.dims.events.ndisplay.disconnect(self._on_ndisplay)

    def _draw(self, data: SurfaceData) -> None:
        viewer, image = self._context.viewer, self._context.image
        if image is None:
            return
        self.made.emit(data)
        if not self.is_on:
            return
        # With the image's scale, the slider of slices keeps the image's steps.
        scale = np.abs(np.asarray(image.scale, float)[-data.vertices.shape[1] :])
        vertices = data.vertices / scale
        if self.layer is not None and self.layer in viewer.layers:
            self.layer.vertex_colors = None  # napari slices new vertices with the old colors
            self.layer.data = (vertices, data.faces)
            self.layer.vertex_colors = data.colors
            if _diagonal(self.layer) > OUTGROWN * self._fitted:
                self._fit(self.layer)
            return
        active = viewer.layers.selection.active
        self.layer = viewer.add_surface(
            (vertices, data.faces),
            scale=scale,
            vertex_colors=data.colors,
            name=f"{image.name} · surface",
            shading="none",
            metadata={ROLE_KEY: "surface"},
            units=image.units,
            axis_labels=image.axis_labels,
        )
        viewer.layers.selection.active = active
        self._camera.angles = FROM_THE_FRONT
        self._fit(self.layer)

    def _fit(self, layer: Any) -> None:
        """Let the surface fill the canvas, seen from where the camera is."""
        viewer, camera = self._context.viewer, self._camera
        low, high = np.asarray(layer.extent.world, float)
        self._fitted = _diagonal(layer)
        camera.center = tuple((low + high) / 2)
        height, width = viewer.window._qt_viewer.canvas.size
        camera.zoom = 0.8 * min(height, width) / max(self._fitted, 1e-9)


def _diagonal(layer: Any) -> float:
    low, high = np.asarray(layer.extent.world, float)
    return float(np.linalg.norm(high - low))
