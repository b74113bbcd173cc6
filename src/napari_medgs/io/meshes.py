"""Mesh files: binary .ply, .stl, .obj and .glb, in RAS millimeters, colored by label."""

from __future__ import annotations

import colorsys
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, LabelError, ParameterError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._limits import check_file
from napari_medgs.io._mesh_space import is_lps, mark_ras
from napari_medgs.io._reasons import reason

if TYPE_CHECKING:
    from trimesh import Trimesh

Color = tuple[float, float, float]

SUFFIXES = (".ply", ".stl", ".obj", ".glb")


def check_mesh_path(path: str | Path) -> Path:
    """Refuse an output path that no mesh can be written to, before any work is done.

    Parameters
    ----------
    path : str or Path
        A file that ends in .ply, .stl, .obj or .glb, or a folder, existing or not.

    Raises
    ------
    FileError
        When the suffix is another, or the folder that it is to lie in does not exist.
    """
    path = Path(path)
    if path.is_dir():
        return path
    if path.suffix.lower() not in (*SUFFIXES, ""):
        raise FileError(
            f"{path}: meshes are written as {', '.join(SUFFIXES)}, or into a folder, not as "
            f"{path.suffix}."
        )
    if path.suffix == "" and path.exists():
        raise FileError(f"{path}: is a file; choose another name for the folder.")
    if not path.parent.is_dir():
        raise FileError(f"{path}: the folder {path.parent} does not exist; make it first.")
    return path


def label_color(label: int) -> Color:
    """Return a label's color (red, green, blue in [0, 1]), distinct for consecutive labels."""
    hue = (0.02 + 0.618034 * (label - 1)) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.45 + 0.3 * (label % 2), 0.95 - 0.2 * (label % 3) / 2)


def save_meshes(
    path: str | Path,
    meshes: Mapping[int, Trimesh],
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, Any] | None = None,
    *,
    suffix: str = ".ply",
) -> list[Path]:
    """Write meshes to one file, or one file per label into a folder.

    Parameters
    ----------
    path : str or Path
        ``.ply`` (binary, colored vertices), ``.stl`` (binary, no colors), ``.obj`` (colored
        vertices), ``.glb`` (a scene with one named, colored node per label); anything without a
        suffix, and every existing folder, is a folder of ``label_name.ply`` files.
    meshes : mapping of int to Trimesh
        By label.
    names : mapping of int to str, optional
        Names of labels, for nodes and file names.
    colors : mapping of int to (red, green, blue), optional
        In [0, 1]; :func:`label_color` where a label is missing.
    suffix : str
        Kind of the files in a folder.

    Returns
    -------
    list of Path
        The files written. Each was read back before it was renamed to its final name.

    Raises
    ------
    ParameterError
        When the suffix is no mesh format's.
    FileError
        When the target cannot be written, or does not read back as what was written.
    LabelError
        When there is no mesh.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import trimesh
    >>> from napari_medgs.io.meshes import load_meshes, save_meshes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = save_meshes(Path(folder) / "box.ply", {1: trimesh.creation.box()})
    ...     len(load_meshes(files[0])["box"].faces)
    12
    """
    path = check_mesh_path(path)
    if suffix not in SUFFIXES:
        raise ParameterError(f"suffix must be one of {', '.join(SUFFIXES)}, not {suffix!r}.")
    if not meshes:
        raise LabelError("There is no mesh to write.")
    names = names or {}
    painted = {label: _painted(mesh, label, colors or {}) for label, mesh in meshes.items()}
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        _write(path, painted, names)
        return [path]
    written = [path / f"{_stem(label, names)}{suffix}" for label in painted]
    if not path.exists():  # a new folder is complete or absent
        with atomic_path(path) as temporary:
            temporary.mkdir()
            try:
                for file, (label, mesh) in zip(written, painted.items(), strict=True):
                    _write(temporary / file.name, {label: mesh}, names)
            except FileError as error:
                raise FileError(str(error).replace(str(temporary), str(path))) from error
        return written
    for file, (label, mesh) in zip(written, painted.items(), strict=True):
        _write(file, {label: mesh}, names)
    older = sorted({p.name for p in find_meshes(path)} - {p.name for p in written})
    if older:
        more = f" and {len(older) - 3} more" if len(older) > 3 else ""
        warnings.warn(
            f"{path}: holds meshes of earlier runs beside the new ones: "
            f"{', '.join(older[:3])}{more}.",
            stacklevel=2,
        )
    return written


