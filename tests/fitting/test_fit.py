"""Fits as a user meets them: quality, masks, hold-outs, stops, resumes, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.errors import (
    BackendError,
    Cancelled,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
    MemoryEstimateError,
    ParameterError,
)
from napari_medgs.fitting import AdvancedFitParams, FitParams, OptimizerParams, fit
from napari_medgs.fitting import api as run
from napari_medgs.fitting import start as fit_start
from napari_medgs.fitting.optim import loop
from napari_medgs.fitting.problem import index_labels
from napari_medgs.io.fields import load_field
from napari_medgs.rendering import render, render_labels

FAST = FitParams(iterations=30, gaussians=1500)


@pytest.fixture(scope="module")
def scene():
    """Two bright, bending tubes with labels in a noisy box, anisotropic, (16, 48, 52)."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[0:16, 0:48, 0:52].astype(np.float32)
    labels = np.zeros(z.shape, np.uint8)
    image = 40 + 20 * np.sin(x / 9) * np.cos(y / 11)
    for value, (cy, cx, drift, radius) in {3: (16, 14, 0.9, 7), 7: (32, 36, -0.7, 8)}.items():
        inside = (y - cy - drift * (z - 8)) ** 2 + (x - cx) ** 2 < radius**2
        labels[inside] = value
        image[inside] = 100 + 30 * (value == 7)
    image += rng.normal(0, 1, image.shape)
    return Volume.from_array(image.astype(np.float32), spacing=(2.0, 1.0, 1.0)), labels


def test_image_fit_reaches_quality_and_keeps_units(scene):
    volume, _ = scene
    result = fit(volume, FAST)
    assert result.metrics["psnr"] > 33
    assert result.metrics["ssim"] > 0.9
    picture = render(result.field)[0]
    assert np.abs(picture - volume.data[0]).mean() < 2.0  # of a range of about 120
    assert result.metrics["n_gaussians"] == len(result.field)
    assert result.metrics["backend"] in ("cpu", "cuda")
    assert result.field.info.slice_axis == 0


def test_reported_psnr_is_that_of_the_field(scene):
    volume, _ = scene
    result = fit(volume, FAST)
    low, high = np.percentile(volume.data, (0.5, 99.5))
    truth = np.clip((volume.data[0] - low) / (high - low), 0, 1)
    guess = np.clip((render(result.field)[0] - low) / (high - low), 0, 1)
    psnr = -10 * np.log10(np.mean((truth - guess) ** 2))
    assert psnr == pytest.approx(result.metrics["psnr"], abs=0.01)


def test_joint_fit_keeps_label_values_and_both_qualities(scene):
    volume, labels = scene
    result = fit(volume, FAST, labels, class_names={3: "vein"})
    assert result.metrics["psnr"] > 32
    assert set(result.metrics["dice"]) == {"3", "7"}
    assert min(result.metrics["dice"].values()) > 0.97
    assert set(np.unique(render_labels(result.field))) == {0, 3, 7}
    assert result.field.info.class_names == ("background", "vein", "label 7")


def test_mask_alone_can_be_fitted(scene):
    volume, labels = scene
    result = fit(volume, replace(FAST, lambda_img=0.0), labels)
    assert result.metrics["dice_mean"] > 0.97


def test_some_labelled_slices_are_enough(scene):
    volume, labels = scene
    sparse = np.full(labels.shape, -1, np.int16)
    sparse[::3] = labels[::3]
    result = fit(volume, replace(FAST, lambda_seg=3.0), sparse)
    guess = render_labels(result.field)
    for value in (3, 7):
        overlap = 2 * ((guess == value) & (labels == value)).sum()
        assert overlap / ((guess == value).sum() + (labels == value).sum()) > 0.9


def test_empty_slices_can_be_unlabeled(scene):
    volume, labels = scene
    painted = np.where(np.arange(16)[:, None, None] % 3 == 0, labels, 0)
    params = replace(FAST, lambda_seg=3.0, empty_slices_unlabeled=True)
    guess = render_labels(fit(volume, params, painted).field)
    for value in (3, 7):
        overlap = 2 * ((guess == value) & (labels == value)).sum()
        assert overlap / ((guess == value).sum() + (labels == value).sum()) > 0.9


