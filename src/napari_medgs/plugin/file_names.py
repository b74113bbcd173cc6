"""File names that dialogs suggest: in the folder of the image's file, with its name. No Qt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_medgs.errors import FileError
from napari_medgs.plugin.layer_metadata import SOURCE_KEY

LONGEST = 220  # bytes: file systems allow 255 with the suffix


def plain_name(text: str) -> str:
    """Return a layer's name without what file systems do not like.

    Examples
    --------
    >>> plain_name("ct · accepted")
    'ct_accepted'
    """
    kept = "".join(c if c.isalnum() or c in "-_ ." else " " for c in text)
    kept = "_".join(kept.split())
    return kept.encode("utf-8", "ignore")[:LONGEST].decode("utf-8", "ignore") or "export"


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


def file_of(layer: Any) -> Path | None:
    """Return the file or folder that a layer was read from, if it is known and still there."""
    path = layer.metadata.get("path") or getattr(layer.source, "path", None)
    return Path(str(path)) if path and Path(str(path)).exists() else None


def refuse_open_files(layers: Any, paths: Iterable[Path]) -> None:
    """Refuse to write over files that layers were read from.

    Parameters
    ----------
    layers : napari.components.LayerList
    paths : iterable of Path

    Raises
    ------
    FileError
        Also for names that the file system does not take.
    """
    inputs = [found for layer in layers if (found := file_of(layer)) is not None]
    for path in paths:
        if _exists(path) and any(path.samefile(found) for found in inputs):
            raise FileError(f"{path}: is open in the viewer; choose another name.")


def completed(chosen: str | Path, suffixes: Sequence[str]) -> Path:
    """Return the path that a dialog for saving returned, with a suffix if it has none of some.

    Parameters
    ----------
    chosen : str or Path
    suffixes : sequence of str
        The first one is added.

    Raises
    ------
    FileError
        When there is a file of that name: the dialog has not asked whether to replace it.
    """
    path = Path(chosen)
    if path.name.lower().endswith(tuple(suffixes)):
        return path
    path = path.with_name(path.name + suffixes[0])
    if _exists(path):
        raise FileError(
            f"{path}: exists. To replace it, choose it in the dialog, or type its whole name."
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written ({error.strerror or error}); choose another name."
        ) from error


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


def free_path(path: Path, suffix: str) -> Path:
    """Return a path that no file has, with a number before the suffix if need be.

    Parameters
    ----------
    path : Path
    suffix : str
        With which its name ends.
    """
    start, k, found = path.name.removesuffix(suffix), 1, path
    while found.exists():
        k += 1
        found = path.with_name(f"{start}-{k}{suffix}")
    return found


def with_ending(path: Path, old: str, new: str, suffix: str) -> Path:
    """Return the path of a companion file: with another word at the end of the name.

    Parameters
    ----------
    path : Path
    old, new : str
        ``old`` is taken off where the name without suffixes ends with it.
    suffix : str

    Examples
    --------
    >>> with_ending(Path("ct_mask.nii.gz"), "_mask", "_mesh", ".ply").name
    'ct_mesh.ply'
    >>> with_ending(Path("liver.seg.nrrd"), "_mask", "_mesh", ".ply").name
    'liver_mesh.ply'
    """
    from napari_medgs.io.formats import image_stem

    stem = image_stem(path).removesuffix(".seg").removesuffix(".rtstruct")
    number = ""
    base, dash, last = stem.rpartition("-")
    if dash and last.isdecimal() and base.endswith(old):
        stem, number = base, f"-{last}"
    return path.with_name(stem.removesuffix(old) + new + number + suffix)
