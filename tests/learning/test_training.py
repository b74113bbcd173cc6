"""Training on tiny cases, files, and masks of other images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import SimpleITK as sitk  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from napari_medgs import Volume  # noqa: E402
from napari_medgs.cli import app  # noqa: E402
from napari_medgs.data.grid import Grid  # noqa: E402
from napari_medgs.errors import (  # noqa: E402
    Cancelled,
    FileError,
    FormatVersionError,
    GeometryError,
    ImageError,
    LabelError,
    MemoryEstimateError,
    ParameterError,
)
from napari_medgs.io import write_image, write_labels  # noqa: E402
from napari_medgs.learning import (  # noqa: E402
    LearnParams,
    Segmenter,
    SegmenterCard,
    SegmenterConfig,
    find_training_cases,
    load_segmenter,
    load_segmenter_card,
    save_segmenter,
    train_segmenter,
)
from napari_medgs.learning.card import ChannelScale  # noqa: E402
from napari_medgs.learning.data.patches import Augmentation, PatchDataset  # noqa: E402
from napari_medgs.learning.data.prepare import plan_sizes, prepare_case  # noqa: E402
from napari_medgs.learning.resampling import resample_classes, resample_image  # noqa: E402
from napari_medgs.learning.tiles import tile_size, tile_starts, tiled_probabilities  # noqa: E402
from napari_medgs.learning.training.folds import (  # noqa: E402
    fold_of_cases,
    left_out,
    unseen_by,
)
from napari_medgs.learning.training.train import look_at_cases  # noqa: E402
from tests.learning.cases import NAMES, phantom, write_nnunet  # noqa: E402

TINY = LearnParams(
    steps=60, folds=0, width=8, levels=2, workers=0, precision="32", threads=1,
    learning_rate=0.02, ema=0.9,
)  # fmt: skip
WORDS = [
    "--width", 8, "--levels", 2, "--workers", 0, "--precision", "32", "--threads", 1,
    "--learning-rate", 0.02, "--ema", 0.9,
]  # fmt: skip


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nnunet(tmp_path_factory.mktemp("cases"), 4)


@pytest.fixture(scope="module")
def model(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter with the networks of four folds, trained from the command line."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "ball.safetensors"
    said = run(
        "train-segmenter", cases, "-o", path, "--steps", 80, "--folds", 4, "--license", "CC0-1.0",
        "--log-dir", folder / "log", "--json", folder / "numbers.json", *WORDS,
    )  # fmt: skip
    assert "ball, box from 4 cases" in said
    assert "4 further networks" in said
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A case that the model has not seen, with its mask."""
    image, labels, grid = phantom(77)
    write_labels(tmp_path / "truth.nii.gz", labels, grid)
    return write_image(tmp_path / "scan.nii.gz", image, grid)


def untrained(**options) -> Segmenter:
    config = SegmenterConfig(ndim=3, channels=1, classes=3, widths=(4, 8))
    torch.manual_seed(0)
    card = SegmenterCard(
        network=config, class_values=(2, 5), class_names=("ball", "box"),
        channel_names=("image",), scales=(ChannelScale(),), spacing=(1.0, 1.0, 1.0),
        patch=(16, 16, 16),
    )  # fmt: skip
    from napari_medgs.learning.networks.segmenter import build_segmenter

    return Segmenter(replace(card, **options), [build_segmenter(config)])


# Training


