"""Which layers of the viewer are the images of a saved session, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from napari_medgs.errors import ParameterError


def path_of(layer: Any) -> str:
    """Return what a session notes of an image: the file of its layer, or the layer's name.

    Parameters
    ----------
    layer : napari.layers.Layer

    Returns
    -------
    str
    """
    return str(getattr(layer.source, "path", None) or layer.name)


def images_of(noted: Sequence[str], layers: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Find the layers that a session notes.

    Parameters
    ----------
    noted : sequence of str
        Files or names of the session's images, in its order.
    layers : sequence of napari.layers.Image
        Those that may be meant.

    Returns
    -------
    found : list of napari.layers.Image
        In the session's order. A file that was moved is known by its name.
    missing : list of str
        What no layer was found for.
    """
    left, found, missing = list(layers), [], []
    for text in noted:
        alike = [x for x in left if path_of(x) == text]
        alike += [x for x in left if PurePath(path_of(x)).name == PurePath(text).name]
        if not alike:
            missing.append(text)
            continue
        left.remove(alike[0])
        found.append(alike[0])
    return found, missing


def arrange(viewer: Any, layers: Sequence[Any]) -> None:
    """Bring layers into an order in the viewer's list, in the places that they have.

    Parameters
    ----------
    viewer : napari.Viewer
    layers : sequence of napari.layers.Layer
        The first one lies lowest.
    """
    places = sorted(viewer.layers.index(x) for x in layers)
    for place, layer in zip(places, layers, strict=True):
        at = viewer.layers.index(layer)
        if at != place:
            viewer.layers.move(at, place)


def refuse_others(noted: Sequence[str], missing: Sequence[str], n_checked: int) -> None:
    """Refuse a session whose images are not all there.

    Parameters
    ----------
    noted : sequence of str
        The session's images.
    missing : sequence of str
        Those that are not open.
    n_checked : int
        Number of images that are checked. As many as the session has may be the same under
        other names.

    Raises
    ------
    ParameterError
        Naming the images to open.
    """
    if missing and len(noted) != n_checked:
        names = ", ".join(PurePath(x).name for x in missing)
        raise ParameterError(
            f"The session is one of {len(noted)} images. Open these, too, or check as many images "
            f"in its order: {names}."
        )
