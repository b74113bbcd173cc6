"""Moving averages of the weights of a network that trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights and buffers.

    The decay of update n is ``min(decay, (1 + n) / (10 + n))``, so that the first steps, which
    move the weights most, are soon forgotten [1]_.

    Parameters
    ----------
    network : torch.nn.Module
    decay : float
        From 0, which keeps the last weights, to below 1.

    Returns
    -------
    torch.optim.swa_utils.AveragedModel
        In evaluation mode.

    References
    ----------
    .. [1] Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural
       networks", ICML 2019, and TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    def update(averages: Any, weights: Any, count: Any) -> None:
        if not averages[0].is_floating_point():  # counters of batch normalization
            torch._foreach_copy_(averages, weights)
            return
        n = int(count)
        momentum = min(decay, (1 + n) / (10 + n)) if decay else 0.0
        torch._foreach_lerp_(averages, weights, 1 - momentum)

    average = AveragedModel(network, multi_avg_fn=torch.no_grad()(update), use_buffers=True)
    average.n_averaged.fill_(1)  # it holds the initial weights already
    return average.eval().requires_grad_(False)