def test_card_and_logs(model: Path):
    card = load_segmenter_card(model)
    assert card.names == NAMES
    assert card.licence == "CC0-1.0"
    assert card.channel_names == ("T1",)
    assert sorted(entry.fold for entry in card.cases) == [0, 1, 2, 3]
    assert all(set(entry.dice) == {"ball", "box"} for entry in card.cases)
    assert all(0 <= entry.agreement <= 1 for entry in card.cases)
    mean = np.mean([list(entry.dice.values()) for entry in card.cases])
    assert card.dice["mean"]["mean"] == pytest.approx(mean)
    assert card.dice["mean"]["low"] <= mean <= card.dice["mean"]["high"]
    numbers = json.loads((model.parent / "numbers.json").read_text())
    assert numbers["training"]["done_steps"] == {"all": 80} | {
        f"fold {k}": 40 for k in (1, 2, 3, 4)
    }
    losses = [entry["loss"] for entry in numbers["history"]["all"]]
    assert losses[-1] < 0.7 * losses[0]
    rows = (model.parent / "log" / "all" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + len(losses)


def test_segment_and_evaluate(model: Path, scan: Path, tmp_path: Path):
    mask, chances, doubt = (tmp_path / f"{n}.nii.gz" for n in ("mask", "p", "u"))
    said = run(
        "segment", scan, "--model", model, "-o", mask, "--probability", chances,
        "--uncertainty", doubt, "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert "2 ball" in said
    assert "agreement of the folds" in said
    labels, truth = nib.load(mask), nib.load(tmp_path / "truth.nii.gz")
    assert np.allclose(labels.affine, truth.affine)
    found, wanted = np.asarray(labels.dataobj), np.asarray(truth.dataobj)
    dice = 2 * ((found > 0) & (wanted > 0)).sum() / ((found > 0).sum() + (wanted > 0).sum())
    assert dice > 0.8
    assert set(np.unique(found)) <= {0, 2, 5}
    p = np.asarray(nib.load(chances).dataobj)
    assert p.shape == (*found.shape, 3)
    assert np.allclose(p.sum(-1), 1, atol=1e-4)
    assert (np.array([0, 2, 5])[p.argmax(-1)] == found).all()
    assert np.allclose(np.asarray(nib.load(doubt).dataobj), 1 - p.max(-1), atol=1e-5)
    assert "mean" in run("evaluate", mask, tmp_path / "truth.nii.gz")
    again = tmp_path / "again.nii.gz"
    assert "agreement" not in run("segment", scan, "--model", model, "-o", again, "--no-agreement")
    assert (np.asarray(nib.load(again).dataobj) == found).all()


def test_prompts_start_from_the_model(model: Path, scan: Path, tmp_path: Path):
    mask, corrected = tmp_path / "mask.nii.gz", tmp_path / "corrected.nii.gz"
    run("segment", scan, "--model", model, "-o", mask)
    run("segment", scan, "--model", model, "--point", 0, 8, 8, 8, "-o", corrected)
    before = np.asarray(nib.load(mask).dataobj)
    after = np.asarray(nib.load(corrected).dataobj)
    assert before[8, 8, 8] == 2
    assert after[8, 8, 8] == 0
    assert (after != 0).any()


def test_many_images(model: Path, cases: Path, tmp_path: Path):
    damaged = tmp_path / "images"
    damaged.mkdir()
    for k in range(2):
        image = cases / "imagesTr" / f"case{k}_0000.nii.gz"
        (damaged / f"case{k}.nii.gz").write_bytes(image.read_bytes()[: None if k else 300])
    said = run(
        "segment", damaged, "--model", model, "-o", tmp_path / "masks", "--json",
        tmp_path / "n.json", status=1,
    )  # fmt: skip
    assert "1 of 2 cases failed" in said
    assert [p.name for p in (tmp_path / "masks").glob("*.nii.gz")] == ["case1.nii.gz"]
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["next"] == "case1"


def test_continue(model: Path, cases: Path, tmp_path: Path):
    more = write_nnunet(tmp_path / "more", 5)
    path = tmp_path / "next.safetensors"
    run("train-segmenter", more, "--continue", model, "-o", path, "--steps", 4, "--workers", 0)
    before, after = load_segmenter(model), load_segmenter(path)
    assert after.card.network == before.card.network
    assert after.card.licence == "CC0-1.0"
    folds = {entry.name: entry.fold for entry in after.card.cases}
    assert {e.name: e.fold for e in before.card.cases}.items() <= folds.items()
    assert set(folds) - {e.name for e in before.card.cases} == {"case4"}
    image, labels, grid = phantom(77)
    mask = after.segment(Volume(image[None], grid)).labels
    assert 2 * ((mask > 0) & (labels > 0)).sum() / ((mask > 0).sum() + (labels > 0).sum()) > 0.7


def test_numbers_of_the_model_before_are_not_those_of_the_continued_one(
    model: Path, cases: Path, tmp_path: Path
):
    assert load_segmenter(model).card.dice
    path = tmp_path / "next.safetensors"
    words = ["train-segmenter", cases, "--continue", model, "-o", path]
    said = run(*words, "--steps", 2, "--workers", 0, "--folds", 0)
    card = load_segmenter(path).card
    assert (card.folds, card.dice, card.trust) == (0, {}, {})
    assert "Dice" not in said


def test_continue_refused(model: Path, cases: Path, tmp_path: Path):
    words = ["train-segmenter", cases, "--continue", model, "-o", tmp_path / "x.safetensors"]
    assert "--width" in run(*words, "--width", 32, status=2)
    assert "would overwrite" in run(*words[:-1], model, status=1)
    start = load_segmenter(model)
    two = look_at_cases(find_training_cases(write_nnunet(tmp_path / "two", 2, 2)))
    with pytest.raises(ImageError, match=r"reads 1 contrast\(s\) \(T1\), the cases have 2"):
        train_segmenter(two, TINY, start=start)
    one = look_at_cases(find_training_cases(write_nnunet(tmp_path / "one", 2)), values=[5])
    with pytest.raises(LabelError, match="2 ball, 5 box, the cases 5 box"):
        train_segmenter(one, TINY, start=start)


def test_threads_are_those_of_pytorch_too(cases: Path):
    import torch

    before, seen = torch.get_num_threads(), set()

    def stop() -> bool:
        seen.add(torch.get_num_threads())
        return 3 in seen

    with pytest.raises(Cancelled):
        train_segmenter(find_training_cases(cases), replace(TINY, threads=3), should_stop=stop)
    assert torch.get_num_threads() == before != 3


def test_cancel(cases: Path):
    source = find_training_cases(cases)
    asked = []

    def stop_after(stage: str, step: int):
        state = {"now": False}

        def progress(event) -> None:
            asked.append(event.stage)
            state["now"] |= event.stage == stage and event.done >= step

        return {"progress": progress, "should_stop": lambda: state["now"]}

    with pytest.raises(Cancelled, match="no model was written"):
        train_segmenter(source, TINY, **stop_after("check cases", 1))
    with pytest.raises(Cancelled, match="no model was written"):
        train_segmenter(source, TINY, **stop_after("train all", 1))
    result = train_segmenter(source, replace(TINY, folds=2), **stop_after("train all", 25))
    assert result.stopped_by == "cancelled"
    assert result.segmenter.card.folds == 0
    assert 25 <= result.segmenter.card.training["done_steps"]["all"] < 60


def test_resume_gives_the_same(cases: Path, tmp_path: Path):
    source = find_training_cases(cases)
    params = replace(TINY, steps=40, log_dir=str(tmp_path / "log"))
    whole = train_segmenter(source, replace(params, log_dir=None)).segmenter

    def stop() -> bool:
        return (tmp_path / "log" / "all" / "last.ckpt").exists()

    part = train_segmenter(source, params, should_stop=stop).segmenter
    assert part.card.training["done_steps"]["all"] < 40
    resumed = train_segmenter(source, replace(params, resume=True)).segmenter
    assert resumed.card.training["done_steps"]["all"] == 40
    for one, other in zip(whole.networks[0].parameters(), resumed.networks[0].parameters()):
        assert torch.allclose(one, other, atol=1e-4)
    with pytest.raises(FileError, match="no run to resume"):
        train_segmenter(source, replace(params, resume=True, log_dir=str(tmp_path / "none")))


def test_minutes(cases: Path):
    params = replace(TINY, steps=None, minutes=0.03, patience=50)
    result = train_segmenter(find_training_cases(cases), params)
    assert result.segmenter.card.training["done_steps"]["all"] > 5
    assert any("dice" in entry for entry in result.history["all"])


def test_same_seed_same_weights(cases: Path):
    source = find_training_cases(cases)
    params = replace(TINY, steps=10)
    one, other = (train_segmenter(source, params).segmenter.networks[0] for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_slices(tmp_path: Path):
    for k in range(3):
        image, labels, _ = phantom(k)
        flat = Volume.from_array(image[8])
        for folder, data in (("images", flat.data[0]), ("labels", labels[8:9])):
            (tmp_path / folder).mkdir(exist_ok=True)
            write = write_image if folder == "images" else write_labels
            write(tmp_path / folder / f"{k}.nii.gz", data, flat.grid)
    model = train_segmenter(find_training_cases(tmp_path), TINY).segmenter
    assert model.card.network.ndim == 2
    image, labels, _ = phantom(50)
    mask = model.segment(Volume.from_array(image[8])).labels
    assert mask.shape == (1, 16, 16)
    assert ((mask[0] > 0) == (labels[8] > 0)).mean() > 0.9


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"folds": 1}, "one fold is no cross-validation"),
        ({"resume": True}, "set log_dir"),
        ({"steps": 0}, "steps must be"),
        ({"encoder": "resnet"}, "encoder must be"),
    ],
)
def test_settings_refused(setting: dict[str, object], words: str):
    with pytest.raises(ParameterError, match=words):
        LearnParams(**setting)


