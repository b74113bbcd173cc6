"""What clicking on parts asks of the core, ready for a thread. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree
    from napari_medgs.segmentation import InteractiveSegmenter


@dataclass(frozen=True)
class BuildParts:
    """Make the tree of parts, and compile what hovering needs.

    Attributes
    ----------
    segmenter : InteractiveSegmenter
    """

    segmenter: InteractiveSegmenter

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> PartTree:
        """Return the tree."""
        tree = self.segmenter.parts.tree(progress=progress, should_stop=should_stop)
        middle = tuple(n // 2 for n in tree.grid.shape)
        part = tree.at(middle)
        for axis in range(3):
            tree.outline(part.nodes, axis, middle[axis])
        return tree


@dataclass(frozen=True)
class MaskOfPart:
    """Compute the voxels of a part.

    Attributes
    ----------
    tree : PartTree
    part : PartSelection
    """

    tree: PartTree
    part: PartSelection

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[Any]:
        """Return the mask (Z, Y, X)."""
        return np.asarray(self.tree.mask(self.part.nodes))
