"""Leaves of quadtrees and octrees as tokens: which are made, the way in and the way back."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from napari_medgs.learning.networks.forest import _from_patches, _to_patches  # noqa: E402
from napari_medgs.learning.networks.leaves import grow_leaves, image_content  # noqa: E402
from napari_medgs.learning.networks.segmenter import build_segmenter  # noqa: E402
from napari_medgs.learning.networks.slots import SegmenterConfig  # noqa: E402
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy  # noqa: E402

SIZES = {2: (32, 48), 3: (16, 32, 16)}


def one_by_one(content: np.ndarray, sizes: tuple[int, ...], splits: int) -> set:
    """Leaves (level, cell) by splitting the cell of the most content, one after another."""
    ndim = content.ndim

    def amount(level, cell):
        edge = sizes[level]
        return content[tuple(slice(c * edge, (c + 1) * edge) for c in cell)].sum()

    queue, leaves = [], set()
    for cell in np.ndindex(*(n // sizes[0] for n in content.shape)):
        heapq.heappush(queue, (-amount(0, cell), 0, cell))
    while queue and splits:
        _, level, cell = heapq.heappop(queue)
        splits -= 1
        for corner in np.ndindex(*(2,) * ndim):
            part = tuple(2 * c + d for c, d in zip(cell, corner))
            if level + 2 < len(sizes):
                heapq.heappush(queue, (-amount(level + 1, part), level + 1, part))
            else:
                leaves.add((level + 1, part))
    return leaves | {(level, cell) for _, level, cell in queue}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), ndim=st.sampled_from([2, 3]), splits=st.integers(1, 20))
def test_leaves_are_those_of_splitting_one_cell_after_another(seed, ndim, splits):
    content = np.random.default_rng(seed).random(SIZES[ndim]) ** 8
    found = grow_leaves(torch.tensor(content)[None, None], (16, 8, 4), splits)
    ours = {
        (level, tuple(int(c) for c in cell))
        for level, mask in enumerate(found.masks())
        for cell in torch.nonzero(mask[0])
    }
    assert ours == one_by_one(content, (16, 8, 4), splits)


@pytest.mark.parametrize("content", ["nothing", "one corner", "noise"])
def test_leaves_tile_every_image_of_a_batch_with_equally_many(content):
    size = SIZES[3]
    torch.manual_seed(0)
    image = torch.zeros(3, 1, *size)
    if content == "noise":
        image = torch.rand_like(image)
    elif content == "one corner":
        image[1, 0, 0, 0, 0] = 1
    leaves = grow_leaves(image_content(image), (16, 8, 4), 5)
    covered = torch.zeros(3, *size)
    for edge, mask in zip(leaves.sizes, leaves.masks(), strict=True):
        for axis in (1, 2, 3):
            mask = mask.repeat_interleave(edge, axis)
        covered += mask
    assert (covered == 1).all()
    assert leaves.index.shape == (3, 2 + 7 * 5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_content_is_the_squared_gradient(ndim, rng):
    data = rng.normal(size=SIZES[ndim])
    found = image_content(torch.tensor(data)[None, None])[0, 0].numpy()
    expected = np.zeros_like(data)
    for axis in range(ndim):
        square = np.diff(data, axis=axis) ** 2 / 2
        for where in ((1, 0), (0, 1)):
            pad = [(0, 0)] * ndim
            pad[axis] = where
            expected += np.pad(square, pad)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_way_back_mirrors_the_way_in(ndim):
    image = torch.randn(2, 3, *SIZES[ndim])
    grid = tuple(n // 4 for n in SIZES[ndim])
    cells = _to_patches(image, 4).reshape(2, -1, 3, *(4,) * ndim)
    torch.testing.assert_close(_from_patches(cells, grid), image)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("decoder", ["trilinear", "gaussian"])
def test_it_learns_with_any_decoder_and_size(ndim, decoder):
    torch.manual_seed(0)
    config = SegmenterConfig(
        ndim=ndim, channels=2, encoder="forest", decoder=decoder, widths=(8, 8), supervision="deep"
    )
    made = build_segmenter(config, training_heads=True)
    size = tuple(n - 3 for n in SIZES[ndim])  # padded to whole cells
    target = torch.zeros(1, *size, dtype=torch.int64)
    target[(slice(None), *[slice(3, 11)] * ndim)] = 1
    image = torch.randn(1, 2, *size) * 0.1 + target[:, None]
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        levels = made.multi_scale(image)
        assert [tuple(x.shape[2:]) for x in levels] == [size, size]
        loss = sum(dice_and_cross_entropy(x, target) for x in levels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name


def test_anisotropic_strides():
    strides = ((1, 2, 2), (2, 2, 2))
    config = SegmenterConfig(ndim=3, encoder="forest", widths=(8, 8), strides=strides)
    made = build_segmenter(config)
    coarse, fine = made.encoder(torch.zeros(1, 1, 16, 16, 32))
    assert fine.shape[2:] == (16, 8, 16)
    assert coarse.shape[2:] == (8, 4, 8)
