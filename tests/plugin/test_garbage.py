"""What exists is spared garbage collections, and given back when it may be garbage."""

import gc

import numpy as np
from napari.components import ViewerModel

from napari_medgs.plugin.garbage import CollectorRest
from tests.plugin.strokes import begin


def test_what_exists_is_set_apart_until_a_layer_of_it_goes(monkeypatch):
    monkeypatch.undo()  # the real collector
    viewer = ViewerModel()
    first = viewer.add_image(np.zeros((4, 5)))
    rest = CollectorRest(viewer)
    before = gc.get_freeze_count()
    rest.begin()
    try:
        assert gc.get_freeze_count() > max(before, 10_000)
        later = viewer.add_image(np.zeros((4, 5)))
        viewer.layers.remove(later)  # was not set apart
        assert gc.get_freeze_count() > 10_000
        viewer.layers.remove(first)
        assert gc.get_freeze_count() == 0
        rest.begin()
        rest.shut_down()
        assert gc.get_freeze_count() == 0
        rest.begin()  # the end of a thread that was begun before
        assert gc.get_freeze_count() == 0
    finally:
        gc.unfreeze()
        gc.freeze() if before else None


def test_the_segment_widget_spares_collections_while_it_works(docked, qtbot, collector):
    _, widget = docked()
    qtbot.waitUntil(lambda: "set apart" in collector, timeout=40_000)  # libraries are loaded
    collector.clear()
    begin(qtbot, widget)
    assert collector == ["set apart"]
    widget.end()
    assert collector[-1] == "give back"
