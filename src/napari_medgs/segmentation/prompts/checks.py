"""Checks of prompts that need neither a field nor heavy libraries."""

from __future__ import annotations

import numpy as np

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.prompts.markers import collect_evidence
from napari_medgs.segmentation.prompts.prompts import Prompts


def check_prompts(prompts: Prompts, volume: Volume) -> None:
    """Refuse prompts that :func:`~napari_medgs.segmentation.segment` could not use.

    Raises
    ------
    GeometryError, LabelError, ParameterError
        See :class:`~napari_medgs.segmentation.Prompts`.
    """
    prompts.check(volume.shape)
    spacing = np.asarray(volume.spacing)
    collect_evidence(prompts, volume.shape, (0, 1, 2), spacing / spacing.min())
