"""Interactive segmentation: prompts, the solver on the graph of Gaussians, results, sessions."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
