"""Render fields on grids, as labels and at points, with the backend of choice."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
