"""Masks as logits of the image's own Gaussians: rendered, at any size, learned through it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from napari_medgs.learning.networks.field import _graph, _scaled, fit_table  # noqa: E402
from napari_medgs.learning.networks.segmenter import build_segmenter  # noqa: E402
from napari_medgs.learning.networks.slots import SegmenterConfig  # noqa: E402
from napari_medgs.learning.networks.splatting import render_logits  # noqa: E402
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy  # noqa: E402

SIZES = {2: (16, 20), 3: (10, 16, 14)}


def picture(ndim: int, channels: int = 1):
    """A bright box in noise, and its mask."""
    size = SIZES[ndim]
    rng = np.random.default_rng(0)
    mask = np.zeros(size, np.int64)
    mask[tuple(slice(n // 4, n // 4 + n // 2) for n in size)] = 1
    image = rng.normal(0, 0.1, (1, channels, *size)) + mask
    return torch.tensor(image, dtype=torch.float32), torch.tensor(mask)[None]


def network(ndim: int, channels: int = 1):
    torch.manual_seed(0)
    return build_segmenter(
        SegmenterConfig(ndim=ndim, channels=channels, decoder="field", widths=(8, 8))
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_learns_a_mask_through_the_renderer(ndim):
    made, (image, mask) = network(ndim), picture(ndim)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        loss = dice_and_cross_entropy(made(image), mask)
        loss.backward()
        optimizer.step()
    for name, parameter in made.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name
    found = made(image).argmax(1)
    both = int(((found == 1) & (mask == 1)).sum())
    assert 2 * both / int((found == 1).sum() + (mask == 1).sum()) > 0.9


@pytest.mark.parametrize("ndim", [2, 3])
def test_several_contrasts_and_another_resolution(ndim):
    made, (image, _) = network(ndim, 2), picture(ndim, 2)
    with torch.no_grad():
        features = made.encoder(image)
        size = SIZES[ndim]
        once = made.decoder(features, size, image)
        finer = made.decoder(features, tuple(3 * n for n in size), image)
    assert finer.shape == (1, 2, *(3 * n for n in size))
    same = (slice(None), slice(None), *[slice(1, None, 3)] * ndim)
    # The background's weight is not scaled with the Gaussians': equal but at their very ends.
    torch.testing.assert_close(finer[same], once, atol=0.02, rtol=0.02)


def test_gaussians_are_those_of_the_image():
    image, _ = picture(3)
    table = torch.from_numpy(fit_table(image[0].numpy()))
    value = table[:, 14:]  # rendered values are the image, between its percentiles
    shown = render_logits(torch.cat([table[:, :14], value], 1), SIZES[3], 1)[0]
    correlation = np.corrcoef(shown.ravel(), image.ravel())[0, 1]
    assert correlation > 0.95
    assert fit_table(image[0].numpy()) is fit_table(image[0].numpy().copy())


def test_a_constant_image_has_an_answer():
    made = network(3)
    assert torch.isfinite(made(torch.zeros(1, 1, *SIZES[3]))).all()


def test_edges_go_to_the_nearest():
    image, _ = picture(3)
    table = torch.from_numpy(fit_table(image[0].numpy()))
    (source, target), attributes = _graph(table)
    assert len(attributes) == len(source) == 8 * len(table)
    assert (target[1:] >= target[:-1]).all()
    centers = table[:, :3]
    first = torch.cdist(centers[:1], centers)[0].topk(8, largest=False).values
    ours = (centers[source[:8]] - centers[0]).norm(dim=1).sort().values
    torch.testing.assert_close(ours, first, atol=1e-3, rtol=1e-3)


def test_geometry_of_another_grid_shows_the_same():
    image, _ = picture(2)
    table = torch.from_numpy(fit_table(image[0].numpy()))
    wanted = (5 * SIZES[2][0], 3 * SIZES[2][1])
    scaled = torch.cat([_scaled(table[:, :14], SIZES[2], wanted), table[:, 14:]], 1)
    finer = render_logits(scaled, wanted, 1)
    torch.testing.assert_close(
        finer[:, 2::5, 1::3], render_logits(table, SIZES[2], 1), atol=0.01, rtol=0.01
    )
