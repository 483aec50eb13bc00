"""Device memory that holds given bytes for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from jitcache.runtime.hip import Hip


@contextlib.contextmanager
def held(hip: Hip, device: int, contents: Mapping[str, bytes]) -> Iterator[dict[str, int]]:
    """Buffers on a device, which is the thread's while the context lasts.

    Args:
        hip: the runtime.
        device: device index.
        contents: what each buffer holds at first.

    Yields:
        The address of each.

    Raises:
        HipError: there is no such device or not enough memory.
    """
    addresses: dict[str, int] = {}
    with hip.on_device(device):
        try:
            for name, data in contents.items():
                addresses[name] = hip.allocate(len(data))
                hip.write(addresses[name], data)
            yield addresses
        finally:
            for address in addresses.values():
                hip.free(address)
