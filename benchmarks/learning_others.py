"""Trained segmenters on other organs and modalities, one patient each: block folds.

    python benchmarks/learning_others.py --out FILE.json [--sets cord_t1 spleen ...]
                                         [--seconds 40] [--data DIR]

An image is cut into three blocks along one axis. A network learns from two of them, without the
slices next to the third, and is tested on it; three times. The blocks are of one patient and one
scan: this shows that the training works for slices, thick slices, several contrasts, and many or
tiny classes. It is no test of new patients. Cords, spleen and organs are learned slice by slice in
2D; glioma and lesions in 3D from four contrasts. Blocks that are in the file are not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.registry import find_data

BLOCKS, GAP, CASES_OF_RUN = 3, 2, 2
"""Blocks, slices beside the tested one that are not learned from, and cases of the others."""


@dataclass(frozen=True)
class DataSet:
    """One patient.

    Attributes
    ----------
    images : tuple of str
        Contrasts, relative to the data folder.
    mask : str
    classes : dict of int to str
    axis : int
        Of the file's array (x, y, z), along which blocks lie.
    flat : bool
        Learn slices in 2D.
    every : int
        Use every so many voxels along each axis.
    masks : str
        Who drew the masks.
    """

    images: tuple[str, ...]
    mask: str
    classes: dict[int, str]
    axis: int
    flat: bool = True
    every: int = 1
    masks: str = "manual"


ORGANS = {1: "spleen", 2: "right kidney", 3: "left kidney", 5: "liver", 6: "stomach", 7: "aorta"}
GLIOMA = tuple(f"mr_brats4_glioma/{c}.nii.gz" for c in ("t1c", "t1n", "t2f", "t2w"))
MS = tuple(f"mr_ms_lesions_patient07/{c}.nii.gz" for c in ("FLAIR", "T1", "T1POST", "T2"))
SETS = {
    "cord_t1": DataSet(
        ("mr_spinalcord_t1/t1w.nii.gz",), "mr_spinalcord_t1/seg.nii.gz", {1: "cord"}, 2
    ),
    "cord_t2": DataSet(
        ("mr_spinalcord_t2/t2.nii.gz",), "mr_spinalcord_t2/seg.nii.gz", {1: "cord"}, 1,
        masks="perhaps a model's",
    ),
    "cord_gray": DataSet(
        ("mr_spinalcord_t2s_gm/t2s.nii.gz",), "mr_spinalcord_t2s_gm/gm_seg.nii.gz",
        {1: "gray matter"}, 2,
    ),
    "spleen": DataSet(
        ("ct_spleen_msd_crop/ct.nii.gz",), "ct_spleen_msd_crop/seg.nii.gz", {1: "spleen"}, 2
    ),
    "organs": DataSet(
        ("ct_totalseg_example/ct.nii.gz",), "ct_totalseg_example/seg_ml.nii.gz", ORGANS, 1,
        masks="a model's",
    ),
    "glioma": DataSet(
        GLIOMA, "mr_brats4_glioma/seg_brats23.nii.gz", {1: "core", 2: "edema", 3: "enhancing"},
        0, flat=False, every=2, masks="a model's",
    ),
    "ms": DataSet(
        MS, "mr_ms_lesions_patient07/lesions_gold.nii.gz", {1: "lesion"}, 0, flat=False,
        masks="consensus of raters",
    ),
}  # fmt: skip


def load(data: Path, chosen: DataSet) -> tuple[NDArray[np.float32], NDArray[np.uint8], Any]:
    """Return contrasts (C, Z, Y, X) and labels with the blocks along Z, and the spacing."""
    import nibabel

    files = [nibabel.load(data / name) for name in chosen.images]
    labels = np.asarray(nibabel.load(data / chosen.mask).dataobj).astype(np.int64)
    step = (slice(None, None, chosen.every),) * 3
    order = (chosen.axis, *[a for a in (2, 1, 0) if a != chosen.axis])
    stack = np.stack([np.asarray(f.dataobj, np.float32)[step].transpose(order) for f in files])
    spacing = np.array(files[0].header.get_zooms()[:3], float)[list(order)] * chosen.every
    kept = np.where(np.isin(labels, list(chosen.classes)), labels, 0)
    return stack, kept[step].transpose(order).astype(np.uint8), tuple(spacing)


def parts_of(rows: NDArray[np.intp], flat: bool) -> list[NDArray[np.intp]]:
    """Return the slices of every case: single ones, or parts of runs without a hole."""
    if flat:
        return [rows[k : k + 1] for k in range(len(rows))]
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [part for run in runs for part in np.array_split(run, CASES_OF_RUN)]


def learn(
    chosen: DataSet, stack: NDArray[Any], labels: NDArray[Any], spacing: Any, block: int,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the Dice of one block by a network that learned from the others."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume, spacing_affine
    from napari_medgs.io import write_image, write_labels
    from napari_medgs.learning import LearnParams, train_segmenter
    from napari_medgs.learning.data.sources import TrainingCase, TrainingSource
    from napari_medgs.metrics import dice

    there = np.flatnonzero((labels > 0).any((1, 2)))
    span = np.arange(max(0, there[0] - 3), min(len(labels), there[-1] + 4))
    blocks = np.array_split(span, BLOCKS)
    tested = blocks[block]
    apart = (span < tested[0] - GAP) | (span > tested[-1] + GAP)
    learned = span[apart & ~np.isin(span, tested)]
    names = tuple(Path(name).name.removesuffix(".nii.gz") for name in chosen.images)

    def grid_of(rows: NDArray[Any]) -> Grid:
        return Grid((len(rows), *labels.shape[1:]), spacing_affine(spacing))

    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in parts_of(learned, chosen.flat):
            start, grid = f"{folder}/{rows[0]}", grid_of(rows)
            for name, channel in zip(names, stack, strict=True):
                write_image(f"{start}_{name}.nii.gz", channel[rows], grid)
            write_labels(f"{start}_seg.nii.gz", labels[rows], grid)
            files = tuple(f"{start}_{name}.nii.gz" for name in names)
            cases.append(TrainingCase(str(rows[0]), files, f"{start}_seg.nii.gz"))
        shown = {v: n for v, n in chosen.classes.items() if (labels[learned] == v).any()}
        params = LearnParams(
            minutes=seconds / 60, folds=0, batch_size=8 if chosen.flat else 2, workers=0,
            accelerator="cpu", threads=1, logger="none",
        )  # fmt: skip
        source = TrainingSource(tuple(cases), shown, names, folder)
        result = train_segmenter(source, params)
    found = np.zeros_like(labels[tested])
    begun = time.process_time()
    for rows in parts_of(tested, True) if chosen.flat else [tested]:
        volume = Volume(stack[:, rows], grid_of(rows), names)
        found[rows - tested[0]] = result.segmenter.segment(volume).labels
    truth = labels[tested]
    return {
        "dice": {n: dice(found == v, truth == v) for v, n in shown.items() if (truth == v).any()},
        "steps": result.history["all"][-1]["step"],
        "train_seconds": result.seconds,
        "seconds": time.process_time() - begun,
        "learned": len(learned),
        "tested": len(tested),
        "shape": labels.shape,
    }


def main() -> None:
    """Run from the command line."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seconds", type=float, default=40, help="of each training, on the CPU")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = find_data(options.data)
    time.perf_counter = time.process_time  # minutes are those of this process
    done: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in options.sets:
        chosen = SETS[name]
        stack, labels, spacing = load(data, chosen)
        for block in range(BLOCKS):
            if f"{name} {block}" not in done:
                done[f"{name} {block}"] = learn(
                    chosen, stack, labels, spacing, block, options.seconds
                )
                options.out.write_text(json.dumps(done), encoding="utf-8")
    print("| data | learned as | masks | Dice by block | Dice | steps | s/block |")
    print("|---|---|---|---|--:|--:|--:|")
    for name, chosen in SETS.items():
        rows = [done[f"{name} {k}"] for k in range(BLOCKS) if f"{name} {k}" in done]
        if not rows:
            continue
        means = [np.mean(list(row["dice"].values())) if row["dice"] else np.nan for row in rows]
        kind = f"{'slices' if chosen.flat else 'volumes'}, {len(chosen.images)} contrast(s)"
        print(
            f"| {name} | {kind} | {chosen.masks} | {' '.join(f'{m:.3f}' for m in means)} "
            f"| {np.nanmean(means):.3f} | {np.mean([r['steps'] for r in rows]):.0f} "
            f"| {np.mean([r['seconds'] for r in rows]):.1f} |"
        )
        for value in chosen.classes.values():
            scores = [row["dice"][value] for row in rows if value in row["dice"]]
            if len(chosen.classes) > 1 and scores:
                print(f"| {name}: {value} | | | {' '.join(f'{s:.3f}' for s in scores)} | | | |")


if __name__ == "__main__":
    main()
