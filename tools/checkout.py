"""The checkout that a tool belongs to; importing this first makes the tool run in its environment.

Started by a Python that lacks jitcache's dependencies, a tool goes on in the virtual environment
that `tools/setup` made; where there is none, it says so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"

if importlib.util.find_spec("msgspec") is None:
    if not _PYTHON.exists() or Path(sys.prefix) == _PYTHON.parent.parent:
        sys.exit(f"{Path(sys.argv[0]).name}: run {ROOT}/tools/setup first")
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in a line what isn't installed here: what helpers of the tests skip a test for."""
    tool = Path(sys.argv[0]).name
    pytest = sys.modules.get("pytest")
    if pytest is not None and issubclass(kind, pytest.skip.Exception):
        sys.stderr.write(f"{tool}: {error}\n")
    elif getattr(error, "name", None) == "pytest":
        sys.stderr.write(f"{tool}: {error}: run {ROOT}/tools/setup --dev first\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell
