"""Saying that all of a slice is painted: what is left unpainted in it is background."""

from __future__ import annotations

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.view import SegmentView


class CompleteSlice:
    """Declares the slice on show fully labeled, as one step, or takes that back.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    """

    def __init__(
        self, view: SegmentView, controller: SegmentController, context: SegmentContext
    ) -> None:
        self._box = view.complete
        self._controller, self._context = controller, context
        self._box.clicked.connect(lambda on: self.declare(on))
        controller.prompts_changed.connect(self.refresh)
        controller.settings_restored.connect(self.refresh)
        controller.state.events.has_session.connect(lambda *_: self.refresh())
        self.refresh()

    def refresh(self, event: object = None) -> None:
        """Show whether the slice on show is declared so."""
        session, place = self._controller.session, None
        if session is not None:
            place = self._context.visible_slice()
        self._box.setEnabled(place is not None)
        self._box.setChecked(session is not None and place in session.settings.fully_labeled)

    @guarded
    def declare(self, complete: bool) -> None:
        """Declare the slice on show fully labeled, or not."""
        self.refresh()  # until it is so
        session, place = self._controller.session, self._context.visible_slice()
        if session is None or place is None:
            raise ParameterError("Show one slice of the image to say that all of it is painted.")
        self._controller.sync_strokes()
        slices = session.settings.with_complete(*place, complete)
        self._controller.update_settings(fully_labeled=slices)
        self.refresh()
