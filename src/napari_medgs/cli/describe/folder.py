"""What folders that commands or the viewer write hold, unless they are images."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_folder(path: Path) -> dict[str, Any] | None:
    """Return what a folder of cases or of fields holds; None for all others.

    Parameters
    ----------
    path : Path
    """
    from napari_medgs.io.dicom.series import is_dicom_folder
    from napari_medgs.io.image_stack import find_frames

    if not path.is_dir():
        return None
    if (path / "dataset.json").is_file() and (path / "imagesTr").is_dir():
        return _describe_cases(path)
    if is_dicom_folder(path) or find_frames(path):
        return None
    return _describe_fields(path)


def _describe_cases(path: Path) -> dict[str, Any]:
    """Return what a folder in the layout of nnU-Net holds."""
    from napari_medgs.io.folders import visible_entries
    from napari_medgs.learning import find_training_cases

    source = find_training_cases(str(path))
    kept = path / "cases"
    return {
        "kind": "folder of cases",
        "cases": len(source.cases),
        "contrasts": list(source.channel_names),
        "classes": [f"{value} {name}" for value, name in sorted(source.class_names.items())],
        "kept_by_the_viewer": len(visible_entries(kept)) if kept.is_dir() else None,
    }


def _describe_fields(path: Path) -> dict[str, Any] | None:
    """Return the fields of a folder, without loading them."""
    from napari_medgs.io.fields import SUFFIXES
    from napari_medgs.io.folders import visible_entries

    files = [
        file
        for file in visible_entries(path)
        if file.is_file() and file.name.lower().endswith(SUFFIXES)
    ]
    if not files:
        return None
    sizes = {file.name: file.stat().st_size for file in files}
    return {
        "kind": "folder of fields",
        "count": len(sizes),
        "bytes": sum(sizes.values()),
        "fields": {name: {"bytes": size} for name, size in sizes.items()},
    }
