"""What ``napari-medgs segment`` says of prompts that may not mean what was meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from napari_medgs.cli.command import print_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid
    from napari_medgs.segmentation import Prompts

AXES = "zyx"
FILLED = (
    "the classes divide the whole image, as no background is marked. Unless this is meant, say "
    "which value of the prompts is background (--background-label V), mark some "
    "(--point 0 Z Y X), or give a box around each class (--box)."
)
FILLED_SESSION = (
    "the classes divide the whole image, as no background is marked. Unless this is meant, open "
    "the session in the viewer, paint a stroke in the background, or draw a box around each "
    "class, and save it anew."
)


def common_names(named: Mapping[str, Mapping[int, str]]) -> dict[int, str]:
    """Return the names of the classes; warn where one value is named as two of them.

    Parameters
    ----------
    named : dict of str to (dict of int to str)
        Names by label value, of each file or model; the last one that names a value counts.

    Returns
    -------
    dict of int to str
    """
    from napari_medgs.io.label_names import given_names

    names: dict[int, str] = {}
    first: dict[int, tuple[str, str]] = {}
    for source, own in named.items():
        for value, name in given_names(own).items():
            earlier, where = first.setdefault(value, (name, source))
            if earlier.casefold() != name.casefold():
                print_error(
                    f"warning: the value {value} is {earlier!r} in {where} and {name!r} in "
                    f"{source}: values count, not names."
                )
        names |= {v: name for v, name in own.items() if v not in names} | given_names(own)
    return names


def warn_of_boxes(source: str, prompts: Prompts, names: Mapping[int, str], grid: Grid) -> None:
    """Say what is marked outside of the boxes of its class.

    Parameters
    ----------
    source : str
        The file of the prompts.
    prompts : Prompts
        Checked.
    names : dict of int to str
        Of the classes.
    grid : Grid
    """
    from napari_medgs.segmentation.prompts.outside_boxes import (
        describe_outside_boxes,
        find_outside_boxes,
    )

    found = find_outside_boxes(prompts, grid.shape)
    if found:
        print_error(f"warning: {source}: {describe_outside_boxes(found, names)}")


def warn_of_gaps(
    source: str,
    strokes: NDArray[Any],
    unlabeled: int,
    grid: Grid,
    fully_labeled: Collection[tuple[int, int]] = (),
) -> None:
    """Say which slices lack a few voxels to be fully labeled, as the image's file counts them.

    Parameters
    ----------
    source : str
        The file of the strokes.
    strokes : (Z, Y, X) ndarray of int
    unlabeled : int
        Their value that carries no label.
    grid : Grid
    fully_labeled : collection of (axis, index)
        Slices that were declared fully labeled: what they lack is background.
    """
    from napari_medgs.data.stored_axes import stored_axes
    from napari_medgs.segmentation.prompts.nearly_full import (
        describe_nearly_full,
        find_nearly_full_slices,
    )

    order, flips = stored_axes(grid)
    named = []
    for gap in find_nearly_full_slices(strokes, unlabeled):
        if (gap.axis, gap.index) in fully_labeled:
            continue
        index = grid.shape[gap.axis] - 1 - gap.index if flips[gap.axis] else gap.index
        named.append((f"slice {index} along {AXES[order[gap.axis]]}", gap.missing))
    if named:
        print_error(f"warning: {source}: {describe_nearly_full(named)}")
