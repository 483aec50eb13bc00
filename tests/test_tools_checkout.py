"""tools/checkout.py: what tools say where something isn't installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def say(code: str) -> subprocess.CompletedProcess[str]:
    """Run a tool that does this."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[0] = 'tools'; import checkout\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "from tests.remote_servers import needs; needs('sh', 'no-such-program')",
            "no-such-program is not installed (tools/setup --dev installs it)",
        ),
        (
            "sys.modules['pytest'] = None; from tests import remote_servers",
            f"{ROOT}/tools/setup --dev first",
        ),
    ],
)
def test_what_is_missing_is_one_line_and_no_traceback(code: str, said: str) -> None:
    done = say(code)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("-c: ")
    assert line.endswith(said)


def test_any_other_error_keeps_its_traceback() -> None:
    done = say("1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback ")
