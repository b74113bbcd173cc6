"""Compress a field: rounding, fine-tuning at the rounded values, and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_threads
from napari_medgs.compression.attributes import AttributeCoder, StepCoder
from napari_medgs.compression.params import CompressParams, quantization_of
from napari_medgs.compression.problem import TuningTarget, make_target
from napari_medgs.compression.quality import Measured, Ruler
from napari_medgs.compression.rates import Trial, coarsest_step, step_for_bytes
from napari_medgs.compression.tuning import Tuner
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.io.codec.decoding import decode
from napari_medgs.io.codec.encoding import Encoded, encode
from napari_medgs.io.codec.files import explained, load_compressed, write_compressed
from napari_medgs.rendering.parameters import from_parameters, to_parameters

FEWEST_PREVIEW = 50
_PREVIEW_STEPS = 60
_FITTING_ROUNDS = 3


@dataclass
class CompressResult:
    """What a compression returns.

    Attributes
    ----------
    field : GaussianField
        What a reader of the file gets.
    data : bytes
        The file, as :meth:`save` writes it.
    metrics : dict
        psnr and ssim (and dice, where there are classes) before and after, loss in dB, bytes,
        bytes_exact, ratio, bytes_per_gaussian, bits_per_voxel, bytes_of by kind of parameter,
        step, iterations, seconds. JSON-able.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> result = mg.compress(field, volume=volume)
    >>> len(result.data) == result.metrics["bytes"], len(result.field) == len(field)
    (True, True)
    """

    field: GaussianField
    data: bytes
    metrics: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write the file.

        Parameters
        ----------
        path : str or Path
            Ends in ``.medgs``.

        Returns
        -------
        Path

        Raises
        ------
        FileError
            When the name has another suffix or the folder cannot be written.
        """
        return write_compressed(path, self.data)


@dataclass
class _Run:
    """A compression under way: what stays the same from round to round."""

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


