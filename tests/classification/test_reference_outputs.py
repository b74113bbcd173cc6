"""Networks give the logits that were stored before they were built on torch-geometric.

``reference/`` holds two synthetic images as Gaussians per bundled classifier, small classifiers of
both graph networks in the first file layout, and the logits of all of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_medgs.classification import bundled_models, load_classifier
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.inference import logits_of

FOLDER = Path(__file__).parent / "reference"
LOGITS = json.loads((FOLDER / "logits.json").read_text())
GRAPHS = ("gnn-2d", "gnn-features-2d", "gnn-3d", "edge-2d", "edge-3d")


def gaussians(name: str) -> GaussianSet:
    stored = load_file(FOLDER / "gaussians.safetensors")
    card = load_classifier(bundled_models()[name]).card
    tensors = {key: stored[f"{name}/{key}"] for key in GaussianSet.tensor_names()}
    return GaussianSet(**tensors, shape=card.shape, occupancy=card.is_shape)


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_bundled_classifiers(name):
    classifier = load_classifier(bundled_models()[name])
    with torch.no_grad():
        found = logits_of(classifier.network, gaussians(name), classifier.card)
    np.testing.assert_allclose(found, LOGITS[name], atol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_networks_of_the_first_file_layout(name):
    classifier = load_classifier(FOLDER / f"{name}.safetensors")
    inputs = gaussians("retinamnist" if name.endswith("2d") else "adrenalmnist3d")
    weights = inputs.weights.clone()
    weights[0, 5] = 0  # an absent Gaussian
    presence = torch.ones_like(weights).requires_grad_()
    found = classifier.network(replace(inputs, weights=weights * presence))
    np.testing.assert_allclose(found.detach(), LOGITS[name], atol=1e-5)
    (gradient,) = torch.autograd.grad(found[:, 1].sum(), presence)
    np.testing.assert_allclose(gradient[:, :8], LOGITS[f"{name}/gradient"], atol=1e-5, rtol=1e-3)
