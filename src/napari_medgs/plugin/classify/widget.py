"""The Classify widget: probabilities of an image's classes, and what speaks for them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.classification.card import DISCLAIMER, SUFFIX, bundled_models
from napari_medgs.classification.result import Attribution
from napari_medgs.errors import ImageError
from napari_medgs.plugin.classify.bars import ProbabilityBars
from napari_medgs.plugin.classify.jobs import (
    ClassifyOutcome,
    ExplainRequest,
    class_title,
    dataset_title,
    describe_attribution,
    describe_card,
    describe_novelty,
    describe_prediction,
    make_classify_request,
)
from napari_medgs.plugin.layer_metadata import SOURCE_KEY, derived_metadata, role_of
from napari_medgs.plugin.overlay.layer import GaussianOverlay, OverlayStyle
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import choice_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.widgets.layers import LayerCombo, is_kind, one_per_field
from napari_medgs.plugin.widgets.task_panel import TaskPanel

if TYPE_CHECKING:
    from napari.viewer import Viewer

MASK_ROLES = (None, "result", "final")
EXPLAINS_KEY = "medgs_explains"
METHODS = {"gradient": "gradient", "leave-out": "leave each out"}
COLORMAP = "coolwarm"  # blue against, red for
WARNING = (
    "background: rgba(214, 150, 47, 40); border-left: 3px solid #d6962f; border-radius: 3px; "
    "padding: 6px;"
)
PLAIN = "QLabel#medgs-result { background: rgba(128, 128, 128, 36); }"


class ClassifyWidget(MedGSWidget):
    """Classify an image with a trained network and show what it relied on.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "The classification"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.last: ClassifyOutcome | None = None
        self.attribution: Attribution | None = None
        self._reads_masks = False
        self._source: Any = lambda: None
        self._explanation: Any = lambda: None
        form = self.form()
        self.image = LayerCombo(self, self._is_source)
        tip = "A gray or RGB image, a volume, or a field of Gaussians."
        add_row(form, "Image", self.image, tip)
        self.model = QComboBox()
        self.model.setMinimumContentsLength(8)
        for name, path in bundled_models().items():
            self.model.addItem(dataset_title(name), path)
        add_row(form, "Model", self._model_row(), "A trained classifier.")
        self.model.setToolTip("Classifiers of the package, by the data that they were trained on.")
        self.card = hint()
        self.body.addWidget(self.card)
        self.warning = QLabel(DISCLAIMER)
        self.warning.setWordWrap(True)
        self.warning.setStyleSheet(WARNING)
        self.body.addWidget(self.warning)
        self.panel = TaskPanel(
            self, "Classify", "Classify in the background; the viewer stays usable."
        )
        self.body.addWidget(self.panel)
        self.results = self._result_box()
        self.body.addWidget(self.results)
        self.body.addStretch(1)
        self.panel.button.clicked.connect(lambda *_: self.run())
        self.panel.busy_changed.connect(lambda busy: self.explain_box.setEnabled(not busy))
        self.model.currentIndexChanged.connect(lambda *_: self._show_card())
        self._show_card()

    def _is_source(self, layer: Any) -> bool:
        if EXPLAINS_KEY in layer.metadata:
            return False
        if is_kind("Labels")(layer):
            return self._reads_masks and role_of(layer) in MASK_ROLES
        if role_of(layer) is not None:
            return False  # a map of the segmentation, or its prompts
        return is_kind("Image")(layer) or one_per_field(self.viewer, layer)

    def _model_row(self) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.file = QPushButton("File…")
        self.file.setToolTip("Use a classifier that you trained: its .safetensors file.")
        self.file.clicked.connect(lambda *_: self.ask_file())
        layout.addWidget(self.model, 1)
        layout.addWidget(self.file)
        return row

    def _result_box(self) -> QWidget:
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(6)
        self.unlike = QLabel()
        self.unlike.setWordWrap(True)
        self.unlike.setStyleSheet(WARNING)
        self.result = _text()
        self.bars = ProbabilityBars()
        self.sort = QCheckBox("Most probable first")
        self.sort.setToolTip("Otherwise the classes come in the model's own order.")
        self.sort.setChecked(True)
        self.sort.toggled.connect(self.bars.sort)
        self.explain_box = self._explain_box()
        self.explanation = _text()
        self.explanation.setVisible(False)
        for part in (
            self.unlike,
            self.result,
            self.bars,
            self.sort,
            self.explain_box,
            self.explanation,
        ):
            layout.addWidget(part)
        box.setVisible(False)
        return box

    def _explain_box(self) -> QWidget:
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.setSpacing(5)
        form = compact_form()
        layout.addLayout(form)
        self.target = QComboBox()
        self.target.setMinimumContentsLength(8)
        add_row(form, "Class", self.target, "The class to explain.")
        self.method = choice_box(METHODS, "gradient")
        add_row(
            form,
            "Method",
            self.method,
            "Gradient: how the class's log-odds change with the presence of each Gaussian. Leave "
            "each out: the log-odds with all Gaussians less those without it.",
        )
        self.explain = QPushButton("Explain")
        self.explain.setToolTip("Color every Gaussian by its contribution to the class.")
        self.explain.clicked.connect(lambda *_: self.run_explanation())
        layout.addWidget(self.explain)
        return box

    @property
    def explanation_layer(self) -> Any | None:
        """The layer of the last explanation, None once it is gone from the viewer."""
        layer = self._explanation()
        return layer if layer is not None and layer in self.viewer.layers else None

    def ask_file(self) -> None:
        """Ask for a classifier's file and choose it."""
        path, _ = QFileDialog.getOpenFileName(self, "A classifier", "", f"Classifier (*{SUFFIX})")
        if path:
            self.use_file(path)

    @guarded
    def use_file(self, path: str | Path) -> None:
        """Choose a classifier's file; one that is none becomes a notification."""
        from napari_medgs.classification.files import load_card

        path = Path(path)
        load_card(path)
        known = [self.model.itemData(k) for k in range(self.model.count())]
        if path not in known:
            self.model.addItem(path.name.removesuffix(SUFFIX), path)
            known.append(path)
        self.model.setCurrentIndex(known.index(path))

    @guarded
    def _show_card(self) -> None:
        from napari_medgs.classification.files import load_card

        path = self.model.currentData()
        if path is None:
            self.card.setText("No model comes with this installation: choose a file.")
            return
        self.card.setText("")
        card = load_card(path)
        self.card.setText(describe_card(card))
        if card.is_shape != self._reads_masks:
            self._reads_masks = card.is_shape
            self.image.refresh()
        self.warning.setText(card.note or DISCLAIMER)

    @guarded
    def run(self) -> None:
        """Classify what is chosen; refusals become notifications."""
        layer = self.image.layer
        self.results.setVisible(False)
        request = make_classify_request(layer, self.model.currentData(), self.viewer.dims)
        self.panel.run(request, lambda outcome: self._show(layer, outcome), "Classifying")

    def _show(self, layer: Any, outcome: ClassifyOutcome) -> None:
        self.last, self.attribution, self._source = outcome, None, weakref.ref(layer)
        if self.explanation_layer is not None:
            self.explanation_layer.visible = False  # it explains the result before
        prediction = outcome.prediction
        self.result.setText(describe_prediction(outcome))
        unsure = prediction.is_unlike or (prediction.is_undecided and not outcome.card.multi_label)
        warning = describe_novelty(outcome)
        self.unlike.setText(warning)
        self.unlike.setVisible(bool(warning))
        # No green where there is no ground for confidence.
        self.result.setStyleSheet(PLAIN if unsure else "")
        self.bars.show_probabilities(prediction.probabilities, reliable=not unsure)
        names = outcome.card.class_names
        self.target.clear()
        self.target.addItems([class_title(name) for name in names])
        self.target.setCurrentIndex(names.index(prediction.best))
        self.explain_box.setVisible(outcome.explainable)
        self.explanation.setVisible(False)
        self.results.setVisible(True)

    @guarded
    def run_explanation(self) -> None:
        """Score the Gaussians of the shown result for the chosen class."""
        outcome, layer = self.last, self._source()
        if outcome is None or layer is None or layer not in self.viewer.layers:
            raise ImageError("The image of this result is gone: classify one that is there.")
        request = ExplainRequest(outcome, self.target.currentIndex(), self.method.currentData())
        self.panel.run(request, lambda found: self._draw(layer, outcome, found), "Explaining")

    def _draw(self, layer: Any, outcome: ClassifyOutcome, found: Attribution) -> None:
        """Show scores over the image, in place of the same image's explanation before."""
        self.attribution = found
        self.explanation.setText(describe_attribution(found))
        self.explanation.setVisible(True)
        before = self.explanation_layer
        if before is not None and before.metadata[EXPLAINS_KEY] == layer.name:
            self.viewer.layers.remove(before)
        overlay = GaussianOverlay(
            self.viewer,
            found.field,
            outcome.request.frame,
            layer,
            OverlayStyle(color_by="score", colormap=COLORMAP, hide_background=False),
            scores=found.scores,
            name=f"{layer.name} · evidence for {class_title(found.class_name)}",
        )
        overlay.layer.metadata.update(
            derived_metadata(layer, outcome.request.frame, found.field),
            **{SOURCE_KEY: layer.name, EXPLAINS_KEY: layer.name},
        )
        self._explanation = weakref.ref(overlay.layer)
        self.image.refresh()


def _text() -> QLabel:
    label = QLabel()
    label.setObjectName("medgs-result")
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
