"""From a trace to numbers: displacement, its cause, over-optimization.

The names load on first use, so that reading one table does not import what fits another; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
