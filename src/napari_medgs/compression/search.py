"""The search for steps of rounding that reach a size or a quality, fine-tuning at each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.compression.attributes import AttributeCoder, StepCoder
from napari_medgs.compression.params import CompressParams, quantization_of
from napari_medgs.compression.problem import TuningTarget
from napari_medgs.compression.quality import Measured, Ruler
from napari_medgs.compression.rates import Trial, coarsest_step, step_for_bytes
from napari_medgs.compression.tuning import Tuner
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.encoding import Encoded, encode
from napari_medgs.rendering.parameters import from_parameters, to_parameters

FITTING_ROUNDS = 3


@dataclass
class TuningRun:
    """A compression under way: what stays the same from round to round.

    Attributes
    ----------
    field : GaussianField
    params : CompressParams
    target : TuningTarget
    tuner : Tuner
    ruler : Ruler
    preview : GaussianField or None
        What goes into the file as its preview.
    """

    field: GaussianField
    params: CompressParams
    target: TuningTarget
    tuner: Tuner
    ruler: Ruler
    preview: GaussianField | None

    def tuned(
        self, parameters: Floats, coder: AttributeCoder, steps: int, stage: str
    ) -> tuple[Floats, Encoded, Measured]:
        """Return the table, the file and its quality after fine-tuning to a coder."""
        table = self.tuner.run(parameters, coder, steps, stage) if steps else parameters
        background, info = self.field.background, self.field.info
        read = from_parameters(coder.rounded(table), background, info)
        measured = self.ruler.measure(read)
        note = {"profile": self.params.profile, "step": coder.step, "iterations": steps}
        record = {**self.field.info.metrics, **measured.record(), "compression": note}
        field = from_parameters(table, background, replace(info, metrics=record))
        return table, coder.encode(field, self.preview), measured


def search_steps(run: TuningRun, before: Measured) -> tuple[StepCoder, Encoded, Measured, int]:
    """Find the steps of rounding that give what the settings ask.

    Parameters
    ----------
    run : TuningRun
    before : Measured
        Quality of the field as it is.

    Returns
    -------
    StepCoder, Encoded, Measured, int
        Coder, file, its quality, and how many steps of fine-tuning it took.

    Raises
    ------
    ParameterError
        When the size or quality cannot be reached.
    """
    params, field = run.params, run.field
    if params.max_loss is not None:
        return _within_loss(run, before, params.max_loss)
    most = params.max_bytes
    if params.bits_per_voxel is not None:
        most = int(params.bits_per_voxel * np.prod(field.info.grid.shape) / 8)
    if most is not None:
        return _within_bytes(run, most)
    coder = StepCoder(field, params.quantization())
    _, encoded, after = run.tuned(to_parameters(field), coder, params.steps, "fine-tune")
    return coder, encoded, after, params.steps


def _within_loss(
    run: TuningRun, before: Measured, most: float
) -> tuple[StepCoder, Encoded, Measured, int]:
    """Return the smallest file that loses at most so many dB."""
    field, steps = run.field, run.params.steps
    if before.psnr is None:
        raise ParameterError(
            "What the field has lost against its image is not known: give the image."
        )
    best: tuple[StepCoder, Encoded, Measured] | None = None
    taken, fitted = 0, to_parameters(field)
    ways = (True,) if run.params.profile == "faithful" else (False, True)
    for all_columns in ways:
        found: dict[float, tuple[StepCoder, Encoded, Measured]] = {}
        table = fitted

        def measure(step: float, found: Any = found, all_columns: bool = all_columns) -> Trial:
            nonlocal taken, table
            coder = StepCoder(field, quantization_of(step, all_columns=all_columns))
            # A round goes on from a good one; after a bad one it begins anew.
            count = steps if table is fitted else -(-steps // 2)
            stage = f"fine-tune, step {step:.2f}"
            tuned, encoded, after = run.tuned(table, coder, count, stage)
            taken += count
            table = tuned if (before.loss(after) or 0.0) <= most else fitted
            found[step] = (coder, encoded, after)
            return Trial(step, before.loss(after) or 0.0, len(encoded.data))

        trial, _ = coarsest_step(measure, most, 1.2 if all_columns else 2.0)
        if trial is not None and (best is None or trial.size < len(best[1].data)):
            best = found[trial.step]
        # Straight folds without weights are smaller wherever they need no finer steps for it.
        if trial is not None and trial.step >= 1.3:
            break
    if best is None:
        raise ParameterError(
            f"No steps lose less than {most:g} dB after {steps} steps of fine-tuning; allow more "
            "of either, or use the profile exact."
        )
    return (*best, taken)


def _within_bytes(run: TuningRun, most: int) -> tuple[StepCoder, Encoded, Measured, int]:
    """Return the best file of at most so many bytes."""
    field, steps = run.field, run.params.steps
    all_columns = run.params.profile == "faithful"

    def size_of(step: float) -> int:
        quantization = quantization_of(step, all_columns=all_columns)
        return len(encode(field, quantization, preview=run.preview).data)

    # Fine-tuning spreads the parameters: files grow by a few percent.
    step = step_for_bytes(size_of, most, 2.0, growth=1.06 if steps else 1.02)
    taken, table = 0, to_parameters(field)
    for round_ in range(FITTING_ROUNDS):
        coder = StepCoder(field, quantization_of(step, all_columns=all_columns))
        count = steps if round_ == 0 else max(steps // 3, 1) if steps else 0
        table, encoded, after = run.tuned(table, coder, count, f"fine-tune, step {step:.2f}")
        taken += count
        if len(encoded.data) <= most:
            return coder, encoded, after, taken
        step *= 1.02 * (len(encoded.data) / most) ** 2.5
    raise ParameterError(
        f"The field cannot be compressed to {most:,} bytes: {len(encoded.data):,} were reached. "
        "Allow a little more, or fit it with fewer Gaussians."
    )
