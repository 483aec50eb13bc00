"""HTTP for remotes: bounded in time and size, and careful with credentials.

An answer is read up to a stated number of bytes and a deadline. A redirect is followed for
reading only, at most three times, never from TLS to plain HTTP; the Authorization header goes
to the origin it was meant for and to no other.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jitcache.remote.interface import Failed

_REDIRECTS = 3
_CHUNK = 1 << 18
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port."""

    scheme: str
    host: str
    port: int

    @property
    def confidential(self) -> bool:
        """Whether a password may be sent there: over TLS, or without leaving the machine."""
        return self.scheme == "https" or self.host in LOOPBACK

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read to its end; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class LocalError(Exception):
    """The file that should take an answer can't be written: nothing that a server did.

    Attributes:
        error: what happened.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Sent:
    """What stays the same over redirects: the arguments of `Transport.request`."""

    method: str
    body: bytes | Path | None
    length: int
    limit: int
    into: IO[bytes] | None


def split(url: str) -> tuple[Origin, str] | None:
    """Origin, and path with query; None for what is no plain http(s) URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        return None
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), (
        path
    )


class Transport:
    """Requests with a deadline; connections are kept for the next request.

    Args:
        timeout: seconds for one request, connecting and reading included.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}

    def __del__(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 1 << 20,
        into: IO[bytes] | None = None,
    ) -> Response | Failed:
        """Send a request.

        Args:
            method: `GET`, `HEAD`, `PUT` or `POST`.
            url: without user name and password.
            body: what to send, or the file that holds it.
            headers: besides those that HTTP needs.
            limit: most bytes to accept as the answer's body.
            into: file that takes the body of an answer 200, instead of memory.

        Raises:
            OSError: the file to send can't be opened.
            LocalError: `into` can't be written.
        """
        length = body.stat().st_size if isinstance(body, Path) else len(body or b"")
        size = max(limit if method == "GET" else 0, length)
        sent = Sent(method, body, length, limit, into)
        until = time.monotonic() + allowance(self._timeout, size)
        target = url
        wanted = dict(headers or {})
        first = split(url)
        for _ in range(_REDIRECTS + 1):
            parts = split(target)
            if parts is None or first is None:
                return Failed("denied", "the server redirects to something that is no http URL")
            origin, path = parts
            if origin != first[0]:
                wanted.pop("Authorization", None)
            if first[0].scheme == "https" and origin.scheme == "http":
                return Failed("denied", f"{first[0]} redirects from TLS to plain HTTP")
            got = self._once(sent, origin, path, wanted, until)
            if isinstance(got, Failed) or got.status not in {301, 302, 303, 307, 308}:
                return got
            if method not in {"GET", "HEAD"}:
                return Failed("denied", f"{origin} redirects a {method}; it isn't followed")
            target = urllib.parse.urljoin(target, got.headers.get("location", ""))
        return Failed("unavailable", f"{first[0] if first else ''} redirects in a circle")

    def _once(
        self,
        sent: Sent,
        origin: Origin,
        path: str,
        headers: Mapping[str, str],
        until: float,
    ) -> Response | Failed:
        idle = self._idle.setdefault(origin, [])
        kept = idle.pop() if idle else None
        if kept is not None:
            try:
                return self._exchange(kept, sent, origin, path, headers, until)
            except (OSError, http.client.HTTPException):
                # It may have been closed since: that says nothing about the server.
                kept.close()
        if time.monotonic() >= until:
            return Failed("unavailable", f"{origin}: no answer in time")
        fresh = _connect(origin, until)
        try:
            return self._exchange(fresh, sent, origin, path, headers, until)
        except (OSError, http.client.HTTPException) as e:
            fresh.close()
            return Failed("unavailable", f"{origin}: {_said(e)}")

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        sent: Sent,
        origin: Origin,
        path: str,
        headers: Mapping[str, str],
        until: float,
    ) -> Response | Failed:
        if connection.sock is not None:
            connection.sock.settimeout(_left(until))
        if isinstance(sent.body, Path):
            wanted = {**headers, "Content-Length": str(sent.length)}
            pieces = _pieces(sent.body, connection, until)
            connection.request(sent.method, path, body=pieces, headers=wanted)
        else:
            connection.request(sent.method, path, body=sent.body, headers=dict(headers))
        answer = connection.getresponse()
        stated = answer.headers.get("Content-Length", "")
        found = {k.lower(): v for k, v in answer.headers.items()}
        body: IO[bytes] = io.BytesIO()
        if sent.into is not None and answer.status == 200:
            body = sent.into
            body.seek(0)
            body.truncate()
        total = 0
        # An error's text may be longer than what was asked for.
        most = sent.limit if answer.status < 300 else max(sent.limit, 1 << 16)
        while chunk := answer.read(min(_CHUNK, most - total + 1)):
            try:
                body.write(chunk)
            except OSError as e:
                answer.close()
                connection.close()
                raise LocalError(e) from e
            total += len(chunk)
            if total > most:
                connection.close()
                return Failed("damaged", f"{origin} sends more than the {most} bytes expected")
            if connection.sock is not None:
                connection.sock.settimeout(_left(until))
            elif time.monotonic() > until:
                raise TimeoutError
        if sent.method != "HEAD" and stated.isdigit() and int(stated) != total:
            connection.close()
            return Failed("unavailable", f"{origin} sent {total} of {stated} bytes")
        if answer.will_close:
            connection.close()
        else:
            self._idle[origin].append(connection)
        return Response(
            answer.status, found, body.getvalue() if isinstance(body, io.BytesIO) else b""
        )


def allowance(timeout: float, size: int) -> float:
    """Seconds that a transfer may take: the timeout, and a second for each further MiB."""
    return timeout + size / (1 << 20)


def refusal(answer: Response, where: str) -> Failed:
    """What an answer that isn't success or absence means."""
    if answer.status in {401, 403, 405}:
        return Failed("denied", f"{where} refuses (HTTP {answer.status})")
    if answer.status in {408, 425, 429} or answer.status >= 500:
        return Failed("unavailable", f"{where} answers HTTP {answer.status}")
    return Failed("unsupported", f"{where} answers HTTP {answer.status}")


def _pieces(path: Path, connection: http.client.HTTPConnection, until: float) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as f:
        while chunk := f.read(_CHUNK):
            if connection.sock is not None:
                connection.sock.settimeout(_left(until))
            yield chunk


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(origin: Origin, until: float) -> http.client.HTTPConnection:
    timeout = max(0.001, until - time.monotonic())
    if origin.scheme == "http":
        return http.client.HTTPConnection(origin.host, origin.port, timeout=timeout)
    import ssl

    context = ssl.create_default_context()
    return http.client.HTTPSConnection(origin.host, origin.port, timeout=timeout, context=context)


def _said(e: Exception) -> str:
    if isinstance(e, TimeoutError):
        return "no answer in time"
    if isinstance(e, OSError):
        return e.strerror or type(e).__name__
    return f"not an HTTP answer ({type(e).__name__})"
