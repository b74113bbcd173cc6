"""Going to the slice where one more stroke helps most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_frame import geometry_kwargs
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.model import JobKind
from napari_medgs.plugin.segment.view import SegmentView

if TYPE_CHECKING:
    from napari_medgs.segmentation import Suggestion


class SliceSuggestion:
    """Asks for the next slice, shows it and rings the place for a stroke.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    """

    title = "The suggestion"

    def __init__(
        self, view: SegmentView, controller: SegmentController, context: SegmentContext
    ) -> None:
        self._controller, self._context = controller, context
        self.marker: Any = None
        view.suggest.clicked.connect(lambda *_: self.request())
        controller.suggested.connect(self.show)
        controller.prompts_changed.connect(self.hide_marker)

    @guarded
    def request(self) -> None:
        """Look for the slice, in the orientation that is visible."""
        controller = self._controller
        if controller.session is None:
            raise ParameterError("There is no mask to improve yet: paint strokes first.")
        place = self._context.visible_slice()
        controller.suggest_axis = None if place is None else place[0]
        if controller.is_current:
            controller.request(JobKind.SUGGEST)
        else:
            controller.request(JobKind.PREPARE, JobKind.FULL, JobKind.SUGGEST)

    def show(self, suggestion: Suggestion | None) -> None:
        """Move the viewer to a suggested slice and ring the place."""
        context, state = self._context, self._controller.state
        if suggestion is None or context.frame is None:
            state.message = "No other slice needs a stroke."
            return
        data = context.show_slice(suggestion.axis, suggestion.position)
        self._mark(data)
        flat = data.shape[1] != 3
        index = 0 if flat else round(float(data[0][context.frame.order[suggestion.axis]]))
        state.message = f"Slice {index}: a stroke in the ring helps most."

    def _mark(self, data: Any) -> None:
        viewer, image = self._context.viewer, self._context.image
        active = viewer.layers.selection.active
        if self.marker is None:
            self.marker = viewer.add_points(
                data,
                name=f"{image.name} · next stroke",
                symbol="disc",
                size=max(6, min(image.extent.data[1][-2:]) / 9),
                face_color="transparent",
                border_color="#ffd54a",
                border_width=0.08,
                **geometry_kwargs(image),
            )
        else:
            self.marker.data = data
            self.marker.visible = True
        viewer.layers.selection.active = active

    def hide_marker(self) -> None:
        """Hide the ring, once the prompts have changed."""
        if self.marker is not None:
            self.marker.visible = False

    def on_removed(self, layer: Any) -> None:
        """Forget the ring's layer when it was removed from the viewer."""
        if layer is self.marker:
            self.marker = None
