"""Targets between slices: what they are worth, and that nothing left out is looked at."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled
from napari_medgs.fitting import FitParams, fit
from napari_medgs.fitting.problem import make_problem
from napari_medgs.fitting.through_plane import (
    add_through_plane_targets,
    stretch,
    through_plane_factor,
)
from napari_medgs.interpolation import interpolate_baseline, interpolate_stack
from napari_medgs.rendering import render
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import GEOMETRY

FAST = FitParams(
    gaussians=900, iterations=30, percentiles=(0, 100), seed=1, slice_axis=0, backend="cpu"
)


def tubes(depth, step=1.0, seed=0, size=48):
    """Oblique tubes that fill the frame, cut every ``step``."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:depth, :size, :size].astype(np.float32)
    z = z * step
    image = np.zeros(z.shape, np.float32)
    for _ in range(20):
        cx, cy = rng.uniform(-8, size + 8, 2)
        sx, sy = rng.uniform(-2.0, 2.0, 2)
        r = rng.uniform(3, 6)
        image += 0.4 / (1 + np.exp(2 * (np.hypot(x - cx - sx * z, y - cy - sy * z) - r)))
    return image + 0.01 * rng.standard_normal(image.shape).astype(np.float32)


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def test_when_there_are_targets():
    cube = Grid((8, 8, 8))
    thick = Grid((8, 8, 8), np.diag([5.0, 1.0, 1.0, 1.0]))
    assert through_plane_factor(FitParams(), cube, 0) == 0
    assert through_plane_factor(FitParams(interpolate=True), cube, 0) == 2
    assert through_plane_factor(FitParams(holdout=2), cube, 0) == 1
    assert through_plane_factor(FitParams(holdout=2, interpolate=False), cube, 0) == 0
    assert through_plane_factor(FitParams(), thick, 0) == 2
    assert through_plane_factor(FitParams(), thick, 1) == 0
    assert through_plane_factor(FitParams(quality=30), thick, 0) == 0
    assert through_plane_factor(FitParams(lambda_img=0), thick, 0) == 0
    assert through_plane_factor(FitParams(), Grid((2, 8, 8), thick.affine), 0) == 0


def test_slices_left_out_come_out_better():
    volume = Volume.from_array(tubes(21))
    plain = fit(volume, replace(FAST, holdout=2, interpolate=False)).metrics
    better = fit(volume, replace(FAST, holdout=2)).metrics
    assert better["through_plane_targets"].startswith("motion")
    best = max(plain["psnr_heldout_linear"], plain["psnr_heldout_cubic"])
    assert better["psnr_heldout"] > best + 1.5
    assert better["psnr_heldout"] > plain["psnr_heldout"] + 1


@pytest.mark.parametrize("interpolate", [True, False])
def test_slices_left_out_are_never_looked_at(interpolate):
    data = tubes(12)
    other = data.copy()
    for z in range(1, 12, 2):  # another image of the same histogram
        other[z] = data[z][::-1, ::-1]
    params = replace(FAST, holdout=2, interpolate=interpolate, iterations=12)
    one = fit(Volume.from_array(data), params)
    two = fit(Volume.from_array(other), params)
    for name in one.field.tensor_names():
        np.testing.assert_array_equal(getattr(one.field, name), getattr(two.field, name))


def test_thick_slices_get_a_field_that_holds_between_them():
    fine = tubes(17)
    thick = Volume.from_array(fine[::2], spacing=(2.0, 1.0, 1.0))
    affine = thick.grid.affine.copy()
    affine[:3, 0] /= 2
    between = {}
    for interpolate in (None, False):
        result = fit(thick, replace(FAST, interpolate=interpolate))
        assert result.field.info.grid.shape == (9, 48, 48)
        assert result.field.centers[:, 2].min() >= -2
        assert result.field.centers[:, 2].max() <= 10
        frames = render(result.field, "image", grid=Grid(fine.shape, affine))[0]
        between[interpolate] = psnr(frames[1::2], fine[1::2])
        if interpolate is None:
            psnr_with = result.metrics["psnr"]
        else:
            assert psnr_with > result.metrics["psnr"] - 1.5
    assert between[None] > between[False] + 1


def test_default_number_of_gaussians_does_not_grow():
    data = tubes(10)
    params = replace(FAST, gaussians=None, iterations=3)
    thick = Volume.from_array(data, spacing=(2.0, 1.0, 1.0))
    with_targets = len(fit(thick, params).field)
    without = len(fit(thick, replace(params, interpolate=False)).field)
    assert with_targets == pytest.approx(without, rel=0.25)


def test_dense_slices_are_fitted_to_a_spline_with_more_gaussians():
    data = gaussian_filter1d(tubes(31, step=0.5), 2.5, axis=0)
    params = replace(FAST, holdout=2)
    problem = make_problem(Volume.from_array(data), params, None, {})
    between = add_through_plane_targets(problem, params, 1, lambda: False)
    assert between.method.startswith("quintic")
    assert between.motion_weight < 0.1
    assert between.budget_factor > 3.5
    weights = between.problem.target.image_weights[0]
    np.testing.assert_allclose(weights[1::2], 0.25**between.motion_weight, rtol=1e-6)
    assert (weights[::2] == 1).all()


