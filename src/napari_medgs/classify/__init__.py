"""Classification of small images and volumes: Gaussian graphs, networks, training, prediction.

Research software: what a classifier says is no diagnosis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_medgs.classify.card import DISCLAIMER, Model, ModelCard, bundled_models
from napari_medgs.classify.params import TrainParams
from napari_medgs.classify.result import Attribution, Deletion, Prediction

if TYPE_CHECKING:
    from napari_medgs.classify.classifier import Classifier
    from napari_medgs.classify.datasets import LabelledSet, load_dataset
    from napari_medgs.classify.evaluate import Evaluation, evaluate_classifier
    from napari_medgs.classify.files import load_classifier, save_classifier
    from napari_medgs.classify.gaussians import GaussianSet
    from napari_medgs.classify.graph import graph_data
    from napari_medgs.classify.training import TrainResult, train

# Networks and training are loaded when first used: cards and settings need none of torch.
_LAZY = {
    "Classifier": "classifier",
    "Evaluation": "evaluate",
    "GaussianSet": "gaussians",
    "LabelledSet": "datasets",
    "TrainResult": "training",
    "evaluate_classifier": "evaluate",
    "graph_data": "graph",
    "load_classifier": "files",
    "load_dataset": "datasets",
    "save_classifier": "files",
    "train": "training",
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
        return getattr(import_module(f"napari_medgs.classify.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
