"""The interactive segmenter: prompts, history, results, files."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

import napari_medgs as mg
from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, LabelError, MedGSError, ParameterError
from napari_medgs.segmentation import Box, Point, Session, Settings


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


def test_a_place_that_is_clicked_again_counts_again(segmenter, truth):
    place = tuple(np.argwhere(truth == 5)[7].tolist())
    assert segmenter.add_point(1, place)
    assert segmenter.add_point(0, place)
    assert segmenter.add_point(1, place), "the class is meant after all"
    assert [p.label for p in segmenter.session.settings.points] == [0, 1]
    assert segmenter.add_point(1, place) is False, "the very same point"
    assert segmenter.undo()
    assert [p.label for p in segmenter.session.settings.points] == [1, 0]
    assert segmenter.redo()
    paint(segmenter, truth)
    assert segmenter.result().labels[place] == 1


def test_the_rest_of_a_complete_slice_is_background(segmenter, truth):
    z = truth.shape[0] // 2
    shown = np.zeros(truth.shape, bool)
    shown[z] = truth[z] == 5
    assert segmenter.add_scribble(1, shown)
    assert segmenter.set_complete(0, z)
    assert segmenter.set_complete(0, z) is False, "it is already"
    labels = segmenter.result().labels
    np.testing.assert_array_equal(labels[z] == 1, shown[z])
    assert segmenter.set_complete(0, z - 4)  # nothing is drawn there
    assert not segmenter.result().labels[z - 4].any()
    assert segmenter.undo()
    assert segmenter.session.settings.fully_labeled == ((0, z),)
    assert segmenter.set_complete(0, z, complete=False)
    assert segmenter.session.settings.fully_labeled == ()


def test_an_initial_mask_counts_and_can_be_undone(segmenter, truth):
    segmenter.set_initial(truth == 5)
    labels = segmenter.result().labels
    overlap = 2 * ((labels == 1) & (truth == 5)).sum() / ((labels == 1).sum() + (truth == 5).sum())
    assert overlap > 0.8
    assert segmenter.undo()
    with pytest.raises(LabelError, match="Nothing is marked"):
        segmenter.result()


def test_a_kept_mask_changes_near_corrections_alone(segmenter, truth, head, field, tmp_path):
    with pytest.raises(ParameterError, match="no mask to keep"):
        segmenter.keep_mask()
    assert not segmenter.session.starts_from_mask
    paint(segmenter, truth)
    first = segmenter.result().labels.copy()
    done = len(segmenter.session.history.done)
    assert segmenter.keep_mask()
    assert not segmenter.keep_mask(), "just this mask is kept"
    assert segmenter.session.starts_from_mask
    assert len(segmenter.session.history.done) == done + 1
    np.testing.assert_array_equal(segmenter.result().labels, first)

    # A class where there was background, in one slice: all else stays, and the stroke counts.
    z = truth.shape[0] // 2 + 3
    wrong = np.zeros(truth.shape, bool)
    wrong[z] = (first[z] == 0) & (truth[z] == 4)
    wrong[z, :, ::2] = False
    assert wrong.any()
    assert segmenter.add_scribble(1, wrong)
    corrected = segmenter.result().labels.copy()
    assert (corrected[wrong] == 1).all()
    depth = distance_transform_edt(first == 0)[wrong]
    reach = max(1.0, float((2 * 2**0.25 * depth - 1).max()))  # depths count in steps
    far = distance_transform_edt(~wrong) > reach
    np.testing.assert_array_equal(corrected[far], first[far])

    path = segmenter.save(tmp_path / "session.json")
    again = mg.InteractiveSegmenter.load(path, head, field=field)
    np.testing.assert_array_equal(again.result().labels, corrected)

    # The same strokes without a kept mask are learned from, and change it far away, too.
    segmenter.set_initial(None)
    learned = segmenter.result().labels
    assert not segmenter.session.starts_from_mask
    assert (learned[far] != first[far]).any()
    for _ in range(3):
        segmenter.undo()
    np.testing.assert_array_equal(segmenter.labels, first)
    assert not segmenter.session.starts_from_mask


def test_a_mask_of_one_class_everywhere_is_not_kept(segmenter, truth):
    segmenter.set_mask(np.ones(truth.shape, np.uint8))
    with pytest.raises(ParameterError, match="one class everywhere"):
        segmenter.keep_mask()


def test_a_saved_session_gives_the_same_mask(segmenter, truth, head, field, tmp_path):
    paint(segmenter, truth)
    segmenter.add_point(1, tuple(np.argwhere(truth == 5)[3].tolist()))
    expected = segmenter.result().labels
    path = segmenter.save(tmp_path / "case.json")
    restored = mg.InteractiveSegmenter.load(path, head, field=field)
    assert not restored.labels.any(), "nothing is computed by loading"
    assert not restored.is_current
    np.testing.assert_array_equal(restored.result().labels, expected)
    np.testing.assert_array_equal(restored.labels, expected)
    assert restored.can_undo
    segmenter.keep_mask()
    kept = mg.InteractiveSegmenter.load(segmenter.save(path), head, field=field)
    np.testing.assert_array_equal(kept.labels, expected)


def test_arrays_and_files_are_images_too(head, truth, tmp_path):
    array = mg.InteractiveSegmenter(fit_params=mg.FitParams(iterations=5))
    array.set_image(np.asarray(head.data[0]), spacing=(6.0, 6.0, 6.0))
    assert array.volume.spacing == (6.0, 6.0, 6.0)
    paint(array, truth)
    assert array.field is None
    array.result()
    assert len(array.field)
    mg.write_image(tmp_path / "head.nii.gz", head.data, head.grid)
    array.set_image(np.asarray(head.data[0]), spacing=np.array([6.0, 5.0, 6.0]))
    assert array.volume.spacing == (6.0, 5.0, 6.0)
    place = np.array([1.0, 2.0, 3.0])
    for _ in range(2):
        array.update_settings(points=(Point(place, 1),), boxes=(Box(place // 1, place + 2, 1),))
    assert array.session.settings.points == (Point((1.0, 2.0, 3.0), 1),)
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
        (lambda s: s.add_point(1, "2 3 4"), GeometryError),
        (lambda s: s.add_point(1, (0, (1, 2), 0)), GeometryError),
        (lambda s: s.add_point(1, None), GeometryError),
        (lambda s: s.add_point(1, Point((2, 3, 4), 1)), GeometryError),
        (lambda s: s.add_point("liver", (2, 3, 4)), LabelError),
        (lambda s: s.add_point(None, (2, 3, 4)), LabelError),
        (lambda s: s.add_point(np.inf, (2, 3, 4)), LabelError),
        (lambda s: s.add_point(1, (2, 3, 4), radius="a"), ParameterError),
        (lambda s: s.add_point(1, (2, 3, 4), positive="no"), ParameterError),
        (lambda s: s.add_box(1, (0, 0, 0), None), GeometryError),
        (lambda s: s.add_box(1, (0, 0, 0), (5, 5)), GeometryError),
        (lambda s: s.add_scribble(1, np.ones(s.volume.shape, int)), LabelError),
        (lambda s: s.add_scribble(1, np.ones(s.volume.shape[1:], int)), LabelError),
        (lambda s: s.add_scribble(1, [(0, 0, 0), (0, 0)]), GeometryError),
        (lambda s: s.add_scribble(1, "a"), GeometryError),
        (lambda s: s.correct(np.zeros(s.volume.shape[1:], int)), GeometryError),
        (lambda s: s.correct(None), GeometryError),
        (lambda s: s.set_complete(0, 1.5), ParameterError),
        (lambda s: s.set_complete(0, "1"), ParameterError),
        (lambda s: s.set_initial(np.zeros(s.volume.shape, int), margin="a"), ParameterError),
        (lambda s: s.add_box(1, (0, 0, 0), (0, 5, 5)), GeometryError),
        (lambda s: s.add_box(0, (0, 0, 0), (5, 5, 5)), LabelError),
        (lambda s: s.set_complete(0, s.volume.shape[0]), ParameterError),
        (lambda s: s.set_complete(3, 0), ParameterError),
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


def viewer_session(head: mg.Volume) -> Session:
    return Session(head.grid, Settings(unlabeled=0, background=9), names={1: "tumor"})


def test_a_session_is_continued_with_its_own_values(head, field, truth, tmp_path):
    """The viewer's stroke layers hold 0 where nothing is painted, and a class of background."""
    session = viewer_session(head)
    segmenter = mg.InteractiveSegmenter.from_session(session, head, field=field)
    paint(segmenter, truth)
    assert segmenter.session is session
    assert set(np.unique(session.strokes)) == {0, 1, 9}
    expected = segmenter.result().labels
    assert set(np.unique(expected)) == {0, 1}
    assert segmenter.erase(session.strokes == 1)
    assert set(np.unique(session.strokes)) == {0, 9}
    segmenter.undo()
    segmenter.names = {1: "tumor", 2: "edema"}
    restored = mg.InteractiveSegmenter.load(segmenter.save(tmp_path / "a.json"), head, field=field)
    assert restored.names == {1: "tumor", 2: "edema"}
    np.testing.assert_array_equal(restored.result().labels, expected)


