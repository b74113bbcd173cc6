"""Evaluate a mask

Masks are compared with the truth by overlap (Dice, intersection over union) and by surface
distances in millimeters (95th percentile Hausdorff distance, average surface distance), all with
the grid's own spacing. A mask that is too small, one that is shifted and one with a false island
can have about the same Dice and very different distances.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import binary_erosion

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
# The ventricles of a head with voxels of 2 x 2 x 2 mm.
head = mg.make_phantom(spacing=2.0)
truth = (head.labels == 6).astype(np.uint8)
island = truth.copy()
island[38:46, 14:22, 24:40] = 1
masks = {
    "too small": binary_erosion(truth).astype(np.uint8),
    "shifted by 4 mm": np.roll(truth, 2, axis=1),
    "with an island": island,
}

# %%
scores = {}
for name, mask in masks.items():
    score = mg.evaluate(mask, truth, head.grid)["labels"]["1"]
    scores[name] = score
    print(
        f"{name:16s} Dice {score['dice']:.3f}  HD95 {score['hd95']:5.2f} mm  "
        f"ASD {score['asd']:.2f} mm  {score['volume_ml']:.1f} ml"
    )
print(f"{'truth':16s} {score['volume_ml_truth']:.1f} ml")

# %%
index = 43
fig, axes = plt.subplots(1, 3, figsize=(8, 3.9), layout="constrained")
for ax, (name, mask) in zip(axes, masks.items()):
    ax.imshow(head.image[index], cmap="gray", vmin=0, vmax=220, interpolation="nearest")
    ax.contourf(mask[index], levels=[0.5, 1.5], colors="tomato", alpha=0.6)
    ax.contour(truth[index], levels=[0.5], colors="aqua", linewidths=1.2)
    score = scores[name]
    ax.set_title(f"{name}\nDice {score['dice']:.2f}, HD95 {score['hd95']:.1f} mm", fontsize=10)
    ax.axis("off")
fig.savefig(folder / "evaluate_mask.png", dpi=100, bbox_inches="tight")
