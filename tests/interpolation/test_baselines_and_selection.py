"""Interpolation without motion, and when to prefer it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.signal import resample
from tests.interpolation.phantoms import oblique_tubes

from napari_medgs.errors import Cancelled, GeometryError, ParameterError
from napari_medgs.interpolation import (
    interpolate_auto,
    interpolate_baseline,
    interpolate_stack,
    select_method,
)
from napari_medgs.interpolation.baselines import slice_weights
from napari_medgs.interpolation.sampling import spectral_edge, texture_correlation
from napari_medgs.interpolation.selection import (
    MIN_SLICES,
    cubic_share,
    motion_weight,
)


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


def test_a_quintic_spline_follows_waves_that_a_cubic_one_loses():
    kept, left = np.arange(0, 41, 2), np.arange(1, 41, 2)
    wave = np.sin(1.05 * np.arange(41.0) + 0.3)[:, None, None].astype(np.float32)
    errors = {}
    for name in ("cubic", "spline", "quintic"):
        frames = interpolate_baseline(wave[kept], kept, left, name)
        errors[name] = float(np.std((frames - wave[left])[4:-4]))
    assert errors["quintic"] < 0.7 * errors["spline"] < 0.7 * errors["cubic"]


def test_a_quintic_spline_does_not_swing_at_the_ends():
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((20, 16, 16)).astype(np.float32)
    out = interpolate_baseline(stack, np.arange(20), np.arange(19) + 0.5, "quintic")
    assert out[[0, -1]].std() < 1.2 * out[5:-5].std()
    line = np.array([0.0, 1, 2.5, 3, 5, 6])
    straight = np.float32(line[:, None, None] * np.ones((2, 3)))
    for count in range(2, 7):  # uneven gaps, from the first slice to the last
        wanted = np.linspace(0, line[count - 1], 7)
        out = interpolate_baseline(straight[:count], line[:count], wanted, "quintic")
        np.testing.assert_allclose(out[:, 1, 2], wanted, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 60])
def test_a_quintic_spline_passes_through_its_slices(count):
    stack = np.random.default_rng(count).standard_normal((2, count, 3, 4)).astype(np.float32)
    where = np.cumsum(1 + (np.arange(count) % 3)) * 0.7
    out = interpolate_baseline(stack, where, where, "quintic")
    np.testing.assert_allclose(out, stack, atol=1e-5)
    outside = interpolate_baseline(stack, where, [where[0] - 5, where[-1] + 5], "quintic")
    np.testing.assert_allclose(outside, stack[:, [0, -1]], atol=1e-5)


def test_nearest_ends_and_channels():
    stack = np.arange(12, dtype=np.float32).reshape(2, 3, 1, 2)
    out = interpolate_baseline(stack, [0, 2, 4], [-5, 0.9, 1.1, 9], "nearest")
    np.testing.assert_array_equal(out, stack[:, [0, 0, 1, 2]])


def test_plain_errors():
    with pytest.raises(ParameterError, match="lanczos"):
        interpolate_baseline(np.zeros((2, 3, 3)), [0, 1], [0.5], "lanczos")
    with pytest.raises(GeometryError):
        interpolate_baseline(np.zeros((2, 3, 3)), [0, 1, 2], [0.5])


def test_motion_is_selected_for_oblique_tubes():
    selection = select_method(oblique_tubes(40)[::2])
    assert selection.best == "motion"
    assert selection.weights["motion"] > 0.8
    assert selection.errors["motion"] < 0.8 * min(
        selection.errors["cubic"], selection.errors["quintic"]
    )


def test_a_spline_is_selected_for_slices_smooth_along_the_axis():
    dense = gaussian_filter1d(oblique_tubes(60), 2.0, axis=0)[::2]
    selection = select_method(dense)
    assert selection.best == "quintic"
    assert selection.weights["motion"] < 0.2
    assert selection.smoothing > 0.5


def test_motion_counts_less_for_noise_on_what_does_not_move():
    rng = np.random.default_rng(0)
    cloud = gaussian_filter(rng.standard_normal((30, 48, 48)), (0.6, 2.0, 2.0))
    cloud = cloud / cloud.std() + 0.1 * rng.standard_normal(cloud.shape)
    selection = select_method(cloud.astype(np.float32))
    assert selection.errors["cubic"] < selection.errors["motion"]
    assert 0 < selection.weights["motion"] < 0.9


@pytest.mark.parametrize("smooth", [0.0, 1.0, 2.0])
def test_the_selection_is_hardly_worse_than_the_best_method(smooth):
    image = oblique_tubes(60, noise=0.01)
    if smooth:  # and some noise of the scanner, without which a spline would be exact
        image = gaussian_filter1d(image, smooth, axis=0)
        image += 0.004 * np.random.default_rng(1).standard_normal(image.shape).astype(np.float32)
    kept, left = np.arange(0, 60, 2), np.arange(1, 58, 2)
    frames, _, selection = interpolate_auto(image[kept], kept, left)
    others = [interpolate_stack(image[kept], kept, left)[0]]
    others += [interpolate_baseline(image[kept], kept, left, m) for m in ("cubic", "spline")]
    best = min(np.mean((other - image[left]) ** 2) for other in others)
    assert np.mean((frames - image[left]) ** 2) < 10**0.03 * best
    assert sum(selection.weights.values()) == pytest.approx(1)


def test_a_spline_comes_with_its_share_of_a_cubic():
    for correlation, edge in ((0.0, 0.0), (0.1, -3.0), (0.6, -1.0), (0.6, -20.0)):
        assert 0 < cubic_share(correlation, edge) < 0.9
    assert cubic_share(0.6, -20.0) < cubic_share(0.6, -3.0) < cubic_share(0.6, -1.0)
    assert cubic_share(0.6, -0.2) > 0.9  # as of slices averaged over five
    assert cubic_share(0.1, -3.0) < cubic_share(0.6, -3.0)
    selection = select_method(gaussian_filter1d(oblique_tubes(60), 2.0, axis=0)[::2])
    share = cubic_share(selection.correlation, selection.edge)
    rest = 1 - selection.weights["motion"]
    assert selection.weights["cubic"] == pytest.approx(share * rest)
    assert selection.weights["quintic"] == pytest.approx((1 - share) * rest)


def test_motion_counts_less_where_texture_or_spectrum_tell_dense_slices():
    better, worse = np.array([1.0, 1.3, 1.5]), np.array([1.5, 1.0, 1.3])
    by_texture = [motion_weight(better, c, -0.5) for c in (0.0, 0.2, 0.3, 0.4, 0.8)]
    by_edge = [motion_weight(better, 0.0, e) for e in (0.0, -1.5, -2.5, -3.0, -9.0)]
    for weights in (by_texture, by_edge):
        assert weights[0] == 1
        assert weights == sorted(weights, reverse=True)
        assert 0.2 < weights[2] < 0.9
        assert weights[4] == 0
    assert motion_weight(worse, 0.0, -1.0) < 0.8 < motion_weight(better, 0.0, -1.0)
    assert motion_weight(np.array([0.0, 1.0, 1.0]), 0.0, 0.0) == 1
    assert motion_weight(np.array([1.0, 0.0, 0.0]), 0.0, 0.0) == 0
    # The unit of the intensities does not count.
    weight = motion_weight(better, 0.25, -1.0)
    assert motion_weight(1e-9 * better, 0.25, -1.0) == pytest.approx(weight)


def zero_filled(stack, factor):
    return resample(stack.astype(np.float64), factor * len(stack), axis=0).astype(np.float32)


def test_texture_and_spectrum_tell_interpolated_slices():
    rng = np.random.default_rng(3)
    scanned = rng.standard_normal((40, 32, 32)).astype(np.float32)
    assert abs(texture_correlation([scanned])) < 0.03
    assert spectral_edge(scanned) > -1
    doubled = zero_filled(scanned, 2)
    # Neighbors of white noise between which half the band is empty: sinc(1/2) = 2 / pi.
    assert texture_correlation([doubled]) == pytest.approx(2 / np.pi, abs=0.05)
    assert texture_correlation([doubled[::2]]) == pytest.approx(0, abs=0.05)
    assert spectral_edge(zero_filled(scanned, 3)[::2]) < -10
    runs = [scanned[:20], scanned[20:]]
    assert texture_correlation(runs) == pytest.approx(texture_correlation([scanned]), abs=0.02)
    assert spectral_edge(scanned[::-1]) == pytest.approx(spectral_edge(scanned), abs=0.01)
    for flat in (np.ones((4, 8, 8), np.float32), scanned[:1], scanned[:2, :2]):
        assert texture_correlation([flat]) == 0
        assert spectral_edge(flat[:2]) == 0


@pytest.mark.parametrize("factor", [3, 4])
def test_zero_filled_slices_come_out_like_the_best_method(factor):
    image = zero_filled(oblique_tubes(64 // factor, noise=0.01), factor)
    kept, left = np.arange(0, len(image), 2), np.arange(1, len(image) - 1, 2)
    frames, _, selection = interpolate_auto(image[kept], kept, left)
    assert selection.weights["motion"] == 0
    assert selection.correlation > 0.2
    others = [interpolate_stack(image[kept], kept, left)[0]]
    others += [interpolate_baseline(image[kept], kept, left, m) for m in ("cubic", "spline")]
    # The ends of a stack that was zero-filled are those of a period.
    best = min(np.mean((other - image[left])[4:-4] ** 2) for other in others)
    error = np.mean((frames - image[left])[4:-4] ** 2)
    assert error < max(best, 1e-6)  # no eye sees what errs less


def test_few_dense_slices_are_told_by_their_texture():
    dense = zero_filled(oblique_tubes(20), 3)[20:28]
    assert len(dense) < MIN_SLICES
    selection = select_method(dense)
    assert selection.best == "quintic"
    assert selection.weights["motion"] == 0
    assert selection.errors == {}
    assert sum(selection.weights.values()) == pytest.approx(1)


@settings(max_examples=5, deadline=None)
@given(
    scale=st.floats(0.05, 20),
    offset=st.floats(-3, 3),
    depth=st.sampled_from([9, 12, 13]),
    smooth=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_frames_follow_unit_and_direction(scale, offset, depth, smooth):
    image = gaussian_filter1d(oblique_tubes(depth)[:, 8:40, 8:40], smooth, axis=0)
    where, wanted = np.arange(depth), np.arange(depth - 1) + 0.5
    frames, _, plain = interpolate_auto(image, where, wanted)
    other = np.float32(scale) * (image + np.float32(offset))
    changed, _, selection = interpolate_auto(other, where, wanted)
    assert selection.smoothing == pytest.approx(plain.smoothing, abs=0.01)
    np.testing.assert_allclose(changed / scale - offset, frames, atol=0.005)
    flipped, _, selection = interpolate_auto(image[::-1], where, wanted)
    assert selection.smoothing == pytest.approx(plain.smoothing, abs=0.01)
    np.testing.assert_allclose(flipped[::-1], frames, atol=0.005)


def test_large_stacks_are_looked_at_symmetrically():
    image = oblique_tubes(61)[:, 8:40, 8:40]
    image[:30] = gaussian_filter1d(image[:30], 1.0, axis=0)
    plain, flipped = select_method(image), select_method(image[::-1])
    assert flipped.weights == pytest.approx(plain.weights, abs=0.02)


def test_selection_with_few_or_equal_slices():
    assert select_method(np.ones((1, 8, 8), np.float32)).used == ("motion",)
    assert select_method(oblique_tubes(4)[::2]).errors == {}
    assert select_method(np.ones((MIN_SLICES, 8, 8), np.float32)).used == ("cubic",)
    for count in range(2, MIN_SLICES):
        assert select_method(oblique_tubes(count)).used == ("motion",)
    for count in range(MIN_SLICES, MIN_SLICES + 3):
        selection = select_method(oblique_tubes(count))
        assert sum(selection.weights.values()) == pytest.approx(1)
        assert set(selection.errors) == {"motion", "cubic", "quintic"}


def test_selection_errors():
    with pytest.raises(GeometryError, match="positions"):
        select_method(oblique_tubes(6), [0, 1, 2])
    with pytest.raises(GeometryError, match="increase"):
        select_method(oblique_tubes(3), [0, 2, 1])
    with pytest.raises(Cancelled):
        select_method(oblique_tubes(MIN_SLICES), should_stop=lambda: True)


def test_automatic_interpolation_uses_the_selected_methods():
    kept, left = np.arange(0, 40, 2), np.arange(1, 39, 2)
    sharp = oblique_tubes(40, noise=0.005)
    frames, flow, selection = interpolate_auto(sharp[kept], kept, left)
    assert selection.best == "motion"
    assert flow is not None
    truth = oblique_tubes(40, noise=0)[left]
    cubic = interpolate_baseline(sharp[kept], kept, left)
    assert np.mean((frames - truth) ** 2) < 0.6 * np.mean((cubic - truth) ** 2)
    dense = gaussian_filter1d(oblique_tubes(60), 2.0, axis=0)
    frames, flow, selection = interpolate_auto(np.stack([dense[kept]] * 2), kept, left)
    parts = {
        "motion": interpolate_stack(dense[kept], kept, left)[0],
        "cubic": interpolate_baseline(dense[kept], kept, left, "cubic"),
        "quintic": interpolate_baseline(dense[kept], kept, left, "quintic"),
    }
    mean = sum(selection.weights[name] * part for name, part in parts.items())
    np.testing.assert_allclose(frames[1], mean, atol=1e-5)
    assert str(selection).startswith("quintic")
    assert (flow is not None) == ("motion" in selection.used)
