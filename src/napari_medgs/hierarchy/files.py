"""Trees of parts in field files: additional tensors that older programs pass over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked, parse_json
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import FileError, FormatVersionError, ParameterError
from napari_medgs.hierarchy.build import cells_again
from napari_medgs.hierarchy.digest import field_digest
from napari_medgs.hierarchy.membership import MembershipRenderer
from napari_medgs.hierarchy.tree import PartTree
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.fields import load_extra, load_field, save_field

PREFIX, VERSION = "tree", 1
ARRAYS = ("children", "altitude", "bridge", "gaussian_leaf", "empty_anchor")


class _TreeRecord(TypedDict):
    version: int
    field: str


def tree_tensors(tree: PartTree) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return what a field file holds of a tree: tensors, and entries of the header.

    Parameters
    ----------
    tree : PartTree

    Returns
    -------
    tensors : dict of str to ndarray
    notes : dict of str to str
        For :func:`~napari_medgs.io.fields.save_field`.
    """
    tensors = {f"{PREFIX}.{name}": getattr(tree, name) for name in ARRAYS}
    note = f'{{"version": {VERSION}, "field": "{tree.field_digest}"}}'
    return tensors, {PREFIX: note}


def save_tree(path: str | Path, tree: PartTree, field: GaussianField | None = None) -> Path:
    """Write a field with its tree to a field file.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgs.safetensors``. A file that is there is replaced.
    tree : PartTree
    field : GaussianField, optional
        The tree's field; the one that it was made with by default.

    Returns
    -------
    Path

    Raises
    ------
    ParameterError
        When the tree belongs to another field.
    FileError
        When the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import load_tree, save_tree
    >>> image = np.random.default_rng(0).random((4, 12, 12), np.float32)
    >>> tree = mg.part_tree(mg.Volume.from_array(image))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same = load_tree(save_tree(folder + "/scan.medgs.safetensors", tree))
    >>> bool((same.cells == tree.cells).all()), bool((same.children == tree.children).all())
    (True, True)
    """
    own = field or tree.need_renderer().field
    if field_digest(own) != tree.field_digest:
        raise ParameterError("The tree of parts belongs to another field; make it anew.")
    tensors, notes = tree_tensors(tree)
    return save_field(path, own, extra=tensors, notes=notes)


def has_tree(path: str | Path) -> bool:
    """Tell whether a field file holds a tree of parts.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    bool

    Raises
    ------
    FileError, FormatVersionError
        When it is no field file.

    Examples
    --------
    >>> import tempfile
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     has_tree(save_tree(folder + "/head.medgs.safetensors", tree))
    True
    """
    return bool(load_extra(path, PREFIX)[0])


