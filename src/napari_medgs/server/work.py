"""One client's work: its image, prepared in the background, and the object that it segments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.memory import free_bytes, give_back
from napari_medgs.errors import MedGSError, MemoryEstimateError, ParameterError
from napari_medgs.server.preparation import Model, Preparation

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation import InteractiveSegmenter, SegmentResult
    from napari_medgs.segmentation.session.changes import Delta
    from napari_medgs.segmentation.session.session import Session

log = logging.getLogger("napari_medgs.server")

LONGEST_WAIT = 50.0  # seconds that a prompt waits for the image's preparation
BYTES_PER_VOXEL = 90  # of a session in work: labels, strokes, tree, fit
BYTES_ALWAYS = 200_000_000
SHARE = 0.9  # of the free memory may be taken

Box = list[list[int]]


@dataclass(frozen=True)
class Prediction:
    """What a prompt changed.

    Attributes
    ----------
    ran : bool
        Whether anything was computed or brought back.
    box : list of [start, stop), optional
        The changed region; None where nothing changed.
    labels : ndarray, optional
        The mask in it.
    """

    ran: bool
    box: Box | None = None
    labels: NDArray[Any] | None = None


class WorkSession:
    """All that one client has on the server.

    Use one method at a time; :attr:`lock` guards them.

    Parameters
    ----------
    threads : int, optional
        CPU threads; all by default.
    model : Model, optional
        Segments images before any prompt.
    max_undo : int
        Interactions that can be undone.
    """

    def __init__(
        self, threads: int | None = None, model: Model | None = None, max_undo: int = 200
    ) -> None:
        self._threads, self._model, self._max_undo = threads, model, max_undo
        self.lock = threading.Lock()
        self.segmenter: InteractiveSegmenter | None = None
        self.preparation: Preparation | None = None
        self.dtype = np.dtype(np.uint8)
        self.autozoom = True
        self._steps: list[int] = []  # steps of the segmenter's history per interaction
        self._field: Any = None
        self._closed = False

    # The image

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """The image's shape; None before there is one."""
        return None if self.segmenter is None else self.segmenter.session.grid.shape

    def need(self) -> InteractiveSegmenter:
        """Return the segmenter.

        Raises
        ------
        ParameterError
            Before there is an image.
        """
        if self.segmenter is None:
            raise ParameterError("There is no image yet: set one first.")
        return self.segmenter

    def set_image(self, image: NDArray[Any], spacing: list[float] | None) -> None:
        """Take an image and begin to prepare it.

        Parameters
        ----------
        image : (C, X, Y, Z) ndarray
            In the client's order of axes.
        spacing : list of float, optional
            In the order of the axes.

        Raises
        ------
        MedGSError
            When it cannot be used, or would not fit into memory.
        """
        from napari_medgs.data.volume import Volume
        from napari_medgs.segmentation import InteractiveSegmenter

        self.drop_image()
        needed = BYTES_PER_VOXEL * image[0].size + 4 * image.size + BYTES_ALWAYS
        free = free_bytes()
        if needed > SHARE * free:
            raise MemoryEstimateError(
                f"The image needs about {needed / 1e9:.1f} GB and the server has "
                f"{free / 1e9:.1f} GB free; crop or resample it."
            )
        volume = Volume.from_array(image, spacing).prepared()
        _check_varies(volume)
        segmenter = InteractiveSegmenter()
        segmenter.threads = self._threads
        segmenter.set_image(volume)
        self.segmenter = segmenter
        self.preparation = Preparation(segmenter.volume, self._threads, self._model)

    def drop_image(self) -> None:
        """Stop work on the image and forget it; its memory is given back in the background."""
        preparation = self.preparation
        self.segmenter = self.preparation = self._field = None
        self._steps = []
        if preparation is not None:
            preparation.stop()
            threading.Thread(
                target=_free, args=([preparation],), name="medgs-free", daemon=True
            ).start()

    def close(self) -> None:
        """Give everything back."""
        self._closed = True
        self.drop_image()

    def set_target(self, shape: list[int], dtype: str) -> None:
        """Take note of the client's buffer.

        Raises
        ------
        ParameterError
            When it does not fit the image.
        """
        own = self.need().session.grid.shape
        if tuple(shape) != own:
            raise ParameterError(f"The buffer has shape {tuple(shape)}, the image {own}.")
        try:
            kind = np.dtype(dtype)
        except TypeError:
            kind = np.dtype(object)
        if kind.kind not in "biuf":
            raise ParameterError("The buffer must hold numbers or bool.")
        self.dtype = kind

    def reset(self) -> None:
        """Begin with the next object of the same image."""
        if self.segmenter is None:
            return
        volume = self.segmenter.volume
        self.segmenter.set_image(volume)
        self._field = None
        self._steps = []

    def ready(self, seconds: float = LONGEST_WAIT) -> InteractiveSegmenter:
        """Return the segmenter with the best field that there is.

        Parameters
        ----------
        seconds : float
            To wait for one.

        Raises
        ------
        MedGSError
            When the image cannot be used.
        """
        segmenter = self.need()
        assert self.preparation is not None
        field, tree = self.preparation.wait(seconds)
        if field is not self._field:
            segmenter.set_field(field)
            segmenter.parts.set_tree(tree)
            self._field = field
        segmenter.object.hints = self.preparation.hints
        return segmenter

    # Prompts of the one object

    def interact(self, add: Callable[[Any], None], run: bool) -> Prediction:
        """Add a prompt to the object, and answer.

        Parameters
        ----------
        add : callable
            Takes the segmenter's :class:`ObjectTool`.
        run : bool
            Whether to answer.

        Returns
        -------
        Prediction
        """
        segmenter = self.need()
        history = segmenter.session.history
        before = len(history.done)
        add(segmenter.object)
        self._count(len(history.done) - before)
        return self.predict() if run else Prediction(False)

    def _count(self, steps: int) -> None:
        if steps:
            self._steps = [*self._steps, steps][-self._max_undo :]

    def predict(self) -> Prediction:
        """Answer the prompts since the last answer."""
        segmenter = self.ready()
        begins = not (segmenter.labels == segmenter.object.label).any()
        delta = segmenter.object.answer(should_stop=lambda: self._closed)
        if begins:
            threading.Thread(target=self._ahead, name="medgs-ahead", daemon=True).start()
        return self._region([delta])

    def _ahead(self) -> None:
        """Do what the first correction needs, while the user looks at the first answer."""
        with self.lock:
            if self.segmenter is None:
                return
            try:
                self.segmenter.object.prepare(should_stop=lambda: self._closed)
            except (MedGSError, MemoryError) as error:
                log.debug("nothing was prepared ahead: %s", error)

    def part(self) -> PartSelection:
        """Return the part that the first click chose.

        Raises
        ------
        ParameterError
            Where something else came since.
        """
        part = self.need().object.part
        if part is None:
            raise ParameterError(
                "Sizes can be walked through after the first click on an object, before others."
            )
        return part

    def resize(self, steps: int) -> Prediction:
        """Take a part some levels larger or smaller in place of that of the first click."""
        part = self.part()
        delta = self.need().object.choose(part.at_level(part.level + steps))
        return self._region([delta])

    # All classes at once

    def record(self, add: Callable[[InteractiveSegmenter], Any]) -> None:
        """Add a prompt of any class, as one interaction."""
        segmenter = self.need()
        before = len(segmenter.session.history.done)
        add(segmenter)
        self._count(len(segmenter.session.history.done) - before)

    def full(self) -> SegmentResult:
        """Return a solve of all prompts in the whole image; the mask stays as it is."""
        segmenter = self.ready()
        segmenter.session.prompts().check(segmenter.session.grid.shape)
        segmenter.prepare(should_stop=lambda: self._closed)
        return segmenter.update(should_stop=lambda: self._closed)

    def solve(self) -> Prediction:
        """Solve all prompts in the whole image."""
        result = self.full()
        segmenter = self.need()
        segmenter.object.forget()
        return self._region([segmenter.set_result(result)])

    def go_on(self, session: Session, mask: NDArray[Any]) -> Prediction:
        """Go on with another session of the same image, and its mask."""
        from napari_medgs.segmentation import InteractiveSegmenter
        from napari_medgs.segmentation.session.changes import difference

        old = self.ready()
        before = old.labels
        new = InteractiveSegmenter.from_session(session, old.volume, field=old.field)
        new.threads = self._threads
        new.parts.set_tree(old.parts.tree())
        session.set_result(mask, is_current=False)
        self.segmenter, self._steps = new, [1] * len(session.history.done)
        return self._region([difference(before, new.labels)])

    def set_mask(self, mask: NDArray[Any], run: bool) -> Prediction:
        """Begin with a mask; prompts before it go."""

        def add(tool: Any) -> None:
            segmenter = self.need()
            if segmenter.session.settings.points or segmenter.session.settings.boxes:
                segmenter.update_settings(points=(), boxes=())
            tool.forget()
            tool.set_mask(mask)

        return self.interact(add, run)

    def undo(self) -> Prediction:
        """Undo the last interaction."""
        segmenter = self.need()
        segmenter.object.forget()
        segmenter.object.part = None
        if not self._steps:
            return Prediction(False)
        changes = []
        for _ in range(self._steps.pop()):
            step = segmenter.undo()
            if step is not None and step.result is not None:
                changes.append(step.result)
        return self._region(changes)

    def _region(self, changes: list[Delta]) -> Prediction:
        """Return the smallest box of the mask that holds changed voxels."""
        labels = self.need().labels
        boxes = [change.box(labels.shape) for change in changes if change.voxels]
        if not boxes:
            return Prediction(True)
        window = tuple(
            slice(min(s.start for s in sides), max(s.stop for s in sides))
            for sides in zip(*boxes, strict=True)
        )
        kind = self.dtype if self.dtype.kind in ("b", "u", "i") else np.dtype(np.uint8)
        return Prediction(
            True,
            [[s.start, s.stop] for s in window],
            np.ascontiguousarray(labels[window]).astype(kind),
        )


def _free(ended: list[Preparation]) -> None:
    """Free what an ended preparation held, as soon as nothing works on it any more."""
    ended.pop().join()
    give_back()


def _check_varies(volume: Volume) -> None:
    for channel in volume.data:
        if channel.min() == channel.max():
            from napari_medgs.errors import ImageError

            raise ImageError("The image has the same value everywhere; there is nothing to find.")
