"""The Fit widget in a real viewer."""

import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer

from napari_medgs._util.progress import ProgressEvent
from napari_medgs._util.settings import settings_of
from napari_medgs.errors import ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.layer_metadata import NAMES_KEY, field_of
from napari_medgs.plugin.overlay.layer import find_overlay
from napari_medgs.plugin.widgets.layers import LayerCombo, is_kind
from napari_medgs.plugin.widgets.task_panel import describe

WAIT = 120_000


@pytest.fixture
def docked(make_viewer):
    """Open a viewer with the Fit widget in it."""

    def open_it():
        viewer = make_viewer()
        widget = FitWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Fit")
        return viewer, widget

    return open_it


def wait_done(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)


def wait_started(qtbot, widget):
    """Wait until the optimizer has taken steps."""
    qtbot.waitUntil(lambda: "Fitting" in widget.panel.status.text() and "dB" in
                    widget.panel.status.text(), timeout=WAIT)  # fmt: skip


def medgs_threads():
    return [t for t in threading.enumerate() if t.name == "medgs-task"]


def test_defaults_are_those_of_the_core(docked):
    _, widget = docked()
    assert widget.settings.params() == FitParams()


def test_every_setting_arrives(docked):
    _, widget = docked()
    chosen = {
        "gaussians": 1234,
        "quality": 37.5,
        "time_limit": 12.0,
        "iterations": 33,
        "fold": 1,
        "blend": "alpha",
        "slice_axis": 2,
        "holdout": 3,
        "interpolate": False,
        "lambda_img": 0.5,
        "lambda_seg": 2.5,
        "loss": "l1",
        "backend": "reference",
        "threads": 2,
        "seed": 42,
        "empty_slices_unlabeled": True,
        "freeze_geometry": True,
    }
    form = widget.settings
    assert set(chosen) == set(form.settings)
    for name, value in chosen.items():
        form.set_value(name, value)
    assert form.params() == FitParams(**chosen)


def test_ranges_and_help_are_the_declared_ones(docked):
    _, widget = docked()
    declared = settings_of(FitParams)
    for name, made in widget.settings.settings.items():
        control, setting = made.control, declared[name]
        assert setting.help in control.native.toolTip()
        if made.is_number:
            least = setting.low if setting.low is not None else setting.above
            step = control.step if setting.optional else 0
            assert control.min == max(least - step, 0), name
            assert setting.high is None or control.max == setting.high, name