def test_label_zero_needs_a_background_value(head, field):
    session = Session(head.grid, Settings(unlabeled=0))
    segmenter = mg.InteractiveSegmenter.from_session(session, head, field=field)
    with pytest.raises(ParameterError, match="background"):
        segmenter.add_scribble(0, [(0, 0, 0)])
    assert segmenter.update_settings(background=7)
    assert segmenter.add_scribble(0, [(0, 0, 0)])
    assert session.strokes[0, 0, 0] == 7
    unlabeled = Session(head.grid, Settings(unlabeled=5, background=9))
    with pytest.raises(LabelError, match="unlabeled"):
        mg.InteractiveSegmenter.from_session(unlabeled, head).add_scribble(5, [(0, 0, 0)])


def test_sessions_and_fields_of_another_grid_are_refused(head, field, segmenter):
    with pytest.raises(GeometryError, match="session"):
        mg.InteractiveSegmenter.from_session(Session(Grid((2, 3, 4))), head)
    other = mg.Volume.from_array(np.random.default_rng(0).random((4, 12, 12), np.float32))
    with pytest.raises(GeometryError, match="field"):
        mg.InteractiveSegmenter.from_session(Session(other.grid), other, field=field)
    foreign = mg.fit(other, mg.FitParams(gaussians=20, iterations=1)).field
    with pytest.raises(GeometryError, match="field"):
        segmenter.set_field(foreign)
    assert segmenter.field is field


