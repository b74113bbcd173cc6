"""Interactive medical segmentation with folded Gaussians: headless core and napari plugin.

Everything here is loaded when it is first used:

>>> import napari_medgs as mg
>>> head = mg.make_phantom(spacing=8.0)
>>> head.labels.shape
(20, 27, 22)
"""

from pathlib import Path as _Path

import lazy_loader as _lazy

from napari_medgs._util.numba_cache import choose_cache_folder as _choose_cache_folder

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

_choose_cache_folder(_Path(__file__).parent)
