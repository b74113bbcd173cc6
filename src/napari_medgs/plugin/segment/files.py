"""Sessions of the Segment widget as files: kept by themselves, saved, opened, restored."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_medgs.errors import MedGSError, ParameterError
from napari_medgs.plugin.layer_frame import volume_from_layers
from napari_medgs.plugin.report import LOGGER, guarded, show_failure
from napari_medgs.plugin.segment import autosave
from napari_medgs.plugin.segment.layers import add_strokes_layer
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.widget import SegmentWidget

KEEP_MS = 400


class SegmentFiles:
    """Keeps the session in the user's cache after every step, and offers kept ones.

    Parameters
    ----------
    widget : SegmentWidget
    """

    title = "The session"

    def __init__(self, widget: SegmentWidget) -> None:
        self.widget = widget
        self.path: Path | None = None
        self.kept: autosave.Kept | None = None
        self._runner = Runner(widget)
        self._unsaved = False
        self._timer = QTimer(widget)
        self._timer.setSingleShot(True)
        self._timer.setInterval(KEEP_MS)
        self._timer.timeout.connect(self.keep)
        widget.save.clicked.connect(lambda *_: self.save())
        widget.load.clicked.connect(lambda *_: self.open())
        widget.restore.clicked.connect(lambda *_: self.bring_back())
        widget.forget.clicked.connect(lambda *_: self.discard())
        widget.control.prepared.connect(self.later)

    # Kept by themselves

    def start(self, session: Any) -> None:
        """Keep a session from now on."""
        self.path = autosave.new_file(autosave.fingerprint(self.widget.volume))
        self._unsaved = False
        self.widget.restore_bar.setVisible(False)

    def later(self) -> None:
        """Keep the session soon; strokes in quick succession are written once."""
        session = self.widget.control.session
        if session is not None and self.path is not None and session.events:
            self._unsaved = True
            if not self._timer.isActive():
                self._timer.start()

    def _job(self) -> autosave.Autosave | None:
        control = self.widget.control
        if control.session is None or self.path is None:
            return None
        return autosave.Autosave.of(control.session, self.path, control.field)

    def keep(self) -> None:
        """Write the session in a thread."""
        if self._runner.busy:
            self._timer.start()
            return
        job = self._job()
        if job is not None and self._unsaved:
            self._unsaved = False
            self._runner.start(job, returned=lambda path: None, errored=self._not_kept)

    def _not_kept(self, error: Exception) -> None:
        LOGGER.warning("the session could not be kept", exc_info=error)
        self.widget._say(f"The session could not be kept for a crash: {error}")

    def finish(self) -> None:
        """Write what is not written yet, as the session ends."""
        self._timer.stop()
        self._runner.shut_down()
        job = self._job()
        if job is not None and self._unsaved:
            try:
                job(lambda event: None, lambda: False)
            except Exception as error:
                self._not_kept(error)
        if self.path is not None:
            autosave.release(self.path)
        self.path, self._unsaved = None, False

    def look_for_kept(self) -> None:
        """Offer the newest kept session of the chosen image, if there is one."""
        widget = self.widget
        self.kept = None
        try:
            if widget.control.session is None and widget.images.layers:
                volume, _ = volume_from_layers(widget.images.layers)
                found = autosave.find(autosave.fingerprint(volume))
                self.kept = found[0] if found else None
        except (MedGSError, OSError):
            pass  # an image that cannot be segmented has no sessions; the button says why
        if self.kept is not None:
            when = time.strftime("%d %b, %H:%M", time.localtime(self.kept.saved))
            widget.restore_note.setText(f"Strokes on this image were kept on {when}.")
        widget.restore_bar.setVisible(self.kept is not None)

    @guarded
    def bring_back(self) -> None:
        """Open the kept session."""
        if self.kept is not None:
            self.open_log(self.kept.path)

    @guarded
    def discard(self) -> None:
        """Remove the kept session and offer the one before."""
        if self.kept is not None:
            autosave.discard(self.kept)
        self.look_for_kept()

    # Saved and opened by the user

    @guarded
    def save(self) -> None:
        """Ask for a file and save there once the result is that of a full solve."""
        widget = self.widget
        if widget.control.session is None:
            raise ParameterError("There is no session to save yet: paint first.")
        chosen = widget.ask_file(True)
        if chosen:
            self.save_to(chosen)

    def save_to(self, chosen: str | Path) -> None:
        """Save log and field, after a full solve where one is due."""
        path = Path(chosen)
        path = path if path.suffix.lower() == ".json" else path.with_name(path.name + ".json")
        self.widget.control.sync_strokes()
        self.widget.control.when_settled(lambda: self._write(path))

    def _write(self, path: Path) -> None:
        from napari_medgs.io.fields import save_field

        control = self.widget.control
        session = control.session
        if session is None:
            return
        try:
            if control.field is not None:
                field = path.with_name(path.stem + autosave.FIELD)
                save_field(field, control.field)
                session.field = field.name
            from napari_medgs.segmentation import save_session

            save_session(session, path)
        except MedGSError as error:
            show_failure(error, "Saving")
            return
        unsolved = "" if session.is_current else " (without a result: strokes of two classes needed)"
        self.widget._say(f"Saved {path.name}{unsolved}.")

    @guarded
    def open(self) -> None:
        """Ask for a session file and go on with it."""
        chosen = self.widget.ask_file(False)
        if chosen:
            self.open_log(chosen)

    def open_log(self, chosen: str | Path) -> None:
        """Go on with a session of the chosen image.

        Raises
        ------
        MedGSError
            When it is no session, or another image's.
        """
        from napari_medgs.segmentation import load_session

        widget, path = self.widget, Path(chosen)
        volume, frame = widget._take_image()
        session, _ = load_session(path, volume.grid)
        field = path.parent / session.field if session.field else None
        settings = session.settings
        widget.value_form.load(settings.unlabeled, settings.background)
        widget.settings.load(settings.params)
        values = {settings.background} if settings.background is not None else set()
        widget.table.fill(values | set(session.names), settings.background, session.names)
        widget.end()
        layer = add_strokes_layer(
            widget.viewer, widget.images.layers[0], session.names, widget.table.colors, frame.ndim
        )
        largest = int(session.strokes.max())
        layer.data = frame.to_layer(session.strokes).astype(np_type(largest))
        widget.begin(layer, session, field)
        widget.tools.show_marks(settings)
        widget.tools.show_strokes()

    def shut_down(self) -> None:
        """Stop listening for time."""
        self._timer.stop()
        self._runner.shut_down()


def np_type(largest: int) -> Any:
    """Return the smallest unsigned type that holds a value."""
    import numpy as np

    return np.min_scalar_type(max(largest, 255))
