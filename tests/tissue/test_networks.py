"""Tissue networks: losses, training on images without labels, files, and what they give."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")
pytest.importorskip("lightning")

import nibabel as nib  # noqa: E402
from scipy.stats import multivariate_normal  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import napari_medgs as mg  # noqa: E402
from napari_medgs.cli import app  # noqa: E402
from napari_medgs.errors import (  # noqa: E402
    Cancelled,
    FileError,
    GeometryError,
    ImageError,
    ParameterError,
)
from napari_medgs.tissue import (  # noqa: E402
    TissueTrainParams,
    load_tissue_network,
    save_tissue_network,
    train_tissues,
)
from napari_medgs.tissue.deep.losses import RIDGE, Samples, negative_log_likelihood  # noqa: E402
from napari_medgs.tissue.deep.networks import SliceNetwork  # noqa: E402
from napari_medgs.tissue.mixture import Bags, Mixture, bag_scores  # noqa: E402
from tests.tissue.conftest import agreement, three_classes  # noqa: E402

FAST = {"steps": 60, "width": 16, "learning_rate": 0.02, "threads": 1}


@pytest.mark.parametrize("loss", ["global", "spatial"])
def test_the_loss_is_that_of_a_mixture(loss):
    """Of voxels, against SciPy's densities; of bags, against the mixture's own scores."""
    rng = np.random.default_rng(0)
    x, logits = rng.normal(size=(50, 2)), rng.normal(size=(50, 3))
    mass = rng.uniform(0.5, 4, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for m in (np.ones(50), mass):
        share = p * m[:, None]
        means = share.T @ x / share.sum(axis=0)[:, None]
        d = x[:, None] - means
        covariance = np.einsum("nk,nkc,nkd->cd", share, d, d) / m.sum() + RIDGE * np.eye(2)
        weights = np.tile(m @ p / m.sum(), (50, 1)) if loss == "global" else p
        if (m == 1).all():
            density = np.stack([multivariate_normal(u, covariance).pdf(x) for u in means], axis=1)
            expected = -np.log((weights * density).sum(axis=1)).mean()
        else:
            bags = Bags(m, x, np.zeros((50, 2, 2)), np.zeros((50, 0)))
            mixture = Mixture(np.ones(3), means, covariance, np.zeros((2, 0)))
            scores = bag_scores(bags, mixture) + np.log(weights)
            expected = -np.logaddexp.reduce(scores, axis=1).sum() / m.sum()
        samples = Samples(torch.tensor(m).float(), torch.tensor(x).float(), None)
        found = negative_log_likelihood(samples, torch.tensor(logits).float(), loss)
        assert float(found) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["global", "spatial"])
def test_a_graph_network_learns_classes_without_labels(volume, field, truth, loss):
    params = TissueTrainParams(loss=loss, **FAST)
    trained = train_tissues([volume], params, fields=[field])
    found = mg.tissues(volume, field=field, model=trained)
    assert agreement(found.labels, truth) > 0.95
    assert found.model == "network"
    assert found.classes == 3
    again = train_tissues([volume], params, fields=[field])
    same = zip(trained.network.parameters(), again.network.parameters(), strict=True)
    assert all(bool((a == b).all()) for a, b in same)


def test_classes_mean_the_same_in_other_images(volume, field, tmp_path):
    """Trained on two images, applied to a third that lacks the darkest class."""
    other = mg.Volume.from_array(three_classes(1)[0], spacing=(3.0, 1, 1))
    params = TissueTrainParams(**FAST)
    trained = train_tissues([volume, other], params, names=["a", "b"])
    assert trained.card.cases == ("a", "b")
    image, truth = three_classes(2)
    image[truth == 1] = image[truth == 2].mean()
    third = mg.Volume.from_array(image, spacing=(3.0, 1, 1))
    expected = np.where(truth == 1, 2, truth)
    path = save_tissue_network(tmp_path / "net.safetensors", trained)
    by_network = mg.tissues(third, model=path, params=mg.TissueParams(rounds=0))
    assert by_network.model == "net.safetensors"
    assert agreement(by_network.labels, expected) > 0.9
    loaded = load_tissue_network(path)
    assert loaded.card == trained.card
    corrected = mg.tissues(third, model=loaded, bias=True)
    assert corrected.bias is not None


def test_a_network_on_slices(volume, truth):
    params = TissueTrainParams(architecture="unet", steps=40, width=8, threads=1)
    trained = train_tissues([volume], params)
    found = mg.tissues(volume, model=trained)
    assert found.field is None  # no field was fitted
    assert agreement(found.labels, truth) > 0.85
    assert np.array_equal(found.region, truth > 0)
    odd = SliceNetwork(trained.card)(torch.zeros(1, 1, 7, 5))
    assert odd.shape == (1, 3, 7, 5)
    with pytest.raises(ParameterError, match="network on slices"):
        mg.tissues(volume, model=trained, bias=True)


def test_commands(tmp_path, truth):
    affine = np.diag([1.0, 1, 3, 1])
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(2):
        stored = np.moveaxis(three_classes(k)[0], 0, 2)
        nib.save(nib.Nifti1Image(stored, affine), folder / f"case{k}.nii.gz")
    run = CliRunner().invoke
    model, result = tmp_path / "net.safetensors", tmp_path / "t.nii.gz"
    words = ["--steps", "60", "--learning-rate", "0.02", "--json", str(tmp_path / "n.json")]
    done = run(app, ["train-tissues", str(folder), "-o", str(model), *words])
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["cases"] == ["case0", "case1"]
    assert numbers["channel_names"] == ["image"]  # and not the name of the first case
    words = [str(folder / "case1.nii.gz"), "-o", str(result), "--model", str(model)]
    done = run(app, ["tissues", *words])
    assert done.exit_code == 0, done.output
    assert set(np.unique(nib.load(result).get_fdata())) == {0, 1, 2, 3}
    done = run(app, ["tissues", *words, "--classes", "5"])
    assert done.exit_code == 1
    assert "The network gives 3 classes, not 5" in " ".join(done.output.split())
    done = run(app, ["train-tissues", str(tmp_path / "none"), "-o", str(model)])
    assert done.exit_code == 1
    assert "none" in done.output


def test_threads_are_those_of_pytorch_too(volume, field):
    import torch

    before, seen = torch.get_num_threads(), set()

    def stop():
        seen.add(torch.get_num_threads())
        return 3 in seen

    with pytest.raises(Cancelled):
        params = TissueTrainParams(**{**FAST, "threads": 3})
        train_tissues([volume], params, fields=[field], should_stop=stop)
    assert torch.get_num_threads() == before != 3


def test_bad_input(volume, field, tmp_path):
    trained = train_tissues([volume], TissueTrainParams(**{**FAST, "steps": 4}), fields=[field])
    two = mg.Volume.from_array(np.concatenate([volume.data, volume.data]), spacing=(3.0, 1, 1))
    with pytest.raises(ImageError, match="2 contrasts; the network was trained on 1"):
        mg.tissues(two, model=trained)
    with pytest.raises(ImageError, match="image 2: the image has 2 contrasts"):
        train_tissues([volume, two], fields=[field, None])
    with pytest.raises(ParameterError, match="at least one image"):
        train_tissues([])
    with pytest.raises(GeometryError, match="grid of the image"):
        train_tissues([volume], fields=[field], regions=[np.ones((2, 2, 2), bool)])
    with pytest.raises(Cancelled, match="no model was written"):
        train_tissues([volume], TissueTrainParams(**FAST), fields=[field],
                      should_stop=lambda: True)  # fmt: skip
    with pytest.raises(ParameterError, match="architecture"):
        TissueTrainParams(architecture="forest")
    with pytest.raises(FileError, match="must end in"):
        save_tissue_network(tmp_path / "net.pt", trained)
    path = save_tissue_network(tmp_path / "net.safetensors", trained)
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-50], b"", whole.replace(b"graph", b"grapf", 1)):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"net\.safetensors"):
            load_tissue_network(path)
    mg.save_field(tmp_path / "scan.medgs.safetensors", field)
    with pytest.raises(FileError, match="not a tissue network"):
        mg.tissues(volume, field=field, model=tmp_path / "scan.medgs.safetensors")
