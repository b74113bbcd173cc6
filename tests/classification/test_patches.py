"""The field around each Gaussian, as nodes of the edge network see it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_medgs.classification import train
from napari_medgs.classification.gaussians.fit import blend
from napari_medgs.classification.networks.graph import EdgeNetwork
from napari_medgs.classification.networks.patches import (
    patch_size,
    patch_step,
    patch_width,
    patches,
    rendered_field,
)
from napari_medgs.data.volume import Volume
from tests.classification.test_gaussians import random_set


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("occupancy", [False, True])
def test_patches_have_their_width_and_follow_shifts(ndim, occupancy):
    gaussians = random_set(ndim, occupancy=occupancy)
    around = patches(rendered_field(gaussians), gaussians, patch_step(gaussians))
    assert around.shape == (2, gaussians.count, patch_width(ndim, 1, occupancy))
    # By whole steps of the rendered grid, and away from the image's edges, nothing changes.
    shifted = gaussians.transform(torch.eye(ndim), torch.full((ndim,), 2.0))
    again = patches(rendered_field(shifted), shifted, patch_step(shifted))
    inner = ((gaussians.means > 3.5) & (gaussians.means < 9.9)).all(-1)
    assert inner.any()
    torch.testing.assert_close(again[inner], around[inner], rtol=1e-3, atol=1e-4)


def test_a_patch_is_the_field_at_its_points():
    gaussians = random_set(2)
    # Points at pixels' centers: nothing is interpolated.
    gaussians.means[:, :8] = torch.randint(4, 12, (2, 8, 2)).float()
    found = patches(rendered_field(gaussians), gaussians, 1.0).reshape(2, -1, 25)
    axis = torch.arange(5) - 2.0
    stencil = torch.cartesian_prod(axis, axis)
    for b, k in ((0, 0), (1, 5)):
        field = blend(gaussians.means[b, k] + stencil, gaussians[b : b + 1])[0, :, 0]
        torch.testing.assert_close(found[b, k], field - field.mean(), rtol=1e-3, atol=1e-4)


def test_a_patch_of_a_shape_is_its_occupancy():
    gaussians = random_set(3, occupancy=True, count=16)
    gaussians.covariances[:] = torch.eye(3) * 4
    gaussians.means[:] = 6.5  # a point of the coarse grid: nothing is interpolated
    gaussians.weights[:] = 10.0
    found = patches(rendered_field(gaussians), gaussians, 1.0)[0, 0].reshape(5, 5, 5)
    # The sum of 160 voxels, with the variance that the coarse grid adds.
    middle = 160 / (2 * torch.pi * 5) ** 1.5
    assert found[2, 2, 2] == pytest.approx(middle, rel=0.01)
    assert found[2, 2, 2] > found[0, 2, 2] > found[0, 0, 0]
    torch.testing.assert_close(found, found.flip(0))


@pytest.mark.parametrize("occupancy", [False, True])
def test_the_edge_network_sees_the_field_and_hands_derivatives_on(occupancy):
    torch.manual_seed(0)
    gaussians = random_set(3, occupancy=occupancy)
    network = EdgeNetwork(3, 1, 2, shape_input=occupancy).eval()
    plain = network(gaussians)
    tracked = replace(gaussians, weights=gaussians.weights.clone().requires_grad_())
    slow = network(tracked)
    torch.testing.assert_close(plain, slow.detach(), rtol=1e-3, atol=1e-4)
    assert torch.isfinite(torch.autograd.grad(slow.sum(), tracked.weights)[0]).all()
    first = network.node_encoders[0][0]
    with torch.no_grad():
        first.weight[:, -patch_width(3, 1, occupancy) :] = 0
    assert not torch.allclose(network(gaussians), plain, atol=1e-3)


def test_the_edge_network_learns_discs_from_rings_and_tells_why(discs, quick):
    result = train(discs, replace(quick, model="edge", epochs=12, batch_size=16))
    assert result.metrics["test_auc"] > 0.9
    one = Volume.from_array(discs.images["test"][1, 0])
    for method in ("gradient", "leave-out"):
        scores = result.classifier.attribute(one, 1, method, fraction=0.2)
        assert scores.deletion.without_highest < scores.deletion.without_lowest


def test_mixed_precision_leaves_the_field_as_it_is():
    gaussians = random_set(2)
    tracked = replace(gaussians, weights=gaussians.weights.clone().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = rendered_field(tracked)
    torch.testing.assert_close(mixed, rendered_field(tracked))


def test_shapes_have_finer_stencils():
    assert (patch_size(2, False), patch_size(3, False), patch_size(3, True)) == (5, 3, 5)
    assert patch_step(random_set(2)) == pytest.approx(0.5 * (256 / 32) ** 0.5)
