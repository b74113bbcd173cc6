"""Readers: image and mask files, DICOM folders, MedMNIST sets and field files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.first_use import prepare_images
from napari_medgs.plugin.layer_frame import ITEMS_KEY, grid_kwargs
from napari_medgs.plugin.layer_metadata import CODES_KEY, COLORS_KEY, NAMES_KEY, unwrap
from napari_medgs.plugin.report import show_failure
from napari_medgs.plugin.responsive import in_event_loop, run_responsive
from napari_medgs.plugin.surface_layers import read_surface_layers
from napari_medgs.plugin.volume_layers import colormap_option, volume_layers
from napari_medgs.plugin.zarr_layers import read_zarr_layers

LayerData = tuple[Any, ...]
ReaderFunction = Callable[[str | list[str]], list[LayerData]]

# napari's convention for "read, but there is nothing to show".
NOTHING: list[LayerData] = [(None,)]


def get_reader(path: str | list[str]) -> ReaderFunction | None:
    """Return the function that reads a path, or None for other file types.

    Parameters
    ----------
    path : str or list of str
        NIfTI, NRRD, MetaImage, GIPL, FreeSurfer, ``.hdr``/``.img``, TIFF with voxel sizes, DICOM,
        OME-Zarr, meshes, ``.medgs.safetensors``, ``.medgs``, ``.npz`` of MedMNIST, or a folder
        with DICOM files or meshes. All of a list must be of one kind.

    Returns
    -------
    callable or None
        path or list of paths -> list of layer data. Errors of single files are shown as
        notifications; the other files are opened.

    Examples
    --------
    >>> get_reader("notes.txt") is None
    True
    >>> callable(get_reader("brain.nii.gz"))
    True
    """
    paths = [path] if isinstance(path, str) else list(path)
    functions = {_function_for(Path(p)) for p in paths}
    function = functions.pop() if len(functions) == 1 else None
    if function is None:
        return None

    def read(path: str | list[str]) -> list[LayerData]:
        follow_planes()
        layers: list[LayerData] = []
        for one in [path] if isinstance(path, str) else path:
            try:
                if _offer_series(Path(one)):
                    continue
                read_one = partial(_read_prepared, function, Path(one))
                layers += run_responsive(read_one, f"Reading {Path(one).name}")
            except Exception as error:
                show_failure(error, f"Opening {Path(one).name}")
        return layers or NOTHING

    return read


def _read_prepared(function: Callable[[Path], list[LayerData]], path: Path) -> list[LayerData]:
    """Read a file, in a thread as a rule, and what napari will need to show it."""
    prepare_images()
    return function(path)


def _offer_series(path: Path) -> bool:
    """List the series of a study in the Load widget, where there are several to choose from.

    Returns
    -------
    bool
        False where there is one, or no window to show the list in.
    """
    if not (path.is_dir() or path.name.upper() == "DICOMDIR") or not in_event_loop():
        return False
    from napari import current_viewer

    from napari_medgs.io import list_series
    from napari_medgs.io.dicom.series import has_dicom

    viewer = unwrap(current_viewer())
    if viewer is None or (path.is_dir() and not has_dicom(path)):
        return False
    found = run_responsive(partial(list_series, path), f"Looking for series in {path.name}")
    if sum(max(1, len(series.volumes)) for series in found) < 2:
        return False
    _, widget = viewer.window.add_plugin_dock_widget("napari-medgs", "Load")
    widget.choose_folder(path)
    return True


def _function_for(path: Path) -> Callable[[Path], list[LayerData]] | None:
    name = path.name.lower()
    if path.is_dir():
        return _function_for_folder(path)
    from napari_medgs.io.formats import is_image_file
    from napari_medgs.io.meshes import SUFFIXES as MESHES
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr
    from napari_medgs.io.segmented import has_segments

    if has_segments(path):
        return read_segment_layers
    if is_ome_zarr(path):
        return read_zarr_layers
    if name.endswith(MESHES):
        return read_surface_layers
    if name.endswith((".tif", ".tiff")) and not name.endswith((".ome.tif", ".ome.tiff")):
        from napari_medgs.io.tiff_volume import has_voxel_sizes

        # napari shows others as well: they need a spacing, which the Load widget asks for.
        return read_volume_layers if has_voxel_sizes(path) else None
    if name.endswith((".dcm", ".ima")) or name == "dicomdir" or is_image_file(path):
        return read_volume_layers
    if name.endswith((".medgs.safetensors", ".medgs")):
        return read_field_layers
    if name.endswith(".npz"):
        return read_medmnist_layers if is_medmnist_archive(path) else None
    return None


def _function_for_folder(path: Path) -> Callable[[Path], list[LayerData]] | None:
    from napari_medgs.io.dicom.series import has_dicom
    from napari_medgs.io.meshes import find_meshes
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    if is_ome_zarr(path):
        return read_zarr_layers
    if find_meshes(path):
        return read_surface_layers
    return read_volume_layers if has_dicom(path) else None


def is_medmnist_archive(path: Path) -> bool:
    """Tell whether an archive has MedMNIST's arrays, reading nothing but its list of names."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "train_images.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_volume_layers(path: Path, **options: Any) -> list[LayerData]:
    """Read an image or mask file, a DICOM folder or a folder of frames as layers.

    Parameters
    ----------
    path : Path
    **options
        spacing, assume_identity, series, volume of :func:`napari_medgs.io.read_volume`.

    Returns
    -------
    list of layer data
        One Image per channel, or one Labels layer. Volumes in time are one Image of four axes,
        unless one of them is chosen.

    Raises
    ------
    MedGSError
        When the file cannot be used.
    """
    from napari_medgs.io.reading import read_all_volumes

    return volume_layers(read_all_volumes(path, **options), path)


