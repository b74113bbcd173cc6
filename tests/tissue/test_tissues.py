"""Tissue classes: what they find, the likelihood, the bias field, and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

import napari_medgs as mg
from napari_medgs.errors import Cancelled, GeometryError, ImageError, ParameterError
from napari_medgs.rendering import score_renderer
from napari_medgs.rendering.cpu.shares import ShareProjector
from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.mixture import Bags, bag_scores, fit_mixture, responsibilities
from tests.tissue.conftest import LEVELS, agreement, three_classes


def never_falls(trace: list[float]) -> bool:
    return bool((np.diff(trace) >= -1e-9 * max(np.abs(trace))).all())


def test_classes_are_found_in_order(volume, field, truth):
    found = mg.tissues(volume, classes=3, field=field)
    assert agreement(found.labels, truth) > 0.97
    assert (found.labels[truth == 0] == 0).all()  # padding
    assert np.allclose(found.means[:, 0], LEVELS[1:], atol=6)
    assert found.deviations[0] == pytest.approx(14, abs=3)
    assert found.labels.dtype == np.uint8
    assert np.allclose(found.probabilities.sum(axis=0), truth > 0, atol=1e-4)
    inside = found.uncertainty[truth > 0]
    assert 0 <= inside.min() <= inside.max() <= 1
    wrong = found.labels != truth
    assert inside[wrong[truth > 0]].mean() > 2 * inside[~wrong[truth > 0]].mean()


def test_the_table_counts_labels(volume, field):
    found = mg.tissues(volume, classes=3, field=field)
    for row in found.rows:
        on = found.labels == row["label"]
        assert row["voxels"] == on.sum()
        assert row["volume_ml"] == pytest.approx(on.sum() * 0.003)
        assert row["mean"][0] == pytest.approx(volume.data[0][on].mean(), rel=1e-5)
        assert row["sd"][0] == pytest.approx(volume.data[0][on].std(), rel=1e-5)
    assert sum(row["fraction"] for row in found.rows) == pytest.approx(1)


@pytest.mark.parametrize("bias", [False, True])
def test_the_likelihood_never_falls(volume, field, bias):
    params = mg.TissueParams(rounds=6)
    found = mg.tissues(volume, classes=3, bias=bias, field=field, params=params)
    assert len(found.log_likelihood) > 2
    assert never_falls(found.log_likelihood)
    assert len(found.voxel_log_likelihood) == 7
    assert never_falls(found.voxel_log_likelihood)
    assert found.voxel_log_likelihood[-1] > found.voxel_log_likelihood[0]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    contrasts=st.integers(1, 3),
    classes=st.integers(2, 5),
    degree=st.integers(0, 2),
)
def test_the_likelihood_never_falls_for_any_bags(seed, contrasts, classes, degree):
    rng = np.random.default_rng(seed)
    count = 60
    root = rng.normal(size=(count, contrasts, contrasts)) * 0.2
    within = root @ np.swapaxes(root, 1, 2) + 1e-4 * np.eye(contrasts)
    basis = LegendreBasis.over([0, 0, 0], [0, 9, 9], degree)
    terms = basis.at(np.column_stack([np.zeros(count), rng.uniform(0, 9, (count, 2))]))
    mean = 3 + rng.normal(size=(count, contrasts)) + 2 * rng.integers(0, 3, (count, 1))
    bags = Bags(rng.uniform(0.1, 8, count), mean, within, terms)
    mixture, gamma, trace = fit_mixture(bags, classes, seed)
    assert never_falls(trace)
    assert np.allclose(gamma.sum(axis=1), 1)
    assert (np.diff(mixture.means[:, 0]) >= 0).all()


def test_bags_of_one_voxel_are_an_ordinary_mixture():
    """With bags of one voxel the likelihood is that of scikit-learn's tied mixture."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(m, 1, (200, 2)) for m in ([0, 0], [6, 1], [2, 7])])
    bags = Bags(np.ones(600), points, np.zeros((600, 2, 2)), np.zeros((600, 0)))
    mixture, gamma, trace = fit_mixture(bags, 3)
    other = GaussianMixture(3, covariance_type="tied", tol=1e-8, reg_covar=0, random_state=0)
    other.fit(points)
    order = np.argsort(other.means_[:, 0])
    assert trace[-1] / 600 == pytest.approx(other.score(points), abs=1e-4)
    assert np.allclose(mixture.means, other.means_[order], atol=0.01)
    assert np.allclose(mixture.covariance, other.covariances_, atol=0.01)
    assert np.allclose(gamma, other.predict_proba(points)[:, order], atol=0.01)


