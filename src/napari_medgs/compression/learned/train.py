"""Train a learned codec on a cohort of fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_medgs._optional import require
from napari_medgs._util.progress import (
    ProgressCallback,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.compression.learned.params import CodecParams
from napari_medgs.data.field import GaussianField

if TYPE_CHECKING:
    from napari_medgs.compression.learned.codec import Codec


def train_codec(
    fields: Sequence[GaussianField],
    params: CodecParams | None = None,
    *,
    start: GaussianField | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Codec:
    """Train a codec on fields that are alike.

    Every fifth field is kept out of the training, and measures it.

    Parameters
    ----------
    fields : sequence of GaussianField
        At least 4, with the same channels.
    params : CodecParams, optional
    start : GaussianField, optional
        From which all were fitted, see :func:`~napari_medgs.compression.learned.fit_alike`: their
        Gaussians then have one order. Otherwise they are sorted by Morton codes.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    Codec

    Raises
    ------
    ParameterError
        When there are too few fields or they differ in kind.
    Cancelled
        When canceled.
    MissingPackageError
        When torch or Lightning are not installed.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] J. Balle, V. Laparra and E. P. Simoncelli, "End-to-end optimized image compression",
       ICLR 2017: noise in place of rounding, and a learned distribution.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression.learned import CodecParams, fit_alike, mean_field
    >>> disks = np.hypot(*np.mgrid[-8:8, -8:8]) < np.arange(3, 8)[:, None, None]
    >>> volumes = [mg.Volume.from_array(d[None].astype(np.float32)) for d in disks]
    >>> start = mean_field(volumes, 16, 5)
    >>> fields = fit_alike(volumes, start, 5)
    >>> codec = train_codec(fields, CodecParams(steps=2, block=16), start=start)
    >>> codec.features(fields).shape
    (5, 32)
    """
    require("torch", "lightning", feature="train-codec")
    from napari_medgs.compression.learned.run import run_training

    return run_training(fields, params or CodecParams(), start, progress, should_stop)
