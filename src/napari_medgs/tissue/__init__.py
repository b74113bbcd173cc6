"""Tissue classes: an image divided by intensity, without training, on its Gaussians.

Everything here is imported when it is first used:

>>> from napari_medgs.tissue import TissueParams
>>> TissueParams(classes=3).classes
3
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