def test_settings_refused_before_the_cases_are_read(tmp_path: Path):
    nothing = find_training_cases(write_nnunet(tmp_path / "c", 2))
    for folder in ("imagesTr", "labelsTr"):
        for path in (tmp_path / "c" / folder).iterdir():
            path.unlink()
    with pytest.raises(ParameterError, match="accelerator 'warp' cannot be trained on"):
        train_segmenter(nothing, replace(TINY, accelerator="warp"))
    with pytest.raises(FileError, match="no run to resume"):
        train_segmenter(nothing, replace(TINY, resume=True, log_dir=str(tmp_path)))


def test_tensorboard_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nothing = find_training_cases(write_nnunet(tmp_path / "c", 2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match="pip install tensorboard"):
        train_segmenter(nothing, replace(TINY, logger="tensorboard", log_dir=str(tmp_path)))


def test_checkpoints_that_cannot_be_resumed(cases: Path, tmp_path: Path):
    source = find_training_cases(cases)
    params = replace(TINY, steps=20, log_dir=str(tmp_path))
    train_segmenter(source, params)
    with pytest.raises(FileError, match="had other settings"):
        train_segmenter(source, replace(params, width=4, resume=True))
    with pytest.raises(ParameterError, match=r"is finished, after 20 steps; .* --continue"):
        train_segmenter(source, replace(params, steps=30, resume=True))
    again = train_segmenter(source, replace(params, resume=True)).segmenter
    assert again.card.training["done_steps"]["all"] == 20
    (tmp_path / "all" / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(FileError, match="damaged"):
        train_segmenter(source, replace(params, resume=True))


def test_more_folds_than_cases(cases: Path):
    with pytest.raises(ParameterError, match="6 folds need at least as many cases; there are 4"):
        train_segmenter(find_training_cases(cases), replace(TINY, folds=6))


# Folds


@given(st.integers(2, 9), st.integers(0, 30), st.integers(0, 3))
def test_folds(folds: int, more: int, seed: int):
    found = fold_of_cases(folds + more, folds, seed)
    sizes = np.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for fold in range(folds):
        unseen = unseen_by(fold, folds)
        assert len(unseen) == (2 if folds >= 4 else 1)
        assert all(fold in left_out(network, folds) for network in unseen)


# Files


def test_file_round_trip(tmp_path: Path):
    model = untrained(licence="CC BY 4.0")
    path = save_segmenter(tmp_path / "m.safetensors", model)
    again = load_segmenter(path)
    assert again.card == model.card
    for a, b in zip(model.networks[0].parameters(), again.networks[0].parameters()):
        assert torch.equal(a, b)


def test_info(model: Path, tmp_path: Path):
    said = run("info", model, "--json", tmp_path / "n.json")
    assert "kind segmenter" in said
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["classes"] == ["2 ball", "5 box"]
    assert numbers["training_cases"] == 4
    assert numbers["licence"] == "CC0-1.0"


def test_damaged_files(tmp_path: Path):
    path = save_segmenter(tmp_path / "m.safetensors", untrained())
    data = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    with pytest.raises(FileError, match="damaged or truncated"):
        load_segmenter(tmp_path / "cut.safetensors")
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * torch.nan}, tmp_path / "nan.safetensors", metadata)
    with pytest.raises(FileError, match="not finite"):
        load_segmenter(tmp_path / "nan.safetensors")
    other = {k: v for k, v in tensors.items() if k != name}
    save_file(other, tmp_path / "other.safetensors", metadata)
    with pytest.raises(FileError, match="do not fit the network"):
        load_segmenter(tmp_path / "other.safetensors")
    for change, error in (
        ({"format_version": "2"}, FormatVersionError),
        ({"format": "napari-medgs classifier"}, FileError),
        ({"card": "{}"}, FileError),
        ({"card": metadata["card"].replace('"widths": [4, 8]', '"widths": [4, 4e9]')}, FileError),
        ({"card": metadata["card"].replace('"spacing": [1.0', '"spacing": [-1.0')}, FileError),
        ({"card": metadata["card"][:-5]}, FileError),
    ):
        save_file(tensors, tmp_path / "x.safetensors", metadata | change)
        with pytest.raises(error, match=r"x\.safetensors"):
            load_segmenter(tmp_path / "x.safetensors")
    with pytest.raises(FileError, match="must end in"):
        save_segmenter(tmp_path / "m.pt", untrained())


