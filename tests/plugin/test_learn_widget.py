"""The Learn widget and Pre-segment: train, draw the first mask, take it back, correct it."""

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_medgs import learning
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, FileError, ParameterError
from napari_medgs.io import write_image
from napari_medgs.io.cases import find_cases
from napari_medgs.learning import (
    LearnParams,
    Segmenter,
    find_training_cases,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from napari_medgs.learning.ranking import rank_cases
from napari_medgs.learning.training.fit import LEAST_STEPS
from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.learn import jobs as learn_jobs
from napari_medgs.plugin.learn.jobs import (
    TrainRequest,
    describe_outcome,
    make_order_request,
    make_train_request,
    suggested_output,
)
from napari_medgs.plugin.learn.widget import LearnWidget
from napari_medgs.plugin.next_cases import ORDER, next_image
from napari_medgs.plugin.segmenter_choice import CHOICE
from napari_medgs.segmentation import CaseStore, ClassList
from tests.learning.cases import NAMES, phantom, write_nnunet
from tests.plugin.strokes import WAIT, stroke

TINY = LearnParams(
    steps=60, folds=4, width=8, levels=2, workers=0, precision="32", threads=1,
    learning_rate=0.02, ema=0.9,
)  # fmt: skip


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_nnunet(tmp_path_factory.mktemp("learn") / "cases", 4)


@pytest.fixture(scope="module")
def model(cases):
    found = train_segmenter(find_training_cases(cases), TINY).segmenter
    return save_segmenter(cases.parent / "ball.safetensors", found)


@pytest.fixture(scope="module")
def hasty_model(cases):
    """A model with folds, for what does not depend on its masks."""
    found = train_segmenter(find_training_cases(cases), replace(TINY, steps=2, folds=2)).segmenter
    return save_segmenter(cases.parent / "hasty.safetensors", found)


@pytest.fixture(autouse=True)
def no_choice():
    """Begin and end without a model."""
    CHOICE._path, ORDER.files = None, ()
    yield
    CHOICE._path, ORDER.files = None, ()


@pytest.fixture
def opened(docked):
    """A viewer with the Segment widget and an image that the model has not seen."""

    def open_it(contrasts=1):
        viewer, widget = docked(image=False)
        image, labels, grid = phantom(77)
        place = grid_kwargs(grid)
        metadata = place.pop("metadata")
        layers = [
            viewer.add_image(image * (k + 1), name=f"scan{k}", metadata=dict(metadata), **place)
            for k in range(contrasts)
        ]
        widget.view.images.check(layers)
        return viewer, widget, labels

    return open_it


def learn(make_viewer, cases=None):
    viewer = make_viewer()
    widget = LearnWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Learn")
    if cases is not None:
        widget.source.setText(str(cases))
    return widget


def test_train_and_continue(make_viewer, qtbot, cases, tmp_path, notes, monkeypatch):
    widget = learn(make_viewer, cases)
    assert widget.output.placeholderText() == str(suggested_output(cases))
    assert not widget.go_on.isEnabled()
    widget.output.setText(str(tmp_path / "mine"))
    widget.minutes.setValue(0.1)
    widget.measure.setChecked(False)
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert not notes
    assert CHOICE.path == tmp_path / "mine.safetensors"
    assert "ball, box" in widget.result.text()
    assert "4 cases" in widget.result.text()
    assert "loss" in widget.curve.words()
    assert widget.go_on.text() == "continue mine.safetensors"
    widget.go_on.setChecked(True)
    started = []
    monkeypatch.setattr(widget.panel, "run", lambda request, *_: started.append(request))
    widget.panel.button.click()
    assert started[0].start == tmp_path / "mine.safetensors"


def test_images_without_a_mask_are_listed(tmp_path, monkeypatch):
    place = write_nnunet(tmp_path / "cases", 2)
    image, _, grid = phantom(9)
    for k in range(7):
        write_image(place / "imagesTr" / f"new{k}_0000.nii.gz", image, grid)
    card = SimpleNamespace(class_names=("ball",), cases=(), dice={}, training={"done_steps": {}})
    segmenter = SimpleNamespace(card=card)
    result = SimpleNamespace(segmenter=segmenter, stopped_by=None, seconds=60, left_out={})
    monkeypatch.setattr(learning, "train_segmenter", lambda *_, **__: result)
    monkeypatch.setattr(learning, "save_segmenter", lambda *_: None)
    request = TrainRequest(place, tmp_path / "m.safetensors", TINY)
    outcome = request(lambda _: None, lambda: False)
    text = describe_outcome(outcome)
    assert "Not used, as without a mask: new0, new1, new2, new3, new4 and 2 more" in text
    assert "without a mask" not in describe_outcome(replace(outcome, without_mask=()))


def test_a_model_of_an_earlier_day_can_be_continued(make_viewer, qtbot, tmp_path):
    place = tmp_path / "cases"
    place.mkdir()
    widget = LearnWidget(make_viewer())
    qtbot.addWidget(widget)
    widget.source.setText(str(place))
    assert not widget.go_on.isEnabled()
    for k, name in enumerate(("segmenter.safetensors", "segmenter-2.safetensors")):
        (place / name).touch()
        os.utime(place / name, (1000 + k, 1000 + k))
    widget.source.setText("")
    widget.source.setText(str(place))
    assert widget.go_on.isEnabled()
    assert widget.go_on.text() == "continue segmenter-2.safetensors"
    widget.go_on.setChecked(True)
    started = []
    widget.panel.run = lambda request, *others: started.append(request)
    widget.panel.button.click()
    assert started[0].start == place / "segmenter-2.safetensors"
    other = tmp_path / "mine.safetensors"
    other.touch()
    CHOICE.choose(other)  # the one that was trained or chosen since
    assert widget.go_on.text() == "continue mine.safetensors"


def test_cancel_keeps_the_best(make_viewer, qtbot, cases, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(learn_jobs, "FEW_STEPS", 10**6)  # a quick machine has more by then
    widget = learn(make_viewer, cases)
    widget.output.setText(str(tmp_path / "early.safetensors"))
    widget.panel.button.click()
    status = widget.panel.status

    def worth_keeping():
        step = re.match(r"Training (\d+)/", status.text())
        return step is not None and int(step[1]) >= LEAST_STEPS

    qtbot.waitUntil(worth_keeping, timeout=WAIT)
    widget.panel.cancel.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert not notes
    assert (tmp_path / "early.safetensors").is_file()
    assert "Stopped early" in widget.result.text()
    assert "These are few steps" in widget.result.text()


def test_a_task_that_runs_can_still_be_canceled(
    make_viewer, qtbot, cases, hasty_model, tmp_path, notes
):
    """Whatever else of the widget is asked for meanwhile."""
    CHOICE.choose(hasty_model)
    widget = learn(make_viewer, cases)
    widget.images.setText(str(cases / "imagesTr"))
    widget.output.setText(str(tmp_path / "none.safetensors"))
    assert widget.order_button.isEnabled()
    widget.panel.button.click()
    assert not widget.order_button.isEnabled()
    widget.order()
    assert "Training is still running" in notes.pop()[1]
    assert widget.panel.cancel.isEnabled()
    assert not widget.panel.button.isEnabled()
    widget.panel.cancel.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert widget.order_button.isEnabled()
    assert widget.panel.button.isEnabled()
    assert notes == []


def test_cancel_before_there_is_a_network(make_viewer, qtbot, cases, tmp_path, notes):
    widget = learn(make_viewer, cases)
    widget.output.setText(str(tmp_path / "none.safetensors"))
    widget.panel.button.click()
    widget.panel.cancel.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert "nothing was saved" in widget.result.text()
    assert not widget.result.isHidden()
    assert list(tmp_path.iterdir()) == notes == []


def test_what_is_missing(make_viewer, qtbot, tmp_path, notes, monkeypatch):
    widget = learn(make_viewer)
    widget.panel.button.click()
    assert notes == [("error", "Choose the cases to learn from: a folder, or a table.")]
    notes.clear()
    widget.source.setText(str(tmp_path))
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert "no images with masks" in notes[0][1]
    assert "a table (.csv) with the columns image and mask" in notes[0][1]
    single = tmp_path / "scan.nii.gz"
    single.touch()
    widget.source.setText(str(single))
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert "training needs a folder of images with masks" in notes[1][1]
    with pytest.raises(FileError, match="no such file"):
        make_train_request(tmp_path / "x", tmp_path / "m.safetensors", 1, True, None)
    with pytest.raises(ParameterError, match="where the model is saved"):
        make_train_request(tmp_path, None, 1, True, None)
    with pytest.raises(FileError, match="ends in"):
        make_train_request(tmp_path, tmp_path / "m.pt", 1, True, None)
    several = write_nnunet(tmp_path / "several", 2, 2)
    image, _, grid = phantom(1)
    fine = grid.with_spacing((1.0, 0.5, 0.5))
    image = image.repeat(2, 1).repeat(2, 2)
    write_image(several / "imagesTr" / "case1_0001.nii.gz", image, fine)
    widget.source.setText(str(several))
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert notes[2][1].endswith("Check 'bring images and mask onto one grid' for that.")
    widget.resample.setChecked(True)
    looked = []
    monkeypatch.setattr(
        learning, "train_segmenter", lambda source, *_, **__: looked.append(source)
    )
    monkeypatch.setattr(learning, "save_segmenter", lambda *_: None)
    monkeypatch.setattr(widget, "_show_outcome", lambda outcome: None)
    widget.panel.button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert [case.resample for case in looked[0].cases] == [True, True]


def test_the_images_that_folds_disagree_on_come_first(
    make_viewer, qtbot, cases, model, tmp_path, notes
):
    """In the list, and with Next case in Segment."""
    images = tmp_path / "images"
    images.mkdir()
    for name, noise in (("a", 0), ("b", 400), ("c", 0), ("kept", 0)):
        image, labels, grid = phantom(31)
        image = image + np.random.default_rng(0).normal(0, noise, image.shape)
        write_image(images / f"{name}.nii.gz", image.astype(np.float32), grid)
    (images / "d.nii.gz").write_bytes(b"none")
    store = CaseStore(tmp_path / "kept")
    files = (str(images / "kept.nii.gz"),)
    store.add("kept", Volume(image[None], grid), labels, ClassList.of(NAMES), images=files)
    widget = learn(make_viewer, tmp_path / "kept")
    widget.order_button.click()
    assert notes.pop() == ("error", "Train a model first, or choose one beside Pre-segment.")
    CHOICE.choose(model)
    assert widget.images.placeholderText() == str(images)
    widget.order_button.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert not notes
    said = widget.coming.text()
    assert said.index("b 0.") < said.index("a 0.") < said.index("c 0.")
    assert "kept" not in said
    assert "d.nii.gz" in said
    order = [str(images / f"{n}.nii.gz") for n in "bac"]
    assert list(ORDER.files) == order
    kept = {files[0]}
    paths = [images / f"{n}.nii.gz" for n in "abc"]
    assert next_image(paths[0], kept, ORDER.files) == paths[2]
    assert next_image(paths[2], kept, ORDER.files) == paths[1]
    assert next_image(Path(files[0]), kept, ORDER.files) == paths[1]
    assert next_image(paths[1], kept | {order[1]}, ORDER.files) == paths[2]
    assert next_image(paths[1], kept, [str(tmp_path / "other.nii.gz")]) == paths[2]


def test_ordering_needs_images_and_folds(cases, hasty_model, tmp_path):
    with pytest.raises(ParameterError, match="images without masks"):
        make_order_request(hasty_model, None, None)
    with pytest.raises(FileError, match="no such file"):
        make_order_request(hasty_model, tmp_path / "x", None)
    segmenter = load_segmenter(hasty_model)
    plain = Segmenter(segmenter.card.with_numbers(folds=0), segmenter.networks[:1])
    with pytest.raises(ParameterError, match="no folds"):
        rank_cases(plain, find_cases(cases / "imagesTr"))
    with pytest.raises(Cancelled):
        rank_cases(segmenter, find_cases(cases / "imagesTr"), should_stop=lambda: True)


def test_earlier_models_stay(tmp_path):
    first = suggested_output(tmp_path)
    assert first == tmp_path / "segmenter.safetensors"
    first.touch()
    assert suggested_output(tmp_path / "cases.csv") == tmp_path / "segmenter-2.safetensors"


def test_choosing(make_viewer, cases, tmp_path, monkeypatch):
    widget = learn(make_viewer)
    table = tmp_path / "t.csv"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(cases))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(table), ""))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "m"), ""))
    widget.choose_folder.trigger()
    assert widget.cases == cases
    widget.choose_table.trigger()
    assert widget.cases == table
    assert widget.model == tmp_path / "segmenter.safetensors"
    widget.ask_output()
    assert widget.model == tmp_path / "m.safetensors"