def load_tree(path: str | Path, field: GaussianField | None = None) -> PartTree:
    """Read the tree of a field file.

    Parameters
    ----------
    path : str or Path
    field : GaussianField, optional
        The field to use the tree with; the file's own by default.

    Returns
    -------
    PartTree

    Raises
    ------
    FileError
        When the file is damaged, has no tree, or one of another field.
    FormatVersionError
        When a newer version of the package wrote it.

    Examples
    --------
    >>> import tempfile
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same = load_tree(save_tree(folder + "/head.medgs.safetensors", tree))
    >>> len(same) == len(tree)
    True
    """
    own = load_field(path) if field is None else field
    tensors, header = load_extra(path, PREFIX)
    if not tensors:
        raise FileError(
            f"{path}: holds no tree of parts; make one with napari-medgs parts --store, or "
            "napari_medgs.part_tree."
        )
    try:
        note = checked(_TreeRecord, parse_json(header[PREFIX]), "tree")
    except (KeyError, ValueError, ParameterError) as error:
        raise FileError(f"{path}: its tree of parts is damaged ({error}).") from None
    if note["version"] != VERSION:
        raise FormatVersionError(
            f"{path}: its tree of parts has version {note['version']}, this program reads "
            f"{VERSION}. Update napari-medgs to open it."
        )
    digest = field_digest(own)
    if note["field"] != digest:
        raise FileError(
            f"{path}: the tree of parts belongs to another field; make it anew from this one."
        )
    missing = [name for name in ARRAYS if name not in tensors]
    if missing:
        raise FileError(f"{path}: its tree of parts lacks {', '.join(missing)}.")
    problem = _problem(tensors, own)
    if problem:
        raise FileError(f"{path}: its tree of parts is damaged ({problem}).")
    gaussian_leaf = tensors["gaussian_leaf"].astype(np.int32)
    anchor = tensors["empty_anchor"].astype(np.int64)
    leaves = len(tensors["children"]) + 1
    first = leaves - len(anchor)
    cells = cells_again(own, gaussian_leaf, {int(v): first + k for k, v in enumerate(anchor)})
    return PartTree(
        grid=own.info.grid,
        cells=cells,
        gaussian_leaf=gaussian_leaf,
        children=tensors["children"].astype(np.int32),
        altitude=tensors["altitude"].astype(np.float64),
        bridge=tensors["bridge"].astype(np.int32),
        empty_anchor=anchor,
        field_digest=digest,
        renderer=MembershipRenderer(own, cells, gaussian_leaf),
    )


def _problem(tensors: dict[str, NDArray[Any]], field: GaussianField) -> str:
    """Say what is wrong with the arrays of a tree; nothing where they make one."""
    kinds = {name: tensors[name].dtype.kind for name in ARRAYS}
    if any(kind not in "iu" for name, kind in kinds.items() if name != "altitude"):
        return "numbers of nodes are no integers"
    if kinds["altitude"] != "f":
        return "its costs are no floating-point numbers"
    children, altitude, bridge, leaf, anchor = (tensors[name] for name in ARRAYS)
    merges = len(altitude) if altitude.ndim == 1 else 0
    leaves = merges + 1
    if not merges or children.shape != (merges, 2) or bridge.shape != (merges, 2):
        return "its arrays have different lengths"
    if leaf.shape != (len(field),) or anchor.ndim != 1 or len(anchor) > leaves:
        return "it has another number of Gaussians or leaves"
    made = np.sort(children.reshape(-1).astype(np.int64))
    if (made != np.arange(2 * merges)).any():
        return "a node has no parent, or two"
    if (children >= leaves + np.arange(merges)[:, None]).any():
        return "a node is its own ancestor"
    if not np.isfinite(altitude).all() or (np.diff(altitude) < 0).any() or altitude[0] < 0:
        return "its costs fall"
    if (
        (bridge < 0).any()
        or (bridge >= leaves).any()
        or (leaf < 0).any()
        or (leaf >= leaves).any()
    ):
        return "a number of a leaf is out of range"
    voxels = int(np.prod(field.info.grid.shape))
    if len(anchor) and (anchor.min() < 0 or anchor.max() >= voxels):
        return "a voxel lies outside of the image"
    return ""


def write_tree_json(path: str | Path, tree: PartTree) -> Path:
    """Write a tree as numbers: children, costs and sizes of all nodes.

    Parameters
    ----------
    path : str or Path
    tree : PartTree

    Returns
    -------
    Path

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_tree_json(Path(folder) / "tree.json", tree)
    ...     len(json.loads(path.read_text())["children"]) == tree.leaves - 1
    True
    """
    record = {
        "format": "napari-medgs tree of parts",
        "version": VERSION,
        "leaves": tree.leaves,
        "shape": list(tree.grid.shape),
        "voxel_volume_ml": tree.grid.voxel_volume / 1000,
        "field": tree.field_digest,
        "children": tree.children.tolist(),
        "altitude": tree.altitude.tolist(),
        "voxels": tree.voxels.tolist(),
    }
    with atomic_path(
        Path(path)
    ) as temporary:  # one line: there are hundreds of thousands of nodes
        temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return Path(path)
