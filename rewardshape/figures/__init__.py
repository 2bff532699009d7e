"""Everything named that is drawn: each figure with its name, its caption, what it needs and how it is drawn.

The names load on first use; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
