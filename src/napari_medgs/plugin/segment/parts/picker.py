"""Which part the mouse points at, and which one was clicked last. No Qt, no napari."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_medgs._typing import Doubles
from napari_medgs.plugin.segment.canvas_place import Place

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree

KEPT = 512  # outlines and selections: some seconds of moving the mouse


class PartPicker:
    """The part on show: the clicked one while the mouse is within it, else that below the mouse.

    The wheel changes the part on show. A clicked part stays open to changes of its size and to
    further places, until :meth:`release`.

    Parameters
    ----------
    tree : PartTree

    Attributes
    ----------
    hovered : PartSelection or None
        Below the mouse, outside of the clicked part.
    clicked : PartSelection or None
        The last one that was clicked, as long as it may be changed.
    """

    changed = Signal()  # what is on show

    def __init__(self, tree: PartTree) -> None:
        self.tree = tree
        self.hovered: PartSelection | None = None
        self.clicked: PartSelection | None = None
        self._leaf: int | None = None
        self._walked = False  # whether the user has chosen the size of the hovered part
        self._selections: OrderedDict[int, PartSelection] = OrderedDict()
        self._outlines: OrderedDict[tuple[tuple[int, ...], int, int], list[Doubles]] = (
            OrderedDict()
        )

    @property
    def shown(self) -> PartSelection | None:
        """The part that the wheel changes."""
        return self.clicked if self.hovered is None else self.hovered

    @property
    def milliliters(self) -> float:
        """Volume of the part on show."""
        part = self.shown
        return 0.0 if part is None else sum(self.tree.milliliters(n) for n in part.nodes)

    def contains(self, part: PartSelection, leaf: int) -> bool:
        """Tell whether a leaf lies in a part."""
        return bool(set(self.tree.ancestors(leaf).tolist()) & set(part.nodes))

    # The mouse

    def point_at(self, place: Place | None) -> None:
        """Move the mouse to a voxel, or away.

        The size that the user chose for a part stays while the mouse is within that part.
        """
        leaf = None if place is None else self.tree.leaf_at(place)
        if leaf == self._leaf:
            return
        self._leaf = leaf
        before = self.hovered
        self.hovered = None
        if leaf is not None and place is not None:
            if self.clicked is None or not self.contains(self.clicked, leaf):
                self.hovered = self._selection(leaf, place)
            if self.hovered is None or before is None:
                self._walked = False
            elif self._walked and before.nodes in self.hovered.levels:
                self.hovered = self.hovered.at_level(self.hovered.levels.index(before.nodes))
            else:
                self._walked = False
        if self.hovered is not before or self.hovered is None:
            self.changed.emit()

    def _selection(self, leaf: int, place: Place) -> PartSelection:
        if leaf not in self._selections:
            self._selections[leaf] = self.tree.at(place)
            if len(self._selections) > KEPT:
                self._selections.popitem(last=False)
        return self._selections[leaf]

    def walk(self, steps: int) -> bool:
        """Make the part on show some levels larger or smaller; return whether it could be."""
        part = self.shown
        return part is not None and self.set_level(part.level + steps)

    def set_level(self, level: int) -> bool:
        """Choose the size of the part on show; see :meth:`walk`."""
        part = self.shown
        if part is None or part.at_level(level).level == part.level:
            return False
        if self.hovered is None:
            self.clicked = part.at_level(level)
        else:
            self.hovered = part.at_level(level)
            self._walked = True
        self.changed.emit()
        return True

    # Clicks

    def part_at(self, place: Place) -> PartSelection:
        """Return the part that a click on a voxel takes, which is the one on show there."""
        self.point_at(place)
        return self.tree.at(place) if self.hovered is None else self.hovered

    def click(self, part: PartSelection) -> None:
        """Let a part be the clicked one."""
        self.clicked, self.hovered, self._walked = part, None, False
        self.changed.emit()

    def add_place(self, place: Place, *, belongs: bool) -> PartSelection:
        """Add a place to the clicked part, which belongs to it or does not.

        The size is the one that the places determine, else the part that stands out most.

        Returns
        -------
        PartSelection
            The clicked part from now on.

        Raises
        ------
        ParameterError
            When places of both kinds share a cell, which cannot be divided.
        """
        assert self.clicked is not None
        positive, negative = list(self.clicked.positive), list(self.clicked.negative)
        (positive if belongs else negative).append(place)
        self.click(self.tree.at(*positive, negative=negative))
        self._leaf = None
        return self.clicked

    def release(self) -> None:
        """Let the clicked part be as it is."""
        if self.clicked is not None:
            self.clicked, self._leaf = None, None
            self.changed.emit()

    # Lines

    def outline(self, part: PartSelection, axis: int, index: int) -> list[Doubles]:
        """Return closed lines around a part in a plane; see :meth:`PartTree.outline`."""
        key = (part.nodes, axis, index)
        if key not in self._outlines:
            self._outlines[key] = self.tree.outline(part.nodes, axis, index)
            if len(self._outlines) > KEPT:
                self._outlines.popitem(last=False)
        self._outlines.move_to_end(key)
        return self._outlines[key]
