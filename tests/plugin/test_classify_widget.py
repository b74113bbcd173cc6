"""The Classify widget in a real viewer, with the classifiers of the package."""

import threading
import time

import numpy as np
import pytest
from napari.layers import Image

from napari_medgs.classification import DISCLAIMER, Deletion, bundled_models, load_classifier
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.files import load_card
from napari_medgs.errors import Cancelled, ImageError
from napari_medgs.plugin.classify.bars import BEST, OTHER, ProbabilityBars
from napari_medgs.plugin.classify.jobs import (
    ClassifyRequest,
    class_title,
    dataset_title,
    describe_card,
    describe_deletion,
    make_classify_request,
    percent,
)
from napari_medgs.plugin.classify.widget import ClassifyWidget
from napari_medgs.plugin.layer_metadata import FIELD_KEY, FRAME_KEY, field_of
from napari_medgs.plugin.layer_volumes import volume_from_layers, volume_from_rgb
from napari_medgs.plugin.overlay.colors import gaussian_colors, is_background, strengths
from napari_medgs.plugin.overlay.layer import overlay_of
from napari_medgs.plugin.overlay.widget import OverlayWidget
from tests.plugin.test_sections import random_field

WAIT = 120_000


def lesion():
    """A dark blob in speckle, (28, 28) uint8."""
    y, x = np.mgrid[:28, :28]
    noise = np.random.default_rng(3).normal(0, 12, (28, 28))
    dark = 90 * np.exp(-((y - 15) ** 2 + (x - 12) ** 2) / 30)
    return np.clip(130 - dark + noise, 0, 255).astype(np.uint8)


def fundus():
    """An orange disc with a bright spot, (28, 28, 3) uint8."""
    y, x = np.mgrid[:28, :28]
    disc = ((y - 14) ** 2 + (x - 14) ** 2 < 170)[..., None]
    spot = np.exp(-((y - 14) ** 2 + (x - 20) ** 2) / 8)[..., None]
    return (disc * (np.array([180, 90, 40]) + 70 * spot)).astype(np.uint8)


def gland():
    """A flat bent shape, (28, 28, 28) uint8 of 0 and 255."""
    z, y, x = np.mgrid[:28, :28, :28] - 14.0
    return np.where(
        (z / 9) ** 2 + ((y - 0.03 * x**2) / 4) ** 2 + (x / 10) ** 2 < 1, 255, 0
    ).astype(np.uint8)


@pytest.fixture
def docked(make_viewer):
    """Open a viewer with the Classify widget in it and a model chosen."""

    def open_it(model="breastmnist"):
        viewer = make_viewer()
        widget = ClassifyWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Classify")
        widget.model.setCurrentIndex(widget.model.findText(dataset_title(model)))
        return viewer, widget

    return open_it


@pytest.fixture
def slow(monkeypatch):
    """Make every prediction last until it is stopped."""

    def predict(self, image, *, progress, should_stop):
        while not should_stop():
            time.sleep(0.01)
        raise Cancelled("Canceled.")

    monkeypatch.setattr(Classifier, "predict", predict)


def classified(qtbot, widget):
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)


def explained(qtbot, widget):
    widget.explain.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)


def medgs_threads():
    return [t for t in threading.enumerate() if t.name == "medgs-task"]


def test_a_grey_image_is_classified_as_the_core_does(docked, qtbot, notes):
    viewer, widget = docked()
    layer = viewer.add_image(lesion(), name="scan")
    assert not widget.results.isVisible()
    classified(qtbot, widget)
    classifier = load_classifier(bundled_models()["breastmnist"])
    expected = classifier.predict(volume_from_layers([layer])[0])
    assert notes == []
    assert widget.last.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    rows = widget.bars.rows()
    assert [share for _, _, share in rows] == sorted(expected.probabilities.values(), reverse=True)
    assert percent(expected.probabilities[expected.best]) in widget.result.text()
    assert expected.best in widget.result.text()
    assert f"{widget.last.prediction.seconds:.2f} s" in widget.result.text()
    assert widget.target.currentText() == expected.best
    assert "scan" in widget.result.text()
    # What the model is, before and after.
    metrics = classifier.card.metrics
    for said in ("BreastMNIST", f"{metrics['test_auc']:.3f}", f"{metrics['test_acc']:.3f}"):
        assert said in widget.card.text()
    assert widget.warning.text() == DISCLAIMER
    assert "no diagnosis" in widget.warning.text()


