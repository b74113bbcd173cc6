"""The Learn widget: cases in, a trained segmenter out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_medgs.learning.card import SUFFIX
from napari_medgs.plugin.file_names import completed
from napari_medgs.plugin.learn.curve import TrainingCurve
from napari_medgs.plugin.learn.jobs import (
    TrainOutcome,
    TrainRequest,
    describe_order,
    describe_outcome,
    last_model,
    make_order_request,
    make_train_request,
    suggested_images,
    suggested_output,
)
from napari_medgs.plugin.next_cases import ORDER
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segmenter_choice import CHOICE
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import add_row, hint
from napari_medgs.plugin.widgets.icons import IconButton
from napari_medgs.plugin.widgets.task_panel import TaskPanel

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_medgs.learning.ranking import RankedCase

MINUTES = 10.0
TABLES = "Tables (*.csv *.tsv)"
MODELS = f"Models (*{SUFFIX})"
GUIDE = (
    "Train a network on images with masks, such as the cases that you kept in Segment. "
    "Pre-segment there then draws the first mask of the next image."
)
CANCELED = (
    "Canceled in the first steps, before the network was of use: nothing was saved. Earlier "
    "models are as they were."
)


class LearnWidget(MedGSWidget):
    """Train a segmenter on one's own cases.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    source, output : QLineEdit
        Where the cases are, and where the model is saved.
    minutes : QDoubleSpinBox
    resample, measure, polish, go_on : QCheckBox
        Whether images of other grids are resampled, whether folds are trained, whether polishing
        is tried on them, and whether the last model is continued.
    panel : TaskPanel
        Train, Cancel and progress.
    curve : TrainingCurve
    result : QLabel
    images : QLineEdit
        Where the images without masks are.
    order_button : QPushButton
    coming : QLabel
        Which of them to annotate next.
    """

    title = "Training"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.body.addWidget(hint(GUIDE))
        form = self.form()
        self.source, browse = QLineEdit(), IconButton("folder_open_outline", "Choose the cases.")
        self.source.setPlaceholderText("folder or table of cases")
        menu = QMenu(browse)
        self.choose_folder = menu.addAction("Folder…")
        self.choose_table = menu.addAction("Table…")
        browse.setMenu(menu)
        tip = (
            "A folder of kept cases or in nnU-Net's layout, one with images and labels, a "
            "BIDS data set, or a table with the columns image and mask."
        )
        add_row(form, "Cases", _beside(self.source, browse), tip)
        self.output = QLineEdit()
        self.output.setPlaceholderText("beside the cases")
        save = IconButton("content_save_outline", "Choose where the model is saved.")
        add_row(form, "Model", _beside(self.output, save), "The file of the trained model.")
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 10_000)
        self.minutes.setDecimals(1)
        self.minutes.setValue(MINUTES)
        self.minutes.setSuffix(" min")
        tip = "Time for everything. Cancel keeps the best network so far."
        add_row(form, "Time", self.minutes, tip)
        self.resample = QCheckBox("bring images and mask onto one grid")
        self.resample.setToolTip(
            "Resample further contrasts to the grid of a case's first image, linearly, and its "
            "mask by the nearest label. Otherwise cases of several grids are refused."
        )
        form.addRow(self.resample)
        self.measure = QCheckBox("measure it on cases left out")
        self.measure.setChecked(True)
        self.measure.setToolTip(
            "Train four further networks that each leave out half of the cases. They tell how "
            "good the model is, and on new images where it is unsure. Takes two thirds of the "
            "time."
        )
        form.addRow(self.measure)
        self.polish = QCheckBox("polish masks where that helps")
        self.polish.setToolTip(
            "Also measure on the cases left out whether moving the masks' borders along the edges "
            "of the image helps. Where it does, the model's masks are polished from then on."
        )
        self.measure.toggled.connect(self.polish.setEnabled)
        form.addRow(self.polish)
        self.go_on = QCheckBox("continue the last model")
        self.go_on.setToolTip(
            "Begin with the weights of the model that was trained or chosen last, or of the "
            "newest one beside the cases, for cases that were added."
        )
        form.addRow(self.go_on)
        self.panel = TaskPanel(self, "Train", "Check the cases, then train on them.")
        self.panel.cancel.setToolTip("Stop now; the best network so far is kept.")
        self.body.addWidget(self.panel)
        self.curve = TrainingCurve()
        self.body.addWidget(self.curve)
        self.result = QLabel()
        self.result.setObjectName("medgs-result")
        self.result.setWordWrap(True)
        self.result.setVisible(False)
        self.body.addWidget(self.result)
        self._add_order()
        self.body.addStretch(1)
        self._request: TrainRequest | None = None
        self._show_start()
        self.choose_folder.triggered.connect(lambda *_: self.ask_folder())
        self.choose_table.triggered.connect(lambda *_: self.ask_table())
        save.clicked.connect(lambda *_: self.ask_output())
        self.source.textChanged.connect(lambda *_: self._suggest())
        self.order_button.clicked.connect(lambda *_: self.order())
        self.panel.button.clicked.connect(lambda *_: self.train())
        self.panel.busy_changed.connect(lambda *_: self._show_curve())
        self.panel.busy_changed.connect(lambda busy: self.order_button.setEnabled(not busy))
        self.panel.bar.valueChanged.connect(lambda *_: self._show_curve())
        self.listen(CHOICE.changed, self._show_start)

    def _add_order(self) -> None:
        """Add what orders images without masks."""
        form = self.form()
        self.images = QLineEdit()
        self.images.setPlaceholderText("folder or table of images")
        browse = IconButton("folder_open_outline", "Choose the images without masks.")
        browse.clicked.connect(lambda *_: self.ask_images())
        add_row(
            form, "New images", _beside(self.images, browse), "Images that are to be annotated."
        )
        self.order_button = QPushButton("Which case next?")
        self.order_button.setToolTip(
            "Let the model's folds segment these images, and list those first on which they "
            "agree least: their masks teach the model most. Next case in Segment follows."
        )
        self.body.addWidget(self.order_button)
        self.coming = QLabel()
        self.coming.setObjectName("medgs-result")
        self.coming.setWordWrap(True)
        self.coming.setVisible(False)
        self.body.addWidget(self.coming)

    # What is chosen

    @property
    def cases(self) -> Path | None:
        """Where the cases are, if that is chosen."""
        text = self.source.text().strip()
        return Path(text).expanduser() if text else None

    @property
    def model(self) -> Path | None:
        """Where the model is saved, if that is known."""
        text = self.output.text().strip()
        if text:
            path = Path(text).expanduser()
            return path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)
        return None if self.cases is None else suggested_output(self.cases)

    def _suggest(self) -> None:
        cases = self.cases
        shown = "beside the cases" if cases is None else str(suggested_output(cases))
        self.output.setPlaceholderText(shown)
        self._show_start()
        found = None if cases is None else suggested_images(cases)
        self.images.setPlaceholderText(str(found or "folder or table of images"))

    @guarded
    def ask_folder(self) -> None:
        """Ask for a folder of cases."""
        chosen = QFileDialog.getExistingDirectory(self, "Folder of cases", self.source.text())
        if chosen:
            self.source.setText(chosen)

    @guarded
    def ask_table(self) -> None:
        """Ask for a table of cases."""
        chosen = QFileDialog.getOpenFileName(self, "Table of cases", self.source.text(), TABLES)[0]
        if chosen:
            self.source.setText(chosen)

    @guarded
    def ask_output(self) -> None:
        """Ask for the file of the model."""
        start = "" if self.model is None else str(self.model)
        chosen = QFileDialog.getSaveFileName(self, "Save the model as", start, MODELS)[0]
        if chosen:
            self.output.setText(str(completed(chosen, (SUFFIX,))))

    @guarded
    def ask_images(self) -> None:
        """Ask for the folder of images without masks."""
        chosen = QFileDialog.getExistingDirectory(self, "Images", self.images.text())
        if chosen:
            self.images.setText(chosen)

    @property
    def start(self) -> Path | None:
        """The model to continue: the last one, also of an earlier day."""
        return CHOICE.path or last_model(self.cases)

    def _show_start(self, *_: object) -> None:
        path = self.start
        self.go_on.setEnabled(path is not None)
        self.go_on.setChecked(path is not None and self.go_on.isChecked())
        self.go_on.setText(f"continue {path.name}" if path else "continue the last model")

    # Training

    @guarded
    def train(self) -> None:
        """Train; what is missing becomes a notification."""
        start = self.start if self.go_on.isChecked() else None
        request = make_train_request(
            self.cases, self.model, self.minutes.value(), self.measure.isChecked(), start,
            polish=self.polish.isChecked(), resample=self.resample.isChecked(),
        )  # fmt: skip
        self._request = request
        self.result.setVisible(False)
        self.panel.run(request, self._show_outcome, self.title, self._show_canceled)

    def _show_curve(self) -> None:
        if self._request is not None:
            self.curve.show_points(self._request.curve)

    def _show_outcome(self, outcome: TrainOutcome) -> None:
        self._show_curve()
        self.result.setText(describe_outcome(outcome))
        self.result.setVisible(True)
        CHOICE.choose(outcome.request.output)
        self._suggest()

    def _show_canceled(self) -> None:
        """Say that nothing was kept: too few steps had been done."""
        self.result.setText(CANCELED)
        self.result.setVisible(True)

    @guarded
    def order(self) -> None:
        """Order the images without masks; what is missing becomes a notification."""
        text, cases = self.images.text().strip(), self.cases
        images = Path(text).expanduser() if text else None
        if images is None and cases is not None:
            images = suggested_images(cases)
        resample = self.resample.isChecked()
        request = make_order_request(self.start, images, cases, resample=resample)
        self.coming.setVisible(False)
        self.panel.run(request, self._show_order, "Ordering")

    def _show_order(self, ranked: list[RankedCase]) -> None:
        ORDER.files = tuple(one.case.images[0] for one in ranked if one.agreement is not None)
        self.coming.setText(describe_order(ranked))
        self.coming.setVisible(True)


def _beside(field: QWidget, button: QWidget) -> QWidget:
    """Return a field with a button beside it."""
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    row.addWidget(field, 1)
    row.addWidget(button)
    return holder