def read_segment_layers(path: Path, **options: Any) -> list[LayerData]:
    """Read ``.seg.nrrd``, DICOM SEG or RTSTRUCT as one Labels layer.

    Where segments overlap, each gets a layer of its own.

    Parameters
    ----------
    path : Path
    **options
        spacing, assume_identity of :func:`napari_medgs.io.read_volume`, for ``.seg.nrrd``.

    Returns
    -------
    list of layer data

    Raises
    ------
    MedGSError
        When the file cannot be used.
    """
    from napari_medgs.errors import LabelError
    from napari_medgs.io.formats import image_stem
    from napari_medgs.io.segmented import read_segmented, segment_names

    options = {k: options[k] for k in ("spacing", "assume_identity") if k in options}
    stem = image_stem(path)
    try:
        parts = {stem: read_segmented(path, **options)}
    except LabelError:
        names = list(dict.fromkeys(segment_names(path).values()))
        if len(names) < 2:
            raise
        parts, grid = {}, None
        for name in names:
            # All lie on one grid; that of contours need be looked for only once.
            part = read_segmented(path, grid, segments=[name], **options)
            parts[f"{stem} {name}"] = part
            grid = part[1]
    layers: list[LayerData] = []
    for name, (labels, place_grid, table) in parts.items():
        place = grid_kwargs(place_grid)
        metadata = {
            **place.pop("metadata"),
            "path": str(path),
            NAMES_KEY: table.names,
            COLORS_KEY: table.colors,
            CODES_KEY: table.codes,
        }
        place |= colormap_option(table.colors, labels)
        layers.append((labels, {"name": name, "metadata": metadata, **place}, "labels"))
    return layers


def read_field_layers(path: Path) -> list[LayerData]:
    """Read a field file as reconstruction, mask and centers.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of layer data
        Image layers, a Labels layer where the field has classes, and a Points layer.

    Raises
    ------
    MedGSError
        When the file is no field, or damaged, or of a newer version.
    """
    from napari_medgs.io.fields import field_stem, load_field
    from napari_medgs.plugin.field_images import render_field
    from napari_medgs.plugin.fit.results import field_layer_data

    field = load_field(path)
    return list(field_layer_data(field, render_field(field), field_stem(path)))


def read_medmnist_layers(path: Path) -> list[LayerData]:
    """Read the splits of a MedMNIST set as stacks to leaf through, one Image layer per split.

    The Load widget opens single items.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of layer data

    Raises
    ------
    MedGSError
        When the file is damaged, no such set, or too large for the memory.
    """
    from napari_medgs.io.medmnist.reader import load_set

    found = load_set(path)
    layers: list[LayerData] = []
    for split, images in found.images.items():
        layers.append(_stack(images, f"{found.name} {split}", visible=not layers))
        layers[-1][1]["metadata"]["labels"] = found.labels[split]
        layers[-1][1]["metadata"]["class_names"] = found.class_names
    return layers


def _stack(images: NDArray[Any], name: str, visible: bool) -> LayerData:
    rgb = images.ndim == 4 and images.shape[-1] == 3
    spatial = images.ndim - 1 - rgb
    options: dict[str, Any] = {
        "name": name,
        "visible": visible,
        "rgb": rgb,
        "axis_labels": ("item", *("z", "y", "x")[3 - spatial :]),
        "metadata": {ITEMS_KEY: len(images)},
    }
    if not rgb:
        options["colormap"] = "gray"
    return images, options, "image"


def read_paths(paths: Sequence[str | Path], **options: Any) -> list[LayerData]:
    """Read files as the readers do, but raise their errors (for the Load widget).

    Parameters
    ----------
    paths : sequence of path
    **options
        As of :func:`read_volume_layers`.

    Returns
    -------
    list of layer data

    Raises
    ------
    MedGSError
        When a file is of no known kind, or cannot be used.
    """
    from napari_medgs.errors import FileError
    from napari_medgs.io.formats import KINDS

    layers: list[LayerData] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileError(f"{path}: there is no such file.")
        function = _function_for(path)
        if path.is_dir() and function is None:
            function = read_volume_layers
        if function is None:
            raise FileError(
                f"{path}: unknown file type. {KINDS}, and fields (.medgs.safetensors, .medgs) "
                "can be opened."
            )
        layers += function(path, **options) if function in _WITH_OPTIONS else function(path)
    return layers


# napari_medgs.plugin.load asks for what these need.
_WITH_OPTIONS = (read_volume_layers, read_segment_layers, read_zarr_layers)