def test_the_explanation_is_an_overlay_of_diverging_colors(docked, qtbot, notes):
    viewer, widget = docked()
    layer = viewer.add_image(lesion(), name="scan", scale=(2, 3), translate=(5, 7))
    classified(qtbot, widget)
    explained(qtbot, widget)
    assert notes == []
    found, drawn = widget.attribution, widget.explanation_layer
    overlay = overlay_of(drawn)
    assert overlay.scores is found.scores
    assert overlay.shown == len(found.field) == 64
    assert overlay.style.color_by == "score"
    np.testing.assert_array_equal(drawn.scale, layer.scale)
    np.testing.assert_array_equal(drawn.translate, layer.translate)
    assert field_of(drawn) is found.field
    assert found.class_name in drawn.name
    # Red for it, blue against it.
    colors = gaussian_colors(found.field, "score", "coolwarm", scores=found.scores)
    high, low = colors[found.scores.argmax()], colors[found.scores.argmin()]
    assert high[0] > high[2] + 0.3
    assert low[2] > low[0] + 0.3
    deletion = found.deletion
    for share in (deletion.probability, deletion.without_highest, deletion.without_random):
        assert percent(share) in widget.explanation.text()
    best = widget.last.prediction.probabilities[found.class_name]
    assert deletion.probability == pytest.approx(best, abs=0.02)
    # The other class, by the other method, takes its place.
    widget.target.setCurrentIndex(1 - widget.target.currentIndex())
    widget.method.setCurrentIndex(widget.method.findData("leave-out"))
    explained(qtbot, widget)
    assert widget.attribution.class_name != found.class_name
    assert widget.attribution.method == "leave-out"
    assert drawn not in viewer.layers
    assert list(viewer.layers) == [layer, widget.explanation_layer]
    # Explanations are no images to classify, and the overlay's controls know them.
    assert widget.image.layer is layer
    assert widget.image.count() == 1
    controls = OverlayWidget(viewer)
    qtbot.addWidget(controls)
    assert controls.color_by.currentData() == "score"
    assert controls.colormap.currentData() == "coolwarm"
    controls.shut_down()
    assert notes == []


def test_a_color_image(docked, qtbot, notes):
    viewer, widget = docked("retinamnist")
    layer = viewer.add_image(fundus(), rgb=True, name="eye")
    classified(qtbot, widget)
    assert notes == []
    volume, frame = volume_from_rgb(layer)
    assert volume.data.shape == (3, 1, 28, 28)
    assert frame.ndim == 2
    np.testing.assert_array_equal(volume.data[1, 0], layer.data[..., 1])
    expected = load_classifier(bundled_models()["retinamnist"]).predict(volume)
    assert widget.last.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    assert len(widget.bars.rows()) == 5
    explained(qtbot, widget)
    assert notes == []
    assert overlay_of(widget.explanation_layer).shown == 64
    # Opacity is not a color.
    clear = np.dstack([fundus(), np.full((28, 28), 255, np.uint8)])
    np.testing.assert_array_equal(volume_from_rgb(Image(clear, rgb=True))[0].data, volume.data)


