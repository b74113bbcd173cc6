"""Compress a field: rounding, fine-tuning at the rounded values, and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_threads
from napari_medgs.compression.params import CompressParams
from napari_medgs.compression.preview import make_preview
from napari_medgs.compression.problem import make_target
from napari_medgs.compression.quality import Ruler
from napari_medgs.compression.search import TuningRun, search_steps
from napari_medgs.compression.tuning import Tuner
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.io.codec.decoding import decode
from napari_medgs.io.codec.encoding import encode
from napari_medgs.io.codec.files import explained, load_compressed, write_compressed
from napari_medgs.rendering.parameters import to_parameters


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
    preview = make_preview(field, params)
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
        run = TuningRun(field, params, target, tuner, ruler, preview)
        coder, encoded, after, steps = search_steps(run, before)
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
