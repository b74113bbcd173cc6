"""Motion between slices: accuracy against known motion, and what it is good for."""

import numpy as np
import pytest

from napari_medgs.errors import Cancelled, GeometryError, ParameterError
from napari_medgs.interpolation import (
    FlowParams,
    MotionParams,
    estimate_flow,
    interpolate_baseline,
    interpolate_stack,
)
from napari_medgs.interpolation.flow import noise_sigma

SIZE = 72


def blobs(time, channels=1, noise=0.0, speed=(1.4, -0.9), seed=3):
    """Soft discs and texture moving with one velocity (columns, rows) per unit of time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    frames = np.zeros((channels, len(time), SIZE, SIZE))
    for c in range(channels):
        for _ in range(14):
            cx, cy = rng.uniform(5, SIZE - 5, 2)
            r, height = rng.uniform(4, 11), rng.uniform(0.2, 0.6)
            for k, t in enumerate(time):
                d = np.hypot(x - cx - speed[0] * t, y - cy - speed[1] * t)
                frames[c, k] += height / (1 + np.exp((d - r) * 1.5))
    frames += noise * rng.standard_normal(frames.shape)
    return frames.astype(np.float32) if channels > 1 else frames[0].astype(np.float32)


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def test_flow_finds_the_known_motion():
    time = np.arange(6.0)
    flow = estimate_flow(blobs(time, noise=0.005), time, FlowParams(window=3, levels=2, ridge=5))
    inner = flow.half_displacement[:, :, 15:-15, 15:-15]
    assert np.median(inner[:, 0]) == pytest.approx(-0.45, abs=0.05)
    assert np.median(inner[:, 1]) == pytest.approx(0.7, abs=0.05)


def test_no_motion_from_noise_alone():
    rng = np.random.default_rng(0)
    still = np.repeat(blobs([0.0]), 6, axis=0) + 0.05 * rng.standard_normal((6, SIZE, SIZE))
    strong = estimate_flow(still.astype(np.float32))
    weak = estimate_flow(still.astype(np.float32), params=FlowParams(ridge=0.01))
    assert np.abs(strong.half_displacement).mean() < 0.1
    assert np.abs(weak.half_displacement).mean() > 3 * np.abs(strong.half_displacement).mean()


def test_velocity_is_per_unit_of_position_and_follows_trajectories():
    time = np.array([0.0, 2.0, 4.0, 7.0])
    flow = estimate_flow(blobs(time), time, FlowParams(window=3, levels=3, ridge=1))
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(20, 52, (200, 2)), rng.uniform(0, 7, 200)])
    slopes = np.median(flow.velocity(points), axis=0)
    assert slopes == pytest.approx([1.4, -0.9], abs=0.12)


def test_velocity_of_a_single_slice_is_zero():
    flow = estimate_flow(blobs([0.0]), [0.0])
    assert not flow.velocity(np.array([[3.0, 4.0, 0.0]])).any()


@pytest.mark.parametrize("channels", [1, 2])
def test_moving_blobs_gain_over_plain_interpolation(channels):
    time = np.arange(0, 12.0)
    frames = blobs(time, channels, noise=0.01)
    kept, left = np.arange(0, 12, 2), np.arange(1, 11, 2)
    truth = blobs(time, channels)[..., left, :, :]
    guess, _ = interpolate_stack(frames[..., kept, :, :], time[kept], time[left])
    assert guess.shape == truth.shape
    best = max(
        psnr(interpolate_baseline(frames[..., kept, :, :], time[kept], time[left], m), truth)
        for m in ("linear", "cubic", "spline")
    )
    assert psnr(guess, truth) > best + 4


def test_uneven_gaps():
    kept, left = np.array([0.0, 3.0, 4.0, 6.0, 9.0]), np.array([1.0, 2.0, 5.0, 7.0, 8.0])
    stack, truth = blobs(kept), blobs(left)
    guess, _ = interpolate_stack(stack, kept, left)
    linear = interpolate_baseline(stack, kept, left, "linear")
    assert psnr(guess, truth) > psnr(linear, truth) + 4


def test_kept_slices_come_back_and_ends_are_repeated():
    kept = np.array([0.0, 2.0, 4.0])
    stack = blobs(kept)
    guess, _ = interpolate_stack(stack, kept, [-1.0, 0.0, 2.0, 4.0, 9.0])
    np.testing.assert_allclose(guess, stack[[0, 0, 1, 2, 2]], atol=1e-6)


def test_blocks_give_the_same_as_the_whole(monkeypatch):
    stack = blobs(np.arange(24.0), noise=0.02)
    whole = estimate_flow(stack).half_displacement
    monkeypatch.setattr("napari_medgs.interpolation.flow.BLOCK_BYTES", 1)
    np.testing.assert_allclose(estimate_flow(stack).half_displacement, whole, atol=2e-2)


def test_threads_do_not_change_the_result():
    stack = blobs(np.arange(5.0), noise=0.02)
    one = interpolate_stack(stack, np.arange(5), [0.5, 2.5], threads=1)[0]
    two = interpolate_stack(stack, np.arange(5), [0.5, 2.5], threads=2)[0]
    np.testing.assert_array_equal(one, two)


def test_noise_estimate():
    noise = np.random.default_rng(0).normal(0, 0.03, (4, 100, 100))
    assert noise_sigma(blobs([0.0])[0][None, :50, :50]) < 0.01
    assert noise_sigma(noise.astype(np.float32)) == pytest.approx(0.03, rel=0.05)


def test_tiny_and_flat_stacks():
    flat = np.full((3, 1, 5), 0.5, np.float32)
    guess, flow = interpolate_stack(flat, [0, 1, 2], [0.5])
    np.testing.assert_allclose(guess, 0.5)
    assert not flow.half_displacement.any()
    one, _ = interpolate_stack(np.ones((1, 4, 4), np.float32), [3.0], [1.0, 3.0])
    np.testing.assert_allclose(one, 1)


def test_errors():
    stack = blobs([0.0, 1.0])
    with pytest.raises(GeometryError, match="positions"):
        interpolate_stack(stack, [0.0], [0.5])
    with pytest.raises(GeometryError, match="increase"):
        interpolate_stack(stack, [1.0, 1.0], [0.5])
    with pytest.raises(ParameterError):
        FlowParams(window=0)
    with pytest.raises(ParameterError):
        MotionParams(flows=())
    with pytest.raises(Cancelled):
        interpolate_stack(stack, [0.0, 1.0], [0.5], should_stop=lambda: True)
