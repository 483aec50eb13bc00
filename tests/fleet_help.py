"""A fleet of fake machines: one toolchain and one compile log, a store for each worker."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from jitcache.sign.keys import parse_secret
from tests.fake_toolchain import compiles
from tests.fleet_driver import install

ROOT = Path(__file__).parent.parent
MANIFESTS = ("kimi-k2.5-mxfp4-tp2", "deepseek-r1-mxfp4-tp8", "qwen3-235b-a22b-bf16-tp4")
ACTIONS = 8
"""Of the smallest tiles of these manifests; 9 before what they share."""
SECRET = "ci:" + "A" * 43 + "="


@dataclass
class Fleet:
    """Where the machines are.

    Attributes:
        place: toolchain, plan, remote and stores.
        env: variables of every process.
        actions: of the plan, once there is one.
    """

    place: Path
    env: dict[str, str] = field(default_factory=dict)
    actions: int = 0

    def __post_init__(self) -> None:
        (self.place / "remote").mkdir(exist_ok=True)
        (self.place / "leases").mkdir(exist_ok=True)
        (self.place / "home").mkdir(exist_ok=True)

    @property
    def plan(self) -> Path:
        return self.place / "plan.json"

    def environ(self, store: str, **more: str) -> dict[str, str]:
        words = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place / "home"),
            "JITCACHE_DIR": str(self.place / store),
            "JITCACHE_REMOTES": f"rw:file://{self.place}/remote",
            "JITCACHE_SIGNING_KEY": SECRET,
            "JITCACHE_TRUSTED_KEYS": str(parse_secret(SECRET, where="test").public()),
            "JITCACHE_ALLOCATOR": "off",
        }
        return words | self.env | more

    def start(self, *words: str, store: str = "store", **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fleet_driver", str(self.place), *words],
            cwd=ROOT,
            env=self.environ(store, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, store: str = "store", code: int = 0, **more: str) -> Any:
        """Run a command in this process; its JSON, or its errors where it has to fail."""
        from jitcache.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environ(store, **more), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            install(self.place)
            with pytest.raises(SystemExit) as ended:
                main(list(words))
        assert ended.value.code == code, err.getvalue()
        return json.loads(out.getvalue()) if not code and out.getvalue() else err.getvalue()

    def make_plan(self, *manifests: str) -> None:
        told = self.run(
            *("plan", *manifests, "--block-m", "32", "--arch", "gfx950"),
            *("--scope", "inter-dim", "-o", str(self.plan), "--json"),
        )
        self.actions = told["actions"]

    def worker(self, *words: str, **how: Any) -> Any:
        return self.run("worker", "--plan", str(self.plan), "-j", "1", "--json", *words, **how)

    def start_worker(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        return self.start("worker", "--plan", str(self.plan), "-j", "1", "--json", *words, **how)

    def gather(self, **how: Any) -> Any:
        return self.run("gather", "--plan", str(self.plan), "--json", **how)

    def compiled(self) -> int:
        return len(compiles(self.place))
