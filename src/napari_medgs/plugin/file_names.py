"""File names that dialogs suggest: in the folder of the image's file, with its name. No Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_medgs.plugin.layer_metadata import SOURCE_KEY


def plain_name(text: str) -> str:
    """Return a layer's name without what file systems do not like.

    Examples
    --------
    >>> plain_name("ct · accepted")
    'ct_accepted'
    """
    kept = "".join(c if c.isalnum() or c in "-_ ." else " " for c in text)
    return "_".join(kept.split()) or "export"


def source_folder(layers: Any, layer: Any) -> Path | None:
    """Return the folder of the file that a layer, or the image it was made of, was read from.

    Parameters
    ----------
    layers : napari.components.LayerList
    layer : napari.layers.Layer

    Returns
    -------
    Path or None
        None for layers that come from no file, and where the folder is gone.
    """
    named = layer.metadata.get(SOURCE_KEY)
    for one in (layer, *(x for x in layers if x.name == named)):
        path = one.metadata.get("path") or getattr(one.source, "path", None)
        if path:
            path = Path(str(path))
            folder = path if path.is_dir() else path.parent
            return folder if folder.is_dir() else None
    return None


def suggested_path(layers: Any, layer: Any, suffix: str, name: str | None = None) -> Path:
    """Return a path to offer for saving a layer.

    Parameters
    ----------
    layers : napari.components.LayerList
    layer : napari.layers.Layer
    suffix : str
    name : str, optional
        The layer's own by default.
    """
    file = plain_name(layer.name if name is None else name) + suffix
    folder = source_folder(layers, layer)
    return Path(file) if folder is None else folder / file
