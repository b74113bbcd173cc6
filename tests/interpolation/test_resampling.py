"""Slices that were resampled: how, and what is best between them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from tests.interpolation.phantoms import oblique_tubes

from napari_medgs.interpolation import (
    interpolate_auto,
    interpolate_baseline,
    interpolate_stack,
    select_method,
)
from napari_medgs.interpolation.resampling import Resampling, best_shares, find_resampling


def noisy_tubes(depth, seed=0, noise=0.06):
    """Oblique tubes in the noise of a scanner."""
    return oblique_tubes(depth, seed, noise)


def resampled(scan, kernel, step, phase):
    wanted = np.arange(phase, len(scan) - 1, step)
    return interpolate_baseline(scan, np.arange(len(scan)), wanted, kernel)


@pytest.mark.parametrize("kernel", ["linear", "cubic", "quintic"])
@pytest.mark.parametrize("step", [0.62, 0.8, 1.24, 1.4])
def test_kernel_distance_and_phase_are_found(kernel, step):
    found = find_resampling(resampled(noisy_tubes(32), kernel, step, 0.3))
    assert found is not None
    assert found.step == pytest.approx(step, abs=0.02)
    assert (found.phase - 0.3 + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.2)
    assert (found.kernel == "linear") == (kernel == "linear")


def test_a_phase_that_changes_slowly_is_found():
    found = find_resampling(resampled(noisy_tubes(32), "linear", 0.98, 0.25))
    assert found is not None
    assert found.kernel == "linear"
    # 1.02 from a phase of 0.75 on is the same seen from the other side.
    assert abs(found.step - 1) == pytest.approx(0.02, abs=0.01)


def test_slices_of_one_phase_are_not_taken_for_resampled_ones():
    scan = noisy_tubes(44)
    for stack in (
        scan,
        scan[::2],
        resampled(scan, "linear", 1.0, 0.4),
        gaussian_filter1d(scan, 0.7, axis=0),
        uniform_filter1d(scan, 3, axis=0),
        np.ones((20, 8, 8), np.float32),
        np.repeat(scan[:1], 20, axis=0),
        scan[:9],
        scan[:, :2],
    ):
        assert find_resampling(stack) is None


def test_anatomy_in_common_does_not_hide_the_phase():
    scan = noisy_tubes(32) + 0.05 * np.random.default_rng(9).standard_normal((64, 64))
    found = find_resampling(resampled(scan.astype(np.float32), "quintic", 1.24, 0.3))
    assert found is not None
    assert found.step == pytest.approx(1.24, abs=0.02)


def test_empty_slices_at_the_ends_do_not_matter():
    stack = resampled(noisy_tubes(24), "linear", 0.8, 0.1)
    empty = np.zeros((4, 64, 64), np.float32)
    found = find_resampling(np.concatenate([empty, stack, empty[:2]]))
    plain = find_resampling(stack)
    assert plain is not None
    assert found is not None
    assert (found.kernel, found.step) == (plain.kernel, plain.step)
    assert (found.phase + 4 * found.step - plain.phase + 0.5) % 1 == pytest.approx(0.5)
    empty[0] = stack[0]  # one between them does
    assert find_resampling(np.concatenate([stack[:9], empty[1:], stack[9:]])) is None


def test_repeating_puts_slices_between():
    scan = noisy_tubes(16)
    more = Resampling("cubic", 0.8, 0.3).repeat(scan)
    np.testing.assert_allclose(more[::2], resampled(scan, "cubic", 0.8, 0.3), atol=1e-6)


def test_best_shares():
    assert best_shares(np.diag([1.0, 1.0, 2.0]), 0.15) == pytest.approx([0.4, 0.4, 0.2])
    assert best_shares(np.diag([1e3, 1.0, 1.0]), 0.15) == pytest.approx([0, 0.5, 0.5])
    together = np.array([[1.0, 1.0, 1.0], [1.0, 4.0, 4.0], [1.0, 4.0, 4.0]])
    assert best_shares(together, 0.15) == pytest.approx([1, 0, 0])


@pytest.mark.parametrize(
    ("kernel", "factor"), [("cubic", 1.7), ("quintic", 1.7), ("quintic", 1.8)]
)
def test_resampled_slices_come_out_like_the_best_method(kernel, factor):
    image = resampled(noisy_tubes(36, 2, noise=0.015), kernel, 1 / factor, 0.3)[:51]
    kept, left = np.arange(0, len(image), 2), np.arange(1, len(image) - 1, 2)
    frames, _, selection = interpolate_auto(image[kept], kept, left)
    assert selection.resampling is not None
    others = [interpolate_stack(image[kept], kept, left)[0]]
    others += [interpolate_baseline(image[kept], kept, left, m) for m in ("cubic", "spline")]
    best = min(np.mean((other - image[left]) ** 2) for other in others)
    assert np.mean((frames - image[left]) ** 2) < 10**0.005 * best


def test_uneven_positions_are_not_taken_for_resampled_slices():
    image = resampled(noisy_tubes(30), "linear", 0.8, 0.3)
    where = np.arange(len(image)) + 0.1 * (np.arange(len(image)) % 2)
    assert select_method(image).resampling is not None
    assert select_method(image, where).resampling is None
