"""jitcache: prebuild, cache and explain the GPU kernels that a deployment dispatches.

Importing this package costs next to nothing: it is on the start-up path of every
serving process, so it pulls in no torch, jinja2, click or msgspec (docs/design.md, D10).
"""

from jitcache._version import __version__

__all__ = ["__version__"]
