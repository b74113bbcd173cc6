"""Find a part with one click

Without strokes or training an image divides into nested parts. A click chooses the place; the
notches of the wheel choose the size. Here the click is the deepest voxel of each target, and all
sizes that are on offer there are compared with the truth.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import distance_transform_edt

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=3.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
tree = mg.part_tree(volume)
print(f"{tree.leaves:,} cells")

# %%
# The lesion, and all of the white matter with what lies in it.
targets = {"lesion": head.labels == 7, "white matter": head.labels >= 5}
fig, axes = plt.subplots(2, 4, figsize=(9, 5.6), layout="constrained")
for row, (name, truth) in zip(axes, targets.items()):
    depth = distance_transform_edt(truth)
    z, y, x = (int(k) for k in np.unravel_index(depth.argmax(), truth.shape))
    part = tree.at((z, y, x))
    masks = [tree.mask(nodes) for nodes in part.levels]
    scores = [mg.evaluate(1 * m, 1 * truth, head.grid)["mean"]["dice"] for m in masks]
    best = int(np.argmax(scores))
    print(f"{name}: shown first {part.level}, best {best}: Dice {scores[best]:.2f}")
    row[0].plot(scores, "o-", color="teal")
    row[0].axvline(part.level, color="gold", label="shown first")
    row[0].set(xlabel="level", ylabel=f"Dice of the {name}", ylim=(0, 1))
    row[0].legend(frameon=False)
    for ax, level in zip(row[1:], (max(best - 1, 0), best, min(best + 1, len(scores) - 1))):
        ax.imshow(volume.channel(0)[z], cmap="gray", vmin=0, vmax=220)
        for line in tree.outline(part.levels[level], 0, z):
            ax.plot(line[:, 1], line[:, 0], color="gold", linewidth=1)
        ax.plot(x, y, "+", color="tomato", markersize=9)
        size = masks[level].sum() * head.grid.voxel_volume / 1000
        ax.set_title(f"level {level}: {size:.1f} ml", fontsize=9)
        ax.axis("off")
fig.savefig(folder / "parts_from_a_click.png", dpi=100, bbox_inches="tight")
