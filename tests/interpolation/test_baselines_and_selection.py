"""Interpolation without motion, and when to prefer it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.interpolation import interpolate_auto, interpolate_baseline, select_method
from napari_medgs.interpolation.baselines import slice_weights


@pytest.mark.parametrize(("method", "degree"), [("linear", 1), ("cubic", 2), ("spline", 3)])
def test_polynomials_are_reproduced_over_uneven_gaps(method, degree):
    positions, wanted = np.array([0.0, 1, 3, 4, 6]), np.array([1.0, 1.5, 2.2, 3.7])
    stack = (positions**degree)[:, None, None] * np.ones((2, 3), np.float32)
    out = interpolate_baseline(stack, positions, wanted, method)
    np.testing.assert_allclose(out[:, 0, 0], wanted**degree, rtol=1e-5)


def test_catmull_rom_weights():
    index, share, weights = slice_weights(np.arange(5.0), 1.5)
    assert (index, share) == (1, 0.5)
    np.testing.assert_allclose(weights, [-1 / 16, 9 / 16, 9 / 16, -1 / 16])
    np.testing.assert_allclose(slice_weights(np.arange(5.0), 0.5)[2], [0, 0.5, 9 / 16, -1 / 16])


def test_nearest_ends_and_channels():
    stack = np.arange(12, dtype=np.float32).reshape(2, 3, 1, 2)
    out = interpolate_baseline(stack, [0, 2, 4], [-5, 0.9, 1.1, 9], "nearest")
    np.testing.assert_array_equal(out, stack[:, [0, 0, 1, 2]])


def test_plain_errors():
    with pytest.raises(ParameterError, match="lanczos"):
        interpolate_baseline(np.zeros((2, 3, 3)), [0, 1], [0.5], "lanczos")
    with pytest.raises(GeometryError):
        interpolate_baseline(np.zeros((2, 3, 3)), [0, 1, 2], [0.5])


def phantom(depth, seed=0, noise=0.02):
    """A tree of oblique tubes with noise: what motion is good for."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:depth, :64, :64].astype(np.float32)
    image = np.zeros(z.shape, np.float32)
    for _ in range(12):
        cx, cy = rng.uniform(5, 59, 2)
        sx, sy = rng.uniform(-0.8, 0.8, 2)
        r = rng.uniform(3, 7)
        image += 0.4 / (1 + np.exp(2 * (np.hypot(x - cx - sx * z, y - cy - sy * z) - r)))
    return image + noise * rng.standard_normal(image.shape).astype(np.float32)


def test_motion_is_selected_for_oblique_tubes():
    report = select_method(phantom(40)[::2])
    assert report.motion_helps
    assert report.slice_gain > 1
    assert report.texture < 0.1


def test_motion_is_refused_for_slices_smooth_along_the_axis():
    dense = gaussian_filter1d(phantom(60), 2.0, axis=0)[::2]
    report = select_method(dense)
    assert not report.motion_helps
    assert report.texture > 0.2
    assert report.fallback == "spline"


def test_motion_is_refused_for_what_does_not_move():
    rng = np.random.default_rng(0)
    cloud = gaussian_filter(rng.standard_normal((30, 48, 48)), (1.0, 1.0, 1.0))
    report = select_method((cloud / cloud.std()).astype(np.float32))
    assert not report.motion_helps


def test_selection_with_few_slices():
    assert not select_method(np.ones((1, 8, 8), np.float32)).motion_helps
    report = select_method(phantom(4)[::2])
    assert report.slice_gain == 0.0


def test_automatic_interpolation_uses_the_selected_method():
    kept, left = np.arange(0, 40, 2), np.arange(1, 39, 2)
    sharp = phantom(40, noise=0.005)
    frames, flow, report = interpolate_auto(sharp[kept], kept, left)
    assert report.motion_helps
    assert flow is not None
    truth = phantom(40, noise=0)[left]
    cubic = interpolate_baseline(sharp[kept], kept, left)
    assert np.mean((frames - truth) ** 2) < 0.6 * np.mean((cubic - truth) ** 2)
    dense = gaussian_filter1d(phantom(60), 2.0, axis=0)
    frames, flow, report = interpolate_auto(np.stack([dense[kept]] * 2), kept, left)
    assert report.dense
    assert flow is None
    np.testing.assert_array_equal(
        frames[1], interpolate_baseline(dense[kept], kept, left, "spline")
    )
