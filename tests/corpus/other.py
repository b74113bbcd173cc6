"""TIFF files, frames, MedMNIST sets, fields, sessions, meshes, and what is no image at all."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
import trimesh
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_medgs.data.grid import Grid
from napari_medgs.io.fields import save_field
from napari_medgs.segmentation.session.replay import save_session
from napari_medgs.segmentation.session.session import Session
from tests.corpus.entries import CORPUS, Reference, pattern, unplaced
from tests.test_field import make_field

SHAPE = (3, 4, 6)
SPACING = (2.0, 0.7, 0.5)


# TIFF.
def tiff(name: str = "a.tif", values: Any = None, *, right: Any = None, spacing: Any = SPACING,
         **options: Any) -> Callable[[Path], tuple[Path, Reference]]:  # fmt: skip
    """Return a maker of a TIFF file; right are its (Z, Y, X[, C]) values."""

    def make(folder: Path) -> tuple[Path, Reference]:
        data = pattern(SHAPE, "u2") if values is None else values
        options.setdefault("photometric", "minisblack")
        tifffile.imwrite(folder / name, data, **options)
        stored = tifffile.imread(folder / name) if right is None else right
        return folder / name, unplaced(stored, spacing)

    return make


def bad_tiff(name: str = "a.tif", values: Any = None, **options: Any) -> Any:
    maker = tiff(name, values, right=np.zeros((1, 1, 1)), **options)
    return lambda folder: (maker(folder)[0], None)


CORPUS.add("tiff/pages, spacing given", tiff(), spacing=SPACING)
CORPUS.add("tiff/pages without sizes", bad_tiff(), refused="spacing")
for code in ("u1", "i2", "u4", "f4", "f8"):
    CORPUS.add(f"tiff/type {code}", tiff(values=pattern(SHAPE, code)), spacing=SPACING)
CORPUS.add("tiff/big endian", tiff(byteorder=">"), spacing=SPACING)
CORPUS.add("tiff/BigTIFF", tiff(bigtiff=True), spacing=SPACING)
CORPUS.add("tiff/deflate", tiff(compression="zlib", predictor=True), spacing=SPACING)
CORPUS.add("tiff/tiles", tiff(values=pattern((3, 32, 48), "u2"), tile=(16, 16)), spacing=SPACING)
CORPUS.add("tiff/no metadata", tiff(metadata=None), spacing=SPACING)
CORPUS.add("tiff/RGB pages", tiff(values=pattern((3, 4, 6, 3), "u1"), photometric="rgb"),
           spacing=SPACING)  # fmt: skip
CORPUS.add("tiff/one page, spacing given", tiff(values=pattern((4, 6), "u2"),
           right=pattern((1, 4, 6), "u2")), spacing=SPACING)  # fmt: skip
CORPUS.add("tiff/one page without sizes", bad_tiff(values=pattern((4, 6), "u2")),
           refused="spacing")  # fmt: skip
CORPUS.add("tiff/low values white", tiff(values=pattern(SHAPE, "u1"), photometric="miniswhite",
           right=255 - pattern(SHAPE, "u1")), spacing=SPACING)  # fmt: skip
CORPUS.add("tiff/ImageJ", tiff(imagej=True, resolution=(1 / 500, 1 / 700),
           metadata={"spacing": 2000.0, "unit": "um", "axes": "ZYX"}))  # fmt: skip
CORPUS.add("tiff/ImageJ in mm", tiff(imagej=True, resolution=(2, 1 / 0.7),
           metadata={"spacing": 2.0, "unit": "mm", "axes": "ZYX"}))  # fmt: skip
CORPUS.add("tiff/ImageJ in inches", tiff(imagej=True, resolution=(25.4 * 2, 25.4 / 0.7),
           metadata={"spacing": 2 / 25.4, "unit": "inch", "axes": "ZYX"}))  # fmt: skip
CORPUS.add("tiff/ImageJ without a unit", bad_tiff(imagej=True, resolution=(2, 1 / 0.7),
           metadata={"spacing": 2.0, "axes": "ZYX"}), refused="spacing")  # fmt: skip
CORPUS.add("tiff/ImageJ channels", tiff(values=pattern((3, 2, 4, 6), "u2"), imagej=True,
           right=pattern((3, 2, 4, 6), "u2").transpose(0, 2, 3, 1), resolution=(2, 1 / 0.7),
           metadata={"spacing": 2.0, "unit": "mm", "axes": "ZCYX"}))  # fmt: skip
OME = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.7,
       "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "mm"}  # fmt: skip
MICRO = {"axes": "ZYX", "PhysicalSizeX": 500.0, "PhysicalSizeY": 700.0, "PhysicalSizeZ": 2000.0}
CORPUS.add("tiff/OME", tiff("a.ome.tif", metadata=OME))
CORPUS.add("tiff/OME in micrometers", tiff("a.ome.tif", metadata=MICRO))
CORPUS.add("tiff/OME, spacing contradicts", bad_tiff("a.ome.tif", metadata=OME),
           refused="contradicts", spacing=(1.0, 1.0, 1.0))  # fmt: skip
NO_Z = {k: v for k, v in OME.items() if not k.startswith("PhysicalSizeZ")}
CORPUS.add(
    "tiff/OME without a size along z", bad_tiff("a.ome.tif", metadata=NO_Z), refused="spacing"
)
CORPUS.add("tiff/OME channels", tiff("a.ome.tif", pattern((2, 3, 4, 6), "u2"),
           right=pattern((2, 3, 4, 6), "u2").transpose(1, 2, 3, 0),
           metadata={**OME, "axes": "CZYX"}))  # fmt: skip
CORPUS.add("tiff/pages of two sizes", lambda f: (_pages(f / "a.tif"), None),
           refused="pages|size", spacing=SPACING)  # fmt: skip
CORPUS.add("tiff/truncated", lambda f: (_cut(tiff(compression="zlib")(f)[0], 40), None),
           refused="truncated|damaged", spacing=SPACING)  # fmt: skip
CORPUS.add("tiff/first bytes only", lambda f: (_cut(tiff()(f)[0], -12), None),
           refused="truncated|damaged", spacing=SPACING)  # fmt: skip
CORPUS.add(
    "tiff/complex", bad_tiff(values=pattern(SHAPE, "c8")), refused="complex|numbers|spacing"
)


def _pages(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        writer.write(pattern((4, 6), "u2"), photometric="minisblack")
        writer.write(pattern((5, 6), "u2"), photometric="minisblack")
    return path


def _cut(path: Path, count: int) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - count] if count > 0 else content[:-count])
    return path


# Frames.
def stack(suffix: str, values: Any, names: Any = None) -> Callable[[Path], tuple[Path, Reference]]:
    def make(folder: Path) -> tuple[Path, Reference]:
        (folder / "stack").mkdir()
        for k, frame in enumerate(values):
            name = f"frame{k}" if names is None else names[k]
            iio.imwrite(folder / "stack" / f"{name}{suffix}", frame)
        # Lossy formats: what Pillow decodes.
        stored = [iio.imread(p) for p in sorted((folder / "stack").iterdir(), key=_number)]
        return folder / "stack", unplaced(np.stack(stored), SPACING)

    return make


def _number(path: Path) -> int:
    return int("".join(c for c in path.stem if c.isdigit()))


CORPUS.add("frames of images/PNG", stack(".png", pattern(SHAPE, "u1")), spacing=SPACING)
CORPUS.add("frames of images/PNG of 16 bits", stack(".png", pattern(SHAPE, "u2") * 500),
           spacing=SPACING)  # fmt: skip
CORPUS.add("frames of images/JPEG", stack(".jpg", pattern((3, 16, 24), "u1")), spacing=SPACING)
CORPUS.add("frames of images/TIFF of floats", stack(".tif", pattern(SHAPE, "f4")), spacing=SPACING)
CORPUS.add("frames of images/RGB", stack(".png", pattern((3, 4, 6, 3), "u1")), spacing=SPACING)
CORPUS.add("frames of images/twelve in natural order", stack(".png", pattern((12, 4, 6), "u1")),
           spacing=SPACING)  # fmt: skip
CORPUS.add("frames of images/number missing", stack(".png", pattern(SHAPE, "u1"), ["f1", "f2",
           "f4"]), spacing=SPACING, warned="missing")  # fmt: skip
CORPUS.add("frames of images/no spacing", lambda f: (
    stack(".png", pattern(SHAPE, "u1"))(f)[0], None), refused="spacing")  # fmt: skip
CORPUS.add("frames of images/two sizes", lambda f: (
    _uneven(f), None), refused="size|sizes", spacing=SPACING)  # fmt: skip
CORPUS.add("frames of images/animated GIF renamed", lambda f: (_gif(f), None),
           refused="pages|damaged|spacing", spacing=SPACING)  # fmt: skip
CORPUS.add("frames of images/indexed mask", lambda f: (_indexed(f), unplaced(
    pattern((1, 4, 6), "u1") % 4, SPACING)), reader="labels", spacing=SPACING)  # fmt: skip
CORPUS.add("frames of images/damaged PNG", lambda f: (_damaged_png(f), None),
           refused="damaged|truncated", spacing=SPACING)  # fmt: skip


def _uneven(folder: Path) -> Path:
    (folder / "stack").mkdir()
    for k in range(2):
        iio.imwrite(folder / "stack" / f"{k}.png", np.zeros((4 + k, 6), "u1"))
    return folder / "stack"


def _gif(folder: Path) -> Path:
    pages = [Image.fromarray(p) for p in pattern(SHAPE, "u1")]
    pages[0].save(folder / "a.gif", save_all=True, append_images=pages[1:])
    return (folder / "a.gif").rename(folder / "a.png")


def _indexed(folder: Path) -> Path:
    image = Image.fromarray((pattern((1, 4, 6), "u1") % 4)[0])
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    (folder / "stack").mkdir()
    image.save(folder / "stack" / "0.png")
    return folder / "stack"


def _damaged_png(folder: Path) -> Path:
    path = stack(".png", pattern(SHAPE, "u1"))(folder)[0]
    _cut(path / "frame1.png", 30)
    return path


# MedMNIST.
def medmnist(folder: Path, shape: tuple[int, ...], **more: Any) -> Path:
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = pattern((3, *shape), "u1")
        arrays[f"{split}_labels"] = np.array([[0], [1], [0]], "u1")
    np.savez_compressed(folder / "own.npz", **{**arrays, **more})
    return folder / "own.npz"


for label, shape in (("2D", (4, 6)), ("RGB", (4, 6, 3)), ("3D", (5, 5, 5))):
    CORPUS.add(f"medmnist/{label}", lambda f, shape=shape: (
        f"{medmnist(f, shape)}:val:2", _image_of(f, shape)), spacing=SPACING)  # fmt: skip
CORPUS.add("medmnist/index too large", lambda f: (f"{medmnist(f, (4, 6))}:val:3", None),
           refused="3", spacing=SPACING)  # fmt: skip
CORPUS.add("medmnist/split that is not there", lambda f: (f"{medmnist(f, (4, 6))}:best:0", None),
           refused="best", spacing=SPACING)  # fmt: skip
PICKLED = np.array([{}, {}, {}], dtype=object)
CORPUS.add("medmnist/pickled objects", lambda f: (
    f"{medmnist(f, (4, 6), train_images=PICKLED)}:train:0", None),
    refused="damaged|pickle|objects|numbers|type", spacing=SPACING)  # fmt: skip
CORPUS.add("medmnist/no images", lambda f: (f"{_bare_npz(f)}:train:0", None),
           refused="images|MedMNIST", spacing=SPACING)  # fmt: skip
CORPUS.add("medmnist/truncated", lambda f: (f"{_cut(medmnist(f, (4, 6)), 60)}:train:0", None),
           refused="damaged|truncated", spacing=SPACING)  # fmt: skip
CORPUS.add("medmnist/inflates to 1 GB", lambda f: (f"{_bomb(f)}:train:0", None),
           refused="promises|damaged|needs|memory|hold", spacing=SPACING)  # fmt: skip


def _image_of(folder: Path, shape: tuple[int, ...]) -> Reference:
    image = np.load(folder / "own.npz")["val_images"][2]
    return unplaced(image if shape == (5, 5, 5) else image[None], SPACING)


def _bare_npz(folder: Path) -> Path:
    np.savez(folder / "own.npz", weights=np.zeros(3))
    return folder / "own.npz"


def _bomb(folder: Path) -> Path:
    """Write an archive whose header promises far more than its few bytes hold."""
    path = medmnist(folder, (4, 6))
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as target,
        zipfile.ZipFile(path) as source,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "train_images.npy":
                text = "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 10000, 10000), }"
                header = text.encode().ljust(117) + b"\n"
                content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
            target.writestr(name, content)
    return folder / "bomb.npz"


# Fields and sessions: what they hold comes back as it was.
def saved_field(folder: Path) -> tuple[Path, Any]:
    """Write a field; return what compares one with it, whose numbers must be equal."""
    made = make_field(12, classes=3, slice_axis=1)
    path = save_field(folder / "a.medgs.safetensors", made)

    def same(found: Any) -> float:
        for name in made.tensor_names():
            np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert found.info.class_names == made.info.class_names
        return float(np.abs(found.info.grid.affine - made.info.grid.affine).max())

    return path, same


def edited_field(change: Any) -> Callable[[Path], tuple[Path, None]]:
    """Return a maker of a field whose JSON record is changed."""

    def make(folder: Path) -> tuple[Path, None]:
        path, _ = saved_field(folder)
        rewrite_field(path, change)
        return path, None

    return make


def rewrite_field(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the JSON record in a field file's header."""
    with safe_open(path, framework="numpy") as opened:
        header = dict(opened.metadata())
    tensors = load_file(path)
    record = json.loads(header["info"])
    header["info"] = json.dumps(change(record))
    save_file(tensors, path, metadata=header)


