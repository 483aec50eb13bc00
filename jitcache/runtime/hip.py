"""HIP's module interface through ctypes, on whatever libamdhip64 is there.

The library is opened when first asked for, and the one that the process already holds is
preferred: torch brings its own, and two HIP runtimes in one process know nothing of each
other's streams and memory.

Source of the numbers: hip_runtime_api.h (launch parameter codes, capture states, attributes) of
HIP 5.2 and 7.1, whose names and signatures are equal for the functions used here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jitcache.errors import ExitCode, JitcacheError

LIBRARY_VARIABLE = "JITCACHE_HIP_LIBRARY"
"""Path of the library to use instead of looking for one."""

_NAMES = ("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5")
# gcnArchName's offset in hipDeviceProp_t differs between HIP 5 and 6, so it is searched for,
# after the device's marketing name of 256 bytes.
_NAME_BYTES = 256
_PROPERTY_BYTES = 8192
_ARCH = re.compile(rb"gfx[0-9a-f]{3,5}(?:[:a-z0-9+-]*)\0")
_COMPUTE_UNITS = 63  # hipDeviceAttributeMultiprocessorCount
_INVALID_DEVICE_CODES = frozenset({100, 101})
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2

BUFFER_POINTER, BUFFER_SIZE, PARAMETERS_END = 1, 2, 3
"""HIP_LAUNCH_PARAM_BUFFER_POINTER, _SIZE and _END."""


class HipError(JitcacheError):
    """A HIP call failed.

    Attributes:
        name: HIP's name of the error, e.g. `hipErrorOutOfMemory`.
        code: its number.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, call: str, name: str, code: int, text: str, hint: str | None = None) -> None:
        super().__init__(f"{call} failed: {name} ({code}): {text}", hint=hint)
        self.name = name
        self.code = code


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No GPU can be used, and why.

    Attributes:
        reason: `no-runtime`: no libamdhip64 could be loaded; `no-device`: it finds no GPU;
            `forked`: HIP was used before this process was forked, which HIP doesn't survive.
        detail: what exactly, for people.
        hint: what to do about it.
    """

    reason: Literal["no-runtime", "no-device", "forked"]
    detail: str
    hint: str


class UnavailableError(JitcacheError):
    """`Unavailable`, for callers that can't go on.

    Attributes:
        why: the typed reason.
    """

    exit_code = ExitCode.UNSUPPORTED

    def __init__(self, why: Unavailable) -> None:
        super().__init__(why.detail, hint=why.hint)
        self.why = why


class Hip:
    """A loaded HIP runtime; `open_hip` gives the process's.

    Attributes:
        path: what was loaded.
        version: (major, minor) of the runtime.
    """

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self._lib = library
        self.path = path
        self._library_launch = library.hipModuleLaunchKernel
        self._library_launch.argtypes = (
            [ctypes.c_void_p]
            + [ctypes.c_uint] * 7
            + [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        )
        library.hipGetErrorName.restype = ctypes.c_char_p
        library.hipGetErrorString.restype = ctypes.c_char_p
        self._set_device = library.hipSetDevice
        self._get_device = library.hipGetDevice
        self._arches: dict[int, str] = {}
        number = ctypes.c_int()
        self._check("hipRuntimeGetVersion", library.hipRuntimeGetVersion(ctypes.byref(number)))
        self.version = (number.value // 10_000_000, number.value // 100_000 % 100)

    def device_count(self) -> int | Unavailable:
        """How many GPUs there are; none is an answer with a reason."""
        count = ctypes.c_int()
        code = self._lib.hipGetDeviceCount(ctypes.byref(count))
        if code == 0 and count.value > 0:
            return count.value
        said = self._name(code) if code else "a count of 0"
        return Unavailable(
            "no-device",
            f"the HIP runtime {self.version[0]}.{self.version[1]} finds no GPU ({said})",
            "check /dev/kfd and /dev/dri (their permissions, --device in a container)"
            " and HIP_VISIBLE_DEVICES",
        )

    def current_device(self) -> int:
        """The calling thread's device.

        Raises:
            HipError: HIP can't say.
        """
        device = ctypes.c_int()
        self._check("hipGetDevice", self._get_device(ctypes.byref(device)))
        return device.value

    @contextlib.contextmanager
    def on_device(self, device: int) -> Iterator[None]:
        """Make a device the calling thread's, and put the former one back.

        Raises:
            HipError: there is no such device.
        """
        before = self.current_device()
        if before == device:
            yield
            return
        self._check("hipSetDevice", self._set_device(device))
        try:
            yield
        finally:
            self._set_device(before)

    def arch(self, device: int) -> str:
        """Architecture of a device with its features, e.g. `gfx950:sramecc+:xnack-`.

        Raises:
            HipError: there is no such device, or its properties name no architecture.
        """
        if device not in self._arches:
            ask = getattr(self._lib, "hipGetDevicePropertiesR0600", None)
            name = "hipGetDevicePropertiesR0600"
            if ask is None:
                ask, name = self._lib.hipGetDeviceProperties, "hipGetDeviceProperties"
            properties = ctypes.create_string_buffer(_PROPERTY_BYTES)
            self._check(name, ask(properties, device))
            found = _ARCH.search(properties.raw, _NAME_BYTES)
            if found is None:
                raise HipError(name, "no gcnArchName", 0, "the properties name no architecture")
            self._arches[device] = found.group()[:-1].decode()
        return self._arches[device]

    def compute_units(self, device: int) -> int:
        """Compute units of a device, or of the partition of one that it is.

        Raises:
            HipError: there is no such device.
        """
        number = ctypes.c_int()
        code = self._lib.hipDeviceGetAttribute(ctypes.byref(number), _COMPUTE_UNITS, device)
        self._check("hipDeviceGetAttribute", code)
        return number.value

    def load_module(self, image: bytes) -> int:
        """Load a code object on the thread's device; the handle.

        Raises:
            HipError: HIP refuses it.
        """
        handle = ctypes.c_void_p()
        code = self._lib.hipModuleLoadData(ctypes.byref(handle), image)
        self._check("hipModuleLoadData", code)
        return handle.value or 0

    def function(self, module: int, symbol: str) -> int:
        """A kernel of a loaded module; the handle.

        Raises:
            HipError: the module has no such kernel.
        """
        handle = ctypes.c_void_p()
        code = self._lib.hipModuleGetFunction(
            ctypes.byref(handle), ctypes.c_void_p(module), symbol.encode()
        )
        self._check("hipModuleGetFunction", code)
        return handle.value or 0

    def launch(
        self,
        function: int,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        extra: int,
        stream: int,
    ) -> None:
        """Launch a kernel; the argument bytes are copied before this returns.

        Args:
            function: handle from `function`.
            grid: workgroups in x, y and z.
            block: threads per workgroup in x, y and z.
            extra: address of the launch parameters, see `launch_parameters`.
            stream: handle; 0 is the default stream.

        Raises:
            HipError: HIP refuses it.
        """
        code = self._library_launch(function, *grid, *block, 0, stream, None, extra)
        if code:
            self._check("hipModuleLaunchKernel", code)

    def clear(self, address: int, size: int, stream: int) -> None:
        """Set device memory to zero, in the stream's order.

        Raises:
            HipError: HIP refuses it.
        """
        code = self._lib.hipMemsetAsync(
            ctypes.c_void_p(address), 0, ctypes.c_size_t(size), ctypes.c_void_p(stream)
        )
        self._check("hipMemsetAsync", code)

    def read(self, address: int, size: int) -> bytes:
        """Copy device memory to the host; waits for the device.

        Raises:
            HipError: HIP refuses it.
        """
        buffer = ctypes.create_string_buffer(size)
        code = self._lib.hipMemcpy(
            buffer, ctypes.c_void_p(address), ctypes.c_size_t(size), _DEVICE_TO_HOST
        )
        self._check("hipMemcpy", code)
        return buffer.raw

    def write(self, address: int, data: bytes) -> None:
        """Copy host bytes to device memory.

        Raises:
            HipError: HIP refuses it.
        """
        code = self._lib.hipMemcpy(
            ctypes.c_void_p(address), data, ctypes.c_size_t(len(data)), _HOST_TO_DEVICE
        )
        self._check("hipMemcpy", code)

    def allocate(self, size: int) -> int:
        """Device memory; its address.

        Raises:
            HipError: there isn't enough.
        """
        address = ctypes.c_void_p()
        self._check("hipMalloc", self._lib.hipMalloc(ctypes.byref(address), ctypes.c_size_t(size)))
        return address.value or 0

    def free(self, address: int) -> None:
        """Give device memory back.

        Raises:
            HipError: it isn't an allocation.
        """
        self._check("hipFree", self._lib.hipFree(ctypes.c_void_p(address)))

    def capturing(self, stream: int) -> bool:
        """Whether the stream is being captured into a graph (an ended capture counts, too)."""
        status = ctypes.c_int()
        code = self._lib.hipStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
        # The default stream can't be asked while another one captures; the error says so.
        return code != 0 or status.value != 0

    def _name(self, code: int) -> str:
        name: bytes | None = self._lib.hipGetErrorName(code)
        return (name or b"an unknown error").decode()

    def _check(self, call: str, code: int) -> None:
        if code == 0:
            return
        text: bytes | None = self._lib.hipGetErrorString(code)
        hint = None
        if code in _INVALID_DEVICE_CODES:
            hint = "the device doesn't exist or isn't visible: see HIP_VISIBLE_DEVICES"
        raise HipError(call, self._name(code), code, (text or b"").decode(), hint)


def launch_parameters(kernarg: int, size: ctypes.c_size_t) -> ctypes.Array[ctypes.c_void_p]:
    """HIP's `extra` array that names an argument buffer and its size.

    Args:
        kernarg: address of the bytes.
        size: their number; read at the launch, so it may change between launches.
    """
    return (ctypes.c_void_p * 5)(
        BUFFER_POINTER, kernarg, BUFFER_SIZE, ctypes.addressof(size), PARAMETERS_END
    )


_guard = threading.Lock()
_opened: Hip | Unavailable | None = None


def open_hip() -> Hip | Unavailable:
    """The HIP runtime of this process, loaded once."""
    global _opened
    if _opened is None:
        with _guard:
            if _opened is None:
                _opened = _open()
    return _opened


def require_hip() -> Hip:
    """The HIP runtime of this process.

    Raises:
        UnavailableError: there is none, or it finds no GPU.
    """
    hip = open_hip()
    if isinstance(hip, Unavailable):
        raise UnavailableError(hip)
    count = hip.device_count()
    if isinstance(count, Unavailable):
        raise UnavailableError(count)
    return hip


def _open() -> Hip | Unavailable:
    tried = []
    for name in _candidates():
        try:
            return Hip(ctypes.CDLL(name), name)
        except OSError as e:
            tried.append(f"{name}: {e}")
        except AttributeError as e:
            tried.append(f"{name}: not a usable HIP runtime ({e})")
        except HipError as e:
            tried.append(f"{name}: {e.what}")
    return Unavailable(
        "no-runtime",
        "no HIP runtime could be loaded: " + "; ".join(tried),
        f"install ROCm's runtime, or name the library in {LIBRARY_VARIABLE}",
    )


def _candidates() -> list[str]:
    if own := os.environ.get(LIBRARY_VARIABLE):
        return [own]
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123
        for line in maps:
            path = "/" + line.rstrip("\n").partition("/")[2]
            if "/libamdhip64" in path:
                return [path]
    root = os.environ.get("ROCM_PATH", "/opt/rocm")
    return [*_NAMES, f"{root}/lib/libamdhip64.so"]


def _after_fork() -> None:
    global _opened, _guard
    _guard = threading.Lock()
    if isinstance(_opened, Hip):
        _opened = Unavailable(
            "forked",
            "HIP was used before this process was forked, and a forked process can't use it",
            "start workers with the `spawn` method, or fork before the first launch",
        )


os.register_at_fork(after_in_child=_after_fork)
