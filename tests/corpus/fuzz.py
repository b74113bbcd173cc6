"""Random damage: whatever a file holds, it is read or refused in one line, within time and memory.

``python -m tests.corpus.fuzz nifti --count 200`` prints the counts of one format.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pydicom
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_medgs.errors import MedGSError
from napari_medgs.io.codec.container import pack_record, unpack_record
from napari_medgs.io.fields import save_field
from tests.corpus import dicom, itk, newer, nifti, other
from tests.corpus.entries import affine_of, pattern, turned
from tests.test_field import make_field

SECONDS = 10
MEMORY = 2 * 2**30  # bytes beyond what is in use before the first case
ODD = (None, True, "", "x", "1e999", -1, 0, 2.5, 1e308, -1e308, 2**63, 10**20, [], [1], {},
       {"a": 1}, [[]], "\x1b[31m", float("nan"), float("inf"))  # fmt: skip
ODD_WORDS = ("0", "-1", "3", "65536", "99999999999", "1e308", "nan", "inf", "x", "", "0 0 0",
             "1 1", "(1,0,0)", "none", "\x1b[31m", "1" * 400)  # fmt: skip


@dataclass
class Count:
    """What came of the damaged files of a format."""

    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """How a whole file is made, which of its files is damaged, and how it is used."""

    make: Callable[[Path], Path]
    use: Callable[[Path], Any]
    replace: Callable[[Path, np.random.Generator], None] | None = None
    target: str = ""


def describe(path: Path) -> Any:
    """Read an image as ``info`` does."""
    from napari_medgs.cli.describe.volume import describe_volume

    return describe_volume(str(path), spacing=None)


def describe_labels(path: Path) -> Any:
    """Read a mask and its names."""
    from napari_medgs import io

    return io.read_labels(path), io.read_label_names(path), describe(path)


def describe_tiff(path: Path) -> Any:
    """Read a TIFF file that needs a spacing."""
    from napari_medgs import io

    return io.read_volume(path, spacing=(2.0, 0.7, 0.5))


def describe_npz(path: Path) -> Any:
    """Read a set and one of its images."""
    from napari_medgs import io
    from napari_medgs.cli.describe.medmnist import describe_set

    return io.read_volume(f"{path}:train:1", spacing=(1.0, 1.0, 1.0)), describe_set(str(path))


def use_field(path: Path) -> Any:
    """Read, describe and render a field."""
    import napari_medgs as mg
    from napari_medgs.cli.describe.field import describe_field

    describe_field(path)
    loaded = mg.load_field(path)
    if np.prod([float(n) for n in loaded.info.grid.shape]) < 1e6:
        mg.render(loaded, backend="cpu")


def use_session(path: Path) -> Any:
    """Replay a session."""
    from napari_medgs.segmentation.session.replay import load_session

    return load_session(path)


def use_mesh(path: Path) -> Any:
    """Read and measure a mesh."""
    from napari_medgs.cli.describe.mesh import describe_mesh

    return describe_mesh(path)


def replace_zarr(path: Path, rng: np.random.Generator) -> None:
    """Replace an entry of a group's or an array's metadata, or damage a chunk."""
    if path.name != "zarr.json":
        damage(path, rng)
        return
    path.write_text(json.dumps(replace_json(json.loads(path.read_text()), rng)))


# Replaced values.
def odd(rng: np.random.Generator) -> Any:
    return ODD[int(rng.integers(len(ODD)))]


def replace_nifti(path: Path, rng: np.random.Generator) -> None:
    """Replace one field of a NIfTI header, packed or not."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    header = nifti.nib.Nifti1Header(bytes(content[:348]), check=False)
    name = str(rng.choice(header.structarr.dtype.names))
    raw = rng.integers(0, 256, header.structarr.dtype[name].itemsize).astype(np.uint8)
    if rng.random() < 0.5:
        raw[:] = rng.choice([0, 1, 127, 255])
    start = header.structarr.dtype.fields[name][1]
    content[start : start + len(raw)] = raw.tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))


def replace_text(path: Path, rng: np.random.Generator) -> None:
    """Replace one value in the first lines of an NRRD or MetaImage file."""
    content = path.read_bytes()
    end = content.find(b"\n\n") if content.startswith(b"NRRD") else content.find(b"LOCAL")
    lines = content[:end].split(b"\n")
    k = int(rng.integers(1, len(lines)))
    name, mark, value = re.split(rb"(:=|: |= )", lines[k] + b": ", maxsplit=1)[:3]
    words = value.removesuffix(b": ").split(b" ")
    words[int(rng.integers(len(words)))] = ODD_WORDS[int(rng.integers(len(ODD_WORDS)))].encode()
    lines[k] = name + mark + b" ".join(words)
    path.write_bytes(b"\n".join(lines) + content[end:])


