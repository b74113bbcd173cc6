"""Look at Gaussians as data

A field is a set of plain arrays: centers, covariances, weights and values per Gaussian, in
voxels or in RAS millimeters. The ellipses are the cross-sections of the Gaussians in one slice,
at one standard deviation: long along edges, small where there is detail. The same Gaussians can
be written as a .ply file for viewers of 3D Gaussian splats.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection

import napari_medgs as mg
from napari_medgs.io.splats import save_splat_ply

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=4.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
field = mg.fit(volume, mg.FitParams(gaussians=4000)).field

# %%
centers = field.voxel_centers()  # (N, 3), (z, y, x) in voxels
precisions = field.voxel_precisions()  # (N, 3, 3), inverse covariances
sizes = np.sqrt(np.linalg.eigvalsh(field.world_covariances()))  # (N, 3), mm
print(f"{len(field)} Gaussians, {field.nbytes / 1000:.0f} kB")
print("median standard deviations in mm:", np.median(sizes, axis=0).round(2))
print("splats written:", save_splat_ply(folder / "head.ply", field))

# %%
# A slice through an ellipsoid is an ellipse. Its shape is the in-plane part of the precision
# matrix; its center moves with the slice, as the mean of y and x given z does.
index = volume.shape[0] // 2
covariances = field.voxel_covariances()
offset = index - centers[:, 0]
near = np.abs(offset) < 0.7 * np.sqrt(covariances[:, 0, 0])
slope = covariances[near, 1:, 0] / covariances[near, :1, 0]
middles = centers[near, 1:] + slope * offset[near, None]
variances, directions = np.linalg.eigh(np.linalg.inv(precisions[near, 1:, 1:]))
diameters = 2 * np.sqrt(variances)
angles = np.degrees(np.arctan2(directions[:, 0, 1], directions[:, 1, 1]))
gray = field.values[near, 0].clip(0, 1)

fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.4), layout="constrained")
axes[0].imshow(volume.channel(0)[index], cmap="gray", vmin=0, vmax=220)
axes[0].set_title("image")
axes[1].imshow(mg.render(field)[0, index], cmap="gray", vmin=0, vmax=220)
axes[1].set_title(f"rendered from {len(field):,} Gaussians")
axes[2].set(facecolor="black", xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim(), aspect=1)
axes[2].add_collection(
    EllipseCollection(
        *(diameters[:, 1], diameters[:, 0], angles),
        units="xy",
        offsets=middles[:, ::-1],
        offset_transform=axes[2].transData,
        facecolors=plt.cm.gray(0.1 + 0.9 * gray),
        edgecolors="orange",
        linewidths=0.3,
        alpha=0.8,
    )
)
axes[2].set_title(f"{near.sum()} Gaussians cut the slice")
for ax in axes:
    ax.set(xticks=[], yticks=[])
fig.savefig(folder / "gaussians_as_data.png", dpi=100, bbox_inches="tight")
