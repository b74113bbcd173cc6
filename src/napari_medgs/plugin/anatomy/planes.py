"""Which way the axes of a viewer run in the patient, and how to show them upright. No Qt.

napari draws the last displayed axis to the right and the one before it downwards, whatever they
are. In medicine superior and anterior are up, the patient's left is on the right, and in sagittal
planes posterior is on the right. Arrays and transforms stay as they are: only the camera is told
which way an axis is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.plugin.layer_orientation import (
    GRID_KEY,
    TRANSFORM_KEY,
    is_assumed,
    place_source,
    world_to_ras,
)

POSITIVE, NEGATIVE = "RAS", "LPI"
UP, RIGHT = "SA", "LP"  # directions that are drawn upwards, and to the right
THICK = 1.5  # slices this much thicker than their pixels are shown first
Order = tuple[int, ...]


@dataclass(frozen=True)
class Directions:
    """Where the last three axes of a viewer's world point to in the patient.

    Attributes
    ----------
    letters : str
        One of R, L, A, P, S, I for each axis: the direction in which its coordinates grow.
    """

    letters: str

    @classmethod
    def of_matrix(cls, world_to_ras: NDArray[Any]) -> Directions | None:
        """Return the directions nearest to the columns of a matrix, None where two share one."""
        part = np.asarray(world_to_ras, float)[:3, :3]
        axes = np.abs(part).argmax(axis=0)
        if len(set(axes.tolist())) < 3:
            return None
        signs = part[axes, np.arange(3)] > 0
        letters = [(POSITIVE if up else NEGATIVE)[a] for a, up in zip(axes, signs, strict=True)]
        return cls("".join(letters))

    @property
    def is_right_handed(self) -> bool:
        """Whether the three directions form a right-handed system."""
        matrix = np.zeros((3, 3))
        for column, letter in enumerate(self.letters):
            row = (POSITIVE if letter in POSITIVE else NEGATIVE).index(letter)
            matrix[row, column] = 1 if letter in POSITIVE else -1
        return bool(np.linalg.det(matrix) > 0)

    def kind(self, axis: int) -> int:
        """Return 0 for the left-right axis, 1 for anterior-posterior, 2 for superior-inferior."""
        return _kind(self.letters[axis])

    def order_for(self, hidden: int) -> tuple[int, int, int]:
        """Return the order of axes that shows the plane across an axis upright."""
        across, down = sorted((a for a in range(3) if a != hidden), key=self.kind)
        return hidden, down, across

    def borders(self, order: Sequence[int]) -> dict[str, str]:
        """Return the letters at the borders of the canvas when the camera is :func:`oriented`.

        Parameters
        ----------
        order : sequence of int
            Axes 0 to 2: the hidden one, then the vertical, then the horizontal one.

        Returns
        -------
        dict of str to str
            Letters at "top", "bottom", "left" and "right".
        """
        down, across = self.letters[order[1]], self.letters[order[2]]
        if self._goes_up(order[1]):
            top, bottom = down, opposite(down)
        else:
            top, bottom = opposite(down), down
        if self._goes_right(order[2]):
            left, right = opposite(across), across
        else:
            left, right = across, opposite(across)
        return {"top": top, "bottom": bottom, "left": left, "right": right}

    def orientation(self, order: Sequence[int]) -> tuple[str, str, str]:
        """Return napari's depth, vertical and horizontal orientation for an order of axes.

        The third follows from the other two: what is on the patient's left must not be mirrored
        in the 3D view.
        """
        vertical = "up" if self._goes_up(order[1]) else "down"
        horizontal = "right" if self._goes_right(order[2]) else "left"
        # (horizontal, vertical, depth) = (right, down, away) is a right-handed system.
        turned = Directions("".join(self.letters[k] for k in (order[2], order[1], order[0])))
        flips = (vertical == "up") + (horizontal == "left") + (not turned.is_right_handed)
        return ("towards" if flips % 2 else "away", vertical, horizontal)

    def _goes_up(self, axis: int) -> bool:
        letter = self.letters[axis]
        # Left and right are never up or down but after the user transposed: L downwards then.
        return letter in UP or letter == "R"

    def _goes_right(self, axis: int) -> bool:
        letter = self.letters[axis]
        return letter in RIGHT or letter == "I"


def _kind(letter: str) -> int:
    return POSITIVE.index(letter) if letter in POSITIVE else NEGATIVE.index(letter)


def opposite(letter: str) -> str:
    """Return the opposite direction: L for R, and so on."""
    return NEGATIVE[POSITIVE.index(letter)] if letter in POSITIVE else POSITIVE[_kind(letter)]


def is_upright(order: Sequence[int], directions: Directions) -> bool:
    """Tell whether the plane of an order of axes stands upright, not on its side."""
    return directions.order_for(order[0]) == tuple(order)


def known_directions(layers: Iterable[Any]) -> Directions | None:
    """Return the directions on which the layers of known orientation agree, else None.

    Parameters
    ----------
    layers : iterable of napari.layers.Layer
    """
    found = {directions_of(layer) for layer in layers} - {None}
    return found.pop() if len(found) == 1 else None


def directions_of(layer: Any) -> Directions | None:
    """Return the directions of a layer's world axes; None where no file states them."""
    if layer.ndim < 3:
        return None
    record = layer.metadata.get(GRID_KEY)
    if record is not None:
        grid = Grid.from_dict(record)
        if is_assumed(grid) or not is_orientation_known(grid):
            return None
        if layer.ndim > 3:  # volumes in time: the place of one of them
            return _of_volumes(layer, grid)
    elif place_source(layer).get("assumed"):
        return None
    matrix = world_to_ras(layer)
    return None if matrix is None else Directions.of_matrix(matrix)


def _of_volumes(layer: Any, grid: Grid) -> Directions | None:
    """Return the directions of the last three axes of a layer of volumes that our reader made."""
    drawn = np.asarray(layer.metadata.get(TRANSFORM_KEY, np.zeros((4, 4))), float)
    if drawn.shape != (4, 4) or abs(np.linalg.det(drawn)) < 1e-12:
        return None
    return Directions.of_matrix(grid.affine @ np.linalg.inv(drawn))


def slice_plane(layer: Any) -> int | None:
    """Return the axis across whose slices a layer was taken, None where none is much thicker.

    Parameters
    ----------
    layer : napari.layers.Layer
        With three axes in space, the last ones.
    """
    if layer.ndim < 3 or getattr(layer, "rgb", False):
        return None
    sizes = np.abs(np.asarray(layer.scale, float))[-3:]
    axis = int(sizes.argmax())
    others = np.delete(sizes, axis)
    return axis if sizes[axis] >= THICK * others.max() else None
