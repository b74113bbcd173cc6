"""Fit a folder of images

``fit_many`` fits every image of a folder in several processes and writes one field file per
image. What was fitted already, from the same image with the same settings, is skipped, so that
an interrupted run is continued by calling it again. The manifest records quality and size of
every fit.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import napari_medgs as mg
from napari_medgs.batch import find_cases, fit_many

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()


# %%
# Processes of a cluster import this file: work is started under this condition only.
if __name__ == "__main__":
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for seed in range(4):
        head = mg.make_phantom(spacing=6.0, seed=seed)
        mg.write_image(images / f"head{seed}.nii.gz", head.image[None], head.grid)

    # %%
    cases = find_cases(images)
    params = mg.FitParams(quality=33.0)
    first = fit_many(cases, folder / "fields", params)
    second = fit_many(cases, folder / "fields", params)
    print(f"first run: {len(first.done)} fitted, {len(first.failed)} failed")
    print(f"second run: {len(second.done)} fitted, {len(second.skipped)} skipped")

    # %%
    fig, axes = plt.subplots(2, 4, figsize=(8, 5.2), layout="constrained")
    for case, column in zip(cases, axes.T):
        metrics = first.entries[case.name]["metrics"]
        volume = mg.read_volume(case.images[0])
        field = mg.load_field(folder / "fields" / f"{case.name}.medgs.safetensors")
        print(f"{case.name}: {len(field)} Gaussians, PSNR {metrics['psnr']:.1f} dB")
        index = volume.shape[0] * 3 // 5
        column[0].imshow(volume.channel(0)[index], cmap="gray", vmin=0, vmax=220)
        column[0].set_title(case.name, fontsize=10)
        column[1].imshow(mg.render(field)[0, index], cmap="gray", vmin=0, vmax=220)
        column[1].set_title(f"{len(field):,} Gaussians,\n{metrics['psnr']:.1f} dB", fontsize=10)
    for ax in axes.flat:
        ax.axis("off")
    fig.savefig(folder / "batch_fit.png", dpi=100, bbox_inches="tight")
