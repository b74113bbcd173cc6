"""Going from case to case: keeping what is finished, opening the next image of the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.file_names import file_of
from napari_medgs.plugin.layer_metadata import SOURCE_KEY
from napari_medgs.plugin.next_cases import ORDER, images_beside, kept_files, next_image
from napari_medgs.plugin.report import LOGGER, guarded, show_failure
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.view import SegmentView
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import CaseRecord, ClassList, Session

FOLDER = "medgs-cases"


@dataclass(frozen=True)
class KeepCase:
    """Put a case into a folder, in a thread.

    Attributes
    ----------
    folder : Path
    volume : Volume
    labels : (Z, Y, X) ndarray of int
    classes : ClassList
    session : Session or None
    images : tuple of str
    wanted : str
        Text to make a name of.
    """

    folder: Path
    volume: Volume
    labels: NDArray[Any]
    classes: ClassList
    session: Session | None
    images: tuple[str, ...]
    wanted: str

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> CaseRecord:
        """Return the record of the case."""
        from napari_medgs.segmentation import CaseStore

        store = CaseStore(self.folder)
        name = store.name_for(self.volume, self.wanted)
        return store.add(
            name, self.volume, self.labels, self.classes, session=self.session, images=self.images
        )


@dataclass(frozen=True)
class FindNext:
    """Find the next image of a folder that is not kept yet, in the order of Learn if it has one.

    Attributes
    ----------
    path : Path
        Of the image that is open.
    place : Path or None
        The folder of cases.
    """

    path: Path
    place: Path | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Path | None:
        """Return it, or None where all are done."""
        return next_image(self.path, kept_files(self.place), ORDER.files)


class CaseActions:
    """What the buttons for the cases of a folder do.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    classes : callable
        () -> the list of classes with names and colors.
    begin : callable
        (image layer, list of classes) -> None: begins with another image.
    end : callable
        () -> None: ends the session.
    """

    title = "The case"

    def __init__(
        self,
        owner: Any,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        classes: Callable[[], ClassList],
        begin: Callable[[Any, ClassList], None],
        end: Callable[[], None],
    ) -> None:
        self._owner, self._view = owner, view
        self._controller, self._context = controller, context
        self._classes, self._begin, self._end = classes, begin, end
        self._runner, self._lister = Runner(owner), Runner(owner)
        self._listed: Path | None = None
        self.folder: Path | None = None
        saving = view.saving
        saving.keep.clicked.connect(lambda *_: self.keep())
        saving.next.clicked.connect(lambda *_: self.go_on())
        saving.folder.clicked.connect(lambda *_: self.ask_folder())
        view.images.changed.connect(self.refresh)
        saving.next.setEnabled(False)  # until an image is chosen whose folder has a next one
        self.refresh()

    @property
    def busy(self) -> bool:
        """Whether a case is being written."""
        return self._runner.busy

    # Where

    def _image(self) -> Any:
        layers = self._view.images.layers
        return layers[0] if layers else None

    def place(self) -> Path | None:
        """Return the folder of cases: the chosen one, else one beside the image's file."""
        image = self._image()
        path = None if image is None else file_of(image)
        if self.folder is not None or path is None:
            return self.folder
        return path.parent / FOLDER

    def refresh(self) -> None:
        """Follow the chosen image: whether there is a next one. The folder is read in a thread."""
        image = self._image()
        path = None if image is None else file_of(image)
        if path != self._listed:
            self._listed = path
            self._show_next(path, False)
            if path is not None and not self._lister.busy:
                self._list()

    def _list(self) -> None:
        path = self._listed
        if path is None:
            return
        self._lister.start(
            lambda progress, should_stop: len(images_beside(path)) > 1,
            returned=lambda there: self._show_next(path, there),
            errored=lambda error: LOGGER.info("no list of %s", path.parent, exc_info=error),
            finished=lambda: None if self._listed == path else call_later(self._owner, self._list),
        )

    def _show_next(self, path: Path | None, there: bool) -> None:
        if path == self._listed:
            self._controller.state.has_next_case = there
            self._view.saving.next.setEnabled(there)

    @guarded
    def ask_folder(self) -> None:
        """Ask for the folder of cases."""
        start = self.place()
        start = start if start is None or start.is_dir() else start.parent
        chosen = QFileDialog.getExistingDirectory(
            self._view, "Folder of finished cases", "" if start is None else str(start)
        )
        if chosen:
            self.folder = Path(chosen)
            self._view.saving.show_place(f"Cases are kept in {self.folder}.")

    # What

    @guarded
    def keep(self) -> None:
        """Put the case into the folder once the mask is that of a full solve."""
        self._keep(lambda: None)

    @guarded
    def go_on(self) -> None:
        """Keep the case if there is a mask, then open the next image with the same classes."""
        image = self._image()
        if image is None or file_of(image) is None:
            raise ParameterError("The image comes from no file: open the next one yourself.")
        if self._controller.state.volumes_ml:
            self._keep(self._open_next)
        else:
            self._open_next()

    def _keep(self, then: Callable[[], None]) -> None:
        if not self._controller.state.volumes_ml:
            raise ParameterError("There is no mask to keep yet: paint strokes first.")
        if self._runner.busy:
            raise ParameterError("The last case is still being written; press again in a moment.")
        if self.place() is None:
            self.ask_folder()
            if self.folder is None:
                return
        self._controller.sync_strokes()
        self._controller.when_current(lambda: self._write(then))

    @guarded
    def _write(self, then: Callable[[], None]) -> None:
        context, controller, place = self._context, self._controller, self.place()
        session = controller.session
        if session is None or context.volume is None or place is None:
            return
        if not controller.is_current:
            raise ParameterError("There is no mask of the present strokes to keep.")
        labels = np.array(session.labels)
        job = KeepCase(
            place,
            context.volume,
            labels,
            self._classes(),
            session.copy_for_saving(),
            tuple(str(p) for p in map(file_of, context.sources) if p is not None),
            context.image.name,
        )
        revision = controller.revision
        controller.state.message = f"Keeping {context.image.name} ..."

        def done(record: CaseRecord) -> None:
            controller.state.saved = revision == controller.revision
            controller.state.message = f"Kept as {record.name} in {place}."
            try:
                then()
            except Exception as error:
                show_failure(error, self.title)

        self._runner.start(
            job, returned=done, errored=lambda error: show_failure(error, self.title)
        )

    def _open_next(self) -> None:
        """Open the next image and close this one with its layers."""
        image = self._image()
        path = None if image is None else file_of(image)
        if path is None:
            return
        if self._runner.busy:  # the thread that wrote the case reports before it has ended
            call_later(self._owner, self._open_next, 20)
            return
        self._runner.start(
            FindNext(path, self.place()),
            returned=self._open,
            errored=lambda error: show_failure(error, self.title),
        )

    @guarded
    def _open(self, coming: Path | None) -> None:
        viewer, image = self._context.viewer, self._image()
        if coming is None or image is None:
            self._controller.state.message = "All images of the folder are done."
            return
        classes = self._classes()
        before = list(viewer.layers)
        used = [image, *self._context.sources]
        sources = {name for x in used for name in (x.name, x.metadata.get(SOURCE_KEY)) if name}
        opened = viewer.open(str(coming), plugin="napari-medgs")
        found = [x for x in opened or [] if type(x).__name__ == "Image"]
        if not found:
            raise ParameterError(f"{coming}: holds no image to segment.")
        self._end()
        for layer in before:
            made_of = layer.metadata.get(SOURCE_KEY)
            ours = layer.name in sources or made_of in sources
            if ours or any(layer.name.startswith(f"{name} · ") for name in sources):
                viewer.layers.remove(layer)
        self._begin(found[0], classes)

    def shut_down(self) -> None:
        """Stop and join the thread."""
        self._runner.shut_down()
        self._lister.shut_down()
