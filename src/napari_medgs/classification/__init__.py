"""Classification of small images and volumes: networks on Gaussians, training, prediction.

Research software: what a classifier says is no diagnosis.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
