"""Undo, redo, logs and replay."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, FormatVersionError, GeometryError, ParameterError
from napari_medgs.segmentation import (
    Point,
    SegmentModel,
    SegmentParams,
    Session,
    Settings,
    load_session,
    save_session,
)
from napari_medgs.segmentation.session.priors import prior_files, quantize
from napari_medgs.segmentation.session.replay import digest
from tests.segmentation.conftest import BACKGROUND


@pytest.fixture
def session(ball_scene):
    return Session(ball_scene[0].grid, Settings(background=BACKGROUND), names={1: "left"})


def work(session, model, ball_strokes):
    """Two strokes and a solve after each; return the labels after each."""
    session.strokes[:] = ball_strokes
    assert session.record_strokes()
    session.solve(model)
    first = session.labels.copy()
    session.paint(np.s_[8, 36, 32:37], 1)
    session.solve(model)
    return first, session.labels.copy()


def test_undo_and_redo_bring_strokes_and_results_back(session, model, ball_strokes):
    first, second = work(session, model, ball_strokes)
    assert (first != second).any()
    step = session.undo()
    assert step.kind == "strokes"
    np.testing.assert_array_equal(session.strokes, ball_strokes)
    np.testing.assert_array_equal(session.labels, first)
    session.undo()
    assert not session.strokes.any()
    assert not session.labels.any()
    assert session.undo() is None
    session.redo()
    np.testing.assert_array_equal(session.labels, first)
    session.redo()
    np.testing.assert_array_equal(session.labels, second)
    assert not session.can_redo
    session.undo()
    session.paint(np.s_[8, 40, 3:9], BACKGROUND)
    assert not session.can_redo


def assert_change(change, before, after):
    shown = before.copy()
    change.apply(shown)
    np.testing.assert_array_equal(shown, after)
    change.revert(shown)
    np.testing.assert_array_equal(shown, before)


def test_steps_tell_what_changes_now_not_what_changed_then(session, model, ball_strokes):
    # Two strokes before the first result: undo leaves one, whose result comes afterwards.
    session.strokes[:] = np.where(ball_strokes == 2, 0, ball_strokes)
    session.record_strokes()
    session.strokes[:] = ball_strokes
    session.record_strokes()
    session.solve(model)
    both = session.labels.copy()
    step = session.undo()
    assert not session.labels.any()
    assert_change(step.result, np.zeros_like(both), both)
    session.solve(model)
    one = session.labels.copy()
    assert one.any()
    step = session.redo()
    assert_change(step.result, one, session.labels)
    np.testing.assert_array_equal(session.labels, both)  # nothing is left of the mask of one
    session.undo()
    np.testing.assert_array_equal(session.labels, one)
    session.redo()
    session.solve(model)
    np.testing.assert_array_equal(session.labels, both)


def test_several_results_of_one_stroke_undo_together(session, model, ball_strokes):
    work(session, model, ball_strokes)
    before = session.labels.copy()
    session.paint(np.s_[8, 40, 3:9], 2)
    session.solve(model, quick=True)
    assert not session.is_current
    session.solve(model)
    assert session.is_current
    session.undo()
    np.testing.assert_array_equal(session.labels, before)


def test_a_log_gives_the_same_mask_again(session, model, ball_scene, ball_strokes, tmp_path):
    work(session, model, ball_strokes)
    session.update_settings(
        points=(Point((8, 40, 40), BACKGROUND),), params=SegmentParams(smooth=0.7)
    )
    session.update_settings(locked=frozenset({2}))
    session.paint(np.s_[8, 40, 3:9], 2)
    session.undo()
    session.redo()
    session.solve(model)
    path = save_session(session, tmp_path / "log.json")
    again, expected = load_session(path, ball_scene[0].grid)
    assert again.names == {1: "left"}
    assert again.settings == session.settings
    np.testing.assert_array_equal(again.strokes, session.strokes)
    again.solve(SegmentModel(ball_scene[0], ball_scene[2]))
    np.testing.assert_array_equal(again.labels, session.labels)
    assert digest(again.labels) == expected
    again.undo()
    assert (again.strokes != session.strokes).any()


def test_undo_of_a_log_keeps_the_mask_until_the_next_solve(
    session, model, ball_scene, ball_strokes, tmp_path
):
    first, second = work(session, model, ball_strokes)
    again, _ = load_session(save_session(session, tmp_path / "log.json"), ball_scene[0].grid)
    again.solve(model)
    step = again.undo()
    assert step.result is None or not step.result.voxels
    np.testing.assert_array_equal(again.strokes, ball_strokes)
    np.testing.assert_array_equal(again.labels, second)
    again.solve(model)
    np.testing.assert_array_equal(again.labels, first)
    again.redo()
    np.testing.assert_array_equal(again.labels, second)
    again.undo()
    np.testing.assert_array_equal(again.labels, first)
    # A stroke that is painted before the first solve does not bring the empty mask back, either.
    again, _ = load_session(tmp_path / "log.json", ball_scene[0].grid)
    again.paint(np.s_[8, 40, 3:9], 2)
    again.solve(model)
    third = again.labels.copy()
    again.undo()
    np.testing.assert_array_equal(again.labels, third)
    # A mask is a step that shows itself at once.
    again, _ = load_session(tmp_path / "log.json", ball_scene[0].grid)
    again.set_mask(first)
    np.testing.assert_array_equal(again.labels, first)


@hypothesis_settings(deadline=None)  # the first run may compile
@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.sampled_from(["undo", "redo", "paint", "solve"]), max_size=30),
)
def test_the_mask_of_a_log_is_never_a_mixture(steps, undone, actions):
    grid = Grid((2, 3, 4))

    def mask_of(strokes):
        return np.random.default_rng(int(strokes.sum())).integers(0, 3, grid.shape)

    session = Session(grid, Settings(background=BACKGROUND))
    for k in range(steps):
        session.paint(np.s_[1, 2, k], 1)
    for _ in range(min(undone, steps)):
        session.undo()
    with tempfile.TemporaryDirectory() as folder:
        session, _ = load_session(save_session(session, Path(folder) / "log.json"))
    seen = []
    for action in actions:
        if action == "paint":
            session.strokes.reshape(-1)[np.argmin(session.strokes)] += 1
            session.record_strokes()
        elif action == "solve":
            seen.append(mask_of(session.strokes))
            session.set_result(seen[-1])
        else:
            getattr(session, action)()
        # None is empty, either, once there was one.
        assert any(np.array_equal(session.labels, mask) for mask in seen) or not seen
    assert seen or not session.labels.any()


def test_a_log_before_the_full_solve_promises_nothing(session, model, ball_strokes, tmp_path):
    work(session, model, ball_strokes)
    session.paint(np.s_[8, 40, 3:9], 2)
    assert load_session(save_session(session, tmp_path / "log.json"))[1] == ""


def test_locked_classes_are_kept_as_they_were(session, model, ball_strokes):
    first, _ = work(session, model, ball_strokes)
    session.undo()
    session.update_settings(locked=frozenset({1}))
    session.paint(np.s_[8, 8:21, 14], 2)
    session.solve(model)
    np.testing.assert_array_equal(session.labels == 1, first == 1)
    session.update_settings(locked=frozenset())
    session.solve(model)
    assert ((session.labels == 1) != (first == 1)).any()
    session.undo()
    assert session.settings.locked == {1}
    np.testing.assert_array_equal(session.locked_labels == 1, first == 1)


def test_corrections_become_strokes(session, model, ball_strokes):
    work(session, model, ball_strokes)
    edited = session.labels.copy()
    edited[8, 36, 32:37] = 0
    edited[2, 2, 2:5] = 2
    assert session.correct(edited)
    assert (session.strokes[8, 36, 32:37] == BACKGROUND).all()
    assert (session.strokes[2, 2, 2:5] == 2).all()
    plain = Session(session.grid)
    plain.labels[0, 0, 0] = 1
    with pytest.raises(ParameterError, match="no value of the strokes means"):
        plain.correct(np.zeros(session.grid.shape, np.int32))


def test_nothing_painted_is_no_step(session):
    assert not session.record_strokes()
    assert not session.update_settings(background=BACKGROUND)
    assert not session.can_undo
    with pytest.raises(ParameterError, match="fixed"):
        session.update_settings(unlabeled=5)


def test_a_box_limits_the_search(session):
    session.strokes[3, 4, 5] = 1
    assert not session.record_strokes(np.s_[4:6, :, :])
    assert session.record_strokes(np.s_[3:4, 2:6, :])
    assert session.history.done[0].strokes.where.tolist() == [(3 * 48 + 4) * 48 + 5]


def test_the_oldest_steps_are_forgotten(session):
    session.history.limit_bytes = 200
    for k in range(20):
        session.paint(np.s_[3, 4, k], 1)
    assert 1 <= len(session.history.done) < 20


def test_damaged_logs_are_refused(session, model, ball_strokes, tmp_path):
    work(session, model, ball_strokes)
    path = save_session(session, tmp_path / "log.json")
    good = json.loads(path.read_text())

    def written(**changes):
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps({**good, **changes}))
        return bad

    with pytest.raises(FormatVersionError, match="newer"):
        load_session(written(version=2))
    for changes in (
        {"format": "other"},
        {"events": [{"do": "strokes", "runs": [1, 2]}]},
        {"events": [{"do": "strokes", "runs": [10**9, 2, 1]}]},
        {"events": [{"do": "fly"}]},
        {"events": 3},
        {"start": {}},
        {"grid": {"shape": [10**5, 10**5, 10**5], "affine": np.eye(4).tolist()}},
    ):
        with pytest.raises(FileError):
            load_session(written(**changes))
    with pytest.raises(GeometryError, match="another"):
        load_session(path, Session(type(session.grid)((3, 4, 5))).grid)
    with pytest.raises(FileError, match="no such file"):
        load_session(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(FileError, match="no JSON"):
        load_session(tmp_path / "text.json")


def test_the_initial_mask_is_a_step_that_a_file_keeps(session, ball_scene, tmp_path):
    first, second = (np.zeros(session.grid.shape, np.int32) for _ in range(2))
    first[5:9, 10:20, 10:20], second[5:9, 12:20, 12:20] = 1, 2
    assert session.set_initial(first)
    assert not session.set_initial(first.copy())
    assert session.set_initial(second)
    session.undo()
    np.testing.assert_array_equal(session.prompts().initial, first)
    session.redo()
    np.testing.assert_array_equal(session.prompts().initial, second)
    again, _ = load_session(save_session(session, tmp_path / "log.json"))
    np.testing.assert_array_equal(again.initial, second)
    again.undo()
    np.testing.assert_array_equal(again.initial, first)
    again.undo()
    assert again.initial is None


def test_files_of_earlier_versions_are_read(session, tmp_path):
    session.labels[3, 4, 5:8] = 2
    params = SegmentParams(max_path_ratio=2.5)
    session.update_settings(fully_labeled=((0, 3),), locked=frozenset({2}), params=params)
    record = json.loads(save_session(session, tmp_path / "log.json").read_text())
    for settings in (record["start"], record["events"][0]["settings"]):
        settings["unlabelled"] = settings.pop("unlabeled")
        settings["painted"] = settings.pop("fully_labeled")
        settings["params"]["reach"] = settings["params"].pop("max_path_ratio")
    record["events"][0]["frozen"] = record["events"][0].pop("locked_labels")
    (tmp_path / "old.json").write_text(json.dumps(record))
    again, _ = load_session(tmp_path / "old.json")
    assert again.settings == session.settings
    np.testing.assert_array_equal(again.locked_labels, session.locked_labels)


def test_sessions_before_contrasts_were_weighed_are_replayed_without(session, tmp_path):
    path = save_session(session, tmp_path / "log.json")
    assert load_session(path)[0].settings.params.weigh_contrasts
    record = json.loads(path.read_text())
    del record["start"]["params"]["weigh_contrasts"]
    path.write_text(json.dumps(record))
    restored = load_session(path)[0]
    assert not restored.settings.params.weigh_contrasts
    assert not load_session(save_session(restored, path))[0].settings.params.weigh_contrasts


def test_a_copy_for_saving_no_longer_grows(session, tmp_path):
    session.paint(np.s_[1, 2, 3:6], 1)
    copy = session.copy_for_saving()
    session.paint(np.s_[2, 2, 3:6], 2)
    again, digest_then = load_session(save_session(copy, tmp_path / "log.json"))
    assert len(copy.events) == 1
    assert set(np.unique(again.strokes)) == {0, 1}
    assert digest_then == ""


@pytest.fixture
def prior(session, rng):
    values = rng.random((3, *session.grid.shape), np.float32) ** 4
    return quantize(values / values.sum(axis=0))


def test_a_prior_is_a_step_that_files_keep(session, prior, rng, tmp_path):
    session.paint(np.s_[1, 2, 3:6], 1)
    before = session.labels.copy()
    assert session.set_prior(prior)
    assert not session.set_prior(prior.copy())
    best = prior.argmax(axis=0)
    best[1, 2, 3:6] = 1
    np.testing.assert_array_equal(session.labels, best)
    assert session.prompts().prior is prior

    log = save_session(session, tmp_path / "log.json")
    again, _ = load_session(log, session.grid)
    np.testing.assert_array_equal(again.prior, prior)
    np.testing.assert_array_equal(again.labels, best)

    session.undo()
    assert session.prior is None
    np.testing.assert_array_equal(session.labels, before)
    session.redo()
    np.testing.assert_array_equal(session.labels, best)
    mask = best.astype(np.int32)
    session.set_initial(mask)
    assert session.prior is None
    assert session.initial is mask


def test_a_prior_stays_out_of_locked_classes(session, prior):
    session.labels[4:6, 5:9, 5:9] = 2
    session.update_settings(locked=frozenset({2}))
    session.set_prior(prior)
    kept = np.zeros(session.grid.shape, bool)
    kept[4:6, 5:9, 5:9] = True
    np.testing.assert_array_equal(session.labels == 2, kept)


def test_files_of_priors_that_are_missing_or_others_are_named(session, prior, tmp_path):
    session.set_prior(prior)
    log = save_session(session, tmp_path / "log.json")
    (side,) = prior_files(log)
    packed = side.read_bytes()
    for bad in (packed[:-9], packed[:30] + bytes([packed[30] ^ 8]) + packed[31:], b"no"):
        side.write_bytes(bad)
        with pytest.raises(FileError, match=side.name):
            load_session(log)
    side.unlink()
    with pytest.raises(FileError, match="not beside it"):
        load_session(log)
    text = log.read_text()
    log.write_text(text.replace('"classes":3', '"classes":1'))
    with pytest.raises(FileError, match="damaged"):
        load_session(log)


@given(arrays(np.float32, (4, 2, 3, 2), elements=st.floats(0.0009765625, 1, width=32)))
def test_priors_are_kept_to_a_255th(values):
    values /= values.sum(axis=0)
    kept = quantize(values)
    assert (kept.sum(axis=0, dtype=int) == 255).all()
    others = values != values.max(axis=0)
    assert np.abs(kept / 255 - values)[others].max(initial=0) <= 1.1 / 255
