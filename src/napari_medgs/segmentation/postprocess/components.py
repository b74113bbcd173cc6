"""Connected components and holes: kernels that visit the voxels of the classes only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.params import IslandRule
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.terms.basin_kernels import find_root

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _list_runs(labels: Any, z: int, starts: Any, stops: Any, kinds: Any, first: Any) -> int:
    """Write the runs of one class in the rows of a slice; with no room only count them."""
    _, height, width = labels.shape
    listed = len(starts) > 0
    count = 0
    for y in range(height):
        if listed:
            first[y] = count
        row = labels[z, y]
        x = 0
        while x < width:
            kind = row[x]
            if kind == 0:
                x += 1
                continue
            begin = x
            while x < width and row[x] == kind:
                x += 1
            if listed:
                starts[count], stops[count], kinds[count] = begin, x, kind
            count += 1
    return count


@njit(**_options)
def _join_rows(
    parent: Any, starts: Any, stops: Any, kinds: Any, a: int, a_end: int, b: int, b_end: int
) -> None:
    """Join the runs of one row to those of a neighboring row that touch them."""
    while a < a_end and b < b_end:
        if kinds[a] == kinds[b] and starts[a] < stops[b] and starts[b] < stops[a]:
            p, q = find_root(parent, a), find_root(parent, b)
            if p != q:
                if parent[p] > parent[q]:
                    p, q = q, p
                parent[p] += parent[q]
                parent[q] = p
        if stops[a] <= stops[b]:
            a += 1
        else:
            b += 1


@njit(**_options)
def _unreached(
    starts: Any, stops: Any, kinds: Any, rows: Any, depth: int, height: int, voxels: Any
) -> Any:
    """Return which runs hang together with none that holds one of the voxels (P, 3)."""
    parent = np.full(len(starts), -1, np.int32)
    for r in range(depth * height):
        if r % height:
            _join_rows(parent, starts, stops, kinds, rows[r - 1], rows[r], rows[r], rows[r + 1])
        if r >= height:
            above = r - height
            _join_rows(
                parent, starts, stops, kinds, rows[above], rows[above + 1], rows[r], rows[r + 1]
            )
    reached = np.zeros(len(starts), np.bool_)
    for k in range(len(voxels)):
        r, x = voxels[k, 0] * height + voxels[k, 1], voxels[k, 2]
        for i in range(rows[r], rows[r + 1]):
            if starts[i] <= x < stops[i]:
                reached[find_root(parent, i)] = True
                break
    lost = np.empty(len(starts), np.bool_)
    for i in range(len(starts)):
        lost[i] = not reached[find_root(parent, i)]
    return lost


@njit(**_options)
def _clear_runs(labels: Any, starts: Any, stops: Any, rows: Any, lost: Any) -> int:
    """Make lost runs background; return how many voxels."""
    depth, height, _ = labels.shape
    dropped = 0
    for r in range(depth * height):
        z, y = r // height, r % height
        for i in range(rows[r], rows[r + 1]):
            if lost[i]:
                labels[z, y, starts[i] : stops[i]] = 0
                dropped += stops[i] - starts[i]
    return dropped


def _drop_unmarked(labels: NDArray[np.uint8], voxels: NDArray[np.int32]) -> int:
    """Make components without a marked voxel (P, 3) background, in place.

    Rows are taken as runs of one class: far fewer than voxels, and the slices' are listed side by
    side.
    """
    depth, height, _ = labels.shape
    none = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8)
    counts = np.zeros(depth + 1, np.int64)
    nothing = np.empty(0, np.int64)

    def count(z: int) -> None:
        counts[z + 1] = _list_runs(labels, z, *none, nothing)

    run_chunks(count, depth)
    first = np.cumsum(counts)
    total = int(first[-1])
    starts, stops = np.empty(total, np.int32), np.empty(total, np.int32)
    kinds, rows = np.empty(total, np.uint8), np.full(depth * height + 1, total, np.int64)

    def fill(z: int) -> None:
        part = slice(first[z], first[z + 1])
        own = rows[z * height : (z + 1) * height]
        if first[z] < first[z + 1]:
            _list_runs(labels, z, starts[part], stops[part], kinds[part], own)
            own += first[z]
        else:
            own[:] = first[z]

    run_chunks(fill, depth)
    lost = _unreached(starts, stops, kinds, rows, depth, height, voxels)
    return int(_clear_runs(labels, starts, stops, rows, lost)) if lost.any() else 0


def drop_islands(labels: NDArray[np.uint8], markers: Markers, rule: IslandRule) -> int:
    """Turn connected components that the rule does not keep into background, in place.

    Whatever the rule, those with a voxel that the user has marked as their class stay.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
    markers : Markers
        Of all classes, slice-first.
    rule : IslandRule

    Returns
    -------
    int
        Voxels changed.
    """
    if rule is IslandRule.KEEP:
        return 0
    if rule is IslandRule.CONNECTED:
        return _drop_unmarked(labels, markers.voxels[markers.classes > 0])
    from scipy.ndimage import label as components

    changed = 0
    for k, box in _boxes(labels, markers.count):
        part = labels[box]
        pieces, count = components(part == k)
        if count > 1:
            sizes = np.bincount(pieces.reshape(-1))
            sizes[0] = 0
            drawn = markers.voxels[markers.user_marked & (markers.classes == k)]
            kept = np.zeros(count + 1, np.bool_)
            kept[pieces[tuple(_within(drawn, box).T)]] = True
            kept[0] = kept[sizes.argmax()] = True
            lost = ~kept[pieces]
            part[lost] = 0
            changed += int(np.count_nonzero(lost))
    return changed


def fill_holes(labels: NDArray[np.uint8], markers: Markers) -> int:
    """Turn background enclosed by one class into that class, in place, unless it is marked.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
    markers : Markers

    Returns
    -------
    int
        Voxels changed.
    """
    from scipy.ndimage import binary_fill_holes
    from scipy.ndimage import label as components

    changed = 0
    marked = markers.voxels[markers.classes == 0]
    for k, box in _boxes(labels, markers.count):
        part = labels[box]
        holes = binary_fill_holes(part == k) & (part == 0)
        if not holes.any():
            continue
        pieces, _ = components(holes)
        kept = np.unique(pieces[tuple(_within(marked, box).T)])
        holes &= ~np.isin(pieces, kept[kept > 0])
        part[holes] = k
        changed += int(np.count_nonzero(holes))
    return changed


def _within(voxels: NDArray[np.int32], box: tuple[slice, ...]) -> NDArray[Any]:
    """Return which places in a box (Q, 3) the voxels (P, 3) are that lie in it."""
    start = [s.start for s in box]
    inside = ((voxels >= start) & (voxels < [s.stop for s in box])).all(axis=1)
    places: NDArray[Any] = voxels[inside] - start
    return places


def _boxes(labels: NDArray[np.uint8], count: int) -> list[tuple[int, tuple[slice, ...]]]:
    from scipy.ndimage import find_objects

    found = find_objects(labels, max_label=count - 1)
    return [(k + 1, box) for k, box in enumerate(found) if box is not None]