def put(*keys: Any, value: Any) -> Callable[[Any], Any]:
    """Return a change that replaces one entry of a nested record."""

    def change(record: Any) -> Any:
        place = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return record

    return change


CORPUS.add("field/whole", saved_field, reader="field")
for label, change in (
    ("shape of two numbers", put("grid", "shape", value=[4, 5])),
    ("shape of words", put("grid", "shape", value=["a", "b", "c"])),
    ("affine of another shape", put("grid", "affine", value=[[1, 0], [0, 1]])),
    ("affine of words", put("grid", "affine", value="identity")),
    ("source a list", put("grid", "source", value=[1, 2])),
    ("scale of words", put("intensity_scale", value=["x"])),
    ("scale null", put("intensity_scale", value=[None])),
    ("metrics a word", put("metrics", value="good")),
    ("params a list", put("params", value=[3])),
    ("class names a number", put("class_names", value=7)),
    ("slice axis 5", put("slice_axis", value=5)),
    ("degree 2.5", put("degree", value=2.5)),
    ("blend unknown", put("blend", value="mixed")),
    ("cutoff 1e308", put("cutoff", value=1e308)),
    ("record a list", lambda record: [record]),
    ("record null", lambda record: None),
):
    CORPUS.add(f"field/{label}", edited_field(change), reader="field", refused="field|grid|record")
