"""Results as layers: reconstruction, mask and Gaussians, at the source's place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.plugin.field_images import Rendered
from napari_medgs.plugin.fit.jobs import FitOutcome
from napari_medgs.plugin.image_digest import contrast_digests, labels_checksum
from napari_medgs.plugin.layer_frame import LayerFrame, geometry_kwargs, grid_kwargs
from napari_medgs.plugin.layer_metadata import (
    FIELD_KEY,
    FRAME_KEY,
    IMAGE_KEY,
    NAMES_KEY,
    ROLE_KEY,
    SOURCE_KEY,
    derived_metadata,
    is_of,
    unwrap,
)
from napari_medgs.plugin.overlay.layer import GaussianOverlay, OverlayStyle

if TYPE_CHECKING:
    from napari_medgs.metrics import ImageDifference

DIFFERENCE_COLORS = "coolwarm"  # blue below, red above, pale where there is no difference
RESULT_KEY = "medgs_fit_result"  # checksum of the layer as the fit made it
LayerData = tuple[Any, dict[str, Any], str]


def add_fit_layers(
    viewer: Any, sources: Sequence[Any], outcome: FitOutcome, style: OverlayStyle | None = None
) -> list[Any]:
    """Add the results of a fit; earlier ones of the same image are hidden.

    The reconstruction is hidden, too, and lies below the image: it looks like the image, which
    must not be taken for it.

    Parameters
    ----------
    viewer : napari.Viewer
    sources : sequence of napari.layers.Image
        The contrasts, in the order of the field's image channels.
    outcome : FitOutcome
    style : OverlayStyle, optional

    Returns
    -------
    list of napari.layers.Layer
        Images, Labels if there are classes, the overlay's Surface.
    """
    from napari.layers import Image

    viewer = unwrap(viewer)
    field, frame = outcome.result.field, outcome.request.frame
    base = sources[0]
    place = geometry_kwargs(base)
    metadata = derived_metadata(base, frame, field)
    digests = contrast_digests(outcome.request.volume)
    metadata |= {SOURCE_KEY: base.name, IMAGE_KEY: digests}
    for layer in results_of(viewer.layers, base.name, digests[:1]):
        layer.visible = False
    added: list[Any] = []
    for channel, image in enumerate(outcome.rendered.images):
        like = sources[min(channel, len(sources) - 1)]
        made = Image(
            frame.to_layer(image),
            name=f"{like.name} · reconstruction",
            colormap=like.colormap,
            contrast_limits=like.contrast_limits,
            visible=False,
            metadata=dict(metadata),
            **place,
        )
        viewer.layers.insert(0, made)
        added.append(made)
    if outcome.rendered.labels is not None:
        names = dict(zip(field.info.label_values, field.info.class_names))
        added.append(
            viewer.add_labels(
                frame.to_layer(outcome.rendered.labels),
                name=f"{base.name} · mask",
                opacity=0.45,
                metadata={**metadata, NAMES_KEY: names},
                **place,
            )
        )
    overlay = GaussianOverlay(
        viewer,
        field,
        frame,
        base,
        style,
        errors=outcome.errors() if len(outcome.rendered.images) else None,
        name=f"{base.name} · Gaussians",
    )
    overlay.layer.metadata.update(metadata)
    layers = [*added, overlay.layer]
    for layer in layers:
        layer.metadata[RESULT_KEY] = labels_checksum(layer)
    return layers


def add_difference_layer(
    viewer: Any, picture: Any, outcome: FitOutcome, found: ImageDifference
) -> Any:
    """Add the difference of a reconstruction and its image, hidden, below the other layers.

    Parameters
    ----------
    viewer : napari.Viewer
    picture : napari.layers.Image
        The reconstruction.
    outcome : FitOutcome
    found : ImageDifference
        On the canonical grid.

    Returns
    -------
    napari.layers.Image
        Blue where the reconstruction is darker, red where it is brighter; zero is in the middle.
    """
    from napari.layers import Image

    viewer = unwrap(viewer)
    source = picture.metadata[SOURCE_KEY]
    reach = found.percentile_99 or found.largest or 1.0
    metadata = {k: v for k, v in picture.metadata.items() if k not in (FIELD_KEY, FRAME_KEY)}
    layer = Image(
        outcome.request.frame.to_layer(found.values),
        name=f"{source} · difference",
        colormap=DIFFERENCE_COLORS,
        contrast_limits=(-reach, reach),
        visible=False,
        metadata={**metadata, ROLE_KEY: "difference", RESULT_KEY: 0},
        **geometry_kwargs(picture),
    )
    viewer.layers.insert(0, layer)
    if hasattr(layer, "colorbar"):  # napari 0.7 has none
        layer.colorbar.visible = True
    return layer


def difference_text(found: ImageDifference) -> str:
    """Return the numbers of a difference in words, in the units of the image."""
    return (
        f"Reconstruction minus image: mean {found.mean:+.3g}, mean absolute "
        f"{found.mean_absolute:.3g}, root mean square {found.root_mean_square:.3g}, 99 % of the "
        f"voxels within {found.percentile_99:.3g}, largest {found.largest:.3g}."
    )


def results_of(layers: Any, source: str, digests: Sequence[str]) -> list[Any]:
    """Return the layers that fits of an image made.

    Parameters
    ----------
    layers : napari.components.LayerList
    source : str
        The name of the image's layer.
    digests : sequence of str
        Of its first contrast: another image of that name keeps its results.
    """
    return [
        layer for layer in layers if RESULT_KEY in layer.metadata and is_of(layer, digests, source)
    ]


def replace_earlier(viewer: Any, earlier: Sequence[Any], made: Sequence[Any]) -> None:
    """Remove earlier results in favor of new ones, which take their names.

    A mask that was edited since stays, hidden.

    Parameters
    ----------
    viewer : napari.Viewer
    earlier, made : sequence of napari.layers.Layer
    """
    for layer in earlier:
        if layer not in viewer.layers:
            continue
        if layer.metadata[RESULT_KEY] == labels_checksum(layer):
            viewer.layers.remove(layer)
        else:
            layer.name, layer.visible = f"{layer.name} (edited)", False
            layer.metadata.pop(RESULT_KEY)
    for layer in made:
        layer.name = re.sub(r" \[\d+\]$", "", layer.name)


def field_layer_data(field: GaussianField, rendered: Rendered, name: str) -> list[LayerData]:
    """Return a field from a file as layers: reconstruction, mask, centers as points."""
    frame = LayerFrame(field.info.grid)
    place = grid_kwargs(field.info.grid)
    metadata = {**place.pop("metadata"), FIELD_KEY: field, FRAME_KEY: frame.to_dict()}
    layers: list[LayerData] = []
    for channel, image in zip(field.info.image_channels, rendered.images):
        title = name if len(rendered.images) == 1 else f"{name} · {channel}"
        options = {"name": title, "metadata": dict(metadata), "visible": not layers, **place}
        layers.append((image, options, "image"))
    if rendered.labels is not None:
        names = dict(zip(field.info.label_values, field.info.class_names))
        options = {
            "name": f"{name} · mask",
            "opacity": 0.45,
            "metadata": {**metadata, NAMES_KEY: names},
            **place,
        }
        layers.append((rendered.labels, options, "labels"))
    layers.append((*_points(field, metadata, place, f"{name} · centers"), "points"))
    return layers


def _points(
    field: GaussianField, metadata: dict[str, Any], place: dict[str, Any], name: str
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the centers with what is known of each Gaussian as features, hidden at first."""
    sigma = np.exp(-field.log_precision.astype(np.float64))
    features: dict[str, Any] = {
        "weight": np.exp(field.log_weight),
        "sigma 1": sigma[:, 0],
        "sigma 2": sigma[:, 1],
        "sigma along slices": sigma[:, 2],
    }
    info = field.info
    for k, channel in enumerate(info.image_channels):
        features[channel] = field.values[:, k] * info.intensity_scale[k] + info.intensity_offset[k]
    if info.class_names:
        logits = field.values[:, field.head_channels("seg")]
        features["class"] = np.asarray(info.class_names, dtype=object)[logits.argmax(axis=1)]
    options = {
        "name": name,
        "features": features,
        "size": 1.5,
        "border_width": 0,
        "face_color": "orange",
        "opacity": 0.7,
        "visible": False,
        "metadata": metadata,
        **place,
    }
    return field.voxel_centers(), options
