"""The controls of the Segment widget, without what they do."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.plugin.layer_metadata import field_of
from napari_medgs.plugin.segment.class_table import ClassTable
from napari_medgs.plugin.segment.form import Section, SegmentForm, ValueForm
from napari_medgs.plugin.segment.layers import BACKGROUND, ROLE_KEY
from napari_medgs.plugin.widgets.base import MedGSWidget, TaskPanel, add_row, compact_form, hint
from napari_medgs.plugin.widgets.layers import LayerChecklist, LayerCombo, is_source_image

KEYS = {
    "U": "update now",
    "N": "go to the slice that is worth a stroke most",
    ".": "next class",
    ",": "previous class",
    "K": "lock or unlock the class",
}
FIRST_HINT = "Press New, then paint a stroke in each class."
PAINT_HINT = "Paint a stroke in each class: the mask follows by itself."
LAYER_KEYS = {
    "Ctrl+Z": "undo a stroke and what came of it",
    "Ctrl+Shift+Z": "redo it",
}


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return layout


def button(text: str, tip: str) -> QPushButton:
    """Return a plain button."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def is_scan(layer: Any) -> bool:
    """Tell whether a layer could be segmented: an image, and no map made here."""
    return is_source_image(layer) and ROLE_KEY not in layer.metadata


def is_strokes(layer: Any) -> bool:
    """Tell whether a layer could hold strokes: Labels, but no result."""
    made_for = layer.metadata.get(ROLE_KEY, "strokes")
    fitted = field_of(layer) is not None
    return type(layer).__name__ == "Labels" and made_for == "strokes" and not fitted


def is_mask(layer: Any) -> bool:
    """Tell whether a layer could be a mask to refine or to accept into."""
    return type(layer).__name__ == "Labels" and layer.metadata.get(ROLE_KEY, "final") == "final"


