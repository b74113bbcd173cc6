"""What the folds' agreement is worth, images of another kind, and contrasts of trained models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from typer.testing import CliRunner  # noqa: E402

from napari_medgs.cli import app  # noqa: E402
from napari_medgs.errors import FileError  # noqa: E402
from napari_medgs.io import write_image  # noqa: E402
from napari_medgs.learning import (  # noqa: E402
    LearnParams,
    find_training_cases,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from napari_medgs.learning.card import CaseEntry, SegmenterCard  # noqa: E402
from napari_medgs.learning.trust import (  # noqa: E402
    badge_of,
    calibrate,
    contrast_contributions,
    describe_input,
    reference_of,
    unlike_training,
)
from tests.learning.cases import phantom, write_nnunet  # noqa: E402


def entries(agreements, dice):
    pairs = enumerate(zip(agreements, dice, strict=True))
    return [CaseEntry(str(k), 0, {"a": d}, a) for k, (a, d) in pairs]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_what_is_said_of_a_band_is_true_of_its_cases(pairs):
    found = calibrate(entries(*zip(*pairs)))
    assert found["cases"] == len(pairs) == sum(band["cases"] for band in found["bands"])
    ordered = sorted((a, d) for a, d in pairs)
    start = 0
    for band in found["bands"]:
        own = ordered[start : start + band["cases"]]
        start += band["cases"]
        assert band["above"] == sum(d > band["dice"] for _, d in own)
        assert own[0][0] == band["from"]
        if band["dice"] > 0:
            assert band["above"] >= 0.9 * band["cases"] - 1e-9


def test_badges_of_new_images():
    agreements = np.linspace(0.5, 0.95, 30)
    calibration = calibrate(entries(agreements, agreements))
    assert calibration["correlation"] == pytest.approx(1)
    assert calibration["auc"] == 1  # all of a Dice below 0.6 agree least
    assert badge_of(0.99, calibration).level == "high"
    assert badge_of(0.75, calibration).level == "medium"
    assert badge_of(0.55, calibration).level == "low"
    assert badge_of(0.3, calibration).level == "below"
    assert "expect a wrong mask" in badge_of(0.3, calibration).sentence
    assert badge_of(0.9, {}).level == "unknown"
    few = calibrate(entries([0.8, 0.9, 0.7, 0.85], [0.81, 0.9, 0.72, 0.83]))
    badge = badge_of(0.8, few)
    assert (badge.level, badge.sentence) == (
        "medium", "4 of 4 cases with such an agreement had a Dice above 0.71.",
    )  # fmt: skip
    assert calibrate([CaseEntry("a")]) == {}


@pytest.mark.parametrize("damaged", [{"bands": 3}, {"bands": [{}], "cases": 1}, {"cases": 2}])
def test_damaged_calibrations(damaged):
    with pytest.raises(FileError, match="calibration"):
        badge_of(0.8, damaged)


def scans(count, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        image = phantom(int(random.integers(10**6)))[0]
        yield ((image - image.mean()) / image.std())[None]


def card_with(reference):
    card = SegmenterCard.__new__(SegmenterCard)
    object.__setattr__(card, "trust", {"reference": reference} if reference else {})
    return card


def test_images_of_another_kind_are_told():
    card = card_with(reference_of([describe_input(image) for image in scans(30)]))
    own = [unlike_training(image, card) for image in scans(20, seed=1)]
    assert np.mean(np.array(own) > 1) <= 0.25
    image = next(scans(1, seed=2))
    for other in (-image, np.random.default_rng(0).normal(size=image.shape), image[:, ::2] * 0.2):
        assert unlike_training(other, card) > max(1.5, max(own))
    assert reference_of([describe_input(image) for image in scans(6)]) is None
    assert unlike_training(image, card_with(None)) is None
    assert len(describe_input(image[:, :1])) != len(describe_input(image))
    with pytest.raises(FileError, match="reference"):
        unlike_training(image[:, :1], card)


def test_contributions_of_contrasts_over_folds():
    def dice(fold, absent):  # the second contrast alone matters, a little less in fold 1
        return None if fold == 2 else np.array([0.0 if 1 in absent else 0.8 - 0.1 * fold])

    found = contrast_contributions(dice, 3, ("t1", "flair"), ("lesion",))
    assert found["lesion"]["shapley"] == pytest.approx({"t1": 0, "flair": 0.75})
    assert found["lesion"]["rank_variance"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A model of two contrasts, of which the second one is noise."""
    folder = tmp_path_factory.mktemp("contrasts")
    data = write_nnunet(folder / "data", 4, contrasts=2)
    random = np.random.default_rng(0)
    for k in range(4):
        image, _, grid = phantom(k)
        noise = random.normal(0, 1, image.shape).astype(np.float32)
        write_image(data / "imagesTr" / f"case{k}_0001.nii.gz", noise, grid)
    params = LearnParams(
        steps=60, folds=4, width=8, levels=2, workers=0, precision="32", threads=1,
        learning_rate=0.02, ema=0.9, accelerator="cpu",
    )  # fmt: skip
    result = train_segmenter(find_training_cases(str(data)), params)
    return save_segmenter(folder / "m.safetensors", result.segmenter), data


