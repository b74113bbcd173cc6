"""What safetensors files of this package hold: trained networks, and what they coded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_medgs.cli.describe.grid import describe_grid
from napari_medgs.cli.describe.segmenter import describe_segmenter
from napari_medgs.cli.learned_codec import describe_codec
from napari_medgs.errors import FileError


def describe_tensors(path: Path) -> dict[str, Any]:
    """Return what a ``.safetensors`` file of this package holds, whatever its name.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        When another program wrote it, or it is damaged.
    """
    from napari_medgs.io._safetensors import OWN, format_of
    from napari_medgs.io.fields import FORMAT, SUFFIX

    name = format_of(path)
    if name == FORMAT.name:
        raise FileError(f"{path}: is a field; rename it, so that it ends in {SUFFIX}.")
    describe = _KINDS.get(name.removeprefix(OWN)) if name.startswith(OWN) else None
    if describe is None:
        what = f"a {name.removeprefix(OWN)}" if name.startswith(OWN) else ""
        raise FileError(
            f"{path}: is {what or 'a safetensors file of another program'}, which this version "
            "cannot describe."
        )
    return describe(path)


def _describe_classifier(path: Path) -> dict[str, Any]:
    from napari_medgs.classification import load_card

    card = load_card(path)
    measured = card.metrics
    return {
        "kind": "classifier",
        "network": card.model.value,
        "reads": "Gaussians" if card.on_gaussians else "pixels",
        "trained_on": card.dataset,
        "task": card.task.value,
        "classes": list(card.class_names),
        "images": f"{card.ndim}D, {' x '.join(map(str, card.shape))} after resizing, "
        f"{card.channels} channel{'s' * (card.channels > 1)}",
        "test_auc": measured.get("test_auc"),
        "test_auc_interval": measured.get("test_auc_ci"),
        "test_accuracy": measured.get("test_acc"),
        "test_accuracy_interval": measured.get("test_acc_ci"),
        "parameters": card.parameters,
        "bytes": path.stat().st_size,
        "note": card.note,
    }


def _describe_tissue_network(path: Path) -> dict[str, Any]:
    from napari_medgs.tissue.deep.files import load_tissue_card

    card = load_tissue_card(path)
    return {
        "kind": "tissue network",
        "architecture": card.architecture,
        "loss": card.loss,
        "tissue_classes": card.classes,
        "contrasts": list(card.channel_names) or card.contrasts,
        "training_cases": len(card.cases),
        "steps": card.steps,
        "negative_log_likelihood_per_voxel": card.loss_value,
        "bytes": path.stat().st_size,
    }


def _describe_coded(path: Path) -> dict[str, Any]:
    from napari_medgs.compression.learned.files import load_coded_header

    header = load_coded_header(path)
    return {
        "kind": "field coded by a learned codec",
        "gaussians": header.gaussians,
        "bytes": path.stat().st_size,
        "codec": header.codec,
        **describe_grid(header.info.grid),
        "image_channels": list(header.info.image_channels),
        "classes": list(header.info.class_names),
        "label_values": list(header.info.label_values),
    }


_KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "segmenter": describe_segmenter,
    "codec": describe_codec,
    "classifier": _describe_classifier,
    "tissue network": _describe_tissue_network,
    "coded field": _describe_coded,
}
"""By what the header says after "napari-medgs"."""
