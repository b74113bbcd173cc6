"""The interactive segmenter: prompts, history, results, files."""

from __future__ import annotations

import numpy as np
import pytest

import napari_medgs as mg
from napari_medgs.errors import GeometryError, LabelError, MedGSError, ParameterError


@pytest.fixture(scope="module")
def head() -> mg.Volume:
    phantom = mg.make_phantom(spacing=6.0)
    return mg.Volume(phantom.image[None], phantom.grid)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return mg.make_phantom(spacing=6.0).labels


@pytest.fixture(scope="module")
def field(head):
    return mg.fit(head, mg.FitParams(iterations=20)).field


@pytest.fixture
def segmenter(head, field) -> mg.InteractiveSegmenter:
    made = mg.InteractiveSegmenter()
    made.set_image(head, field=field)
    return made


def strokes(truth: np.ndarray, tissue: int) -> np.ndarray:
    mask = truth == tissue
    middle = truth.shape[0] // 2
    mask[:middle] = mask[middle + 1 :] = False
    mask[:, ::2] = False
    return mask


def paint(segmenter: mg.InteractiveSegmenter, truth: np.ndarray) -> None:
    for label, tissue in ((0, 0), (0, 1), (0, 4), (1, 5)):
        assert segmenter.add_scribble(label, strokes(truth, tissue))


def test_scribbles_are_in_the_result(segmenter, truth):
    paint(segmenter, truth)
    labels = segmenter.result().labels
    assert (labels[strokes(truth, 5)] == 1).all()
    assert (labels[strokes(truth, 4)] == 0).all()
    assert 0 < (labels == 1).sum() < labels.size
    assert labels is segmenter.result().labels, "nothing has changed: nothing is computed"
    uncertainty = segmenter.uncertainty()
    assert uncertainty.shape == truth.shape
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1
    (suggestion,) = segmenter.suggest()
    assert suggestion.index != truth.shape[0] // 2


def test_undo_and_redo_bring_masks_back(segmenter, truth):
    paint(segmenter, truth)
    segmenter.result()
    before = segmenter.labels.copy()
    assert segmenter.add_scribble(1, strokes(truth, 4))
    segmenter.result()
    after = segmenter.labels.copy()
    assert not np.array_equal(before, after)
    assert segmenter.undo()
    np.testing.assert_array_equal(segmenter.labels, before)
    assert segmenter.redo()
    np.testing.assert_array_equal(segmenter.labels, after)
    assert not segmenter.can_redo
    assert not segmenter.redo()


def test_lines_points_and_boxes_mark_the_same_place_in_voxels_and_millimeters(segmenter, truth):
    z, y, x = (np.argwhere(truth == 5)[7]).tolist()
    affine = segmenter.volume.affine
    world = (affine @ [z, y, x, 1])[:3]
    assert segmenter.add_point(1, (z, y, x))
    assert segmenter.add_point(1, world, world=True) is False, "the very same point"
    assert segmenter.undo()
    assert segmenter.add_scribble(1, [(z, y, x), (z, y, x)])
    assert segmenter.session.strokes[z, y, x] == 1
    assert segmenter.erase([world], world=True)
    assert segmenter.session.strokes[z, y, x] == -1
    assert segmenter.add_box(1, (0, 0, 0), (z + 1, y + 1, x + 1))
    far = (affine @ [0, 0, 0, 1])[:3]
    assert segmenter.add_box(1, far, world, world=True) is False, "the very same box"


def test_an_initial_mask_counts_and_can_be_undone(segmenter, truth):
    segmenter.set_initial(truth == 5)
    labels = segmenter.result().labels
    overlap = 2 * ((labels == 1) & (truth == 5)).sum() / ((labels == 1).sum() + (truth == 5).sum())
    assert overlap > 0.8
    assert segmenter.undo()
    with pytest.raises(LabelError, match="mark nothing"):
        segmenter.result()


def test_a_saved_session_gives_the_same_mask(segmenter, truth, head, field, tmp_path):
    paint(segmenter, truth)
    segmenter.add_point(1, tuple(np.argwhere(truth == 5)[3].tolist()))
    expected = segmenter.result().labels
    path = segmenter.save(tmp_path / "case.json")
    restored = mg.InteractiveSegmenter.load(path, head, field=field)
    np.testing.assert_array_equal(restored.result().labels, expected)
    assert restored.can_undo


def test_arrays_and_files_are_images_too(head, truth, tmp_path):
    array = mg.InteractiveSegmenter(fit_params=mg.FitParams(iterations=5))
    array.set_image(np.asarray(head.data[0]), spacing=(6.0, 6.0, 6.0))
    assert array.volume.spacing == (6.0, 6.0, 6.0)
    paint(array, truth)
    assert array.field is None
    array.result()
    assert len(array.field)
    mg.write_image(tmp_path / "head.nii.gz", head.data, head.grid)
    array.set_image(tmp_path / "head.nii.gz")
    assert not array.can_undo, "prompts of another image are dropped"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.add_scribble(-1, [(0, 0, 0)]), LabelError),
        (lambda s: s.add_scribble(1.5, [(0, 0, 0)]), LabelError),
        (lambda s: s.add_scribble(1, np.zeros(s.volume.shape, bool)), LabelError),
        (lambda s: s.add_scribble(1, np.ones((2, 2, 2), bool)), GeometryError),
        (lambda s: s.add_scribble(1, [(0, 0)]), GeometryError),
        (lambda s: s.add_point(1, (-3, 0, 0)), GeometryError),
        (lambda s: s.add_point(1, (np.nan, 0, 0)), GeometryError),
        (lambda s: s.add_box(1, (0, 0, 0), (0, 5, 5)), GeometryError),
        (lambda s: s.add_box(0, (0, 0, 0), (5, 5, 5)), LabelError),
        (lambda s: s.set_initial(np.zeros((1, 1, 1), int)), GeometryError),
        (lambda s: s.set_initial(np.full(s.volume.shape, 0.5)), LabelError),
        (lambda s: s.set_image(s.volume, spacing=(1, 1, 1)), ParameterError),
        (lambda s: s.result(), MedGSError),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_no_trace(segmenter, truth, call, error):
    segmenter.add_scribble(2, [(0, 0, 0)])
    segmenter.undo()
    with pytest.raises(error):
        call(segmenter)
    assert not segmenter.can_undo
    assert segmenter.can_redo, "a refused prompt costs no history"


def test_an_image_is_needed_first():
    with pytest.raises(ParameterError, match="set_image"):
        mg.InteractiveSegmenter().result()
