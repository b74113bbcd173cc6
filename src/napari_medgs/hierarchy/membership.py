"""Masks of parts: memberships of Gaussians, blended by the renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering import score_renderer

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField

TOGETHER = 4  # parts that are rendered at once; a kernel is compiled for this number


class MembershipRenderer:
    """Renders which share of the blend belongs to chosen leaves.

    Where no Gaussian reaches, the cell decides.

    Parameters
    ----------
    field : GaussianField
    cells : (Z, Y, X) ndarray of int32
        The leaf of every voxel.
    gaussian_leaf : (N,) ndarray of int32
        The leaf of every Gaussian.
    """

    def __init__(
        self,
        field: GaussianField,
        cells: NDArray[np.int32],
        gaussian_leaf: NDArray[np.int32],
    ) -> None:
        self.field, self._leaf = field, gaussian_leaf
        self._axes = field.info.stack_axes
        self._cells = np.transpose(cells, self._axes)
        self._scores = score_renderer(field)
        # A Gaussian is zero beyond these slices, however it folds.
        reach = np.sqrt(field.info.cutoff) * np.exp(-field.log_precision[:, 2].astype(np.float64))
        middle = field.centers[:, 2].astype(np.float64)
        self._first, self._last = np.ceil(middle - reach), np.floor(middle + reach)

    def _chosen(self, leaves: NDArray[np.bool_]) -> tuple[Floats, int, int]:
        """Return memberships (N, 1), and the first and one past the last slice with any."""
        member = leaves[self._leaf]
        if not member.any():
            return np.zeros((len(member), 1), np.float32), 0, 0
        first = max(int(self._first[member].min()), 0)
        last = min(int(self._last[member].max()) + 1, self._scores.shape[0])
        return member.astype(np.float32)[:, None], first, last

    def _fill_empty(
        self, plane: Floats, empty: NDArray[np.bool_], leaves: NDArray[np.bool_], at: Any
    ) -> None:
        if empty.any():
            plane[empty] = leaves[self._cells[at][empty]]

    def plane(self, leaves: NDArray[np.bool_], axis: int, index: int) -> Floats:
        """Return the shares in one plane across an axis of the canonical grid."""
        along = self._axes.index(axis)
        scores = leaves[self._leaf].astype(np.float32)[:, None]
        shares, empty = self._scores.render_plane(scores, along, index)
        plane = shares[0]
        self._fill_empty(plane, empty, leaves, (*(slice(None),) * along, index))
        rest = [a for a in self._axes if a != axis]
        return plane if rest[0] < rest[1] else np.ascontiguousarray(plane.T)

    def volume(self, leaves: NDArray[np.bool_]) -> Floats:
        """Return the shares everywhere, (Z, Y, X) on the canonical grid."""
        scores, first, last = self._chosen(leaves)
        out = np.zeros(self._scores.shape, np.float32)

        def task(z: int) -> None:
            if first <= z < last:
                shares, empty = self._scores.render_plane(scores, 0, z)
                out[z] = shares[0]
                self._fill_empty(out[z], empty, leaves, z)
            else:  # no member reaches here, but empty space may belong to the part
                out[z] = leaves[self._cells[z]]

        run_chunks(task, len(out))
        return np.ascontiguousarray(np.moveaxis(out, 0, self._axes[0]))

    def labels(self, leaf_part: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        """Return the part with the largest share at every voxel, (Z, Y, X).

        Parameters
        ----------
        leaf_part : (L,) ndarray of int32
            Part of every leaf, from 0.
        count : int
            Number of parts.
        """
        part = leaf_part[self._leaf]
        best = np.zeros(self._scores.shape, np.float32)
        out = np.zeros(self._scores.shape, np.int32)
        for first in range(0, count, TOGETHER):
            scores = (part[:, None] == np.arange(first, first + TOGETHER)).astype(np.float32)

            def task(z: int, scores: Floats = scores, first: int = first) -> None:
                shares, empty = self._scores.render_plane(scores, 0, z)
                for k in range(min(TOGETHER, count - first)):
                    larger = shares[k] > best[z]
                    best[z][larger], out[z][larger] = shares[k][larger], first + k
                out[z][empty] = leaf_part[self._cells[z][empty]]

            run_chunks(task, len(out))
        return np.ascontiguousarray(np.moveaxis(out, 0, self._axes[0]))