def test_a_quality_that_was_not_reached_is_explained(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("gaussians", 16)
    widget.settings.set_value("quality", 90)
    widget.panel.button.click()
    wait_done(qtbot, widget)
    sentence = widget.last.result.metrics["quality_missed"]
    assert "90" in sentence
    assert sentence in widget.result.text()
    assert notes == []


def test_a_fit_of_image_and_mask_becomes_layers(docked, qtbot, add_tiny, tiny_labels, notes):
    viewer, widget = docked()
    image, mask = add_tiny(viewer)
    mask.metadata[NAMES_KEY] = {1: "left lobe", 2: "right lobe"}
    assert widget.images.layers == [image]
    widget.mask.choose(mask)
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(20)
    widget.panel.button.click()
    assert widget.runner.busy
    assert not widget.panel.button.isEnabled()
    assert widget.panel.cancel.isEnabled()
    wait_done(qtbot, widget)
    timer.stop()
    assert len(ticks) > 3  # the event loop ran on while the fit did
    assert notes == []
    assert widget.panel.button.isEnabled()
    reconstruction, labels, surface = widget.made
    assert [x.name for x in widget.made] == [
        "scan · reconstruction", "scan · mask", "scan · Gaussians",
    ]  # fmt: skip
    mse = np.mean((reconstruction.data - image.data) ** 2)
    assert mse < 0.1 * np.var(image.data)
    assert np.mean(labels.data == tiny_labels) > 0.98
    assert labels.metadata[NAMES_KEY][1] == "left lobe"
    for layer in widget.made:
        np.testing.assert_array_equal(layer.scale, image.scale)
        np.testing.assert_array_equal(layer.translate, image.translate)
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
        assert field_of(layer) is widget.last.result.field
    assert labels.metadata["medgs_grid"] == image.metadata["medgs_grid"]
    overlay = find_overlay(viewer.layers, field_of(labels))
    assert overlay.layer is surface
    assert "dB" in widget.result.text()
    assert "left lobe" in widget.result.text()
    qtbot.waitUntil(lambda: not widget.trees.runner.busy, timeout=WAIT)  # the tree of parts
    assert medgs_threads() == []


def test_results_are_kept_and_hidden_on_request(docked, qtbot, add_tiny):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.keep_earlier.setChecked(True)
    widget.settings.set_value("iterations", 3)
    widget.run()
    wait_done(qtbot, widget)
    first = list(widget.made)
    assert [x.visible for x in first] == [False, True]  # the image is not covered
    assert viewer.layers[0] is first[0]
    assert widget.images.layers[0].name == "scan"  # not the reconstruction
    widget.initial.choose(first[0])
    widget.run()
    wait_done(qtbot, widget)
    assert not any(x.visible for x in first)
    assert all(x in viewer.layers for x in first)
    assert widget.last.request.initial is field_of(first[0])
    assert len(widget.last.result.field) == len(field_of(first[0]))


def test_cancel_keeps_the_last_good_state(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("iterations", 100_000)
    widget.run()
    wait_started(qtbot, widget)
    assert "left" in widget.panel.status.text()
    assert widget.panel.bar.maximum() == 100_000
    started = time.monotonic()
    widget.panel.cancel.click()
    wait_done(qtbot, widget)
    assert time.monotonic() - started < 20
    assert widget.last.result.stopped_by == "cancelled"
    assert "Canceled" in widget.result.text()
    assert len(widget.made) == 2
    assert notes == []


def test_closing_the_dock_stops_a_fit(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("iterations", 100_000)
    widget.run()
    wait_started(qtbot, widget)
    task = widget.runner.task
    viewer.window.remove_dock_widget(widget)
    assert not task.running
    assert medgs_threads() == []
    before = list(viewer.layers)
    qtbot.wait(300)
    assert list(viewer.layers) == before
    # Deaf to the viewer from now on.
    viewer.add_image(np.random.default_rng(0).random((4, 5, 6)))
    assert notes == []


def test_closing_the_viewer_stops_a_fit(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("iterations", 100_000)
    widget.run()
    wait_started(qtbot, widget)
    task = widget.runner.task
    viewer.close()
    qtbot.waitUntil(lambda: not task.running, timeout=WAIT)
    qtbot.waitUntil(lambda: medgs_threads() == [], timeout=WAIT)
    assert notes == []


def test_source_removed_during_a_fit_still_gives_a_result(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    image, _ = add_tiny(viewer)
    widget.settings.set_value("iterations", 5)
    widget.run()
    viewer.layers.remove(image)
    wait_done(qtbot, widget)
    assert notes == []
    assert len(widget.made) == 2


def test_nan_is_background_with_a_notification(docked, qtbot, notes):
    viewer, widget = docked()
    data = np.random.default_rng(0).random((5, 9, 9), np.float32)
    data[:, :2] = np.nan
    viewer.add_image(data, name="map")
    widget.settings.set_value("iterations", 3)
    widget.run()
    wait_done(qtbot, widget)
    assert [severity for severity, _ in notes] == ["warning"]
    assert "NaN in 90 voxels" in notes[0][1]
    assert len(widget.made) == 2
    assert np.isnan(viewer.layers["map"].data).sum() == 90  # the layer itself is not changed


def constant(viewer):
    viewer.add_image(np.ones((5, 6, 7)), name="flat")


def not_finite(viewer):
    viewer.add_image(np.full((5, 6, 7), np.nan), name="holes")


def colors(viewer):
    viewer.add_image(np.zeros((9, 9, 3), np.uint8), rgb=True, name="photo")


def film(viewer):
    viewer.add_image(np.random.default_rng(0).random((2, 5, 6, 7)), name="film")


def test_bad_images_are_refused_at_once(docked, notes):
    viewer, widget = docked()
    for prepare, words in (
        (lambda viewer: None, "image"),
        (constant, "constant"),
        (not_finite, "finite"),
        (colors, "RGB"),
        (film, "dimensions"),
    ):
        notes.clear()
        viewer.layers.clear()
        prepare(viewer)
        widget.panel.button.click()
        assert not widget.runner.busy
        assert [severity for severity, _ in notes] == ["error"], words
        assert words in notes[0][1]


def test_bad_masks_and_settings_are_refused_at_once(docked, notes, add_tiny):
    viewer, widget = docked()
    image, mask = add_tiny(viewer)
    other = viewer.add_labels(np.ones((3, 4, 5), int), name="elsewhere")
    empty = viewer.add_labels(np.zeros(image.data.shape, int), scale=image.scale,
                              translate=image.translate, name="blank")  # fmt: skip
    widget.mask.choose(other)
    widget.run()
    widget.mask.choose(empty)
    widget.run()
    widget.mask.choose(mask)
    widget.settings.set_value("lambda_img", 0)
    widget.settings.set_value("lambda_seg", 0)
    widget.run()
    assert not widget.runner.busy
    assert len(notes) == 3
    for (severity, text), word in zip(notes, ("elsewhere", "empty", "lambda")):
        assert severity == "error"
        assert word in text


def test_refusals_from_inside_the_fit_are_notifications(docked, qtbot, notes, add_tiny):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("freeze_geometry", True)  # with nothing to keep
    widget.run()
    wait_done(qtbot, widget)
    assert len(notes) == 1
    assert notes[0][0] == "error"
    assert "initial" in notes[0][1] or "freeze" in notes[0][1]
    assert widget.made == []


def test_the_unexpected_is_a_notification_and_a_log(
    docked, qtbot, notes, add_tiny, monkeypatch, caplog
):
    def breaks(*args, **kwargs):
        raise RuntimeError("the roof is on fire")

    monkeypatch.setattr("napari_medgs.fitting.fit", breaks)
    viewer, widget = docked()
    add_tiny(viewer)
    widget.run()
    wait_done(qtbot, widget)
    assert len(notes) == 1
    assert "the roof is on fire" in notes[0][1]
    assert "log" in notes[0][1]
    assert any(r.exc_info for r in caplog.records)
    assert widget.panel.button.isEnabled()


def test_several_contrasts_are_fitted_together(docked, qtbot, add_tiny):
    viewer, widget = docked()
    image, _ = add_tiny(viewer)
    second = viewer.add_image(
        image.data.max() - image.data, name="inverse", scale=image.scale,
        translate=image.translate, units=image.units,
    )  # fmt: skip
    widget.images.check([image, second])
    assert widget.images.layers == [image, second]
    widget.settings.set_value("iterations", 10)
    widget.run()
    wait_done(qtbot, widget)
    assert [x.name for x in widget.made[:2]] == [
        "scan · reconstruction",
        "inverse · reconstruction",
    ]
    assert widget.last.result.field.info.image_channels == ("scan", "inverse")


def test_a_flat_image_can_be_fitted(docked, qtbot, notes):
    viewer, widget = docked()
    y, x = np.indices((40, 50))
    data = np.exp(-((y - 20) ** 2 + (x - 25) ** 2) / 60).astype(np.float32)
    viewer.add_image(data, name="spot")
    widget.settings.set_value("iterations", 20)
    widget.run()
    wait_done(qtbot, widget)
    assert notes == []
    reconstruction, surface = widget.made
    assert reconstruction.data.shape == data.shape
    assert np.mean((reconstruction.data - data) ** 2) < 0.1 * data.var()
    assert surface.ndim == 2


def test_backends_that_cannot_be_used_are_gray_and_say_why(docked, qtbot):
    _, widget = docked()
    widget.settings.advanced.open()
    qtbot.waitUntil(lambda: widget.backends_checked, timeout=WAIT)
    from napari_medgs.rendering import backends

    box = widget.settings.settings["backend"].control.native
    found = backends()
    for k in range(box.count()):
        works, remark = found.get(box.itemText(k), (True, ""))
        assert box.model().item(k).isEnabled() == works
        if not works:
            assert box.itemData(k, Qt.ItemDataRole.ToolTipRole) == remark


def test_layer_choices_follow_the_viewer(docked, add_tiny):
    viewer, widget = docked()
    image, mask = add_tiny(viewer)
    assert widget.mask.layer is None
    widget.mask.choose(mask)
    mask.name = "renamed"
    assert widget.mask.currentText() == "renamed"
    assert widget.mask.layer is mask
    image.name = "other"
    assert widget.images.item(0).text() == "other"
    viewer.layers.remove(mask)
    assert widget.mask.layer is None
    newer = viewer.add_image(image.data, name="newer")
    assert widget.images.layers == [newer]
    widget.images.check([image])
    viewer.add_image(image.data, name="newest")
    assert widget.images.layers == [image]  # what was chosen by hand stays


def test_the_image_that_is_seen_is_chosen(docked):
    viewer, widget = docked()
    data = np.zeros((3, 8, 8), np.float32)
    first = viewer.add_image(data, name="time 0")
    second = viewer.add_image(data, name="time 1", visible=False)
    assert widget.images.layers == [first]  # as files of several volumes are opened
    seen = LayerCombo(widget, is_kind("Image"))
    assert seen.layer is first
    first.visible, second.visible = False, True  # as Show 3D hides its image
    viewer.add_labels(data.astype(int))
    assert widget.images.layers == [first]
    viewer.layers.remove(first)
    assert widget.images.layers == [second]


def test_progress_in_words():
    event = ProgressEvent("fit", 43, 80, 3.0, psnr=38.24, gaussians=12345, remaining=100.0)
    assert describe(event) == "Fitting 43/80 · 38.2 dB · 12,345 Gaussians · 2 min left"
    assert describe(ProgressEvent("initialize", 0, 1, 0.0)) == "Preparing"


def test_contradicting_settings_raise_before_anything(docked):
    _, widget = docked()
    widget.settings.set_value("lambda_img", 0)
    widget.settings.set_value("lambda_seg", 0)
    with pytest.raises(ParameterError):
        widget.settings.params()


def test_results_are_replaced_and_name_their_image(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    image, mask = add_tiny(viewer)
    widget.mask.choose(mask)
    widget.settings.set_value("gaussians", 16)
    widget.settings.set_value("iterations", 3)
    widget.run()
    wait_done(qtbot, widget)
    assert widget.result.text().startswith("<b>scan</b>")
    assert "0.0 MiB" not in widget.result.text()
    names = [layer.name for layer in viewer.layers]
    first = list(widget.made)
    widget.mask.choose(mask)
    widget.run()
    wait_done(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == names
    assert not any(layer in viewer.layers for layer in first)
    # A mask that was edited is the user's work; other results can be kept on request.
    edited = next(layer for layer in widget.made if layer.name.endswith("mask"))
    edited.data[0, 0, 0] = 1
    widget.mask.choose(mask)
    widget.run()
    wait_done(qtbot, widget)
    assert edited in viewer.layers
    assert not edited.visible
    assert edited.name == "scan · mask (edited)"
    viewer.layers.remove(edited)
    widget.keep_earlier.setChecked(True)
    widget.mask.choose(mask)
    widget.run()
    wait_done(qtbot, widget)
    assert len(viewer.layers) == len(names) + 3
    # A refused fit leaves nothing of another one on show.
    assert widget.result.isVisibleTo(widget)
    image.data = np.full_like(image.data, 7.0)
    widget.run()
    assert not widget.result.isVisibleTo(widget)
    assert [severity for severity, _ in notes] == ["error"]


def test_a_canceled_fit_can_be_kept_or_discarded(docked, qtbot, add_tiny, notes):
    viewer, widget = docked()
    add_tiny(viewer)
    widget.settings.set_value("gaussians", 16)
    widget.settings.set_value("iterations", 3)
    widget.run()
    wait_done(qtbot, widget)
    before = list(viewer.layers)
    for button, stays in ((widget.discard, True), (widget.keep, False)):
        widget.settings.set_value("iterations", 100_000)
        widget.run()
        wait_started(qtbot, widget)
        widget.panel.cancel.click()
        wait_done(qtbot, widget)
        assert widget.decide.isVisibleTo(widget)
        assert len(viewer.layers) > len(before)
        button.click()
        assert not widget.decide.isVisibleTo(widget)
        assert len(viewer.layers) == len(before)
        assert (before[-1] in viewer.layers) is stays
    assert notes == []


def test_defaults_come_back_by_a_button(docked):
    _, widget = docked()
    form, told = widget.settings, []
    form.changed.connect(lambda: told.append(True))
    form.set_value("gaussians", 1234)
    form.set_value("fold", 1)
    told.clear()
    form.reset.click()
    assert form.params() == FitParams()
    assert told == [True]


def test_a_step_without_an_end_in_sight_shows_its_time(docked, qtbot):
    _, widget = docked()
    go_on = threading.Event()

    def job(progress, should_stop):
        progress(ProgressEvent("initialize", 0, 1, 0.0))
        go_on.wait(30)

    widget.panel.run(job, lambda nothing: None, "Fitting")
    qtbot.waitUntil(lambda: "Preparing · " in widget.panel.status.text(), timeout=WAIT)
    assert widget.panel.bar.maximum() == 0
    go_on.set()
    wait_done(qtbot, widget)
    assert not widget.panel.status.isVisibleTo(widget)
