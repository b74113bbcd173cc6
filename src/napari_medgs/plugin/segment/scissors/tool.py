"""The scissors: from a line on the canvas to a step of the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.resting_layers import RestingLayers
from napari_medgs.plugin.segment.scissors.canvas import LassoCanvas
from napari_medgs.plugin.segment.scissors.panel import ScissorsPanel
from napari_medgs.plugin.widgets.shortcuts import Shortcuts

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.plugin.segment.context import SegmentContext
    from napari_medgs.plugin.segment.controller import SegmentController
    from napari_medgs.plugin.segment.tools import ClassTools
    from napari_medgs.plugin.viewing.four_views import FourViews


@dataclass(frozen=True)
class CutClass:
    """Cut one class of a mask on the canonical grid.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
        A copy.
    label : int
    outline : (P, 2) ndarray
    cut : str
        A :class:`~napari_medgs.segmentation.postprocess.scissors.Cut`.
    axis : int
    slices : (int, int) or None
    volume : Volume
    limits : (float or None, float or None)
        The range of intensities in which voxels may be added.
    """

    labels: NDArray[Any]
    label: int
    outline: NDArray[Any]
    cut: str
    axis: int
    slices: tuple[int, int] | None
    volume: Volume
    limits: tuple[float | None, float | None]

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[Any]:
        """Return the mask."""
        from napari_medgs.segmentation.postprocess.scissors import cut_class

        return cut_class(
            self.labels,
            self.label,
            self.outline,
            self.cut,
            axis=self.axis,
            slices=self.slices,
            within=_within(self.volume, self.limits),
        )


@dataclass(frozen=True)
class CutClassInView:
    """Cut one class of a mask on the canonical grid along a direction of view.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
        A copy.
    label : int
    outline : (P, 2) ndarray
        In pixels of the canvas.
    projection : (4, 4) ndarray
        From voxels to pixels.
    cut : str
        A :class:`~napari_medgs.segmentation.postprocess.scissors.Cut`.
    volume : Volume
    limits : (float or None, float or None)
        The range of intensities in which voxels may be added.
    """

    labels: NDArray[Any]
    label: int
    outline: NDArray[Any]
    projection: NDArray[Any]
    cut: str
    volume: Volume
    limits: tuple[float | None, float | None]

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[Any]:
        """Return the mask."""
        from napari_medgs.segmentation.postprocess.scissors import cut_class_in_view

        return cut_class_in_view(
            self.labels,
            self.label,
            self.outline,
            self.projection,
            self.cut,
            within=_within(self.volume, self.limits),
        )


def _within(volume: Volume, limits: tuple[float | None, float | None]) -> NDArray[np.bool_] | None:
    """Return where voxels may be added, if that is bounded."""
    from napari_medgs.segmentation.postprocess.class_edits import intensity_mask

    return None if limits == (None, None) else intensity_mask(volume.channel(0), *limits)


class Scissors:
    """Cuts with lines on napari's own canvas and on those of four views, while the button is down.

    Parameters
    ----------
    panel : ScissorsPanel
    tools : ClassTools
        Computes the cut and records it.
    controller : SegmentController
    context : SegmentContext
    four : FourViews
    free_mouse : callable
        Ends the other tools that take the mouse.
    """

    title = "The scissors"

    def __init__(
        self,
        panel: ScissorsPanel,
        tools: ClassTools,
        controller: SegmentController,
        context: SegmentContext,
        four: FourViews,
        free_mouse: Callable[[], Any],
    ) -> None:
        self.panel, self._tools, self._free_mouse = panel, tools, free_mouse
        self._controller, self._context, self._four = controller, context, four
        self.canvases: list[LassoCanvas] = []
        self._resting = RestingLayers(lambda: panel.button.setChecked(False))
        self._shortcuts = Shortcuts()
        panel.button.toggled.connect(self._on_toggled)
        controller.prompts_changed.connect(self._on_prompts)
        controller.state.events.clicking.connect(self._on_clicking)
        four.opened.connect(self._on_views)
        four.closing.connect(self._close_canvases)

    @property
    def is_on(self) -> bool:
        """Whether the mouse cuts."""
        return self.panel.button.isChecked()

    def _on_toggled(self, on: bool) -> None:
        if not on:
            self.close()
        elif not self._start():
            self.panel.button.setChecked(False)

    @guarded
    def _start(self) -> bool:
        context, viewer = self._context, self._context.viewer
        if self._controller.session is None or context.strokes_layer is None:
            raise ParameterError("Press New first: there is no mask to cut yet.")
        self._free_mouse()
        self._resting.take([context.strokes_layer, context.result_layer])
        for target in (viewer, *self._resting.layers):
            self._shortcuts.bind(target, "Escape", self.escape)
        self._open_canvases()
        return True

    def _on_clicking(self, clicking: bool, *_: object) -> None:
        if clicking:
            self.panel.button.setChecked(False)

    def _on_prompts(self) -> None:
        if self._controller.session is None:
            self.panel.button.setChecked(False)

    def _on_views(self) -> None:
        if self.is_on:
            self._close_canvases()
            self._open_canvases()

    def _open_canvases(self) -> None:
        context, frame = self._context, self._context.frame
        assert frame is not None
        main = (context.viewer, context.viewer.window._qt_viewer.canvas)
        others = [*self._four.planes, *([self._four.space] if self._four.space else [])]
        for model, canvas in (main, *((view.model, view.widget.canvas) for view in others)):
            made = LassoCanvas(model, canvas, context.image, frame)
            made.drawn.connect(self._on_drawn)
            made.drawn_in_view.connect(self._on_drawn_in_view)
            made.forgotten.connect(self._say)
            self.canvases.append(made)

    def _say(self, text: str) -> None:
        self._controller.state.message = text

    def _close_canvases(self) -> None:
        for canvas in self.canvases:
            canvas.close()
        self.canvases = []

    def escape(self) -> None:
        """Forget the corners that were clicked; without any, put the scissors away."""
        begun = [canvas for canvas in self.canvases if canvas.corners]
        for canvas in begun:
            canvas.forget()
        if not begun:
            self.panel.button.setChecked(False)

    @guarded
    def _on_drawn(self, outline: NDArray[Any], axis: int, index: int) -> None:
        label, session, volume = self._tools.inputs()
        params = session.settings.params
        made = partial(
            CutClass,
            label=label,
            outline=outline,
            cut=str(self.panel.cut.currentData()),
            axis=axis,
            slices=self.panel.range_around(index),
            volume=volume,
            limits=(params.lowest, params.highest),
        )
        self._tools.run(session, label, lambda: made(session.labels.copy()))

    @guarded
    def _on_drawn_in_view(self, outline: NDArray[Any], projection: NDArray[Any]) -> None:
        label, session, volume = self._tools.inputs()
        if self._context.image.ndim < 3:
            raise ParameterError("A single slice is cut in 2D, not in the 3D view.")
        params = session.settings.params
        made = partial(
            CutClassInView,
            label=label,
            outline=outline,
            projection=projection,
            cut=str(self.panel.cut.currentData()),
            volume=volume,
            limits=(params.lowest, params.highest),
        )
        self._tools.run(session, label, lambda: made(session.labels.copy()))

    def close(self) -> None:
        """Put the scissors away; what was cut stays."""
        self._close_canvases()
        self._shortcuts.free()
        for layer in self._resting.free():
            if str(layer.mode) == "pan_zoom" and not self._controller.state.clicking:
                layer.mode = "paint"
        if self.is_on:
            self.panel.button.setChecked(False)
