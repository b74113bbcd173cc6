"""Results of the Discover widget as layers, at the place of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.plugin.discover.jobs import ImageTask
from napari_medgs.plugin.image_digest import contrast_digests, labels_checksum
from napari_medgs.plugin.layer_frame import geometry_kwargs, same_place
from napari_medgs.plugin.layer_metadata import (
    IMAGE_KEY,
    NAMES_KEY,
    ROLE_KEY,
    SOURCE_KEY,
    derived_metadata,
    is_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_medgs.tissue import TissueResult

MADE_KEY = "medgs_division"  # kind of division, and the checksum of its labels as they were made


def _metadata(task: ImageTask, field: Any) -> dict[str, Any]:
    base = task.sources[0]
    metadata = derived_metadata(base, task.frame, field)
    metadata |= {SOURCE_KEY: base.name, IMAGE_KEY: contrast_digests(task.volume)}
    return metadata


def is_shown(viewer: Any, task: ImageTask) -> bool:
    """Tell whether a contrast of an image is still in the viewer."""
    return any(layer in viewer.layers for layer in task.sources)


def add_labels(
    viewer: Any,
    task: ImageTask,
    field: Any,
    labels: NDArray[np.generic],
    name: str,
    names: dict[int, str],
) -> Any:
    """Add labels on the canonical grid, or put them into the layer that holds such of the image.

    A new layer hides the other divisions of the image. One that was edited stays, hidden, too.

    Returns
    -------
    napari.layers.Labels
    """
    image, array, kind = task.sources[0], task.frame.to_layer(labels), name
    metadata = {**_metadata(task, field), NAMES_KEY: dict(names)}
    of_it = [
        (layer, layer.metadata[MADE_KEY])
        for layer in viewer.layers
        if MADE_KEY in layer.metadata and is_of(layer, metadata[IMAGE_KEY], image.name)
    ]
    for layer, (made, checksum) in of_it:
        if made != kind or not same_place(layer, image):
            continue
        if checksum == labels_checksum(layer):
            layer.data = array
            layer.metadata.update(metadata)
            layer.metadata[MADE_KEY] = (kind, labels_checksum(layer))
            return layer
        layer.name = f"{layer.name} (edited)"
        layer.metadata.pop(MADE_KEY)
    for layer, _ in of_it:
        layer.visible = False
    layer = viewer.add_labels(
        array,
        name=f"{image.name} · {kind}",
        opacity=0.5,
        metadata=metadata,
        **geometry_kwargs(image),
    )
    layer.metadata[MADE_KEY] = (kind, labels_checksum(layer))
    return layer


def add_pictures(
    viewer: Any, task: ImageTask, result: TissueResult, *, probabilities: bool
) -> list[Any]:
    """Add probabilities and uncertainty as images, hidden; earlier ones are replaced.

    Returns
    -------
    list of napari.layers.Image
    """
    base = task.sources[0].name
    pictures = {f"{base} · tissue uncertainty": result.uncertainty}
    if probabilities:
        for k, p in enumerate(result.probabilities):
            pictures[f"{base} · probability of tissue {k + 1}"] = p
    if result.bias is not None:
        pictures[f"{base} · bias"] = result.bias[0]
    made = []
    starts = tuple(f"{base} · {what}" for what in ("tissue unc", "probability of t", "bias"))
    for layer in [x for x in viewer.layers if x.name.startswith(starts)]:
        viewer.layers.remove(layer)
    for name, picture in pictures.items():
        limits = (0, 1) if "bias" not in name else None
        made.append(
            viewer.add_image(
                task.frame.to_layer(picture),
                name=name,
                colormap="magma" if limits else "gray",
                contrast_limits=limits,
                blending="additive" if limits else "translucent",
                visible=False,
                metadata={**_metadata(task, result.field), ROLE_KEY: "probability"},
                **geometry_kwargs(task.sources[0]),
            )
        )
    return made
