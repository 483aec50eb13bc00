"""Run one compiler call of a build, measure it, and let nothing outlive its builder.

ninja starts this file with a bare interpreter (`python -I -S edge.py ...`): it uses the
standard library only and imports nothing of jitcache. It

- moves into its own process group and asks the kernel for a SIGTERM when ninja dies, so
  that a `kill -9` of the builder stops the compilers, and those the driver has started;
- appends a `start` and an `end` line to `events.jsonl` in the run directory, each in one
  write;
- measures wall time, and with `wait4` the CPU time and the peak memory of the compiler and
  of all processes it waited for;
- keeps stdout and stderr of the compiler in the diagnostics file;
- fails where a file that the compiler should have written is missing or empty.

Usage: `edge.py ID DIAGNOSTICS [--expect FILE]... [--env NAME=VALUE]... -- COMMAND...`
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

EVENTS = "events.jsonl"
BUILDER = "JITCACHE_BUILDER_PID"

IO_FAILED = 74
_PR_SET_PDEATHSIG = 1
_NO_SPACE = (b"No space left on device", b"Disk quota exceeded")
_TAIL = 1 << 16


def _die_with_parent(libc: ctypes.CDLL, sig: signal.Signals, parent: int) -> None:
    """Ask for `sig` when the parent dies; leave at once where it died before we asked."""
    libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _record(line: str) -> None:
    """Append one line to the events in one write."""
    data = line.encode() + b"\n"
    fd = os.open(EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(28, "No space left on device", EVENTS)
    finally:
        os.close(fd)


def _be_first_for_oom() -> None:
    """Where memory runs out, a compiler should go, not the process that serves or builds."""
    try:
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC), b"500")
    except OSError:
        return  # no /proc, or the score is already higher and may not be lowered


def _execute(libc: ctypes.CDLL, argv: list[str], env: dict[str, str], log: int) -> None:
    """Become the compiler; never returns."""
    try:
        parent = os.getpgrp()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Python ignores these two, and ignored signals would stay ignored in the compiler.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _die_with_parent(libc, signal.SIGKILL, parent)
        _be_first_for_oom()
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except OSError as e:
        os.write(2, f"error: cannot run {argv[0]}: {e.strerror}\n".encode())
    finally:
        os._exit(127)


def _wait(pid: int) -> tuple[int, float, int]:
    """Wait for the compiler: exit status (negative: signal), CPU seconds, peak bytes.

    The signals are blocked and taken one by one: none can get lost between a look and a
    blocking call. One that asks us to stop ends the whole process group, ourselves
    included, without asking the compilers.
    """
    while True:
        if signal.sigwait(_WAITED) != signal.SIGCHLD:
            os.killpg(0, signal.SIGKILL)
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            cpu = usage.ru_utime + usage.ru_stime
            return os.waitstatus_to_exitcode(status), cpu, usage.ru_maxrss * 1024


_WAITED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _disk_is_full(diagnostics: str) -> bool:
    """Whether a failure here has to do with a full disk: room left, or what was said."""
    room = os.statvfs(".")
    if room.f_bavail == 0 or (room.f_files > 0 and room.f_favail == 0):
        return True
    fd = os.open(diagnostics, os.O_RDONLY | os.O_CLOEXEC)
    tail = os.pread(fd, _TAIL, max(0, os.fstat(fd).st_size - _TAIL))
    os.close(fd)
    return any(text in tail for text in _NO_SPACE)


def _is_there(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - pathlib takes longer than the rest
    except OSError:
        return False


def _options(rest: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Expected files, extra environment and command."""
    expected: list[str] = []
    extra: dict[str, str] = {}
    while rest[0] != "--":
        if rest[0] == "--expect":
            expected.append(rest[1])
        else:
            name, _, value = rest[1].partition("=")
            extra[name] = value
        rest = rest[2:]
    return expected, extra, rest[1:]


def main(args: list[str]) -> int:
    """Run the command; its exit status, or 128 + the signal that killed it."""
    ident, diagnostics = args[:2]
    expected, extra, argv = _options(args[2:])
    libc = ctypes.CDLL(None)
    env = dict(os.environ)
    builder = env.pop(BUILDER, None)
    env.update(extra)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    if builder is not None:
        _die_with_parent(libc, signal.SIGTERM, int(builder))

    log = os.open(diagnostics, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    begin = time.monotonic()
    _record(f'{{"event":"start","id":"{ident}","at":{begin:.6f}}}')
    pid = os.fork()
    if pid == 0:
        _execute(libc, argv, env, log)
    status, cpu, peak = _wait(pid)
    wall = time.monotonic() - begin

    missing = ""
    if status == 0:
        for number, path in enumerate(expected):
            if not _is_there(path):
                missing = f',"missing":{number}'
                break
    failed = status != 0 or missing != ""
    full = int(failed and _disk_is_full(diagnostics))
    _record(
        f'{{"event":"end","id":"{ident}","at":{begin + wall:.6f},"wall":{wall:.6f},'
        f'"cpu":{cpu:.6f},"rss":{peak},"status":{status},"full":{full}{missing}}}'
    )
    if status < 0:
        return 128 - status
    return 1 if missing else status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.stderr.write(f"edge: {error}\n")
        sys.exit(IO_FAILED)
