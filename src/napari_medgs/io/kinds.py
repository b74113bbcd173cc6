"""What a file holds: an image or a mask."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

LABEL_NAME = re.compile(
    r"(^|[^a-z])(seg\w*|labels?|masks?|msk|lesions?|annot\w*|rois?|gt|aseg|aparc)([^a-z]|$)"
)
MOST_LABELS = 40


def as_mask(volume: Volume, name: str) -> NDArray[Any] | None:
    """Return a volume's only channel as labels if it is a mask, else None.

    A mask has integer values, and either a name that says so (seg, mask, label ..), or no more
    than 40 different values of a small integer type.

    Parameters
    ----------
    volume : Volume
    name : str
        The file's name without suffix.
    """
    from napari_medgs.errors import LabelError
    from napari_medgs.io.labels import as_labels

    if volume.channels != 1:
        return None
    data = volume.channel(0)
    named = LABEL_NAME.search(name.lower().replace("_", "-")) is not None
    if not named and not (data.dtype.kind in "iub" and data.dtype.itemsize <= 2):
        return None
    if not named and len(np.unique(data)) > MOST_LABELS:
        return None
    try:
        labels = as_labels(data)
    except LabelError:
        return None
    return labels
