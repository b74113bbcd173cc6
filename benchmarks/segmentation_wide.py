"""Random groups of neighboring structures that no case of the benchmark has.

    python benchmarks/segmentation_wide.py [--data DIR] [--half A|B|all] [--kinds NAME ...]
        [--slices 1 3] [--seeds 1] [--fields DIR] [--records DIR] [--forget-ours]

The label maps of the real volumes hold many more structures than the cases use. Groups of 1 to 4
classes that touch are drawn by a fixed seed, none of them twice, and split into two halves: A is
for looking and choosing, B for the check of what was chosen. A volume is fitted once. Strokes are
those of the benchmark; ours, Fast GrowCut and the watershed get the same.
"""

from __future__ import annotations

import argparse
import copy
import pickle
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_baselines import BASELINES, OURS
from segmentation_cases import Case, all_cases
from segmentation_measure import Bench, Store, dice_of, ratios_of
from suite.registry import find_data

SEED = 15
LEAST = 200  # voxels of a class
LARGEST = 4  # classes of a group
CONTACT = 20  # faces of voxels that neighbors share
METHODS = (OURS, "fast GrowCut", "watershed")
HIPPOCAMPI = 10


@dataclass(frozen=True)
class Kind:
    """A volume, its label map, and which labels make up a kind of structure."""

    name: str
    image: str
    mask: str
    labels: range
    groups: int

    @property
    def volume(self) -> str:
        """Name of what is fitted once."""
        return self.image.replace("/", "_").removesuffix(".nii.gz")


KINDS = (
    Kind("organs, muscles, bones, CT", "ct_totalseg_example/ct.nii.gz",
         "ct_totalseg_example/seg_ml.nii.gz", range(1, 200), 16),
    Kind("parts of vertebrae, CT", "ct_vertebra_tptbox/ct.nii.gz",
         "ct_vertebra_tptbox/seg_subreg.nii.gz", range(1, 200), 5),
    Kind("deep brain, T1", "mr_brain_freesurfer/norm.nii.gz",
         "mr_brain_freesurfer/aparc_aseg.nii.gz", range(1, 1000), 12),
    Kind("cortical areas, T1", "mr_brain_freesurfer/norm.nii.gz",
         "mr_brain_freesurfer/aparc_aseg.nii.gz", range(1000, 20000), 10),
)  # fmt: skip


def taken(mask: str) -> set[int]:
    """Return the labels of a mask that a case of the benchmark has."""
    return {v for case in all_cases() if case.mask == mask for g in case.groups for v in g}


def contacts(labels: NDArray[Any]) -> dict[tuple[int, int], int]:
    """Return the number of voxel faces that two labels share, by both labels in order."""
    found: dict[tuple[int, int], int] = defaultdict(int)
    for axis in range(3):
        one = np.moveaxis(labels, axis, 0)
        pairs = np.stack([one[:-1].reshape(-1), one[1:].reshape(-1)])
        pairs = np.sort(pairs[:, pairs[0] != pairs[1]], axis=0)
        values, counts = np.unique(pairs, axis=1, return_counts=True)
        for (a, b), count in zip(values.T.tolist(), counts.tolist(), strict=True):
            found[a, b] += count
    return found


def draw_groups(labels: NDArray[Any], kind: Kind) -> list[tuple[int, ...]]:
    """Return random groups of neighboring labels, no label twice."""
    rng = np.random.default_rng([SEED, len(kind.name)])
    values, counts = np.unique(labels, return_counts=True)
    known = taken(kind.mask)
    usable = {
        int(v) for v, n in zip(values, counts, strict=True)
        if n >= LEAST and v in kind.labels and v not in known
    }  # fmt: skip
    touching = {pair for pair, faces in contacts(labels).items() if faces >= CONTACT}
    groups: list[tuple[int, ...]] = []
    while usable and len(groups) < kind.groups:
        group = [int(rng.choice(sorted(usable)))]
        usable.remove(group[0])
        for _ in range(int(rng.integers(LARGEST))):
            near = sorted(
                v for v in usable if any((min(v, g), max(v, g)) in touching for g in group)
            )
            if not near:
                break
            group.append(int(rng.choice(near)))
            usable.remove(group[-1])
        groups.append(tuple(sorted(group)))
    return groups


def _half(names: list[str], half: str, seed: int) -> list[str]:
    """Return one half of names, or all."""
    order = np.random.default_rng([SEED, seed, 1]).permutation(len(names))
    chosen = {"A": order[::2], "B": order[1::2]}.get(half, order)
    return [names[k] for k in sorted(chosen)]


def fitted(bench: Bench, name: str, fields: Path | None) -> Bench:
    """Let a bench take its field from a folder, or put it there."""
    file = None if fields is None else fields / f"{name}.pkl"
    if file is not None and file.is_file():
        bench.__dict__["field"] = pickle.loads(file.read_bytes())
    elif file is not None:
        file.write_bytes(pickle.dumps(bench.field))
    return bench


def with_truth(bench: Bench, truth: NDArray[np.uint8]) -> Bench:
    """Return the same bench for other classes."""
    out = copy.copy(bench)
    out.truth, out.classes = truth, int(truth.max())
    return out


