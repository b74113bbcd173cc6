"""What the Export widget can write, as jobs for a thread. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.errors import Cancelled, FileError, LabelError, ParameterError
from napari_medgs.plugin.field_images import render_field
from napari_medgs.plugin.layer_frame import array_of
from napari_medgs.plugin.layer_metadata import (
    CODES_KEY,
    COLORS_KEY,
    NAMES_KEY,
    SOURCE_KEY,
    field_of,
    frame_of_field,
    role_of,
)
from napari_medgs.plugin.layer_orientation import orientation_warning
from napari_medgs.plugin.trees import save_with_tree, tree_of
from napari_medgs.plugin.worker import Job
from napari_medgs.plugin.writer import frame_for_saving, has_known_place

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartTree


@dataclass(frozen=True)
class ExportKind:
    """One thing that can be written.

    Attributes
    ----------
    title, tip : str
    suffixes : tuple of str
        The first is the default.
    sources : callable
        layer -> whether it can be written so.
    missing : str
        What to do where there is no such layer.
    """

    title: str
    tip: str
    suffixes: tuple[str, ...]
    sources: Callable[[Any], bool]
    missing: str


NO_MASK = "There is no mask to export yet: accept one in the Segment widget, or open one."
NO_FIELD = "There are no Gaussians to export yet: run Fit or Segment, or open a field file."
ROLES = ("final", "result", None)
"""Roles of the Labels layers that can be written, the finished ones first. Strokes are none."""


def _is_mask(layer: Any) -> bool:
    return type(layer).__name__ == "Labels" and role_of(layer) in ROLES


def _has_field(layer: Any) -> bool:
    # The mask of a fit carries the field of its reconstruction, which is listed itself.
    twice = type(layer).__name__ == "Labels" and role_of(layer) is None
    return field_of(layer) is not None and not twice


def rank(layer: Any) -> int:
    """Return the place of a layer among those to choose from: accepted masks come first."""
    role = role_of(layer)
    return ROLES.index(role) if role in ROLES else len(ROLES)


KINDS: dict[str, ExportKind] = {
    "mesh": ExportKind(
        "Mesh (mm)",
        "Surfaces of the labels in RAS millimeters. From a mask that belongs to a field they are "
        "taken from the field itself: smoother than its voxels.",
        (".ply", ".stl", ".obj", ".glb"),
        _is_mask,
        NO_MASK,
    ),
    "mask": ExportKind(
        "Mask (NIfTI, NRRD, MHA, DICOM)",
        "A Labels layer with the geometry of the image's file. Of an image that was opened from a "
        "DICOM series also as .dcm (DICOM segmentation) or .rtstruct.dcm (contours).",
        (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".dcm", ".rtstruct.dcm"),
        _is_mask,
        NO_MASK,
    ),
    "image": ExportKind(
        "Reconstruction (NIfTI, NRRD, MHA)",
        "The field's image, rendered on its grid.",
        (".nii.gz", ".nii", ".nrrd", ".mha"),
        _has_field,
        NO_FIELD,
    ),
    "field": ExportKind(
        "Field of Gaussians",
        "Everything that the fit found, to open again here, in Python or on the command line.",
        (".medgs.safetensors",),
        _has_field,
        NO_FIELD,
    ),
    "compressed": ExportKind(
        "Compressed field (.medgs)",
        "A seventh to a twelfth of the bytes, to open here and with every command. Lossy: keep "
        "the image.",
        (".medgs",),
        _has_field,
        NO_FIELD,
    ),
    "splat": ExportKind(
        "Splat cloud (.ply)",
        "For viewers of Gaussian splats: for looking at only, folds and masks are lost.",
        (".ply",),
        _has_field,
        NO_FIELD,
    ),
}


@dataclass(frozen=True)
class MeshOptions:
    """How meshes are made; see ``napari_medgs.meshing.MeshParams``.

    Attributes
    ----------
    labels : tuple of int, optional
        All but 0 by default.
    spacing : float, optional
        mm of the grid that a field is rendered on; its own by default.
    smooth_mm : float, optional
    decimate : float, optional
        Share of the triangles to keep, 0 to 1.
    largest_only : bool
    from_voxels : bool
        Use the layer's voxels even where a field could give a smoother surface.
    separate : bool
        Write one file a label, into a folder.
    """

    labels: tuple[int, ...] | None = None
    spacing: float | None = None
    smooth_mm: float | None = None
    decimate: float | None = None
    largest_only: bool = False
    from_voxels: bool = False
    separate: bool = False


def parse_labels(text: str) -> tuple[int, ...] | None:
    """Return the label values in a text such as "1, 2 5-7"; None when it is empty or "all".

    Raises
    ------
    ParameterError
        When it is something else.
    """
    text = text.strip().lower()
    if text in ("", "all"):
        return None
    found: list[int] = []
    for part in text.replace(",", " ").split():
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ParameterError(f"{part!r} is no label: write numbers and ranges, like 1 2 5-7.")
        values = range(int(low), int(high or low) + 1)
        if len(found) + len(values) > 10_000:
            raise ParameterError("These are more than 10,000 labels.")
        found += values
    return tuple(dict.fromkeys(found))


def with_suffix(path: str | Path, kind: str) -> Path:
    """Return a path with a suffix that the kind of export knows, adding its default if need be."""
    path = Path(path)
    known = KINDS[kind].suffixes
    return path if path.name.lower().endswith(known) else path.with_name(path.name + known[0])


def suggested_name(kind: str, layer: Any) -> str:
    """Return the name of a file to offer: no two kinds of one suffix have the same.

    Parameters
    ----------
    kind : str
    layer : napari.layers.Layer
    """
    source = str(layer.metadata.get(SOURCE_KEY) or layer.name)
    endings = {"image": " reconstruction", "splat": " splats", "field": "", "compressed": ""}
    return source + endings[kind] if kind in endings else str(layer.name)


def export_job(kind: str, layer: Any, path: str | Path, options: MeshOptions | None = None) -> Job:
    """Return the job that writes a layer; its result is the path.

    Layers are read here, in the caller's thread; only arrays go to the job.

    Raises
    ------
    MedGSError
        When the layer cannot be written so.
    """
    if layer is None:
        raise ParameterError("Choose what to export first.")
    if kind not in KINDS or not KINDS[kind].sources(layer):
        raise ParameterError(f"{layer.name!r} cannot be exported as {kind}.")
    target = with_suffix(path, kind)
    field = field_of(layer)
    names = {int(k): str(v) for k, v in dict(layer.metadata.get(NAMES_KEY, {})).items()}
    if kind == "field":
        tree = tree_of([layer], field)
        return _simple(lambda: _save_field(target, field, tree), target)
    if kind == "splat":
        return _simple(lambda: _save_splat(target, field), target)
    if kind == "image":
        grid = frame_of_field(layer).grid
        return _simple(lambda: _save_reconstruction(target, field, grid), target)
    from napari_medgs.io.formats import is_dicom_output
    from napari_medgs.plugin.dicom_source import series_options

    frame = frame_for_saving(layer)
    labels = np.ascontiguousarray(frame.to_canonical(array_of(layer)))
    if kind == "mask":
        more = {"colors": layer.metadata.get(COLORS_KEY), "codes": layer.metadata.get(CODES_KEY)}
        if is_dicom_output(target):
            more |= series_options(layer, frame.grid)
        return _simple(lambda: _save_mask(target, labels, frame.grid, names, more), target)
    options = options or MeshOptions()
    if not labels.any():
        raise LabelError(f"{layer.name!r} is empty: there is no surface to export.")
    smooth = None if options.from_voxels else field
    job = MeshJob(target, labels, frame.grid, names, shown_colors(layer, labels), smooth, options)
    if options.separate:
        job.check_folder()
    return job


def shown_colors(layer: Any, labels: NDArray[Any]) -> dict[int, tuple[float, float, float]]:
    """Return the colors (red, green, blue) that a Labels layer gives to the labels of an array."""
    colors = {}
    for value in np.unique(labels):
        color = layer.get_color(int(value)) if value else None
        if color is not None:
            red, green, blue = (float(v) for v in np.clip(np.ravel(color)[:3], 0, 1))
            colors[int(value)] = (red, green, blue)
    return colors


def place_warning(kind: str, layer: Any) -> str | None:
    """Return what to say beside a result whose place in the patient is not known, else None."""
    if kind in ("mask", "mesh"):
        known = has_known_place(layer)
    else:
        known = is_orientation_known(frame_of_field(layer).grid)
    return None if known else orientation_warning(layer.name)


def _belongs(field: GaussianField | None, labels: NDArray[Any]) -> bool:
    """Tell whether a mask is still the one that a field renders to (not edited since)."""
    if field is None or not field.info.class_names or labels.shape != field.info.grid.shape:
        return False
    rendered = render_field(field).labels
    return rendered is not None and bool(np.array_equal(rendered, labels))


def _simple(write: Callable[[], None], target: Path) -> Job:
    def job(progress: Any, should_stop: Any) -> Path:
        if should_stop():
            raise Cancelled("Canceled; nothing was written.")
        progress(ProgressEvent("writing", 0, 0, 0.0))
        write()
        return target

    return job


def _save_field(path: Path, field: GaussianField | None, tree: PartTree | None) -> None:
    assert field is not None
    save_with_tree(path, field, tree)


def _save_splat(path: Path, field: GaussianField | None) -> None:
    from napari_medgs.io.splats import save_splat_ply

    assert field is not None
    save_splat_ply(path, field)


def _save_reconstruction(path: Path, field: GaussianField | None, grid: Grid) -> None:
    from napari_medgs.io import write_image

    assert field is not None
    if not field.info.image_channels:
        raise ParameterError("This field has no image, only classes: export its mask.")
    write_image(path, render_field(field).images, grid)


def _save_mask(
    path: Path,
    labels: NDArray[Any],
    grid: Grid,
    names: dict[int, str],
    more: dict[str, Any],
) -> None:
    from napari_medgs.io import write_labels

    write_labels(path, labels, grid, names or None, **more)


@dataclass(frozen=True)
class MeshJob:
    """Makes the surfaces of a mask and writes them.

    Attributes
    ----------
    path : Path
        With ``options.separate``, its name without the suffix is the folder's.
    labels : (Z, Y, X) ndarray of int
    grid : Grid
    names : dict of int to str
    colors : dict of int to (red, green, blue)
    field : GaussianField or None
        Gives smoother surfaces where the mask is the one that it renders to.
    options : MeshOptions
    """

    path: Path
    labels: NDArray[Any]
    grid: Grid
    names: dict[int, str]
    colors: dict[int, tuple[float, float, float]]
    field: GaussianField | None
    options: MeshOptions

    @property
    def folder(self) -> Path:
        """Where one file a label goes."""
        return self.path.with_suffix("")

    def check_folder(self) -> None:
        """Refuse a folder that holds something: its files would be mixed with those.

        Raises
        ------
        FileError
        """
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise FileError(
                f"{self.folder}: exists and is not empty; choose another name for the folder of "
                "the meshes."
            )

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Path:
        """Return what was written: a file, or a folder."""
        from napari_medgs.io.meshes import save_meshes
        from napari_medgs.meshing import MeshParams, mesh_from_field, mesh_from_labels

        progress(ProgressEvent("writing", 0, 0, 0.0))
        options = self.options
        params = MeshParams(
            labels=options.labels,
            spacing=options.spacing,
            smooth_mm=options.smooth_mm,
            decimate=options.decimate,
            largest_only=options.largest_only,
        )
        if self.field is not None and _belongs(self.field, self.labels):
            meshes = mesh_from_field(self.field, params)
        else:
            meshes = mesh_from_labels(self.labels, self.grid, params)
        if should_stop():
            raise Cancelled("Canceled; nothing was written.")
        if not options.separate:
            save_meshes(self.path, meshes, self.names, self.colors)
            return self.path
        suffix = self.path.suffix.lower()
        save_meshes(self.folder, meshes, self.names, self.colors, suffix=suffix)
        return self.folder
