"""Classifier files: safetensors with a JSON header, so that opening one never runs code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from napari_medgs._optional import require
from napari_medgs._util.records import checked_record
from napari_medgs.classification.card import SUFFIX, ModelCard
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.errors import ParameterError
from napari_medgs.io._networks import NetworkFormat
from napari_medgs.io._safetensors import TensorFormat

FORMAT = NetworkFormat(
    TensorFormat("napari-medgs classifier", 1, "classifier", 4 * 2**20), 2**28, SUFFIX
)
# Weights of graph networks that versions before 0.2 named differently.
_RENAMED = {
    "gnn": (
        (r"^own\.(\d+)\.", r"convolutions.\1.lin_root."),
        (r"^other\.(\d+)\.", r"convolutions.\1.lin_rel."),
        (r"^norms\.(\d+)\.", r"convolutions.\1.norm."),
        (r"^up\.", "global_updates."),
        (r"^vertex\.", "node_encoder."),
        (r"^edge\.", "edge_encoder."),
        (r"^start$", "global_start"),
        (r"^master\.", "global_encoder."),
        (r"^(node|edge|global)_scale\.", r"\1_norm."),
    ),
    "edge": (
        (r"^(convolutions\.\d+)\.there\.", r"\1.lin_source."),
        (r"^(convolutions\.\d+)\.edge\.", r"\1.lin_edge."),
        (r"^(convolutions\.\d+)\.norm1\.", r"\1.message_norm."),
        (r"^(convolutions\.\d+)\.gather\.", r"\1.lin_aggregate."),
        (r"^(convolutions\.\d+)\.norm2\.", r"\1.norm."),
        (r"^(convolutions\.\d+)\.feed\.", r"\1.mlp."),
        (r"^embed\.", "node_encoders."),
        (r"^query\.", "attention.gate_nn."),
        (r"^(node|edge|global)_scale\.", r"\1_norm."),
    ),
}


def save_classifier(path: str | Path, classifier: Classifier) -> Path:
    """Write a classifier to a ``.safetensors`` file.

    The file is complete or absent: it is written under a temporary name and renamed.

    Parameters
    ----------
    path : str or Path
        Its name must end in ``.safetensors``.
    classifier : Classifier

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.classification import bundled_models, load_classifier, save_classifier
    >>> classifier = load_classifier(bundled_models()["breastmnist"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_classifier(folder + "/copy.safetensors", classifier)
    ...     load_classifier(path).card == classifier.card
    True
    """
    return FORMAT.write(path, classifier.card.to_dict(), classifier.network.state_dict())


def load_card(path: str | Path) -> ModelCard:
    """Read only the card of a classifier file; does not need torch.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ModelCard

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_classifier`.

    Examples
    --------
    >>> from napari_medgs.classification import bundled_models, load_card
    >>> load_card(bundled_models()["breastmnist"]).class_names
    ('malignant', 'normal, benign')
    """
    return FORMAT.read_card(path, _card)


def load_classifier(path: str | Path) -> Classifier:
    """Read a classifier's file.

    Parameters
    ----------
    path : str or Path
        One of :func:`~napari_medgs.classification.bundled_models`, or a file that training wrote.

    Returns
    -------
    Classifier
        On the CPU, in evaluation mode.

    Raises
    ------
    FileError
        When the file is missing, damaged or no classifier.
    FormatVersionError
        When a newer version of the package wrote it.
    MissingPackageError
        When torch, or for graph networks torch-geometric, is not installed.

    Examples
    --------
    >>> from napari_medgs.classification import bundled_models, load_classifier
    >>> load_classifier(bundled_models()["breastmnist"]).card.class_names
    ('malignant', 'normal, benign')
    """
    card = load_card(path)
    require("torch", feature="classify")
    from napari_medgs.classification.networks.registry import make_network

    weights = {_current_name(card.model, k): v for k, v in FORMAT.read_weights(path).items()}
    return Classifier(card, FORMAT.build(path, lambda: make_network(card), weights))


def _card(record: Any) -> ModelCard:
    card = ModelCard.from_dict(record)
    if card.on_gaussians:
        fit: FitSettings = checked_record(FitSettings, card.fit, "fit")
        unknown = set(card.fit) - set(fit.to_dict())
        if unknown:
            raise ParameterError(f"fit has no setting {min(unknown)!r}.")
    return card


def _current_name(model: str, name: str) -> str:
    """Return a weight's name in the present networks."""
    for pattern, replacement in _RENAMED.get(model, ()):
        name = re.sub(pattern, replacement, name)
    return name
