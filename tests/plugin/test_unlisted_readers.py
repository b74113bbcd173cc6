"""Layers as readers make them that leave no record we know: masks say that their place is assumed.

The keyword arguments are those of napari-itk-io 0.4 (itk-napari-conversion 0.5),
napari-medical-image-formats 0.3, napari-tiff 0.1 and napari-ome-zarr 0.10.
"""

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_medgs.plugin import writer
from napari_medgs.plugin.export.jobs import place_warning
from napari_medgs.plugin.layer_frame import frame_of, geometry_kwargs
from napari_medgs.plugin.layer_orientation import is_assumed, place_metadata

VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
SPACING, ORIGIN = np.array([2.5, 0.9, 0.7]), np.array([55.0, -17, 31])  # z, y, x; LPS
COSINE, SINE = np.cos(0.3), np.sin(0.3)
TURNED = np.array([[1.0, 0, 0], [0, COSINE, -SINE], [0, SINE, COSINE]])


def itk_io(direction):
    """Return what itk-napari-conversion gives for an image: all in the order z, y, x."""
    record = {"origin": ORIGIN, "spacing": SPACING, "direction": direction}
    return {"metadata": record, "scale": SPACING, "translate": ORIGIN, "rotate": direction.T}


KINDS = {
    "napari-itk-io": itk_io(np.eye(3)),
    "napari-itk-io, oblique": itk_io(TURNED),
    # Its spacing and origin are in the order x, y, z of SimpleITK, those of napari are not.
    "napari-medical-image-formats": {
        "metadata": {"origin": ORIGIN[::-1], "spacing": SPACING[::-1], "direction": np.eye(3)},
        "scale": SPACING[::-1],
        "translate": ORIGIN[::-1],
    },
    "napari-tiff": {"scale": SPACING, "units": ["micrometer"] * 3, "axis_labels": list("zyx")},
    "napari-ome-zarr": {
        "scale": SPACING,
        "translate": ORIGIN,
        "units": ["micrometer"] * 3,
        "metadata": {"name": "scan"},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_say_that_their_place_is_assumed(tmp_path, kind, notes):
    image = Image(VALUES, name="scan", **KINDS[kind])
    assert is_assumed(frame_of(image).grid)
    mask = Labels((VALUES > 60).astype(np.uint8), name="painted", **geometry_kwargs(image),
                  metadata=place_metadata(image))  # fmt: skip
    out = str(tmp_path / "mask.nii.gz")
    data, meta, _ = mask.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data, meta) == [out]
    assert len(notes) == 1
    assert "not known" in notes[0][1]
    assert place_warning("mesh", mask) == notes[0][1]
    written = nib.load(out)
    assert {int(written.header[f"{form}_code"]) for form in ("sform", "qform")} <= {0, 2}
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, VALUES > 60)


def test_an_upright_itk_layer_overlays_on_its_source(tmp_path, notes):
    image = Image(VALUES, name="scan", **KINDS["napari-itk-io"])
    out = str(tmp_path / "scan.nii.gz")
    data, meta, _ = image.as_layer_data_tuple()
    assert writer.write_image_layer(out, data, meta) == [out]
    # Its world is LPS in the order z, y, x, which is what is assumed.
    z, y, x = ORIGIN
    right = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    right[:3, 3] = (-x, -y, z)
    np.testing.assert_allclose(nib.load(out).affine, right, atol=1e-4)