def test_mask_slices_restrict_what_is_believed(scene):
    volume, labels = scene
    wrong = labels.copy()
    wrong[5] = np.where(labels[5] == 3, 7, labels[5])
    result = fit(volume, replace(FAST, mask_slices=(0, 3, 7, 9, 12, 15)), wrong)
    guess = render_labels(result.field)[5]
    assert (guess[labels[5] == 3] == 3).mean() > 0.8


def test_frozen_geometry_moves_nothing_but_logits(scene):
    volume, labels = scene
    first = fit(volume, FAST).field
    result = fit(volume, replace(FAST, freeze_geometry=True), labels, initial=first)
    for name in ("centers", "log_precision", "shear", "fold", "log_weight"):
        np.testing.assert_allclose(getattr(result.field, name), getattr(first, name), atol=1e-5)
    np.testing.assert_allclose(result.field.values[:, 0], first.values[:, 0], atol=1e-6)
    assert result.metrics["dice_mean"] > 0.9


def test_image_field_can_start_a_joint_fit(scene):
    volume, labels = scene
    first = fit(volume, FAST)
    result = fit(volume, replace(FAST, iterations=15), labels, initial=first.field)
    assert result.metrics["psnr"] > first.metrics["psnr"] - 1
    assert result.metrics["dice_mean"] > 0.95


def test_checkpoint_resumes_from_where_it_was(scene, tmp_path):
    volume, _ = scene
    path = tmp_path / "part.medgs.safetensors"
    done = [0]

    params = replace(FAST, interpolate=False, checkpoint=str(path), checkpoint_every=10)
    cancelled = fit(
        volume,
        params,
        progress=lambda event: done.append(event.done if event.stage == "fit" else 0),
        should_stop=lambda: max(done) >= 21,
    )
    assert cancelled.stopped_by == "cancelled"
    part = load_field(path)
    assert part.info.metrics["iterations"] == 20
    resumed = fit(volume, replace(FAST, iterations=10), initial=part)
    assert resumed.history[0]["psnr"] >= part.info.metrics["psnr"] - 0.5
    assert resumed.metrics["psnr"] > part.info.metrics["psnr"]


def test_same_seed_same_field(scene):
    volume, labels = scene
    params = replace(FAST, iterations=8)
    first, second = (fit(volume, params, labels).field for _ in range(2))
    for name in first.tensor_names():
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = fit(volume, replace(params, seed=1), labels).field
    assert not np.array_equal(first.centers[:50], other.centers[:50])


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_quality_is_that_of_the_slices_there_are(scene, interpolate, seed):
    volume, _ = scene
    params = FitParams(quality=33.0, holdout=2, interpolate=interpolate, seed=seed)
    result = fit(volume, params)
    assert result.stopped_by == "quality"
    assert result.metrics["psnr"] >= 33.0
    assert result.metrics["psnr"] < 36.5
    assert "quality_missed" not in result.metrics


def test_thick_slices_with_frames_between_meet_a_quality(scene):
    volume, _ = scene
    result = fit(volume, FitParams(quality=33.0, interpolate=True))
    assert result.metrics["through_plane_targets"] != "none"
    assert 33.0 <= result.metrics["psnr"] < 36.5


def test_a_fit_goes_on_where_the_whole_image_is_short_of_the_quality(scene, monkeypatch):
    volume, _ = scene
    honest, seen = run.measure_fit, []

    def short(*arguments):
        metrics = honest(*arguments)
        metrics["psnr"] -= 0.3
        seen.append(metrics["psnr"])
        return metrics

    monkeypatch.setattr(run, "measure_fit", short)
    result = fit(volume, FitParams(quality=30.0))
    assert seen[0] < 30.0 <= seen[-1] == result.metrics["psnr"]
    assert "quality_missed" not in result.metrics


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gaussians": 200, "iterations": 15}, "200 Gaussians and 15 steps are too few"),
        ({"time_limit": 0.3}, "the time limit came first"),
        ({"lambda_img": 0.0, "iterations": 5}, "only the mask was fitted"),
    ],
)
def test_a_quality_that_is_missed_is_explained(scene, changes, words):
    volume, labels = scene
    mask = labels if "lambda_img" in changes else None
    metrics = fit(volume, replace(FitParams(quality=70.0), **changes), mask).metrics
    assert words in metrics["quality_missed"]
    assert f"reached {metrics['psnr']:.2f} dB, not 70 dB" in metrics["quality_missed"]


