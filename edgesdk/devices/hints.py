"""Which wheel, by which command, gives a device the runtime it lacks.

The newest versions that have wheels, per interpreter and machine, as the package index answers
`pip index versions --only-binary=:all: --python-version V --platform manylinux...` for them.
None where there is no ceiling: the current release has a wheel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["runtime_hint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wheels:
    """A package's newest version by interpreter, ``(major, minor)``; None: the current."""

    package: str
    machines: tuple[str, ...]
    newest: Mapping[tuple[int, int], str | None]


_64_BIT = ("x86_64", "aarch64")
_ONNXRUNTIME = _Wheels(
    package="onnxruntime",
    machines=_64_BIT,
    newest={
        (3, 7): "1.14.1",
        (3, 8): "1.19.2",
        (3, 9): "1.19.2",
        (3, 10): "1.23.2",
        (3, 11): None,
    },
)
_LITERT = _Wheels(
    package="ai-edge-litert", machines=_64_BIT, newest={(3, 9): "2.1.0", (3, 10): None}
)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,254}\Z")
_TFLITE = _Wheels(
    package="tflite-runtime",
    machines=(*_64_BIT, "armv7l"),
    newest={
        (3, 7): "2.11.0",
        (3, 8): "2.14.0",
        (3, 9): "2.14.0",
        (3, 10): "2.14.0",
        (3, 11): "2.14.0",
    },
)
_OPENVINO = _Wheels(
    package="openvino",
    machines=_64_BIT,
    newest={(3, 8): "2024.4.0", (3, 9): "2025.2.0", (3, 10): None},
)
#: For each runtime the packages that provide it, best first.
_PACKAGES: Mapping[str, tuple[_Wheels, ...]] = {
    "onnxruntime": (_ONNXRUNTIME,),
    "litert": (_LITERT, _TFLITE),
    "openvino": (_OPENVINO,),
}
#: Packages whose support ended with an interpreter: newer ones get nothing from them.
_ENDED = {"tflite-runtime": (3, 11)}
_NOT_ON_INDEX: Mapping[str, str] = {
    "tensorrt": "TensorRT comes with the board's own image and not from the package index: "
    "install the image's tensorrt packages, and name the interpreter that sees them "
    "(?python=/usr/bin/python3)",
    "edgetpu": "install the delegate and runtime of the accelerator's vendor: "
    "`sudo apt-get install libedgetpu1-std python3-tflite-runtime` from its package source",
}


def _version(wheels: _Wheels, python: tuple[int, int], machine: str) -> tuple[bool, str | None]:
    """Say whether there is a wheel, and its version where it is not the current one."""
    last = _ENDED.get(wheels.package)
    if machine not in wheels.machines or (last is not None and python > last):
        return False, None
    below = [known for known in wheels.newest if known <= python]
    return (True, wheels.newest[max(below)]) if below else (False, None)


def _parse(python: str) -> tuple[int, int] | None:
    pieces = python.split(".")
    if len(pieces) < 2 or not all(piece.isascii() and piece.isdigit() for piece in pieces[:2]):
        return None
    return int(pieces[0]), int(pieces[1])


def runtime_hint(runtime: str, *, python: str, machine: str, executable: str = "") -> str:
    """Give the command that installs ``runtime`` on a device, or why there is none.

    Args:
        runtime: Its name on the wire: ``onnxruntime``, ``litert``, ``openvino``, ...
        python: The version of the interpreter the worker uses, such as ``3.7.16``.
        machine: What ``uname -m`` says there.
        executable: The path of that interpreter, if known.
    """
    if runtime in _NOT_ON_INDEX:
        return _NOT_ON_INDEX[runtime]
    version = _parse(python)
    if runtime not in _PACKAGES or version is None:
        return f"install {runtime or 'the runtime'} for the interpreter that the worker uses"
    # it is from the device and goes into a command that people copy: a plain path, or none
    plain = _PLAIN_PATH.match(executable) is not None
    interpreter = executable if plain else f"python{version[0]}.{version[1]}"
    for wheels in _PACKAGES[runtime]:
        there, newest = _version(wheels, version, machine)
        if there:
            pinned = f"{wheels.package}=={newest}" if newest else wheels.package
            return f"on the device: `{interpreter} -m pip install {pinned}`"
    names = " or ".join(wheels.package for wheels in _PACKAGES[runtime])
    return (
        f"there is no wheel of {names} for Python {version[0]}.{version[1]} on {machine}: "
        "name another interpreter of the device with python=, or build for another backend"
    )