def find_meshes(folder: str | Path) -> list[Path]:
    """Return the mesh files of a folder, sorted; empty where it also holds other files.

    Parameters
    ----------
    folder : str or Path
        As :func:`save_meshes` writes it. Hidden files and JSON files are passed over.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    files = [
        p
        for p in sorted(folder.iterdir())
        if not p.name.startswith(".") and p.suffix.lower() != ".json"
    ]
    meshes = [p for p in files if p.suffix.lower() in SUFFIXES and p.is_file()]
    return meshes if len(meshes) == len(files) else []


def load_meshes(path: str | Path) -> dict[str, Trimesh]:
    """Read a mesh file: its parts by name (scenes of .glb), else one part by the file's name.

    Places are RAS millimeters. A file that says ``SPACE=LPS``, as 3D Slicer writes it, is brought
    to RAS; one that says nothing is taken as RAS.

    Parameters
    ----------
    path : str or Path
        A ``.ply``, ``.stl``, ``.obj`` or ``.glb`` file, or a folder of nothing else.

    Returns
    -------
    dict of str to trimesh.Trimesh

    Raises
    ------
    FileError
        When the file is missing, of another kind, damaged, or holds no faces.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> labels = np.zeros((6, 6, 6), np.uint8)
    >>> labels[1:5, 1:5, 1:5] = 1
    >>> grid = mg.Volume.from_array(labels).grid
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cube.ply"
    ...     _ = mg.save_meshes(path, mg.mesh(labels, grid))
    ...     parts = mg.load_meshes(path)
    >>> list(parts)
    ['cube']
    """
    import trimesh

    if Path(path).is_dir():
        files = find_meshes(path)
        if not files:
            raise FileError(f"{path}: the folder holds no mesh files, or other files beside them.")
        return {name: part for file in files for name, part in load_meshes(file).items()}
    path = check_file(path, "a mesh file")
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path}: not a mesh file ({', '.join(SUFFIXES)}).")
    try:
        # No resolver: an untrusted mesh file must not open other files.
        with path.open("rb") as stream:
            start = stream.read(2**16)
            stream.seek(0)
            scene = trimesh.load_scene(stream, file_type=path.suffix.lower()[1:], process=False)
        to_ras = np.diag([-1.0, -1, 1, 1]) if is_lps(start, path.suffix.lower()) else np.eye(4)
        parts = {}
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            part = scene.geometry[name].copy()
            if isinstance(part, trimesh.Trimesh) and len(part.faces):
                if not (part.faces.min() >= 0 and part.faces.max() < len(part.vertices)):
                    raise ValueError("faces name vertices that it does not have")
                part.apply_transform(to_ras @ transform)
                parts[str(node)] = part
    except Exception as error:
        raise FileError(f"{path}: not a readable mesh ({reason(error)}).") from error
    if not parts or not all(np.isfinite(part.vertices).all() for part in parts.values()):
        raise FileError(f"{path}: holds no mesh with finite vertices.")
    return (
        parts
        if len(parts) > 1 or path.suffix.lower() == ".glb"
        else {path.stem: next(iter(parts.values()))}
    )


def _painted(mesh: Trimesh, label: int, colors: Mapping[int, Any]) -> Trimesh:
    """Return a copy in its label's color."""
    import trimesh

    color = np.asarray(colors.get(label, label_color(label)), np.float64).ravel()[:3]
    if color.shape != (3,) or not ((color >= 0) & (color <= 1)).all():
        raise ParameterError(f"The color of label {label} must be three numbers from 0 to 1.")
    rgba = np.append(np.round(color * 255), 255).astype(np.uint8)
    return trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        process=False,
        vertex_colors=np.tile(rgba, (len(mesh.vertices), 1)),
    )


def _write(path: Path, meshes: Mapping[int, Trimesh], names: Mapping[int, str]) -> None:
    import trimesh

    faces = sum(len(mesh.faces) for mesh in meshes.values())
    kind = path.suffix.lower()
    with atomic_path(path) as temporary:
        if kind == ".glb":
            scene = trimesh.Scene()
            for label, mesh in meshes.items():
                node = _stem(label, names)
                scene.add_geometry(_with_material(mesh), node_name=node, geom_name=node)
            temporary.write_bytes(scene.export(file_type="glb"))
        else:
            whole = trimesh.util.concatenate(list(meshes.values()))
            options: dict[str, Any] = {".ply": {"encoding": "binary"}}.get(kind, {})
            content = whole.export(file_type=kind[1:], **options)
            content = content.encode() if isinstance(content, str) else content
            temporary.write_bytes(mark_ras(content, kind))
        back = load_meshes(temporary)
        if sum(len(mesh.faces) for mesh in back.values()) != faces:
            raise FileError(f"{path}: was not written completely; is the disk full?")


def _with_material(mesh: Trimesh) -> Trimesh:
    """Return a copy with one material: viewers shade it better than colored vertices."""
    import trimesh

    rgba: NDArray[np.uint8] = mesh.visual.vertex_colors[0]
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=rgba, metallicFactor=0.0, roughnessFactor=0.7, doubleSided=False
    )
    visual = trimesh.visual.TextureVisuals(material=material)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, visual=visual)


def _stem(label: int, names: Mapping[int, str]) -> str:
    """Name of a label that is safe as a file name everywhere."""
    name = names.get(label, "")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # in a locale without Unicode
        name = name.encode("ascii", "ignore").decode()
    name = re.sub(r"[^\w.-]+", "_", name).strip("._")[:60]
    return f"{label:03d}_{name}" if name else f"label_{label:03d}"