def test_mass_counts_as_that_many_voxels():
    """A bag of m equal voxels has m times the log-likelihood of one."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(30, 1)) + 4 * rng.integers(0, 2, (30, 1))
    one = Bags(np.ones(30), points, np.zeros((30, 1, 1)), np.zeros((30, 0)))
    mixture, _, _ = fit_mixture(one, 2)
    plain = bag_scores(one, mixture) - np.log(mixture.weights)
    heavy = bag_scores(replace(one, mass=np.full(30, 5.0)), mixture) - np.log(mixture.weights)
    assert np.allclose(heavy, 5 * plain)
    gamma, _ = responsibilities(bag_scores(one, mixture))
    assert np.allclose(gamma.sum(axis=1), 1)


def smooth_field(shape) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return 1 + 0.3 * y * np.abs(x) + 0.25 * x - 0.1 * z


def test_a_bias_field_is_estimated_and_removed():
    image, truth = three_classes(noise=4.0)
    factor = smooth_field(image.shape)
    volume = mg.Volume.from_array((image * factor).astype(np.float32), spacing=(3.0, 1.0, 1.0))
    field = mg.fit(volume, mg.FitParams(iterations=40)).field
    plain = mg.tissues(volume, classes=3, field=field)
    better = mg.tissues(volume, classes=3, bias=True, field=field)
    assert agreement(better.labels, truth) > agreement(plain.labels, truth) + 0.05
    assert agreement(better.labels, truth) > 0.93
    inside = truth > 0
    assert better.bias.shape == (1, *image.shape)
    assert better.bias[0][inside].mean() == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(better.bias[0][inside], factor[inside])[0, 1] > 0.9
    one = truth == 3
    spread = better.corrected(volume)[0][one].std()
    assert spread < 0.7 * volume.data[0][one].std()
    assert plain.bias is None
    assert np.array_equal(plain.corrected(volume), volume.data)


def test_the_number_of_classes_is_chosen():
    found = mg.tissues(mg.Volume.from_array(three_classes(noise=6)[0], spacing=(3.0, 1, 1)))
    assert found.classes == 3
    assert set(found.held_out) == {2, 3, 4}
    assert found.held_out[3] > found.held_out[2] + 0.1


def test_several_contrasts(field, truth):
    rng = np.random.default_rng(3)
    contrasts = [three_classes()[0], 200 - three_classes(5)[0] + rng.normal(0, 4, truth.shape)]
    volume = mg.Volume.from_array(np.stack(contrasts).astype(np.float32), spacing=(3.0, 1, 1))
    found = mg.tissues(volume, classes=4, params=mg.TissueParams(padding=False, threads=1))
    assert found.means.shape == (4, 2)
    assert found.voxel_log_likelihood == []  # no rounds at the voxels
    assert agreement(np.maximum(found.labels.astype(int) - 1, 0), truth) > 0.9
    again = mg.tissues(volume, classes=4, params=mg.TissueParams(padding=False, threads=2))
    assert np.array_equal(found.probabilities, again.probabilities)


def test_a_region_bounds_the_result(volume, field, truth):
    region = truth > 1
    found = mg.tissues(volume, classes=2, region=region, field=field)
    assert np.array_equal(found.labels > 0, region)
    assert agreement(found.labels, np.where(region, truth - 1, 0)) > 0.97
    assert np.array_equal(found.region, region)


def test_of_a_field_its_own_image_is_divided(field, truth):
    found = mg.tissues(field, classes=4, params=mg.TissueParams(padding=False))
    assert agreement(np.maximum(found.labels.astype(int) - 1, 0), truth) > 0.9


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_along_any_axis(volume, truth, axis):
    grid = replace(volume.grid)
    turned = mg.Volume.from_array(np.moveaxis(volume.data[0], 0, axis).copy())
    assert grid.shape == volume.shape
    field = mg.fit(turned, mg.FitParams(iterations=40, slice_axis=axis)).field
    assert field.info.slice_axis == axis
    found = mg.tissues(turned, classes=3, field=field, bias=True)
    assert agreement(found.labels, np.moveaxis(truth, 0, axis)) > 0.96


def test_a_flat_image_of_one_slice():
    image, truth = three_classes(noise=6)
    found = mg.tissues(mg.Volume.from_array(image[5]), classes=3, bias=True)
    assert agreement(found.labels, truth[5:6]) > 0.95


def test_intensities_of_any_size(volume, truth):
    large = mg.Volume.from_array(volume.data[0].astype(np.float64) * 1e200, spacing=(3.0, 1, 1))
    with pytest.raises(ImageError):  # the fit says that it cannot hold them
        mg.tissues(large, classes=3)
    shifted = mg.Volume.from_array(volume.data[0] + 20000, spacing=(3.0, 1, 1))
    found = mg.tissues(shifted, classes=3)
    assert agreement(found.labels, truth) > 0.95
    assert found.deviations[0] < 17


def test_padding_need_not_be_the_darkest(volume, truth):
    image = volume.data[0].copy()
    rim = np.argwhere(truth > 0)[::400]
    image[tuple(rim.T)] = image.min() - 5  # as interpolation leaves them
    found = mg.tissues(mg.Volume.from_array(image, spacing=(3.0, 1, 1)), classes=3)
    assert (found.labels[truth == 0] == 0).all()
    assert agreement(found.labels, truth) > 0.95


def test_bad_input_is_explained(volume, field, truth):
    with pytest.raises(ParameterError, match="classes must be from 2 to 12, not 1"):
        mg.tissues(volume, classes=1, field=field)
    with pytest.raises(ImageError, match="constant"):
        mg.tissues(mg.Volume.from_array(np.full((3, 8, 8), 7.0)), classes=2)
    with pytest.raises(ParameterError, match="The region is empty"):
        mg.tissues(volume, classes=2, field=field, region=np.zeros(volume.shape, bool))
    with pytest.raises(GeometryError, match="grid of the image"):
        mg.tissues(volume, classes=2, field=field, region=np.ones((2, 2, 2), bool))
    with pytest.raises(ParameterError, match="in the padding"):
        mg.tissues(volume, classes=2, field=field, region=truth == 0)
    one = np.zeros(volume.shape, bool)
    one[5, 20, 20:22] = True
    with pytest.raises(ParameterError, match="2 voxels, fewer than the 3 classes"):
        mg.tissues(volume, classes=3, field=field, region=one)
    few = mg.fit(volume, mg.FitParams(gaussians=6, iterations=2)).field
    with pytest.raises(ParameterError, match="Gaussians, fewer than the 12 classes"):
        mg.tissues(volume, classes=12, field=few)
    flat = mg.Volume.from_array(np.where(truth > 1, 50.0, volume.data[0]), spacing=(3.0, 1, 1))
    with pytest.raises(ImageError, match=r"one gray level \(50\)"):
        mg.tissues(flat, classes=2, region=truth > 1)
    negative = mg.Volume.from_array(volume.data[0] - 100, spacing=(3.0, 1, 1))
    with pytest.raises(ParameterError, match="Leave out the bias"):
        mg.tissues(negative, classes=2, bias=True)
    other = mg.Volume.from_array(volume.data[0], spacing=(3.0, 2.0, 1.0))
    with pytest.raises(GeometryError, match="another grid"):
        mg.tissues(other, classes=2, field=field)
    with pytest.raises(ParameterError, match="a field alone"):
        mg.tissues(field, classes=2, field=field)
    with pytest.raises(ParameterError, match="no Gaussians"):
        mg.tissues(field.subset(np.zeros(len(field), bool)), classes=2)
    with pytest.raises(Cancelled):
        mg.tissues(volume, classes=3, field=field, should_stop=lambda: True)


def test_shares_are_the_transpose_of_rendering(field):
    """<W s, p> = <s, W^T p>, and shares sum to the voxels that are reached."""
    shares = ShareProjector(field)
    rng = np.random.default_rng(0)
    scores = rng.random((len(field), 2)).astype(np.float32)
    planes = rng.random((2, *shares.shape)).astype(np.float32)
    rendered = np.zeros_like(planes)
    plain = score_renderer(field)

    def task(z, blended, empty):
        rendered[:, z] = blended
        expected, same = plain.render_plane(scores, 0, z)
        assert np.allclose(blended[:, ~empty], expected[:, ~same], atol=1e-4)
        return planes[:, z] * ~empty

    back = shares.collect(scores, 2, task)
    assert (scores * back).sum() == pytest.approx((rendered * planes).sum(), rel=1e-3)
    empty = plain.empty_mask()
    mass = shares.collect(scores, 1, lambda z, b, e: np.ones((1, *shares.shape[1:]), np.float32))
    assert mass.sum() == pytest.approx((~empty).sum(), rel=1e-4)


def test_a_basis_is_legendre():
    from scipy.special import eval_legendre

    basis = LegendreBasis.over([0, 0, 0], [4, 10, 8], 2)
    assert len(basis) == 9
    places = np.random.default_rng(0).uniform(0, 4, (20, 3))
    scaled = places / np.array([2, 5, 4]) - 1
    for t, powers in enumerate(basis.powers):
        expected = np.prod([eval_legendre(p, scaled[:, a]) for a, p in enumerate(powers)], axis=0)
        assert np.allclose(basis.at(places)[:, t], expected)
    weights = np.random.default_rng(1).normal(size=(1, 9)) * 0.1
    plane = basis.field(weights, (5, 11, 9), 3)
    corners = np.array([[3, 0, 0], [3, 10, 8]], float)
    assert np.allclose(plane[0, [0, -1], [0, -1]], 1 + basis.at(corners) @ weights[0])
