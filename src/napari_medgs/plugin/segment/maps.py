"""Maps of uncertainty and of a class's probability, as layers over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_medgs.plugin.layer_frame import geometry_kwargs
from napari_medgs.plugin.layer_metadata import ROLE_KEY, SESSION_KEY, SOURCE_KEY
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.model import JobKind
from napari_medgs.plugin.segment.step_heads import ColorBar

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.view import SegmentView

# Four colors from low to high, as RGB.
COLORMAPS = {
    "uncertainty": ((0.35, 0.1, 0.5), (0.85, 0.2, 0.45), (1.0, 0.6, 0.3), (1.0, 0.95, 0.6)),
    "probability": ((0.15, 0.3, 0.6), (0.1, 0.6, 0.65), (0.45, 0.8, 0.35), (0.99, 0.9, 0.2)),
}
# Probabilities of an error are seldom above one half.
CONTRAST_LIMITS = {"uncertainty": (0.0, 0.6), "probability": (0.0, 1.0)}
OPACITIES = (0.25, 0.7, 0.9, 1.0)
POSITIONS = (0, 0.08, 0.35, 0.7, 1)


def map_colormap(kind: str) -> Any:
    """Return a colormap that is transparent at 0, so that the image stays visible there.

    Parameters
    ----------
    kind : {"uncertainty", "probability"}
    """
    from napari.utils import Colormap

    colors = COLORMAPS[kind]
    shades = [(*color, alpha) for color, alpha in zip(colors, OPACITIES, strict=True)]
    return Colormap([(*colors[0], 0.0), *shades], name=f"medgs {kind}", controls=list(POSITIONS))


def uncertainty_bar() -> ColorBar:
    """Return the bar that explains the colors of the uncertainty."""
    low, high = CONTRAST_LIMITS["uncertainty"]
    colors = COLORMAPS["uncertainty"]
    return ColorBar((colors[0], *colors), POSITIONS, f"{low:.0%} wrong", f"{high:.0%} and more")


class MapLayers:
    """The layers of the maps that are checked in the view, updated in place.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    """

    def __init__(
        self, view: SegmentView, controller: SegmentController, context: SegmentContext
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self.layers: dict[str, Any] = {}
        view.uncertainty.toggled.connect(lambda *_: self.request())
        view.probability.toggled.connect(lambda *_: self.request())
        controller.maps_ready.connect(self.show)

    def request(self) -> None:
        """Ask for the maps that are checked, and hide the others."""
        view, controller = self._view, self._controller
        value = view.table.value if view.probability.isChecked() else None
        label = 0 if value is not None and value == view.table.background else value
        controller.requested_maps = (view.uncertainty.isChecked(), label)
        shown = {"uncertainty": view.uncertainty, "probability": view.probability}
        for kind, layer in self.layers.items():
            layer.visible = shown[kind].isChecked()
        if controller.requested_maps != (False, None):
            controller.request(JobKind.MAPS)

    def show(self, maps: dict[str, NDArray[Any]]) -> None:
        """Show maps on the canonical grid, by name."""
        context = self._context
        if context.frame is None:
            return
        viewer, active = context.viewer, context.viewer.layers.selection.active
        for kind, array in maps.items():
            data = context.frame.to_layer(array)
            layer = self.layers.get(kind)
            if layer is None:  # from when the session was worked on before
                layer = self.layers[kind] = context.find_layer(kind)
            if layer is not None:
                layer.data, layer.visible = data, True
                continue
            layer = self.layers[kind] = viewer.add_image(
                data,
                name=f"{context.image.name} · {kind}",
                colormap=map_colormap(kind),
                contrast_limits=CONTRAST_LIMITS[kind],
                blending="translucent",  # not mixed with the colors of the classes
                opacity=0.85,
                metadata={
                    ROLE_KEY: kind,
                    SOURCE_KEY: context.image.name,
                    SESSION_KEY: context.session_key,
                },
                **geometry_kwargs(context.image),
            )
            context.move_below_strokes(layer)
        viewer.layers.selection.active = active

    def on_removed(self, layer: Any) -> None:
        """Forget a layer that was removed from the viewer."""
        self.layers = {k: v for k, v in self.layers.items() if v is not layer}

    def close(self) -> None:
        """Forget the layers, which stay, as the session ends."""
        self.layers = {}
