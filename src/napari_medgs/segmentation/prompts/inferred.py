"""What prompts imply that mark no background: strokes around them, and the part that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree

Mask = NDArray[np.bool_]
Window = tuple[slice, slice, slice]
CORE = 0.5  # depth of a lasso over its largest one from which on all is object
GAP = 0.15  # distance around a lasso, over its largest depth, that is left open
LEAST_GAP = 2.0  # finest voxels
CLOSE = 0.1  # Dice below the best at which a part may be chosen that stands out
COVERED = 0.9  # of a stroke that a part should hold
LEAST_COVERED = 0.5  # the same, where all that hold more are too large for an object


def lasso_strokes(
    where: Mask, window: Window, axis: int, relative_spacing: NDArray[np.float64]
) -> tuple[Window, Mask, Mask]:
    """Return what a rough outline says for certain in its slices: its core, and a ring around it.

    Parameters
    ----------
    where : (Z, Y, X) ndarray of bool
        All that is inside.
    window : tuple of slice
        The smallest box around it.
    axis : int
        Normal of its slices.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    wide : tuple of slice
        A larger box.
    inside, outside : ndarray of bool
        In that box: voxels of the object, and of the background.

    Examples
    --------
    >>> import numpy as np
    >>> lasso = np.zeros((3, 20, 20), bool)
    >>> lasso[1, 5:15, 5:15] = True
    >>> wide, inside, outside = lasso_strokes(lasso, np.s_[1:2, 5:15, 5:15], 0, np.ones(3))
    >>> bool(inside[0, 9, 9]), bool((inside & outside).any()), bool(outside.any())
    (True, False, True)
    """
    from scipy.ndimage import distance_transform_edt

    flat = [a for a in range(3) if a != axis]
    sizes = [(window[a].stop - window[a].start) for a in flat]
    pad = [int(np.ceil((GAP * s + LEAST_GAP + 2) / relative_spacing[a])) for a, s in
           zip(flat, sizes, strict=True)]  # fmt: skip
    sides = list(window)
    for a, p in zip(flat, pad, strict=True):
        sides[a] = slice(max(window[a].start - p, 0), min(window[a].stop + p, where.shape[a]))
    wide = (sides[0], sides[1], sides[2])
    part = np.moveaxis(where[wide], axis, 0)
    inside, outside = np.zeros_like(part), np.zeros_like(part)
    sampling = relative_spacing[flat]
    for k, plane in enumerate(part):
        if not plane.any():
            continue
        depth = distance_transform_edt(np.pad(plane, 1), sampling=sampling)[1:-1, 1:-1]
        inside[k] = depth >= CORE * depth.max()
        gap = max(GAP * float(depth.max()), LEAST_GAP)
        if not plane.all():
            away = distance_transform_edt(~plane, sampling=sampling)
            outside[k] = (away >= gap) & (away < gap + 1.5)
    return wide, np.moveaxis(inside, 0, axis), np.moveaxis(outside, 0, axis)


def best_part(
    tree: PartTree,
    window: Window,
    inside: Mask,
    axis: int | None,
    without: Sequence[tuple[int, int, int]] = (),
) -> int | None:
    """Return the node of a tree that fits a region best, by the Dice of its cells.

    A region in space is rough, such as the ellipsoid in a box: of all nodes that fit it nearly as
    well as the best one, the part is chosen that a click would preselect.

    Parameters
    ----------
    tree : PartTree
    window : tuple of slice
    inside : ndarray of bool
        The region, in that window.
    axis : int, optional
        Normal of the window's slices where the region is known in these alone; None where it is
        known in space.
    without : sequence of (z, y, x)
        Voxels that are not of it.

    Returns
    -------
    int or None
        None where every node has one of these, or nothing of the region.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)
    >>> image[:, 4:12, 4:12] += 50
    >>> tree = mg.part_tree(mg.Volume.from_array(image))
    >>> region = np.ones((1, 8, 8), bool)
    >>> mask = tree.mask(best_part(tree, np.s_[3:4, 4:12, 4:12], region, 0))
    >>> bool(mask[0, 8, 8]), bool(mask[0, 16, 16])
    (True, False)
    """
    shared = tree.sum_up(np.bincount(tree.cells[window][inside], minlength=tree.leaves))
    total = tree.voxels
    if axis is not None:
        plane: list[Any] = [slice(None)] * 3
        plane[axis] = window[axis]
        seen = tree.cells[tuple(plane)].reshape(-1)
        total = tree.sum_up(np.bincount(seen, minlength=tree.leaves))
    dice = 2 * shared / np.maximum(total + np.count_nonzero(inside), 1)
    if without:
        wrong = [int(tree.cells[place]) for place in without]
        dice[tree.sum_up(np.bincount(wrong, minlength=tree.leaves)) > 0] = 0
        if not dice.any():
            return None
    if axis is None:
        from napari_medgs.hierarchy import preselect

        close = np.flatnonzero(dice >= dice.max() - CLOSE).tolist()
        return int(close[preselect(tree, close)])
    # Of nodes that look the same in the slices, the one that stands out.
    best = np.flatnonzero(dice >= dice.max() - 1e-9)
    above = np.where(tree.parent[best] >= 0, tree.parent[best], best)
    return int(best[np.argmax(tree.height[above] - tree.height[best])])


def fit_stroke(tree: PartTree, voxels: NDArray[Any]) -> int:
    """Return the part that a stroke means: among those that hold nearly all of it.

    A stroke that crosses a border lies in parts of both sides, which often have nothing but the
    whole body in common: a part is taken then that holds half of it.

    Parameters
    ----------
    tree : PartTree
    voxels : (P, 3) ndarray of int

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)
    >>> image[:, 4:12, 4:12] += 50
    >>> tree = mg.part_tree(mg.Volume.from_array(image))
    >>> mask = tree.mask(fit_stroke(tree, np.array([[3, 6, 6], [3, 8, 8], [3, 10, 10]])))
    >>> bool(mask[3, 8, 8]), bool(mask[3, 16, 16])
    (True, False)
    """
    from napari_medgs.hierarchy import preselect
    from napari_medgs.hierarchy.selection import LARGEST

    counts = tree.sum_up(np.bincount(tree.cells[tuple(voxels.T)], minlength=tree.leaves))
    most = LARGEST * tree.covered
    for share in (COVERED, LEAST_COVERED):
        holds = np.flatnonzero(counts >= share * len(voxels))
        smallest = int(holds[np.argmin(tree.voxels[holds])])
        if tree.voxels[smallest] <= most:
            break
    levels = tree.levels(smallest)
    return int(levels[preselect(tree, levels)])


def part_at(tree: PartTree, positive: list[Any], negative: list[Any]) -> PartSelection:
    """Return the part at clicks; at the last positive one alone where they contradict.

    Parameters
    ----------
    tree : PartTree
    positive, negative : list of (z, y, x)
        At least one positive.

    Returns
    -------
    PartSelection

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)
    >>> image[:, 4:12, 4:12] += 50
    >>> tree = mg.part_tree(mg.Volume.from_array(image))
    >>> mask = tree.mask(part_at(tree, [(3, 8, 8)], []).nodes)
    >>> bool(mask[3, 5, 5]), bool(mask[3, 16, 16])
    (True, False)
    """
    for places in ((positive, negative), (positive[-1:], negative), (positive[-1:], [])):
        try:
            return _not_too_large(tree, tree.at(*places[0], negative=places[1]))
        except ParameterError:  # two places in one cell
            continue
    raise AssertionError("a place alone has a part")


def _not_too_large(tree: PartTree, part: PartSelection) -> PartSelection:
    """Return a part, or a smaller one where it is more than an object is likely to be.

    Where a place grows by small steps up to nearly all of the image, no size of its stands out
    enough to be on offer: it gets one more, the likeliest of all its sizes.
    """
    from napari_medgs.hierarchy import preselect
    from napari_medgs.hierarchy.selection import LARGEST

    most = LARGEST * tree.covered
    if part.negative or len(part.positive) > 1 or tree.voxels[list(part.nodes)].sum() <= most:
        return part
    chain = tree.ancestors(tree.leaf_at(part.positive[0])).tolist()
    small = [n for n in chain if tree.voxels[n] <= most]
    if not small:
        return part
    node = small[preselect(tree, small)]
    return part.with_smaller(node, tree.prominence(node))


def ellipsoid(size: Sequence[int] | NDArray[Any]) -> Mask:
    """Return the ellipsoid, or the ellipse, that fills a box.

    Parameters
    ----------
    size : (z, y, x)

    Returns
    -------
    (Z, Y, X) ndarray of bool

    Examples
    --------
    >>> ellipsoid((1, 4, 4)).sum(axis=2).tolist()
    [[2, 4, 4, 2]]
    """
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in size]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside: Mask = z**2 + y**2 + x**2 <= 1
    return inside
