"""Masks as fields of Gaussians: against the reference renderer, at any size, guided or not."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.ndimage import gaussian_filter  # noqa: E402

from napari_medgs.learning.networks.contour_energy import (  # noqa: E402
    SCALES,
    ContourEnergy,
    directions,
)
from napari_medgs.learning.networks.segmenter import build_segmenter  # noqa: E402
from napari_medgs.learning.networks.slots import SegmenterConfig  # noqa: E402
from napari_medgs.learning.networks.splatting import EPS, gaussian_table, render_logits  # noqa: E402
from napari_medgs.rendering.reference import BlendSettings, grid_points, render_at  # noqa: E402

SIZES = {2: (12, 16), 3: (8, 12, 10)}
KINDS = ["gaussian", "gaussian-energy"]


def network(decoder: str, ndim: int):
    torch.manual_seed(0)
    config = SegmenterConfig(ndim=ndim, channels=2, classes=3, decoder=decoder, widths=(8, 8))
    return build_segmenter(config)


def shaken(decoder: str, ndim: int):
    """A decoder whose Gaussians have moved off their lattice."""
    made = network(decoder, ndim)
    with torch.no_grad():
        for parameter in made.decoder.parameters():
            parameter += 2.0 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_the_reference(kind, ndim):
    size = SIZES[ndim]
    image, decoder = torch.randn(1, 2, *size), shaken(kind, ndim).decoder
    fine = torch.randn(1, 8, *(n // 2 for n in size))
    table = decoder.tables(fine, size, image)[0]
    table = (table + 0.1 * torch.randn_like(table)).detach().requires_grad_()
    with torch.no_grad():  # columns of the folds, and of the slices of a flat image
        table[:, 8:14] = 0
        if ndim == 2:
            table[:, [2, 6]] = 0
    found = render_logits(table, size)
    depth = (1, *size) if ndim == 2 else size
    other = table.detach().double().requires_grad_()
    settings = BlendSettings("normalized", 0, 9.0, EPS)
    points = grid_points(depth, dtype=torch.float64)
    expected = render_at(other, torch.zeros(3).double(), settings, points).mT.reshape(3, *size)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=2e-3)
    direction = torch.randn_like(found)
    (found * direction).sum().backward()
    (expected * direction.double()).sum().backward()
    used = [0, 1, 3, 4, 5, 7, *range(14, 17)] + ([2, 6] if ndim == 3 else [])
    ours, theirs = table.grad[:, used].double(), other.grad[:, used]
    assert float((ours - theirs).abs().max()) < 5e-3 * float(theirs.abs().max())


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_a_smooth_version_of_the_lattice(kind, ndim):
    size, decoder = SIZES[ndim], network(kind, ndim).decoder
    fine = torch.zeros(1, 8, *(n // 2 for n in size))
    fine[0, 0] = torch.linspace(-2, 2, fine.shape[-1])
    image = torch.randn(1, 2, *size)
    with torch.no_grad():
        logits = decoder([fine], size, image)
    plain = torch.nn.functional.interpolate(
        decoder.logits(fine).detach(), size, mode="trilinear" if ndim == 3 else "bilinear"
    )
    assert float((logits - plain).abs()[..., 2:-2].max()) < 0.1 * float(plain.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_another_resolution_of_the_output_shows_the_same_mask(kind):
    size, decoder = SIZES[3], shaken(kind, 3).decoder
    fine, image = torch.randn(1, 8, *(n // 2 for n in size)), torch.randn(1, 2, *size)
    once = decoder([fine], size, image)
    finer = decoder([fine], tuple(3 * n for n in size), image)
    assert finer.shape[2:] == tuple(3 * n for n in size)
    # Every third voxel of the finer one has its center on a voxel of the other.
    torch.testing.assert_close(finer[:, :, 1::3, 1::3, 1::3], once, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("ndim", [2, 3])
def test_guided_cells_of_the_strongest_contours_are_split(ndim):
    size, decoder = SIZES[ndim], network("gaussian-energy", ndim).decoder
    image = torch.zeros(1, 2, *size)
    image[..., size[-1] // 2 :] = 1  # one edge
    cells = tuple(n // 2 for n in size)
    table = decoder.tables(torch.zeros(1, 8, *cells), size, image)[0]
    count = int(np.prod(cells))
    smaller = table[count:]
    assert len(smaller) == max(1, count // 8) * 2**ndim
    distance = (smaller[:, 0] - (size[-1] / 2 - 0.5)).abs()  # column X
    assert float(distance.detach().max()) <= 2.5


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_copies_answer_alike(kind, ndim):
    made = shaken(kind, ndim)
    image = torch.randn(2, 2, *SIZES[ndim])
    made(image).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    torch.testing.assert_close(copy.deepcopy(made)(image), made(image))
    again = network(kind, ndim)
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again(image), made(image))


@pytest.mark.parametrize("ndim", [2, 3])
def test_filters_are_derivatives_of_gaussians(ndim, rng):
    size = {2: (20, 24), 3: (14, 16, 18)}[ndim]
    data = rng.normal(size=size).astype(np.float32)
    energy = ContourEnergy(ndim)
    for k, scale in enumerate(SCALES):
        orders = (1, 0) if ndim == 2 else (0, 1, 1)
        found = energy._filter(
            torch.tensor(data)[None, None], getattr(energy, f"taps{k}"), orders
        )[0, 0].numpy()
        # The same support: SciPy would cut the filter elsewhere.
        radius = (len(getattr(energy, f"taps{k}")[0]) - 1) // 2
        expected = gaussian_filter(data, scale, orders, mode="nearest", radius=radius)
        np.testing.assert_allclose(found, expected * scale ** sum(orders), atol=0.02)


def test_energy_is_that_of_the_contour_in_any_direction():
    y, x = np.mgrid[:48, :48] - 23.5
    energy, found = ContourEnergy(2), []
    for angle in np.radians([0, 30, 45, 77]):
        edge = torch.tensor((np.cos(angle) * x + np.sin(angle) * y > 0).astype(np.float32))
        at = energy(edge[None, None], (48, 48))[0, 0].numpy()
        assert at[abs(np.cos(angle) * x + np.sin(angle) * y) > 12].max() < at[22:26, 22:26].min()
        found.append(at[22:26, 22:26].mean())
    assert max(found) < 1.25 * min(found)
    assert np.allclose(np.linalg.norm(directions(3), axis=1), 1)


def test_the_table_has_the_columns_of_the_engines():
    table = gaussian_table(
        torch.tensor([[2.0, 5.0]]), torch.zeros(1, 2), torch.zeros(1), torch.zeros(1),
        torch.tensor([[4.0, -4.0]]),
    )  # fmt: skip
    logits = render_logits(table, (6, 9))
    assert np.unravel_index(int(logits[0].argmax()), (6, 9)) == (2, 5)
