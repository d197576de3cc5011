"""A stand-in for NVIDIA's ``trtexec``, in the dialects of TensorRT 8.5, 8.6, 10 and 11.

It knows the flags that the documented command line of each has, refuses all others as the real
one does, and builds an engine that the ``tensorrt`` stand-in runs. FAKE_TRTEXEC makes
it misbehave: ``hang``, ``crash``, ``rubbish``, ``fail``, ``truncate``, ``silent`` or
``slow:SECONDS``. FAKE_TRTEXEC_LOG names a file to which every command line is appended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

_EVERYWHERE = """
onnx saveEngine loadEngine device verbose help memPoolSize timingCacheFile profilingVerbosity
minShapes optShapes maxShapes shapes iterations warmUp duration noDataTransfers
dumpProfile exportProfile separateProfileRun dumpLayerInfo exportLayerInfo exportTimes
builderOptimizationLevel sparsity
"""
#: Flags that came and went, by the first version that has them and the first that has not.
_SOMEWHERE = {
    "buildOnly": ((8, 4), (10, 0)),
    "skipInference": ((8, 6), (99, 0)),
    "workspace": ((8, 0), (10, 0)),
    "fp16": ((8, 0), (11, 0)),
    "int8": ((8, 0), (11, 0)),
    "best": ((8, 0), (11, 0)),
    "fp8": ((8, 6), (11, 0)),
    "bf16": ((10, 0), (11, 0)),
    "int4": ((10, 0), (11, 0)),
    "calib": ((8, 0), (11, 0)),
    "precisionConstraints": ((8, 2), (11, 0)),
    "stronglyTyped": ((10, 0), (99, 0)),
    "useDLACore": ((8, 0), (11, 0)),
    "allowGPUFallback": ((8, 0), (11, 0)),
}


def _version() -> tuple[int, ...]:
    text = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0")
    return tuple(int(number) for number in text.split("."))


def _known(version: tuple[int, ...]) -> list[str]:
    names = _EVERYWHERE.split()
    names += [name for name, (first, gone) in _SOMEWHERE.items() if first <= version[:2] < gone]
    return [f"--{name}" for name in sorted(names)]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _stamp(level: str, text: str) -> None:
    _say(time.strftime("[%m/%d/%Y-%H:%M:%S] ") + f"[{level}] {text}")


def _end(word: str, banner: str, status: int) -> NoReturn:
    _say(f"&&&& {word} {banner}")
    sys.exit(status)


def _help(version: tuple[int, ...]) -> None:
    _say("=== Model Options ===")
    for name in _known(version):
        _say(f"  {name:<30} (see the documentation)")


def _misbehave(manner: str, banner: str) -> None:
    if manner == "hang":
        _stamp("I", "[TRT] Local timing cache in use. Profiling results in this builder pass")
        time.sleep(3600)
    elif manner == "crash":
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif manner == "rubbish":
        sys.stdout.buffer.write(os.urandom(1 << 16) + b"\x1b[31m\xff\xfe\0 no newline")
        sys.stdout.flush()
        sys.exit(0)
    elif manner == "silent":
        sys.exit(0)
    elif manner == "fail":
        _stamp("E", "Error[10]: Could not find any implementation for node Conv_0.")
        _stamp("E", "Engine could not be created from network")
        _end("FAILED", banner, 1)
    elif manner.startswith("slow:"):
        time.sleep(float(manner.partition(":")[2]))


def main(arguments: list[str]) -> NoReturn:
    """Do what the command line says."""
    version = _version()
    shown = (
        "{}{:02d}{:02d}".format(*version) if version[0] >= 10 else "{}{}{:02d}".format(*version)
    )
    banner = f"TensorRT.trtexec [TensorRT v{shown}] # {' '.join(['trtexec', *arguments])}"
    _say(f"&&&& RUNNING {banner}")
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if "--help" in given or not given:
        _help(version)
        sys.exit(0)
    log = os.environ.get("FAKE_TRTEXEC_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(" ".join(arguments) + "\n")
    unknown = [name for name in given if name not in _known(version)]
    if unknown:
        for name in unknown:
            _stamp("E", f"Unknown option: {name} {given[name]}")
        _help(version)
        _end("FAILED", banner, 1)
    manner = os.environ.get("FAKE_TRTEXEC", "")
    _misbehave(manner, banner)
    _stamp("I", f"TensorRT version: {'.'.join(str(number) for number in version)}")
    _build(given, banner, truncated=manner == "truncate")
    _end("PASSED", banner, 0)


def _build(given: dict[str, str], banner: str, *, truncated: bool) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import fake_plans  # type: ignore[import-not-found]  # the file beside this one

    calibration, core = given.get("--calib"), given.get("--useDLACore")
    try:
        engine = fake_plans.pack_engine(
            given.get("--onnx", ""),
            flags={name for name in ("fp16", "int8") if f"--{name}" in given},
            dla_core=int(core) if core else None,
            calibration=Path(calibration).read_bytes() if calibration else None,
        )
    except (ValueError, OSError) as exc:
        _stamp("E", f"[TRT] {exc}")
        _stamp("E", "Engine set up failed")
        _end("FAILED", banner, 1)
    target = Path(given["--saveEngine"])
    # in two halves, so that a kill between them leaves half a file
    target.write_bytes(engine[: len(engine) // 2])
    if not truncated:
        time.sleep(float(os.environ.get("FAKE_TRTEXEC_PAUSE_S", "0")))
        target.write_bytes(engine)
    if "--timingCacheFile" in given:
        Path(given["--timingCacheFile"]).write_bytes(b"timings")


if __name__ == "__main__":
    main(sys.argv[1:])
