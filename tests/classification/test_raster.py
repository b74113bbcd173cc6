"""Compiled rendering of many small sets of Gaussians, and the features of the published kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_medgs.classification.gaussians.raster import rasterize
from napari_medgs.classification.networks.grid import Hybrid
from napari_medgs.classification.networks.raw_features import (
    quaternions,
    raw_node_features,
    raw_node_width,
)
from tests.classification.test_gaussians import random_set, turn


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("occupancy", [False, True])
@pytest.mark.parametrize("cells", [16, 7])
def test_compiled_image_is_that_of_the_differentiable_path(ndim, occupancy, cells):
    gaussians = random_set(ndim, occupancy=occupancy)
    gaussians.weights[1, 3] = 0
    network = Hybrid(ndim, 1, 2, [cells] * ndim, 1, occupancy)
    compiled = network.render(gaussians)
    tracked = replace(gaussians, weights=gaussians.weights.clone().requires_grad_())
    slow = network.render(tracked)
    assert slow.requires_grad
    assert not compiled.requires_grad
    torch.testing.assert_close(compiled, slow.detach(), rtol=1e-4, atol=1e-5)


def test_compiled_image_does_not_depend_on_threads_and_keeps_channels():
    gaussians = random_set(2)
    colored = replace(gaussians, values=torch.rand(2, gaussians.count, 3))
    one, two = (rasterize(colored, (16, 16), (0.0, 0.0), threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one, two)
    single = replace(colored, values=colored.values[..., 1:2].contiguous())
    np.testing.assert_array_equal(rasterize(single, (16, 16), (0.0, 0.0))[:, 0], one[:, 1])


def test_a_far_point_takes_the_nearest_value():
    gaussians = random_set(2, count=16)
    gaussians.means[:] = torch.rand(2, 16, 2)
    gaussians.means[:, 0] = 6.0
    gaussians.covariances[:] = torch.eye(2) * 0.01
    image = rasterize(gaussians, (16, 16), (0.0, 0.0))
    assert np.isfinite(image).all()
    np.testing.assert_allclose(image[:, 0, 15, 15], gaussians.values[:, 0, 0], rtol=1e-5)


def test_quaternions_are_those_of_the_rotation():
    rotations = Rotation.random(64, rng=np.random.default_rng(0))
    x, y, z, w = rotations.as_quat(canonical=True).T
    frames = torch.from_numpy(rotations.as_matrix()).float()
    wanted = torch.from_numpy(np.stack([w, x, y, z], -1)).float()
    torch.testing.assert_close(quaternions(frames), wanted, atol=1e-5, rtol=1e-4)
    mirrored = frames * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(quaternions(mirrored), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_raw_features_are_the_parameters(ndim):
    gaussians = random_set(ndim)
    features = raw_node_features(gaussians)
    assert features.shape[-1] == raw_node_width(ndim, 1)
    torch.testing.assert_close(features[..., :ndim], gaussians.means)
    variances = torch.linalg.eigvalsh(gaussians.covariances)
    torch.testing.assert_close(features[..., ndim : 2 * ndim].square(), variances)
    turned = raw_node_features(gaussians.transform(turn(ndim)))
    # Unlike our own features, the rotation's numbers are not those of the turned covariance.
    torch.testing.assert_close(
        turned[..., ndim : 2 * ndim], features[..., ndim : 2 * ndim], rtol=1e-3, atol=1e-3
    )
    assert (turned[..., 2 * ndim] - features[..., 2 * ndim]).abs().max() > 0.1
