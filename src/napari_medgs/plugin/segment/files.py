"""Sessions of the Segment widget as files: autosaved, saved, opened, restored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_medgs.data.intensities import finite_volume
from napari_medgs.errors import MedGSError, ParameterError
from napari_medgs.plugin.file_names import completed, source_folder, suggested_path
from napari_medgs.plugin.image_digest import fingerprint
from napari_medgs.plugin.layer_volumes import volume_from_layers
from napari_medgs.plugin.report import LOGGER, guarded, show_failure, show_hint
from napari_medgs.plugin.segment import autosave
from napari_medgs.plugin.segment.accepted import AcceptedLayers
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.session_images import arrange, images_of, refuse_others
from napari_medgs.plugin.segment.view import RESTORE_HINT, SegmentView
from napari_medgs.plugin.trees import save_with_tree, tree_of
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.segmentation import Session

AUTOSAVE_MS = 400
OTHER_MASK = (
    "This mask differs from the one that was saved with the session: are the images, their order "
    "or the program others?"
)


class SegmentFiles:
    """Autosaves the session in the user's cache after every step, and offers saved ones.

    Parameters
    ----------
    owner : QWidget
        Parent of the timer.
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    accepted : AcceptedLayers
    resume : callable
        (session, field file or None, name of the session's file) -> None: continues a session of
        the chosen image.
    """

    title = "The session"

    def __init__(
        self,
        owner: Any,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        accepted: AcceptedLayers,
        resume: Callable[[Session, Path | None, str], None],
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self._accepted, self._resume = accepted, resume
        self.path: Path | None = None
        self.found: autosave.SavedSession | None = None
        self._runner = Runner(owner)
        self._unsaved = False
        self._timer = QTimer(owner)
        self._timer.setSingleShot(True)
        self._timer.setInterval(AUTOSAVE_MS)
        self._timer.timeout.connect(self._autosave)
        view.save.clicked.connect(lambda *_: self.ask_and_save())
        view.load.clicked.connect(lambda *_: self.ask_and_open())
        view.restore.clicked.connect(lambda *_: self.restore())
        view.discard.clicked.connect(lambda *_: self.discard())
        controller.prepared.connect(self.schedule_autosave)
        controller.prompts_changed.connect(self.schedule_autosave)
        view.table.renamed.connect(lambda *_: self.schedule_autosave())

    # Autosaved

    def start(self) -> None:
        """Autosave the session that begins from now on."""
        assert self._context.volume is not None
        self.path = autosave.new_file(fingerprint(self._context.volume))
        self._unsaved = False
        self._view.restore_bar.setVisible(False)

    def schedule_autosave(self) -> None:
        """Save the session soon; strokes in quick succession are written once."""
        session = self._controller.session
        if session is not None and self.path is not None and session.events:
            self._unsaved = True
            if not self._timer.isActive():
                self._timer.start()

    @property
    def is_saved(self) -> bool:
        """Whether every step so far is in the autosaved file."""
        written = self.path is not None and self.path.exists()
        return written and not self._unsaved and not self._runner.busy

    def _job(self) -> autosave.Autosave | None:
        controller = self._controller
        if controller.session is None or self.path is None:
            return None
        self._accepted.collect(controller.session)
        return autosave.Autosave.of(controller.session, self.path, controller.field)

    def _autosave(self) -> None:
        if self._runner.busy:
            self._timer.start()
            return
        job = self._job()
        if job is not None and self._unsaved:
            self._unsaved = False
            self._runner.start(job, returned=lambda path: None, errored=self._on_autosave_error)

    def _on_autosave_error(self, error: Exception) -> None:
        LOGGER.warning("the session could not be autosaved", exc_info=error)
        self._controller.state.message = f"The session could not be autosaved: {error}"

    def finish(self) -> None:
        """Write what is not written yet, as the session ends."""
        self._timer.stop()
        self._runner.shut_down()
        job = self._job()
        if job is not None and self._unsaved:
            try:
                job(lambda event: None, lambda: False)
            except Exception as error:
                self._on_autosave_error(error)
        if self.path is not None:
            autosave.release(self.path)
        self.path, self._unsaved = None, False

    def look_for_saved(self) -> None:
        """Offer the newest autosaved session of the chosen image, if there is one."""
        view = self._view
        self.found = None
        try:
            if self._controller.session is None and view.images.layers:
                volume, _ = volume_from_layers(view.images.layers)
                volume, _ = finite_volume(volume)  # as the session has it
                found = autosave.find(fingerprint(volume))
                self.found = found[0] if found else None
        except (MedGSError, OSError):
            pass  # an image that cannot be segmented has no sessions; the button says why
        if self.found is not None:
            when = time.strftime("%d %b, %H:%M", time.localtime(self.found.saved))
            view.restore_note.setText(f"Strokes on this image were saved on {when}.")
        elif self._controller.state.message == RESTORE_HINT:
            self._controller.state.message = ""
        view.restore_bar.setVisible(self.found is not None)

    def saved_session(self) -> Session | None:
        """Return the autosaved session that is offered, None where it cannot be read."""
        return None if self.found is None else self.session_of(self.found.path.name)

    def place_of(self, key: str) -> Path:
        """Return the autosaved file of a session by its name."""
        return autosave.folder() / key

    def session_of(self, key: str) -> Session | None:
        """Return an autosaved session of the chosen image, None where it cannot be read."""
        from napari_medgs.segmentation import load_session

        path = self.place_of(key)
        if not path.is_file() or self._view.images.layers == []:
            return None
        try:
            volume, _ = self._context.load_images(self._view.images.layers)
            return load_session(path, volume.grid)[0]
        except MedGSError as error:
            LOGGER.info("a saved session cannot be continued: %s", error)
            return None

    @guarded
    def restore(self) -> None:
        """Open the autosaved session that is offered."""
        if self.found is not None:
            self.open(self.found.path)

    @guarded
    def discard(self) -> None:
        """Delete the autosaved session that is offered, and offer the one before."""
        if self.found is not None:
            autosave.discard(self.found)
        self.look_for_saved()

    # Saved and opened by the user

    @guarded
    def ask_and_save(self) -> None:
        """Ask for a file and save there once the result is that of a full solve."""
        if self._controller.session is None:
            raise ParameterError("There is no session to save yet: paint first.")
        layers, image = self._context.viewer.layers, self._context.image
        start = suggested_path(layers, image, ".json", f"{image.name} session")
        chosen = self._view.ask_file(True, str(start))
        if chosen:
            self.save(completed(chosen, (".json",)))

    def save(self, chosen: str | Path) -> None:
        """Save session and field, after a full solve where one is due.

        Parameters
        ----------
        chosen : path
            ".json" is added where it is missing.
        """
        path = Path(chosen)
        path = path if path.suffix.lower() == ".json" else path.with_name(path.name + ".json")
        self._controller.sync_strokes()
        self._controller.when_current(lambda: self._write(path))

    def _write(self, path: Path) -> None:
        controller = self._controller
        segmenter = controller.segmenter
        if segmenter is None:
            return
        try:
            self._accepted.collect(segmenter.session)
            if segmenter.field is not None:
                field = path.with_name(path.stem + autosave.FIELD)
                tree = tree_of(self._context.viewer.layers, segmenter.field)
                save_with_tree(field, segmenter.field, tree)
                segmenter.session.field = field.name
            segmenter.save(path)
        except MedGSError as error:
            show_failure(error, "Saving")
            return
        without = "" if controller.is_current else " (no mask yet: paint strokes of two classes)"
        controller.state.message = f"Saved {path.name}{without}."

    @guarded
    def ask_and_open(self) -> None:
        """Ask for a session file and continue it."""
        images = self._view.images.layers
        folder = source_folder(self._context.viewer.layers, images[0]) if images else None
        chosen = self._view.ask_file(False, "" if folder is None else str(folder))
        if chosen:
            self.open(chosen)

    def open(self, chosen: str | Path) -> None:
        """Continue a session of the chosen image.

        Parameters
        ----------
        chosen : path

        Raises
        ------
        MedGSError
            When it is no session, or another image's.
        """
        from napari_medgs.segmentation import load_session

        path = Path(chosen)
        volume, _ = self._context.load_images(self._view.images.layers)
        session, mask = load_session(path, volume.grid)
        if self._check_images(session):
            self._context.load_images(self._view.images.layers)
        field = path.parent / session.field if session.field else None
        self._resume(session, field, path.name)
        if mask and self._controller.state.auto_update:
            self._compare(session, mask)

    def _compare(self, session: Session, mask: str) -> None:
        """Say so when the mask becomes another one than that in the session's file."""
        from napari_medgs.segmentation.session.replay import digest

        controller = self._controller
        revision = controller.revision

        def compare() -> None:
            ours = controller.session is session and controller.revision == revision
            if ours and controller.is_current and digest(session.labels) != mask:
                show_hint(OTHER_MASK)

        controller.when_current(compare)

    def _check_images(self, session: Session) -> bool:
        """Check the session's images in its order; tell whether that changed what is checked."""
        images = self._view.images
        found, missing = images_of(session.images, images.listed)
        refuse_others(session.images, missing, len(images.layers))
        if not found or missing or found == images.layers:
            return False
        arrange(self._context.viewer, found)
        images.check(found)
        return True

    def shut_down(self) -> None:
        """Stop the timer and the thread."""
        self._timer.stop()
        self._runner.shut_down()
