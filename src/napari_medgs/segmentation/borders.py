"""How far prompts reach into a mask: depths, margins along borders, distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.local import Box, bounds, window

Mask = NDArray[np.bool_]
MARGIN = 0.3  # along borders, over the largest depth of the mask
LARGEST_MARGIN = 8.0  # finest voxels
CAREFUL_MARGIN = 0.5  # along borders of a trusted mask, over the depth of the prompt
NEAR = 4.0  # distance of changes from a prompt, over its depth in the error,
LEAST_NEAR = 4.0  # and so many finest voxels more
MIDDLE = 0.9  # depth of a prompt over the largest one from which it is in the middle
DEPTH_VOXELS = 200_000  # the largest depth needs no finer grid


def margin_of(
    mask: Mask, relative_spacing: NDArray[np.float64], prompts: list[Box] | None = None
) -> float:
    """Return how far from the borders of a mask a correction may change it.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray of bool
        Not empty.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    prompts : list of tuple of slice, optional
        Where prompts are new, if the mask is trusted: no border is off by more than a prompt in
        the largest error is deep.

    Returns
    -------
    float
        Finest voxels.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((30, 30, 30), bool)
    >>> mask[5:25, 5:25, 5:25] = True
    >>> margin_of(mask, np.ones(3)), margin_of(mask, np.ones(3), [np.s_[6:7, 9:10, 9:10]])
    (3.0, 1.0)
    """
    from scipy.ndimage import distance_transform_edt

    around = bounds(mask)
    assert around is not None
    inner = mask[around]
    step = max(1, round((inner.size / DEPTH_VOXELS) ** (1 / 3)))
    coarse = np.pad(inner[::step, ::step, ::step], 1)
    depth = float(distance_transform_edt(coarse, sampling=relative_spacing * step).max())
    free = min(max(1.0, MARGIN * depth), LARGEST_MARGIN)
    if prompts is None:
        return free
    return min(free, max(1.0, CAREFUL_MARGIN * _depth_at(mask, prompts, relative_spacing)))


def _depth_at(mask: Mask, windows: list[Box], relative: NDArray[np.float64]) -> float:
    """Return how deep windows lie in the label of the mask there, up to where it matters."""
    from scipy.ndimage import distance_transform_edt

    most = LARGEST_MARGIN / CAREFUL_MARGIN
    pad = np.ceil(most / relative).astype(int)
    deepest = 0.0
    for place in windows:
        low, high = (np.array([getattr(s, end) for s in place]) for end in ("start", "stop"))
        first = np.maximum(low - pad, 0)
        part = mask[window(first, np.minimum(high + pad, mask.shape))]
        inner = window(low - first, high - first)
        for side in (part, ~part):
            if side[inner].any():
                depth = most
                if not side.all():
                    depth = float(distance_transform_edt(side, sampling=relative)[inner].max())
                deepest = max(deepest, min(depth, most))
    return deepest


def in_the_middle(mask: Mask, prompts: list[Box], relative_spacing: NDArray[np.float64]) -> bool:
    """Return whether a prompt lies where a mask is deepest: then it is about all of the mask.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray of bool
        Not empty.
    prompts : list of tuple of slice
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((1, 9, 30), bool)
    >>> mask[:, 2:7, 2:20] = True
    >>> spacing = np.ones(3)
    >>> in_the_middle(mask, [np.s_[0:1, 4:5, 9:10]], spacing)
    True
    >>> in_the_middle(mask, [np.s_[0:1, 3:4, 9:10]], spacing)
    False
    """
    from scipy.ndimage import distance_transform_edt

    around = bounds(mask)
    assert around is not None
    flat = [a for a in range(3) if mask.shape[a] == 1]  # no border along such an axis
    pad = [(0, 0) if a in flat else (1, 1) for a in range(3)]
    depth = distance_transform_edt(np.pad(mask[around], pad), sampling=relative_spacing)
    depth = depth[tuple(slice(p[0], n - p[1]) for p, n in zip(pad, depth.shape, strict=True))]
    for place in prompts:
        low = [max(p.start - a.start, 0) for p, a in zip(place, around, strict=True)]
        high = [p.stop - a.start for p, a in zip(place, around, strict=True)]
        found = depth[tuple(slice(a, max(b, 0)) for a, b in zip(low, high, strict=True))]
        if found.size and found.max() >= MIDDLE * depth.max():
            return True
    return False


def changed_near(
    before: Mask, after: Mask, prompts: list[Box], relative_spacing: NDArray[np.float64]
) -> Mask:
    """Return a mask with those changes alone that hang together with prompts, and are near them.

    Along a rough border one piece of changes may run all around the mask. What is farther from a
    prompt than a few times its depth in the error is another one.

    Parameters
    ----------
    before, after : (Z, Y, X) ndarray of bool
    prompts : list of tuple of slice
        Changes that touch one of these count.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    (Z, Y, X) ndarray of bool

    Examples
    --------
    >>> import numpy as np
    >>> after = np.zeros((1, 1, 9), bool)
    >>> after[..., 2:4] = after[..., 7] = True
    >>> found = changed_near(np.zeros_like(after), after, [np.s_[0:1, 0:1, 1:2]], np.ones(3))
    >>> np.flatnonzero(found).tolist()
    [2, 3]
    """
    from scipy.ndimage import distance_transform_edt, label

    out = before.copy()
    for place in prompts:
        depth = _depth_at(before, [place], relative_spacing)
        reach = NEAR * depth + LEAST_NEAR
        pad = np.ceil(reach / relative_spacing).astype(int)
        low, high = (np.array([getattr(s, end) for s in place]) for end in ("start", "stop"))
        first = np.maximum(low - pad, 0)
        around = window(first, np.minimum(high + pad, before.shape))
        away = np.ones([s.stop - s.start for s in around], np.bool_)
        away[window(low - first, high - first)] = False
        close = distance_transform_edt(away, sampling=relative_spacing) <= reach
        pieces, _ = label((before[around] != after[around]) & close, np.ones((3, 3, 3)))
        start = np.maximum(low - first - 1, 0)
        touched = np.unique(pieces[window(start, high - first + 1)])
        wanted = np.isin(pieces, touched[touched > 0])
        out[around][wanted] = after[around][wanted]
    return out


def distance_to(
    mask: Mask,
    around: Box,
    place: tuple[int, int, int],
    relative_spacing: NDArray[np.float64],
) -> float:
    """Return the distance of a voxel from a mask.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray of bool
    around : tuple of slice
        The smallest box of the mask.
    place : (z, y, x)
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    float
        Finest voxels.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((3, 4, 5), bool)
    >>> mask[1, 1, 1] = True
    >>> distance_to(mask, np.s_[1:2, 1:2, 1:2], (1, 1, 4), np.ones(3))
    3.0
    """
    voxels = np.argwhere(mask[around])
    voxels = voxels[:: max(1, len(voxels) // DEPTH_VOXELS)] + [s.start for s in around]
    return float(np.sqrt((((voxels - place) * relative_spacing) ** 2).sum(axis=1).min()))
