"""Keys of the metadata by which layers carry fields and names, and look-ups by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_medgs.data.field import GaussianField
from napari_medgs.plugin.image_digest import contrast_digests
from napari_medgs.plugin.layer_frame import LayerFrame
from napari_medgs.plugin.layer_orientation import place_metadata

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

FIELD_KEY = "medgs_field"
FRAME_KEY = "medgs_frame"
SOURCE_KEY = "medgs_source"  # name of the image layer that a layer was made from
IMAGE_KEY = "medgs_image"  # digests of the contrasts that a layer was made from
ROLE_KEY = "medgs_role"  # strokes, result, final, points, boxes, uncertainty, probability
SESSION_KEY = "medgs_session"  # name of the autosaved file of the session of a layer
NAMES_KEY = "medgs_label_names"
COLORS_KEY = "medgs_label_colors"  # (red, green, blue) from 0 to 1, by label value
CODES_KEY = "medgs_label_codes"  # category and type as coded concepts, by label value


def role_of(layer: Any) -> str | None:
    """Return what a layer is for in a segmentation; None for layers of other origin."""
    return getattr(layer, "metadata", {}).get(ROLE_KEY)


def unwrap(thing: Any) -> Any:
    """Return the object behind a proxy, such as the viewer that napari gives to widgets."""
    return getattr(thing, "__wrapped__", thing)


def label_table(
    layer: Any | None,
) -> tuple[dict[int, str], dict[int, tuple[float, float, float, float]]]:
    """Return the names and the colors (red, green, blue, 1) that a layer has of its labels.

    Parameters
    ----------
    layer : napari.layers.Labels or None
        Without a layer both are empty.
    """
    metadata = {} if layer is None else layer.metadata
    names = {int(k): str(v) for k, v in dict(metadata.get(NAMES_KEY) or {}).items()}
    colors = {
        int(k): (float(c[0]), float(c[1]), float(c[2]), 1.0)
        for k, c in dict(metadata.get(COLORS_KEY) or {}).items()
    }
    return names, colors


def field_of(layer: Any) -> GaussianField | None:
    """Return the field that a layer carries, if it does."""
    field = getattr(layer, "metadata", {}).get(FIELD_KEY)
    return field if isinstance(field, GaussianField) else None


def is_of(layer: Any, digests: Sequence[str], name: str) -> bool:
    """Tell whether a result was made of an image, whatever the image is called by now.

    Parameters
    ----------
    layer : napari.layers.Layer
    digests : sequence of str
        Of the image's contrasts, see :func:`~napari_medgs.plugin.image_digest.contrast_digests`;
        or of the first of them, where the others do not matter.
    name : str
        Of the image's layer, for results without a record of what they were made of.
    """
    known = layer.metadata.get(IMAGE_KEY)
    if known is None:
        return bool(layer.metadata.get(SOURCE_KEY) == name)
    return tuple(known[: len(digests)]) == tuple(digests)


def fitted_to(layers: Any, image: Any, volume: Volume) -> GaussianField | None:
    """Return the newest field that a layer carries and that was fitted to an image, if any.

    Parameters
    ----------
    layers : napari.components.LayerList
    image : napari.layers.Image
        The first contrast's.
    volume : Volume
        All contrasts, as a fit takes them.
    """
    digests: tuple[str, ...] | None = None
    for layer in reversed(list(layers)):
        field = field_of(layer)
        if field is None or len(field.info.image_channels) != volume.channels:
            continue
        if not field.info.grid.matches(volume.grid):
            continue
        digests = contrast_digests(volume) if digests is None else digests
        if is_of(layer, digests, image.name):
            return field
    return None


def frame_of_field(layer: Any) -> LayerFrame:
    """Return the frame of a layer that carries a field."""
    record = layer.metadata.get(FRAME_KEY)
    if record is not None:
        return LayerFrame.from_dict(record)
    field = field_of(layer)
    if field is None:
        raise ValueError(f"{layer.name!r} carries no field")
    return LayerFrame(field.info.grid)


def derived_metadata(source: Any, frame: LayerFrame, field: GaussianField) -> dict[str, Any]:
    """Return the metadata of a layer made of a field that was fitted to a source layer.

    Where the source has the true grid of its file, the new layer has it too, so that it is
    written with that geometry.
    """
    return {**place_metadata(source), FIELD_KEY: field, FRAME_KEY: frame.to_dict()}


def siblings(layers: Any, layer: Any, kind: str) -> list[Any]:
    """Return the layers of a class name ("Image", "Labels") that carry the same field."""
    field = field_of(layer)
    return [x for x in layers if field_of(x) is field and type(x).__name__ == kind]
