"""Make surfaces in millimeters

The classes of a field become closed surfaces in RAS millimeters, at any resolution: the field is
continuous, so that slices of 4 mm give no steps. Volumes and areas come with the surfaces, which
are saved for other programs. For comparison the same mask is meshed voxel by voxel.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LightSource
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
# The ventricles (1) and the lesion (2) of a head with slices of 4 mm, image and mask in one field.
head = mg.make_phantom(spacing=(4.0, 2.0, 2.0))
mask = np.select([head.labels == 6, head.labels == 7], [1, 2], 0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
field = mg.fit(volume, mask=mask, class_names={1: "ventricles", 2: "lesion"}).field

# %%
blocks = mg.mesh(mask, head.grid, mg.MeshParams(smooth_mm=0.0))
smooth = mg.mesh(field, params=mg.MeshParams(spacing=1.0))
for label, name in ((1, "ventricles"), (2, "lesion")):
    voxels = (mask == label).sum() * head.grid.voxel_volume / 1000
    surface = smooth[label]
    print(
        f"{name}: {voxels:.2f} ml of voxels, {surface.volume / 1000:.2f} ml enclosed, "
        f"{surface.area / 100:.1f} square cm, {len(surface.faces)} faces"
    )
path = mg.save_meshes(folder / "brain.ply", smooth)

# %%
light = LightSource(azdeg=200, altdeg=50)
fig = plt.figure(figsize=(8, 3.5))
titles = ("mask, slices of 4 mm", "field, rendered every 1 mm")
for number, (title, meshes) in enumerate(zip(titles, (blocks, smooth)), 1):
    ax = fig.add_subplot(1, 2, number, projection="3d")
    for label, color in ((1, "deepskyblue"), (2, "tomato")):
        triangles = meshes[label].triangles
        ax.add_collection3d(
            Poly3DCollection(
                triangles, facecolors=color, shade=True, lightsource=light, antialiased=False
            )
        )
    corners = np.concatenate([m.bounds for m in smooth.values()])
    low, high = corners.min(axis=0), corners.max(axis=0)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    ax.set_box_aspect(high - low, zoom=1.15)
    ax.view_init(elev=35, azim=240)
    ax.set_axis_off()
    ax.set_title(title, fontsize=10, y=0.97)
fig.subplots_adjust(left=0, right=1, bottom=0, top=0.95, wspace=0)
fig.savefig(folder / "mesh_in_millimeters.png", dpi=90)
