"""Render between thick slices

Every second slice of a head is left out of the fit. The Gaussians fold along the slice axis and
follow the structures from slice to slice, so that the slices left out can be rendered at their
own places. Linear and cubic interpolation of the same slices are measured beside it.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import CubicSpline

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=(4.0, 2.5, 2.5), noise=2.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)

# %%
# ``holdout=2`` fits every second slice and measures the others.
result = mg.fit(volume, mg.FitParams(holdout=2))
for method in ("", "_linear", "_cubic"):
    name = method.strip("_") or "Gaussians"
    print(f"{name:10s} PSNR {result.metrics['psnr_heldout' + method]:.2f} dB")

# %%
# One slice that no method has seen.
index = 33
kept = np.arange(0, volume.shape[0], 2)
cubic = CubicSpline(kept, volume.channel(0)[kept])(index)
gaussians = mg.render(result.field)[0, index]
truth = volume.channel(0)[index]

fig, axes = plt.subplots(1, 5, figsize=(9, 2.9), layout="constrained")
shown = [truth, cubic, gaussians]
titles = ["slice left out", "cubic", "Gaussians", "error, cubic", "error, Gaussians"]
for ax, picture in zip(axes, shown):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=220, interpolation="nearest")
for ax, picture in zip(axes[3:], (cubic, gaussians)):
    difference = picture - truth
    ax.imshow(difference, cmap="RdBu_r", vmin=-80, vmax=80, interpolation="nearest")
    ax.text(2, 82, f"RMSE {np.sqrt((difference**2).mean()):.1f}", fontsize=9)
for ax, title in zip(axes, titles):
    ax.set_title(title, fontsize=10)
    ax.axis("off")
fig.savefig(folder / "render_between_slices.png", dpi=100, bbox_inches="tight")
