"""Ctrl-C and SIGTERM while compilers run: remembered, and acted on between two events."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from jitcache.errors import ExitCode, JitcacheError


class Terminated(JitcacheError):  # noqa: N818 - an order, like KeyboardInterrupt
    """SIGTERM arrived; everything that was started has been stopped."""

    exit_code = ExitCode.TERMINATED


class Interrupts:
    """Hold SIGINT and SIGTERM back inside a `with` block.

    An exception in the middle of publishing an output helps nobody: the signal is noted,
    and the loop that runs the build asks for it. A second signal of a kind takes its usual
    way at once. Handlers that the program around us has set are left alone, and outside the
    main thread nothing can be set at all: use `stop` there.

    Attributes:
        received: the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, usual in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
                if signal.getsignal(number) == usual:
                    self._before[number] = usual
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, usual in self._before.items():
            signal.signal(number, usual)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if self.received is None:
            self.received = which
        signal.signal(which, self._before[which])

    def raise_received(self) -> None:
        """Raise what the signal means, if one came.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Terminated: SIGTERM.
        """
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise Terminated("terminated by SIGTERM")
