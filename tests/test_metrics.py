"""Image and segmentation scores against scikit-image, plain loops and known shapes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from napari_medgs import metrics
from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, ImageError, LabelError, ParameterError


def ball(shape, center, radius, spacing=(1.0, 1.0, 1.0)):
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, center, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 < radius**2


@pytest.fixture
def pair(rng):
    truth = rng.normal(100, 30, (20, 24, 28)).astype(np.float32)
    return truth, truth + rng.normal(0, 5, truth.shape).astype(np.float32)


def test_labels_beyond_64_bits_are_refused():
    huge = np.full((2, 4, 4), 2**63 + 1, np.uint64)
    with pytest.raises(LabelError, match="too large"):
        metrics.evaluate(huge, np.ones(huge.shape, int), Grid(huge.shape))


def test_psnr_of_a_known_error(pair):
    truth, _ = pair
    assert metrics.psnr(truth, truth + 2, data_range=200) == pytest.approx(40, abs=1e-3)
    assert metrics.psnr(truth, truth) == math.inf


def test_psnr_agrees_with_skimage(pair):
    from skimage.metrics import peak_signal_noise_ratio

    expected = peak_signal_noise_ratio(*pair, data_range=180)
    assert metrics.psnr(*pair, data_range=180) == pytest.approx(expected, abs=1e-4)


def test_default_psnr_clips_to_the_percentile_span(pair):
    truth, guess = (a.copy() for a in pair)
    low, high = np.percentile(truth, (0.5, 99.5))
    scaled = [np.clip((a.astype(float) - low) / (high - low), 0, 1) for a in (truth, guess)]
    expected = -10 * np.log10(np.mean((scaled[0] - scaled[1]) ** 2))
    assert metrics.psnr(truth, guess) == pytest.approx(expected, abs=1e-4)
    brightest = np.unravel_index(truth.argmax(), truth.shape)
    guess[brightest] = truth[brightest] = 1e6
    guess[brightest] += 1000
    assert metrics.psnr(truth, guess) == pytest.approx(expected, abs=0.05)


def test_scores_do_not_depend_on_units(pair):
    truth, guess = pair
    moved = [a * 7.0 - 1000 for a in pair]
    assert metrics.psnr(*moved) == pytest.approx(metrics.psnr(truth, guess), abs=1e-3)
    assert metrics.ssim(*moved) == pytest.approx(metrics.ssim(truth, guess), abs=1e-4)
    integers = [np.round(a).astype(np.int16) for a in pair]
    assert metrics.psnr(*integers) == pytest.approx(metrics.psnr(truth, guess), abs=0.1)


def test_channels_are_scaled_each_to_its_own_span(pair):
    truth, guess = pair
    one = metrics.psnr(truth, guess)
    two = metrics.psnr(np.stack([truth, truth * 50]), np.stack([guess, guess * 50]))
    assert two == pytest.approx(one, abs=1e-3)
    assert metrics.ssim(np.stack([truth, truth]), np.stack([guess, truth])) == pytest.approx(
        (metrics.ssim(truth, guess) + 1) / 2, abs=1e-5
    )


@pytest.mark.parametrize("depth", [7, 8, 20, 22, 38, 39])
def test_ssim_in_slabs_is_that_of_the_whole_volume(rng, depth):
    from skimage.metrics import structural_similarity

    truth = rng.random((depth, 12, 15)).astype(np.float32)
    guess = truth + rng.normal(0, 0.2, truth.shape).astype(np.float32)
    expected = structural_similarity(truth, guess, data_range=1.0)
    assert metrics.ssim(truth, guess, data_range=1.0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ssim_of_slices_is_the_mean_of_planes(pair, axis):
    from skimage.metrics import structural_similarity

    planes = zip(*(np.moveaxis(a, axis, 0) for a in pair), strict=True)
    expected = np.mean([structural_similarity(t, g, data_range=200) for t, g in planes])
    score = metrics.ssim(*pair, data_range=200, slice_axis=axis)
    assert score == pytest.approx(expected, abs=1e-5)


def test_ssim_of_a_single_slice_is_two_dimensional(pair):
    truth, guess = (a[:, :1] for a in pair)
    flat = metrics.ssim(truth[:, 0], guess[:, 0])
    assert metrics.ssim(truth, guess) == pytest.approx(flat, abs=1e-6)


def test_too_small_for_ssim(rng):
    image = rng.random((6, 20, 20))
    with pytest.raises(ParameterError, match="at least 7"):
        metrics.ssim(image, image)
    assert metrics.ssim(image, image, slice_axis=0) == pytest.approx(1)


def test_refused_images(pair):
    truth, guess = pair
    with pytest.raises(GeometryError, match="equal shapes"):
        metrics.psnr(truth, guess[:-1])
    with pytest.raises(GeometryError, match="not be empty"):
        metrics.psnr(truth[:0], guess[:0])
    with pytest.raises(ImageError, match="constant"):
        metrics.psnr(np.ones((8, 8, 8)), guess[:8, :8, :8])
    with pytest.raises(ParameterError, match="positive"):
        metrics.psnr(truth, guess, data_range=0)


def test_overlap_of_known_masks():
    a, b = np.zeros((1, 1, 10), bool), np.zeros((1, 1, 10), bool)
    a[..., :6], b[..., 4:8] = True, True
    assert metrics.dice(a, b) == pytest.approx(4 / 10)
    assert metrics.iou(a, b) == pytest.approx(2 / 8)
    nothing = np.zeros_like(a)
    assert metrics.dice(a, nothing) == metrics.iou(a, nothing) == 0
    assert math.isnan(metrics.dice(nothing, nothing))
    assert math.isnan(metrics.iou(nothing, nothing))


def test_distances_of_shifted_boxes():
    grid = Grid((20, 20, 20), np.diag([2.0, 1.0, 0.5, 1.0]))
    a, b = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    a[5:6, 5:10, 5:10] = True
    b[8:9, 5:10, 5:10] = True
    assert metrics.hd95(a, b, grid) == pytest.approx(6)
    assert metrics.asd(a, b, grid) == pytest.approx(6)
    assert metrics.hd95(a, a, grid) == metrics.asd(a, a, grid) == 0


def test_hd95_is_the_larger_directed_percentile():
    # A far speck: most of its surface is far from the truth, but not the other way round.
    grid = Grid((1, 1, 400), np.eye(4))
    truth, seg = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    truth[0, 0, 10:20] = True
    seg[0, 0, 10:20] = True
    seg[0, 0, 100:104] = True
    assert metrics.hd95(seg, truth, grid) == metrics.hd95(truth, seg, grid)
    forth, back = metrics.surface_distances(seg, truth, grid)
    assert back.max() == 0
    assert metrics.hd95(seg, truth, grid) == pytest.approx(np.percentile(forth, 95))
    assert metrics.asd(seg, truth, grid) == pytest.approx(forth.sum() / 24)


def test_distances_of_empty_masks_are_undefined():
    grid = Grid((8, 8, 8))
    full, empty = np.ones(grid.shape, bool), np.zeros(grid.shape, bool)
    for pair in ((full, empty), (empty, full), (empty, empty)):
        assert math.isnan(metrics.hd95(*pair, grid))
        assert math.isnan(metrics.asd(*pair, grid))
    assert np.isinf(metrics.surface_distances(full, empty, grid)[0]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distances_agree_with_brute_force_on_any_affine(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3)) + 2 * np.eye(3)[rng.permutation(3)]
    affine[:3, 3] = rng.normal(0, 50, 3)
    grid = Grid(tuple(rng.integers(2, 8, 3)), affine)
    masks = [rng.random(grid.shape) < share for share in rng.uniform(0.2, 0.9, 2)]
    for mask in masks:
        mask[0, 0, 0] = True

    def surface(mask):
        inside = set(map(tuple, np.argwhere(mask)))
        steps = np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        return [p for p in inside if any(tuple(np.add(p, s)) not in inside for s in steps)]

    points = [grid.to_world(np.array(surface(mask))) for mask in masks]
    table = cdist(*points)
    forth, back = metrics.surface_distances(*masks, grid)
    np.testing.assert_allclose(np.sort(forth), np.sort(table.min(axis=1)), atol=1e-9)
    np.testing.assert_allclose(np.sort(back), np.sort(table.min(axis=0)), atol=1e-9)


def test_scores_agree_with_simpleitk(rng):
    import SimpleITK as sitk
    from scipy.ndimage import gaussian_filter

    grid = Grid((20, 24, 28), np.diag([3.0, 1.0, 0.5, 1.0]))
    noise = rng.normal(size=grid.shape)
    seg, truth = (
        gaussian_filter(noise + shift * rng.normal(size=grid.shape), 2) > 0.02
        for shift in (0.3, 0.3)
    )
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (seg, truth)]
    for image in images:
        image.SetSpacing((0.5, 1.0, 3.0))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    assert metrics.dice(seg, truth) == pytest.approx(overlap.GetDiceCoefficient())
    assert metrics.iou(seg, truth) == pytest.approx(overlap.GetJaccardCoefficient())

    def to_surface(image):  # contours as ITK finds them, and its distance map
        contour = sitk.LabelContour(image, fullyConnected=False)
        away = sitk.SignedMaurerDistanceMap(
            contour, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
        return sitk.GetArrayFromImage(contour) > 0, np.abs(sitk.GetArrayFromImage(away))

    # ITK does not count the volume's edge as surface: away from it only.
    for mask in (seg, truth):
        mask[[0, -1]] = mask[:, [0, -1]] = mask[:, :, [0, -1]] = False
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (seg, truth)]
    for image in images:
        image.SetSpacing((0.5, 1.0, 3.0))
    (ours, to_ours), (theirs, to_theirs) = map(to_surface, images)
    forth, back = to_theirs[ours], to_ours[theirs]
    expected = max(np.percentile(forth, 95), np.percentile(back, 95))
    assert metrics.hd95(seg, truth, grid) == pytest.approx(expected, abs=1e-4)
    both = np.concatenate([forth, back])
    assert metrics.asd(seg, truth, grid) == pytest.approx(both.mean(), abs=1e-4)


def test_evaluate_spheres():
    grid = Grid((40, 40, 40), np.diag([2.0, 1.0, 1.0, 1.0]))
    truth, seg = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.int16)
    truth[ball(grid.shape, (20, 20, 12), 9, grid.spacing)] = 1
    seg[ball(grid.shape, (20, 20, 12), 11, grid.spacing)] = 1
    truth[ball(grid.shape, (20, 20, 30), 5, grid.spacing)] = 44
    seg[ball(grid.shape, (20, 10, 30), 5, grid.spacing)] = 7
    report = metrics.evaluate(seg, truth, grid, labels=[1, 7, 44, 9])
    one, seven = report["labels"]["1"], report["labels"]["7"]
    assert one["asd"] == pytest.approx(2, abs=0.3)
    assert one["hd95"] == pytest.approx(2, abs=0.5)
    assert one["volume_ml"] == pytest.approx(4 / 3 * np.pi * 11**3 / 1000, rel=0.03)
    assert one["volume_ml_truth"] == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.03)
    assert seven["dice"] == 0
    assert seven["hd95"] is None
    assert seven["volume_ml_truth"] == 0
    assert report["labels"]["9"]["dice"] is None
    assert report["mean"]["dice"] == pytest.approx(
        np.mean([e["dice"] for e in report["labels"].values() if e["dice"] is not None])
    )
    assert (report["mean"]["labels"], report["mean"]["without_distance"]) == (3, 2)
    assert report["mean"]["hd95"] == one["hd95"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(metrics.evaluate(seg, truth, grid)["labels"]) == {"1", "7", "44"}


def test_evaluate_leaves_unlabeled_voxels_out():
    grid = Grid((6, 6, 6))
    truth, seg = np.zeros(grid.shape, np.int16), np.zeros(grid.shape, np.int16)
    truth[2:4], seg[2:6] = 1, 1
    assert metrics.evaluate(seg, truth, grid)["labels"]["1"]["dice"] == pytest.approx(2 / 3)
    truth[4:] = -1
    assert metrics.evaluate(seg, truth, grid)["labels"]["1"]["dice"] == 1


def test_evaluate_takes_masks_and_large_values():
    grid = Grid((6, 6, 6))
    mask = np.zeros(grid.shape, bool)
    mask[2:4] = True
    large = mask.astype(np.int64) * 3_000_000_000
    large[0, 0, 0] = 5
    assert metrics.evaluate(mask, mask, grid)["mean"]["dice"] == 1
    report = metrics.evaluate(large, large, grid)
    assert report["labels"]["3000000000"]["dice"] == report["labels"]["5"]["dice"] == 1


def test_evaluate_refuses():
    grid = Grid((6, 6, 6))
    zeros = np.zeros(grid.shape, np.uint8)
    with pytest.raises(LabelError, match="no label"):
        metrics.evaluate(zeros, zeros, grid)
    with pytest.raises(LabelError, match="integers"):
        metrics.evaluate(zeros + 0.5, zeros, grid)
    with pytest.raises(LabelError, match="above 0"):
        metrics.evaluate(zeros, zeros, grid, labels=[0])
    with pytest.raises(GeometryError, match="resample"):
        metrics.evaluate(zeros[1:], zeros, grid)


def plain_nsd(seg, truth, affine, tolerance):
    """NSD by erosion and all pairs of border voxels."""
    from scipy.ndimage import binary_erosion

    edges = []
    for mask in (seg, truth):
        border = np.argwhere(mask & ~binary_erosion(mask, border_value=0))
        edges.append(border @ affine[:3, :3].T + affine[:3, 3])
    if not len(edges[0]) or not len(edges[1]):
        return 0.0
    apart = cdist(*edges)
    near = (apart.min(axis=1) <= tolerance).sum() + (apart.min(axis=0) <= tolerance).sum()
    return near / (len(edges[0]) + len(edges[1]))


@given(seed=st.integers(0, 10_000), tolerance=st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_nsd_agrees_with_all_pairs_of_border_voxels(seed, tolerance):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.5, 0.8, 1.1]) + rng.normal(0, 0.1, (3, 3))
    shape = (7, 9, 8)
    seg, truth = (ball(shape, rng.uniform(2, 6, 3), rng.uniform(1.1, 4)) for _ in range(2))
    found = metrics.nsd(seg, truth, Grid(shape, affine), tolerance)
    assert found == pytest.approx(plain_nsd(seg, truth, affine, tolerance))


def test_nsd_of_known_shapes():
    grid = Grid((10, 10, 10), np.diag([3.0, 1.0, 1.0, 1.0]))
    truth = np.zeros(grid.shape, bool)
    truth[3:7, 3:7, 3:7] = True
    assert metrics.nsd(truth, truth, grid, 0) == 1
    moved = np.roll(truth, 1, axis=0)  # by 3 mm
    assert metrics.nsd(moved, truth, grid, 3) == 1
    assert metrics.nsd(moved, truth, grid, 2.9) < 1
    assert metrics.nsd(truth & False, truth, grid, 5) == 0
    assert math.isnan(metrics.nsd(truth & False, truth & False, grid, 5))
    tenths = Grid((1, 1, 9), 0.1 * np.diag([1.0, 1, 1, 10]))
    first, second = np.zeros(tenths.shape, bool), np.zeros(tenths.shape, bool)
    first[..., 0], second[..., 3] = True, True
    assert metrics.nsd(first, second, tenths, 0.3) == 1  # 3 x 0.1 is more than 0.3 in floats
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ParameterError, match="tolerance"):
            metrics.nsd(truth, truth, grid, wrong)
        with pytest.raises(ParameterError, match="tolerance"):
            metrics.evaluate(truth, truth, grid, tolerance=wrong)


def test_evaluate_has_nsd_and_the_ratio_of_volumes():
    grid = Grid((10, 10, 10))
    truth, seg = np.zeros(grid.shape, int), np.zeros(grid.shape, int)
    truth[3:7, 3:7, 3:7], seg[3:7, 3:7, 3:5] = 1, 1
    truth[0, 0, 0], seg[9, 9, 9] = 2, 3
    report = metrics.evaluate(seg, truth, grid, tolerance=2)
    one, two, three = (report["labels"][k] for k in "123")
    assert report["tolerance_mm"] == 2
    assert one["nsd"] == metrics.nsd(seg == 1, truth == 1, grid, 2)
    assert (one["volume_ratio"], two["volume_ratio"], three["volume_ratio"]) == (0.5, 0, None)
    assert (two["nsd"], three["nsd"]) == (0, 0)
    assert report["mean"]["nsd"] == pytest.approx(one["nsd"] / 3)


def test_means_over_cases_count_what_is_missing():
    def entry(dice, hd95, ours, theirs):
        return {"dice": dice, "iou": dice, "nsd": dice, "hd95": hd95, "asd": hd95,
                "volume_ml": ours, "volume_ml_truth": theirs,
                "volume_ratio": ours / theirs if theirs else None}  # fmt: skip

    cases = {
        "a": {"labels": {"1": entry(0.8, 2.0, 3, 4), "10": entry(0.5, 1.0, 1, 1)}},
        "b": {"labels": {"1": entry(0.0, None, 0, 4), "2": entry(0.0, None, 1, 0)}},
        "c": {"labels": {"1": entry(0.4, 4.0, 8, 4), "2": entry(None, None, 0, 0)}},
        "d": {"labels": {}},
    }
    found = metrics.summarize_cases(cases)
    assert list(found["labels"]) == ["1", "2", "10"]
    one, two = found["labels"]["1"], found["labels"]["2"]
    assert one["dice"] == pytest.approx(0.4)
    assert one["dice_sd"] == pytest.approx(np.std([0.8, 0, 0.4], ddof=1))
    assert one["hd95"] == 3
    assert (one["cases"], one["missing"], one["without_distance"]) == (3, 1, 1)
    assert (two["cases"], two["spurious"], two["hd95"]) == (1, 1, None)
    assert found["mean"]["dice"] == pytest.approx((0.4 + 0 + 0.5) / 3)
    assert (found["mean"]["labels"], found["mean"]["cases"]) == (3, 4)
    assert metrics.summarize_cases({})["mean"]["dice"] is None