def test_quality_stops_early_and_adds_when_needed(scene):
    volume, _ = scene
    easy = fit(volume, FitParams(quality=25.0))
    assert easy.stopped_by == "quality"
    assert easy.metrics["psnr"] >= 25.0
    assert easy.metrics["iterations"] < 40
    hard = fit(volume, FitParams(quality=38.0, iterations=20))
    assert hard.metrics["psnr"] >= 38.0
    assert hard.metrics["n_gaussians"] > easy.metrics["n_gaussians"]


def test_time_limit_stops(scene):
    volume, _ = scene
    result = fit(volume, FitParams(iterations=5000, time_limit=0.5))
    assert result.stopped_by == "time"
    assert result.metrics["iterations"] < 5000


def test_cancel_keeps_the_last_good_field_or_says_there_is_none(scene):
    volume, _ = scene
    with pytest.raises(Cancelled):
        fit(volume, FAST, should_stop=lambda: True)


def test_progress_tells_what_goes_on(scene):
    volume, _ = scene
    events = []
    fit(volume, replace(FAST, iterations=5), progress=events.append)
    stages = [event.stage for event in events]
    assert stages[0] == "initialize"
    assert stages[-1] == "done"
    steps = [event for event in events if event.stage == "fit"]
    assert [event.done for event in steps] == [1, 2, 3, 4, 5]
    assert all(event.gaussians > 0 for event in steps)
    # A GPU runs two steps ahead of the numbers that are looked at.
    known = [event.psnr for event in steps if event.psnr is not None]
    assert len(known) >= 3
    assert min(known) > 10
    assert events[-1].psnr > known[-1] - 0.5
    assert steps[-1].remaining == pytest.approx(0)


def test_remaining_time_is_that_of_steps(scene, monkeypatch):
    volume, _ = scene
    now, events = [100.0], []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    start, step = run.place_start, loop.FitLoop._step

    def slow_start(*arguments):
        now[0] += 1000
        return start(*arguments)

    def even_step(self, decay):
        now[0] += 40 if self.state.iteration == 0 else 2
        return step(self, decay)

    monkeypatch.setattr(run, "place_start", slow_start)
    monkeypatch.setattr(loop.FitLoop, "_step", even_step)
    fit(volume, replace(FAST, iterations=5, backend="cpu"), progress=events.append)
    steps = [event for event in events if event.stage == "fit"]
    assert [event.remaining for event in steps] == [160, 6, 4, 2, 0]


def test_positions_are_kept_on_request(scene):
    volume, _ = scene
    result = fit(volume, replace(FAST, iterations=10, positions_every=5))
    assert [iteration for iteration, _ in result.positions] == [5, 10]
    assert result.positions[1][1].shape[1] == 3


def test_holdout_reports_the_slices_left_out(scene):
    volume, _ = scene
    result = fit(volume, replace(FAST, holdout=3))
    for name in ("psnr_heldout", "psnr_heldout_linear", "psnr_heldout_cubic", "ssim_heldout"):
        assert np.isfinite(result.metrics[name])
    assert result.metrics["slices_heldout"] == 10
    # The tubes move by three voxels between kept slices: plain interpolation ghosts.
    assert result.metrics["psnr_heldout"] > result.metrics["psnr_heldout_linear"]


def test_two_dimensional_images(scene):
    volume, labels = scene
    gray = fit(Volume.from_array(volume.data[0, 8]), replace(FAST, gaussians=600), labels[8:9])
    assert gray.metrics["psnr"] > 30
    assert gray.metrics["dice_mean"] > 0.97
    colors = np.stack([volume.data[0, k] for k in (2, 8, 14)])[:, None]
    rgb = fit(Volume.from_array(colors), replace(FAST, gaussians=900))
    assert rgb.field.values.shape[1] == 3
    assert rgb.metrics["psnr"] > 27


def test_contrasts_share_geometry(scene):
    volume, _ = scene
    both = np.concatenate([volume.data, 500 - 3 * volume.data])
    result = fit(Volume.from_array(both, spacing=(2, 1, 1)), FAST)
    picture = render(result.field)
    assert picture.shape == both.shape
    assert np.abs(picture[1] - both[1]).mean() < 6


@pytest.mark.parametrize("axis", [1, 2])
def test_any_axis_can_be_the_slice_axis(scene, axis):
    volume, labels = scene
    result = fit(volume, replace(FAST, slice_axis=axis), labels)
    assert result.metrics["psnr"] > 31
    assert render_labels(result.field).shape == labels.shape
    assert result.metrics["dice_mean"] > 0.95


