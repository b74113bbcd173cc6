"""What a MedMNIST file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_set(file: str) -> dict[str, Any]:
    """Return what a MedMNIST file holds."""
    from napari_medgs.io.medmnist.reader import load_set

    loaded = load_set(Path(file))
    return {
        "kind": "MedMNIST set",
        "name": loaded.name,
        "task": loaded.task,
        "classes": list(loaded.class_names),
        "splits": {
            split: {
                "images": len(images),
                "shape": list(images.shape[1:]),
                "type": str(images.dtype),
            }
            for split, images in loaded.images.items()
        },
    }
