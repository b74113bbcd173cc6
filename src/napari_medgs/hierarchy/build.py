"""From an image and its field to the tree of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._util.progress import (
    ProgressCallback,
    StageTimer,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_threads
from napari_medgs.data.equalization import equalized
from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.hierarchy.cells import cell_graph
from napari_medgs.hierarchy.digest import field_digest
from napari_medgs.hierarchy.membership import MembershipRenderer
from napari_medgs.hierarchy.merging import merge_regions
from napari_medgs.hierarchy.params import PartParams
from napari_medgs.hierarchy.tree import PartTree
from napari_medgs.rendering import dominant_gaussians

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume

FIT_ITERATIONS = 40  # as before a segmentation


def cells_of(
    field: GaussianField,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Return the leaves of a field: of every voxel and of every Gaussian.

    Every Gaussian with the largest share of the blend somewhere has a leaf of its own, in the
    order of the Gaussians; then come the connected pieces that no Gaussian reaches.

    Parameters
    ----------
    field : GaussianField

    Returns
    -------
    cells : (Z, Y, X) ndarray of int32
    gaussian_leaf : (N,) ndarray of int32
    empty_anchor : (E,) ndarray of int64
        The first voxel, as flat index, of every piece of empty space.
    """
    winner = dominant_gaussians(field)
    has_cell = np.zeros(len(field), np.bool_)
    has_cell[winner[winner >= 0]] = True
    leaf = np.full(len(field) + 1, -1, np.int32)
    leaf[:-1][has_cell] = np.arange(has_cell.sum(), dtype=np.int32)
    cells = leaf[winner]  # -1 takes the last entry, which is -1
    pieces, anchor = _pieces(winner < 0)
    _fill_pieces(
        cells.reshape(-1),
        pieces,
        has_cell.sum() + np.arange(-1, len(anchor), dtype=np.int32),
    )
    gaussian_leaf = np.ascontiguousarray(leaf[:-1])
    _adopt(gaussian_leaf, field, cells)
    return cells, gaussian_leaf, anchor


def cells_again(
    field: GaussianField, gaussian_leaf: NDArray[np.int32], empty_leaf: Mapping[int, int]
) -> NDArray[np.int32]:
    """Return the leaf of every voxel from the leaves of the Gaussians.

    Parameters
    ----------
    field : GaussianField
        May have lost or moved Gaussians since the leaves were made.
    gaussian_leaf : (N,) ndarray of int32
    empty_leaf : mapping of int to int
        Leaf of every piece of empty space, by its first voxel's flat index.

    Returns
    -------
    (Z, Y, X) ndarray of int32
    """
    winner = dominant_gaussians(field)
    cells = np.append(gaussian_leaf, np.int32(-1))[winner].astype(np.int32)
    pieces, anchor = _pieces(winner < 0)
    leaf = np.zeros(len(anchor) + 1, np.int32)
    flat = cells.reshape(-1)
    for k, voxel in enumerate(anchor.tolist()):
        # A piece that is new goes to the leaf of the voxel before it, which no piece or a known
        # one has; the very first voxel has none before it.
        new = leaf[pieces[voxel - 1]] if pieces[voxel - 1] else flat[voxel - 1]
        leaf[k + 1] = empty_leaf.get(voxel, int(new) if voxel else int(gaussian_leaf[0]))
    _fill_pieces(flat, pieces, leaf)
    return cells


@njit(nogil=True, cache=True)
def _first_voxels(pieces: Any, first: Any) -> None:
    """Write where every piece begins."""
    seen = 0
    for v in range(len(pieces)):
        if pieces[v] > 0 and first[pieces[v] - 1] < 0:
            first[pieces[v] - 1] = v
            seen += 1
            if seen == len(first):
                return


@njit(nogil=True, cache=True)
def _fill_pieces(cells: Any, pieces: Any, leaf: Any) -> None:
    """Write the leaves of pieces into the cells; piece k has leaf[k]."""
    for v in range(len(pieces)):
        if pieces[v] > 0:
            cells[v] = leaf[pieces[v]]