def wide_benches(
    folder: Path, half: str, kinds: tuple[str, ...] = (), fields: Path | None = None
) -> Iterator[tuple[str, str, Bench]]:
    """Iterate over kind, name and bench of every group; the model of a volume is made once."""
    from napari_medgs.io import read_labels

    volumes: dict[str, Bench] = {}
    for kind in KINDS:
        if kinds and not any(k in kind.name for k in kinds):
            continue
        labels, _ = read_labels(folder / kind.mask)
        groups = draw_groups(labels, kind)
        values = sorted({v for group in groups for v in group})
        whole = Case(kind.name, "wide", (kind.image,), kind.mask, tuple((v,) for v in values))
        bench = fitted(Bench(whole, folder), kind.volume, fields)
        if kind.volume in volumes:  # of another kind
            bench.__dict__.update(
                {
                    k: v
                    for k, v in volumes[kind.volume].__dict__.items()
                    if k in ("model", "images")
                }
            )
        named = {"+".join(map(str, group)): group for group in groups}
        for name in _half(list(named), half, len(kind.name)):
            lut = np.zeros(len(values) + 1, np.uint8)
            for k, value in enumerate(named[name]):
                lut[values.index(value) + 1] = k + 1
            bench.model, bench.images  # noqa: B018 - made once
            yield kind.name, f"{kind.volume}_{name}", with_truth(bench, lut[bench.truth])
        volumes[kind.volume] = bench
    if kinds and not any(k in "hippocampi, T1" for k in kinds):
        return
    used = {case.images[0] for case in all_cases()}
    files = sorted(p.relative_to(folder) for p in (folder / "hippocampus_msd/images").glob("*.gz"))
    free = [str(p) for p in files if str(p) not in used]
    picked = np.random.default_rng([SEED, 2]).choice(free, HIPPOCAMPI, replace=False).tolist()
    for image in _half(sorted(picked), half, 3):
        name = Path(image).name.removesuffix(".nii.gz")
        mask = image.replace("/images/", "/labels/")
        case = Case(name, "wide", (image,), mask, ((1,), (2,)))
        yield "hippocampi, T1", name, fitted(Bench(case, folder), name, fields)


def measure(bench: Bench, method: str, count: int, seed: int) -> dict[str, Any]:
    """Return the Dice and volume ratio of every class."""
    marks = bench.marks(count, seed)
    if method == OURS:
        _, guess = bench.solve(marks)
    else:
        guess = BASELINES[method](bench.images, marks, bench.volume.spacing)
    return {"dice": dice_of(guess, bench.truth), "volume": ratios_of(guess, bench.truth)}


def table(records: dict[str, tuple[str, dict[str, Any]]], slices: list[int], seeds: int) -> str:
    """Return a Markdown table: means by kind, how often ours is best, and volume ratios."""
    lines = [
        "| kind | groups | slices | " + " | ".join(METHODS)
        + " | ours best | ours within .02 of the best | volumes .6 to 1.6 | .8 to 1.25 |",
        "|---|--:|--:|" + "--:|" * (len(METHODS) + 4),
    ]  # fmt: skip
    kinds = list(dict.fromkeys(kind for kind, _ in records.values()))
    for kind in [*kinds, "all"]:
        mine = [record for k, record in records.values() if kind in (k, "all")]
        for count in slices:
            runs = [[r[f"{count}/{s}/{m}"] for m in METHODS] for r in mine for s in range(seeds)]
            dice = np.array([[np.mean(cell["dice"]) for cell in run] for run in runs])
            ratio = np.concatenate([run[0]["volume"] for run in runs])
            ahead = dice[:, 0] - dice[:, 1:].max(axis=1)
            cells = [f"{d:.3f}".lstrip("0") for d in dice.mean(axis=0)]
            shares = [ahead >= 0, ahead >= -0.02, (ratio >= 0.6) & (ratio <= 1.6),
                      (ratio >= 0.8) & (ratio <= 1.25)]  # fmt: skip
            cells += [f"{100 * share.mean():.0f} %" for share in shares]
            lines.append(f"| {kind} | {len(mine)} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--half", default="all", choices=("A", "B", "all"))
    parser.add_argument("--kinds", nargs="*", default=())
    parser.add_argument("--slices", nargs="*", type=int, default=[1, 3])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--forget-ours", action="store_true")
    given = parser.parse_args()
    store = Store(given.records)
    if given.fields is not None:
        given.fields.mkdir(parents=True, exist_ok=True)
    records: dict[str, tuple[str, dict[str, Any]]] = {}
    benches = wide_benches(find_data(given.data), given.half, tuple(given.kinds), given.fields)
    for kind, name, bench in benches:
        if given.forget_ours:
            store.forget_ours(name)
        for count in given.slices:
            for seed in range(given.seeds):
                row = [
                    store.get(name, f"{count}/{seed}/{m}",
                              lambda m=m, n=count, s=seed, b=bench: measure(b, m, n, s))
                    for m in METHODS
                ]  # fmt: skip
                cells = [f"{np.mean(r['dice']):.3f}" for r in row]
                volume = " ".join(f"{v:.2f}" for v in row[0]["volume"])
                print(f"{name}, {count}: {' '.join(cells)}  ours {volume}", flush=True)
        records[name] = kind, store.case(name)
    print(table(records, given.slices, given.seeds))


if __name__ == "__main__":
    main()
