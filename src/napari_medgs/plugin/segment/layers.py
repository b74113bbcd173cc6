"""Layers of a segmentation: strokes, points, boxes and results, read and changed in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError
from napari_medgs.plugin.layer_frame import LayerFrame, geometry_kwargs
from napari_medgs.plugin.layer_metadata import NAMES_KEY, ROLE_KEY, SOURCE_KEY
from napari_medgs.plugin.layer_orientation import place_metadata
from napari_medgs.segmentation.prompts.prompts import Box, Point

if TYPE_CHECKING:
    from napari_medgs.segmentation.session.changes import Delta

BACKGROUND = 255  # in stroke layers made here: out of the way of the classes 1, 2, 3 ..
CLICK_RADIUS = 1.0  # in voxels of the finest axis
BACKGROUND_COLOR = (0.55, 0.62, 0.70, 1.0)
PALETTE = (
    (0.90, 0.29, 0.24),
    (0.18, 0.68, 0.38),
    (0.20, 0.56, 0.92),
    (0.97, 0.73, 0.15),
    (0.68, 0.42, 0.85),
    (0.10, 0.76, 0.76),
    (0.96, 0.50, 0.20),
    (0.93, 0.45, 0.70),
    (0.62, 0.80, 0.25),
    (0.60, 0.45, 0.33),
)
Color = tuple[float, float, float, float]
Colors = Mapping[int, Color]


def default_color(value: int) -> Color:
    """Return the color of a class that has been given none."""
    red, green, blue = PALETTE[(value - 1) % len(PALETTE)]
    return red, green, blue, 1.0


def label_colormap(colors: Colors, background: int | None, *, result: bool) -> Any:
    """Return napari's colormap for stroke layers, or for results, whose background is clear.

    Values without a color get their default one.
    """
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, Any] = {0: (0, 0, 0, 0), None: (0.5, 0.5, 0.5, 1)}
    known = {*colors, *range(1, 51)} | ({background} if background is not None else set())
    for value in known:
        if value == background:
            table[value] = (0, 0, 0, 0) if result else BACKGROUND_COLOR
        elif value != 0:
            table[value] = colors.get(value, default_color(value))
    return DirectLabelColormap(color_dict=table)


def _place(image: Any, role: str, names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "metadata": {
            **place_metadata(image),
            ROLE_KEY: role,
            NAMES_KEY: dict(names),
            SOURCE_KEY: image.name,
        },
        **geometry_kwargs(image),
    }


def free_background(labels: Collection[int]) -> int:
    """Return a value for background strokes that no class of a mask has.

    Many masks of one class are 0 and 255.

    Examples
    --------
    >>> free_background([1, 2]), free_background([255])
    (255, 254)
    """
    free = (v for v in range(BACKGROUND, 0, -1) if v not in labels)
    return next(free, max(labels, default=0) + 1)


def add_strokes_layer(
    viewer: Any,
    image: Any,
    names: Mapping[int, str],
    colors: Colors,
    background: int = BACKGROUND,
    highest: int = BACKGROUND,
) -> Any:
    """Add an empty Labels layer for strokes on an image, ready to paint in.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
    names : mapping of int to str
        Of the classes.
    colors : mapping of int to (4,) float
    background : int
        Value of background strokes.
    highest : int
        Highest value that can be painted.
    """
    shape = tuple(image.level_shapes[0]) if image.multiscale else tuple(image.data.shape)
    layer = viewer.add_labels(
        np.zeros(shape, np.min_scalar_type(max(highest, background))),
        name=f"{image.name} · strokes",
        colormap=label_colormap(colors, background, result=False),
        opacity=0.9,
        **_place(image, "strokes", names),
    )
    layer.brush_size = max(2, round(min(shape[-2:]) / 50))
    layer.selected_label = 1
    layer.mode = "paint"
    return layer


def add_result_layer(
    viewer: Any, image: Any, names: Mapping[int, str], colors: Colors, role: str = "result"
) -> Any:
    """Add an empty Labels layer for results ("result") or accepted ones ("final")."""
    shape = tuple(image.level_shapes[0]) if image.multiscale else tuple(image.data.shape)
    title = "segmentation" if role == "result" else "accepted"
    layer = viewer.add_labels(
        np.zeros(shape, np.uint8),
        name=f"{image.name} · {title}",
        colormap=label_colormap(colors, None, result=True),
        opacity=0.45 if role == "result" else 0.9,
        **_place(image, role, names),
    )
    if role == "final":
        layer.contour = 1  # an outline does not hide the result on which work goes on
    return layer


def add_prompt_layer(viewer: Any, image: Any, kind: str) -> Any:
    """Add an empty layer for points ("points") or boxes ("boxes") with a class for each."""
    options = _place(image, kind, {})
    if kind == "points":
        return viewer.add_points(
            np.zeros((0, image.ndim)),
            name=f"{image.name} · points",
            ndim=image.ndim,
            size=max(3, round(min(image.extent.data[1][-2:]) / 45)),
            border_width=0.15,
            border_color="white",
            features={
                "class": np.zeros(0, int),
                "positive": np.zeros(0, bool),
                "radius": np.zeros(0),
            },
            **options,
        )
    return viewer.add_shapes(
        None,
        name=f"{image.name} · boxes",
        ndim=image.ndim,
        edge_width=max(0.5, min(image.extent.data[1][-2:]) / 200),
        face_color="transparent",
        features={"class": np.zeros(0, int)},
        **options,
    )


@dataclass
class LabelView:
    """A Labels layer seen as an array on the canonical grid.

    Attributes
    ----------
    layer : napari.layers.Labels
    frame : LayerFrame
    """

    layer: Any
    frame: LayerFrame

    def __post_init__(self) -> None:
        if not isinstance(self.layer.data, np.ndarray):
            raise LabelError(
                f"{self.layer.name!r} is not held in memory; duplicate the layer and choose the "
                "copy."
            )
        if not self.layer.data.flags.writeable:
            self.layer.data = self.layer.data.copy()

    @property
    def array(self) -> NDArray[Any]:
        """The layer's own voxels, (Z, Y, X); a view."""
        return self.frame.to_canonical(self.layer.data)

    def fits(self) -> bool:
        """Tell whether the layer's array is still the grid's (it may have been replaced)."""
        return tuple(self.array.shape) == tuple(self.frame.grid.shape)

    def write(self, change: Delta) -> None:
        """Set the voxels that changed on the canonical grid."""
        self.make_room(int(change.after.max(initial=0)))
        change.apply(self.array)

    def write_box(self, box: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Set all voxels of a box of the canonical grid."""
        if values.size:
            self.make_room(int(values.max()))
            self.array[box] = values

    def make_room(self, value: int) -> None:
        """Change to a larger type where a value does not fit."""
        if value > np.iinfo(self.layer.data.dtype).max:
            self.layer.data = self.layer.data.astype(np.min_scalar_type(value))

    def box_of(self, atoms: Any) -> tuple[slice, ...] | None:
        """Return the box that an event of painting touched; None stands for everywhere.

        napari's events hold boxes or index arrays, by version and tool.
        """
        low = np.full(self.layer.ndim, np.iinfo(np.int64).max)
        high = np.full(self.layer.ndim, -1)
        for atom in atoms or ():
            place = getattr(atom, "slice_key", None)
            place = atom[0] if place is None else place
            if not isinstance(place, tuple) or len(place) != self.layer.ndim:
                return None
            for axis, part in enumerate(place):
                size = self.layer.data.shape[axis]
                if isinstance(part, slice):
                    start, stop, _ = part.indices(size)
                elif np.size(part):
                    start, stop = int(np.min(part)), int(np.max(part)) + 1
                else:
                    continue
                low[axis], high[axis] = min(low[axis], start), max(high[axis], stop)
        if (high < 0).any():
            return None
        return self.to_canonical_box(low.tolist(), high.tolist())

    def to_canonical_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[slice, ...]:
        """Turn first voxels and ends along the layer's axes into a box of the grid."""
        pad = 3 - self.layer.ndim
        low, high = [0] * pad + [int(v) for v in low], [1] * pad + [int(v) for v in high]
        box = []
        for axis in range(3):
            start, stop = low[self.frame.order[axis]], high[self.frame.order[axis]]
            if self.frame.flips[axis]:
                size = self.frame.grid.shape[axis]
                start, stop = size - stop, size - start
            box.append(slice(start, stop))
        return tuple(box)

    def refresh(self) -> None:
        """Draw what was changed in place."""
        self.layer.refresh(extent=False)


def to_canonical_points(layer: Any, image: Any, frame: LayerFrame) -> NDArray[np.float64]:
    """Return a Points layer's coordinates in voxels of the canonical grid, (P, 3)."""
    return _canonical(np.asarray(layer.data, float).reshape(-1, layer.ndim), layer, image, frame)


def _canonical(
    data: NDArray[np.float64], layer: Any, image: Any, frame: LayerFrame
) -> NDArray[np.float64]:
    if layer.ndim != image.ndim:
        raise GeometryError(
            f"{layer.name!r} has {layer.ndim} dimensions and the image {image.ndim}: make the "
            "layer anew for this image."
        )
    inside = np.array([image.world_to_data(layer.data_to_world(p)) for p in data])
    return frame.points_from_layer(inside.reshape(-1, image.ndim))


def read_points(layer: Any, image: Any, frame: LayerFrame) -> tuple[Point, ...]:
    """Return the points of a layer; its features say class, sign and radius.

    Raises
    ------
    GeometryError
        For a point outside the image.
    """
    places = to_canonical_points(layer, image, frame)
    features = layer.features
    classes = features["class"] if "class" in features else [1] * len(places)
    signs = features["positive"] if "positive" in features else [True] * len(places)
    radii = features["radius"] if "radius" in features else [CLICK_RADIUS] * len(places)
    points = []
    for place, label, positive, radius in zip(places, classes, signs, radii, strict=True):
        if any(not -0.5 <= p <= n - 0.5 for p, n in zip(place, frame.grid.shape, strict=True)):
            raise GeometryError(f"A point of {layer.name!r} lies outside the image; remove it.")
        z, y, x = (float(v) for v in place)
        points.append(Point((z, y, x), int(label), bool(positive), float(radius)))
    return tuple(points)


def read_boxes(layer: Any, image: Any, frame: LayerFrame) -> tuple[Box, ...]:
    """Return one box per class from the rectangles drawn for it.

    A rectangle in a slice goes through all slices; two or more in slices of one orientation
    reach from the first to the last; rectangles in several orientations must all hold the class.
    """
    shape = np.asarray(frame.grid.shape)
    classes = layer.features["class"] if "class" in layer.features else [1] * layer.nshapes
    flats: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for corners, label in zip(layer.data, classes, strict=True):
        places = _canonical(np.asarray(corners, float), layer, image, frame)
        ends = np.stack([places.min(axis=0), places.max(axis=0)])
        flats.setdefault((int(label), int(np.argmin(np.ptp(ends, axis=0)))), []).append(ends)
    low: dict[int, NDArray[np.int64]] = {}
    high: dict[int, NDArray[np.int64]] = {}
    for (label, axis), found in flats.items():
        start = np.round(np.min([e[0] for e in found], axis=0)).astype(np.int64)
        stop = np.round(np.max([e[1] for e in found], axis=0)).astype(np.int64) + 1
        if stop[axis] - start[axis] <= 1:
            start[axis], stop[axis] = 0, shape[axis]
        start, stop = np.clip(start, 0, shape - 1), np.clip(stop, 1, shape)
        low[label] = np.maximum(low[label], start) if label in low else start
        high[label] = np.minimum(high[label], stop) if label in high else stop
    boxes = []
    for label in low:
        if (high[label] <= low[label]).any():
            raise GeometryError(
                f"The rectangles of class {label} have nothing in common; remove one of them."
            )
        a, b, c = (int(v) for v in low[label])
        d, e, f = (int(v) for v in high[label])
        boxes.append(Box((a, b, c), (d, e, f), label))
    return tuple(boxes)
