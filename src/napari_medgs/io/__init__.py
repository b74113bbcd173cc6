"""Files: images and masks of every supported kind, fields, meshes, splats and JSON.

Masks and images are written in the orientation and geometry of the file that they came from.
Everything here is imported when it is first used:

>>> import numpy as np
>>> from napari_medgs.io import compact_labels
>>> compact_labels(np.array([0.0, 1.0, 300.0])).dtype
dtype('int16')
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