def compress(
    field: GaussianField,
    params: CompressParams | None = None,
    volume: Volume | None = None,
    mask: NDArray[Any] | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> CompressResult:
    """Make a field a tenth of its size.

    Parameters
    ----------
    field : GaussianField
    params : CompressParams, optional
    volume : Volume, optional
        The image that was fitted. Fine-tuning then works towards it, which is 0.5 to 1.2 dB
        better than towards the field's own rendering.
    mask : (Z, Y, X) ndarray of int, optional
        The mask that was fitted.
    progress, should_stop : callable, optional
        Receive :class:`~napari_medgs._util.progress.ProgressEvent`; return True to cancel.

    Returns
    -------
    CompressResult

    Raises
    ------
    MedGSError
        When image or mask are not the field's, or the size or quality cannot be reached;
        ``Cancelled`` when canceled.

    Notes
    -----
    Parameters are rounded to steps of equal loss per bit and coded by an adaptive range coder
    [1]_ with mixed contexts. What makes them small is fine-tuning: Adam moves all parameters
    while the rounded ones are rendered, with the gradient passed straight through [2]_.

    References
    ----------
    .. [1] G. N. N. Martin, "Range encoding: an algorithm for removing redundancy from a digitised
       message", Video & Data Recording Conference 1979.
    .. [2] Y. Bengio, N. Leonard and A. Courville, "Estimating or propagating gradients through
       stochastic neurons for conditional computation", arXiv:1308.3432 (2013).

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=20)).field
    >>> mg.compress(field, volume=volume).metrics["ratio"] > 1
    True
    """
    params = params or CompressParams()
    with limit_threads(params.threads):
        return _compress(field, params, volume, mask, progress, should_stop)


def _compress(
    field: GaussianField,
    params: CompressParams,
    volume: Volume | None,
    mask: NDArray[Any] | None,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> CompressResult:
    started = time.perf_counter()
    if not len(field):
        raise ParameterError("The field has no Gaussians: there is nothing to compress.")
    progress(ProgressEvent("measure", 0, 1, 0.0, None, len(field)))
    target = make_target(field, volume, mask, params.threads)
    ruler = Ruler(field, volume, mask, params.threads)
    before = ruler.measure(field)
    if should_stop():
        raise Cancelled("The compression was canceled; nothing was written.")
    preview = _preview(field, params)
    if params.profile == "exact":
        encoded = encode(field, exact=True, preview=preview)
        after, chosen, steps = before, 0.0, 0
    else:
        tuner = Tuner(
            to_parameters(field),
            target,
            backend=params.backend,
            threads=params.threads,
            progress=progress,
            should_stop=should_stop,
        )
        run = _Run(field, params, target, tuner, ruler, preview)
        coder, encoded, after, steps = _search(run, before)
        chosen = coder.step
    progress(ProgressEvent("done", 1, 1, time.perf_counter() - started, after.psnr, len(field)))
    voxels = int(np.prod(field.info.grid.shape))
    metrics: dict[str, Any] = {
        "profile": params.profile,
        "step": chosen,
        "iterations": steps,
        "tuned_to": "image" if volume is not None else "rendering",
        **{f"{name}_before": value for name, value in before.record().items()},
        **after.record(),
        "loss": before.loss(after),
        "gaussians": len(field),
        "bytes": len(encoded.data),
        "bytes_exact": field.nbytes,
        "ratio": field.nbytes / len(encoded.data),
        "bytes_per_gaussian": len(encoded.data) / len(field),
        "bits_per_voxel": 8 * len(encoded.data) / voxels,
        "bytes_of": encoded.parts,
        "seconds": time.perf_counter() - started,
    }
    return CompressResult(encoded.field, encoded.data, metrics)


def _search(run: _Run, before: Measured) -> tuple[StepCoder, Encoded, Measured, int]:
    """Return coder, file, quality and steps taken for what the settings ask."""
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
    run: _Run, before: Measured, most: float
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


def _within_bytes(run: _Run, most: int) -> tuple[StepCoder, Encoded, Measured, int]:
    """Return the best file of at most so many bytes."""
    field, steps = run.field, run.params.steps
    all_columns = run.params.profile == "faithful"

    def size_of(step: float) -> int:
        quantization = quantization_of(step, all_columns=all_columns)
        return len(encode(field, quantization, preview=run.preview).data)

    # Fine-tuning spreads the parameters: files grow by a few percent.
    step = step_for_bytes(size_of, most, 2.0, growth=1.06 if steps else 1.02)
    taken, table = 0, to_parameters(field)
    for round_ in range(_FITTING_ROUNDS):
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


def _preview(field: GaussianField, params: CompressParams) -> GaussianField | None:
    """Return a field of few Gaussians that looks like the field, if one is wanted."""
    if not params.preview:
        return None
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.rendering import render

    info = field.info
    if not info.image_channels:
        raise ParameterError("A field without an image has no preview: leave it out.")
    count = max(int(len(field) * params.preview), FEWEST_PREVIEW)
    volume = Volume(
        render(field, threads=params.threads), info.grid, channel_names=info.image_channels
    )
    labels = None
    if info.class_names:
        from napari_medgs.rendering import render_labels

        labels = render_labels(field, threads=params.threads)
        if not labels.any():
            labels = None
    wanted = FitParams(
        gaussians=count,
        iterations=_PREVIEW_STEPS,
        slice_axis=info.slice_axis,
        blend=info.blend,
        fold=min(1, info.degree),
        cutoff=info.cutoff,
        interpolate=False,
        threads=params.threads,
        backend=params.backend,
    )
    small = fit(volume, wanted, labels).field
    return _on_scale(small, field)


def _on_scale(small: GaussianField, field: GaussianField) -> GaussianField:
    """Return a preview with the field's scale of intensities, and all of its classes."""
    info, own = field.info, small.info
    values = np.zeros((len(small), info.channels), np.float32)
    for c in range(len(info.image_channels)):
        gain = own.intensity_scale[c] / info.intensity_scale[c]
        shift = (own.intensity_offset[c] - info.intensity_offset[c]) / info.intensity_scale[c]
        values[:, c] = small.values[:, c] * gain + shift
    images = len(info.image_channels)
    for k, value in enumerate(info.label_values):
        if value in own.label_values:
            values[:, images + k] = small.values[:, images + own.label_values.index(value)]
        elif k:
            values[:, images + k] = values[:, images] - 20  # a class that is nowhere
    return GaussianField(
        centers=small.centers,
        log_precision=small.log_precision,
        shear=small.shear,
        fold=small.fold,
        log_weight=small.log_weight,
        values=values,
        background=field.background,
        info=replace(info, degree=own.degree),
    )


def decompress(data: bytes | str | Path) -> GaussianField:
    """Return the field of a compressed file.

    Parameters
    ----------
    data : bytes, str or Path
        Of :func:`compress`, or the path of a file.

    Returns
    -------
    GaussianField

    Raises
    ------
    FileError, FormatVersionError
        When it is damaged, no compressed field, or of another version.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> small = mg.compress(field, volume=volume)
    >>> bool((mg.decompress(small.data).centers == small.field.centers).all())
    True
    """
    if isinstance(data, bytes):
        with explained("the data"):
            return decode(data)
    return load_compressed(data)