@pytest.mark.parametrize("blend", ["sum", "alpha"])
def test_other_blends(scene, blend):
    volume, labels = scene
    result = fit(volume, replace(FAST, blend=blend), labels)
    assert result.metrics["psnr"] > 27
    assert result.metrics["dice_mean"] > 0.9


def test_absolute_loss(scene):
    volume, _ = scene
    assert fit(volume, replace(FAST, loss="l1")).metrics["psnr"] > 32


def test_empty_margins_are_cropped_and_come_back(scene):
    volume, labels = scene
    padded = np.pad(volume.data - volume.data.min() + 30, ((0, 0), (0, 0), (40, 10), (9, 60)))
    wide = Volume.from_array(padded, spacing=(2, 1, 1))
    mask = np.pad(labels, ((0, 0), (40, 10), (9, 60)))
    result = fit(wide, FAST, mask)
    picture = render(result.field)[0]
    assert picture.shape == padded.shape[1:]
    assert np.abs(picture - padded[0]).mean() < 2
    assert result.metrics["dice_mean"] > 0.95


def bad_inputs():
    image = np.random.default_rng(0).random((6, 12, 12)).astype(np.float32)
    mask = np.zeros(image.shape, np.int16)
    mask[:, 3:6, 3:6] = 1
    yield "constant", np.ones((6, 12, 12)), FitParams(), None, ImageError, "constant"
    yield "nan", image * np.nan, FitParams(), None, ImageError, "no finite value"
    yield "shape", image, FitParams(), mask[:5], GeometryError, "share a grid"
    yield "half labels", image, FitParams(), mask * 0.5, LabelError, "not integers"
    yield "negative", image, FitParams(), mask - 3, LabelError, "label -3"
    yield "empty mask", image, FitParams(), mask * 0, LabelError, "empty"

    yield "holdout", image, FitParams(holdout=4), None, ParameterError, "too few"
    yield "frozen", image, FitParams(freeze_geometry=True), mask, ParameterError, "initial field"
    yield "no loss", image, FitParams(lambda_img=0.0), None, ParameterError, "no mask"
    yield "slices", image, FitParams(mask_slices=(9,)), mask, ParameterError, "mask_slices"


@pytest.mark.parametrize(
    ("data", "params", "mask", "error", "words"),
    [pytest.param(*case[1:], id=case[0]) for case in bad_inputs()],
)
def test_bad_input_is_explained(data, params, mask, error, words):
    with pytest.raises(error, match=words):
        fit(Volume.from_array(data), params, mask)


@pytest.mark.parametrize(
    "settings",
    [
        {"gaussians": 0},
        {"quality": 300.0},
        {"fold": 4},
        {"iterations": 0},
        {"time_limit": -1.0},
        {"blend": "max"},
        {"percentiles": (50, 20)},
        {"checkpoint_every": 5},
        {"lambda_img": 0.0, "lambda_seg": 0.0},
    ],
)
def test_bad_settings_are_explained(settings):
    with pytest.raises(ParameterError):
        FitParams(**settings)


def test_too_large_a_volume_is_refused_before_any_work(monkeypatch):
    from types import SimpleNamespace

    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000_000))
    volume = Volume.from_array(np.random.default_rng(0).random((40, 60, 60)).astype(np.float32))
    with pytest.raises(MemoryEstimateError, match=r"needs about .* GiB .* Resampled to"):
        fit(volume)


def test_memory_is_judged_by_what_is_not_background(monkeypatch):
    from types import SimpleNamespace

    import psutil

    data = np.zeros((12, 240, 240), np.float32)
    data[:, 100:130, 100:130] = np.random.default_rng(0).random((12, 30, 30)) + 1
    mask = (data > 1.5).astype(np.uint8)
    params = replace(FAST, gaussians=50, iterations=2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=15_000_000))
    assert len(fit(Volume.from_array(data), params, mask).field) > 0
    data[0, 0, 0] = data[-1, -1, -1] = 1.5
    with pytest.raises(MemoryEstimateError):
        fit(Volume.from_array(data), params, mask)


