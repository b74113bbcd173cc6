"""An initial mask as markers: kept where nothing contradicts it, free near what does.

Every voxel keeps its label, except near the mask's borders (the margin) and around prompts that
contradict the mask. A prompt that lies deep in a wrongly labeled region says that the whole
region is wrong: the ball around it that is free grows with its depth, its distance to the nearest
voxel of another label. There the choice is between the mask's label and the prompt's: of other
classes it says nothing. The background of a mask that lacks a class says nothing of it: strokes of
such a class free background as far as twice their own extent, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.arrays import sorted_unique
from napari_medgs.errors import LabelError
from napari_medgs.segmentation.advanced import InitialMaskParams
from napari_medgs.segmentation.prompts.kept_labels import NO_CLASS, KeptLabels, KeptPart
from napari_medgs.segmentation.prompts.prompts import PRIOR_SCALE, Prompts, most_likely
from napari_medgs.segmentation.prompts.released import (
    ANY_LABEL,
    Box,
    ReleasedPart,
    Releases,
    box_around,
    smallest_box,
)

SHARE_OF_DEPTH = 0.7  # of a class's depth at most that a margin may take
LAYER_THICKNESS = 1.5  # of the marked layer along what is free, in finest voxels
WALL_DEPTH = 2.0  # finest voxels into classes; Gaussians at their borders lie on both sides


@dataclass(frozen=True)
class InitialMask:
    """A label image to start from, with the voxels at its borders that may change.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
        On the canonical grid.
    free : (Z, Y, X) ndarray of bool
        Voxels nearer to another label than the margin.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    params : InitialMaskParams
    """

    labels: NDArray[Any]
    free: NDArray[np.bool_]
    relative_spacing: NDArray[Any]
    params: InitialMaskParams

    def is_same(self, other: InitialMask) -> bool:
        """Return whether another mask has the same labels, free voxels and settings."""
        return (
            self.free is other.free
            and self.params == other.params
            and np.array_equal(self.labels, other.labels)
        )

    @cached_property
    def values(self) -> NDArray[Any]:
        """The labels that there are, increasing."""
        return np.unique(self.labels)

    @cached_property
    def deep(self) -> NDArray[np.bool_]:
        """Voxels deep in the mask's classes, (Z, Y, X): no class has them that the mask lacks."""
        from scipy.ndimage import distance_transform_edt

        inside, deep = self.labels > 0, np.zeros(self.labels.shape, np.bool_)
        box = smallest_box(inside)
        if box[0].stop:
            corners = np.array([[s.start for s in box], [s.stop - 1 for s in box]])
            box = self._box(corners, 0)
            distance = distance_transform_edt(inside[box], sampling=self.relative_spacing)
            deep[box] = distance > WALL_DEPTH
        return deep

    @cached_property
    def _releases(self) -> Releases:
        return Releases(self.labels, self.relative_spacing, self.params)

    def released(self, voxels: NDArray[Any], labels: NDArray[Any]) -> tuple[ReleasedPart, ...]:
        """Return what prompts that contradict the mask set free.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
            Where prompts say another label than the mask.
        labels : (P,) ndarray of int
            Which one; ``ANY_LABEL`` where they only deny the mask's.

        Returns
        -------
        tuple of ReleasedPart
        """
        wanted = {int(k) for k in np.unique(labels) if k > 0}
        return self._releases.parts(voxels, labels, frozenset(wanted.difference(self.values)))

    def _box(self, corners: NDArray[Any], reach: float) -> Box:
        return box_around(corners, reach, self.relative_spacing, self.labels.shape)

    @cached_property
    def _layer(self) -> NDArray[np.int64]:
        """Flat indices of the marked voxels where nothing contradicts the mask."""
        layer = _edges(self.labels)
        if self.free.any():
            box = smallest_box(self.free)
            corners = np.array([[s.start for s in box], [s.stop - 1 for s in box]])
            box = self._box(corners, LAYER_THICKNESS)
            layer[box] |= self._near(self.free[box])
            layer &= ~self.free
        return np.flatnonzero(layer.reshape(-1))

    def _near(self, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what lies within the layer's thickness of what is free, or touches it."""
        steps = np.ceil(LAYER_THICKNESS / self.relative_spacing).astype(int)
        near = free.copy()
        for step in np.ndindex(*(2 * steps + 1)):
            offset = np.array(step) - steps
            away = np.sqrt(((offset * self.relative_spacing) ** 2).sum())
            # Slices may be farther apart than the layer is thick.
            if away <= LAYER_THICKNESS or np.abs(offset).sum() == 1:
                here = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset, free.shape))
                there = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, free.shape))
                near[here] |= free[there]
        return near

    def markers(
        self, parts: Sequence[ReleasedPart]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return flat indices and labels of a layer of kept voxels along what is free.

        Parameters
        ----------
        parts : sequence of ReleasedPart
            What prompts set free.

        Returns
        -------
        indices, labels : (P,) ndarray of int64
            In increasing order.
        """
        flat = self._layer
        if parts:
            around = np.zeros(self.labels.size, np.bool_)  # memory that is not used costs nothing
            volume = around.reshape(self.labels.shape)
            for part in parts:
                volume[self._around(part)] = True
            flat = flat[~around[flat]]
            more = [self._layer_around(part, parts) for part in parts]
            flat = np.sort(np.concatenate([flat, sorted_unique(np.concatenate(more))]))
        return flat, self.labels.reshape(-1)[flat].astype(np.int64)

    @cached_property
    def _stacked(self) -> dict[Any, tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
        return {}

    def kept(
        self, values: tuple[int, ...], axes: tuple[int, int, int], parts: Sequence[ReleasedPart]
    ) -> KeptLabels:
        """Return what stays of the mask, with classes instead of labels, slice-first.

        Parameters
        ----------
        values : tuple of int
            Label of every class, increasing.
        axes : (int, int, int)
            Canonical axes in slice-first order.
        parts : sequence of ReleasedPart
            What prompts set free.

        Returns
        -------
        KeptLabels
            With the same arrays of the mask for the same values.
        """
        stacked = self._stacked.get((values, axes))
        if stacked is None:
            free = self.free.transpose(axes) if self.free.any() else None
            stacked = self._classes(values).transpose(axes), free
            self._stacked.clear()
            self._stacked[values, axes] = stacked
        where = ~self.free
        for part in parts:
            where[part.box] &= ~part.free
        wanted = {k: values.index(k) for k in {part.label for part in parts} if k != ANY_LABEL}
        own = tuple(KeptPart.of(p, wanted.get(p.label, NO_CLASS), axes) for p in parts)
        return KeptLabels(where.transpose(axes), *stacked, own)

    def _classes(self, values: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the place of every voxel's label among some, ``NO_CLASS`` where it is not."""
        known = np.asarray(values)
        place = np.minimum(np.searchsorted(known, self.values), len(values) - 1)
        table = np.where(known[place] == self.values, place, NO_CLASS).astype(np.uint8)
        if self.labels.dtype == np.uint8:
            wide = np.full(256, NO_CLASS, np.uint8)
            wide[self.values] = table
            return wide[self.labels]
        return table[np.searchsorted(self.values, self.labels)]

    def _around(self, part: ReleasedPart) -> Box:
        """Return the box in which a part changes the layer."""
        corners = np.array([[s.start for s in part.box], [s.stop - 1 for s in part.box]])
        return self._box(corners, LAYER_THICKNESS)

    def _layer_around(
        self, part: ReleasedPart, parts: Sequence[ReleasedPart]
    ) -> NDArray[np.int64]:
        """Return flat indices of the layer in the box in which a part changes it."""
        box, shape = self._around(part), self.labels.shape
        corners = np.array([[s.start for s in box], [s.stop - 1 for s in box]])
        wide = self._box(corners, LAYER_THICKNESS)
        free = self.free[wide].copy()
        for other in parts:
            other.mark_in(free, wide)
        layer = (_edges(self.labels[wide]) | self._near(free)) & ~free
        inner = tuple(
            slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True)
        )
        found = [axis + s.start for axis, s in zip(np.nonzero(layer[inner]), box, strict=True)]
        return np.ravel_multi_index(tuple(found), shape)