class SegmentUI(MedGSWidget):
    """What the Segment widget looks like."""

    title = "The segmentation"

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self._build_input()
        self._build_classes()
        self._build_run()
        self._build_accept()
        self._build_sections()
        self.body.addStretch(1)

    def _build_input(self) -> None:
        form = self.form()
        self.images = LayerChecklist(self, is_scan)
        add_row(form, "Image", self.images, "What to segment. Check several contrasts of a grid.")
        self.strokes = LayerCombo(self, is_strokes, none="none yet")
        self.new_strokes = button(
            "New", "Add a layer to paint strokes in, with classes and colours."
        )
        holder = QWidget()
        holder.setLayout(row(self.strokes, self.new_strokes))
        holder.layout().setStretch(1, 0)
        tip = "The Labels layer that you paint in: short strokes or whole slices, any orientation."
        add_row(form, "Strokes", holder, tip)
        self.restore_bar = QWidget()
        bar = QVBoxLayout(self.restore_bar)
        bar.setContentsMargins(8, 6, 8, 6)
        self.restore_note = QLabel()
        self.restore_note.setWordWrap(True)
        self.restore = button("Restore", "Open the strokes as they were and go on.")
        self.forget = button("Discard", "Remove the kept session for good.")
        bar.addWidget(self.restore_note)
        bar.addLayout(row(self.restore, self.forget))
        self.restore_bar.setObjectName("medgs-restore")
        self.restore_bar.setStyleSheet(
            "QWidget#medgs-restore { background: rgba(224, 160, 48, 40); border-radius: 5px; }"
        )
        self.restore_bar.setVisible(False)
        self.body.addWidget(self.restore_bar)

    def _build_classes(self) -> None:
        self.table = ClassTable()
        self.body.addWidget(self.table)
        self.add_class = button("Add class", "Add a class with a colour of its own.")
        self.remove_class = button("Remove", "Remove the class and its strokes; undo brings both.")
        self.body.addLayout(row(self.add_class, self.remove_class))

    def _build_run(self) -> None:
        self.undo = button("Undo", "Ctrl+Z in the strokes or the result: the last step.")
        self.redo = button("Redo", "Ctrl+Shift+Z: the step that was undone.")
        self.body.addLayout(row(self.undo, self.redo))
        self.auto = QCheckBox("update after every stroke")
        self.auto.setChecked(True)
        self.auto.setToolTip("Painting is never blocked: a newer stroke stops an older update.")
        self.body.addWidget(self.auto)
        self.panel = TaskPanel(self, "Update", "Find the mask anew from all strokes.")
        for shown_at_times in (self.panel.bar, self.panel.status):
            policy = shown_at_times.sizePolicy()
            policy.setRetainSizeWhenHidden(True)  # the buttons below must not jump at each stroke
            shown_at_times.setSizePolicy(policy)
        self.panel.status.setText(FIRST_HINT)
        self.panel.status.setVisible(True)
        self.body.addWidget(self.panel)
        self.result = QLabel()
        self.result.setObjectName("medgs-result")
        self.result.setWordWrap(True)
        self.result.setVisible(False)
        self.body.addWidget(self.result)
        self.suggest = button(
            "Suggest next slice", "Go to the slice where one more stroke helps most."
        )
        self.body.addWidget(self.suggest)

    def _build_accept(self) -> None:
        form = self.form()
        self.target = LayerCombo(self, is_mask, none="new layer")
        add_row(
            form,
            "Accept into",
            self.target,
            "A layer that keeps what is done. Other classes there are not overwritten.",
        )
        self.accept_one = QCheckBox("selected class only")
        self.replace_same = QCheckBox("replace the class there")
        self.replace_same.setToolTip("Otherwise what is there of the class stays, too.")
        form.addRow("", self.accept_one)
        form.addRow("", self.replace_same)
        self.accept = button("Accept", "Copy the result to that layer; Ctrl+Z there undoes it.")
        self.body.addWidget(self.accept)

    def _build_sections(self) -> None:
        self.settings = SegmentForm()
        keys = [f"<tr><td><b>{k}</b>&nbsp;&nbsp;</td><td>{text}</td></tr>"
                for k, text in (LAYER_KEYS | KEYS).items()]  # fmt: skip
        self.keys_note = hint("<table>" + "".join(keys) + "</table>")
        self.sections = [
            Section("More prompts", self._prompts()),
            Section("Options", self.settings),
            Section("Maps and session", self._outputs()),
            Section("Shortcuts", self.keys_note),
        ]
        parts = QVBoxLayout()
        parts.setSpacing(0)
        for part in self.sections:
            parts.addWidget(part)
        self.body.addLayout(parts)

    def _prompts(self) -> QWidget:
        holder = QWidget()
        layout = QVBoxLayout(holder)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.add_points = button("Points", "Add a layer for single clicks of the selected class.")
        self.add_boxes = button(
            "Boxes",
            "Add a layer for rectangles that hold all of the selected class. One goes through all "
            "slices; two in different slices reach from one to the other.",
        )
        layout.addLayout(row(self.add_points, self.add_boxes))
        self.negative = QCheckBox("new points say 'not this class'")
        layout.addWidget(self.negative)
        form = compact_form()
        layout.addLayout(form)
        self.initial = LayerCombo(self, is_mask, none="none")
        add_row(form, "Refine mask", self.initial, "A mask to begin with; not believed at edges.")
        self.fields = LayerCombo(self, lambda layer: field_of(layer) is not None, none="automatic")
        add_row(
            form,
            "Field",
            self.fields,
            "The Gaussians to segment with: those fitted to this image already, or fitted when "
            "first needed.",
        )
        self.value_form = ValueForm(0, BACKGROUND)
        layout.addWidget(self.value_form)
        return holder

    def _outputs(self) -> QWidget:
        holder = QWidget()
        layout = QVBoxLayout(holder)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.uncertainty = QCheckBox("show the uncertainty")
        self.probability = QCheckBox("show the selected class's probability")
        layout.addWidget(self.uncertainty)
        layout.addWidget(self.probability)
        self.save = button(
            "Save session…",
            "Write all that was done to a JSON log, and the field beside it. "
            "'napari-medgs segment --session' makes the same mask of it.",
        )
        self.load = button("Open session…", "Go on with a saved session of this image.")
        layout.addLayout(row(self.save, self.load))
        return holder
