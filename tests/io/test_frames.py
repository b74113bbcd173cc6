"""Folders of numbered frames, both ways."""

from __future__ import annotations

import warnings

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_medgs import io
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, GeometryError, ImageError, LabelError
from napari_medgs.io.folders import natural_key
from napari_medgs.io.image_stack import find_frames

SPACING = (3.0, 0.5, 0.6)


def put(folder, frames, names=None, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        path = folder / f"{names[k] if names else f'{k:04d}'}{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(path, frame)
        else:
            iio.imwrite(path, frame)
    return folder


@pytest.fixture
def gray(rng):
    return rng.integers(0, 255, (12, 5, 7), dtype=np.uint8)


def test_grey_frames(tmp_path, gray):
    folder = put(tmp_path / "f", gray, names=[f"im{k + 1}" for k in range(12)])
    volume = io.read_volume(folder, spacing=SPACING)
    np.testing.assert_array_equal(volume.data[0], gray)
    assert volume.spacing == SPACING
    assert volume.data.dtype == np.uint8
    # and back, under the same names
    io.write_frames(tmp_path / "out", volume.data, volume.grid)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f"im{k + 1}.png" for k in range(12)
    )
    again = io.read_volume(tmp_path / "out", spacing=SPACING)
    np.testing.assert_array_equal(again.data, volume.data)


def test_the_original_subfolder(tmp_path, gray):
    put(tmp_path / "case" / "original", gray)
    volume = io.read_volume(tmp_path / "case", spacing=SPACING)
    np.testing.assert_array_equal(volume.data[0], gray)


def test_natural_order():
    names = ["a10", "a9", "a1b2", "A2", "b1", "7"]
    assert sorted(names, key=natural_key) == ["7", "a1b2", "A2", "a9", "a10", "b1"]


def test_hidden_and_other_files_are_passed_over(tmp_path, gray):
    folder = put(tmp_path / "f", gray)
    (folder / "._0001.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    assert len(find_frames(folder)) == 12


def test_spacing_is_mandatory(tmp_path, gray):
    with pytest.raises(GeometryError, match=r"give the spacing \(z, y, x\) in mm"):
        io.read_volume(put(tmp_path / "f", gray))
    with pytest.raises(GeometryError, match="three positive numbers"):
        io.read_volume(put(tmp_path / "f", gray), spacing=(1, 0, 1))


def test_colours(tmp_path, rng):
    rgb = rng.integers(0, 255, (3, 5, 7, 3), dtype=np.uint8)
    volume = io.read_volume(put(tmp_path / "f", rgb), spacing=SPACING)
    assert volume.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(volume.data, np.moveaxis(rgb, -1, 0))
    io.write_frames(tmp_path / "out", volume.data, volume.grid)
    np.testing.assert_array_equal(iio.imread(tmp_path / "out" / "0001.png"), rgb[1])
    rgba = np.concatenate([rgb, np.full((3, 5, 7, 1), 255, np.uint8)], axis=-1)
    volume = io.read_volume(put(tmp_path / "a", rgba), spacing=SPACING)
    np.testing.assert_array_equal(volume.data, np.moveaxis(rgb, -1, 0))


def test_grey_saved_as_colours_is_grey(tmp_path, gray):
    folder = put(tmp_path / "f", np.repeat(gray[..., None], 3, axis=-1))
    np.testing.assert_array_equal(io.read_volume(folder, spacing=SPACING).data, gray[None])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.int32])
def test_deep_pixels(tmp_path, rng, dtype):
    data = rng.integers(0, 30_000, (1, 4, 5, 7)).astype(dtype)
    grid = Grid((4, 5, 7))
    io.write_frames(tmp_path / "out", data, grid)
    suffix = ".png" if dtype == np.uint16 else ".tif"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"{k:04d}{suffix}" for k in range(4)
    ]
    volume = io.read_volume(tmp_path / "out", spacing=SPACING)
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, data)


def test_deep_colours(tmp_path, rng):
    data = rng.integers(0, 60_000, (3, 2, 5, 7), dtype=np.uint16)
    io.write_frames(tmp_path / "out", data, Grid((2, 5, 7)))
    volume = io.read_volume(tmp_path / "out", spacing=SPACING)
    np.testing.assert_array_equal(volume.data, data)


def test_jpeg_and_other_modes(tmp_path, gray):
    smooth = np.full((3, 16, 16), 120, np.uint8)
    volume = io.read_volume(put(tmp_path / "j", smooth, suffix=".jpg"), spacing=SPACING)
    assert np.abs(volume.data[0].astype(int) - 120).max() <= 2
    folder = tmp_path / "m"
    folder.mkdir()
    Image.fromarray(np.eye(5, 7) > 0).save(folder / "0.png")
    Image.fromarray(np.eye(5, 7) > 0).save(folder / "1.png")
    volume = io.read_volume(folder, spacing=SPACING)
    np.testing.assert_array_equal(volume.data[0, 1], np.eye(5, 7))