# Inference


def test_wrong_contrasts(tmp_path: Path):
    image, _, grid = phantom(0)
    path = save_segmenter(tmp_path / "m.safetensors", untrained())
    two = Volume(np.stack([image, image]), grid)
    with pytest.raises(ImageError, match=r"has 2 contrasts, the model reads 1 \(image\)"):
        load_segmenter(path).segment(two)
    write_image(tmp_path / "two.nii.gz", two.data, grid)
    said = run(
        "segment", tmp_path / "two.nii.gz", "--model", path, "-o", tmp_path / "o.nii.gz", status=1
    )
    assert "two.nii.gz: the image has 2 contrasts" in said
    assert not (tmp_path / "o.nii.gz").exists()
    for words in (["--initial", path], ["--session", path]):
        run(
            "segment", tmp_path / "two.nii.gz", "--model", path, *words, "-o", "x.nii.gz", status=2
        )


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (("sub-1_FLAIR", "sub-1_T1w"), True),
        (("case_0001", "case_0000"), True),
        (("sub-1_T1w", "sub-1_flair"), False),
        (("case_0000", "case_0001"), False),
        (("image 1", "image 0"), False),
        (("same", "same"), False),
    ],
)
def test_contrasts_in_another_order(names: tuple[str, str], refused: bool):
    """Where names say so: a mask would be wrong without a word."""
    image, _, grid = phantom(0)
    network = SegmenterConfig(ndim=3, channels=2, classes=3, widths=(4, 8))
    card = replace(
        untrained().card, network=network, channel_names=("T1w", "FLAIR"),
        scales=(ChannelScale(),) * 2,
    )  # fmt: skip
    volume = Volume(np.stack([image, image]), grid, names)
    if refused:
        with pytest.raises(ImageError, match=r"another order .* model reads them \(T1w, FLAIR\)"):
            card.check_image(volume)
    else:
        card.check_image(volume)