def test_pre_segment_is_one_step(opened, qtbot, model, notes):
    _, widget, truth = opened()
    CHOICE.choose(model)
    widget.view.presegment.click()
    qtbot.waitUntil(lambda: not widget.presegment.busy, timeout=WAIT)
    session = widget.controller.session
    assert not notes
    assert len(session.history.done) == 1
    assert {v: widget.view.table.name(v) for v in (2, 5)} == NAMES
    mask = np.asarray(widget.result_layer.data)
    assert 2 * ((mask > 0) & (truth > 0)).sum() / ((mask > 0).sum() + (truth > 0).sum()) > 0.8
    assert "Agreement of the folds" in widget.view.model_note.text()
    widget.view.undo.click()
    assert not np.asarray(widget.result_layer.data).any()
    assert widget.view.model_note.isHidden()
    widget.view.redo.click()
    assert np.asarray(widget.result_layer.data).any()
    assert not widget.view.model_note.isHidden()
    # A stroke corrects it.
    layer = widget.strokes_layer
    stroke(layer, [(8, 8, 8)], widget.view.table.background)
    qtbot.waitUntil(lambda: session.is_current and not widget.runner.busy, timeout=WAIT)
    after = np.asarray(widget.result_layer.data)
    assert after[8, 8, 8] == 0
    assert after.any()


