"""Large scans by a forest: which cells are seen again, and that the answer is the full one's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from napari_medgs.errors import Cancelled  # noqa: E402
from napari_medgs.learning import refinement  # noqa: E402
from napari_medgs.learning.refinement import (  # noqa: E402
    _enlarged,
    _halved,
    choose_leaves,
    forest_probabilities,
)
from napari_medgs.learning.tiles import tiled_probabilities  # noqa: E402

SIZES = {2: (150, 170), 3: (70, 100, 66)}


@settings(deadline=None, max_examples=30)
@given(ndim=st.sampled_from([2, 3]), seed=st.integers(0, 10**6), share=st.floats(0, 0.02))
def test_every_unsure_voxel_lies_in_one_leaf(ndim, seed, share):
    size = SIZES[ndim]
    unsure = np.random.default_rng(seed).random([-(-n // 2) for n in size]) < share
    covered = np.zeros(size, int)
    for leaf in choose_leaves(unsure, size):
        covered[tuple(slice(a, b) for a, b in zip(leaf.start, leaf.stop))] += 1
    assert covered.max(initial=0) <= 1
    fine = unsure
    for axis in range(ndim):
        fine = np.repeat(fine, 2, axis)
    assert (covered[fine[tuple(slice(n) for n in size)]] == 1).all()


def test_crowded_cells_are_seen_as_a_whole():
    unsure = np.zeros((32, 32), bool)
    unsure[8, :], unsure[24, 8] = True, True  # three of the four parts
    assert choose_leaves(unsure, (64, 64)) == [refinement.Leaf((0, 0), (64, 64))]
    assert choose_leaves(np.zeros((32, 32), bool), (64, 64)) == []


class Brightness(torch.nn.Module):
    """Class 1 where the image is bright: a network that needs no training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, image):
        self.seen += image.numel()
        bright = 30 * (image - 0.5)
        return torch.cat([-bright, bright], 1)


def ball(ndim: int):
    size = SIZES[ndim]
    grid = np.stack(np.meshgrid(*[np.arange(n) - n / 3 for n in size], indexing="ij"))
    far = np.sqrt((grid**2).sum(0))
    return (1 / (1 + np.exp((far - 14) / 1.5))).astype(np.float32)[None]


def whole(slabs):
    parts, place = [], 0
    for first, last, found in slabs:
        assert first == place
        place = last
        parts.append(found)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mask_is_that_of_the_whole_image_for_less(ndim, monkeypatch):
    monkeypatch.setattr(refinement, "LEAST_VOXELS", 0)
    image, tile = ball(ndim), (64,) * ndim
    network = Brightness()
    found = whole(forest_probabilities(network, image, tile))
    seen, network.seen = network.seen, 0
    expected = whole(tiled_probabilities(network, image, tile))
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.argmax(0), expected.argmax(0))
    assert np.abs(found - expected).max() < 0.25  # where the coarse answer was good enough
    assert seen < 0.75 * network.seen


def test_neighbors_are_seen_together():
    unsure = np.zeros((32, 96), bool)
    unsure[4, :] = True
    leaves = choose_leaves(unsure, (64, 192))
    assert leaves == [refinement.Leaf((0, 0), (32, 128)), refinement.Leaf((0, 128), (32, 192))]


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_unsure_everywhere_is_seen_once_in_tiles(ndim, monkeypatch):
    monkeypatch.setattr(refinement, "LEAST_VOXELS", 0)
    image = np.full((1, *SIZES[ndim]), 0.5, np.float32)
    network, tile = Brightness(), (64,) * ndim
    found = whole(forest_probabilities(network, image, tile))
    seen, network.seen = network.seen, 0
    np.testing.assert_array_equal(found, whole(tiled_probabilities(network, image, tile)))
    coarse = np.prod([-(-n // 2) for n in SIZES[ndim]])
    assert seen < network.seen + 2 * coarse


def test_small_images_are_seen_in_full():
    image, network = ball(3), Brightness()
    found = whole(forest_probabilities(network, image, (64, 64, 64)))
    np.testing.assert_array_equal(found, whole(tiled_probabilities(network, image, (64, 64, 64))))


def test_it_can_be_stopped_while_cells_are_seen_again(monkeypatch):
    monkeypatch.setattr(refinement, "LEAST_VOXELS", 0)
    reports = []

    def progress(done: int, total: int) -> None:
        reports.append((done, total))

    image = ball(3)
    image[:, :, 50:] = 1  # a plane through many cells
    slabs = forest_probabilities(
        Brightness(), image, (64, 64, 64), should_stop=lambda: len(reports) > 1,
        progress=progress,
    )  # fmt: skip
    with pytest.raises(Cancelled):
        list(slabs)
    assert reports[0][0] == 1
    assert reports[0][1] >= 2


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (5, 6, 7)])
def test_halves_are_means_and_grow_back(size, rng):
    image = rng.random((2, *size)).astype(np.float32)
    small = _halved(image)
    assert small.shape[1:] == tuple(-(-n // 2) for n in size)
    corner = image[(slice(None), *[slice(2)] * len(size))]
    first = small[(slice(None), *[0] * len(size))]
    np.testing.assert_allclose(first, corner.reshape(2, -1).mean(1), rtol=1e-5)
    ramp = np.broadcast_to(np.arange(size[-1], dtype=np.float32), (1, *size)).copy()
    back = _enlarged(_halved(ramp), 1, size[0], size)
    assert back.shape == (1, size[0] - 1, *size[1:])
    np.testing.assert_allclose(back[..., 1:-2], ramp[:, 1:][..., 1:-2], atol=1e-3)
