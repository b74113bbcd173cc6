"""Print the table of the corpus: every kind of file, its reference, and what came of reading it.

    python tools/corpus.py                    # all entries
    python tools/corpus.py dicom/ nifti/axes  # entries whose names begin so
    python tools/corpus.py --fuzz 200         # random damage, each format in a process of its own

Exit status 1 where an entry or a damaged file is at fault.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

REFERENCES = {
    "nifti": "nibabel", "pair": "nibabel", "analyze": "nibabel", "mask": "nibabel",
    "mgz": "nibabel", "nrrd": "pynrrd, ITK", "mha": "ITK", "mhd": "ITK", "seg.nrrd": "pynrrd",
    "gipl": "ITK", "dicom": "pydicom", "frames": "pydicom", "dose": "pydicom",
    "seg": "highdicom", "tiff": "tifffile", "frames of images": "imageio", "medmnist": "numpy",
    "mesh": "trimesh", "zarr": "zarr", "rtstruct": "scikit-image",
}  # fmt: skip


def print_table(prefixes: list[str]) -> int:
    """Print a row an entry; return the number of faults."""
    from tests.corpus import CORPUS
    from tests.corpus.check import check

    counts: Counter[str] = Counter()
    formats: dict[str, Counter[str]] = {}
    print("| entry | reference | result | distance (voxels) | message |\n|---|---|---|---|---|")
    for name, entry in CORPUS.items():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = check(entry, Path(folder))
            message = outcome.message.replace(f"{folder}/", "").replace(folder, "folder")
        kind = name.partition("/")[0]
        reference = "one clear line" if entry.refused else REFERENCES.get(kind, "as written")
        distance = "" if outcome.distance is None else f"{outcome.distance:.1e}"
        text = " ".join(message.split()).replace("|", "\\|")
        print(f"| {name} | {reference} | {outcome.result} | {distance} | {text} |", flush=True)
        counts[outcome.result] += 1
        formats.setdefault(kind, Counter())[outcome.result] += 1
    print("\n| format | files | read | refused | fault |\n|---|---|---|---|---|")
    for kind, found in {**formats, "all": counts}.items():
        cells = [found.total(), found["read"], found["refused"], found["fault"]]
        print(f"| {kind} | {' | '.join(map(str, cells))} |")
    return counts["fault"]


def print_fuzz(formats: list[str], count: int, seed: int) -> int:
    """Print a row a format; return the number of faults, crashes and hangs among them."""
    from tests.corpus.fuzz import FORMATS

    print("| format | damaged files | read | refused | faults | slowest (s) |")
    print("|---|---|---|---|---|---|")
    faults: list[str] = []
    for name in formats or FORMATS:
        words = ["-m", "tests.corpus.fuzz", name, "--count", str(count), "--seed", str(seed)]
        limit = 60 + 10 * count
        try:
            done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True,
                                  text=True, timeout=limit, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            faults.append(f"{name}: hangs")
            continue
        if done.returncode:
            faults.append(f"{name}: ended with status {done.returncode}: {done.stderr[-300:]}")
            continue
        total = json.loads(done.stdout)
        found = total["faults"]
        faults += found
        read, refused = total.get("read", 0), total.get("refused", 0)
        files = read + refused + len(found)
        print(f"| {name} | {files} | {read} | {refused} | {len(found)} | {total['slowest']:.2f} |",
              flush=True)  # fmt: skip
    print("\n".join(["", *faults]))
    return len(faults)


def main() -> int:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--fuzz", type=int, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.fuzz:
        return int(print_fuzz(given.names, given.fuzz, given.seed) > 0)
    return int(print_table(given.names) > 0)


if __name__ == "__main__":
    sys.exit(main())
