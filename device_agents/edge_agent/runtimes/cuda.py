"""What little of the CUDA runtime it takes to run an engine, through ctypes.

No package is needed besides the ``libcudart`` that comes with CUDA. Names and numbers are those
of its documented C interface (https://docs.nvidia.com/cuda/cuda-runtime-api/).
"""

from __future__ import annotations

import ctypes
import glob
from typing import Any, Optional

from edge_agent.runtimes.base import RuntimeFailed

__all__ = ["Cuda", "open_cuda", "why_missing"]

#: As it is called where the linker finds it, then where CUDA's packages put it.
_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_PLACES = (
    "/usr/local/cuda/lib64/libcudart.so*",
    "/usr/local/cuda/targets/*/lib/libcudart.so*",
    "/usr/local/cuda-*/lib64/libcudart.so*",
)
_TO_DEVICE = 1
_TO_HOST = 2
_COMPUTE_MAJOR = 75
_COMPUTE_MINOR = 76
#: A cudaDeviceProp begins with the name, 256 bytes; all of it is smaller than this.
_PROPERTIES_BYTES = 16384


def _library() -> Any:
    """Load the library.

    Raises:
        OSError: It is nowhere.
    """
    first = None  # type: Optional[OSError]
    for name in list(_NAMES) + [path for place in _PLACES for path in sorted(glob.glob(place))]:
        try:
            return ctypes.CDLL(name)
        except OSError as exc:
            first = first or exc
    raise OSError("libcudart is not found: {}".format(first))


def why_missing() -> Optional[str]:
    """Say why no CUDA device can be used here, or None."""
    try:
        open_cuda()
    except RuntimeFailed as exc:
        return str(exc)
    return None


class Cuda:
    """The first CUDA device of this machine, which on a Jetson is the only one."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int(0)
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if count.value < 1:
            raise RuntimeFailed("CUDA sees no device")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            text = self._library.cudaGetErrorString(status) or b""
            raise RuntimeFailed(
                "{} failed: {} ({})".format(name, text.decode("utf-8", "replace"), status)
            )

    def device_name(self) -> str:
        """The GPU's name for itself, for example ``Orin``."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, ctypes.c_int(0))
        return properties.raw[:256].split(b"\0")[0].decode("utf-8", "replace")

    def compute_capability(self) -> str:
        """The GPU's architecture, for example ``8.7``."""
        found = []  # type: List[int]
        for attribute in (_COMPUTE_MAJOR, _COMPUTE_MINOR):
            value = ctypes.c_int(0)
            self._call(
                "cudaDeviceGetAttribute",
                ctypes.byref(value),
                ctypes.c_int(attribute),
                ctypes.c_int(0),
            )
            found.append(value.value)
        return "{}.{}".format(*found)

    def driver_version(self) -> int:
        """The newest CUDA that the driver knows: 12060 is 12.6."""
        value = ctypes.c_int(0)
        self._call("cudaDriverGetVersion", ctypes.byref(value))
        return value.value

    def runtime_version(self) -> int:
        """The version of the CUDA runtime itself."""
        value = ctypes.c_int(0)
        self._call("cudaRuntimeGetVersion", ctypes.byref(value))
        return value.value

    def allocate(self, nbytes: int) -> int:
        """Give the address of that much device memory.

        Raises:
            RuntimeFailed: There is not that much.
        """
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(1, nbytes)))
        assert pointer.value is not None
        return pointer.value

    def stream(self) -> int:
        """Make a stream; give its handle."""
        pointer = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(pointer))
        return pointer.value or 0

    def copy_in(self, address: int, host: int, nbytes: int, stream: int) -> None:
        """Begin to copy host memory to the device."""
        self._copy(address, host, nbytes, _TO_DEVICE, stream)

    def copy_out(self, host: int, address: int, nbytes: int, stream: int) -> None:
        """Begin to copy device memory to the host."""
        self._copy(host, address, nbytes, _TO_HOST, stream)

    def _copy(self, to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(nbytes),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def wait(self, stream: int) -> None:
        """Wait until all that was begun on a stream is done.

        Raises:
            RuntimeFailed: Something of it failed.
        """
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))


def open_cuda() -> Cuda:
    """Open the CUDA runtime.

    Raises:
        RuntimeFailed: There is none, or it sees no device.
    """
    try:
        return Cuda(_library())
    except (OSError, AttributeError) as exc:
        raise RuntimeFailed("CUDA cannot be used: {}".format(exc)) from exc
