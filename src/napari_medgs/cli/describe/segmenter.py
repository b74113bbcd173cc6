"""What a trained segmenter reads, finds and was measured at."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_segmenter(path: Path) -> dict[str, Any]:
    """Return what a trained segmenter reads, finds and was measured at."""
    from napari_medgs.learning.components import describe_components
    from napari_medgs.learning.files import load_segmenter_card
    from napari_medgs.learning.polishing import describe_polishing

    card = load_segmenter_card(path)
    mean, features = card.dice.get("mean", {}), card.network.features
    return {
        "kind": "segmenter",
        "contrasts": list(card.channel_names),
        "classes": [f"{value} {name}" for value, name in card.names.items()],
        "reads": "slices" if card.network.ndim == 2 else "volumes",
        "model_spacing_mm": list(card.spacing),
        "training_cases": len(card.cases),
        "folds": card.folds,
        "features": features.place if features else None,
        "polishing": describe_polishing(card) or None,
        "largest_component_only": describe_components(card) or None,
        "dice": mean.get("mean"),
        "dice_interval": [mean["low"], mean["high"]] if mean else None,
        "parameters": card.parameters,
        "licence": card.licence,
        "bytes": path.stat().st_size,
        "note": card.note,
    }
