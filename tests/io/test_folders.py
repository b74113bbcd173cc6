"""Hidden files are passed over, and outputs that cannot be written are told before work starts."""

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.batch import find_cases
from napari_medgs.cli.app import app
from napari_medgs.errors import FileError
from napari_medgs.io import atomic_path, read_labels, write_image, write_labels
from napari_medgs.io.folders import make_folder, visible_entries


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def folders(tmp_path, tiny_volume, tiny_labels):
    """Folders of one image and its prompts, with what macOS and a killed program left there."""
    strokes = np.zeros(tiny_labels.shape, np.uint8)
    strokes[6, 10, 5:9], strokes[6, 10, 15:19], strokes[6, 1:3] = 1, 2, 3
    for folder in ("images", "prompts"):
        (tmp_path / folder).mkdir()
        for name in ("._a.nii.gz", ".x.tmp.nii.gz", ".DS_Store"):
            (tmp_path / folder / name).write_bytes(b"Mac OS X")
    write_image(tmp_path / "images" / "a.nii.gz", tiny_volume.data, tiny_volume.grid)
    write_labels(tmp_path / "prompts" / "a.nii.gz", strokes, tiny_volume.grid)
    return tmp_path


def test_hidden_files_are_passed_over_everywhere(folders):
    assert [e.name for e in visible_entries(folders / "images")] == ["a.nii.gz"]
    assert [case.name for case in find_cases(folders / "images")] == ["a"]
    done = run("segment", folders / "images", "--prompts", folders / "prompts",
               "--background-label", 3, "-o", folders / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [e.name for e in (folders / "out").iterdir()] == ["a.nii.gz"]
    again = run("evaluate", folders / "out", folders / "out")
    assert again.exit_code == 0, again.output
    with pytest.raises(FileError, match="cannot be read"):
        visible_entries(folders / "absent")


def test_a_file_where_a_folder_should_be_is_named(folders):
    file = folders / "notes.txt"
    file.write_text("x")
    image, prompts = folders / "images" / "a.nii.gz", folders / "prompts" / "a.nii.gz"
    few = ("--gaussians", 50, "--iterations", 1)
    for arguments in [
        ("segment", image, "--prompts", prompts, "-o", file / "seg.nii.gz"),
        ("segment", folders / "images", "--prompts", folders / "prompts", "-o", file),
        ("segment", folders / "images", "--prompts", folders / "prompts", "-o", file / "masks"),
        ("fit", image, "-o", file / "deep" / "f.medgs.safetensors", *few),
        ("fit", image, "-o", folders / "f.medgs.safetensors", "--json", file / "n.json", *few),
        ("fit-many", folders / "images", "-o", file / "fields", *few),
    ]:
        ended = run(*arguments)
        text = " ".join(ended.output.split())
        assert ended.exit_code == 1
        assert "notes.txt is a file, not a folder; choose another place" in text, text
    with pytest.raises(FileError, match="is a file, not a folder"), atomic_path(file / "a.txt"):
        pass
    assert file.read_text() == "x"
    assert not (folders / "f.medgs.safetensors").exists()
    assert make_folder(folders / "new" / "deep").is_dir()


def test_a_mask_that_is_complete_stays_when_the_next_file_cannot_be_written(folders, monkeypatch):
    import napari_medgs.io as io

    def full(path, *rest):
        raise FileError(f"{path}: cannot be written (No space left on device).")

    monkeypatch.setattr(io, "write_image", full)
    seg, chance = folders / "seg.nii.gz", folders / "p.nii.gz"
    ended = run("segment", folders / "images" / "a.nii.gz", "--prompts",
                folders / "prompts" / "a.nii.gz", "--background-label", 3, "-o", seg,
                "--probability", chance)  # fmt: skip
    text = " ".join(ended.output.split())
    assert ended.exit_code == 1
    assert "p.nii.gz: cannot be written (No space left on device)." in text
    assert "What was written before is complete:" in text
    assert "seg.nii.gz" in text.split("complete:")[1]
    assert set(np.unique(read_labels(seg)[0])) == {0, 1, 2}
    assert not chance.exists()


@pytest.mark.parametrize("place", ["~/new", "~nobody/new"])
def test_a_tilde_that_no_shell_read(tmp_path, monkeypatch, place):
    """As in --output=~/x and in quotes: no folder of this name is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="stands for a home folder only where the shell"):
        make_folder(place)
    for words in (("sample", "-o", place), ("info", f"{place}/a.nii.gz")):
        done = run(*words)
        assert done.exit_code == 1
        assert "give the whole path" in done.output.replace("\n", " ")
    assert not list(tmp_path.iterdir())
    (tmp_path / place).mkdir(parents=True)
    assert make_folder(f"{place}/below").is_dir()


def test_a_full_disk_names_the_folder_of_meshes(tmp_path, monkeypatch):
    """And not the temporary one that becomes it."""
    import trimesh

    from napari_medgs.io import meshes

    def full(path, *_):
        raise FileError(f"{path}: cannot be written (No space left on device).")

    monkeypatch.setattr(meshes, "_write", full)
    with pytest.raises(FileError, match="cannot be written") as caught:
        meshes.save_meshes(tmp_path / "new", {1: trimesh.creation.box()})
    assert str(caught.value).startswith(f"{tmp_path}/new/")
    assert ".tmp" not in str(caught.value)
