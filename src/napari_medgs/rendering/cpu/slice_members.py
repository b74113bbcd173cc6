"""A field's Gaussians as the kernels read them, listed by the slices that they reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.cpu.kernels import HALF_LOG2E, list_slices, prepare
from napari_medgs.rendering.parameters import check_finite, to_parameters


@dataclass(frozen=True)
class SliceMembers:
    """Prepared Gaussians and those of every slice.

    Attributes
    ----------
    prepared : (N, 16) ndarray of float32
    log2_cutoff : float32
    offsets : (D + 1,) ndarray of int64
        The Gaussians of slice z are ``members[offsets[z] : offsets[z + 1]]``.
    members : (M,) ndarray of int32
    """

    prepared: Floats
    log2_cutoff: np.float32
    offsets: NDArray[np.int64]
    members: NDArray[np.int32]

    @classmethod
    def of_field(cls, field: GaussianField) -> SliceMembers:
        """Prepare a field.

        Parameters
        ----------
        field : GaussianField
        """
        info, depth = field.info, field.info.stack_shape[0]
        parameters = to_parameters(field)
        prepared = np.empty((len(parameters), 16), np.float32)
        check_finite(parameters)
        prepare(parameters, info.degree, prepared, 0, len(parameters))
        log2_cutoff = np.float32(np.float32(info.cutoff) * HALF_LOG2E)
        offsets = np.zeros(depth + 1, np.int64)
        arguments = (prepared, log2_cutoff, np.ones(depth, np.bool_), offsets)
        members = np.empty(int(list_slices(*arguments, np.zeros(0, np.int32))), np.int32)
        list_slices(*arguments, members)
        return cls(prepared, log2_cutoff, offsets, members)