def _edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the voxels with a face neighbor of another label."""
    out = np.zeros(labels.shape, np.bool_)
    for axis in range(3):
        a = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
        b = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
        differ = labels[a] != labels[b]
        out[a] |= differ
        out[b] |= differ
    return out


def initial_mask_of(
    prompts: Prompts, relative_spacing: NDArray[Any], params: InitialMaskParams | None = None
) -> InitialMask:
    """Prepare the initial mask, or the most likely classes of the prior, of checked prompts.

    Parameters
    ----------
    prompts : Prompts
        With ``initial`` or ``prior``.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    params : InitialMaskParams, optional

    Returns
    -------
    InitialMask

    Raises
    ------
    LabelError
        When the mask has one value everywhere.
    """
    labels = prompts.initial
    if prompts.prior is not None:
        labels = most_likely(prompts.prior)
    assert labels is not None
    margin = prompts.initial_margin
    return prepare_initial_mask(labels, margin, relative_spacing, params, prompts.prior)


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the first slice with a voxel, and one past the last."""
    where = np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != axis)))
    return int(where[0]), int(where[-1]) + 1


def prepare_initial_mask(
    labels: NDArray[Any],
    margin: float,
    relative_spacing: NDArray[Any],
    params: InitialMaskParams | None = None,
    prior: NDArray[Any] | None = None,
) -> InitialMask:
    """Find the voxels at the borders of a mask that may change.

    Classes thinner than the margin keep their middle.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    margin : float
        Voxels nearer to another label than this are free, in finest voxels; 1 or less: none.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    params : InitialMaskParams, optional
    prior : (K, Z, Y, X) ndarray of float, or of uint8 in 255ths, optional
        Probability of every class: voxels whose largest one is below
        ``params.min_probability`` are free, too.

    Returns
    -------
    InitialMask

    Raises
    ------
    LabelError
        When the mask has one value everywhere.
    """
    from scipy.ndimage import distance_transform_edt

    values = np.unique(labels)
    if len(values) < 2:
        raise LabelError("The initial mask has one value everywhere: there is nothing to refine.")
    free = np.zeros(labels.shape, np.bool_)
    # A voxel that is free is within the margin of another label; deeper ones only tell how deep a
    # class is, which counts up to the depth from which the margin is the limit.
    reach = np.ceil((margin / SHARE_OF_DEPTH + 1) / relative_spacing).astype(int)
    for value in values if margin > 1 else ():
        mine = labels == value
        others = [_extent(~mine, a) for a in range(3)]
        box = tuple(
            slice(max(0, w[0] - 1, o[0] - r), min(w[1] + 1, o[1] + r))
            for w, o, r in zip((_extent(mine, a) for a in range(3)), others, reach.tolist())
        )
        depth = distance_transform_edt(mine[box], sampling=relative_spacing)
        wanted = min(margin, SHARE_OF_DEPTH * float(depth.max()))
        free[box] |= mine[box] & (depth < wanted)
    params = params or InitialMaskParams()
    if prior is not None:
        scale = PRIOR_SCALE if prior.dtype == np.uint8 else 1
        free |= prior.max(axis=0) < params.min_probability * scale
    return InitialMask(labels, free, relative_spacing, params)