def _pieces(empty: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the connected pieces of empty space from 1; return them flat, and where they begin.

    They are in the order of their first voxels.
    """
    if not empty.any():
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    from scipy.ndimage import label

    pieces = np.empty(empty.shape, np.int32)
    count = int(label(empty, output=pieces))
    flat = pieces.reshape(-1)
    first = np.full(count, -1, np.int64)
    _first_voxels(flat, first)
    if (np.diff(first) < 0).any():  # SciPy promises no order
        order = np.argsort(first)
        rank = np.zeros(count + 1, np.int32)
        rank[order + 1] = np.arange(1, count + 1)
        flat, first = rank[flat], first[order]
    return flat, first


def _adopt(
    gaussian_leaf: NDArray[np.int32], field: GaussianField, cells: NDArray[np.int32]
) -> None:
    """Give Gaussians without a cell the leaf at their center."""
    orphans = np.flatnonzero(gaussian_leaf < 0)
    if len(orphans):
        last = np.asarray(cells.shape) - 1
        place = np.clip(np.round(field.voxel_centers()[orphans]), 0, last).astype(np.int64)
        gaussian_leaf[orphans] = cells[tuple(place.T)]


def build_tree(
    contrasts: NDArray[Any],
    field: GaussianField,
    params: PartParams | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> PartTree:
    """Merge the cells of a field to a tree, by what the image looks like in them.

    Parameters
    ----------
    contrasts : (C, Z, Y, X) ndarray
        Finite intensities on the field's grid.
    field : GaussianField
        Its geometry counts.
    params : PartParams, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    PartTree

    Raises
    ------
    ParameterError
        For a field without Gaussians, or an image without two cells.
    GeometryError
        When image and field differ in shape.
    Cancelled
        When stopped.
    """
    params = params or PartParams()
    grid = field.info.grid
    if not len(field):
        raise ParameterError("The field holds no Gaussians; fit it again.")
    if contrasts.shape[1:] != grid.shape:
        raise GeometryError(
            f"The image has shape {contrasts.shape[1:]}, the field {grid.shape}: fit the field to "
            "this image."
        )
    timer = StageTimer("making of parts", progress, should_stop, 3)
    with limit_threads(params.threads):
        timer.stage("cells")
        cells, gaussian_leaf, empty = cells_of(field)
        timer.end()
        timer.stage("boundaries")
        leaves = int(cells.max()) + 1
        chosen = params.chosen(len(contrasts))
        spread = np.empty(contrasts.shape, np.float32)
        for c, channel in enumerate(contrasts):
            spread[c] = equalized(channel, chosen.equalization)
        graph = cell_graph(cells, spread, grid.spacing, leaves - len(empty))
        timer.end()
        timer.stage("merging")
        if leaves < 2:
            raise ParameterError(
                "The image has a single cell, so there are no parts to tell apart; fit it with "
                "more Gaussians."
            )
        children = np.zeros((leaves - 1, 2), np.int32)
        bridge, altitude = np.zeros_like(children), np.zeros(leaves - 1)
        merge_regions(
            graph.ends, graph.length, graph.strength, graph.mass, graph.mean, graph.scatter,
            chosen.boundary_power, chosen.length_power, chosen.noise, children, altitude, bridge,
        )  # fmt: skip
        timer.end()
    return PartTree(
        grid=grid,
        cells=cells,
        gaussian_leaf=gaussian_leaf,
        children=children,
        altitude=altitude,
        bridge=bridge,
        empty_anchor=empty,
        field_digest=field_digest(field),
        renderer=MembershipRenderer(field, cells, gaussian_leaf),
    )


def move_tree(
    tree: PartTree, field: GaussianField, kept: NDArray[np.int64] | None = None
) -> PartTree:
    """Return a tree for a field whose Gaussians were sorted, pruned or rounded since.

    Parameters
    ----------
    tree : PartTree
    field : GaussianField
        The field as it is now.
    kept : (M,) ndarray of int, optional
        Which of the old Gaussians each of the new ones is; the same order by default.

    Returns
    -------
    PartTree
        With the same nodes. Voxels whose Gaussian is gone go to the part that covers them now, so
        that some leaves may have no voxels left.

    Raises
    ------
    ParameterError
        When ``kept`` does not fit.
    GeometryError
        When the field is on another grid.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import move_tree
    >>> from napari_medgs.segmentation import fit_for_segmentation
    >>> image = np.random.default_rng(0).random((4, 12, 12), np.float32)
    >>> volume = mg.Volume.from_array(image)
    >>> field = fit_for_segmentation(volume)
    >>> tree = mg.part_tree(volume, field=field)
    >>> order = field.morton_order()
    >>> moved = move_tree(tree, field.subset(order), order)
    >>> bool((moved.voxels == tree.voxels).all())
    True
    """
    source = np.arange(len(tree.gaussian_leaf)) if kept is None else np.asarray(kept)
    if source.dtype == bool:
        source = np.flatnonzero(source)
    if len(source) != len(field) or (
        len(source) and not 0 <= source.min() <= source.max() < len(tree.gaussian_leaf)
    ):
        raise ParameterError(
            f"The field has {len(field)} Gaussians, which are not those of the tree; make the "
            "tree anew."
        )
    if field.info.grid.shape != tree.grid.shape:
        raise GeometryError(
            f"The field has shape {field.info.grid.shape}, the tree {tree.grid.shape}."
        )
    gaussian_leaf = tree.gaussian_leaf[source]
    cells = cells_again(field, gaussian_leaf, tree.empty_leaves)
    return PartTree(
        grid=field.info.grid,
        cells=cells,
        gaussian_leaf=gaussian_leaf,
        children=tree.children,
        altitude=tree.altitude,
        bridge=tree.bridge,
        empty_anchor=tree.empty_anchor,
        field_digest=field_digest(field),
        renderer=MembershipRenderer(field, cells, gaussian_leaf),
    )


def part_tree(
    image: Volume | GaussianField,
    *,
    field: GaussianField | None = None,
    params: PartParams | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> PartTree:
    """Divide an image into nested parts, without training and without prompts.

    The cells of the Gaussians are merged, most similar neighbors first, until one is left. One
    click and a few levels then choose a part: see :meth:`PartTree.at`.

    Parameters
    ----------
    image : Volume or GaussianField
        One or more contrasts. Of a field alone, the image that it renders is divided.
    field : GaussianField, optional
        Fitted to the image; fitted first otherwise, as for segmentation.
    params : PartParams, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    PartTree

    Raises
    ------
    ImageError
        When the image cannot be used, for example if it has one gray level only.
    GeometryError
        When the field belongs to another grid.
    ParameterError
        When there are no two cells.
    Cancelled
        When stopped.

    References
    ----------
    .. [1] A. R. Runnalls, "Kullback-Leibler approach to Gaussian mixture reduction", IEEE
       Transactions on Aerospace and Electronic Systems 43 (2007), 989-999.
    .. [2] L. Guigues, J. P. Cocquerez, H. Le Men, "Scale-sets image analysis", International
       Journal of Computer Vision 68 (2006), 289-317.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> sizes = tree.voxels
    >>> int(sizes[tree.root]) == head.image.size
    True
    """
    from napari_medgs.data.field import GaussianField as FieldType
    from napari_medgs.fitting import FitParams, StopReason, fit

    params = params or PartParams()
    if isinstance(image, FieldType):
        if field is not None:
            raise ParameterError("Give an image with its field, or a field alone.")
        from napari_medgs.rendering import render

        if not len(image):
            raise ParameterError("The field holds no Gaussians; fit it again.")
        with limit_threads(params.threads):
            contrasts = np.asarray(render(image), np.float32)
        return build_tree(
            contrasts.reshape(-1, *image.info.grid.shape), image, params,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip
    volume = image.prepared()
    if field is None:
        result = fit(
            volume,
            FitParams(iterations=FIT_ITERATIONS, threads=params.threads),
            progress=progress,
            should_stop=should_stop,
        )
        if result.stopped_by == StopReason.CANCELLED:
            from napari_medgs.errors import Cancelled

            raise Cancelled("The fit before the tree of parts was canceled.")
        field = result.field
    else:
        field.check_grid(volume.grid)
    return build_tree(volume.data, field, params, progress=progress, should_stop=should_stop)