def test_a_volume(docked, qtbot, notes):
    viewer, widget = docked("adrenalmnist3d")
    viewer.add_image(gland(), name="gland")
    classified(qtbot, widget)
    assert notes == []
    assert sum(widget.last.prediction.probabilities.values()) == pytest.approx(1)
    explained(qtbot, widget)
    assert notes == []
    overlay = overlay_of(widget.explanation_layer)
    viewer.dims.set_current_step(0, 14)
    assert overlay.shown > 0
    viewer.dims.ndisplay = 3
    assert overlay.shown > 0
    assert overlay.layer.shading == "smooth"


def test_a_layer_with_a_field_is_classified_by_its_field(docked, qtbot, notes):
    viewer, widget = docked()
    image = viewer.add_image(lesion(), name="scan")
    classified(qtbot, widget)
    first = widget.last
    metadata = {FIELD_KEY: first.prediction.field, FRAME_KEY: first.request.frame.to_dict()}
    points = viewer.add_points(np.zeros((1, 2)), name="its field", metadata=metadata)
    widget.image.choose(points)
    request = make_classify_request(widget.image.layer, widget.model.currentData())
    assert request.source is first.prediction.field
    classified(qtbot, widget)
    assert notes == []
    assert "its field" in widget.result.text()
    # The very Gaussians that the network had read.
    assert widget.last.prediction.probabilities == pytest.approx(
        first.prediction.probabilities, abs=0.02
    )
    assert image in viewer.layers


def test_the_wrong_kind_is_one_notification(docked, qtbot, notes):
    viewer, widget = docked()
    for model, data, options, said in (
        ("breastmnist", fundus(), {"rgb": True}, "channel"),
        ("retinamnist", lesion(), {}, "3 channels"),
        ("retinamnist", fundus(), {"rgb": False}, "not opened as RGB"),
        ("adrenalmnist3d", np.uint8(lesion() > 90), {}, "or another model"),
        ("adrenalmnist3d", np.stack([lesion()] * 9), {}, "more than two values, from"),
        ("adrenalmnist3d", gland() * 0, {"contrast_limits": (0, 1)}, "there is no shape"),
        ("adrenalmnist3d", gland() / 255 + np.eye(28), {}, "give a mask with one label"),
        ("breastmnist", lesion().astype(float) * 50, {}, "8-bit"),
        ("breastmnist", np.zeros((2, 3, 28, 28)), {}, "4 dimensions"),
    ):
        notes.clear()
        viewer.layers.clear()
        widget.model.setCurrentIndex(widget.model.findText(dataset_title(model)))
        viewer.add_image(data, **options)
        classified(qtbot, widget)
        assert [severity for severity, _ in notes] == ["error"], said
        assert said in notes[0][1]
        assert not widget.results.isVisible()
        assert widget.panel.button.isEnabled()


def test_an_image_unlike_the_training_images_is_called_so(docked, qtbot, notes, data_dir):
    viewer, widget = docked()
    viewer.add_image(np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8))
    classified(qtbot, widget)
    assert widget.unlike.isVisibleTo(widget)
    assert "unlike those of BreastMNIST" in widget.unlike.text()
    assert widget.result.styleSheet()  # not the green of a good answer
    known = np.load(data_dir / "medmnist" / "breastmnist.npz")["test_images"][3]
    viewer.layers.clear()
    viewer.add_image(known)
    classified(qtbot, widget)
    assert not widget.unlike.isVisibleTo(widget)
    assert not widget.result.styleSheet()
    assert notes == []