def test_slice_for_a_model_of_volumes():
    with pytest.raises(ImageError, match="a single slice"):
        untrained().segment(Volume.from_array(np.random.default_rng(0).random((16, 16))))


def test_memory_is_checked_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("napari_medgs.learning.segmenter.free_bytes", lambda: 1000)
    volume = Volume.from_array(np.random.default_rng(0).random((16, 16, 16)))
    with pytest.raises(MemoryEstimateError, match=r"GiB of memory, 0\.0 GiB are free"):
        untrained().segment(volume)


class Local(torch.nn.Module):
    """Logits of every voxel by itself: tiles must not show."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image, -image, 0.5 * image], 1)


@pytest.mark.parametrize("shape", [(9, 10, 11), (30, 7, 21), (4, 40, 5)])
def test_tiles_do_not_show(shape: tuple[int, ...]):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    whole = Local()(torch.from_numpy(image[None]))[0].softmax(0).numpy()
    parts = list(tiled_probabilities(Local(), image, (8, 8, 8)))
    assert [p[0] for p in parts] == [0, *(p[1] for p in parts[:-1])]
    assert np.allclose(np.concatenate([p[2] for p in parts], 1), whole, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 20), st.sampled_from([1, 4, 8]))
def test_tiles_cover(size: int, most: int, multiple: int):
    tile = tile_size(size, most * multiple, multiple)
    assert tile % multiple == 0
    assert tile <= most * multiple
    starts = tile_starts(size, tile)
    covered = {v for s in starts for v in range(s, min(s + tile, size))}
    assert covered == set(range(size))
    assert starts == sorted(set(starts))
    assert all(s + tile <= max(size, tile) for s in starts)


def test_probabilities_on_any_grid():
    """Another voxel size: probabilities are those of the model's grid, interpolated."""
    image, _, _ = phantom(3)
    model = untrained(spacing=(1.5, 1.0, 2.0))
    volume = Volume.from_array(image, spacing=(1.0, 1.0, 1.0))
    result = model.segment(volume, probabilities=True)
    assert result.labels.shape == volume.shape
    assert np.allclose(result.probabilities.sum(0), 1, atol=2e-3)
    assert (np.array([0, 2, 5])[result.probabilities.argmax(0)] == result.labels).all()
    again = model.segment(volume)
    assert (again.labels == result.labels).all()
    assert model.shape_for(volume.grid) == (11, 16, 8)


