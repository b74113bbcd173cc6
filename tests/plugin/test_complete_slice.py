"""Saying in the Segment widget that all of a slice is painted."""

import numpy as np

from tests.plugin.strokes import begin, dice, idle, stroke


def paint_slice(layer, truth, z):
    """Paint all of both classes in a slice, and nothing else."""
    layer.brush_size = 1
    for value in (1, 2):
        stroke(layer, [(z, *place) for place in np.argwhere(truth[z] == value)], value)


def test_the_rest_of_a_complete_slice_is_background(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked()
    view = widget.view
    assert not view.complete.isEnabled()
    view.new_strokes.click()
    viewer.dims.set_current_step(0, 5)
    paint_slice(widget.strokes_layer, tiny_labels, 5)
    idle(qtbot, widget)
    assert widget.state.fills_image  # two classes share the image
    assert view.complete.isEnabled()
    assert not view.complete.isChecked()
    view.complete.click()
    idle(qtbot, widget)
    assert view.complete.isChecked()
    session = widget.controller.session
    assert session.settings.fully_labeled == ((0, 5),)
    assert not widget.state.fills_image
    np.testing.assert_array_equal(widget.result_layer.data[5], tiny_labels[5])
    for value in (1, 2):
        assert dice(widget.result_layer.data, tiny_labels, value) > 0.75
    assert notes == []


def test_it_follows_the_slice_on_show_and_the_history(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked()
    begin(qtbot, widget)
    complete = widget.view.complete
    viewer.dims.set_current_step(0, 1)
    complete.click()
    idle(qtbot, widget)
    assert complete.isChecked()
    assert not widget.result_layer.data[1].any()  # nothing is painted there: no class is in it
    viewer.dims.set_current_step(0, 5)
    assert not complete.isChecked()
    viewer.dims.set_current_step(0, 1)
    assert complete.isChecked()
    viewer.dims.ndisplay = 3
    assert not complete.isEnabled()
    viewer.dims.ndisplay = 2
    widget.undo()
    assert not complete.isChecked()
    widget.redo()
    idle(qtbot, widget)
    assert complete.isChecked()
    complete.click()
    idle(qtbot, widget)
    assert not complete.isChecked()
    assert widget.controller.session.settings.fully_labeled == ()
    assert notes == []


def test_a_closed_widget_goes_on_with_its_complete_slices(docked, qtbot, notes):
    viewer, widget = docked()
    begin(qtbot, widget)
    viewer.dims.set_current_step(0, 8)
    widget.view.complete.click()
    idle(qtbot, widget)
    widget.undo()
    widget.redo()
    idle(qtbot, widget)
    stroke(widget.strokes_layer, [(8, 2, 3)], 2)  # painted over: it is background no longer
    idle(qtbot, widget)
    assert widget.result_layer.data[8, 2, 3] == 2
    assert not (widget.result_layer.data[8] == 1).any()
    assert widget.controller.session.settings.fully_labeled == ((0, 8),)
