"""What becomes of a session when other images, another mask, field or other values are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medgs.errors import MedGSError
from napari_medgs.plugin.contrast_grids import others_of
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.new_session import known_field, session_again
from napari_medgs.plugin.segment.session_images import path_of

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.widget import SegmentWidget

NOT_YET = "The images that are checked lie on several grids: resample them first."
NEXT_NEW = '"Begin with" counts from the next New; this session goes on as it is.'


class ChoiceEvents:
    """Choices in the Segment widget's controls while a session goes on.

    Parameters
    ----------
    widget : SegmentWidget
        With its view and the form of values.
    """

    title = "The segmentation"

    def __init__(self, widget: SegmentWidget) -> None:
        self._widget = widget
        view = widget.view
        view.images.changed.connect(self._on_images)
        view.initial.changed.connect(self._on_initial)
        view.fields.changed.connect(self._on_field)
        widget.values.changed.connect(self._on_values)

    def _on_images(self) -> None:
        """Begin anew with the same prompts on other images, or end."""
        widget, view = self._widget, self._widget.view
        layers = view.images.layers
        if widget.is_choosing:
            return
        if layers == widget.context.sources:
            if widget.state.message == NOT_YET:
                widget.state.message = ""
            return
        if widget.controller.session is not None and layers and others_of(layers, layers[0]):
            widget.state.message = NOT_YET  # it goes on with its own images meanwhile
            return
        layer, again = widget.strokes_layer, None
        if widget.controller.session is not None and set(layers) & set(widget.context.sources):
            # Another choice of contrasts: points and boxes, which stay on show, go on to count.
            again = session_again(widget.controller.session, *widget.values.values())
            again.images = tuple(path_of(x) for x in layers)
        widget.end()
        widget.context.forget_images()
        widget.forget_patient()
        if layer is not None and view.images.layers and layer in widget.viewer.layers:
            widget.begin(layer, again)
            if again is not None:
                widget.controller.sync_strokes()
                widget.prompt_layers.show(again.settings)
        else:
            widget.choose(view.strokes.choose, None)
        widget.files.look_for_saved()

    def _on_initial(self) -> None:
        """Say that a session that runs goes on as it is, with or without the mask chosen now."""
        if self._widget.controller.session is not None:
            self._widget.state.message = NEXT_NEW

    @guarded
    def _on_field(self) -> None:
        """Go on with the field that was chosen; without one, with that which is there."""
        widget, controller = self._widget, self._widget.controller
        session, layer = controller.session, widget.strokes_layer
        if session is None or layer is None or widget.is_choosing:
            return
        field = known_field(widget.context, widget.view.fields.layer)
        if field is None or field is controller.field:
            return
        widget.begin(layer, session)
        widget.prompt_layers.show(session.settings)

    @guarded
    def _on_values(self) -> None:
        """Begin anew with the same strokes and prompts, but other values of the strokes layer."""
        widget = self._widget
        session, layer = widget.controller.session, widget.strokes_layer
        if session is None or layer is None or widget.is_choosing:
            return
        try:
            again = session_again(session, *widget.values.values())
        except MedGSError:
            widget.values.load(session.settings.unlabeled, session.settings.background)
            raise
        widget.begin(layer, again)
        widget.controller.sync_strokes()
        widget.prompt_layers.show(again.settings)
