"""Choosing layers: a combo box and a checklist that follow the viewer's list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psygnal
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QListWidget, QListWidgetItem

from napari_medgs.plugin.layer_metadata import FIELD_KEY, field_of, role_of
from napari_medgs.plugin.widgets.base import MedGSWidget

LayerFilter = Callable[[Any], bool]


class LayerNews:
    """Says that layers got a field or another role, of which napari has no event."""

    changed = psygnal.Signal()


NEWS = LayerNews()


def is_kind(*names: str) -> LayerFilter:
    """Return a filter for layer classes by name ("Image", "Labels" ..)."""
    return lambda layer: type(layer).__name__ in names


def is_source_image(layer: Any) -> bool:
    """Tell whether a layer is an image that a fit could use, and no result of one."""
    made = FIELD_KEY in layer.metadata or role_of(layer) is not None
    return type(layer).__name__ == "Image" and not made


def one_per_field(viewer: Any, layer: Any) -> bool:
    """Tell whether a layer is the first in the viewer that carries its field."""
    field = field_of(layer)
    if field is None:
        return False
    return next(x for x in viewer.layers if field_of(x) is field) is layer


class LayerCombo(QComboBox):
    """A combo box of the viewer's layers that pass a filter.

    Parameters
    ----------
    owner : MedGSWidget
        Listens to the viewer for it.
    keep : callable
        layer -> bool.
    none : str, optional
        Text of an entry for "no layer", shown first.
    rank : callable, optional
        layer -> number: smaller ones are listed first, and the first one is chosen until the
        user has chosen.
    """

    changed = Signal()

    def __init__(
        self,
        owner: MedGSWidget,
        keep: LayerFilter,
        none: str | None = None,
        rank: Callable[[Any], int] | None = None,
    ) -> None:
        super().__init__()
        self._rank = rank
        self._chosen_by_user = rank is None
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._owner, self._viewer = owner, owner.viewer
        self._keep, self._none = keep, none
        self._layers: list[Any] = []
        self._filled = False
        events = owner.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, NEWS.changed):
            owner.listen(emitter, self.refresh)
        self.currentIndexChanged.connect(lambda *_: self.changed.emit())
        self.activated.connect(self._on_activated)
        self.refresh()

    def set_filter(self, keep: LayerFilter) -> None:
        """Choose among other layers from now on."""
        self._keep = keep
        self.refresh()

    def refresh(self, event: Any = None) -> None:
        """List the layers again, newest first, keeping the choice where it still exists."""
        before = self.layer
        layers = [x for x in reversed(list(self._viewer.layers)) if self._keep(x)]
        if self._rank is not None:
            layers.sort(key=self._rank)
        names = [x.name for x in layers]
        if self._filled and layers == self._layers and names == self._names():
            return
        self._filled = True
        for layer in layers:
            if layer not in self._layers:
                self._owner.listen(layer.events.name, self.refresh)
        self.blockSignals(True)
        self.clear()
        if self._none is not None:
            self.addItem(self._none)
        self.addItems(names)
        self._layers = layers
        self.blockSignals(False)
        if self._rank is not None and before not in layers:
            self._chosen_by_user = False
        self._select(before if self._chosen_by_user else None)
        if self.layer is not before:
            self.changed.emit()

    def _on_activated(self, index: int) -> None:
        self._chosen_by_user = True

    def _names(self) -> list[str]:
        skip = 0 if self._none is None else 1
        return [self.itemText(k) for k in range(skip, self.count())]

    @property
    def layer(self) -> Any | None:
        """The chosen layer."""
        index = self.currentIndex() - (0 if self._none is None else 1)
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Any | None) -> None:
        """Choose a layer, or the first entry when it is not listed."""
        self._chosen_by_user = True
        self._select(layer)

    def _select(self, layer: Any | None) -> None:
        skip = 0 if self._none is None else 1
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer) + skip)
        elif self.count():
            by_sight = self._none is None and self._rank is None
            self.setCurrentIndex(_newest_shown(self._layers) if by_sight else 0)


def _newest_shown(layers: list[Any]) -> int:
    """Return the place of the newest layer that is visible; 0 where none is."""
    return next((k for k, layer in enumerate(layers) if layer.visible), 0)


class LayerChecklist(QListWidget):
    """A list of the viewer's layers that pass a filter, each with a check box.

    The newest layer is checked while the user has not checked any by hand; one that comes hidden,
    such as a further volume of a series, only where no other is visible.
    """

    changed = Signal()

    def __init__(self, owner: MedGSWidget, keep: LayerFilter) -> None:
        super().__init__()
        self._owner, self._viewer, self._keep = owner, owner.viewer, keep
        self._layers: list[Any] = []
        self._touched = False
        self.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        events = owner.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            owner.listen(emitter, self.refresh)
        self.itemChanged.connect(self._on_item)
        self.refresh()

    def _on_item(self, item: Any) -> None:
        self._touched = True
        self.changed.emit()

    def refresh(self, event: Any = None) -> None:
        """List the layers again, newest first, keeping the checks."""
        checked = self.layers
        known = self._layers
        self._layers = [x for x in reversed(list(self._viewer.layers)) if self._keep(x)]
        if self._touched and not any(x in self._layers for x in checked):
            self._touched = False
        if not self._touched and self._layers:
            shown = [x for x in self._layers if x not in known and x.visible]
            # What is checked stays when the user, or another widget, hides it afterwards.
            kept = [x for x in checked if x in self._layers]
            checked = shown[:1] or kept or [self._layers[_newest_shown(self._layers)]]
        self.blockSignals(True)
        self.clear()
        for layer in self._layers:
            if layer not in known:
                self._owner.listen(layer.events.name, self.refresh)
            item = QListWidgetItem(layer.name)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            on = layer in checked
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
            self.addItem(item)
        self.blockSignals(False)
        self._fit_height()
        self.changed.emit()

    def _fit_height(self) -> None:
        rows = min(max(self.count(), 1), 4)
        height = self.sizeHintForRow(0) if self.count() else 22
        self.setFixedHeight(rows * max(height, 22) + 12)

    @property
    def layers(self) -> list[Any]:
        """The checked layers, in the viewer's order."""
        on = [
            layer
            for k, layer in enumerate(self._layers)
            if k < self.count() and self.item(k).checkState() == Qt.CheckState.Checked
        ]
        return on[::-1]

    @property
    def listed(self) -> list[Any]:
        """All layers of the list, in the viewer's order."""
        return self._layers[::-1]

    def check(self, layers: list[Any]) -> None:
        """Check just these layers, as a user would; nobody hears of the steps between."""
        self._touched = True
        before = self.layers
        self.blockSignals(True)
        for k, layer in enumerate(self._layers):
            on = layer in layers
            self.item(k).setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.blockSignals(False)
        self.viewport().update()  # which listens to the signals that were blocked
        if self.layers != before:
            self.changed.emit()
