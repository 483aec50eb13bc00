"""jitcache: prebuild, cache and explain the GPU kernels that a deployment dispatches.

Importing this package costs next to nothing: it is on the start-up path of every
serving process, so it pulls in no torch, jinja2, click or msgspec (docs/design.md, D10).
"""

from typing import TYPE_CHECKING, Any

from jitcache._version import __version__

if TYPE_CHECKING:
    from jitcache.runtime.load import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from jitcache.runtime.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
