"""How a stack is worked through on the device: tiles, slabs that bound the memory, targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.rendering.engine import StackTarget

THREADS = 256
ROW_ALIGNMENT = 8  # numbers in a memory sector of 32 bytes


def tile_shape(depth: int) -> tuple[int, int, int]:
    """Return columns, rows and slices of a tile for a stack: always 256 voxels."""
    if depth == 1:
        return (16, 16, 1)
    return (16, 8, 2) if depth == 2 else (8, 8, 4)


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Slab:
    """A run of wanted slices that is worked on at a time.

    Attributes
    ----------
    origin : int
        Its first slice's place among the wanted ones.
    positions : int
        How many slices.
    tiles : (int, int, int)
        Along columns, rows and slices.
    voxel_blocks : int
        Blocks of 256 voxels.
    partial_origin : int
        Where its blocks' error sums go.
    """

    origin: int
    positions: int
    tiles: tuple[int, int, int]
    voxel_blocks: int
    partial_origin: int

    @property
    def tile_count(self) -> int:
        """All tiles."""
        return self.tiles[0] * self.tiles[1] * self.tiles[2]


@dataclass(frozen=True)
class Plan:
    """Wanted slices on the device and the slabs they are worked through in.

    Attributes
    ----------
    wanted : int
        How many slices.
    slices : (wanted,) int32 tensor
        Their numbers, increasing.
    lookup : (depth + 1,) int32 tensor
        How many wanted slices lie before each slice.
    slabs : tuple of Slab
    """

    wanted: int
    slices: Tensor
    lookup: Tensor
    slabs: tuple[Slab, ...]

    @property
    def most_tiles(self) -> int:
        """Tiles of the largest slab."""
        return max((slab.tile_count for slab in self.slabs), default=0)

    @property
    def most_positions(self) -> int:
        """Slices of the largest slab."""
        return max((slab.positions for slab in self.slabs), default=0)

    @property
    def voxel_blocks(self) -> int:
        """Blocks of 256 voxels in all slabs."""
        return sum(slab.voxel_blocks for slab in self.slabs)


def checked_slices(slices: NDArray[Any] | None, depth: int) -> NDArray[np.int64]:
    """Return the numbers of wanted slices: all, those given, or those marked True.

    Raises
    ------
    ParameterError
        When they do not increase, or are not in the stack.
    """
    wanted = np.arange(depth) if slices is None else np.asarray(slices)
    if wanted.dtype == np.bool_:
        wanted = np.flatnonzero(wanted)
    wanted = wanted.astype(np.int64)
    if len(wanted) and (wanted[0] < 0 or wanted[-1] >= depth or (np.diff(wanted) <= 0).any()):
        raise ParameterError(f"Slices must increase and lie in 0 .. {depth - 1}.")
    return wanted


def make_plan(
    shape: tuple[int, int, int],
    tile: tuple[int, int, int],
    slices: NDArray[Any],
    slab_slices: int,
    device: Any,
) -> Plan:
    """Divide wanted slices into slabs.

    Parameters
    ----------
    shape : tuple of int
        (slices, rows, columns) of the stack.
    tile : tuple of int
        (columns, rows, slices) of a tile.
    slices : ndarray of int
        Increasing numbers of the wanted slices.
    slab_slices : int
        Most slices in a slab.
    device : torch.device
    """
    import torch

    depth, height, width = shape
    wanted = np.ascontiguousarray(slices, np.int32)
    before = np.searchsorted(wanted, np.arange(depth + 1)).astype(np.int32)
    slabs, partial = [], 0
    for origin in range(0, len(wanted), slab_slices):
        positions = min(slab_slices, len(wanted) - origin)
        sizes = ((width, tile[0]), (height, tile[1]), (positions, tile[2]))
        across, down, through = (ceil_div(size, part) for size, part in sizes)
        blocks = ceil_div(positions * height * width, THREADS)
        slabs.append(Slab(origin, positions, (across, down, through), blocks, partial))
        partial += blocks
    return Plan(
        len(wanted),
        torch.from_numpy(wanted).to(device),
        torch.from_numpy(before).to(device),
        tuple(slabs),
    )


@dataclass
class DeviceTarget:
    """A :class:`~napari_medgs.rendering.engine.StackTarget` on the device.

    Attributes
    ----------
    images, image_weights, seg_weights : tensor
    labels : uint8 tensor
    counted : tensor
        One for slices whose squared errors are summed, zero for others.
    active : ndarray of int
        Slices that carry any loss.
    classes : int
    l1 : bool
    """

    images: Tensor
    image_weights: Tensor
    labels: Tensor
    seg_weights: Tensor
    counted: Tensor
    active: NDArray[np.int64]
    classes: int
    l1: bool

    @classmethod
    def upload(cls, target: StackTarget, device: Any, dtype: Any) -> DeviceTarget:
        """Copy a target to a device."""
        import torch

        def move(array: NDArray[Any], kind: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, kind)

        return cls(
            move(target.images, dtype),
            move(target.image_weights, dtype),
            move(target.labels, torch.uint8),
            move(target.seg_weights, dtype),
            move(target.counted, dtype),
            np.flatnonzero(target.active),
            target.classes,
            target.l1,
        )
