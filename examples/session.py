"""Clicks, boxes, undo and replay

An interactive segmenter keeps every prompt as a step. Clicks can be positive or negative, a box
bounds a class, and undo takes the last step back together with its effect on the mask. The
session is saved as a small JSON log of the steps, which gives the same mask when it is replayed
on the same image.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=3.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
segmenter = mg.InteractiveSegmenter()
segmenter.set_image(volume)
lesion, z = head.labels == 7, 33
masks = {}


def show(title):
    """Segment with the prompts so far, keep the mask and print the score."""
    masks[title] = mask = segmenter.result().labels == 1
    dice = mg.evaluate(mask.astype(int), lesion.astype(int), head.grid)["mean"]["dice"]
    print(f"{title:18s} {mask.sum():6d} voxels, Dice {dice:.3f}")


# %%
# One click for the lesion, one for what surrounds it.
segmenter.add_point(1, (z, 27, 39))
segmenter.add_point(0, (z, 27, 48))
show("two clicks")
segmenter.add_box(1, start=(29, 20, 34), stop=(39, 36, 45))
show("and a box")
segmenter.add_point(0, (z, 27, 39), radius=3.0)
show("a click too many")
segmenter.undo()
show("undone")

# %%
# Replay: the field is fitted again from the image, and the steps are done again.
path = segmenter.save(folder / "session.json")
again = mg.InteractiveSegmenter.load(path, volume)
same = bool((again.result().labels == segmenter.result().labels).all())
print(f"saved {path.stat().st_size} bytes, the same mask again: {same}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
for ax, (title, mask) in zip(axes, masks.items()):
    ax.imshow(head.image[z], cmap="gray", vmin=0, vmax=220)
    if mask[z].any():
        ax.contourf(mask[z], levels=[0.5, 1.5], colors="tomato", alpha=0.7)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    ax.scatter([39, 48], [27, 27], c=["tomato", "white"], s=25, edgecolors="black")
for ax in axes[1:]:
    ax.add_patch(plt.Rectangle((33.5, 19.5), 11, 16, fill=False, edgecolor="gold"))
axes[2].scatter(39, 27, c="white", s=60, edgecolors="black")
fig.savefig(folder / "session.png", dpi=100, bbox_inches="tight")
