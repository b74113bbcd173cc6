"""Classifier files that say something else than they should end in an error of the package."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.files import FORMAT, load_card, load_classifier, save_classifier
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, MedGSError, ParameterError
from tests.strategies import damaged

torch = pytest.importorskip("torch")

CARD = {
    "model": "hybrid", "dataset": "mine", "task": "multi-class", "class_names": ["a", "b"],
    "channels": 1, "ndim": 2, "shape": [8, 8],
    "preprocessing": {"intensity": "percentile", "tta": False, "window": None},
    "fit": {"gaussians": 16, "iterations": 2, "points": 64, "shape": False, "neighbors": 4,
            "seed": 0},
    "network": {"grid": [4, 4], "patch": 2, "shape_input": False}, "training": {"epochs": 1},
    "metrics": {"test_auc": 0.5}, "parameters": 5, "seed": 0, "note": "x",
}  # fmt: skip
IMAGE = Volume.from_array(np.random.default_rng(0).integers(0, 200, (8, 8)).astype(np.float32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from napari_medgs.classification.networks.registry import make_network

    card = ModelCard.from_dict(CARD)
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    return save_classifier(path, Classifier(card, make_network(card)))


def use(path):
    with suppress(MedGSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = load_classifier(path)
        if np.prod(classifier.card.shape) * classifier.card.channels <= 4096:
            chances = classifier.predict(IMAGE).probabilities
            assert np.isfinite(list(chances.values())).all()


FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=120, **FUZZ)
@given(record=damaged(CARD))
def test_cards_that_are_damaged(tmp_path, saved, record):
    path = tmp_path / "m.safetensors"
    path.write_bytes(
        save(load_file(saved), metadata=FORMAT.tensors.header(card=json.dumps(record)))
    )
    use(path)


@settings(max_examples=60, **FUZZ)
@given(data=st.data())
def test_weights_that_are_damaged(tmp_path, saved, data):
    state = load_file(saved)
    name = data.draw(st.sampled_from(sorted(state)))
    factor = data.draw(st.sampled_from([0.0, 1e6, -1e30, 3e38, float("nan")]))
    change = data.draw(st.sampled_from(["scale", "flat", "double", "missing"]))
    if change == "scale":
        state[name] = (state[name] * factor).to(state[name].dtype)
    elif change == "flat":
        state[name] = state[name].reshape(-1)
    elif change == "double":
        state[name] = state[name].double()
    else:
        del state[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(state, metadata=FORMAT.tensors.header(card=json.dumps(CARD))))
    use(path)


def test_weights_that_overflow_give_no_probabilities(tmp_path, saved):
    state = load_file(saved)
    state["resnet.stem.1.running_var"] *= -1e30
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(state, metadata=FORMAT.tensors.header(card=json.dumps(CARD))))
    with pytest.raises(ParameterError, match="weights overflow"):
        load_classifier(path).predict(IMAGE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2.5}, "channels must be a whole number"),
        ({"preprocessing": {"window": "x"}}, "preprocessing.window must be a list"),
        ({"network": {"grid": [10**9, 10**9]}}, "grid must be"),
        ({"network": {"grid": [4, 4], "patch": 0}}, "patch must be"),
        ({"fit": {"gaussians": "a"}}, "fit.gaussians must be a whole number"),
        ({"fit": {"speed": 2}}, "no setting 'speed'"),
        ({"metrics": []}, "metrics must be an object"),
    ],
)
def test_what_is_wrong_with_a_card_is_named(tmp_path, saved, changes, message):
    path = tmp_path / "m.safetensors"
    record = json.dumps({**CARD, **changes})
    path.write_bytes(save(load_file(saved), metadata=FORMAT.tensors.header(card=record)))
    with pytest.raises(FileError, match=message):
        load_card(path)
