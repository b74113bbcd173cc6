"""Which numbers a network is trained with: measured, as it depends on the processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from napari_medgs.learning.networks.segmenter import SegmenterNetwork

GAIN = 0.85
"""bfloat16 is used where a step takes less than this part of the time."""


def choose_precision(
    network: SegmenterNetwork, supervision: nn.Module, batch: Any, device: str, heads: bool
) -> str:
    """Return Lightning's name of the faster precision.

    On processors without instructions for bfloat16 a step takes up to 12 times as long in it.

    Parameters
    ----------
    network : SegmenterNetwork
    supervision : torch.nn.Module
    batch : (image, target)
        A batch of patches.
    device : {"cpu", "cuda"}
    heads : bool
        Whether the supervision reads logits of all levels.

    Returns
    -------
    {"32-true", "bf16-mixed", "16-mixed"}
    """
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    image, target = batch

    def seconds(mixed: bool) -> float:
        started = time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = supervision(network.multi_scale(image, heads), target)
        torch.autograd.backward(loss)
        network.zero_grad(set_to_none=True)
        supervision.zero_grad(set_to_none=True)
        ended = time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
        return ended - started

    seconds(False)  # memory is allocated
    plain = min(seconds(False) for _ in range(2))
    mixed = seconds(True)
    if mixed < 2 * plain:
        mixed = min(mixed, seconds(True))
    return "bf16-mixed" if mixed < GAIN * plain else "32-true"