CORPUS.add("field/truncated", lambda f: (_cut(saved_field(f)[0], 100), None), reader="field",
           refused="damaged|truncated")  # fmt: skip
CORPUS.add("field/header of 2^63 bytes", lambda f: (_long_header(f), None), reader="field",
           refused="damaged|no field")  # fmt: skip
CORPUS.add("field/JSON 100,000 deep", lambda f: (_deep_field(f), None), reader="field",
           refused="damaged")  # fmt: skip


def _long_header(folder: Path) -> Path:
    path, _ = saved_field(folder)
    path.write_bytes((2**63).to_bytes(8, "little") + path.read_bytes()[8:])
    return path


def _deep_field(folder: Path) -> Path:
    path, _ = saved_field(folder)
    with safe_open(path, framework="numpy") as opened:
        header = dict(opened.metadata())
    save_file(load_file(path), path, metadata={**header, "info": "[" * 100_000})
    return path


def saved_session(folder: Path) -> tuple[Path, Any]:
    session = Session(Grid((4, 6, 8)), names={1: "liver"})
    session.paint(np.s_[1, 2, 3:6], 1)
    session.paint(np.s_[2, 1, 1], 2)
    path = save_session(session, folder / "session.json")

    def same(found: Any) -> float:
        np.testing.assert_array_equal(found[0].strokes, session.strokes)
        assert found[0].names == {1: "liver"}
        return 0.0

    return path, same


