"""Fits, moves, merging and graphs of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medgs.classification.data.augment import move_pixels
from napari_medgs.classification.gaussians.fit import blend, fit_images, psnr
from napari_medgs.classification.gaussians.set import GaussianSet, grid_points
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.classification.inputs import network_inputs
from napari_medgs.classification.networks.graph_features import (
    edge_features,
    graph_data,
    nearest_neighbors,
    spectrum,
)
from napari_medgs.errors import Cancelled, ImageError, ParameterError
from tests.classification.conftest import blobs


def random_set(ndim: int, *, occupancy: bool = False, count: int = 32) -> GaussianSet:
    torch.manual_seed(1)
    root = torch.randn(2, count, ndim, ndim) + torch.eye(ndim)
    return GaussianSet(
        torch.rand(2, count, ndim) * 16,
        root @ root.mT + 0.5 * torch.eye(ndim),
        torch.rand(2, count, 1),
        torch.rand(2, count) + 0.5,
        torch.rand(2, count) * 0.1,
        torch.rand(2, count) * 0.1,
        (16,) * ndim,
        occupancy,
    )


def turn(ndim: int) -> torch.Tensor:
    skew = torch.zeros(ndim, ndim)
    skew[0, 1] = 0.4
    skew[0, -1] += 0.3
    return torch.linalg.matrix_exp(skew - skew.mT)


def test_fit_reaches_a_quality(rng):
    images = blobs(rng, 4, 2)[0] / np.float32(255)
    fitted = fit_images(images, FitSettings(gaussians=64))
    assert fitted.count == 64
    assert psnr(images, fitted).min() > 26
    assert (torch.linalg.eigvalsh(fitted.covariances) > 0).all()


def test_3d_fit_and_cancel(rng):
    images = blobs(rng, 2, 3)[0] / np.float32(255)
    assert psnr(images, fit_images(images, FitSettings(gaussians=64))).min() > 22
    with pytest.raises(Cancelled):
        fit_images(images, FitSettings(), should_stop=lambda: True)


@pytest.mark.parametrize("model", ["hybrid", "inr2vec"])
def test_cancel_within_one_image(rng, discs, quick, model):
    from dataclasses import replace

    from napari_medgs.classification.training.train import make_card

    card = make_card(discs, replace(quick, model=model))
    asked = iter(range(10_000))
    with pytest.raises(Cancelled):
        network_inputs(discs.scaled_images("val")[:1], card, should_stop=lambda: next(asked) == 5)
    assert next(asked) == 6  # not asked again, nor was the image finished first


def test_shape_keeps_its_moments(rng):
    shape = (blobs(rng, 2, 3)[0] > 100).astype(np.float32)
    fitted = fit_images(shape, FitSettings(gaussians=32, shape=True))
    points = np.argwhere(shape[0, 0])
    occupancy = fitted.weights[0].numpy()
    assert occupancy.sum() == len(points)
    mean = (occupancy[:, None] * fitted.means[0].numpy()).sum(0) / occupancy.sum()
    np.testing.assert_allclose(mean, points.mean(0), atol=1e-3)
    offset = fitted.means[0].numpy() - mean
    spread = fitted.covariances[0].numpy() + offset[:, :, None] * offset[:, None]
    whole = (occupancy[:, None, None] * spread).sum(0) / occupancy.sum()
    np.testing.assert_allclose(whole, np.cov(points.T, bias=True) + np.eye(3) / 12, atol=1e-2)
    with pytest.raises(ImageError, match="contains no shape"):
        fit_images(np.zeros((1, 1, 8, 8, 8)), FitSettings(gaussians=16, shape=True))


@pytest.mark.parametrize("ndim", [2, 3])
def test_transform_is_exact(ndim):
    gaussians, matrix = random_set(ndim), turn(ndim) * 1.2
    shift = torch.arange(ndim) * 0.5
    moved = gaussians.transform(matrix, shift)
    torch.testing.assert_close(
        moved.covariances, matrix @ gaussians.covariances @ matrix.T, rtol=1e-4, atol=1e-4
    )
    points = grid_points(gaussians.shape)
    middle = gaussians.center()
    there = (points - middle) @ matrix.T + middle + shift
    torch.testing.assert_close(blend(there, moved), blend(points, gaussians), rtol=1e-3, atol=1e-3)


def test_pixels_move_as_gaussians_do(rng):
    images = blobs(rng, 2, 2)[0].astype(np.float32) / 255
    fitted = fit_images(images, FitSettings(gaussians=64))
    matrix, shift = turn(2), torch.tensor([[1.0, -2.0]]).expand(2, -1)
    moved = blend(grid_points((16, 16)), fitted.transform(matrix, shift)).mT.reshape(2, 1, 16, 16)
    pixels = move_pixels(torch.from_numpy(images), matrix.expand(2, -1, -1), shift)
    inner = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    assert (moved - pixels)[inner].abs().mean() < 0.06


@pytest.mark.parametrize("ndim", [2, 3])
def test_merging_keeps_mass_and_mean(ndim):
    gaussians = random_set(ndim, occupancy=True).in_kd_tree_order()
    merged = gaussians.merged()
    assert merged.count == gaussians.count // 4
    torch.testing.assert_close(merged.weights.sum(1), gaussians.weights.sum(1))
    before = (gaussians.weights[..., None] * gaussians.means).sum(1)
    torch.testing.assert_close((merged.weights[..., None] * merged.means).sum(1), before)
    with pytest.raises(ParameterError, match="use a multiple of 4"):
        random_set(ndim, count=2).merged()


@pytest.mark.parametrize("ndim", [2, 3])
def test_edges_do_not_depend_on_a_shift_and_scalars_not_on_a_turn(ndim):
    gaussians = random_set(ndim)

    def edges(g: GaussianSet) -> torch.Tensor:
        near = nearest_neighbors(g.means, g.weights, 4)
        return edge_features(g, spectrum(g.covariances), near)

    first = edges(gaussians)
    shifted = edges(gaussians.transform(torch.eye(ndim), torch.ones(ndim) * 3))
    torch.testing.assert_close(shifted, first, rtol=1e-3, atol=1e-3)
    turned = edges(gaussians.transform(turn(ndim)))
    torch.testing.assert_close(
        turned[..., 2 * ndim :], first[..., 2 * ndim :], rtol=1e-2, atol=1e-2
    )


def test_graph_is_torch_geometric():
    graph = graph_data(random_set(3), 1, neighbors=6)
    assert graph.num_nodes == 32
    assert graph.edge_index.shape == (2, 192)
    assert graph.validate()
    with pytest.raises(ParameterError, match="at least 33"):
        graph_data(random_set(3), neighbors=32)


def test_cache_is_by_content(rng, tmp_path, discs):
    from napari_medgs.classification import TrainParams
    from napari_medgs.classification.training.train import make_card

    card = make_card(discs, TrainParams(gaussians=16))
    images = discs.scaled_images("val")[:4]
    first = network_inputs(images, card, cache_dir=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    again = network_inputs(images, card, cache_dir=str(tmp_path))
    assert torch.equal(first.means, again.means)
    network_inputs(images[::-1], card, cache_dir=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert torch.equal(network_inputs(images, card, cache_dir=str(tmp_path)).means, first.means)
