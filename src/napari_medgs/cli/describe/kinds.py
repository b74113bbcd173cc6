"""Which kind of file that is no image is described by what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Describer = Callable[[Path], dict[str, Any]]


def describer_of(file: str) -> Describer | None:
    """Return what describes a file or folder; None for what can be an image or a mask only.

    Parameters
    ----------
    file : str
    """
    from napari_medgs.cli.describe.field import describe_cohort, describe_field
    from napari_medgs.cli.describe.mesh import describe_mesh
    from napari_medgs.cli.describe.networks import describe_tensors
    from napari_medgs.cli.describe.records import (
        describe_json,
        describe_prior,
        describe_table,
    )
    from napari_medgs.io.fields import SUFFIXES as FIELDS
    from napari_medgs.io.meshes import SUFFIXES as MESHES

    path, name = Path(file), Path(file).name.lower()
    if path.is_dir():
        return _of_folder(path)
    by_ending: tuple[tuple[tuple[str, ...], Describer], ...] = (
        (FIELDS, describe_field),
        ((".safetensors",), describe_tensors),
        ((".medgsz",), describe_cohort),
        (MESHES, describe_mesh),
        ((".npz",), _describe_arrays),
        ((".json",), describe_json),
        ((".csv", ".tsv"), describe_table),
        ((".zz",), describe_prior),
    )
    return next((found for endings, found in by_ending if name.endswith(endings)), None)


def _of_folder(path: Path) -> Describer | None:
    from napari_medgs.cli.describe.folder import describe_folder
    from napari_medgs.cli.describe.mesh import describe_mesh
    from napari_medgs.io.meshes import find_meshes
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    if is_ome_zarr(path):
        return None
    if find_meshes(path):
        return describe_mesh
    found = describe_folder(path)
    return None if found is None else partial(_given, found)


def _given(found: dict[str, Any], path: Path) -> dict[str, Any]:
    return found


def _describe_arrays(path: Path) -> dict[str, Any]:
    """Return what an ``.npz`` file holds: centers of a fit, or images with labels."""
    from napari_medgs.cli.describe.medmnist import describe_set
    from napari_medgs.cli.describe.records import describe_positions, holds_positions

    return describe_positions(path) if holds_positions(path) else describe_set(str(path))