def test_the_slice_on_show_is_classified_and_masks_are_shapes(docked, qtbot, notes):
    viewer, widget = docked()
    stack = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    stack[4] = lesion()
    layer = viewer.add_image(stack, name="scan")
    mask = viewer.add_labels((gland() > 0).astype(np.uint8), name="gland")
    assert [widget.image.itemText(k) for k in range(widget.image.count())] == ["scan"]
    viewer.dims.set_current_step(0, 4)
    classified(qtbot, widget)
    assert "slice 4 along z of scan" in widget.result.text()
    assert not widget.explain_box.isVisibleTo(widget)
    alone = load_classifier(bundled_models()["breastmnist"]).predict(
        volume_from_layers([Image(lesion())])[0]
    )
    assert widget.last.prediction.probabilities == pytest.approx(alone.probabilities)
    viewer.dims.ndisplay = 3
    classified(qtbot, widget)
    assert "2D view" in notes[0][1]
    assert not widget.results.isVisibleTo(widget)
    viewer.dims.ndisplay = 2
    widget.model.setCurrentIndex(widget.model.findText("AdrenalMNIST3D"))
    assert "masks" in widget.card.text()
    widget.image.choose(mask)
    assert widget.image.layer is mask
    classified(qtbot, widget)
    assert len(notes) == 1
    assert widget.results.isVisibleTo(widget)
    assert layer in viewer.layers


def test_without_an_image_it_says_so(docked, qtbot, notes):
    _, widget = docked()
    classified(qtbot, widget)
    assert notes == [("error", "Choose an image to classify: open one first.")]
    with pytest.raises(ImageError, match="model"):
        make_classify_request(Image(lesion()), None)


def test_model_files(docked, qtbot, notes, tmp_path):
    viewer, widget = docked()
    good = tmp_path / "mine.safetensors"
    good.write_bytes(bundled_models()["breastmnist"].read_bytes())
    before = widget.model.count()
    widget.use_file(good)
    widget.use_file(good)
    assert widget.model.count() == before + 1
    assert widget.model.currentText() == "mine"
    viewer.add_image(lesion())
    classified(qtbot, widget)
    assert notes == []
    assert widget.last.request.model == good
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no such thing")
    widget.use_file(broken)
    assert len(notes) == 1
    assert "broken.safetensors" in notes[0][1]
    assert widget.model.currentText() == "mine"
    # Cut short after it was chosen.
    good.write_bytes(good.read_bytes()[:-1000])
    classified(qtbot, widget)
    assert len(notes) == 2
    assert "truncated" in notes[1][1]


def test_cancel(docked, qtbot, notes, slow):
    viewer, widget = docked()
    viewer.add_image(lesion())
    widget.run()
    assert not widget.panel.button.isEnabled()
    assert not widget.explain_box.isEnabled()
    widget.panel.cancel.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert widget.last is None
    assert widget.panel.button.isEnabled()
    assert widget.explain_box.isEnabled()
    assert notes == []


@pytest.mark.parametrize("what", ["dock", "viewer"])
def test_closing_stops_it(docked, qtbot, notes, slow, what):
    viewer, widget = docked()
    viewer.add_image(lesion())
    widget.run()
    task = widget.runner.task
    if what == "dock":
        viewer.window.remove_dock_widget(widget)
    else:
        viewer.close()
    qtbot.waitUntil(lambda: not task.running, timeout=WAIT)
    qtbot.waitUntil(lambda: medgs_threads() == [], timeout=WAIT)
    assert notes == []


def test_the_core_stops_when_asked():
    request = make_classify_request(Image(lesion()), bundled_models()["breastmnist"])
    assert isinstance(request, ClassifyRequest)
    with pytest.raises(Cancelled):
        request(lambda event: None, lambda: True)
    classifier = load_classifier(request.model)
    with pytest.raises(Cancelled):
        classifier.predict(request.source, should_stop=lambda: True)
    with pytest.raises(Cancelled):
        classifier.attribute(request.source, 0, should_stop=lambda: True)


