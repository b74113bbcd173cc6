"""What clicking on parts asks of the core, ready for a thread. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs._util.threads import limit_threads
from napari_medgs.plugin.trees import stored_tree

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree
    from napari_medgs.segmentation import InteractiveSegmenter


@dataclass(frozen=True)
class BuildParts:
    """Make the tree of parts, and compile what hovering needs.

    Attributes
    ----------
    segmenter : InteractiveSegmenter
    known : PartTree or Path or None
        A tree that there is already, or a field file that may hold one.
    threads : int or None
        CPU threads; None for all.
    """

    segmenter: InteractiveSegmenter
    known: PartTree | Path | None = None
    threads: int | None = None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> PartTree:
        """Return the tree."""
        known = self.known
        if isinstance(known, Path):
            known = stored_tree(known, self.segmenter.field)
        if known is not None:
            self.segmenter.parts.set_tree(known)
        with limit_threads(self.threads):
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
