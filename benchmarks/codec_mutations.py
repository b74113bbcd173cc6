"""Random damage to compressed fields and cohorts: is each refused with one error?

``python benchmarks/codec_mutations.py --count 10000`` flips bits, overwrites, cuts and inserts
bytes, and changes numbers of headers whose checksums are then made right again. A reader must
return a field or raise the package's own error, soon and in little memory. What else happens is
printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import napari_medgs as mg
from napari_medgs.errors import MedGSError
from napari_medgs.io.codec.archive import MAGIC as COHORT
from napari_medgs.io.codec.archive import VERSIONS, CodedField, FieldArchive
from napari_medgs.io.codec.archive_writer import write_archive, write_coded_archive
from napari_medgs.io.codec.columns import Quantization
from napari_medgs.io.codec.container import MAGIC, pack_record, unpack_record
from napari_medgs.io.codec.encoding import encode

HOSTILE = (0, -1, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**63, 1e300, 0.5, None, "x", [], {})
SLOW = 2.0
"""Seconds of CPU that one file may take."""


def samples() -> dict[str, bytes]:
    """Return small files of all kinds."""
    random_state = np.random.default_rng(0)
    image = random_state.random((6, 24, 24)).astype(np.float32)
    mask = (image > 0.5).astype(np.int16) + (image > 0.8)
    volume = mg.Volume.from_array(image)
    params = mg.FitParams(gaussians=150, iterations=5, threads=1)
    field = mg.fit(volume, params).field
    classes = mg.fit(volume, params, mask).field
    small = Quantization(2.5, 1, weights=False)
    files = {
        "fine steps": encode(field).data,
        "coarse steps": encode(field, small).data,
        "classes": encode(classes, small).data,
        "exact": encode(field, exact=True).data,
        "preview": encode(field, small, preview=field.subset(np.arange(20))).data,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.medgsz"
        write_archive(path, {name.replace(" ", "-"): data for name, data in files.items()})
        files["cohort"] = path.read_bytes()
        latents = CodedField(field.info, 150, tuple(map(float, field.background)), "0", b"latents")
        write_coded_archive(path, {"a": latents, "b": latents})
        files["cohort of latents"] = path.read_bytes()
    return files


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with some of them changed, cut off or put in."""
    changed = bytearray(data)
    kind = rng.randrange(5)
    at = rng.randrange(len(changed))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        length = min(rng.randrange(1, 64), len(changed) - at)
        changed[at : at + length] = rng.randbytes(length)
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        changed[at:at] = rng.randbytes(rng.randrange(1, 64))
    else:
        del changed[at : at + rng.randrange(1, 64)]
    return bytes(changed)


def places(record: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over all containers of a JSON value, with the key or index of an entry."""
    pairs = record.items() if isinstance(record, dict) else enumerate(record)
    for key, value in pairs:
        yield record, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def lied(data: bytes, rng: random.Random) -> bytes:
    """Return the file with one entry of its header changed, and a right checksum."""
    magic = COHORT if data.startswith(COHORT) else MAGIC
    record, length = unpack_record(io.BytesIO(data), len(data), magic, versions=VERSIONS)
    holder, key = rng.choice(list(places(record)))
    old = holder[key]
    new = rng.choice(HOSTILE)
    if isinstance(old, int) and rng.random() < 0.5:
        new = old + rng.choice((-1, 1, 2**8, -(2**8), 2**20))
    holder[key] = new
    version = int.from_bytes(data[8:10], "little")
    return pack_record(record, magic, version) + data[length:]


def read(path: Path) -> None:
    """Read everything of a file."""
    if path.name.endswith(".medgs"):
        mg.load_field(path)
        mg.load_field(path, box=((0, 0, 0), (3, 9, 9)))
        return
    archive = FieldArchive(path)
    archive.gaussians()
    for name in archive.names:
        if archive.codec is not None:
            archive.coded(name)
        else:
            archive.load(name)
            archive.extract(name)


def outcome(path: Path) -> str:
    """Return how reading a file ended."""
    begun = time.process_time()
    try:
        read(path)
        end = "read"
    except MedGSError as error:
        text = str(error)
        good = text.startswith(str(path)) and "\n" not in text and "bug" not in text
        end = "refused" if good else f"a message that does not name the file: {text[:150]}"
    except Exception as error:
        end = f"{type(error).__name__}: {error}"[:150]
    if time.process_time() - begun > SLOW:
        end = f"slow, {end}"
    return end


def main() -> int:
    """Damage and read; print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first", help="for runs in parts")
    arguments = parser.parse_args()
    files = samples()
    ways: dict[str, Callable[[bytes, random.Random], bytes]] = {"bytes": damaged, "header": lied}
    found: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():  # numba compiles before memory is measured
            suffix = ".medgsz" if data.startswith(COHORT) else ".medgs"
            path = Path(folder) / f"a{suffix}"
            path.write_bytes(data)
            assert outcome(path) == "read", name
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for k in range(arguments.first, arguments.count):
            rng = random.Random(arguments.seed * 10**9 + k)
            name = rng.choice(list(files))
            way = rng.choice(list(ways))
            suffix = ".medgsz" if files[name].startswith(COHORT) else ".medgs"
            path = Path(folder) / f"a{suffix}"
            path.write_bytes(ways[way](files[name], rng))
            found[name, way, outcome(path)] += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for key, number in sorted(found.items()):
        print(f"{number:6,}  " + " | ".join(key))
    print(f"peak memory grew by {grown / 1024:.0f} MiB")
    return 0 if all(key[2] in ("read", "refused") for key in found) else 1


if __name__ == "__main__":
    sys.exit(main())