def test_over_sampled_slices_come_out_no_worse_than_cubic():
    data = gaussian_filter1d(tubes(25, step=0.5, size=40), 2.0, axis=0)
    data += 0.01 * np.random.default_rng(2).standard_normal(data.shape).astype(np.float32)
    metrics = fit(Volume.from_array(data), replace(FAST, holdout=2, gaussians=None)).metrics
    assert metrics["psnr_heldout"] > metrics["psnr_heldout_cubic"] - 0.1


@pytest.mark.parametrize("method", ["linear", "spline"])
def test_resampled_slices_come_out_no_worse_than_the_best_interpolation(method):
    coarse = gaussian_filter1d(tubes(17, step=0.6, size=32), 0.7, axis=0)
    coarse += 0.002 * np.random.default_rng(3).standard_normal(coarse.shape).astype(np.float32)
    where = np.arange(len(coarse))
    fine = np.linspace(0, len(coarse) - 1, 35)  # the slices kept are no slices of it
    data = interpolate_baseline(coarse, where, fine, method)
    params = replace(FAST, holdout=2, gaussians=None, iterations=80)
    field = fit(Volume.from_array(data), params).metrics
    kept, left = np.arange(0, 35, 2), np.arange(1, 34, 2)
    others = [interpolate_stack(data[kept], kept, left)[0]]
    others += [interpolate_baseline(data[kept], kept, left, m) for m in ("linear", "cubic")]
    others += [interpolate_baseline(data[kept], kept, left, "spline")]
    low, span = data[kept].min(), np.ptp(data[kept])
    truth = data[left]
    best = max(psnr(np.clip((o - low) / span, 0, 1), (truth - low) / span) for o in others)
    assert field["psnr_heldout"] > min(best - 0.1, 50)  # no eye sees what errs less


def test_cancel_while_looking_for_motion():
    with pytest.raises(Cancelled):
        fit(Volume.from_array(tubes(9)), replace(FAST, holdout=2), should_stop=lambda: True)


def test_mask_and_several_contrasts():
    data = np.stack([tubes(9), tubes(9)[:, ::-1]])
    mask = (data[0] > 0.3).astype(np.uint8)
    result = fit(
        Volume.from_array(data, spacing=(3.0, 1.0, 1.0)), replace(FAST, gaussians=1500), mask
    )
    used = result.metrics["through_plane_targets"].split(" + ")
    assert set(used) <= {"motion", "cubic", "quintic"}
    assert result.metrics["dice_mean"] > 0.8


def test_going_on_from_a_field():
    volume = Volume.from_array(tubes(9), spacing=(2.0, 1.0, 1.0))
    first = fit(volume, FAST)
    second = fit(volume, replace(FAST, iterations=10), initial=first.field)
    assert second.metrics["psnr"] > first.metrics["psnr"] - 1.5


def test_stretched_gaussians_look_the_same_on_the_slices_they_share():
    rng = np.random.default_rng(0)
    parameters = np.zeros((60, GEOMETRY + 1), np.float32)
    parameters[:, :3] = rng.uniform(0, [20, 20, 5], (60, 3))
    parameters[:, 3:7] = rng.normal(-0.5, 0.3, (60, 4))
    parameters[:, 8:14] = rng.normal(0, 0.1, (60, 6))
    parameters[:, 14] = rng.random(60)
    settings = {"degree": 3, "cutoff": 9.0, "eps": 1e-3}
    background = np.zeros(1, np.float32)
    coarse = CpuEngine(EngineSpec((5, 20, 20), 1, background, **settings)).render(parameters)
    fine = CpuEngine(EngineSpec((13, 20, 20), 1, background, **settings)).render(
        stretch(parameters, 3)
    )
    np.testing.assert_allclose(fine[:, ::3], coarse, atol=1e-4)
    np.testing.assert_allclose(stretch(stretch(parameters, 3), 1 / 3), parameters, atol=1e-5)


def test_small_images_get_enough_gaussians_for_what_lies_between():
    rng = np.random.default_rng(0)
    data = rng.random((9, 20, 20)).astype(np.float32)
    params = replace(FAST, gaussians=None, iterations=2, holdout=2)
    settings = params.advanced.through_plane
    few = replace(settings, gaussians_per_voxel=0.0)
    fewer = replace(params, advanced=replace(params.advanced, through_plane=few))
    usual = len(fit(Volume.from_array(data), fewer).field)
    more = len(fit(Volume.from_array(data), params).field)
    assert more > 0.15 * data.size > usual
    asked = replace(params, holdout=None, interpolate=True)
    assert len(fit(Volume.from_array(data), asked).field) >= more
    for plain in (replace(params, holdout=None), replace(params, interpolate=False)):
        assert len(fit(Volume.from_array(data), plain).field) < more
