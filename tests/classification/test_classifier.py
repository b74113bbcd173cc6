"""Training, files, prediction, attribution, scores, data sets and the command line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from napari_medgs.classification import (
    Classifier,
    ModelCard,
    TrainParams,
    bundled_models,
    evaluate_classifier,
    load_classifier,
    load_dataset,
    save_classifier,
    train,
)
from napari_medgs.classification.card import MODELS
from napari_medgs.classification.files import load_card
from napari_medgs.classification.networks.registry import make_network
from napari_medgs.classification.training.scores import (
    accuracy,
    auc,
    resample_counts,
    resampled_aucs,
)
from napari_medgs.classification.training.train import make_card
from napari_medgs.cli.app import app
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, FileError, ImageError, LabelError, ParameterError
from tests.classification.conftest import write_npz


def image(data) -> Volume:
    return Volume.from_array(data)


def test_hybrid_learns_discs_from_rings(discs, quick, tmp_path):
    result = train(discs, dataclasses.replace(quick, epochs=12, batch_size=16))
    assert result.metrics["test_auc"] > 0.9
    path = save_classifier(tmp_path / "m.safetensors", result.classifier)
    loaded = load_classifier(path)
    assert loaded.card == result.classifier.card
    one = image(discs.images["test"][1, 0])
    before = result.classifier.predict(one)
    after = loaded.predict(one)
    assert after.probabilities == pytest.approx(before.probabilities)
    assert sum(after.probabilities.values()) == pytest.approx(1)
    assert after.field is not None
    assert len(after.field) == 32
    from_field = loaded.predict(after.field).probabilities
    assert from_field["ring"] == pytest.approx(after.probabilities["ring"], abs=1e-3)
    foreign = after.field.with_info(params={})
    assert loaded.predict(foreign).probabilities["ring"] == pytest.approx(
        after.probabilities["ring"], abs=0.25
    )
    again = evaluate_classifier(loaded, discs)
    assert again.metrics["auc"] == pytest.approx(result.metrics["test_auc"], abs=1e-6)
    for method in ("gradient", "leave-out"):
        scores = loaded.attribute(one, 1, method, fraction=0.2)
        assert scores.scores.shape == (32,)
        assert scores.deletion.without_highest < scores.deletion.without_lowest


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_sizes_and_round_trip_of_all_networks(model, ndim, tmp_path):
    from napari_medgs.classification.networks.registry import count_parameters, default_network

    shape = (16,) * ndim
    card = ModelCard(
        model, "x", "multi-class", ("a", "b", "c"), 1, ndim, shape,
        fit={"gaussians": 32} if model in ("hybrid", "edge", "gnn") else {},
        network=default_network(model, ndim, shape, False, 1),
    )  # fmt: skip
    network = make_network(card)
    assert 70_000 < count_parameters(network) < 86_000
    path = save_classifier(tmp_path / "m.safetensors", Classifier(card, network))
    data = np.random.default_rng(0).integers(0, 255, (1, 16, 16) if ndim == 2 else shape)
    shares = load_classifier(path).predict(image(data)).probabilities
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["images", "shapes", "hybrid"])
def test_training_hides_half_of_the_gaussians_of_images_but_few_of_shapes(
    kind, discs, quick, monkeypatch
):
    seen = {True: [], False: []}

    class Recorder(torch.nn.Linear):
        def forward(self, gaussians):
            seen[self.training].append((gaussians.weights > 0).float().mean().item())
            return super().forward(gaussians.values.mean((1, 2))[:, None])

    monkeypatch.setattr(
        "napari_medgs.classification.networks.registry.make_network", lambda card: Recorder(1, 2)
    )  # fmt: skip
    if kind == "shapes":
        masks = {s: np.uint8(255) * (i > 100) for s, i in discs.images.items()}
        cubes = {s: np.repeat(m[:, :, None], 16, axis=2) for s, m in masks.items()}
        discs = dataclasses.replace(discs, images=cubes)
        assert discs.is_shape
    model = "hybrid" if kind == "hybrid" else "edge"
    train(discs, dataclasses.replace(quick, model=model))
    hidden = np.mean(seen[False]) - np.mean(seen[True])
    assert hidden == pytest.approx({"images": 0.5, "shapes": 0.05, "hybrid": 0}[kind], abs=0.03)


def test_weights_of_another_network_are_refused(discs, quick, tmp_path):
    card = make_card(discs, quick)
    path = save_classifier(tmp_path / "m.safetensors", Classifier(card, torch.nn.Linear(2, 2)))
    with pytest.raises(FileError, match="train it again"):
        load_classifier(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_hybrid_renders_flat_images_of_any_size_to_a_grid_that_patches_cut(channels):
    from napari_medgs.classification.networks.registry import default_network

    for shape in ((28, 28), (17, 40), (64, 5)):
        network = default_network("hybrid", 2, shape, False, channels)
        card = ModelCard(
            "hybrid", "x", "binary-class", ("a", "b"), channels, 2, shape,
            fit={"gaussians": 32}, network=network,
        )  # fmt: skip
        assert all(4 <= g <= max(4, n) and g % 2 == 0 for g, n in zip(network["grid"], shape))
        assert make_network(card).grid == tuple(network["grid"])


def test_refuses_other_images(discs, quick, rng):
    card = make_card(discs, quick)
    classifier = Classifier(card, make_network(card))
    with pytest.raises(ImageError, match="2D images"):
        classifier.predict(image(rng.random((4, 16, 16))))
    with pytest.raises(ImageError, match="this has 3"):
        classifier.predict(image(rng.random((3, 1, 16, 16))))
    with pytest.raises(ImageError, match="8-bit"):
        classifier.predict(image(rng.random((16, 16)) * 4000))
    with pytest.raises(ParameterError, match="no class 2"):
        classifier.attribute(image(rng.random((16, 16))), 2)


def test_damaged_files(discs, quick, tmp_path):
    card = make_card(discs, quick)
    path = save_classifier(tmp_path / "m.safetensors", Classifier(card, make_network(card)))
    whole = path.read_bytes()
    for bad in (b"", whole[:100], whole[:-50], b"\xff" * 64, b"not a file"):
        path.write_bytes(bad)
        with pytest.raises(FileError):
            load_classifier(path)
    path.write_bytes(whole.replace(b'"hybrid', b'"gnn   ', 1))
    with pytest.raises(FileError):
        load_classifier(path)


def test_resume_needs_a_run_and_cancel_writes_nothing(discs, quick, tmp_path):
    resume = dataclasses.replace(quick, resume=True, log_dir=str(tmp_path), model="resnet8")
    with pytest.raises(FileError, match="no run to resume"):
        train(discs, resume)
    first = dataclasses.replace(resume, resume=False, logger="csv", epochs=1)
    train(discs, first)
    assert list(tmp_path.glob("logs/*/metrics.csv"))
    result = train(discs, dataclasses.replace(resume, epochs=2))
    assert len(result.history) == 1
    with pytest.raises(Cancelled):
        train(discs, dataclasses.replace(quick, model="resnet8"), should_stop=lambda: True)


def test_early_stopping(discs, quick):
    params = dataclasses.replace(quick, model="resnet8", patience=1, epochs=40, learning_rate=1e-6)
    assert train(discs, params).metrics["epochs"] < 40


@pytest.mark.parametrize("task", ["binary-class", "multi-class", "multi-label, binary-class"])
def test_scores_are_the_evaluators(task, rng):
    many, count = task != "binary-class", 60
    classes = 4 if many else 2
    prediction = np.round(rng.random((count, classes)), 1)
    if task.startswith("multi-label"):
        truth = rng.integers(0, 2, (count, classes))
        area = np.mean([roc_auc_score(truth[:, k], prediction[:, k]) for k in range(classes)])
        share = np.mean([(truth[:, k] == (prediction[:, k] > 0.5)).mean() for k in range(classes)])
    elif many:
        truth = np.arange(count)[:, None] % classes
        area = np.mean([roc_auc_score(truth[:, 0] == k, prediction[:, k]) for k in range(classes)])
        share = (truth[:, 0] == prediction.argmax(1)).mean()
    else:
        truth = np.arange(count)[:, None] % 2
        area = roc_auc_score(truth[:, 0], prediction[:, -1])
        share = (truth[:, 0] == (prediction[:, -1] > 0.5)).mean()
    assert auc(truth, prediction, task) == pytest.approx(area)
    assert accuracy(truth, prediction, task) == pytest.approx(share)
    counts = resample_counts(count, 3)
    rows = np.repeat(np.arange(count), counts[0])
    assert resampled_aucs(truth, prediction, task, counts)[0] == pytest.approx(
        auc(truth[rows], prediction[rows], task)
    )


def test_organ_and_chest_layouts(tmp_path, rng, quick):
    organ = write_npz(
        tmp_path / "organmnist3d.npz", rng, shape=(12, 12, 12),
        labels=lambda n: np.arange(n)[:, None] % 11,
    )  # fmt: skip
    data = load_dataset(organ)
    assert (data.task, len(data.class_names)) == ("multi-class", 11)
    numbers = train(data, dataclasses.replace(quick, epochs=1)).metrics
    assert numbers["test_auc"] is None  # 8 test images of 11 classes: no such curve
    assert 0 <= numbers["test_acc"] <= 1
    chest = write_npz(
        tmp_path / "chestmnist.npz", rng, shape=(16, 16),
        labels=lambda n: (np.arange(n)[:, None] + np.arange(14)) % 3 == 0,
    )  # fmt: skip
    data = load_dataset(chest)
    result = train(data, dataclasses.replace(quick, epochs=1))
    assert 0 <= result.metrics["test_auc"] <= 1
    shares = result.classifier.predict(image(data.images["test"][0, 0])).probabilities
    assert len(shares) == 14
    assert not make_card(load_dataset(organ), quick).preprocessing["tta"]  # left and right


def test_bad_sets(tmp_path, rng, discs):
    one = write_npz(tmp_path / "x.npz", rng, shape=(8, 8), labels=lambda n: np.zeros((n, 1)))
    with pytest.raises(LabelError, match="one class only"):
        load_dataset(one)
    wrong = write_npz(tmp_path / "breastmnist.npz", rng, shape=(8, 8),
                      labels=lambda n: np.arange(n)[:, None] % 5)  # fmt: skip
    with pytest.raises(LabelError, match="do not fit"):
        load_dataset(wrong)
    no_train = dataclasses.replace(discs, images={"test": discs.images["test"]},
                                   labels={"test": discs.labels["test"]})  # fmt: skip
    with pytest.raises(FileError, match="no 'train'"):
        no_train.check()
    np.savez(tmp_path / "none.npz", a=np.zeros(3))
    with pytest.raises(FileError, match="MedMNIST"):
        load_dataset(tmp_path / "none.npz")


def test_folder_of_nifti(tmp_path, rng, quick):
    from napari_medgs.io import write_image

    lines = ["path,label,split"]
    for k in range(12):
        split = "train" if k < 8 else "test"
        data = rng.random((9, 10, 11)).astype(np.float32) + k % 2
        data[:, : 5 if k % 2 else 2] += 1
        write_image(tmp_path / f"{k}.nii.gz", data[None], image(data).grid)
        lines.append(f"{k}.nii.gz,{'ab'[k % 2]},{split}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    data = load_dataset(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.images["train"].shape == (8, 1, 28, 28, 28)
    for bad, message in (
        ("path,label\n", "lacks the column split"),
        ("path,label,split\n0.nii.gz,a,train\n1.nii.gz,a,train", "one class only"),
        ("path,label,split\n0.nii.gz,a,training", "is not train"),
        ("path,label,split\nz.nii.gz,a,train", "no such file"),
        ("path,label,split\n0.nii.gz,a,test", "no 'train'"),
        ("path,label,split\n0.nii.gz,a,train\n./0.nii.gz,b,test", "is in 'train', too"),
    ):
        table.write_text(bad)
        with pytest.raises((FileError, LabelError), match=message):
            load_dataset(tmp_path)


@pytest.mark.parametrize("network", ["resnet8", "inr2vec"])
def test_a_number_of_gaussians_that_nothing_reads_is_refused(tmp_path, rng, network):
    path = write_npz(tmp_path / "a.npz", rng, shape=(16, 16),
                     labels=lambda n: np.arange(n)[:, None] % 2)  # fmt: skip
    line = ["train", str(path), "-o", str(tmp_path / "m.safetensors"), "--network", network]
    refused = CliRunner().invoke(app, [*line, "--gaussians", "64"])
    assert refused.exit_code == 2
    assert "--gaussians has no effect with" in " ".join(refused.output.split())


def test_command_line(tmp_path, rng):
    path = write_npz(tmp_path / "a.npz", rng, shape=(16, 16),
                     labels=lambda n: np.arange(n)[:, None] % 2)  # fmt: skip
    model, numbers = tmp_path / "m.safetensors", tmp_path / "n.json"
    call = CliRunner().invoke
    done = call(app, ["train", str(path), "-o", str(model), "--network", "resnet8",
                      "--epochs", "1", "--json", str(numbers), "--threads", "1"])  # fmt: skip
    assert done.exit_code == 0, done.output
    wanted = {"model", "test_auc", "test_acc", "val_auc", "parameters", "bytes_per_input",
              "seconds_fit", "seconds", "seed"}  # fmt: skip
    assert wanted <= set(json.loads(numbers.read_text()))
    done = call(app, ["classify", f"{path}:test:0", "--model", str(model), "--json", str(numbers)])
    assert done.exit_code == 0, done.output
    assert "no diagnosis" in done.output
    assert sum(json.loads(numbers.read_text())["probabilities"].values()) == pytest.approx(1)
    done = call(app, ["evaluate-classifier", str(path), "--model", str(model)])
    assert done.exit_code == 0, done.output
    assert call(app, ["classify", f"{path}:test:0", "--model", "nothing"]).exit_code == 1
    assert call(app, ["train", str(path), "-o", str(tmp_path / "m.txt")]).exit_code == 1


@pytest.mark.parametrize("name", sorted(bundled_models()) or ["none"])
def test_bundled(name):
    if name == "none":
        pytest.skip("no bundled model in this tree")
    path = bundled_models()[name]
    assert path.stat().st_size < 1_000_000
    card = load_card(path)
    assert card.dataset == name
    assert "test_auc" in card.metrics
    assert "no diagnosis" in card.note
    assert load_classifier(path).card == card


def test_start_from_other_weights_and_settings(discs, quick):
    params = dataclasses.replace(quick, model="gnn", epochs=1, learning_rate=1e-12, ema=0.0)
    first = train(discs, params, network={"raw": False}).classifier
    assert first.card.network["raw"] is False
    kept = {k: v for k, v in first.network.state_dict().items() if not k.startswith("head")}
    again = train(discs, params, network={"raw": False}, initial=kept).classifier
    state = again.network.state_dict()
    assert all(np.allclose(state[k], v, atol=1e-4) for k, v in kept.items() if "_norm." not in k)
    with pytest.raises(ParameterError, match="no weights 'head"):
        train(discs, params, initial={"head.nothing": kept["node_encoder.0.bias"]})
    with pytest.raises(ParameterError, match="Unknown settings"):
        train(discs, params, network={"nothing": 1})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"devices": "all"}, "devices cannot be trained on"),
        ({"devices": "-3"}, "devices cannot be trained on"),
        ({"precision": "64"}, "precision 64 cannot be trained in: give 32"),
        ({"precision": "bf16-mixed"}, "precision bf16-mixed cannot be trained in: give 32"),
        ({"gaussians": 512}, "256 pixels, fewer than 512 Gaussians"),
    ],
)
def test_settings_that_cannot_be_trained_with(discs, quick, changes, says):
    with pytest.raises(ParameterError, match=says):
        train(discs, dataclasses.replace(quick, **changes))


def test_the_edge_network_has_neighbors_on_every_level():
    with pytest.raises(ParameterError, match="needs at least 32 Gaussians"):
        TrainParams(model="edge", gaussians=16)