def test_solving_step_by_step_gives_what_result_gives(segmenter, truth, head, field):
    with pytest.raises(ParameterError, match="prepare"):
        segmenter.snapshot()
    segmenter.prepare()
    assert segmenter.is_prepared
    paint(segmenter, truth)
    snapshot = segmenter.snapshot()
    segmenter.add_scribble(1, strokes(truth, 4))  # comes too late for this solve
    solved = segmenter.update(snapshot)
    assert not segmenter.labels.any(), "only set_result changes the mask"
    segmenter.set_result(solved, is_current=False)
    np.testing.assert_array_equal(segmenter.labels, solved.labels)
    assert not segmenter.is_current
    direct = mg.InteractiveSegmenter()
    direct.set_image(head, field=field)
    paint(direct, truth)
    np.testing.assert_array_equal(direct.result().labels, solved.labels)
    assert direct.is_current
    assert segmenter.result() is not solved, "the prompts have changed since"
    segmenter.set_field(mg.fit(head, mg.FitParams(iterations=3)).field)
    assert not segmenter.is_prepared


def test_a_prompt_added_during_a_solve_makes_its_result_outdated(segmenter, truth):
    paint(segmenter, truth)
    segmenter.prepare()
    added = []

    def add(event):
        if not added:
            thread = Thread(target=segmenter.add_scribble, args=(1, strokes(truth, 4)))
            thread.start()
            thread.join(30)
            added.append(not thread.is_alive())

    first = segmenter.result(progress=add)
    assert added == [True], "the lock is not held while solving"
    assert not segmenter.is_current
    assert segmenter.result() is not first
    assert segmenter.is_current


def test_quick_updates_extend_the_last_solve(segmenter, truth):
    paint(segmenter, truth)
    segmenter.result()
    segmenter.add_scribble(1, np.roll(strokes(truth, 5), 2, axis=0))  # replaces no other scribble
    quick = segmenter.update(quick=True)
    assert quick.incremental
    segmenter.set_result(quick)
    assert not segmenter.is_current, "only a full solve is"
    assert not segmenter.result().incremental


