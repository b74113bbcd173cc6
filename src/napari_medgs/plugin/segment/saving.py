"""What the buttons of the last step write: mask, meshes, session, all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.export.jobs import KINDS, export_job, place_warning, with_suffix
from napari_medgs.plugin.file_names import (
    completed,
    free_path,
    refuse_open_files,
    suggested_path,
    with_ending,
)
from napari_medgs.plugin.report import guarded, show_failure, show_hint
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.files import SegmentFiles
from napari_medgs.plugin.segment.view import SegmentView
from napari_medgs.plugin.worker import Job, Runner

ENDINGS = {"mask": "_mask", "mesh": "_mesh", "session": "_session"}
SUFFIXES = {"mask": ".nii.gz", "mesh": ".ply", "session": ".json"}


def in_turn(jobs: list[Job]) -> Job:
    """Return one job that runs several, whose result is the list of theirs."""

    def run(progress: ProgressCallback, should_stop: StopCallback) -> list[Any]:
        return [job(progress, should_stop) for job in jobs]

    return run


class SaveActions:
    """Writes the mask and what belongs to it, beside the image unless the user says otherwise.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    files : SegmentFiles
        Saves sessions.
    """

    title = "Saving"

    def __init__(
        self,
        owner: Any,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        files: SegmentFiles,
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self._files = files
        self._runner = Runner(owner)
        self.written: list[Path] = []
        saving = view.saving
        saving.mask.clicked.connect(lambda *_: self.ask("mask"))
        saving.meshes.clicked.connect(lambda *_: self.ask("mesh"))
        saving.everything.clicked.connect(lambda *_: self.ask_all())
        controller.prompts_changed.connect(self._on_edited)
        controller.shown.connect(self._on_changed)

    @property
    def busy(self) -> bool:
        """Whether files are being written."""
        return self._runner.busy

    def _on_edited(self) -> None:
        # What was accepted before is older than the mask that is worked on now.
        self._view.saving.what.choose(None)
        self._on_changed()

    def _on_changed(self, *_: object) -> None:
        state = self._controller.state
        state.saved = False
        if not state.volumes_ml:
            state.checked = False

    @property
    def layer(self) -> Any:
        """The Labels layer to write: the chosen accepted one, else the mask on show.

        Raises
        ------
        ParameterError
            When there is none.
        """
        layer = self._view.saving.what.layer or self._context.result_layer
        if layer is None:
            raise ParameterError("There is no mask to save yet: paint strokes first.")
        return layer

    def suggested(self, kind: str) -> Path:
        """Return a path that no file has: in the image's folder, with its name.

        Parameters
        ----------
        kind : {"mask", "mesh", "session"}
        """
        image = self._context.image or self.layer
        layers, suffix = self._context.viewer.layers, SUFFIXES[kind]
        return free_path(suggested_path(layers, image, suffix, image.name + ENDINGS[kind]), suffix)

    # What the user presses

    @guarded
    def ask(self, kind: str) -> None:
        """Ask for the file of "mask" or "mesh" and write it."""
        _ = self.layer
        chosen = self._ask_path(kind, KINDS[kind].title, KINDS[kind].suffixes)
        if chosen:
            self.save(kind, completed(chosen, KINDS[kind].suffixes))

    @guarded
    def ask_all(self) -> None:
        """Ask for the mask's file; meshes and session are written beside it."""
        _ = self.layer
        chosen = self._ask_path("mask", "Save all", KINDS["mask"].suffixes)
        if not chosen:
            return
        mask = completed(chosen, KINDS["mask"].suffixes)
        paths = self.beside(mask)
        there = [p.name for kind, p in paths.items() if kind != "mask" and p.exists()]
        if not there or self._may_replace(there):
            self.save_all(mask)

    def _ask_path(self, kind: str, title: str, suffixes: tuple[str, ...]) -> str:
        shown = " ".join(f"*{s}" for s in suffixes)
        start = str(self.suggested(kind))
        return str(QFileDialog.getSaveFileName(self._view, title, start, f"{title} ({shown})")[0])

    def _may_replace(self, names: list[str]) -> bool:
        text = f"{' and '.join(names)} beside it: there already. Replace?"
        return QMessageBox.question(self._view, "Save all", text) == QMessageBox.StandardButton.Yes

    def beside(self, mask: str | Path) -> dict[str, Path]:
        """Return the paths of mask, meshes and session by the mask's.

        Parameters
        ----------
        mask : path
        """
        path = with_suffix(mask, "mask")
        paths = {"mask": path}
        for kind in ("mesh", "session"):
            paths[kind] = with_ending(path, ENDINGS["mask"], ENDINGS[kind], SUFFIXES[kind])
        return paths

    # What is written

    @guarded
    def save(self, kind: str, path: str | Path) -> None:
        """Write "mask" or "mesh" once the mask is that of a full solve."""
        layer = self.layer
        refuse_open_files(self._context.viewer.layers, [with_suffix(path, kind)])
        self._when_ready(layer, lambda: self._run([export_job(kind, layer, path)], layer, kind))

    @guarded
    def save_all(self, mask: str | Path) -> None:
        """Write mask, meshes and session beside each other."""
        layer, paths = self.layer, self.beside(mask)
        refuse_open_files(self._context.viewer.layers, paths.values())

        def write() -> None:
            jobs = [export_job(kind, layer, paths[kind]) for kind in ("mask", "mesh")]
            self._run(jobs, layer, "mask")
            if self._controller.session is not None:
                self._files.save(paths["session"])

        self._when_ready(layer, write)

    def _when_ready(self, layer: Any, write: Callable[[], None]) -> None:
        if layer is self._context.result_layer and self._controller.session is not None:
            self._controller.sync_strokes()
            self._controller.when_current(lambda: self._guard(write))
        else:
            write()

    def _guard(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            show_failure(error, self.title)

    def _run(self, jobs: list[Job], layer: Any, kind: str) -> None:
        if self._runner.busy:
            raise ParameterError(
                "The last files are still being written; press again in a moment."
            )
        revision, warning = self._controller.revision, place_warning(kind, layer)

        def done(paths: list[Path]) -> None:
            self.written = paths
            state = self._controller.state
            state.saved = revision == self._controller.revision
            state.message = f"Saved {' and '.join(p.name for p in paths)} in {paths[0].parent}."
            if warning is not None:
                show_hint(warning)

        self._runner.start(
            in_turn(jobs), returned=done, errored=lambda error: show_failure(error, self.title)
        )

    def shut_down(self) -> None:
        """Stop and join the thread."""
        self._runner.shut_down()
