"""Copying finished classes to a layer of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QSignalBlocker

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_frame import same_place
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.accepted import AcceptedLayers
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.layers import LabelView, add_result_layer, label_colormap
from napari_medgs.plugin.segment.view import SegmentView


def copy_classes(
    result: LabelView, final: LabelView, classes: Sequence[int], *, replace_same: bool
) -> int:
    """Copy classes of a result to a final layer where no other class is, as one undoable step.

    Parameters
    ----------
    result, final : LabelView
    classes : sequence of int
    replace_same : bool
        Remove what the final layer already has of these classes.

    Returns
    -------
    int
        Number of voxels changed.
    """
    new, old = result.array, final.array
    mine = np.isin(new, list(classes)) & (new != 0)
    changed = mine & (old == 0)
    if replace_same:
        changed |= np.isin(old, list(classes)) & (old != 0) & (old != new)
    where = np.nonzero(changed)
    count = len(where[0])
    if not count:
        return 0
    values = np.where(mine[where], new[where], 0)
    final.make_room(int(values.max()))
    points = np.stack(where, axis=1)
    inside = np.round(final.frame.points_to_layer(points)).astype(np.int64)
    # napari takes several values as a sequence only, not as an array.
    final.layer.data_setitem(tuple(inside.T), values.tolist())
    return count


class AcceptAction:
    """What the Accept button does.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    accepted : AcceptedLayers
    """

    title = "Accepting"

    def __init__(
        self,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        accepted: AcceptedLayers,
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self._accepted = accepted
        view.accept.clicked.connect(lambda *_: self.run())

    @guarded
    def run(self) -> None:
        """Copy the result into the chosen layer, never over other classes."""
        view, controller, context = self._view, self._controller, self._context
        volumes = controller.state.volumes_ml
        if controller.layers is None or context.frame is None or not volumes:
            raise ParameterError("There is no mask to accept yet: paint strokes first.")
        wanted = [view.table.value] if view.accept_one.isChecked() else sorted(volumes)
        classes = [v for v in wanted if v is not None and v in volumes]
        if not classes:
            raise ParameterError("The selected class has no voxels to accept.")
        layer, active = view.target.layer, context.viewer.layers.selection.active
        names = {v: view.table.name(v) for v in classes}
        if layer is None:
            layer = add_result_layer(
                context.viewer, context.image, names, view.table.colors, role="final"
            )
            context.move_below_strokes(layer)
            with QSignalBlocker(view.target):
                view.target.choose(layer)
            context.viewer.layers.selection.active = active
        elif not same_place(layer, context.image):
            raise ParameterError(
                f"{layer.name!r} is not on the image's grid: choose another layer."
            )
        display = controller.layers.display
        display.restore()
        count = copy_classes(
            display.view,
            LabelView(layer, context.frame),
            classes,
            replace_same=view.replace_same.isChecked(),
        )
        layer.metadata[NAMES_KEY] = dict(layer.metadata.get(NAMES_KEY, {})) | names
        colors = {v: view.table.color(v) for v in view.table.classes}
        layer.colormap = label_colormap(colors, None, result=True)
        self._accepted.watch(layer)
        self._accepted.report()
        view.saving.what.choose(layer)
        controller.state.message = (
            f"Accepted {count:,} voxels into {layer.name!r}."
            if count
            else f"There was nothing new to accept into {layer.name!r}."
        )
