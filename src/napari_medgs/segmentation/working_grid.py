"""Large images are solved on a grid of coarser voxels; this makes that grid, image and prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.prompts.collector import drawn_voxels
from napari_medgs.segmentation.prompts.prompts import Box, Prompts

ALIKE = 1.2  # axes are made coarser together when their voxel sizes differ by less
UNLABELED = -1

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class WorkingGrid:
    """A grid whose voxels are blocks of an image's voxels; the last ones may be cut off.

    Attributes
    ----------
    full : Grid
        Of the image.
    factors : (int, int, int)
        Voxels of the image in a block, by axis.

    Examples
    --------
    >>> grid = WorkingGrid(Grid((40, 101, 100)), (1, 2, 2))
    >>> grid.grid.shape, grid.grid.spacing
    ((40, 51, 50), (1.0, 2.0, 2.0))
    """

    full: Grid
    factors: Shape

    @property
    def shape(self) -> Shape:
        """Voxels of the working grid."""
        z, y, x = (-(-n // f) for n, f in zip(self.full.shape, self.factors, strict=True))
        return z, y, x

    @property
    def grid(self) -> Grid:
        """The working grid over the same world."""
        factors = np.asarray(self.factors, np.float64)
        step = np.diag([*factors, 1.0])
        step[:3, 3] = (factors - 1) / 2  # the middle of a block
        return Grid(self.shape, self.full.affine @ step)

    @property
    def _middle(self) -> tuple[slice, ...]:
        return tuple(slice(f // 2, None, f) for f in self.factors)

    def blocks(self, voxels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the blocks (P, 3) that voxels (P, 3) of the image lie in."""
        return np.asarray(voxels, np.int64) // np.asarray(self.factors)

    def image(self, volume: Volume) -> Volume:
        """Return the averages of all blocks.

        Parameters
        ----------
        volume : Volume
            On the full grid; finite.

        Returns
        -------
        Volume
            Of float32. Blocks of which a voxel is missing are.
        """
        out = np.empty((volume.channels, *self.shape), np.float32)
        fz, fy, fx = self.factors
        _, height, width = volume.shape
        starts = np.arange(0, height, fy), np.arange(0, width, fx)
        sizes = [np.diff([*s, n]).astype(np.float32) for s, n in zip(starts, (height, width))]

        def task(z: int) -> None:
            for target, source in zip(out, volume.data, strict=True):
                part = source[z * fz : (z + 1) * fz].mean(axis=0, dtype=np.float32)
                rows = np.add.reduceat(part, starts[0], axis=0) / sizes[0][:, None]
                target[z] = np.add.reduceat(rows, starts[1], axis=1) / sizes[1]

        run_chunks(task, self.shape[0])
        missing = volume.missing
        if missing is not None:
            for axis, (n, f) in enumerate(zip(self.full.shape, self.factors, strict=True)):
                missing = np.logical_or.reduceat(missing, np.arange(0, n, f), axis=axis + 1)
        return Volume(out, self.grid, volume.channel_names, volume.units, missing)

    def sampled(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return the label in the middle of every block; cut blocks take their last voxel."""
        inside = [
            np.minimum(np.arange(n) * f + f // 2, m - 1)
            for n, f, m in zip(self.shape, self.factors, self.full.shape, strict=True)
        ]
        z, y, x = inside
        return np.ascontiguousarray(labels[..., z[:, None, None], y[:, None], x])

    def prompts(self, prompts: Prompts) -> tuple[Prompts, NDArray[np.int64], NDArray[np.int64]]:
        """Return prompts on the working grid, and what is drawn on the full one.

        A block gets the label that most of its marked voxels have.

        Parameters
        ----------
        prompts : Prompts
            Checked, on the full grid.

        Returns
        -------
        prompts : Prompts
        flat, label : (P,) ndarray of int64
            See :func:`~napari_medgs.segmentation.prompts.collector.drawn_voxels`.
        """
        flat, label = drawn_voxels(prompts, self.full.shape, self.full.relative_spacing)
        # Sizes count in voxels of the finest axis.
        finer = np.min(self.full.spacing) / min(self.grid.spacing)
        points = tuple(
            replace(p, position=self._place(p.position), radius=p.radius * finer)
            for p in prompts.points
            if not p.positive
        )
        reduced = Prompts(
            labels=self._majority(flat, label),
            unlabeled=UNLABELED,
            background=0,
            points=points,
            boxes=tuple(self._box(box) for box in prompts.boxes),
            initial=None if prompts.initial is None else self.sampled(prompts.initial),
            prior=None if prompts.prior is None else self.sampled(prompts.prior),
            initial_margin=prompts.initial_margin * finer,
            locked=prompts.locked,
            result=self.sampled(prompts.result)
            if prompts.locked and prompts.result is not None
            else None,
        )
        return reduced, flat, label

    def _place(self, position: tuple[float, float, float]) -> tuple[float, float, float]:
        z, y, x = (
            min(max((p - (f - 1) / 2) / f, 0.0), n - 1.0)
            for p, f, n in zip(position, self.factors, self.shape, strict=True)
        )
        return z, y, x

    def _box(self, box: Box) -> Box:
        low = [a // f for a, f in zip(box.start, self.factors, strict=True)]
        high = [-(-b // f) for b, f in zip(box.stop, self.factors, strict=True)]
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]), box.label)

    def _majority(self, flat: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[Any]:
        lowest = min(int(label.min(initial=UNLABELED)), -1 - int(label.max(initial=0)))
        out = np.full(self.shape, UNLABELED, np.min_scalar_type(lowest))
        if not len(flat):
            return out
        voxels = np.stack(np.unravel_index(flat, self.full.shape), axis=1)
        block = np.ravel_multi_index(tuple(self.blocks(voxels).T), self.shape)
        pairs, counts = np.unique(np.stack([block, label], axis=1), axis=0, return_counts=True)
        order = np.argsort(counts, kind="stable")
        out.reshape(-1)[pairs[order, 0]] = pairs[order, 1]  # the last one counts
        return out

    def stretched(self, values: Floats) -> Floats:
        """Interpolate values (Z, Y, X) of the working grid linearly on the full one."""
        for axis, (f, n) in enumerate(zip(self.factors, self.full.shape, strict=True)):
            if f == 1:
                continue
            place = np.clip((np.arange(n) - (f - 1) / 2) / f, 0, values.shape[axis] - 1)
            low = np.minimum(place.astype(np.int64), max(values.shape[axis] - 2, 0))
            share = np.asarray(place - low, np.float32)
            share = share.reshape([-1 if a == axis else 1 for a in range(3)])
            high = np.minimum(low + 1, values.shape[axis] - 1)
            first = np.take(values, low, axis=axis)
            first += share * (np.take(values, high, axis=axis) - first)
            values = first
        return values

    def repeated(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give every voxel (Z, Y, X) of the full grid the value of its block."""
        for axis, (f, n) in enumerate(zip(self.factors, self.full.shape, strict=True)):
            if f > 1:
                values = np.take(values, np.arange(n) // f, axis=axis)
        return values


def working_grid(grid: Grid, most_voxels: int) -> WorkingGrid | None:
    """Return the grid that an image is solved on, or None where it is small enough.

    The finest axes are made coarser first, so that voxels become cubes.

    Parameters
    ----------
    grid : Grid
    most_voxels : int

    Returns
    -------
    WorkingGrid or None

    Examples
    --------
    >>> import numpy as np
    >>> working_grid(Grid((400, 512, 512), np.diag([1, 0.8, 0.8, 1])), 2**25).factors
    (1, 2, 2)
    >>> working_grid(Grid((150, 256, 256)), 2**25) is None
    True
    """
    spacing, factors = np.asarray(grid.spacing), np.ones(3, np.int64)
    while True:
        shape = -(-np.asarray(grid.shape) // factors)
        if shape.prod() <= most_voxels:
            break
        pitch = np.where(shape > 1, spacing * factors, np.inf)
        factors[pitch < ALIKE * pitch.min()] *= 2
    if factors.max() == 1:
        return None
    return WorkingGrid(grid, (int(factors[0]), int(factors[1]), int(factors[2])))
