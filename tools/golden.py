"""Fingerprints of what the commands write, to show that a change of the code changes no bit.

    python tools/golden.py inputs DIR             make inputs (phantom; real volumes if there)
    python tools/golden.py run DIR HASHES.json    run the commands, write their fingerprints
    python tools/golden.py compare A.json B.json  name what differs

`run` takes `--source SRC` to run another checkout's `src` folder. One thread, fixed seeds.
Fingerprints depend on the processor (vector width), so compare runs of one machine only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

DATA = os.environ.get("MEDGS_TEST_DATA", "")


def _save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(data, affine), path)


def _case(folder: Path, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    """Write an image, its mask and strokes on two slices of the stored file."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "image.nii.gz", image.astype(np.float32), affine)
    _save(folder / "mask.nii.gz", labels.astype(np.uint8), affine)
    strokes = np.zeros(labels.shape, np.uint8)
    counts = [(labels[..., k] > 0).sum() for k in range(labels.shape[2])]
    best = int(np.argmax(counts))
    background = int(labels.max()) + 1
    for k in (best, min(best + 4, labels.shape[2] - 1)):
        part = labels[::3, ::3, k]
        strokes[::3, ::3, k] = np.where(part > 0, part, background)
    _save(folder / "strokes.nii.gz", strokes, affine)
    (folder / "background").write_text(str(background))


def inputs(folder: Path) -> None:
    """Make the inputs."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    shape = (48, 44, 24)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    labels[z**2 + y**2 + x**2 < 0.8] = 1
    labels[(z - 0.2) ** 2 + y**2 + x**2 < 0.25] = 2
    labels[(z + 0.4) ** 2 + (y - 0.2) ** 2 + x**2 < 0.08] = 3
    image = np.array([0, 80, 130, 200.0])[labels] + rng.normal(0, 4, shape)
    _case(folder / "phantom", image, labels, np.diag([1.0, 1.0, 2.0, 1.0]))
    real = {
        "hippocampus": ("hippocampus_msd/images/hippocampus_001.nii.gz",
                        "hippocampus_msd/labels/hippocampus_001.nii.gz"),
        "vertebra": ("ct_vertebra_tptbox/ct.nii.gz", "ct_vertebra_tptbox/seg_vert.nii.gz"),
    }  # fmt: skip
    for name, (image_name, mask_name) in real.items():
        if not DATA or not (Path(DATA) / image_name).is_file():
            print(f"{name}: left out, MEDGS_TEST_DATA has no {image_name}", file=sys.stderr)
            continue
        source = nib.load(Path(DATA) / image_name)
        mask = np.asarray(nib.load(Path(DATA) / mask_name).dataobj).astype(np.int64)
        values = np.unique(mask)
        _case(folder / name, source.get_fdata(), np.searchsorted(values, mask), source.affine)
    _session(folder / "phantom")


def _session(folder: Path) -> None:
    """Write a session: strokes, a point, undo, redo, a lock."""
    from napari_medgs.io import read_labels, read_volume
    from napari_medgs.segmentation import Point, Session, Settings, save_session

    volume = read_volume(folder / "image.nii.gz")
    strokes, _ = read_labels(folder / "strokes.nii.gz", volume.grid)
    session = Session(volume.grid, Settings(background=4), images=["image.nii.gz"])
    for label in np.unique(strokes[strokes > 0]):
        session.strokes[strokes == label] = label
        session.record_strokes()
    session.update_settings(points=(Point((12.0, 22.0, 30.0), 2),))
    session.undo()
    session.redo()
    save_session(session, folder / "session.json")


def _commands(folder: Path, out: Path) -> list[list[str]]:
    """Return the commands of one case."""
    background = (folder / "background").read_text()
    image, mask = str(folder / "image.nii.gz"), str(folder / "mask.nii.gz")
    field = str(out / "joint.medgs.safetensors")
    common = ["--threads", "1", "--seed", "0", "--quiet", "--backend", "cpu"]
    commands = [
        ["fit", image, "--mask", mask, "-o", field, *common],
        ["fit", image, "-o", str(out / "plain.medgs.safetensors"), "--interpolate",
         "--quality", "30", "--holdout", "every:2", *common],
        ["render", field, "-o", str(out / "render.nii.gz"), "--quiet", "--backend", "cpu"],
        ["render", field, "--head", "seg", "-o", str(out / "seg.nii.gz"), "--quiet",
         "--backend", "cpu"],
        ["segment", image, "--prompts", str(folder / "strokes.nii.gz"), "--background-label",
         background, "-o", str(out / "mask.nii.gz"), "--probability",
         str(out / "probability.nii.gz"), "--uncertainty", str(out / "uncertainty.nii.gz"),
         *common],
        ["mesh", field, "-o", str(out / "mesh.ply"), "--labels", "1", "--quiet"],
        ["mesh", mask, "-o", str(out / "mesh_of_mask.ply"), "--labels", "1", "--quiet"],
    ]  # fmt: skip
    if (folder / "session.json").is_file():
        commands.append(
            ["segment", image, "--session", str(folder / "session.json"), "--field",
             str(out / "plain.medgs.safetensors"), "-o", str(out / "replay.nii.gz"), "--quiet"]
        )  # fmt: skip
    return commands


def _fingerprint(path: Path) -> str:
    """Hash what a file means: tensors of a field, voxels and affine of an image, else bytes."""
    digest = hashlib.blake2b(digest_size=16)
    if path.name.endswith(".safetensors"):
        from safetensors.numpy import load_file

        for name, tensor in sorted(load_file(path).items()):
            digest.update(name.encode() + str(tensor.dtype).encode() + tensor.tobytes())
    elif path.name.endswith(".nii.gz"):
        import nibabel as nib

        loaded = nib.load(path)
        digest.update(np.asarray(loaded.dataobj).tobytes() + loaded.affine.tobytes())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(folder: Path, target: Path, source: Path | None) -> None:
    """Run the commands on every case."""
    environment = dict(os.environ)
    if source is not None:
        environment["PYTHONPATH"] = str(source.resolve())
    hashes: dict[str, str] = {}
    for case in sorted(p for p in folder.iterdir() if (p / "background").is_file()):
        out = target.parent / f"{target.stem}_{case.name}"
        out.mkdir(parents=True, exist_ok=True)
        for command in _commands(case, out):
            words = [sys.executable, "-m", "napari_medgs", *command]
            done = subprocess.run(words, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(command)}\n{done.stderr}")
        for path in sorted(out.iterdir()):
            if path.suffix != ".json":
                hashes[f"{case.name}/{path.name}"] = _fingerprint(path)
    target.write_text(json.dumps(hashes, indent=1))


def compare(first: Path, second: Path) -> int:
    """Name what differs; 0 where nothing does."""
    a, b = json.loads(first.read_text()), json.loads(second.read_text())
    different = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    for name in different:
        print(f"differs: {name}")
    print(f"{len(a.keys() & b.keys()) - len(different)} the same, {len(different)} different")
    return int(bool(different))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["inputs", "run", "compare"])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path, nargs="?")
    parser.add_argument("--source", type=Path)
    chosen = parser.parse_args()
    if chosen.what == "inputs":
        inputs(chosen.first)
    elif chosen.what == "run":
        run(chosen.first, chosen.second, chosen.source)
    else:
        sys.exit(compare(chosen.first, chosen.second))


if __name__ == "__main__":
    main()