def test_a_slice_can_be_previewed(segmenter, truth):
    middle = truth.shape[0] // 2
    paint(segmenter, truth)
    segmenter.prepare()
    assert segmenter.preview_slice(0, middle) is None, "there are no terms yet"
    segmenter.result()
    preview = segmenter.preview_slice(0, middle)
    assert preview.shape == truth.shape[1:]
    assert (preview[strokes(truth, 5)[middle]] == 1).all()
    segmenter.add_scribble(2, [(0, 0, 0)])
    assert segmenter.preview_slice(0, middle) is None, "a new class needs a solve"


def test_locked_classes_stay_as_they_are(segmenter, truth):
    with pytest.raises(LabelError, match="no voxels"):
        segmenter.lock([1])
    paint(segmenter, truth)
    before = segmenter.result().labels == 1
    with pytest.raises(LabelError, match="no voxels"):
        segmenter.lock([0])
    assert segmenter.lock([1])
    assert segmenter.lock([1]) is False
    segmenter.add_scribble(2, strokes(truth, 4))
    np.testing.assert_array_equal(segmenter.result().labels == 1, before)
    middle = truth.shape[0] // 2
    np.testing.assert_array_equal(segmenter.preview_slice(0, middle) == 1, before[middle])
    assert segmenter.lock([])
    assert segmenter.session.settings.locked == frozenset()


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 0.5, np.nan])
def test_labels_that_the_images_cannot_hold_are_refused(segmenter, truth, value):
    paint(segmenter, truth)
    before = segmenter.session.strokes.copy()
    box, wrong = (slice(0, 1),) * 3, np.full((1, 1, 1), value)
    with pytest.raises(LabelError, match="Labels"):
        segmenter.set_scribbles(wrong, box)
    edited = segmenter.result().labels.astype(wrong.dtype)
    edited[0, 0, 0] = value
    with pytest.raises(LabelError, match="Labels"):
        segmenter.correct(edited)
    np.testing.assert_array_equal(segmenter.session.strokes, before)
    assert segmenter.set_scribbles(np.full((1, 1, 1), 2**31 - 1, np.uint64), box)
    assert segmenter.session.strokes[0, 0, 0] == 2**31 - 1
    with pytest.raises(LabelError, match="at most"):
        segmenter.add_scribble(2**31, [(0, 0, 0)])
    with pytest.raises(LabelError, match="integers, not"):
        segmenter.set_scribbles(wrong.astype(str), box)


def test_scribbles_and_corrections_come_as_label_images(segmenter, truth):
    paint(segmenter, truth)
    expected = segmenter.session.strokes.copy()
    box = (slice(2, 4), slice(1, 5), slice(0, 6))
    assert segmenter.set_scribbles(expected) is False
    assert segmenter.set_scribbles(np.full((2, 4, 6), 3), box)
    assert (segmenter.session.strokes[box] == 3).all()
    with pytest.raises(GeometryError, match="shape"):
        segmenter.set_scribbles(np.full((2, 4, 5), 3), box)
    assert segmenter.undo().kind == "strokes"
    np.testing.assert_array_equal(segmenter.session.strokes, expected)
    edited = segmenter.result().labels.astype(int)
    edited[0, 0, :3] = 1
    assert segmenter.correct(edited)
    assert (segmenter.labels[0, 0, :3] == 1).all()
    assert (segmenter.result().labels[0, 0, :3] == 1).all()
    assert segmenter.correct(segmenter.labels) is False


def test_the_number_of_threads_counts_but_is_no_step(segmenter, truth, monkeypatch):
    used = []

    @contextmanager
    def record(threads):
        used.append(threads)
        yield

    monkeypatch.setattr("napari_medgs.segmentation.voxel_model.limit_threads", record)
    paint(segmenter, truth)
    assert segmenter.set_params(mg.SegmentParams(threads=1)) is False
    segmenter.result()
    assert set(used) == {1}
    segmenter.threads = 2
    segmenter.update()
    assert used[-1] == 2


def test_a_suggestion_may_rest_on_the_last_solve(segmenter, truth):
    paint(segmenter, truth)
    last = segmenter.result()
    (expected,) = segmenter.suggest()
    segmenter.add_scribble(1, strokes(truth, 4))
    assert segmenter.suggest(update=False) == [expected]
    assert not segmenter.is_current
    assert segmenter.suggest() != []
    assert segmenter.result() is not last
