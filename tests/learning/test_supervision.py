"""Supervision of several levels: what is mixed, what is learned, what is left at inference."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from napari_medgs.learning.networks.segmenter import build_segmenter  # noqa: E402
from napari_medgs.learning.networks.slots import IGNORED, SegmenterConfig  # noqa: E402
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy  # noqa: E402
from napari_medgs.learning.supervision.registry import build_supervision  # noqa: E402

SIZES = {2: (13, 18), 3: (10, 13, 9)}


def make(kind: str, ndim: int, widths=(4, 6, 8)):
    torch.manual_seed(0)
    config = SegmenterConfig(ndim=ndim, classes=3, supervision=kind, widths=widths)
    image = torch.randn(2, 1, *SIZES[ndim])
    target = torch.randint(0, 3, (2, *SIZES[ndim]))
    return build_segmenter(config, training_heads=True), build_supervision(config), image, target


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", ["deep", "lomix"])
def test_every_level_and_every_weight_learns(kind, ndim):
    network, supervision, image, target = make(kind, ndim)
    logits = network.multi_scale(image)
    assert len(logits) == 3
    supervision(logits, target).backward()
    for part in (network, supervision):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", ["deep", "lomix"])
def test_nothing_of_it_is_left_at_inference(kind):
    network, _, image, _ = make(kind, 3)
    plain = build_segmenter(network.config)
    assert not any("side_heads" in name for name in plain.state_dict())
    plain.load_state_dict(network.state_dict(), strict=False)
    torch.testing.assert_close(plain(image), network.multi_scale(image)[-1])


def test_deep_supervision_halves_the_weight_of_each_coarser_level():
    _, supervision, _, target = make("deep", 2)
    levels = [torch.randn(2, 3, *SIZES[2]) for _ in range(3)]
    coarse, middle, fine = (dice_and_cross_entropy(x, target) for x in levels)
    expected = (4 * fine + 2 * middle + coarse) / 7
    torch.testing.assert_close(supervision(levels, target), expected)


def test_mixtures_of_every_subset():
    _, supervision, _, _ = make("lomix", 2)
    a, b, c = (torch.randn(1, 3, 4, 4) for _ in range(3))
    mixed = supervision.mixtures([a, b, c])
    assert len(mixed) == 4 * 4  # ab, ac, bc, abc
    torch.testing.assert_close(mixed[0], a + b)
    torch.testing.assert_close(mixed[1], a * b)
    # Linear layers start as means.
    torch.testing.assert_close(mixed[2], (a + b) / 2)
    torch.testing.assert_close(mixed[3], (a + b) / 2)
    torch.testing.assert_close(mixed[-4], a + b + c)
    torch.testing.assert_close(mixed[-3], a * b * c)
    assert len(supervision.weight) == 3 + 16


def test_linear_layers_of_mixtures_are_parameters():
    _, supervision, _, _ = make("lomix", 3)
    names = {name.split(".")[0] for name, _ in supervision.named_parameters()}
    assert names == {"joined", "attention", "weight"}
    assert len(supervision.joined) == len(supervision.attention) == 4


def test_weights_follow_the_losses_and_do_not_vanish():
    """Of two levels, one right and one wrong, the right one's weight becomes the larger one."""
    torch.manual_seed(0)
    config = SegmenterConfig(ndim=2, classes=2, supervision="lomix", widths=(4, 4))
    supervision = build_supervision(config)
    target = torch.randint(0, 2, (1, 8, 8))
    hot = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float()
    levels = [torch.randn(1, 2, 8, 8), 3 * hot]
    optimizer = torch.optim.Adam([supervision.weight], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        supervision(levels, target).backward()
        optimizer.step()
    wrong, right = torch.nn.functional.softplus(supervision.weight[:2]).tolist()
    expected = [1 / float(dice_and_cross_entropy(x, target)) for x in levels]
    assert right > 2 * wrong
    assert wrong == pytest.approx(expected[0], rel=0.05)


@pytest.mark.parametrize("kind", ["deep", "lomix"])
def test_voxels_without_a_label_count_for_nothing(kind):
    _, supervision, _, target = make(kind, 2)
    levels = [torch.randn(2, 3, *SIZES[2]) for _ in range(3)]
    target[:, :, 10:] = IGNORED
    other = [x.clone() for x in levels]
    for x in other:
        x[..., 10:] = 7.0
    torch.manual_seed(1)
    expected = supervision(levels, target)
    torch.manual_seed(1)
    torch.testing.assert_close(supervision(other, target), expected)


def test_one_level_alone():
    network, supervision, image, target = make("lomix", 2, widths=(4,))
    assert torch.isfinite(supervision(network.multi_scale(image), target))
