"""Parts in the viewer: the layer of the cut, the table, the map, and what a click means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_medgs.plugin.discover.disc import NO_PARTS, PartDisc
from napari_medgs.plugin.discover.jobs import MOST_POINTS, DrawParts, ImageTask, MapParts
from napari_medgs.plugin.discover.layers import add_labels, is_shown
from napari_medgs.plugin.discover.parts_tab import PartsTab
from napari_medgs.plugin.layer_frame import world_of_slice
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.trees import keep_tree
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartEmbedding, Partition, PartTree
    from napari_medgs.plugin.discover.widget import DiscoverWidget

REST_MS = 350  # from the slider's last move until the smooth labels are made
NAME = "parts"


class PartsView:
    """Keeps layer, table and map of one tree together.

    Parameters
    ----------
    owner : DiscoverWidget
        Whose life threads and timer share.
    tab : PartsTab
    disc : PartDisc
    """

    def __init__(self, owner: DiscoverWidget, tab: PartsTab, disc: PartDisc) -> None:
        self._owner, self._tab, self._disc = owner, tab, disc
        self.viewer = owner.viewer
        self.drawing, self.mapping = Runner(owner), Runner(owner)
        self.tree: PartTree | None = None
        self.parts: Partition | None = None
        self.task: ImageTask | None = None
        self.layer: Any = None
        self.embedding: PartEmbedding | None = None
        self._wanted: int | None = None  # a count that waits for the thread
        self._rest = QTimer(owner)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._make_smooth)
        tab.count_changed.connect(self._on_count)
        tab.named.connect(self._on_named)
        tab.selected.connect(self._on_selected)
        tab.merge.clicked.connect(lambda *_: self.merge())
        tab.split.clicked.connect(lambda *_: self.split())
        disc.picked.connect(self._on_picked)

    def set_tree(
        self,
        task: ImageTask,
        found: tuple[PartTree, Partition, NDArray[np.int32]],
    ) -> None:
        """Show the parts of a tree that was just made."""
        self.task = task
        self.tree, self.parts, labels = found
        self.embedding = None
        self._tab.set_ready(True)
        self._show(labels)
        keep_tree(self.viewer.layers, self.tree)
        self.map_parts()

    # The layer

    def _show(self, labels: NDArray[np.int32]) -> None:
        if self.parts is None or self.task is None or self.tree is None:
            return
        if self.layer not in self.viewer.layers and not is_shown(self.viewer, self.task):
            return  # both were removed while it was drawn
        field = self.tree.need_renderer().field
        layer = add_labels(self.viewer, self.task, field, labels, NAME, self.parts.names)
        if layer is not self.layer:
            self.layer = layer
            layer.mouse_drag_callbacks.append(self._on_click)
            layer.mode = "pan_zoom"
        self._fill()
        # After merges and splits there are other numbers than the slider's.
        if self._wanted is None and not self._tab.slider.isSliderDown():
            self._tab.show_count(self._tab.table.rowCount())

    def colors(self, labels: Any) -> dict[int, Any]:
        """Return the colors of labels in the layer."""
        return {int(k): self.layer.get_color(int(k)) for k in labels}

    def _fill(self) -> None:
        assert self.parts is not None
        sizes = self.parts.milliliters()
        colors = self.colors(sizes)
        self._tab.show_parts(sizes, self.parts.names, colors)
        texts = {k: f"{self._title(k)}, {v:.3g} mL" for k, v in sizes.items()}
        nodes = {node: label for label, nodes in self.parts.nodes.items() for node in nodes}
        self._disc.show_parts(self.embedding, nodes, colors, texts)

    def _title(self, label: int) -> str:
        assert self.parts is not None
        return self.parts.names.get(label, f"part {label}")

    # Finer and coarser

    def _on_count(self, count: int, rests: bool) -> None:
        if self.parts is None:
            return
        self._wanted = count
        self._draw_wanted()
        self._rest.start()

    def _draw_wanted(self) -> None:
        if self._wanted is None or self.parts is None or self.drawing.busy:
            return
        count, self._wanted = self._wanted, None
        self._draw(DrawParts(self.parts, count, rendered=False), self._draw_wanted)

    def _make_smooth(self) -> None:
        if self.drawing.busy or self._tab.slider.isSliderDown():
            self._rest.start()
            return
        if self.parts is not None:
            self._draw(DrawParts(self.parts, None, rendered=True), self._draw_wanted)
            self.map_parts()

    def _draw(self, job: DrawParts, after: Any = lambda: None) -> None:
        self.drawing.start(
            job,
            returned=self._show,
            errored=lambda error: show_failure(error, "Drawing parts"),
            finished=after,
        )

    def map_parts(self) -> None:
        """Lay the parts out on the map, in the background."""
        if self.tree is None or self._is_mapped():
            return
        if self.mapping.busy:
            self.mapping.stop()
            self._rest.start()
            return
        self._disc.say("Laying out the map …")
        self.mapping.start(
            MapParts(self.tree, self._nodes()),
            returned=self._on_mapped,
            errored=self._on_unmapped,
            cancelled=lambda: self._disc.say(NO_PARTS),
        )

    def _on_unmapped(self, error: Exception) -> None:
        self._disc.say(NO_PARTS)
        show_failure(error, "The map of the parts")

    def _nodes(self) -> tuple[int, ...]:
        """Return the nodes of the parts, the largest ones where there are many."""
        assert self.parts is not None
        assert self.tree is not None
        nodes = {n for nodes in self.parts.nodes.values() for n in nodes}
        above = {int(n) for node in nodes for n in self.tree.ancestors(node)[1:]}
        sizes = self.tree.voxels
        return tuple(sorted(nodes - above, key=lambda n: (-sizes[n], n))[:MOST_POINTS])

    def _is_mapped(self) -> bool:
        """Tell whether the map shows the parts that there are."""
        shown = self.embedding
        return shown is not None and set(self._nodes()) == set(shown.nodes[shown.is_part].tolist())

    def _on_mapped(self, embedding: PartEmbedding | None) -> None:
        self.embedding = embedding
        self._disc.say("A map needs two parts or more.")
        if self.layer is not None:
            self._fill()

    # Choosing

    def _on_click(self, layer: Any, event: Any) -> Any:
        """Choose the part under a click; a drag moves the view as ever.

        Yields
        ------
        None
            Once, and at every move of a drag.
        """
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged = True
            yield
        if dragged or layer.mode != "pan_zoom":
            return
        value = layer.get_value(
            event.position, view_direction=event.view_direction,
            dims_displayed=event.dims_displayed, world=True,
        )  # fmt: skip
        if value:
            self.choose(int(value))

    def choose(self, label: int) -> None:
        """Mark a part in table and map."""
        self._tab.select({label})
        self._disc.choose(label)
        self.layer.selected_label = label

    def _on_selected(self, label: int) -> None:
        self._disc.choose(label)
        self._go_to(label)

    def _on_picked(self, label: int) -> None:
        self._tab.select({label})
        self._go_to(label)

    @guarded
    def _go_to(self, label: int) -> None:
        """Show a part that was chosen in table or map: the planes through its largest section."""
        self.layer.selected_label = label
        place = self._place_of(label)
        if place is not None:
            for axis, position in enumerate(place):
                world = world_of_slice(self.layer, axis, position)
                self.viewer.dims.set_point(axis + self.viewer.dims.ndim - len(place), world)
        if not self.layer.visible:
            self.layer.visible = True

    def _place_of(self, label: int) -> tuple[int, ...] | None:
        from napari_medgs.hierarchy.partition import place_in

        return place_in(np.asarray(self.layer.data), label)

    # Editing

    @guarded
    def _on_named(self, label: int, text: str) -> None:
        if self.parts is not None:
            self.parts.name(label, text)
            self.layer.metadata["medgs_label_names"] = dict(self.parts.names)
            self._fill()

    @guarded
    def merge(self) -> None:
        """Join the selected parts."""
        if self.parts is not None:
            label = self.parts.merge(self._tab.labels())
            self._draw(DrawParts(self.parts, None, rendered=True), self.map_parts)
            self._tab.select({label})

    @guarded
    def split(self) -> None:
        """Divide the selected part."""
        if self.parts is not None and self._tab.labels():
            self.parts.split(self._tab.labels()[0])
            self._draw(DrawParts(self.parts, None, rendered=True), self.map_parts)

    def shut_down(self) -> None:
        """Stop the threads and let go of the layer."""
        self._rest.stop()
        self.drawing.shut_down()
        self.mapping.shut_down()
        if self.layer is not None and self._on_click in self.layer.mouse_drag_callbacks:
            self.layer.mouse_drag_callbacks.remove(self._on_click)