def test_masks_of_frames(tmp_path, tiny_volume, tiny_labels):
    palette = tmp_path / "palette"
    palette.mkdir()
    for k, labels in enumerate(tiny_labels):
        image = Image.fromarray(labels)
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(palette / f"{k:03d}.png")
    labels, grid = io.read_labels(palette, like=tiny_volume.grid)
    np.testing.assert_array_equal(labels, tiny_labels)
    assert grid is tiny_volume.grid
    io.write_frames(tmp_path / "out", tiny_labels, tiny_volume.grid)
    labels, grid = io.read_labels(tmp_path / "out", spacing=SPACING)
    np.testing.assert_array_equal(labels, tiny_labels)
    assert grid.spacing == SPACING
    with pytest.raises(GeometryError, match="spacing"):
        io.read_labels(tmp_path / "out")
    small = put(tmp_path / "small", tiny_labels[:3])
    with pytest.raises(GeometryError, match="must share one grid"):
        io.read_labels(small, like=tiny_volume.grid)
    color = np.zeros((3, 5, 7, 3), np.uint8)
    color[..., 0] = 9
    with pytest.raises(LabelError, match="colored"):
        io.read_labels(put(tmp_path / "rgb", color), spacing=SPACING)


def test_write_types(tmp_path, gray):
    volume = io.read_volume(put(tmp_path / "f", gray), spacing=SPACING)
    render = volume.data.astype(np.float32) + 0.3
    render[0, 0, 0, 0] = 300
    io.write_frames(tmp_path / "a", render, volume.grid, "source")
    again = io.read_volume(tmp_path / "a", spacing=SPACING)
    assert again.data.dtype == np.uint8
    assert again.data[0, 0, 0, 0] == 255
    np.testing.assert_array_equal(again.data[0, 1:], gray[1:])
    io.write_frames(tmp_path / "b", render, volume.grid)
    np.testing.assert_array_equal(io.read_volume(tmp_path / "b", spacing=SPACING).data, render)
    with pytest.raises(ImageError, match="do not fit into uint8"):
        io.write_frames(tmp_path / "c", render, volume.grid, np.uint8)
    with pytest.raises(ImageError, match="did not come from frames"):
        io.write_frames(tmp_path / "c", render, Grid(volume.shape), "source")


def test_write_refused(tmp_path, gray):
    grid = Grid(gray.shape)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(FileError, match="not empty; choose a new one"):
        io.write_frames(tmp_path / "full", gray, grid)
    with pytest.raises(FileError, match="does not exist; make it first"):
        io.write_frames(tmp_path / "a" / "b", gray, grid)
    with pytest.raises(ImageError, match="1 or 3 channels"):
        io.write_frames(tmp_path / "a", np.zeros((2, *gray.shape)), grid)
    with pytest.raises(GeometryError, match="their grid"):
        io.write_frames(tmp_path / "a", gray[1:], grid)
    (tmp_path / "empty").mkdir()
    io.write_frames(tmp_path / "empty", gray, grid)
    assert len(find_frames(tmp_path / "empty")) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"]


def test_names_from_a_stranger_stay_inside(tmp_path, gray):
    names = [f"../x{k}" for k in range(12)]
    grid = Grid(gray.shape, source={"kind": "frames", "names": names})
    io.write_frames(tmp_path / "out", gray, grid)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "0011.png").exists()


