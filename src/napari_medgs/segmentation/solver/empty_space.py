"""Scores where a field renders nothing: those of nodes that stand in for Gaussians there.

A field leaves out what has its background's intensity. Mostly that is air around the body, but it
may be what is to be segmented: saturated bone, the lungs in a CT cut to a window, the holes of a
binary image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.engine import Backprojection, ScoreRenderer


class EmptySpaceNodes:
    """Evenly spread points of empty space.

    Parameters
    ----------
    empty : (Z, Y, X) ndarray of bool
        Where nothing is rendered.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    most : int
        About so many at most.

    Attributes
    ----------
    points : (E, 3) ndarray
        (z, y, x) in voxels.
    """

    def __init__(
        self, empty: NDArray[np.bool_], relative_spacing: NDArray[np.float64], most: int
    ) -> None:
        self._empty, self._spacing = empty, relative_spacing
        self._strides = np.ones(3, int)
        self._tree: Any = None
        self.points = np.zeros((0, 3))
        count = int(np.count_nonzero(empty))
        if count:
            step = (count * float(np.prod(relative_spacing)) / most) ** (1 / 3)
            strides = np.maximum(1, np.round(np.maximum(step, 3.0) / relative_spacing))
            # Not wider than the image: a single slice has nodes, too.
            self._strides = np.minimum(strides.astype(int), empty.shape)
            self.points = np.argwhere(self._on_lattice) * self._strides + self._strides // 2.0

    def __len__(self) -> int:
        return len(self.points)

    @property
    def _on_lattice(self) -> NDArray[np.bool_]:
        part: NDArray[np.bool_] = self._empty[tuple(slice(s // 2, None, s) for s in self._strides)]
        return part

    def nearest(self, voxels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the index of the point nearest to each voxel (P, 3)."""
        from scipy.spatial import cKDTree

        if self._tree is None:
            self._tree = cKDTree(self.points * self._spacing)
        near: NDArray[np.int64] = self._tree.query(voxels * self._spacing)[1]
        return near

    def of_voxels(self) -> NDArray[np.int32]:
        """Return the index of a near point for every voxel of empty space, -1 elsewhere."""
        lattice = self._on_lattice
        cells = np.full(lattice.shape, -1, np.int32)
        cells[lattice] = np.arange(len(self.points), dtype=np.int32)
        out = np.full(self._empty.shape, -1, np.int32)
        rows, columns = (
            np.minimum(np.arange(out.shape[a]) // self._strides[a], cells.shape[a] - 1)
            for a in (1, 2)
        )

        def task(z: int) -> None:
            plane = cells[min(z // self._strides[0], len(cells) - 1)]
            mine = self._empty[z]
            out[z][mine] = plane[np.ix_(rows, columns)][mine]
            far = np.argwhere(mine & (out[z] < 0))  # in cells with a Gaussian in the middle
            if len(far):
                voxels = np.column_stack([np.full(len(far), z), far])
                out[z][tuple(far.T)] = self.nearest(voxels)

        self.nearest(np.zeros((0, 3)))  # makes the tree before threads need it
        run_chunks(task, len(out))
        return out


class FilledRenderer:
    """Renders scores of Gaussians, and those of points of empty space where there are none.

    Scores are those of the Gaussians, then those of the points; see :class:`ScoreRenderer`.

    Parameters
    ----------
    inner : ScoreRenderer
        Of the Gaussians.
    gaussians : int
    nodes : EmptySpaceNodes
    """

    def __init__(self, inner: ScoreRenderer, gaussians: int, nodes: EmptySpaceNodes) -> None:
        self._inner, self._gaussians = inner, gaussians
        self._nearest = nodes.of_voxels()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return self._inner.shape

    def argmax(
        self,
        scores: Floats,
        labels: NDArray[np.uint8],
        best: Floats,
        margin: Floats,
        windows: NDArray[np.int32] | None = None,
    ) -> None:
        """Fill labels, best score and margin; see :meth:`ScoreRenderer.argmax`."""
        self._inner.argmax(scores[: self._gaussians], labels, best, margin, windows)
        own = scores[self._gaussians :]
        order = np.sort(own, axis=1)
        label = own.argmax(axis=1).astype(np.uint8)
        lead = order[:, -1] - order[:, -2]

        def task(z: int) -> None:
            part = np.s_[:, :]
            if windows is not None:
                (y0, y1), (x0, x1) = windows[z]
                if y0 >= y1 or x0 >= x1:
                    return
                part = np.s_[y0:y1, x0:x1]
            near = self._nearest[z][part]
            here = near >= 0
            index = near[here]
            labels[z][part][here] = label[index]
            best[z][part][here] = order[index, -1]
            margin[z][part][here] = lead[index]

        run_chunks(task, len(labels))

    def windows(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return rows and columns that are reached; see :meth:`ScoreRenderer.windows`."""
        out = self._inner.windows(chosen[: self._gaussians])
        own = chosen[self._gaussians :]
        if not own.any():
            return out
        table = np.append(own, False)  # the last one for -1

        def task(z: int) -> None:
            reached = table[self._nearest[z]]
            if not reached.any():
                return
            for axis in range(2):
                found = np.flatnonzero(reached.any(axis=1 - axis))
                low, high = int(found[0]), int(found[-1]) + 1
                if out[z, axis, 0] < out[z, axis, 1]:
                    low, high = min(low, out[z, axis, 0]), max(high, out[z, axis, 1])
                out[z, axis] = low, high

        run_chunks(task, len(out))
        return out

    def render_plane(
        self, scores: Floats, axis: int, index: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Render scores in a plane; see :meth:`ScoreRenderer.render_plane`."""
        rendered, _ = self._inner.render_plane(scores[: self._gaussians], axis, index)
        near: NDArray[Any] = np.take(self._nearest, [index], axis).squeeze(axis)
        here = near >= 0
        rendered[:, here] = scores[self._gaussians + near[here]].T
        return rendered, np.zeros(here.shape, np.bool_)

    def backproject(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int
    ) -> Backprojection:
        """Distribute labeled voxels to Gaussians; see :meth:`ScoreRenderer.backproject`."""
        return self._inner.backproject(voxels, classes, count)

    def empty_mask(self) -> NDArray[np.bool_]:
        """Return where nothing is rendered, (Z, Y, X): nowhere."""
        return np.zeros(self.shape, np.bool_)
