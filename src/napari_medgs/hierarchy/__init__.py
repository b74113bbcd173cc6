"""The tree of parts: an image divided into nested regions, without training.

Everything here is imported when it is first used:

>>> from napari_medgs.hierarchy import PartParams
>>> PartParams(noise=2.0).noise
2.0
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
