"""`http(s)://`: a WebDAV server, or anything that answers GET and takes PUT.

Creation asks with `If-None-Match: *`. Servers that ignore it (nginx does) are looked at with
HEAD before, which leaves a gap; `jitcache remote check` tells.
"""

from __future__ import annotations

import os
import urllib.parse

from jitcache.errors import InputError
from jitcache.remote.credentials import find
from jitcache.remote.interface import Absent, Exists, Failed, Found, Got, Put, Stored
from jitcache.remote.transport import Transport, refusal, split


class HttpObjects:
    """Objects below a URL.

    Args:
        url: the base, without credentials.
        timeout: seconds for one request.

    Raises:
        InputError: the URL isn't one, or a password would be sent without TLS.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = split(url)
        if parts is None:
            raise InputError("is not an http URL", where="a remote's url")
        self._origin = parts[0]
        self._base = url.rstrip("/")
        self._transport = Transport(timeout)
        self._headers: dict[str, str] = {}
        credentials = find(urllib.parse.urlsplit(url).netloc)
        if credentials is not None:
            if not self._origin.confidential:
                raise InputError(
                    "no password is sent without TLS", where=str(self._origin), hint="use https"
                )
            self._headers["Authorization"] = credentials.basic()

    def get(self, path: str, limit: int) -> Got:
        """GET; 404 and 410 mean absence, and nothing else does."""
        got = self._transport.request(
            "GET", f"{self._base}/{path}", headers=self._headers, limit=limit
        )
        if isinstance(got, Failed):
            return got
        if got.status in {404, 410}:
            return Absent()
        return Found(got.body) if got.status == 200 else refusal(got, str(self._origin))

    def put(self, path: str, data: bytes) -> Put:
        """PUT, unless it is there."""
        url = f"{self._base}/{path}"
        there = self._transport.request("HEAD", url, headers=self._headers)
        if isinstance(there, Failed):
            return there
        if there.status == 200:
            return Exists()
        return self._create(url, data)

    def _create(self, url: str, data: bytes) -> Put:
        done = self._transport.request(
            "PUT", url, body=data, headers={**self._headers, "If-None-Match": "*"}
        )
        if isinstance(done, Failed):
            return done
        if done.status == 412:
            return Exists()
        return Stored() if done.status in {200, 201, 204} else refusal(done, str(self._origin))

    def creates_once(self) -> bool | Failed:
        """Tried out, without looking before the second PUT."""
        url = f"{self._base}/probe/{os.urandom(16).hex()}"
        for put in (self._create(url, b"first"), second := self._create(url, b"second")):
            if isinstance(put, Failed):
                return put
        return isinstance(second, Exists)
