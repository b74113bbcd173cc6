"""Pre-segment: a trained model draws the first mask, which strokes correct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.learning.card import SUFFIX
from napari_medgs.plugin.report import guarded, show_failure, show_hint
from napari_medgs.plugin.segmenter_choice import CHOICE
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.volume import Volume
    from napari_medgs.plugin.segment.class_files import ClassFiles
    from napari_medgs.plugin.segment.context import SegmentContext
    from napari_medgs.plugin.segment.controller import SegmentController
    from napari_medgs.plugin.segment.view import SegmentView

KINDS = f"Models (*{SUFFIX})"
WORDS, STOP = "Pre-segment", "Stop"


@dataclass(frozen=True)
class FirstMask:
    """What a model says of an image.

    Attributes
    ----------
    prior : (K, Z, Y, X) ndarray of float32
        Probabilities by label value.
    note : str
        What the folds say of it.
    warning : str
        Where the image is unlike the training cases; else empty.
    """

    prior: NDArray[Any]
    note: str
    warning: str


@dataclass(frozen=True)
class DrawFirstMask:
    """Segment an image with a model.

    Attributes
    ----------
    model : Path
    volume : Volume
    """

    model: Path
    volume: Volume

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> FirstMask:
        """Return the probabilities and what the folds say."""
        from napari_medgs.learning import load_segmenter
        from napari_medgs.learning.polishing import is_polished, polish_result
        from napari_medgs.learning.summary import summarize

        progress(ProgressEvent("load the model", 0, 0, 0.0))
        segmenter = load_segmenter(self.model)
        found = segmenter.segment(
            self.volume,
            probabilities=True,
            folds=True,
            progress=progress,
            should_stop=should_stop,
        )
        if is_polished(segmenter.card):
            found = polish_result(
                segmenter.card, self.volume, found, progress=progress, should_stop=should_stop
            )
        numbers = summarize(segmenter, self.volume, found)
        note = "Correct it with strokes."
        if "agreement" in numbers:
            level, said = numbers["trust"], numbers["calibration"]
            note = f"Agreement of the folds {numbers['agreement']:.2f}, {level}. {said}"
        unlike, warning = numbers.get("unlike_training"), ""
        if unlike is not None and unlike > 1:
            warning = "This image is unlike the cases that the model learned from: check the mask."
        return FirstMask(segmenter.by_value(found.probability()), note, warning)


class PreSegment:
    """What the button Pre-segment does.

    Parameters
    ----------
    owner : MedGSWidget
        Whose life the thread shares.
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    classes : ClassFiles
        Shows the classes of the model.
    begin : callable
        () -> None: begins a session with a new strokes layer.
    """

    title = "Pre-segment"

    def __init__(
        self,
        owner: Any,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        classes: ClassFiles,
        begin: Callable[[], None],
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self._classes, self._begin = classes, begin
        self._runner = Runner(owner)
        view.presegment.clicked.connect(lambda *_: self.toggle())
        view.choose_model.clicked.connect(lambda *_: self.ask())
        owner.listen(CHOICE.changed, self._show_model)
        controller.prompts_changed.connect(self._on_prompts)
        self._show_model()

    @property
    def busy(self) -> bool:
        """Whether a model is running."""
        return self._runner.busy

    def toggle(self) -> None:
        """Begin, or stop what runs."""
        if self._runner.busy:
            self._runner.stop()
            self._view.presegment.setEnabled(False)
        else:
            self.run()

    @guarded
    def ask(self) -> None:
        """Ask for the file of a model."""
        start = "" if CHOICE.path is None else str(CHOICE.path)
        chosen = QFileDialog.getOpenFileName(self._view, "Model", start, KINDS)[0]
        if chosen:
            from napari_medgs.learning.files import load_segmenter_card

            load_segmenter_card(chosen)
            CHOICE.choose(Path(chosen))

    @guarded
    def run(self) -> None:
        """Draw the first mask; as one step, which Undo takes back."""
        if CHOICE.path is None:
            self.ask()
        model = CHOICE.path
        if model is None:
            return
        from napari_medgs.learning.files import load_segmenter_card
        from napari_medgs.segmentation import ClassList

        card = load_segmenter_card(model)
        if not self._view.images.layers:
            raise ParameterError("Open an image and choose it first.")
        volume, _ = self._context.load_images(self._view.images.layers)
        card.check_image(volume)
        used = frozenset(self._view.table.classes) if self._controller.session else frozenset()
        self._classes.show(ClassList.of(card.names), keep=used)
        if self._controller.session is None:
            self._begin()
            if self._controller.session is None:
                return  # why was said
        session = self._controller.session
        self._view.presegment.setText(STOP)
        self._say("The model draws the mask ...")

        def done(found: FirstMask) -> None:
            try:
                self._show(found, session)
            except Exception as error:
                show_failure(error, self.title)

        def progressed(event: ProgressEvent) -> None:
            if event.total > 1:
                self._say(f"The model draws the mask ... {event.done} of {event.total}")

        def finished() -> None:
            self._view.presegment.setEnabled(True)
            self._view.presegment.setText(WORDS)

        def cancelled() -> None:
            self._say("Stopped; nothing has changed.")

        def errored(error: Exception) -> None:
            self._say("")
            show_failure(error, self.title)

        self._runner.start(
            DrawFirstMask(model, volume),
            returned=done,
            errored=errored,
            cancelled=cancelled,
            progressed=progressed,
            finished=finished,
        )

    def _show(self, found: FirstMask, session: Any) -> None:
        """Show the mask, unless the session is another one by now."""
        controller = self._controller
        if controller.session is not session:
            self._say("")
            return
        controller.sync_strokes()
        controller.set_prior(found.prior)
        self._say(found.note)
        if found.warning:
            show_hint(found.warning)

    def _say(self, text: str) -> None:
        """Show a line below the button; none for an empty text."""
        self._view.model_note.setText(text)
        self._view.model_note.setVisible(bool(text))

    def _on_prompts(self) -> None:
        """Say nothing of a mask that was undone; Redo brings the words back with it."""
        session, note = self._controller.session, self._view.model_note
        if not self._runner.busy:
            there = session is not None and session.prior is not None
            note.setVisible(bool(note.text()) and there)

    def forget(self) -> None:
        """Forget what was said of a mask, when its session ends."""
        if not self._runner.busy:
            self._say("")

    def _show_model(self, *_: object) -> None:
        path = CHOICE.path
        tip = "A trained model draws the mask of this image as one step; strokes correct it."
        named = "Asks for the model." if path is None else f"Model: {path}."
        self._view.presegment.setToolTip(f"{tip} {named}")

    def shut_down(self) -> None:
        """Stop and join the thread."""
        self._runner.shut_down()
