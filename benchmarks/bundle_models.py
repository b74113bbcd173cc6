"""Make the classifiers that come with the package: the hybrid, seed 0, of each MedMNIST set.

    python benchmarks/bundle_models.py --data DATA --out RUNS

Runs that are in RUNS already are not trained again. The seed was fixed beforehand.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from classification_runs import run

TARGET = Path(__file__).resolve().parents[1] / "src/napari_medgs/classification/models"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("breastmnist", "retinamnist", "adrenalmnist3d"):
        run(args.data, args.out, name, "hybrid", [0], None, str(args.out / "fits"))
        shutil.copyfile(args.out / f"{name}-hybrid-0.safetensors", TARGET / f"{name}.safetensors")
