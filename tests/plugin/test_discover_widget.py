"""The Discover widget in a real viewer: tissues, parts, the map."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtTest import QTest

from napari_medgs.plugin.discover.parts_tab import COUNTS, NAME
from napari_medgs.plugin.discover.widget import DiscoverWidget
from napari_medgs.plugin.layer_metadata import NAMES_KEY, field_of
from napari_medgs.plugin.segment.widget import SegmentWidget
from tests.tissue.conftest import agreement, three_classes

WAIT = 120_000
LEFT = Qt.MouseButton.LeftButton
NO_KEY = Qt.KeyboardModifier.NoModifier


@pytest.fixture
def docked(make_viewer):
    viewer = make_viewer()
    image, truth = three_classes(noise=8)
    layer = viewer.add_image(image, name="scan", scale=(3.0, 1.0, 1.0))
    widget = DiscoverWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Discover")
    return viewer, widget, layer, truth


def row_of(tab, label):
    return next(r for r in range(tab.table.rowCount()) if tab._label(r) == label)


@pytest.fixture
def with_parts(docked, qtbot, monkeypatch):
    viewer, widget, layer, truth = docked
    widget.tabs.setCurrentIndex(1)
    widget.parts_tab.slider.setValue(COUNTS.index(16))
    said = [widget.disc.words]
    monkeypatch.setattr(widget.disc, "say", said.append)
    widget.parts_panel.button.click()
    qtbot.waitUntil(lambda: widget.parts.embedding is not None, timeout=WAIT)
    assert [words.split()[0] for words in said[:2]] == ["Find", "Laying"]
    return viewer, widget, layer, truth


def settled(widget, qtbot):
    """Wait until nothing is drawn or planned any more."""
    parts = widget.parts
    qtbot.waitUntil(
        lambda: not (parts._rest.isActive() or parts.drawing.busy or parts.mapping.busy),
        timeout=WAIT,
    )


def test_tissues(docked, qtbot):
    viewer, widget, layer, truth = docked
    widget.tissues.probabilities.setChecked(True)
    widget.tissue_panel.button.click()
    qtbot.waitUntil(lambda: widget.tissue_layer is not None, timeout=WAIT)
    made = viewer.layers["scan · tissues"]
    assert agreement(made.data, truth) > 0.95
    assert tuple(made.scale) == tuple(layer.scale)
    assert field_of(made) is not None
    assert widget.tissues.table.rowCount() == 3
    shown = float(widget.tissues.table.item(0, 1).text())  # three digits where it is small
    assert shown == pytest.approx(widget.result.rows[0]["volume_ml"], rel=0.005)
    names = [x.name for x in viewer.layers]
    assert sum("probability of tissue" in n for n in names) == 3
    assert "scan · tissue uncertainty" in names
    # A second run uses the field that the first one fitted, and replaces its layers.
    before = field_of(made)
    widget.tissues.classes.setValue(4)
    widget.tissues.bias.setChecked(True)
    widget.tissues.probabilities.setChecked(False)
    widget.tissue_layer = None
    widget.tissue_panel.button.click()
    qtbot.waitUntil(lambda: widget.tissue_layer is not None, timeout=WAIT)
    assert widget.result.field is before
    assert widget.result.classes == 4
    names = [x.name for x in viewer.layers]
    assert names.count("scan · tissues") == 1
    assert sum("probability of tissue" in n for n in names) == 0
    assert "scan · bias" in names


def test_the_slider_keeps_colors(with_parts, qtbot):
    viewer, widget, _, _ = with_parts
    settled(widget, qtbot)
    tab, layer = widget.parts_tab, viewer.layers["scan · parts"]
    assert set(np.unique(layer.data)) == set(range(1, 17))
    assert tab.table.rowCount() == 16
    coarse, colors = layer.data.copy(), {k: tuple(layer.get_color(k)) for k in range(1, 17)}
    tab.slider.setValue(COUNTS.index(32))
    settled(widget, qtbot)
    assert tab.table.rowCount() == 32
    assert {k: tuple(layer.get_color(k)) for k in range(1, 17)} == colors
    kept = layer.data == coarse
    assert kept.mean() > 0.5
    assert len(widget.disc._labels) == 32  # the map follows


def test_naming_merging_splitting(with_parts, qtbot):
    viewer, widget, _, _ = with_parts
    settled(widget, qtbot)
    tab, layer = widget.parts_tab, viewer.layers["scan · parts"]
    first, second = tab._label(0), tab._label(1)
    assert not tab.merge.isEnabled()
    tab.table.item(0, NAME).setText("core")
    assert layer.metadata[NAMES_KEY] == {first: "core"}
    tab.select({first, second})
    assert tab.merge.isEnabled()
    assert not tab.split.isEnabled()
    tab.merge.click()
    settled(widget, qtbot)
    assert tab.table.rowCount() == 15
    assert tab.count_text.text() == "15 parts"
    whole = min(first, second)
    assert set(np.unique(layer.data)) == set(range(1, 17)) - {max(first, second)}
    assert widget.parts.parts.names[whole] == "core"
    # The map has a point for each piece of the whole, all of them with its color and name.
    disc = widget.disc
    assert sorted(disc._labels.values()) == sorted(
        [whole, whole, *set(range(1, 17)) - {first, second}]
    )
    assert set(disc._colors) == set(disc._texts) == set(disc._labels.values())
    assert disc._texts[whole].startswith("core, ")
    tab.select({whole})
    tab.split.click()
    settled(widget, qtbot)
    assert tab.table.rowCount() == 16
    assert 17 in np.unique(layer.data)
    assert set(disc._labels.values()) == set(np.unique(layer.data))
    # The slider's place and the number beside it follow; it asks for no other cut.
    tab.select({whole})
    tab.split.click()
    settled(widget, qtbot)
    assert tab.table.rowCount() == 17
    assert (tab.count, tab.count_text.text()) == (16, "17 parts")


def test_the_map_and_the_viewer_choose_for_each_other(with_parts, qtbot):
    viewer, widget, _, _ = with_parts
    settled(widget, qtbot)
    viewer.show()
    widget.tabs.setCurrentIndex(2)
    disc, layer = widget.disc, viewer.layers["scan · parts"]
    disc.resize(260, 260)
    picked = []
    disc.picked.connect(picked.append)
    index, label = next(iter(disc._labels.items()))
    place = disc.place_of(disc.points[index]).toPoint()
    QTest.mouseClick(disc, LEFT, NO_KEY, place)
    assert picked
    assert widget.parts_tab.labels() == picked
    assert layer.selected_label == picked[0]
    place = tuple(round(v) for v in layer.world_to_data(viewer.dims.point))
    assert (layer.data[place[0]] == picked[0]).any()
    widget.parts.choose(label)
    assert disc.chosen == label
    before = disc.points.copy()
    QTest.mousePress(disc, LEFT, NO_KEY, QPoint(130, 130))
    for x in (138, 150, 170):
        QTest.mouseMove(disc, QPoint(x, 140))
    QTest.mouseRelease(disc, LEFT, NO_KEY, QPoint(170, 140))
    assert not np.allclose(disc.points, before)
    assert (np.linalg.norm(disc.points, axis=1) < 1).all()
    from napari_medgs.hierarchy.hyperbolic import distance

    a, b = before[:3], before[3:6]
    assert np.allclose(distance(disc.points[:3], disc.points[3:6]), distance(a, b), rtol=1e-4)
    at = disc.place_of(disc.points[index])
    QTest.mouseDClick(disc, LEFT, NO_KEY, at.toPoint())
    assert min(np.linalg.norm(disc.points[list(disc._labels)], axis=1)) < 0.05
    assert isinstance(at, QPointF)


def test_parts_begin_a_segmentation(with_parts, qtbot, notes):
    viewer, widget, _, _ = with_parts
    settled(widget, qtbot)
    tab = widget.parts_tab
    # Parts and tissues on each other would mix their colors.
    widget.tissue_panel.button.click()
    qtbot.waitUntil(lambda: widget.tissue_layer is not None, timeout=WAIT)
    assert widget.tissue_layer.visible
    assert not viewer.layers["scan · parts"].visible
    assert not tab.send_mask.isEnabled()
    first, second = tab._label(0), tab._label(1)
    tab.select({first, second})
    tab.send_mask.click()
    made = viewer.layers["scan · chosen parts"]
    assert not widget.tissue_layer.visible
    parts = viewer.layers["scan · parts"].data
    assert np.array_equal(made.data == 1, np.isin(parts, [first, second]))
    assert any("Open Segment" in text for _, text in notes)
    segment = SegmentWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    tab.select({first, second})
    tab.send_classes.click()
    assert set(np.unique(made.data)) == {0, 1, 2}
    assert segment.view.initial.layer is made


@pytest.mark.parametrize("tab", ["tissue_panel", "parts_panel"])
def test_an_image_that_was_removed_meanwhile(docked, qtbot, notes, tab):
    viewer, widget, layer, _ = docked
    getattr(widget, tab).button.click()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert "'scan' was removed meanwhile" in notes[0][1]
    assert not viewer.layers
    settled(widget, qtbot)
    assert not viewer.layers


def test_refusals_are_told(docked, qtbot, notes):
    viewer, widget, _, truth = docked
    viewer.add_labels(np.zeros(truth.shape, np.uint8), name="nothing", scale=(3.0, 1.0, 1.0))
    widget.tissues.region.setCurrentText("nothing")
    widget.tissue_panel.button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert any("'nothing' is empty" in text for _, text in notes)
    viewer.add_labels(np.ones((4, 5, 6), np.uint8), name="elsewhere")
    widget.tissues.region.setCurrentText("elsewhere")
    notes.clear()
    widget.tissue_panel.button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert "elsewhere" in notes[0][1]
    flat = viewer.add_image(np.full(truth.shape, 7.0), name="flat")
    widget.tissues.region.setCurrentIndex(0)
    widget.images.check([flat])
    for panel in (widget.tissue_panel, widget.parts_panel):
        notes.clear()
        panel.button.click()
        qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
        assert "constant (7)" in notes[0][1]
        assert len(notes) == 1
    assert widget.tissues.classes.minimum() == 1  # which stands for "chosen by itself"
    widget.send(as_classes=False)
    assert any("Select one or more parts" in text for _, text in notes)
