"""Features of a pre-trained module as channels: learned with, saved without, named anew."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from safetensors import safe_open  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from napari_medgs.cli import app  # noqa: E402
from napari_medgs.data.volume import Volume  # noqa: E402
from napari_medgs.errors import FileError, ParameterError  # noqa: E402
from napari_medgs.io import write_image  # noqa: E402
from napari_medgs.learning import (  # noqa: E402
    LearnParams,
    SegmenterConfig,
    find_training_cases,
    load_segmenter,
    load_segmenter_card,
    save_segmenter,
    train_segmenter,
)
from napari_medgs.learning.networks.features import (  # noqa: E402
    PROJECTED,
    FrozenFeatures,
    load_features,
)
from napari_medgs.learning.networks.segmenter import build_segmenter  # noqa: E402
from napari_medgs.learning.networks.slots import FeatureSource  # noqa: E402
from tests.learning import pretrained  # noqa: E402
from tests.learning.cases import phantom, write_nnunet  # noqa: E402

HERE = "tests.learning.pretrained"
BLUR = f"{HERE}:blur"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("features")
    source = find_training_cases(write_nnunet(folder / "cases", 2))
    params = LearnParams(
        steps=8, folds=0, width=4, levels=2, workers=0, precision="32", threads=1, features=BLUR
    )
    segmenter = train_segmenter(source, params).segmenter
    return segmenter, save_segmenter(folder / "m.safetensors", segmenter), source, params


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(("name", "ndim"), [("blur", 2), ("blur", 3), ("Solid", 3)])
@pytest.mark.parametrize("encoder", ["unet", "forest"])
def test_they_are_seen_and_only_their_projection_learns(name, ndim, encoder):
    frozen, source = load_features(f"{HERE}:{name}", ndim, 1)
    config = SegmenterConfig(
        ndim=ndim, channels=1, classes=2, widths=(4, 8), encoder=encoder, features=source
    )
    network = build_segmenter(config, frozen=frozen)
    size = (9, 11, 10)[3 - ndim :]
    image = torch.randn(1, 1, *size)
    assert network.features(image).shape == (1, 1 + PROJECTED, *size)
    logits = network(image)
    assert logits.shape == (1, 2, *size)
    logits.square().mean().backward()
    assert all(
        p.grad is not None and p.grad.any() for p in network.features.project[0].parameters()
    )
    assert not any(p.requires_grad for p in frozen.module.parameters())
    assert not [name for name in network.state_dict() if "inner" in name]


def test_slices_of_a_volume_are_seen_one_by_one():
    frozen = FrozenFeatures(pretrained.Blur())
    volume = torch.randn(2, 1, 3, 8, 12)
    found = frozen(volume)
    assert found.shape == (2, 5, 3, 2, 3)
    torch.testing.assert_close(found[1, :, 2], frozen(volume[1:, :, 2])[0])


def test_a_file_holds_neither_weights_nor_code(trained):
    segmenter, path, _, _ = trained
    card = load_segmenter_card(path)
    assert card.network.features == segmenter.card.network.features
    assert card.network.features.place == BLUR
    assert card.network.features.channels == 5
    with safe_open(path, "pt") as file:
        assert sum("features" in name for name in file.keys()) == 3  # noqa: SIM118
    again = load_segmenter(path, BLUR)
    volume = Volume.from_array(phantom(5)[0])
    one, other = (s.segment(volume, probabilities=True).probabilities for s in (segmenter, again))
    assert (one == other).all()


def test_a_file_alone_imports_nothing(trained, tmp_path):
    """In a process of its own, where nothing has imported the module before."""
    code = (
        "import sys; from napari_medgs.learning import load_segmenter\n"
        f"try: load_segmenter({str(trained[1])!r})\n"
        "except Exception as error: print(error)\n"
        f"print({HERE!r} in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip
    assert f"name it (--features {BLUR}) if you trust it" in said
    assert said.endswith("False\n")


def test_on_the_command_line(trained, tmp_path):
    image, _, grid = phantom(5)
    scan = write_image(tmp_path / "scan.nii.gz", image, grid)
    out = tmp_path / "mask.nii.gz"
    words = ("segment", scan, "--model", trained[1], "-o", out)
    before = len(pretrained.IMPORTED)
    assert f"--features {BLUR}" in run(*words, status=1)
    assert f"--features {BLUR}" in run(*words, "--point", 0, 8, 8, 8, status=1)
    folder = tmp_path / "scans"
    folder.mkdir()
    scan.rename(folder / "scan.nii.gz")
    many = ("segment", folder, "--model", trained[1], "-o", tmp_path / "masks")
    assert f"--features {BLUR}" in run(*many, status=1)
    assert len(pretrained.IMPORTED) == before
    run(*many, "--features", BLUR)
    assert BLUR in run("info", trained[1])
    assert "--features is for --model" in run(
        "segment", folder, "--features", BLUR, "-o", out, "--prompts", folder, status=2
    )


def test_continued(trained):
    _, path, source, params = trained
    start = load_segmenter(path, BLUR)
    more = train_segmenter(source, replace(params, steps=2), start=start).segmenter
    assert more.card.network.features == start.card.network.features


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("os.system", "import path such as package.module:factory"),
        ("os:sys tem", "import path"),
        ("no_such_module:x", "no module no_such_module; install it"),
        (f"{HERE}:nothing", "has no attribute 'nothing'"),
        (f"{HERE}:broken", "failed: no weights here$"),
        (f"{HERE}:number", "made int, not a torch.nn.Module"),
        (f"{HERE}:wrong_shape", "gives .* expected are features"),
        (f"{HERE}:picky", "refuses an image of 1 contrast"),
    ],
)
def test_refused(place, said):
    with pytest.raises(ParameterError, match=said):
        load_features(place, 3, 1)


def test_other_features_are_refused(trained, tmp_path):
    with pytest.raises(ParameterError, match="their weights differ"):
        load_segmenter(trained[1], f"{HERE}:other_weights")
    with pytest.raises(ParameterError, match="takes volumes, the images are slices"):
        load_features(f"{HERE}:Solid", 2, 1)
    plain = train_segmenter(trained[2], replace(trained[3], features=None, steps=1)).segmenter
    path = save_segmenter(tmp_path / "plain.safetensors", plain)
    with pytest.raises(ParameterError, match="uses no pre-trained features"):
        load_segmenter(path, BLUR)
    with pytest.raises(ParameterError, match="import path"):
        FeatureSource("__import__('os'):x")
    network = build_segmenter(trained[0].card.network)
    with pytest.raises(ParameterError, match="were not loaded"):
        network(torch.zeros(1, 1, *(8,) * 3))


def test_a_card_that_names_no_import_path_is_damaged(trained, tmp_path):
    data = trained[1].read_bytes()
    damaged = tmp_path / "d.safetensors"
    damaged.write_bytes(data.replace(BLUR.encode(), b"; rm -rf / #:".ljust(len(BLUR), b"x")))
    with pytest.raises(FileError, match="import path"):
        load_segmenter_card(damaged)
