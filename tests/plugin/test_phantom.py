"""The synthetic head."""

import numpy as np
import pytest

from napari_medgs.data.phantom import INTENSITY, LABEL_NAMES, make_phantom
from napari_medgs.errors import ParameterError


def test_every_tissue_is_there_and_looks_as_it_should():
    head = make_phantom(3.0, noise=0)
    assert head.image.dtype == np.float32
    assert head.image.shape == head.labels.shape == head.grid.shape
    assert set(np.unique(head.labels)) == set(LABEL_NAMES)
    for value in (0, 1, 2, 5):
        median = float(np.median(head.image[head.labels == value]))
        assert median == pytest.approx(INTENSITY[value], rel=0.35)  # partial volume
    assert head.grid.spacing == pytest.approx((3, 3, 3))
    # The middle of the array is the origin of the world.
    np.testing.assert_allclose(
        head.grid.to_world((np.array(head.grid.shape) - 1) / 2), 0, atol=1e-9
    )


def test_seed_and_noise():
    first, again, other = make_phantom(6.0), make_phantom(6.0), make_phantom(6.0, seed=1)
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.labels != other.labels).any()
    clean = make_phantom(6.0, noise=0)
    np.testing.assert_array_equal(clean.labels, first.labels)
    inside = clean.labels == 5
    assert np.std((first.image - clean.image)[inside]) == pytest.approx(4.0, rel=0.1)


def test_anisotropic_spacing():
    head = make_phantom((8.0, 2.0, 2.0))
    assert head.grid.shape == (20, 108, 88)
    assert head.grid.coarsest_axis() == 0


@pytest.mark.parametrize("arguments", [{"spacing": 0.1}, {"spacing": np.nan}, {"noise": -1}])
def test_bad_arguments(arguments):
    with pytest.raises(ParameterError):
        make_phantom(**arguments)
