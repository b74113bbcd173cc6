"""Controls of the Segment widget that most sessions do not need, in sections below the steps."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_medgs.plugin.layer_metadata import field_of
from napari_medgs.plugin.segment.layer_kinds import is_mask, is_strokes
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import button, row
from napari_medgs.plugin.widgets.elements import add_row, compact_form
from napari_medgs.plugin.widgets.layers import LayerCombo


class InputsPanel(QWidget):
    """Points, boxes, and other layers to read from.

    Parameters
    ----------
    owner : MedGSWidget
        Gives the viewer.
    values : QWidget
        The form of the strokes layer's values.
    """

    def __init__(self, owner: MedGSWidget, values: QWidget) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.add_points = button("Points", "Add a layer for clicks in the selected class.")
        self.add_boxes = button(
            "Boxes",
            "Add a layer for rectangles around the whole selected class. One rectangle covers all "
            "slices; two in different slices cover the slices from one to the other.",
        )
        layout.addLayout(row(self.add_points, self.add_boxes))
        self.negative = QCheckBox("new points are outside the class")
        self.negative.setToolTip("Clicks then mark places that are not the selected class.")
        layout.addWidget(self.negative)
        form = compact_form()
        layout.addLayout(form)
        self.strokes = LayerCombo(owner, is_strokes, none="none yet")
        tip = "The Labels layer that you paint in: short strokes or whole slices, any orientation."
        add_row(form, "Strokes in", self.strokes, tip)
        self.fields = LayerCombo(
            owner, lambda layer: field_of(layer) is not None, none="automatic"
        )
        tip = (
            "The fitted Gaussians to segment with. Automatic: those of this image if there are "
            "any, otherwise fitted when first needed."
        )
        add_row(form, "Gaussians", self.fields, tip)
        layout.addWidget(values)
        self.probability = QCheckBox("show the class's probability")
        self.probability.setToolTip("Probability of the class that is selected in the table.")
        layout.addWidget(self.probability)
        self.load = button("Open session…", "Continue a saved session of this image.")
        layout.addWidget(self.load)


class AcceptPanel(QWidget):
    """Where finished classes are kept.

    Parameters
    ----------
    owner : MedGSWidget
        Gives the viewer.
    """

    def __init__(self, owner: MedGSWidget) -> None:
        super().__init__()
        form = compact_form()
        self.setLayout(form)
        self.target = LayerCombo(owner, is_mask, none="new layer")
        tip = "A layer for finished classes. Other classes in it are not overwritten."
        add_row(form, "Accept into", self.target, tip)
        self.accept_one = QCheckBox("selected class only")
        self.accept_one.setToolTip("Copy only the class that is selected in the table.")
        self.replace_same = QCheckBox("replace the class there")
        self.replace_same.setToolTip(
            "Remove what that layer already has of the class; otherwise it is kept and added to."
        )
        form.addRow(self.accept_one)
        form.addRow(self.replace_same)
        self.accept = button("Accept", "Copy the mask to that layer; Ctrl+Z there undoes it.")
        form.addRow(self.accept)
