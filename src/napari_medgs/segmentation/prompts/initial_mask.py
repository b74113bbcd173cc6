"""An initial mask as markers: kept where nothing contradicts it, free near what does.

Every voxel keeps its label, except near the mask's borders (the margin) and around prompts that
contradict the mask. A prompt that lies deep in a wrongly labeled region says that the whole
region is wrong: the ball around it that is free grows with its depth, its distance to the nearest
voxel of another label. There the choice is between the mask's label and the prompt's: of other
classes it says nothing. The background of a mask that lacks a class says nothing of it: strokes of
such a class free background as far as twice their own extent, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.errors import LabelError
from napari_medgs.segmentation.advanced import InitialMaskParams
from napari_medgs.segmentation.prompts.prompts import PRIOR_SCALE, Prompts, most_likely

SHARE_OF_DEPTH = 0.7  # of a class's depth at most that a margin may take
LAYER_THICKNESS = 1.5  # of the marked layer along what is free, in finest voxels
WALL_DEPTH = 2.0  # finest voxels into classes; Gaussians at their borders lie on both sides
STEPS = 4  # of an octave of depths, each of which counts as one depth
ANY_LABEL = -1  # of a prompt that says what a voxel is not
Part = tuple[tuple[slice, ...], NDArray[np.bool_]]  # of a volume: a box, and where in it


@dataclass(frozen=True)
class Released:
    """What prompts that contradict an initial mask set free.

    Attributes
    ----------
    nearness : (Z, Y, X) ndarray of float32
        Distance to the nearest such prompt over its depth in the wrong label; infinite where
        nothing is freed.
    toward : dict of int to (box, ndarray of bool)
        By the label that prompts want: where voxels may take it. With ``ANY_LABEL`` where they
        may take any, around prompts that only deny a label and within the margin.
    """

    nearness: Floats
    toward: dict[int, Part]


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

    @cached_property
    def deep(self) -> NDArray[np.bool_]:
        """Voxels deep in the mask's classes, (Z, Y, X): no class has them that the mask lacks."""
        from scipy.ndimage import distance_transform_edt

        inside, deep = self.labels > 0, np.zeros(self.labels.shape, np.bool_)
        voxels = np.argwhere(inside.any(axis=(1, 2))), np.argwhere(inside.any(axis=0))
        if len(voxels[0]):
            low = np.array([voxels[0].min(), *voxels[1].min(axis=0)])
            high = np.array([voxels[0].max(), *voxels[1].max(axis=0)])
            box = self._box(np.stack([low, high]), 0)
            distance = distance_transform_edt(inside[box], sampling=self.relative_spacing)
            deep[box] = distance > WALL_DEPTH
        return deep

    def released(self, voxels: NDArray[Any], labels: NDArray[Any]) -> Released:
        """Return what prompts that contradict the mask set free.

        A prompt frees voxels of the label that it contradicts, none of other labels.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
            Where prompts say another label than the mask.
        labels : (P,) ndarray of int
            Which one; ``ANY_LABEL`` where they only deny the mask's.

        Returns
        -------
        Released
        """
        nearness = np.full(self.labels.shape, np.inf, np.float32)
        toward: dict[int, Part] = {}
        for label in np.unique(labels):
            mine = voxels[labels == label]
            box = self._box(mine, self._reach(self.params.max_depth * 2 ** (1 / STEPS)))
            low = [s.start for s in box]
            around, mine = replace(self, labels=self.labels[box], free=self.free[box]), mine - low
            reached = np.full(around.labels.shape, np.inf, np.float32)
            values = around.labels[tuple(mine.T)]
            lacking = label > 0 and not (self.labels == label).any()
            for value in np.unique(values):
                own = mine[values == value]
                least = self._extent_of(own) if lacking and value == 0 else 0.0
                around._release(value, own, least, reached)
            np.minimum(nearness[box], reached, out=nearness[box])
            inner, part = _part(np.isfinite(reached))
            place = tuple(slice(s.start + a, s.stop + a) for s, a in zip(inner, low, strict=True))
            toward[int(label)] = place, part
        if self.free.any():
            anything = self.free.copy()
            if ANY_LABEL in toward:
                box, part = toward[ANY_LABEL]
                anything[box] |= part
            toward[ANY_LABEL] = _part(anything)
        return Released(nearness, toward)

    def _extent_of(self, voxels: NDArray[Any]) -> float:
        """Return the longest side of the box around voxels, in finest voxels."""
        return float((np.ptp(voxels, axis=0) * self.relative_spacing).max())

    def _release(self, value: Any, voxels: NDArray[Any], least: float, out: Floats) -> None:
        """Free voxels of one label around prompts that lie in it, at least as deep as said."""
        from scipy.ndimage import distance_transform_edt

        most = self.params.max_depth
        near = self._box(voxels, most)
        mine = self.labels[near] == value
        depth = np.full(len(voxels), most)
        if not mine.all():
            distance = distance_transform_edt(mine, sampling=self.relative_spacing)
            inner = tuple((voxels - [s.start for s in near]).T)
            depth = np.clip(distance[inner], min(least, most), most)
        # Depths in steps, each with one distance transform in its own box.
        level = np.ceil(STEPS * np.log2(depth)).astype(int)
        for step in np.unique(level):
            deep, centers = 2.0 ** (step / STEPS), voxels[level == step]
            reach = self._reach(deep)
            box = self._box(centers, reach)
            away = np.ones([s.stop - s.start for s in box], np.bool_)
            away[tuple((centers - [s.start for s in box]).T)] = False
            distance = distance_transform_edt(away, sampling=self.relative_spacing)
            ball = (distance <= reach) & (self.labels[box] == value)
            np.minimum(out[box], distance / deep, out=out[box], where=ball, casting="same_kind")

    def _reach(self, depth: float) -> float:
        """Return the radius of the ball that a prompt of some depth sets free."""
        params = self.params
        return max(params.release_factor * depth + params.release_offset, 1.0)

    def _box(self, voxels: NDArray[Any], reach: float) -> tuple[slice, ...]:
        pad = np.ceil(reach / self.relative_spacing).astype(int) + 1
        low = np.maximum(voxels.min(axis=0) - pad, 0)
        high = np.minimum(voxels.max(axis=0) + pad + 1, self.labels.shape)
        return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))

    def markers(self, free: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return flat indices and labels of a layer of kept voxels along what is free.

        Parameters
        ----------
        free : (Z, Y, X) ndarray of bool

        Returns
        -------
        indices, labels : (P,) ndarray of int64
        """
        from scipy.ndimage import binary_dilation, distance_transform_edt

        layer = _edges(self.labels)
        if free.any():
            where = np.argwhere(free)
            corners = np.stack([where.min(axis=0), where.max(axis=0)])
            box = self._box(corners, LAYER_THICKNESS)
            part = free[box]
            layer[box] |= distance_transform_edt(~part, sampling=self.relative_spacing) <= (
                LAYER_THICKNESS
            )
            layer[box] |= binary_dilation(part)  # slices may be farther apart than that
            layer &= ~free
        flat = np.flatnonzero(layer.reshape(-1))
        return flat, self.labels.reshape(-1)[flat].astype(np.int64)


def _part(where: NDArray[np.bool_]) -> Part:
    """Return the smallest box that holds what is true, and that part."""
    box = []
    for axis in range(where.ndim):
        there = np.flatnonzero(where.any(axis=tuple(b for b in range(where.ndim) if b != axis)))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0))
    place = tuple(box)
    return place, where[place].copy()


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
