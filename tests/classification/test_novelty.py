"""Classifiers say when an image is unlike those that they were trained on."""

import json

import nibabel as nib
import numpy as np
import pytest
import skimage.data
from typer.testing import CliRunner

from napari_medgs.classification import bundled_models, load_classifier, train
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.data.datasets import load_dataset
from napari_medgs.classification.data.preprocess import resize_image
from napari_medgs.classification.files import load_card
from napari_medgs.classification.novelty import Reference, describe, make_reference
from napari_medgs.classification.result import Prediction
from napari_medgs.cli.app import app
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError

PHOTOS = (
    "astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "moon", "page", "text",
)  # fmt: skip


def photographs(rng, channels):
    """Return photographs and parts of them, as a classifier reads them."""
    found = []
    for name in PHOTOS:
        image = getattr(skimage.data, name)()
        image = image[..., None] if image.ndim == 2 else image
        image = image.mean(-1, keepdims=True) if channels == 1 else image
        for _ in range(5):
            edge = rng.integers(64, min(image.shape[:2]) + 1)
            y, x = (rng.integers(0, n - edge + 1) for n in image.shape[:2])
            part = np.moveaxis(image[y : y + edge, x : x + edge], -1, 0)
            part = np.repeat(part, channels // len(part), axis=0)
            found.append(resize_image(part[:, None], (28, 28), "uint8"))
    return np.stack(found)


def noise(rng, channels):
    """Return noise of several sizes."""
    sizes = [(28, 28), (64, 64), (200, 300)] * 20
    drawn = [rng.integers(0, 256, (channels, 1, *size)) for size in sizes]
    return np.stack([resize_image(image, (28, 28), "uint8") for image in drawn])


def others(data_dir, name, channels):
    """Return the test images of the other sets, brought to so many channels."""
    found = []
    for other in set(bundled_models()) - {name}:
        images = load_dataset(data_dir / "medmnist" / f"{other}.npz").scaled_images("test")
        images = images[:, :, 14] if images.ndim == 5 else images
        images = images if images.shape[1] == channels else images.mean(1, keepdims=True)
        found.append(np.repeat(images, channels // images.shape[1], axis=1))
    return found


@pytest.mark.parametrize("name", ["breastmnist", "retinamnist"])
def test_bundled_classifiers_know_their_kind_of_picture(data_dir, rng, name):
    card = load_card(bundled_models()[name])
    reference = card.reference
    own = reference.novelty(
        load_dataset(data_dir / "medmnist" / f"{name}.npz").scaled_images("test")
    )
    assert (own > 1).mean() <= 0.05
    strange = [noise(rng, card.channels), photographs(rng, card.channels)]
    for images in (*strange, *others(data_dir, name, card.channels)):
        assert (reference.novelty(images) > 1).mean() >= 0.95


def test_the_bundled_classifier_of_shapes_knows_its_organ(data_dir, rng):
    from scipy.ndimage import gaussian_filter

    card = load_card(bundled_models()["adrenalmnist3d"])
    data = load_dataset(data_dir / "medmnist" / "adrenalmnist3d.npz")
    own = card.reference.novelty(data.scaled_images("test"))
    assert (own > 1).mean() <= 0.05
    z, y, x = np.indices((28, 28, 28)) - 13.5
    noises = [rng.random((28, 28, 28)) for _ in range(10)]
    noises += [gaussian_filter(rng.random((28, 28, 28)), 1 + k / 5) for k in range(10)]
    solids = [(z**2 + y**2 + x**2 < r**2) * 255.0 for r in range(4, 14)]
    solids += [((abs(z) < r) & (abs(y) < r) & (abs(x) < r)) * 255.0 for r in range(3, 13)]
    shape = (28, 28, 28)
    for strange, least in ((noises, 1.0), (solids, 0.8)):  # the smallest are like small glands
        images = np.stack([resize_image(image[None], shape, "shape") for image in strange])
        assert (card.reference.novelty(images) > 1).mean() >= least
    # Masks of other organs.
    for name in ("ct_spleen_msd_crop/seg", "ct_aorta_totalseg/seg_aorta", "mr_spinalcord_t1/seg"):
        mask = np.asarray(nib.load(data_dir / f"{name}.nii.gz").dataobj) > 0
        image = resize_image(mask[None] * 255.0, shape, "shape")
        assert card.reference.novelty(image[None])[0] > 1


def test_predictions_tell_how_unlike_an_image_is(data_dir, rng):
    classifier = load_classifier(bundled_models()["breastmnist"])
    known = np.load(data_dir / "medmnist" / "breastmnist.npz")["test_images"][3]
    usual = classifier.predict(Volume.from_array(known))
    assert not usual.is_unlike
    strange = classifier.predict(Volume.from_array(rng.integers(0, 256, (28, 28))))
    assert strange.is_unlike
    assert strange.novelty > 2 * usual.novelty
    # The field of a prediction is as usual as its image.
    assert not classifier.predict(usual.field).is_unlike
    assert Prediction({"a": 0.4, "b": 0.35, "c": 0.25}, 0.0, None).is_undecided
    assert not Prediction({"a": 0.6, "b": 0.4}, 0.0, None).is_unlike


def test_the_command_says_it(data_dir, rng, tmp_path):
    frames = tmp_path / "noise.nii.gz"
    image = rng.integers(0, 256, (64, 64, 1)).astype(np.uint8)
    nib.save(nib.Nifti1Image(image, np.eye(4)), frames)
    numbers = tmp_path / "n.json"
    done = CliRunner().invoke(
        app, ["classify", str(frames), "-m", "breastmnist", "--json", str(numbers)]
    )
    assert done.exit_code == 0, done.output
    assert "unlike those of breastmnist" in " ".join(done.output.split())
    assert json.loads(numbers.read_text())["unlike_training_images"] is True
    own = f"{data_dir / 'medmnist' / 'breastmnist.npz'}:test:3"
    done = CliRunner().invoke(app, ["classify", own, "-m", "breastmnist"])
    assert "unlike" not in done.output


def test_training_makes_a_reference(discs, quick, rng):
    card = train(discs, quick).classifier.card
    again = ModelCard.from_dict(json.loads(json.dumps(card.to_dict())))
    known = discs.scaled_images("train")
    assert (again.reference.novelty(known) > 1).mean() < 0.1
    assert (again.reference.novelty(rng.random((20, 1, 16, 16))) > 1).all()


def test_thresholds_come_from_images_left_out(rng):
    images = rng.random((400, 1, 12, 12)) * rng.uniform(0.2, 1, (400, 1, 1, 1))
    reference = make_reference(images[:300], 0.1)
    assert (reference.novelty(images[:300]) > 1).mean() < 0.12
    assert 0.02 < (reference.novelty(images[300:]) > 1).mean() < 0.25
    assert make_reference(images[:5]) is None
    assert make_reference(np.ones((50, 1, 12, 12))) is None
    assert np.isfinite(describe(np.zeros((2, 3, 8, 9, 7)))).all()


@pytest.mark.parametrize(
    "change",
    [
        {"mean": "x"}, {"mean": []}, {"threshold": 0}, {"threshold": float("nan")},
        {"false_alarms": 2}, {"whitening": [[1.0]]}, {"mean": [float("inf"), 0.0]},
    ],
)  # fmt: skip
def test_damaged_references_are_refused(change):
    record = Reference(np.zeros(2), np.eye(2), 1.0).to_dict()
    assert Reference.from_dict(record).threshold == 1.0
    with pytest.raises(FileError, match="reference"):
        Reference.from_dict({**record, **change})
    card = ModelCard("resnet8", "d", "binary-class", ("a", "b"), 1, 2, (28, 28)).to_dict()
    with pytest.raises(FileError):
        ModelCard.from_dict({**card, "novelty": {**record, **change}})
