"""Clicks, boxes, undo and replay

An interactive segmenter keeps every prompt as a step. Here clicks mark a lesion, a box bounds it,
and two more clicks follow. Undo takes steps back together with their effect on the mask. The
session is saved as a small JSON log, which gives the same mask when it is replayed on the same
image.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=3.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
truth = (head.labels == 7).astype(int)
segmenter = mg.InteractiveSegmenter()
segmenter.set_image(volume)
masks = {}


def show(title):
    """Segment with the prompts so far, keep the mask and print its score."""
    masks[title] = mask = segmenter.result().labels == 1
    dice = mg.evaluate(mask.astype(int), truth, head.grid)["mean"]["dice"]
    print(f"{title:16s} {mask.sum():6d} voxels, Dice {dice:.2f}")


# %%
# Positions are voxels (z, y, x). Label 0 is background.
segmenter.add_point(1, (33, 27, 39))
segmenter.add_point(0, (33, 27, 48))
show("two clicks")
segmenter.add_point(1, (33, 24, 38))
show("a third click")
segmenter.add_box(1, start=(30, 21, 35), stop=(38, 35, 44))
show("a box")
segmenter.add_point(1, (34, 29, 40))
segmenter.add_point(1, (35, 26, 38))
show("two more clicks")

# %%
segmenter.undo()
segmenter.undo()
print("as with the box:", np.array_equal(segmenter.labels == 1, masks["a box"]))
segmenter.redo()
segmenter.redo()

# %%
# Replay: the field is fitted again from the image, and the steps are done again.
path = segmenter.save(folder / "session.json")
replayed = mg.InteractiveSegmenter.load(path, volume).result().labels
print(f"saved {path.stat().st_size} bytes")
print("the same mask again:", np.array_equal(replayed == 1, masks["two more clicks"]))

# %%
clicks = {"two clicks": [(39, 27)], "a third click": [(38, 24)], "two more clicks": [(40, 29)]}
fig, axes = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
for ax, (title, mask) in zip(axes, masks.items()):
    ax.imshow(head.image[33], cmap="gray", vmin=0, vmax=220)
    ax.contourf(mask[33], levels=[0.5, 1.5], colors="tomato", alpha=0.7)
    for x, y in clicks.get(title, []):
        ax.scatter(x, y, c="gold", s=25, edgecolors="black", zorder=3)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
axes[0].scatter(48, 27, c="white", s=25, edgecolors="black", zorder=3)
for ax in axes[2:]:
    ax.add_patch(plt.Rectangle((34.5, 20.5), 9, 14, fill=False, edgecolor="gold"))
fig.savefig(folder / "session.png", dpi=100, bbox_inches="tight")