def test_a_layer_that_is_deleted(docked, qtbot, notes):
    viewer, widget = docked()
    layer = viewer.add_image(lesion(), name="gone")
    widget.run()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert notes == []
    assert "gone" in widget.result.text()  # it was classified all the same
    explained(qtbot, widget)
    assert len(notes) == 1
    assert "is gone" in notes[0][1]
    assert list(viewer.layers) == []
    # An explanation that the user removed is made again.
    viewer.add_image(lesion(), name="new")
    classified(qtbot, widget)
    explained(qtbot, widget)
    viewer.layers.remove(widget.explanation_layer)
    assert widget.explanation_layer is None
    explained(qtbot, widget)
    assert widget.explanation_layer in viewer.layers
    assert len(notes) == 1
    # It explains one result: another one is not seen through it.
    assert widget.explanation_layer.visible
    widget.image.choose(viewer.add_image(lesion(), name="next"))
    classified(qtbot, widget)
    assert "next" in widget.result.text()
    assert not widget.explanation_layer.visible


def test_bars_are_drawn_in_either_order(qtbot):
    bars = ProbabilityBars()
    qtbot.addWidget(bars)
    assert bars.sizeHint().height() == 0
    bars.show_probabilities(
        {"0": 0.2, "a rather long name of a class that has to be cut": 0.7, "c": 0.1}
    )
    names = [name for name, _, _ in bars.rows()]
    assert names[1:] == ["class 0", "c"]
    assert [said for _, said, _ in bars.rows()] == ["70.0 %", "20.0 %", "10.0 %"]
    assert "class 0: 20.0 %" in bars.toolTip()
    bars.resize(200, bars.sizeHint().height())
    image = bars.grab().toImage()
    ratio = image.width() / 200

    def color(x, row):
        y = row * bars.sizeHint().height() // 3 + 28
        return image.pixelColor(round(x * ratio), round(y * ratio)).name()

    assert color(120, 0) == BEST.name()
    assert color(20, 1) == OTHER.name()
    assert color(60, 1) not in (BEST.name(), OTHER.name())
    bars.sort(False)
    assert bars.rows()[0][0] == "class 0"
    image = bars.grab().toImage()
    assert color(20, 0) == OTHER.name()
    assert color(120, 1) == BEST.name()
    bars.show_probabilities({"a": 0.9, "b": 0.1, "c": 0.0}, reliable=False)
    image = bars.grab().toImage()
    assert color(20, 0) == OTHER.name()  # nothing stands out where nothing can be relied on


def test_scores_fade_towards_zero():
    field = random_field(n=5)
    scores = np.array([-2.0, -0.01, 0.0, 1.0, 2.0])
    colors = gaussian_colors(field, "score", "gray", scores=scores)
    assert (np.diff(colors[:, 0]) >= 0).all()
    assert colors[2, 0] == pytest.approx(0.5, abs=0.01)
    faint = strengths(field, "score", scores)
    assert faint[2] == faint.min() < faint[3] < faint[4] == pytest.approx(1, abs=0.01)
    assert (strengths(field, "intensity", scores) == 1).all()
    np.testing.assert_array_equal(
        is_background(field, "score", scores), [False, True, True, False, False]
    )


def test_words():
    assert dataset_title("adrenalmnist3d") == "AdrenalMNIST3D"
    assert dataset_title("my set") == "my set"
    assert class_title("malignant") == "malignant"
    assert percent(1.0) == "100.0 %"
    assert percent(0.99999) == "> 99.9 %"
    assert percent(1e-5) == "< 0.1 %"
    assert percent(0) == "0.0 %"
    good = describe_deletion(Deletion(0.1, 0.9, 0.4, 0.95, 0.88))
    assert "10%" in good
    assert "40.0 %" in good
    assert "marked Gaussians matter" in good
    assert "do not rely" in describe_deletion(Deletion(0.1, 0.9, 0.9, 0.8, 0.88))
    card = load_card(bundled_models()["retinamnist"])
    assert "RGB 2D" in describe_card(card)
    bare = ModelCard("resnet8", "a <set>", "binary-class", ("x", "y"), 1, 2, (28, 28))
    assert "No test results" in describe_card(bare)
    assert "pixels" in describe_card(bare)
    assert "&lt;set&gt;" in describe_card(bare)
