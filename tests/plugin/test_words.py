"""What the widgets call things: plain words, and the same look for the same thing."""

import re

import numpy as np
from qtpy.QtWidgets import QAbstractButton, QLabel
from superqt import QCollapsible

from napari_medgs.classification import bundled_models, load_card
from napari_medgs.plugin.classify.jobs import describe_card
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.load.widget import LoadWidget
from napari_medgs.plugin.segment.widget import SegmentWidget
from napari_medgs.plugin.widgets.elements import Section
from napari_medgs.plugin.widgets.settings_form import SettingsForm

PRIVATE = re.compile(r"\b(prompts?|looks|reach|refine)\b", re.IGNORECASE)


def test_the_boxes_of_a_voxel_size_name_their_axes(make_viewer):
    widget = LoadWidget(make_viewer())
    assert [box.text() for box in widget.spacing] == ["z auto", "y auto", "x auto"]
    for box in widget.spacing:
        box.setValue(1.5)
    assert [box.text()[0] for box in widget.spacing] == ["z", "y", "x"]


def test_a_classifier_of_shapes_says_that_it_reads_masks():
    assert "masks (3D shapes" in describe_card(load_card(bundled_models()["adrenalmnist3d"]))
    assert "gray 2D images" in describe_card(load_card(bundled_models()["breastmnist"]))


def test_segment_speaks_plainly_and_goes_back_to_defaults(make_viewer, session_cache):
    viewer = make_viewer()
    viewer.add_image(np.zeros((4, 8, 8), np.float32))
    widget = SegmentWidget(viewer)
    for section in widget.findChildren(Section):
        section.open()
    controls = widget.findChildren(QLabel) + widget.findChildren(QAbstractButton)
    shown = [control.text() for control in controls]
    assert len(shown) > 40
    assert not [text for text in shown if PRIVATE.search(re.sub(r"<[^>]+>", "", text))]
    form = widget.findChild(SettingsForm)
    start = form.params()
    form.set_value("smooth", 2.5)
    assert form.params() != start
    assert form.reset.text() == "Defaults"
    form.reset.click()
    assert form.params() == start


def test_parts_that_fold_look_alike(make_viewer, session_cache):
    viewer = make_viewer()
    viewer.add_image(np.zeros((4, 8, 8), np.float32))
    for widget in (FitWidget(viewer), SegmentWidget(viewer)):
        sections = widget.findChildren(Section)
        assert sections
        assert not widget.findChildren(QCollapsible)
        for section in sections:
            assert section.head.text() == f"▸  {section.title}"
            section.open()
            assert section.head.text() == f"▾  {section.title}"