def replace_json(record: Any, rng: np.random.Generator) -> Any:
    """Replace one entry of a nested record, or leave it out."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(record)
    node, key = places[int(rng.integers(len(places)))]
    if isinstance(node, dict) and rng.random() < 0.15:
        del node[key]
    else:
        node[key] = odd(rng)
    return record


def replace_session(path: Path, rng: np.random.Generator) -> None:
    """Replace an entry of a session's log."""
    path.write_text(json.dumps(replace_json(json.loads(path.read_text()), rng)))


def replace_field(path: Path, rng: np.random.Generator) -> None:
    """Replace an entry of a field's record, or numbers of a tensor."""
    if rng.random() < 0.6:
        other.rewrite_field(path, lambda record: replace_json(record, rng))
        return
    with safe_open(path, framework="numpy") as opened:
        header = dict(opened.metadata())
    tensors = load_file(path)
    name = str(rng.choice(sorted(tensors)))
    values = tensors[name].copy()
    number = float(rng.choice([np.nan, np.inf, 1e38, -1e38, 1e-38, 0, -1e4, 1e4, 1e6]))
    if rng.random() < 0.5:
        values[...] = number
    elif values.size:
        values.flat[int(rng.integers(values.size))] = number
    save_file({**tensors, name: values}, path, metadata=header)


def replace_compressed(path: Path, rng: np.random.Generator) -> None:
    """Replace an entry of a compressed field's header, or a byte of a chunk; checksums fit."""
    content = path.read_bytes()
    record, length = unpack_record(BytesIO(content), len(content))
    if rng.random() < 0.7:
        path.write_bytes(pack_record(replace_json(record, rng)) + content[length:])
        return
    body = bytearray(content[length:])
    row = record["main"]["chunks"][0]
    for _ in range(int(rng.integers(1, 9))):
        body[int(rng.integers(row[1]))] = int(rng.integers(256))
    row[2] = zlib.crc32(body[: row[1]])
    path.write_bytes(pack_record(record) + bytes(body))


def replace_dicom(path: Path, rng: np.random.Generator) -> None:
    """Replace the value of one element, at any depth, or leave it out."""
    data = pydicom.dcmread(path)
    found: list[tuple[Any, Any]] = []
    for node in [data, *_items(data)]:
        found += [(node, element) for element in node]
    node, element = found[int(rng.integers(len(found)))]
    if rng.random() < 0.3:
        del node[element.tag]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                node[element.tag] = pydicom.DataElement(element.tag, element.VR, odd(rng))
            except Exception:  # what pydicom refuses to hold is left out
                del node[element.tag]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data.save_as(path)
        except Exception:  # what pydicom cannot write is damaged in its bytes
            damage(path, rng)


def _items(data: Any) -> Iterator[Any]:
    for element in data:
        if element.VR == "SQ":
            for nested in element.value:
                yield nested
                yield from _items(nested)


