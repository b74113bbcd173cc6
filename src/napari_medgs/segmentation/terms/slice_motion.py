"""Where the pixels of a slice come from in annotated slices, by in-plane motion.

Structures shift and bend from slice to slice. The motion between neighboring slices is estimated
once per image; followed from slice to slice it leads every pixel to a place in the nearest
annotated slice on either side, whose outlines then hold for it
(:mod:`~napari_medgs.segmentation.terms.shape_prior`). Large images are followed on averages over
blocks of pixels.

References
----------
Lucas and Kanade 1981, *An iterative image registration technique with an application to stereo
vision*, IJCAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.interpolation import FlowParams, estimate_flow
from napari_medgs.interpolation.kernels import bilinear, middle_point
from napari_medgs.segmentation.term_params import MotionPriorParams

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}

BELOW, ABOVE = 0, 1  # sides on which an annotated slice lies


@njit(**_options)
def _follow(half: Any, direction: Any, nearer: Any, out: Any) -> None:
    """Write where a slice's pixels come from, given that of the next slice on the way.

    Parameters
    ----------
    half : (2, Y, X) ndarray of float32
        Half the motion between both slices.
    direction : float32
        1 when the annotated slice lies below, else -1.
    nearer : (2, Y, X) ndarray of float32
        Places for the slice that is one step nearer to the annotated one.
    out : (2, Y, X) ndarray of float32
    """
    height, width = half.shape[1:]
    step = np.float32(2) * direction
    for y in range(height):
        for x in range(width):
            fy, fx = np.float32(y), np.float32(x)
            vy, vx = middle_point(half, fy, fx, direction)
            out[0, y, x] = bilinear(nearer[0], fy - step * vy, fx - step * vx)
            out[1, y, x] = bilinear(nearer[1], fy - step * vy, fx - step * vx)


@dataclass(frozen=True)
class Trajectories:
    """Places in the nearest annotated slices from which the pixels of all slices come.

    Attributes
    ----------
    slices : (S,) ndarray of int64
        Indices of the annotated slices, increasing.
    places : (2, Z, 2, Y, X) ndarray of float32
        Row and column, in blocks of pixels, in the nearest annotated slice at or below each slice,
        and in that at or above it. Not valid where there is none.
    reduction : int
        Pixels of a block along rows and columns.
    """

    slices: NDArray[np.int64]
    places: Floats
    reduction: int


class SliceMotion:
    """Motion between the slices of one image; estimated when it is first asked for.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray of uint16
    params : MotionPriorParams, optional

    Examples
    --------
    A bright spot that moves by one column a slice:

    >>> import numpy as np
    >>> x, y = np.arange(40), np.arange(24)[:, None]
    >>> spot = [np.exp(-((x - 12 - z) ** 2 + (y - 12) ** 2) / 18) for z in range(6)]
    >>> motion = SliceMotion((6e4 * np.stack(spot)[None]).astype(np.uint16))
    >>> found = motion.trajectories(0, np.array([0]))
    >>> [int(v) for v in np.round(found.places[0, 5, :, 12, 17])]
    [12, 12]
    """

    def __init__(self, image: NDArray[np.uint16], params: MotionPriorParams | None = None) -> None:
        self._image, self._params = image, params or MotionPriorParams()
        self._axis = -1
        self._half: Floats = np.zeros((0, 2, 1, 1), np.float32)
        self._places: Floats | None = None
        self._source: NDArray[np.int64] = np.zeros((2, 0), np.int64)
        self._reduction, self._grid = 1, (1, 1)

    def estimate(self, axis: int) -> None:
        """Estimate the motion across the slices of one orientation, unless that is done.

        Parameters
        ----------
        axis : int
            Normal of the slices.
        """
        if axis == self._axis:
            return
        own = self._params
        image = np.moveaxis(self._image, axis + 1, 1)
        side = blocks_side(image.shape[1:], own.voxels)
        blocks = block_means(image, side)
        flow = estimate_flow(
            blocks,
            params=FlowParams(window=own.window, ridge=own.ridge, iterations=own.iterations),
        )
        # All at once: what was known stays whole if memory does not suffice.
        self._half, self._axis, self._places = flow.half_displacement, axis, None
        self._reduction, self._grid = side, (blocks.shape[2], blocks.shape[3])

    def trajectories(self, axis: int, slices: NDArray[np.int64]) -> Trajectories:
        """Follow the motion from every slice to the nearest annotated ones.

        Slices whose nearest annotated slice is that of the last call are not followed again.

        Parameters
        ----------
        axis : int
            Normal of the slices.
        slices : (S,) ndarray of int64
            Indices of the annotated slices, increasing; at least one.

        Returns
        -------
        Trajectories
        """
        self.estimate(axis)
        depth = self._image.shape[axis + 1]
        if self._places is None:
            self._places = np.zeros((2, depth, 2, *self._grid), np.float32)
            self._source = np.full((2, depth), -1, np.int64)
        every = np.arange(depth)
        below = np.searchsorted(slices, every, side="right") - 1
        above = np.searchsorted(slices, every, side="left")
        wanted = np.full((2, depth), -1, np.int64)
        wanted[BELOW, below >= 0] = slices[below[below >= 0]]
        wanted[ABOVE, above < len(slices)] = slices[above[above < len(slices)]]
        if (wanted != self._source).any():
            places = self._places.copy()  # the last ones belong to a result
            run_chunks(partial(self._follow_side, wanted, places), 2)
            self._places, self._source = places, wanted
        return Trajectories(slices, self._places, self._reduction)

    def _follow_side(self, wanted: NDArray[np.int64], both: Floats, side: int) -> None:
        """Bring the places of one side up to date."""
        places, known, wish = both[side], self._source[side], wanted[side]
        depth = len(wish)
        for z in range(depth) if side == BELOW else range(depth - 1, -1, -1):
            if wish[z] < 0 or wish[z] == known[z]:
                continue
            if wish[z] == z:
                places[z] = np.indices(self._grid, np.float32)
            elif side == BELOW:
                _follow(self._half[z - 1], np.float32(1), places[z - 1], places[z])
            else:
                _follow(self._half[z], np.float32(-1), places[z + 1], places[z])


def blocks_side(shape: tuple[int, ...], most: int) -> int:
    """Return the side of the blocks of pixels with which a stack has at most so many blocks.

    Examples
    --------
    >>> blocks_side((100, 512, 512), 4_000_000)
    3
    """
    depth, height, width = shape
    side = 1
    while depth * -(-height // side) * -(-width // side) > most and side < max(height, width):
        side += 1
    return side


def block_means(image: NDArray[np.uint16], side: int) -> Floats:
    """Return the means of an image (C, Z, Y, X) over square blocks of pixels.

    Blocks at the end repeat the last rows and columns where these do not fill them.
    """
    channels, depth, height, width = image.shape
    out = np.empty((channels, depth, -(-height // side), -(-width // side)), np.float32)
    pad = ((0, -height % side), (0, -width % side))

    def average(k: int) -> None:
        c, z = divmod(k, depth)
        plane = image[c, z].astype(np.float32)
        if side > 1:
            plane = np.pad(plane, pad, mode="edge")
            rows, columns = out.shape[2:]
            plane = plane.reshape(rows, side, columns, side).mean(axis=(1, 3))
        out[c, z] = plane

    run_chunks(average, channels * depth)
    return out
