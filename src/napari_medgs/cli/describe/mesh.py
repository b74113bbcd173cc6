"""The numbers of meshes, and of splats, which have the same ending."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_mesh(path: Path) -> dict[str, Any]:
    """Return the numbers of a mesh file, or a folder of such, taken to be in millimeters."""
    from napari_medgs.io.meshes import find_meshes, load_meshes
    from napari_medgs.io.splats import count_splats

    splats = count_splats(path) if path.suffix.lower() == ".ply" else None
    if splats is not None:
        return {"kind": "Gaussian splats", "splats": splats, "bytes": path.stat().st_size}
    meshes = load_meshes(path)
    return {
        "kind": "mesh",
        "bytes": sum(file.stat().st_size for file in find_meshes(path) or [path]),
        "parts": {
            name: {
                "vertices": len(mesh.vertices),
                "triangles": len(mesh.faces),
                "closed": bool(mesh.is_watertight),
                "area_mm2": float(mesh.area),
                "ml": float(mesh.volume) / 1000 if mesh.is_watertight else None,
                "lowest_mm": mesh.bounds[0].tolist(),
                "highest_mm": mesh.bounds[1].tolist(),
            }
            for name, mesh in meshes.items()
        },
    }
