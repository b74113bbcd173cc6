"""The mark in mesh files that says whether their places are RAS or LPS, as 3D Slicer writes it."""

from __future__ import annotations

_MARK = "SPACE="
_OURS = "napari-medgs SPACE=RAS"
_STL_HEADER = 80  # bytes, of binary files
_LONGEST_HEADER = 2**16


def is_lps(start: bytes, suffix: str) -> bool:
    """Tell whether a mesh file says that it lies in LPS; without a mark it lies in RAS.

    Parameters
    ----------
    start : bytes
        The first 64 KiB of the file, or all of it.
    suffix : str
        ``.ply``, ``.stl``, ``.obj`` or ``.glb``, which has no mark.

    Returns
    -------
    bool

    References
    ----------
    vtkMRMLModelStorageNode of 3D Slicer: the first mark in a comment or header counts.
    """
    text = start[:_LONGEST_HEADER]
    if suffix == ".ply":
        lines = text.partition(b"end_header")[0].splitlines()
        said = [line for line in lines if line.startswith((b"comment", b"obj_info"))]
    elif suffix == ".stl":
        said = [text[:_STL_HEADER]]
        if text.startswith(b"solid"):  # a file of text, or a binary one that begins like it
            said.append(text.partition(b"\n")[0])
    elif suffix == ".obj":
        said = [line for line in text.splitlines() if line.startswith(b"#")]
    else:
        return False
    marks = [k for line in said for k in (b"RAS", b"LPS") if _MARK.encode() + k in line]
    return marks[:1] == [b"LPS"]


def mark_ras(content: bytes, suffix: str) -> bytes:
    """Return a mesh file with the mark that it lies in RAS.

    Parameters
    ----------
    content : bytes
        A file of text or binary ``.ply``, a binary ``.stl``, or an ``.obj``.
    suffix : str

    Returns
    -------
    bytes
        Of the same length for ``.stl``.
    """
    if suffix == ".ply":
        magic, kind, rest = content.split(b"\n", 2)
        return b"\n".join((magic, kind, f"comment {_OURS}".encode(), rest))
    if suffix == ".stl":
        return _OURS.encode().ljust(_STL_HEADER, b"\0") + content[_STL_HEADER:]
    return f"# {_OURS}\n".encode() + content