def test_a_field_of_other_contrasts_cannot_start_a_fit(scene):
    volume, _ = scene
    field = fit(volume, replace(FAST, iterations=2)).field
    two = Volume.from_array(np.concatenate([volume.data, volume.data]), spacing=(2, 1, 1))
    with pytest.raises(MedGSError, match="1 image channels"):
        fit(two, FAST, initial=field)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gaussians": 20}, "takes none away: 20 are too few"),
        ({"blend": "sum"}, "blends by 'normalized', the settings say 'sum'"),
        ({"freeze_geometry": True, "fold": 1}, "folds of degree 3, which fold 1 would change"),
    ],
)
def test_what_a_start_cannot_follow_is_refused(scene, settings, words):
    volume, labels = scene
    field = fit(volume, replace(FAST, gaussians=40, iterations=2)).field
    assert len(field) > 20
    with pytest.raises(ParameterError, match=words):
        fit(volume, FitParams(**settings), labels, initial=field)


def test_unavailable_backend_says_why(scene):
    volume, _ = scene
    from napari_medgs.rendering import backends

    works, reason = backends().get("cuda", (True, ""))
    if works:
        pytest.skip("CUDA works here")
    with pytest.raises(BackendError, match="cannot be used"):
        fit(volume, replace(FAST, backend="cuda"))
    assert reason


def noise(sigma, shape):
    """Return noise of one seed, smoothed, with unit spread, as a volume."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(np.random.default_rng(0).normal(0, 1, shape), sigma)
    return Volume.from_array((image / image.std()).astype(np.float32))


def default_number(volume):
    """Return how many Gaussians a fit ends with when nobody says."""
    return fit(volume, FitParams(iterations=5)).metrics["n_gaussians"]


def test_a_small_image_full_of_detail_is_fitted_well_by_default():
    fine = noise(1.0, (24, 40, 44))
    result = fit(fine, FitParams(backend="cpu"))
    assert result.metrics["psnr"] > 36
    assert result.metrics["ssim"] > 0.99


def test_small_images_get_gaussians_by_their_detail():
    smooth, medium, fine = (default_number(noise(s, (20, 40, 44))) for s in (4.0, 1.3, 0.7))
    assert smooth < 0.035 * 20 * 40 * 44
    assert 1.2 * smooth < medium < fine / 1.2
    assert fine < 0.13 * 20 * 40 * 44


def test_large_images_get_gaussians_by_their_size_alone():
    shape = (100, 101, 102)
    smooth, fine = (noise(sigma, shape) for sigma in (2.0, 0.5))
    counts = [len(fit(v, FitParams(iterations=1, backend="cpu")).field) for v in (smooth, fine)]
    assert counts[0] == pytest.approx(counts[1], rel=0.02)


def test_hyper_parameters_are_settings():
    """An ablation needs no monkeypatching, and defaults leave no trace in the file."""
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.random((4, 16, 18)).astype(np.float32))
    params = FitParams(gaussians=60, iterations=6, threads=1)
    assert "advanced" not in params.to_dict()
    still = OptimizerParams(position=0.0)
    changed = replace(params, advanced=AdvancedFitParams(optimizer=still))
    assert changed.to_dict()["advanced"]["optimizer"]["position"] == 0
    before, after = fit(volume, params).field, fit(volume, changed).field
    assert len(before) == len(after)
    assert not np.array_equal(before.centers, after.centers)


def test_a_time_limit_counts_the_preparation(monkeypatch):
    z, y, x = np.indices((8, 24, 24))
    image = np.exp(-((x - 8 - z) ** 2 + (y - 12) ** 2) / 12.0).astype(np.float32)
    volume = Volume.from_array(image)
    params = FitParams(gaussians=60, iterations=3, interpolate=True, seed=0)
    assert "through_plane_targets" in fit(volume, params).metrics
    # What takes more than its share of the limit is left out, and the fit goes on.
    monkeypatch.setattr(fit_start, "PREPARATION_SHARE", 0.0)
    hurried = fit(volume, replace(params, time_limit=1000))
    assert "through_plane_targets" not in hurried.metrics
    assert hurried.metrics["iterations"] == 3
    held_out = fit(volume, replace(params, time_limit=1000, holdout=3))
    assert held_out.metrics["through_plane_targets"] == "none"
    stopped = iter([False, True, True, True])
    with pytest.raises(Cancelled, match="The fit was canceled"):
        fit(volume, params, should_stop=lambda: next(stopped, True))


def test_a_mask_with_rounding_noise_is_the_mask_itself():
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1:3, 2:4] = 7
    indices, values = index_labels(labels * 1.0000001, labels.shape)
    assert values == [0, 7]
    assert np.array_equal(indices, labels // 7)
