"""The Lightning module of learned codecs: loss through the renderer, rate of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs._util.training import CaseBatches, StepsModule, train_steps
from napari_medgs.compression.learned.model import CodecModel
from napari_medgs.compression.learned.params import CodecParams
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering import EngineSpec, differentiable_render, make_engine, render_stack
from napari_medgs.rendering.engine import DifferentiableEngine

PARAMETER_SHARE = 0.1
"""Weight of the parameters beside the rendering; 0 and 0.1 differed by 0.1 dB."""


@dataclass
class TrainingCase:
    """A field as training reads it.

    Attributes
    ----------
    blocks : (B, block, P) tensor
        Normalized.
    count : int
    centers : (B, 3) ndarray or None
    spec : EngineSpec
    image : (C, Z, Y, X) tensor or None
        What it renders; None where parameters are learned.
    """

    blocks: Tensor
    count: int
    centers: Floats | None
    spec: EngineSpec
    image: Tensor | None


def make_case(
    field: GaussianField, blocks: Tensor, centers: Floats | None, *, rendered: bool
) -> TrainingCase:
    """Return a field as training reads it.

    Parameters
    ----------
    field : GaussianField
    blocks : (B, block, P) tensor
    centers : (B, 3) ndarray, optional
    rendered : bool
        Whether the loss is that of the rendering.
    """
    image = torch.from_numpy(np.ascontiguousarray(render_stack(field))) if rendered else None
    return TrainingCase(blocks, len(field), centers, EngineSpec.of_field(field), image)


class CodecModule(StepsModule):
    """A codec, the distribution of its latents, and its loss.

    Parameters
    ----------
    model : CodecModel
    cases : list of TrainingCase
    params : CodecParams
    """

    variance: Tensor

    def __init__(self, model: CodecModel, cases: list[TrainingCase], params: CodecParams) -> None:
        super().__init__(params.learning_rate, params.steps)
        self.model, self.cases, self.params = model, cases, params
        latents = model.card.latents
        self.middle = nn.Parameter(torch.zeros(latents))
        self.log_spread = nn.Parameter(torch.zeros(latents))
        images = [c.image for c in cases if c.image is not None]
        # Gray values and class scores are of other sizes; losses of all cohorts are of one.
        voxels = torch.cat([i.flatten(1) for i in images], 1) if images else torch.ones(1, 2)
        self.register_buffer("variance", voxels.var(1).clamp_min(1e-8)[:, None, None, None])
        self._engines: dict[Any, DifferentiableEngine] = {}

    def training_step(self, numbers: list[int], step: int) -> Tensor:
        """Return the loss of a few fields."""
        cases = [self.cases[k] for k in numbers]
        given = torch.cat([c.blocks for c in cases])
        mean, log_variance = self.model.network.encode(given)
        rate = float(self.params.rate or 0)
        if self.params.published:
            noise = torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            restored = self.model.network.decode(mean + noise)
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
            scale = rate / (given.shape[1] * given.shape[2])
            loss: Tensor = nn.functional.mse_loss(restored, given)
            return loss + scale * divergence.sum(1).mean()
        bits = self._bits(mean + torch.rand_like(mean) - 0.5)
        latents = mean + (self.model.rounded(mean) - mean).detach()
        restored = self.model.network.decode(latents)
        loss = nn.functional.mse_loss(restored, given)
        if self.params.loss == "render":
            loss = PARAMETER_SHARE * loss + self._rendered(cases, restored)
        return loss + rate * bits.mean()

    def _bits(self, latents: Tensor) -> Tensor:
        """Return bits (B, L) of latents under the logistic distributions that are learned."""
        spread = torch.exp(self.log_spread)
        upper = torch.sigmoid((latents + 0.5 - self.middle) / spread)
        lower = torch.sigmoid((latents - 0.5 - self.middle) / spread)
        return -torch.log2((upper - lower).clamp_min(1e-6))

    def _rendered(self, cases: list[TrainingCase], restored: Tensor) -> Tensor:
        """Return the mean squared error of the renderings, in variances of the cohort."""
        total, first = torch.zeros(()), 0
        for case in cases:
            blocks = restored[first : first + len(case.blocks)]
            first += len(case.blocks)
            table = self.model.tables(blocks, case.count, case.centers)
            shown = differentiable_render(self._engine(case.spec), table)
            assert case.image is not None
            total = total + ((shown - case.image) ** 2 / self.variance).mean()
        return total / len(cases)

    def _engine(self, spec: EngineSpec) -> DifferentiableEngine:
        """Return the engine of a shape and background; many fields share one."""
        key = (
            spec.shape, spec.background.tobytes(), spec.degree, spec.cutoff, spec.eps, spec.blend,
        )  # fmt: skip
        if key not in self._engines:
            if len(self._engines) >= 64:
                self._engines.clear()
            engine = make_engine(spec, "cpu")
            assert isinstance(engine, DifferentiableEngine)
            self._engines[key] = engine
        return self._engines[key]


def train_model(
    model: CodecModel,
    cases: list[TrainingCase],
    params: CodecParams,
    *,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> None:
    """Train the network of a codec in place.

    Parameters
    ----------
    model : CodecModel
    cases : list of TrainingCase
    params : CodecParams
    progress, should_stop : callable

    Raises
    ------
    Cancelled
        When stopped.
    """
    batches = CaseBatches(len(cases), params.steps, params.batch, params.seed)
    module = CodecModule(model, cases, params)
    train_steps(module, batches, progress=progress, should_stop=should_stop)
    model.eval()
