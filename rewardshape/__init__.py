"""Reward shape and likelihood displacement in direct alignment.

The public names stand in ``__init__.pyi``, where type checkers read them. They load on first use, so
``import rewardshape`` needs neither torch nor matplotlib.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
