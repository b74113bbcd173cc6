"""A fingerprint of a field, by which a tree tells its own field from others."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField

GEOMETRY = ("centers", "log_precision", "shear", "fold", "log_weight")


def field_digest(field: GaussianField) -> str:
    """Return a hash of where a field's Gaussians lie and how they are shaped.

    Values and names do not count: masks and cells do not depend on them.

    Parameters
    ----------
    field : GaussianField

    Returns
    -------
    str
        32 hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import field_digest
    >>> image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    >>> params = mg.FitParams(gaussians=20, iterations=2, backend="cpu")
    >>> field = mg.fit(mg.Volume.from_array(image), params).field
    >>> field_digest(field) == field_digest(field.copy())
    True
    >>> field_digest(field) == field_digest(field.subset(np.arange(len(field))[::-1]))
    False
    """
    info = field.info
    digest = hashlib.blake2b(digest_size=16)
    digest.update(
        repr((info.grid.shape, info.slice_axis, info.degree, float(info.cutoff))).encode()
    )
    for name in GEOMETRY:
        digest.update(np.ascontiguousarray(getattr(field, name), "<f4").tobytes())
    return digest.hexdigest()