def test_the_card_says_what_agreement_is_worth_and_which_contrast_matters(trained):
    trust = load_segmenter(trained[0]).card.trust
    assert trust["agreement"]["cases"] == 4
    for numbers in trust["contrasts"].values():
        assert numbers["shapley"]["T1"] > numbers["shapley"]["T2"] + 0.1
        assert 0 <= numbers["rank_variance"] <= 1 / 3  # two ranks, four folds


def test_explaining_and_trusting_a_mask_of_a_model(trained, tmp_path):
    model, data = trained
    images = [str(data / "imagesTr" / f"case1_000{c}.nii.gz") for c in (0, 1)]
    numbers = tmp_path / "n.json"
    command = ["segment", *images, "--model", str(model), "-o", str(tmp_path / "m.nii.gz")]
    result = CliRunner().invoke(app, [*command, "--explain", "--json", str(numbers)])
    assert result.exit_code == 0, result.output
    found = json.loads(numbers.read_text())
    for value in ("2", "5"):
        shapley = found["contrasts"][value]["shapley"]
        assert shapley["T1"] > shapley["T2"]
        total = 1 - found["contrasts"][value]["without_image"]
        assert sum(shapley.values()) == pytest.approx(total)
    assert found["trust"] in ("low", "medium", "below")
    assert 0 <= found["agreement"] <= 1
    assert found["calibration"] in " ".join(result.output.split())


def test_the_forest_on_a_small_image_and_with_prompts(trained, tmp_path):
    import nibabel

    model, data = trained
    images = [str(data / "imagesTr" / f"case1_000{c}.nii.gz") for c in (0, 1)]
    masks = [tmp_path / "full.nii.gz", tmp_path / "forest.nii.gz"]
    for mask, more in zip(masks, ([], ["--forest"]), strict=True):
        command = ["segment", *images, "--model", str(model), "-o", str(mask), "-q", *more]
        assert CliRunner().invoke(app, command).exit_code == 0
    found = [np.asarray(nibabel.load(mask).dataobj) for mask in masks]
    np.testing.assert_array_equal(*found)
    refused = CliRunner().invoke(app, [*command, "--point", "2", "8", "8", "8"])
    assert refused.exit_code == 2
    assert "without prompts" in " ".join(refused.output.replace("│", " ").split())


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "slots",
    [
        ("--decoder", "gaussian"),
        ("--decoder", "gaussian-energy", "--supervision", "lomix"),
        ("--decoder", "field", "--supervision", "deep"),
        ("--encoder", "forest"),
    ],
)
def test_every_slot_from_the_command_line_to_a_mask(slots, ndim, tmp_path):
    if "field" in slots:
        pytest.importorskip("torch_geometric")
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    from napari_medgs.data.grid import Grid
    from napari_medgs.io import write_labels

    for k in range(2):
        image, labels, grid = phantom(k)
        if ndim == 2:
            image, labels, grid = image[7:8], labels[7:8], Grid((1, 16, 16), grid.affine)
        write_image(folder / "images" / f"c{k}.nii.gz", image, grid)
        write_labels(folder / "labels" / f"c{k}.nii.gz", labels, grid)
    model, mask = str(tmp_path / "m.safetensors"), tmp_path / "o.nii.gz"
    small = ["--steps", "3", "--folds", "0", "--width", "8", "--levels", "2", "--workers", "0",
             "--precision", "32", "--threads", "1", "--accelerator", "cpu", "-q"]  # fmt: skip
    run = CliRunner().invoke(app, ["train-segmenter", str(folder), "-o", model, *slots, *small])
    assert run.exit_code == 0, run.output
    image = str(folder / "images" / "c0.nii.gz")
    run = CliRunner().invoke(app, ["segment", image, "--model", model, "-o", str(mask), "-q"])
    assert run.exit_code == 0, run.output
    assert mask.is_file()
    network = load_segmenter(model).card.network
    assert network.ndim == ndim
    kinds = {str(network.encoder), str(network.decoder), str(network.supervision)}
    assert set(slots[1::2]) <= kinds
