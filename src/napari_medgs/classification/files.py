"""Classifier files: safetensors with a JSON header, so that opening one never runs code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from napari_medgs._optional import require
from napari_medgs._util.records import checked_record, parse_json
from napari_medgs.classification.card import SUFFIX, ModelCard
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._safetensors import TensorFormat, check_weights
from napari_medgs.io.json_files import plain_json

FORMAT = TensorFormat("napari-medgs classifier", 1, "classifier", 4 * 2**20)
MAX_BYTES = 256 * 2**20
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
    """
    from safetensors.torch import save

    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise FileError(f"{path}: a classifier file must end in {SUFFIX}.")
    card = json.dumps(plain_json(classifier.card.to_dict()), ensure_ascii=False)
    state = classifier.network.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    FORMAT.write(path, save(tensors, metadata=FORMAT.header(card=card)))
    return path


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
    """
    header = FORMAT.read_header(path)
    try:
        card = ModelCard.from_dict(parse_json(header["card"]))
        if card.on_gaussians:
            fit: FitSettings = checked_record(FitSettings, card.fit, "fit")
            unknown = set(card.fit) - set(fit.to_dict())
            if unknown:
                raise ParameterError(f"fit has no setting {min(unknown)!r}.")
        return card
    except (FileError, ParameterError) as error:
        raise FileError(f"{path}: {error}") from error
    except (ValueError, KeyError) as error:
        raise FileError(f"{path}: damaged, or no classifier file ({error}).") from error


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
    path = Path(path)
    card = load_card(path)
    require("torch", feature="classify")
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_medgs.classification.networks.registry import make_network

    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path}: too large for a classifier of this package.")
    try:
        state = {_current_name(card.model, k): v for k, v in load_file(path).items()}
        with torch.device("meta"):  # sizes only: a damaged card may ask for any amount of memory
            expected = make_network(card).state_dict()
        check_weights(path, state, {k: v.shape for k, v in expected.items()})
        network = make_network(card)
        network.load_state_dict(state)
    except ParameterError as error:
        raise FileError(f"{path}: damaged classifier. {error}") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FileError(f"{path}: damaged or truncated classifier ({error}).") from error
    return Classifier(card, network)


def _current_name(model: str, name: str) -> str:
    """Return a weight's name in the present networks."""
    for pattern, replacement in _RENAMED.get(model, ()):
        name = re.sub(pattern, replacement, name)
    return name
