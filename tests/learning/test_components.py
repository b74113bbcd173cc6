"""Largest components: what is removed, and that cases left out decide it for every class."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra.numpy import arrays  # noqa: E402
from skimage.measure import label as connected  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from napari_medgs.cli import app  # noqa: E402
from napari_medgs.data.volume import Volume  # noqa: E402
from napari_medgs.io import write_image  # noqa: E402
from napari_medgs.learning import Segmenter, save_segmenter  # noqa: E402
from napari_medgs.learning.components import (  # noqa: E402
    decide_components,
    describe_components,
    keep_largest,
    single_classes,
)
from tests.learning.cases import phantom  # noqa: E402
from tests.learning.test_training import untrained  # noqa: E402

BALL = {"cases": 6, "difference": 0.012, "better": 3, "worse": 0, "used": True}


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (3, 6, 7), elements=st.sampled_from([0, 0, 0, 1, 2])), st.booleans())
def test_one_component_of_each_class_stays(labels, flat):
    kept = keep_largest(labels, (2,), flat=flat)
    assert (kept[labels != 2] == labels[labels != 2]).all()
    assert set(np.unique(kept[labels == 2])) <= {0, 2}
    for before, after in zip(labels, kept) if flat else [(labels, kept)]:
        parts = connected(before == 2, connectivity=before.ndim)
        assert (after == 2).sum() == max(np.bincount(parts.ravel())[1:], default=0)
        assert connected(after == 2, connectivity=before.ndim).max() == min(parts.max(), 1)
    assert (keep_largest(kept, (2,), flat=flat) is kept) or not flat


def test_a_class_gains_by_it_or_not():
    rows = [(0.8, 0.83, 1.0), (0.7, 0.7, 1.0), (0.9, 0.89, 0.99), (0.8, 0.8, 1.0)]
    lost = [(b, a, part) for a, b, part in rows]
    pair = [*rows[1:], (0.8, 0.85, 0.6)]
    found = decide_components(
        {"organ": rows, "lesion": lost, "same": [(0.5, 0.5, 1.0)] * 4, "kidneys": pair}
    )
    organ = found["organ"]
    assert (organ["cases"], organ["better"], organ["worse"]) == (4, 1, 1)
    assert organ["difference"] == pytest.approx(0.005)
    assert {name: entry["used"] for name, entry in found.items()} == {
        "organ": True, "lesion": False, "same": False, "kidneys": False,
    }  # fmt: skip
    assert decide_components({"organ": rows[:3]}) == {}


def run(*words: object, out: Path) -> np.ndarray | None:
    result = CliRunner().invoke(app, [str(w) for w in (*words, "-o", out)])
    assert result.exit_code == 0, result.output
    return np.asarray(nib.load(out).dataobj) if out.is_file() else None


def test_the_card_decides_unless_the_user_does(tmp_path: Path):
    image, _, grid = phantom(5)
    plain = untrained()
    deciding = Segmenter(
        plain.card.with_numbers(trust={"components": {"ball": BALL}}), plain.networks
    )
    volume = Volume(image[None], grid)
    found = plain.segment(volume, probabilities=True)
    assert connected(found.labels == 2, connectivity=3).max() > 1
    expected = keep_largest(found.labels, (2,))
    kept = deciding.segment(volume, probabilities=True)
    assert (kept.labels == expected).all()
    assert (deciding.segment(volume).labels == expected).all()
    assert (np.array([0, 2, 5])[kept.probability().argmax(0)] == expected).all()
    np.testing.assert_allclose(kept.probability().sum(0), 1, atol=1e-5)
    model = save_segmenter(tmp_path / "m.safetensors", deciding)
    (tmp_path / "scans").mkdir()
    scan = write_image(tmp_path / "scans" / "a.nii.gz", image, grid)
    plainly = save_segmenter(tmp_path / "plain.safetensors", plain)
    for path, words, wanted in (
        (model, (), expected), (model, ("--all-components",), found.labels),
        (plainly, (), found.labels), (plainly, ("--largest",), expected),
    ):  # fmt: skip
        out = tmp_path / "out.nii.gz"
        assert (run("segment", scan, "--model", path, *words, out=out) == wanted.T).all()
    for words, wanted in (((), expected), (("--all-components",), found.labels)):
        run("segment", scan.parent, "--model", model, *words, out=tmp_path / "o")
        many = np.asarray(nib.load(tmp_path / "o" / "a.nii.gz").dataobj)
        assert (many == wanted.T).all()
    said = CliRunner().invoke(app, ["info", str(model)]).output
    assert "ball (+0.012 Dice; better in 3, worse in 0 of 6)" in " ".join(said.split())
    result = CliRunner().invoke(
        app, ["segment", str(scan), "--largest", "--point", "1", "2", "3", "4", "-o", "x.nii.gz"]
    )
    assert result.exit_code == 2
    assert "--largest is for --model" in " ".join(result.output.split())


@pytest.mark.parametrize("found", [{}, 3, {"box": 3}, {"box": {"used": "yes"}}, {"no": BALL}])
def test_damaged_cards_keep_everything(found):
    card = untrained(trust={"components": found}).card
    assert single_classes(card) == ()
    assert describe_components(card) == ""
    assert describe_components(untrained(trust={"components": {"box": {"used": True}}}).card)