def test_images_are_resampled_like_simpleitk():
    image = np.random.default_rng(1).normal(size=(6, 9, 10)).astype(np.float32)
    new = (12, 18, 25)
    source = sitk.GetImageFromArray(image)
    reference = sitk.Image(new[::-1], sitk.sitkFloat32)
    spacing = [n / m for n, m in zip(image.shape[::-1], new[::-1])]
    reference.SetSpacing(spacing)
    reference.SetOrigin([0.5 * s - 0.5 for s in spacing])
    wanted = sitk.GetArrayFromImage(
        sitk.Resample(source, reference, sitk.Transform(), sitk.sitkLinear)
    )
    ours = resample_image(image, new)
    inside = (slice(1, -1), slice(1, -1), slice(2, -2))
    assert np.allclose(ours[inside], wanted[inside], atol=1e-5)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_classes_keep_their_values(shape: tuple[int, ...], new: tuple[int, ...]):
    labels = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    found = resample_classes(labels, new)
    assert found.shape == new
    assert set(np.unique(found)) <= set(np.unique(labels))
    assert (resample_classes(np.full(shape, 2, np.uint8), new) == 2).all()


def test_working_spacing_and_patches(tmp_path: Path):
    """Thick slices keep their axis; patches stay in the image and are classes or ignored."""
    write_nnunet(tmp_path / "thick", 2, spacing=(4.0, 1.0, 1.0))
    checked = look_at_cases(find_training_cases(tmp_path / "thick"))
    sizes = plan_sizes(checked.facts, "cpu", levels=3)
    assert sizes.spacing == (4.0, 1.0, 1.0)
    assert sizes.strides[0] == (1, 2, 2)
    assert sizes.kernels[0] == (1, 3, 3) or sizes.kernels[0] == (3, 3, 3)
    from napari_medgs.learning.training.cards import make_card

    card = make_card(checked, TINY, sizes)
    made = [prepare_case(f, card, tmp_path, k) for k, f in enumerate(checked.facts)]
    data = PatchDataset(made, sizes.patch, sizes.spacing, 3, 30, Augmentation(), seed=1)
    for index in (0, 7, 29):
        image, target = data[index]
        assert image.shape == (1, *sizes.patch)
        assert image.isfinite().all()
        assert set(target.unique().tolist()) <= {-1, 0, 1, 2}
        again = data[index]
        assert torch.equal(image, again[0])
        assert torch.equal(target, again[1])
    plain = Augmentation(False, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    still = PatchDataset(made, sizes.patch, sizes.spacing, 3, 30, plain)
    whole = [m for m in made if m.labels.shape == tuple(still[0][1].shape)]
    for index in range(3):
        image, target = still[index]
        assert any(
            np.allclose(image.numpy(), m.image, atol=1e-4) and (target.numpy() == m.labels).all()
            for m in whole
        )


@pytest.mark.parametrize(
    ("spacing", "says"),
    [
        ((1e-6, 1e-6, 1e-6), "spacing 1e-06 x 1e-06 x 1e-06 mm is too small: case0 would take"),
        ((1, 1, 16), "spacing 1 x 1 x 16 mm is too large: case0 would have one voxel along an"),
    ],
)
def test_a_voxel_size_that_no_image_has(cases: Path, tmp_path: Path, spacing, says: str):
    out = tmp_path / "m.safetensors"
    said = run("train-segmenter", cases, "-o", out, "--spacing", *spacing, *WORDS, status=1)
    assert says in said
    assert "The images have 1 x 1 x 1 mm" in said


@pytest.mark.parametrize(
    ("shape", "spacing", "extent"),
    [
        ((400, 512, 512), (1.0, 0.8, 0.8), (200.0, 150.0, 100.0)),
        ((20, 320, 320), (7.5, 0.5, 0.5), (60.0, 30.0, 20.0)),
        ((1, 256, 256), (1.0, 1.0, 1.0), (1.0, 90.0, 80.0)),
        ((30, 30, 30), (1.0, 1.0, 1.0), (20.0, 20.0, 20.0)),
        ((5, 6, 7), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0)),
        ((155, 3, 240), (1.0, 9.0, 1.0), (80.0, 9.0, 80.0)),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sizes_for_all_images(cases: Path, shape, spacing, extent, device):
    one = look_at_cases(find_training_cases(cases)).facts[0]
    facts = [replace(one, shape=shape, spacing=spacing, extents={2: extent})]
    sizes = plan_sizes(facts, device)
    ndim = 2 if shape[0] == 1 else 3
    config = SegmenterConfig(
        ndim=ndim, widths=(8,) * len(sizes.strides), strides=sizes.strides, kernels=sizes.kernels
    )
    assert all(p % m == 0 for p, m in zip(sizes.patch[3 - ndim :], config.multiple))
    assert all(w >= 0.999 * s for w, s in zip(sizes.spacing, spacing))
    limits = {"cpu": 1.5 * 46**3, "cuda": 1.5 * 96**3}
    assert np.prod(sizes.patch) <= limits[device]


def test_other_dimensions_refused(model: Path, tmp_path: Path):
    for k in range(2):
        image, labels, _ = phantom(k)
        flat = Volume.from_array(image[8])
        write_image(tmp_path / f"{k}.nii.gz", flat.data[0], flat.grid)
        write_labels(tmp_path / f"{k}_seg.nii.gz", labels[8:9], flat.grid)
    source = find_training_cases(tmp_path)
    with pytest.raises(GeometryError, match="reads volumes, the cases are slices"):
        train_segmenter(source, TINY, start=load_segmenter(model))


def test_small_images_lie_in_the_middle_of_a_patch_as_in_training():
    """A network that knows where the border is gives what it gave in training."""

    class Border(torch.nn.Module):
        def forward(self, image):
            rows = torch.arange(image.shape[2]).reshape(1, 1, -1, 1, 1) * torch.ones_like(image)
            return torch.cat([rows, image], 1)

    image = np.random.default_rng(0).random((1, 5, 9, 6)).astype(np.float32)
    ((first, last, found),) = tiled_probabilities(Border(), image, (16, 16, 16), least=(9, 8, 8))
    assert (first, last, found.shape) == (0, 5, (2, 5, 9, 6))
    rows = np.arange(2, 7).reshape(-1, 1, 1)  # two voxels before, two behind
    expected = 1 / (1 + np.exp(rows - image[0]))
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)


def test_a_single_sagittal_slice_gives_patches(tmp_path: Path):
    """An image of one voxel along x is a volume to training; smoothing must not need three."""
    image, labels, grid = phantom(0)
    thin = Grid((16, 16, 1), grid.affine)
    for k in range(2):
        write_image(tmp_path / f"c{k}.nii.gz", image[:, :, 7:8], thin)
        write_labels(tmp_path / f"c{k}_seg.nii.gz", labels[:, :, 7:8], thin)
    params = replace(TINY, steps=30)
    assert train_segmenter(find_training_cases(tmp_path), params).segmenter.card.parameters > 0
