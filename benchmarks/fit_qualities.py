"""Time and quality of the stops of the Fit widget's slider, on six CT and MR scans.

    python benchmarks/fit_qualities.py [--data DIR]

Prints a table. On a busy machine the wall time says little: the processor time of the process,
shared by two cores, is given as well.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from napari_medgs import FitParams, fit, read_volume
from napari_medgs.data.volume import Volume
from napari_medgs.plugin.fit.quality import QUALITIES
from suite.registry import find_data

SCANS = (
    "ct_spleen_msd_crop/ct",
    "ct_vertebra_tptbox/ct",
    "mr_brain_freesurfer/norm",
    "mr_brats4_glioma/t1c",
    "mr_spinalcord_t1/t1w",
    "mr_spinalcord_t2s_gm/t2s",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    folder = find_data(parser.parse_args().data)
    ramp = np.linspace(0, 1, 4096, dtype=np.float32).reshape(16, 16, 16)
    fit(Volume.from_array(ramp), FitParams(iterations=3))  # load the compiled engine
    print("| scan | voxels | quality | s | CPU s / 2 | dB | Gaussians |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for scan in SCANS:
        volume = read_volume(folder / f"{scan}.nii.gz")
        for quality in QUALITIES:
            began, busy = time.perf_counter(), time.process_time()
            result = fit(volume, FitParams(threads=2, **quality.settings))
            wall, cores = time.perf_counter() - began, time.process_time() - busy
            print(
                f"| {scan} | {volume.data.size / 1e6:.2f} M | {quality.name} | {wall:.1f} | "
                f"{cores / 2:.1f} | {result.metrics['psnr']:.1f} | {len(result.field):,} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