def damage(path: Path, rng: np.random.Generator) -> None:
    """Truncate the file (8 of 100), or change 1 to 16 of its bytes."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.08:
        content = content[: int(rng.integers(0, len(content)))]
    else:
        # Half of them in the first part, where headers are.
        end = len(content) if rng.random() < 0.5 else min(len(content), 600)
        for _ in range(int(rng.integers(1, 17))):
            content[int(rng.integers(end))] = int(rng.integers(256))
    path.write_bytes(bytes(content))


OBLIQUE = affine_of(turned())
FORMATS: dict[str, Format] = {
    "nii": Format(lambda f: nifti.save(f, affine=OBLIQUE, qform=1), describe, replace_nifti),
    "nii.gz": Format(lambda f: nifti.save(f, affine=OBLIQUE, qform=1, name="a.nii.gz"), describe,
                     replace_nifti),
    "hdr/img": Format(lambda f: nifti.save(f, affine=OBLIQUE, kind=nifti.nib.Nifti1Pair,
                                           name="a.hdr"), describe, replace_nifti),
    "nrrd": Format(lambda f: itk.nrrd_file(f, pattern(itk.SHAPE)), describe, replace_text),
    "seg.nrrd": Format(lambda f: itk.segments(f, itk.TWO, **itk.LAYERED), describe_labels,
                       replace_text),
    "mha": Format(lambda f: itk.meta(f, pattern(itk.SHAPE)), describe, replace_text),
    "mha compressed": Format(lambda f: itk.written("a.mha")(f)[0], describe, replace_text),
    "gipl": Format(lambda f: itk._gipl(f / "a.gipl"), describe),
    "mgz": Format(lambda f: itk.mgh(f), describe),
    "mgh": Format(lambda f: itk.mgh(f, name="a.mgh"), describe),
    "tiff": Format(lambda f: other.tiff(compression="zlib")(f)[0], describe_tiff),
    "OME-TIFF": Format(lambda f: other.tiff("a.ome.tif", metadata=other.OME)(f)[0], describe),
    "ImageJ TIFF": Format(lambda f: other.tiff(imagej=True, resolution=(2, 1 / 0.7), metadata={
        "spacing": 2.0, "unit": "mm", "axes": "ZYX"})(f)[0], describe),
    "DICOM series": Format(lambda f: dicom.series(f, 3)[0].parent, describe, replace_dicom,
                           "im*"),
    "DICOM frames": Format(lambda f: dicom.enhanced(f, dicom.along(range(3))), describe,
                           replace_dicom),
    "DICOM SEG": Format(lambda f: dicom.segmentation(f), describe_labels, replace_dicom),
    "DICOM dose": Format(lambda f: dicom.dose(f), describe, replace_dicom),
    "RTSTRUCT": Format(newer.structures, describe_labels, replace_dicom),
    "npz": Format(lambda f: other.medmnist(f, (4, 6)), describe_npz),
    "field": Format(lambda f: other.saved_field(f)[0], use_field, replace_field),
    "compressed field": Format(
        lambda f: save_field(f / "a.medgs", make_field(300, classes=3, slice_axis=1)), use_field,
        replace_compressed),
    "session": Format(lambda f: other.saved_session(f)[0], use_session, replace_session),
    "ply": Format(lambda f: other.meshed(".ply")(f)[0], use_mesh),
    "stl": Format(lambda f: other.meshed(".stl")(f)[0], use_mesh),
    "obj": Format(lambda f: other.meshed(".obj")(f)[0], use_mesh),
    "glb": Format(lambda f: other.meshed(".glb")(f)[0], use_mesh),
}  # fmt: skip


def whole_zarr(folder: Path) -> Path:
    """Write an OME-Zarr image of two levels."""
    return newer.image(version="0.5", levels=2)(folder)[0]


if find_spec("zarr") is not None:
    FORMATS["OME-Zarr"] = Format(whole_zarr, describe, replace_zarr, "**/*")


class _TooSlow(BaseException):
    """A case that takes longer than the limit."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(name: str, count: int, seed: int = 0, *, limit_memory: bool = False) -> Count:
    """Damage a format's file ``count`` times by bytes, and as often by its header's values.

    Parameters
    ----------
    name : str
        Of :data:`FORMATS`.
    count, seed : int
    limit_memory : bool
        Limit the address space of this process to 2 GiB more than it has.

    Returns
    -------
    Count
    """
    fmt, total = FORMATS[name], Count()
    rng = np.random.default_rng([seed, sorted(FORMATS).index(name)])
    ways = [damage] * count + ([fmt.replace] * count if fmt.replace else [])
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        path = fmt.make(whole)
        fmt.use(path)  # imports and caches do not count as memory of a damaged file
        kept = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
        targets = [path]
        if fmt.target:
            targets = sorted(p for p in path.glob(fmt.target) if p.is_file())
        if limit_memory:
            _limit_memory()
        for k, way in enumerate(ways):
            for file, content in kept.items():
                if file.read_bytes() != content:
                    file.write_bytes(content)
            chosen = targets[int(rng.integers(len(targets)))]
            if name == "hdr/img" and way is damage and rng.random() < 0.3:
                chosen = chosen.with_suffix(".img")
            way(chosen, rng)
            _one(fmt, path, f"{name} #{k}", total)
    return total


def _one(fmt: Format, path: Path, case: str, total: Count) -> None:
    started = time.perf_counter()
    kind = "read"
    noise: list[str] = []
    try:
        with warnings.catch_warnings(), _stderr(noise), _limited(SECONDS):
            warnings.simplefilter("ignore")
            fmt.use(path)
    except MedGSError as error:
        kind = "refused"
        text = str(error)
        if "\n" in text.strip() or not all(c.isprintable() for c in text.strip()):
            kind = "unclean message"
            total.faults.append(f"{case}: {text!r}")
    except _TooSlow:
        kind = "over time"
        total.faults.append(f"{case}: over {SECONDS} s")
    except Exception as error:
        kind = "exception"
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
        total.faults.append(f"{case}: {type(error).__name__}: {str(error)[:200]!r} at {line}")
    if noise and kind in ("read", "refused"):
        kind = "noise of a library"
        total.faults.append(f"{case}: on stderr: {noise[0][:200]!r}")
    total.kinds[kind] += 1
    total.slowest = max(total.slowest, time.perf_counter() - started)


@contextmanager
def _stderr(noise: list[str]) -> Iterator[None]:
    """Collect what libraries print past Python on the process's stderr."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            text = caught.read().decode("utf-8", "replace").strip()
            noise += [text] if text else []


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Print one line of JSON a format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.formats or FORMATS:
        total = fuzz(name, given.count, given.seed, limit_memory=True)
        print(json.dumps({"format": name, **total.kinds, "slowest": total.slowest,
                          "faults": total.faults}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