def test_model_of_other_contrasts(opened, qtbot, hasty_model, notes, monkeypatch):
    _, widget, _ = opened(contrasts=2)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(hasty_model), ""))
    widget.view.presegment.click()  # asks for the model first
    assert CHOICE.path == hasty_model
    assert "has 2 contrasts, the model reads 1" in notes[0][1]
    assert widget.controller.session is None


def test_stop(opened, qtbot, hasty_model, notes, monkeypatch):
    def slow(self, volume, *, should_stop, **_):
        while not should_stop():
            pass
        raise Cancelled("Stopped.")

    monkeypatch.setattr(Segmenter, "segment", slow)
    _, widget, _ = opened()
    CHOICE.choose(hasty_model)
    widget.view.presegment.click()
    qtbot.waitUntil(lambda: widget.presegment.busy, timeout=WAIT)
    assert widget.view.presegment.text() == "Stop"
    widget.view.presegment.click()
    qtbot.waitUntil(lambda: not widget.presegment.busy, timeout=WAIT)
    assert widget.view.presegment.text() == "Pre-segment"
    assert widget.view.model_note.text() == "Stopped; nothing has changed."
    assert not widget.controller.session.history.done


def test_no_image(docked, hasty_model, notes):
    _, widget = docked(image=False)
    CHOICE.choose(hasty_model)
    widget.view.presegment.click()
    assert notes == [("error", "Open an image and choose it first.")]
