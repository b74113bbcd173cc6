"""Results of the Discover widget as layers, at the place of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.plugin.discover.jobs import ImageTask
from napari_medgs.plugin.layer_frame import geometry_kwargs
from napari_medgs.plugin.layer_metadata import NAMES_KEY, ROLE_KEY, SOURCE_KEY, derived_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_medgs.tissue import TissueResult

DIVISIONS = ("tissues", "parts", "chosen parts")
"""Of one image: two of them on each other would mix their colors."""


def _metadata(task: ImageTask, field: Any) -> dict[str, Any]:
    base = task.sources[0]
    metadata = derived_metadata(base, task.frame, field)
    metadata[SOURCE_KEY] = base.name
    return metadata


def add_labels(
    viewer: Any,
    task: ImageTask,
    field: Any,
    labels: NDArray[np.generic],
    name: str,
    names: dict[int, str],
) -> Any:
    """Add labels on the canonical grid, or put them into the layer of that name.

    A new layer hides the other divisions of the image.

    Returns
    -------
    napari.layers.Labels
    """
    name = f"{task.sources[0].name} · {name}"
    array = task.frame.to_layer(labels)
    for layer in viewer.layers:
        known = type(layer).__name__ == "Labels" and layer.name == name
        if known and layer.data.shape == array.shape:
            layer.data = array
            layer.metadata[NAMES_KEY] = dict(names)
            return layer
    others = {f"{task.sources[0].name} · {other}" for other in DIVISIONS}
    for layer in viewer.layers:
        if layer.name in others:
            layer.visible = False
    return viewer.add_labels(
        array,
        name=name,
        opacity=0.5,
        metadata={**_metadata(task, field), NAMES_KEY: dict(names)},
        **geometry_kwargs(task.sources[0]),
    )


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
