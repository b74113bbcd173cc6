"""Places on the command line: points and boxes in voxels of the stored file or in millimeters."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from napari_medgs.cli.words import is_number
from napari_medgs.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid

PANEL = "Prompts"
WIDTHS = {"--point": 4, "--box": 7, "--at": 3, "--not-at": 3}
"""Options whose value is several numbers and that may be repeated, with how many."""
_NEAR = 1e-4  # voxels; rounding of millimeters that are meant to hit a voxel center

WorldOption = Annotated[
    bool,
    typer.Option(
        "--world",
        help="Places are in RAS millimeters: x y z to the right, anterior and superior, in place "
        "of voxel indices z y x.",
        rich_help_panel=PANEL,
    ),
]


def join_places(args: Sequence[str], options: Collection[str]) -> list[str]:
    """Write ``--point 1 10 20 30`` as the one word ``--point=1 10 20 30``.

    Parameters
    ----------
    args : sequence of str
        The words of a command line.
    options : collection of str
        The command's options; others are left alone.

    Returns
    -------
    list of str

    Examples
    --------
    >>> join_places(["a.nii", "--point", "1", "-2", "3.5", "4", "b.nii"], {"--point"})
    ['a.nii', '--point=1 -2 3.5 4', 'b.nii']
    """
    joined: list[str] = []
    k = 0
    while k < len(args):
        word = args[k]
        k += 1
        if word not in WIDTHS or word not in options:
            joined.append(word)
            continue
        rest = args[k : k + WIDTHS[word]]
        numbers = list(itertools.takewhile(is_number, rest))
        # Something that is no number at all: a label's name, or a comma-separated list.
        taken = numbers or list(rest[:1])
        joined.append(f"{word}={' '.join(taken)}")
        k += len(taken)
    return joined


def read_numbers(option: str, text: str, metavar: str) -> list[float]:
    """Read the numbers of a place; commas may stand between them.

    Parameters
    ----------
    option : str
        For messages: "--point".
    text : str
        What was given.
    metavar : str
        What is expected: "LABEL Z Y X".

    Raises
    ------
    typer.BadParameter
        When there are more or fewer, or one is no finite number.

    Examples
    --------
    >>> read_numbers("--at", "1,2 3.5", "Z Y X")
    [1.0, 2.0, 3.5]
    """
    words = text.replace(",", " ").split()
    names = metavar.split()
    for word in words:
        if not is_number(word) or not np.isfinite(float(word)):
            raise typer.BadParameter(f"{option} {text}: '{word}' is no number; give {metavar}.")
    if len(words) != len(names):
        raise typer.BadParameter(
            f"{option} {text}: {len(words)} numbers where {len(names)} are needed: {metavar}."
        )
    return [float(word) for word in words]


def read_label(option: str, text: str, value: float, unlabeled: int | None = None) -> int:
    """Return a label that was read as a number.

    Raises
    ------
    typer.BadParameter
        When it is no whole number from 0, or means unlabeled.

    Examples
    --------
    >>> read_label("--point", "2 1 1 1", 2.0)
    2
    """
    if value != int(value) or value < 0:
        raise typer.BadParameter(
            f"{option} {text}: the label {value:g} is no whole number from 0 (background)."
        )
    if unlabeled and value == unlabeled:
        raise typer.BadParameter(
            f"{option} {text}: the label {value:g} means unlabeled (--unlabeled); choose another."
        )
    return int(value)


def place_point(
    grid: Grid, place: Sequence[float], *, world: bool, what: str, image: str
) -> tuple[float, float, float]:
    """Return a place on the canonical grid.

    Parameters
    ----------
    grid : Grid
        Of the image.
    place : three floats
        (z, y, x) in voxels of the stored file, or RAS millimeters.
    world : bool
        Whether they are millimeters.
    what : str
        How the place was given, for messages: "--point 1 2 3 4".
    image : str
        The image's file.

    Returns
    -------
    (float, float, float)
        (z, y, x) in canonical voxels.

    Raises
    ------
    GeometryError
        When it lies outside of the image.
    """
    point = _to_canonical(grid, np.asarray(place, np.float64), world)
    if ((point < -0.5 - _NEAR) | (point > np.asarray(grid.shape) - 0.5 + _NEAR)).any():
        raise GeometryError(f"{what}: lies outside of {image}, {_extent(grid, world)}.")
    z, y, x = np.clip(point, -0.5, np.asarray(grid.shape) - 0.5).tolist()
    return (z, y, x)


def place_box(
    grid: Grid, corners: Sequence[float], *, world: bool, what: str, image: str
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return a box on the canonical grid.

    Parameters
    ----------
    grid : Grid
        Of the image.
    corners : six floats
        First voxel z y x and one past the last, of the stored file; or two opposite corners in
        RAS millimeters: then the box has the voxels whose centers lie inside, and the voxels
        around them where the image is oblique to the patient's axes.
    world : bool
    what, image : str
        See :func:`place_point`.

    Returns
    -------
    start, stop : (int, int, int)
        First voxel and one past the last on the canonical grid.

    Raises
    ------
    GeometryError
        When it is empty, or reaches out of the image; in millimeters it is cut there.
    """
    from napari_medgs.data.stored_axes import box_from_stored, stored_shape

    first, second = np.asarray(corners[:3], np.float64), np.asarray(corners[3:], np.float64)
    if not world:
        if (first != np.round(first)).any() or (second != np.round(second)).any():
            raise GeometryError(f"{what}: the sides of a box are whole voxels.")
        if (second <= first).any():
            raise GeometryError(
                f"{what}: is empty; the stop is one past the last voxel and must be above the "
                "start on every axis."
            )
        if (first < 0).any() or (second > np.asarray(stored_shape(grid))).any():
            raise GeometryError(f"{what}: reaches out of {image}, {_extent(grid, world)}.")
        return box_from_stored(grid, first, second)
    every = np.array(list(itertools.product(*zip(first, second))))
    voxels = grid.to_voxel(every)
    low = np.maximum(np.ceil(voxels.min(axis=0) - _NEAR), 0).astype(int)
    high = np.minimum(np.floor(voxels.max(axis=0) + _NEAR) + 1, grid.shape).astype(int)
    if (high <= low).any():
        raise GeometryError(f"{what}: holds no voxel center of {image}, {_extent(grid, world)}.")
    start, stop = low.tolist(), high.tolist()
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _to_canonical(grid: Grid, place: NDArray[np.float64], world: bool) -> NDArray[np.float64]:
    from napari_medgs.data.stored_axes import from_stored

    return grid.to_voxel(place) if world else from_stored(grid, place)


def _extent(grid: Grid, world: bool) -> str:
    """Say where an image lies, in the units of the places."""
    from napari_medgs.data.stored_axes import stored_shape

    if not world:
        sizes = " x ".join(map(str, stored_shape(grid)))
        return f"which has {sizes} voxels (z, y, x; the first is 0)"
    ends = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in grid.shape))))
    corners = grid.to_world(ends)
    spans = zip("RAS", corners.min(axis=0), corners.max(axis=0))
    return (
        "which reaches from " + ", ".join(f"{n} {a:.4g} to {b:.4g}" for n, a, b in spans) + " mm"
    )
