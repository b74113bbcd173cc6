"""Load an image and its geometry

A volume is an array and a grid that says where its voxels lie in the patient, in RAS
millimeters. Every file is read into one axis order (slice, row, column), whatever its own order
is, and a mask is written back in the order of the image that it belongs to. Here a synthetic
head is written to NIfTI, read again and drawn in three planes with the right aspect.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
# A head with slices of 5 mm and pixels of 2 mm.
head = mg.make_phantom(spacing=(5.0, 2.0, 2.0))
mg.write_image(folder / "head.nii.gz", head.image[None], head.grid)
mg.write_labels(folder / "tissues.nii.gz", head.labels, head.grid, head.names)

# %%
# ``data`` has the axes channel, z, y, x. The mask is checked against the image's grid.
volume = mg.read_volume(folder / "head.nii.gz")
labels, _ = mg.read_labels(folder / "tissues.nii.gz", volume.grid)
print("shape (z, y, x):", volume.shape)
print("spacing in mm:", tuple(round(s, 3) for s in volume.spacing))
print("center in RAS mm:", volume.grid.to_world([(n - 1) / 2 for n in volume.shape]).round(2))
lesion = int((labels == 7).sum())
print(f"lesion: {lesion} voxels, {lesion * volume.grid.voxel_volume / 1000:.2f} ml")

# %%
planes = [("axial", 0, 22), ("coronal", 1, 54), ("sagittal", 2, 60)]
fig, axes = plt.subplots(1, 3, figsize=(8, 3.4), facecolor="black", layout="constrained")
for ax, (name, axis, index) in zip(axes, planes):
    rows, columns = (s for a, s in enumerate(volume.spacing) if a != axis)
    image = volume.channel(0).take(index, axis)
    mask = labels.take(index, axis)
    upside = "upper" if axis == 0 else "lower"  # z points to the top of the head
    ax.imshow(
        image, cmap="gray", aspect=rows / columns, origin=upside, vmax=220, interpolation="nearest"
    )
    ax.contour(mask == 7, levels=[0.5], colors="tomato", linewidths=1.2)
    ax.contour(mask == 6, levels=[0.5], colors="deepskyblue", linewidths=1.0)
    ax.set_title(f"{name}, {rows:g} x {columns:g} mm", color="white", fontsize=10)
    ax.axis("off")
fig.savefig(folder / "load_image.png", dpi=100, bbox_inches="tight")
