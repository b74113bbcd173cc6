"""MONAI's networks with MONAI's loss, on the same cases, patches and augmentation."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

RATE = 1e-3
BATCH = 2
MULTIPLE = 16
"""Sizes that both networks take are multiples of it."""
MOST_STEPS = 1_000_000


def make_network(kind: str, channels: int, classes: int) -> Any:
    """Return a network of MONAI with its own default sizes, for images of any size."""
    import torch
    from monai.networks import nets
    from torch import nn

    if kind == "BasicUNet":
        inner = nets.BasicUNet(3, channels, classes)
    else:
        inner = nets.SegResNet(3, in_channels=channels, out_channels=classes)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            size = image.shape[2:]
            padding = [side for n in reversed(size) for side in (0, -n % MULTIPLE)]
            logits = self.inner(nn.functional.pad(image, padding, mode="replicate"))
            return logits[(slice(None), slice(None), *(slice(n) for n in size))]

    return Padded()


def train_monai(
    kind: str, source: Any, seconds: float, steps: int, seed: int, accelerator: str
) -> tuple[Any, dict[str, float]]:
    """Train a network of MONAI; return it as a segmenter, with its steps and seconds.

    Dice plus cross-entropy of MONAI, AdamW at 1e-3 with a cosine over the time, bfloat16 where
    a step is faster in it.
    """
    import torch
    from monai.losses import DiceCELoss

    from napari_medgs.learning import LearnParams, Segmenter
    from napari_medgs.learning.data.patches import Augmentation, PatchDataset
    from napari_medgs.learning.data.prepare import plan_sizes, prepare_case
    from napari_medgs.learning.networks.slots import IGNORED
    from napari_medgs.learning.training.cards import make_card
    from napari_medgs.learning.training.train import look_at_cases

    started = time.perf_counter()
    torch.manual_seed(seed)
    checked = look_at_cases(source)
    card = make_card(checked, LearnParams(), plan_sizes(checked.facts, accelerator))
    network = make_network(kind, len(card.scales), card.network.classes).to(accelerator)
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            prepare_case(one, card, Path(folder), k, seed) for k, one in enumerate(checked.facts)
        ]
        data = PatchDataset(
            cases, card.patch, card.spacing, card.network.classes,
            (steps or MOST_STEPS) * BATCH, Augmentation(), seed * 1000,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-5)
        criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
        done, mixed = 0, None
        for image, target in torch.utils.data.DataLoader(data, BATCH):
            spent = time.perf_counter() - started
            part = done / steps if steps else spent / seconds
            if part >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * part))
            # The loss knows no voxels without a label; here these are borders, background.
            target = torch.where(target == IGNORED, 0, target)[:, None].to(accelerator)

            def backward(image: Any, target: Any, mixed: bool) -> float:
                begun = time.perf_counter()
                optimizer.zero_grad()
                with torch.autocast(accelerator, torch.bfloat16, enabled=mixed):
                    logits = network(image)
                criterion(logits.float(), target).backward()
                return time.perf_counter() - begun

            image = image.to(accelerator)
            if mixed is None:
                tried = [min(backward(image, target, m) for _ in range(2)) for m in (False, True)]
                mixed = tried[1] < tried[0]
            backward(image, target, mixed)
            optimizer.step()
            done += 1
    numbers = {"steps": float(done), "seconds": time.perf_counter() - started}
    return Segmenter(card, [network]), numbers
