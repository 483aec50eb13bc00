"""`s3://`, `gs://` and `az://` through obstore, which the extra `s3` installs.

Credentials and endpoint are those of the cloud's own variables (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, ...). obstore retries for three minutes by itself; that is turned off,
because `jitcache.remote.chain` bounds what a remote may cost.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from jitcache.errors import InputError
from jitcache.remote.interface import Absent, Exists, Failed, Found, Got, Put, Stored
from jitcache.remote.keyed import try_twice


class BucketObjects:
    """Objects of a bucket, below a prefix.

    Args:
        url: `s3://bucket/prefix`.
        timeout: seconds for one request.

    Raises:
        InputError: obstore isn't installed, or refuses the URL or its settings.
    """

    def __init__(self, url: str, timeout: float) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError:
            raise InputError(
                "buckets need the package obstore", hint="pip install 'jitcache[s3]'"
            ) from None
        self._obstore: Any = obstore
        self._where = url.partition("://")[2].partition("/")[0]
        options: dict[str, Any] = {
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=timeout),
        }
        settings: dict[str, Any] = {}
        if url.startswith("s3:") and os.environ.get("AWS_ENDPOINT_URL", "").startswith("http:"):
            options["allow_http"] = True
            settings["virtual_hosted_style_request"] = False
        try:
            self._store: Any = from_url(
                url,
                client_options=options,  # type: ignore[call-overload]
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout)},
                **settings,
            )
        except Exception as e:  # noqa: BLE001 -- obstore's errors share no base class
            raise InputError(
                f"the bucket can't be opened ({type(e).__name__})",
                where=self._where,
                hint="it takes the variables of its cloud, and the system's CA certificates"
                " (in a small image: the package ca-certificates)",
            ) from None

    def get(self, path: str, limit: int) -> Got:
        """Get an object, if it isn't larger than it may be."""
        try:
            got = self._obstore.get(self._store, path)
            if got.meta["size"] > limit:
                return Failed("damaged", f"{self._where} has more than {limit} bytes there")
            return Found(bytes(got.bytes()))
        except FileNotFoundError:
            return Absent()
        except Exception as e:  # noqa: BLE001
            return self._failed(e)

    def put(self, path: str, data: bytes) -> Put:
        """Create an object, if the server knows how to."""
        try:
            self._obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except self._obstore.exceptions.AlreadyExistsError:
            return Exists()
        except Exception as e:  # noqa: BLE001
            return self._failed(e)
        return Stored()

    def creates_once(self) -> bool | Failed:
        """Tried out: some servers take the condition and ignore it."""
        return try_twice(self, f"probe/{os.urandom(16).hex()}")

    def _failed(self, e: Exception) -> Failed:
        # obstore's messages hold whole URLs and answers, so only the kind is said.
        name = type(e).__name__
        if name in {"PermissionDeniedError", "UnauthenticatedError"}:
            return Failed("denied", f"{self._where} refuses ({name})")
        if name in {"NotImplementedError", "NotSupportedError"}:
            return Failed("unsupported", f"{self._where} can't do this ({name})")
        return Failed("unavailable", f"{self._where}: {name}")