def test_missing_frames_are_told(tmp_path, gray):
    folder = put(tmp_path / "f", gray[:5], names=["p7_1", "p7_2", "p7_4", "p7_5", "p7_6"])
    with pytest.warns(UserWarning, match="'p7_4' follows 'p7_2'"):
        io.read_volume(folder, spacing=SPACING)
    folder = put(tmp_path / "g", gray[:5], names=["0", "10", "20", "30", "40"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.read_volume(folder, spacing=SPACING)


def bad_size(folder, gray):
    iio.imwrite(folder / "0007.png", gray[0, 1:])


def bad_kind(folder, gray):
    iio.imwrite(folder / "0007.png", np.repeat(gray[0, ..., None], 3, axis=-1))


def bad_depth(folder, gray):
    iio.imwrite(folder / "0007.png", gray[0].astype(np.uint16))


def bad_truncated(folder, gray):
    file = folder / "0007.png"
    file.write_bytes(file.read_bytes()[:-30])


def bad_text(folder, gray):
    (folder / "0007.png").write_text("hello")


def bad_empty(folder, gray):
    (folder / "0007.png").write_bytes(b"")


def bad_doubled(folder, gray):
    iio.imwrite(folder / "0007.jpg", gray[0])


def bad_pages(folder, gray):
    (folder / "0007.png").unlink()
    tifffile.imwrite(folder / "0007.tif", gray, photometric="minisblack")


def bad_cmyk(folder, gray):
    (folder / "0007.png").unlink()
    Image.new("CMYK", (7, 5)).save(folder / "0007.jpg")


def bad_tiff(folder, gray):
    (folder / "0007.png").unlink()
    (folder / "0007.tif").write_bytes(b"II*\0" + b"\xff" * 20)


def bad_bomb(folder, gray):
    (folder / "0007.png").unlink()
    Image.new("1", (40_000, 5_000)).save(folder / "0007.png")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (bad_size, GeometryError, r"7 x 4 pixels, the first frame 7 x 5"),
        (bad_kind, ImageError, "RGB uint8, the first frame gray uint8"),
        (bad_depth, ImageError, "gray uint16, the first frame gray uint8"),
        (bad_truncated, FileError, "truncated, damaged or no image"),
        (bad_text, FileError, "truncated, damaged or no image"),
        (bad_empty, FileError, "is empty"),
        (bad_doubled, FileError, "several files for frame '0007'"),
        (bad_pages, ImageError, "12 pages"),
        (bad_cmyk, ImageError, "kind CMYK"),
        (bad_tiff, FileError, "truncated, damaged or no image"),
        (bad_bomb, FileError, "no image"),
    ],
)
def test_bad_frames(tmp_path, gray, spoil, error, words):
    folder = put(tmp_path / "f", gray)
    spoil(folder, gray)
    with pytest.raises(error, match=words) as caught:
        io.read_volume(folder, spacing=SPACING)
    assert "0007" in str(caught.value)


def test_one_image_is_a_volume_of_one_slice(tmp_path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(6, 8)
    iio.imwrite(tmp_path / "slice.png", picture)
    volume = io.read_volume(tmp_path / "slice.png", spacing=(5.0, 0.5, 0.5))
    assert volume.grid.shape == (1, 6, 8)
    assert sorted(volume.data.ravel()) == sorted(picture.ravel())
    with pytest.raises(GeometryError, match="spacing"):
        io.read_volume(tmp_path / "slice.png")


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_pixels_that_are_stored_turned_are_refused(tmp_path, gray, suffix, orientation):
    folder, exif = put(tmp_path / "f", gray, suffix=suffix), Image.Exif()
    exif[274] = orientation
    Image.fromarray(gray[7]).save(folder / f"0007{suffix}", exif=exif)
    if orientation < 2:
        assert io.read_volume(folder, spacing=SPACING).shape == gray.shape
        return
    with pytest.raises(ImageError, match=rf"0007\{suffix}: its orientation tag \({orientation}\)"):
        io.read_volume(folder, spacing=SPACING)


def test_damaged_exif_says_nothing(tmp_path, gray):
    folder = put(tmp_path / "f", gray, suffix=".jpg")
    Image.fromarray(gray[7]).save(folder / "0007.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert io.read_volume(folder, spacing=SPACING).shape == gray.shape


@pytest.mark.parametrize("last", [1, 4])
def test_pages_that_are_stored_turned_are_refused(tmp_path, gray, last):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for k, frame in enumerate(gray):
            tag = (274, 3, 1, last if k == len(gray) - 1 else 1, True)
            writer.write(frame, photometric="minisblack", contiguous=False, extratags=[tag])
    if last == 1:
        assert np.array_equal(io.read_volume(path, spacing=SPACING).data[0], gray)
        return
    with pytest.raises(ImageError, match=r"a\.tif: its orientation tag \(4\)"):
        io.read_volume(path, spacing=SPACING)


def test_one_frame_is_a_mask_of_one_frame(tmp_path):
    """A mask beside an image of one frame needs no spacing; a palette holds labels."""
    labels = np.zeros((5, 7), np.uint8)
    labels[1:3, 2:6] = 3
    image = Image.fromarray(labels, mode="P")
    image.putpalette([0, 0, 0, 90, 0, 0, 0, 90, 0, 0, 0, 90])
    image.save(tmp_path / "mask.png")
    Image.fromarray(40 * labels).save(tmp_path / "image.png")
    volume = io.read_volume(tmp_path / "image.png", spacing=(1.0, 0.5, 0.5))
    found, grid = io.read_labels(tmp_path / "mask.png", like=volume.grid)
    np.testing.assert_array_equal(40 * found, volume.data[0])
    assert grid is volume.grid
