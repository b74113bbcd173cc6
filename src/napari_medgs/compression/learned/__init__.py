"""Learned codecs for cohorts of similar fields: autoencoders on the parameters of Gaussians."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