def edited_session(change: Any) -> Callable[[Path], tuple[Path, None]]:
    def make(folder: Path) -> tuple[Path, None]:
        path, _ = saved_session(folder)
        text = change(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        return path, None

    return make


def _json(change: Callable[[Any], Any]) -> Callable[[str], str]:
    return lambda text: json.dumps(change(json.loads(text)))


CORPUS.add("session/whole", saved_session, reader="session")
for label, change in (
    ("no JSON", lambda text: text[:-9]),
    ("integer of 5,000 digits", lambda text: text.replace("[", "[" + "9" * 5000 + ", ", 1)),
    ("100,000 deep", lambda text: "[" * 100_000),
    ("events a word", _json(put("events", value="painted"))),
    ("grid missing", _json(lambda record: {k: v for k, v in record.items() if k != "grid"})),
    ("shape of words", _json(put("grid", "shape", value=["x", 1, 2]))),
    ("event of no kind", _json(put("events", 0, value={"do": "jump"}))),
    ("runs of words", _json(put("events", 0, "runs", value=["a", "b"]))),
    ("runs outside of the grid", _json(put("events", 0, "runs", value=[10**9, 5, 1]))),
    ("a list", _json(lambda record: [record])),
):
    CORPUS.add(f"session/{label}", edited_session(change), reader="session",
               refused="session|damaged|JSON|grid")  # fmt: skip


def meshed(suffix: str) -> Callable[[Path], tuple[Path, Any]]:
    """Return a maker of a mesh that trimesh writes and reads."""

    def make(folder: Path) -> tuple[Path, Any]:
        box = trimesh.creation.icosphere(2, 9.0)
        box.apply_translation((-40, 20, 70))
        box.export(folder / f"a{suffix}")
        right = trimesh.load_mesh(folder / f"a{suffix}")

        def same(found: Any) -> float:
            (mesh,) = found.values()
            assert len(mesh.faces) == len(right.faces)
            assert abs(mesh.volume - right.volume) < 1e-4 * right.volume
            return float(np.abs(mesh.bounds - right.bounds).max())

        return folder / f"a{suffix}", same

    return make


for suffix in (".ply", ".stl", ".obj", ".glb"):
    CORPUS.add(f"mesh/{suffix}", meshed(suffix), reader="mesh")
    CORPUS.add(f"mesh/{suffix} truncated", lambda f, suffix=suffix: (
        _half(meshed(suffix)(f)[0]), None), reader="mesh", refused="mesh")  # fmt: skip
    CORPUS.add(f"mesh/{suffix} of text", lambda f, suffix=suffix: (
        _text(f / f"a{suffix}"), None), reader="mesh", refused="mesh")  # fmt: skip
CORPUS.add("mesh/points without faces", lambda f: (_points(f), None), reader="mesh",
           refused="mesh")  # fmt: skip
CORPUS.add("mesh/not finite", lambda f: (_not_finite(f), None), reader="mesh", refused="finite")


def _half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _text(path: Path) -> Path:
    path.write_text("no file of this kind\n" * 30)
    return path


def _points(folder: Path) -> Path:
    trimesh.PointCloud(np.eye(3)).export(folder / "a.ply")
    return folder / "a.ply"


def _not_finite(folder: Path) -> Path:
    box = trimesh.creation.box()
    mesh = trimesh.Trimesh(np.where(box.vertices > 0, np.nan, box.vertices), box.faces,
                           process=False)  # fmt: skip
    mesh.export(folder / "a.stl")
    return folder / "a.stl"


# What is no image.
CORPUS.add("path/missing", lambda f: (f / "none.nii.gz", None), refused="no such")
CORPUS.add("path/missing folder", lambda f: (f / "none", None), refused="no such")
CORPUS.add("path/empty folder", lambda f: (_empty(f), None), refused="neither")
CORPUS.add("path/text file", lambda f: (_text(f / "notes.txt"), None), refused="not an image")
CORPUS.add("path/spreadsheet", lambda f: (_text(f / "table.xlsx"), None), refused="not an image")
CORPUS.add("path/hidden files only", lambda f: (_hidden(f), None), refused="neither")
CORPUS.add("path/link to nothing", lambda f: (_link(f), None), refused="no such")
CORPUS.add("path/link to a file", lambda f: _linked(f), spacing=SPACING)
CORPUS.add("path/field as an image", lambda f: (saved_field(f)[0], None),
           refused="field|not an image")  # fmt: skip
CORPUS.add("path/mesh as an image", lambda f: (meshed(".ply")(f)[0], None),
           refused="mesh|not an image")  # fmt: skip
CORPUS.add("path/PNG named .nii", lambda f: (_renamed(f, "a.nii"), None), refused="not a NIfTI")
CORPUS.add("path/PNG named .nrrd", lambda f: (_renamed(f, "a.nrrd"), None), refused="NRRD")
CORPUS.add("path/PNG named .mha", lambda f: (_renamed(f, "a.mha"), None), refused="MetaImage")
CORPUS.add("path/PNG named .mgz", lambda f: (_renamed(f, "a.mgz"), None),
           refused="damaged|FreeSurfer")  # fmt: skip
CORPUS.add("path/PNG named .tif", lambda f: (_renamed(f, "a.tif"), None),
           refused="damaged", spacing=SPACING)  # fmt: skip
CORPUS.add("path/PNG named .dcm", lambda f: (_renamed(f, "a.dcm"), None), refused="DICOM")


def _empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def _hidden(folder: Path) -> Path:
    path = _empty(folder)
    (path / ".DS_Store").write_bytes(b"x")
    (path / "._a.png").write_bytes(b"x")
    return path


def _link(folder: Path) -> Path:
    (folder / "link.nii").symlink_to(folder / "gone.nii")
    return folder / "link.nii"


def _linked(folder: Path) -> tuple[Path, Reference]:
    path, right = tiff()(folder)
    (folder / "link.tif").symlink_to(path)
    return folder / "link.tif", right


def _renamed(folder: Path, name: str) -> Path:
    iio.imwrite(folder / "a.png", pattern((4, 6), "u1"))
    return (folder / "a.png").rename(folder / name)
