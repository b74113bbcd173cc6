"""Classification of small images and volumes: Gaussian graphs, networks, training, prediction.

Research software: what a classifier says is no diagnosis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_medgs.classification.card import DISCLAIMER, Model, ModelCard, bundled_models
from napari_medgs.classification.result import Attribution, Deletion, Prediction
from napari_medgs.classification.training.params import TrainParams

if TYPE_CHECKING:
    from napari_medgs.classification.classifier import Classifier
    from napari_medgs.classification.data.datasets import LabelledSet, load_dataset
    from napari_medgs.classification.files import load_classifier, save_classifier
    from napari_medgs.classification.gaussians.set import GaussianSet
    from napari_medgs.classification.networks.graph_features import graph_data
    from napari_medgs.classification.training.evaluate import Evaluation, evaluate_classifier
    from napari_medgs.classification.training.train import TrainResult, train

# Networks and training are loaded when first used: cards and settings need none of torch.
_LAZY = {
    "Classifier": "classifier",
    "Evaluation": "training.evaluate",
    "GaussianSet": "gaussians.set",
    "LabelledSet": "data.datasets",
    "TrainResult": "training.train",
    "evaluate_classifier": "training.evaluate",
    "graph_data": "networks.graph_features",
    "load_classifier": "files",
    "load_dataset": "data.datasets",
    "save_classifier": "files",
    "train": "training.train",
}

__all__ = [
    "DISCLAIMER",
    "Attribution",
    "Classifier",
    "Deletion",
    "Evaluation",
    "GaussianSet",
    "LabelledSet",
    "Model",
    "ModelCard",
    "Prediction",
    "TrainParams",
    "TrainResult",
    "bundled_models",
    "evaluate_classifier",
    "graph_data",
    "load_classifier",
    "load_dataset",
    "save_classifier",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"napari_medgs.classification.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
