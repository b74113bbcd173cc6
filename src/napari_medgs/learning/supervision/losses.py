"""Cross-entropy plus soft Dice, the loss that every kind of supervision takes of its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medgs.learning.networks.slots import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy plus one minus the mean soft Dice of the foreground classes.

    Parameters
    ----------
    logits : (B, K, ...) tensor
    target : (B, ...) tensor of int64
        :data:`~napari_medgs.learning.networks.slots.IGNORED` where no loss is taken.

    Returns
    -------
    () tensor
        Dice over all voxels of the batch, so that classes missing from a patch do no harm.

    Examples
    --------
    >>> import torch
    >>> target = torch.tensor([[0, 1, 1, -1]])
    >>> logits = 50.0 * torch.nn.functional.one_hot(target.clamp_min(0), 2).movedim(-1, 1)
    >>> round(float(dice_and_cross_entropy(logits, target)), 4)
    0.0
    """
    logits = logits.float()
    counted = target != IGNORED
    entropy = nn.functional.cross_entropy(
        logits, target, ignore_index=IGNORED, reduction="sum"
    ) / counted.sum().clamp_min(1)
    probability = logits.softmax(1) * counted[:, None]
    hot = nn.functional.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1)
    hot = hot * counted[:, None]
    axes = (0, *range(2, logits.ndim))
    shared = (probability * hot).sum(axes)[1:]
    total = (probability.sum(axes) + hot.sum(axes))[1:]
    dice = (2 * shared + 1e-5) / (total + 1e-5)
    there = hot.sum(axes)[1:] > 0
    # A class that is nowhere in the batch has Dice near 0 whatever the network says of it.
    mean = torch.where(there, dice, 0.0).sum() / there.sum().clamp_min(1)
    return entropy + torch.where(there.any(), 1 - mean, 0.0)
