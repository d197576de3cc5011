"""Building an engine with NVIDIA's ``trtexec``, whichever age it is of.

TensorRT 8 and 10 are told the precisions they may use by flags; from 11 on the types are in
the graph and the flags are gone; others were renamed. What a program knows is read from its own
help, so that no list of versions has to be kept here
(https://docs.nvidia.com/deeplearning/tensorrt/latest/ has a page of migrations for trtexec).
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from typing import Any, Callable, List, Optional, Set, Tuple

from edge_agent.runtimes.base import RuntimeFailed

__all__ = ["BuildJob", "Dialect", "build_with_trtexec", "find_trtexec", "read_dialect"]

#: Where JetPack puts it, which is not on PATH.
_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
_HELP_S = 60.0
_MAX_HELP_BYTES = 1 << 20
_KEPT_LINES = 400
_MAX_LINE_BYTES = 2000
_BANNER = re.compile(r"\[TensorRT v(\d{4,6})\]")
_FLAG = re.compile(r"(--[A-Za-z]\w*)")
_REPORT_S = 1.0


class BuildJob:
    """What an engine is built from, and how.

    Attributes:
        model: Path of the ONNX file.
        calibration: Path of a calibration cache, or None.
        precision: What the part was converted to: ``fp32``, ``fp16`` or ``int8``.
        dla_core: The DLA core it is for, or None for the GPU.
        workspace_mib: What the builder may use for trying kernels, or 0 for its own choice.
        folder: Where the engine and all other files go.
        timing_cache: Path of timings of kernels from earlier builds, in ``folder``.
        deadline: By `time.monotonic`.
        report: Told what is being done.
    """

    def __init__(
        self,
        model: str,
        calibration: Optional[str],
        precision: str,
        dla_core: Optional[int],
        *,
        workspace_mib: int,
        folder: str,
        deadline: float,
        report: Callable[[str], None],
    ) -> None:
        self.model = model
        self.calibration = calibration
        self.precision = precision
        self.dla_core = dla_core
        self.workspace_mib = workspace_mib
        self.folder = folder
        self.engine = os.path.join(folder, "engine")
        self.timing_cache = os.path.join(folder, "timing.cache")
        self.deadline = deadline
        self.report = report

    def flags_of_precision(self) -> List[str]:
        """Give the precisions a weakly typed build is allowed: all that the graph has.

        A DLA computes in nothing else, so what it cannot do in 8 bits it does in half.
        """
        wanted = []
        if self.precision == "fp16" or self.dla_core is not None:
            wanted.append("fp16")
        if self.precision == "int8":
            wanted.append("int8")
        return wanted


class Dialect:
    """What a trtexec says of itself: its version, where it tells, and the flags it knows."""

    def __init__(self, version: Optional[Tuple[int, ...]], flags: Set[str]) -> None:
        self.version = version
        self.flags = flags

    @property
    def is_strongly_typed(self) -> bool:
        """Say whether types are in the graph only."""
        return "--fp16" not in self.flags

    def text(self) -> str:
        """The version for people."""
        return ".".join(str(n) for n in self.version) if self.version else "of unknown version"


def find_trtexec() -> Optional[str]:
    """Where the program is, or None."""
    places = [os.path.join(folder, "trtexec") for folder in os.get_exec_path()]
    for path in places + list(_PLACES):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _version(digits: str) -> Tuple[int, ...]:
    """Read the number in the banner: 8502 is 8.5.2, 100300 is 10.3.0."""
    number = int(digits)
    big = 10000 if len(digits) > 4 else 1000
    return number // big, number % big // 100, number % 100


def read_dialect(trtexec: str) -> Dialect:
    """Ask the program for its help.

    Raises:
        RuntimeFailed: It cannot be run, hangs, or gives no help.
    """
    try:
        done = subprocess.run(
            [trtexec, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_HELP_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeFailed(
            "{} --help does not end within {:g} s".format(trtexec, _HELP_S)
        ) from None
    except OSError as exc:
        raise RuntimeFailed(
            "{} cannot be run: {}".format(trtexec, exc.strerror or exc)
        ) from exc
    text = done.stdout[:_MAX_HELP_BYTES].decode("utf-8", "replace")
    flags = set(_FLAG.findall(text))
    if not {"--onnx", "--saveEngine"} <= flags:
        raise RuntimeFailed(
            "{} --help names no --onnx and --saveEngine (it ended with status {}): is it "
            "TensorRT's?".format(trtexec, done.returncode)
        )
    banner = _BANNER.search(text)
    return Dialect(_version(banner.group(1)) if banner else None, flags)


def command(trtexec: str, dialect: Dialect, job: BuildJob) -> List[str]:
    """Give the command line in the program's dialect.

    Raises:
        RuntimeFailed: It cannot do what the part needs.
    """
    line = [trtexec, "--onnx=" + job.model, "--saveEngine=" + job.engine]
    line.append(_first(dialect, ["--skipInference", "--buildOnly"]))
    if "--timingCacheFile" in dialect.flags:
        line.append("--timingCacheFile=" + job.timing_cache)
    if "--profilingVerbosity" in dialect.flags:
        line.append("--profilingVerbosity=detailed")
    if job.workspace_mib and "--memPoolSize" in dialect.flags:
        line.append("--memPoolSize=workspace:{}".format(job.workspace_mib))
    if not dialect.is_strongly_typed:
        line += ["--" + name for name in job.flags_of_precision()]
        if job.calibration is not None:
            line.append("--calib=" + job.calibration)
    elif job.calibration is not None:
        raise RuntimeFailed(
            "trtexec {} takes no calibration cache: its types are in the graph".format(
                dialect.text()
            )
        )
    if job.dla_core is not None:
        if not {"--useDLACore", "--allowGPUFallback"} <= dialect.flags:
            raise RuntimeFailed("trtexec {} builds nothing for a DLA".format(dialect.text()))
        line += ["--useDLACore={}".format(job.dla_core), "--allowGPUFallback"]
    return line


def _first(dialect: Dialect, names: List[str]) -> str:
    for name in names:
        if name in dialect.flags:
            return name
    raise RuntimeFailed(
        "trtexec {} cannot build without running: it knows none of {}".format(
            dialect.text(), ", ".join(names)
        )
    )


class _Output:
    """The last lines of what a program prints, read as it prints them; bounded."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.lines = []  # type: List[str]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while True:
            data = os.read(self._pipe.fileno(), 1 << 16)
            if not data:
                break
            pieces = (rest + data).split(b"\n")
            rest = pieces.pop()[-_MAX_LINE_BYTES:]
            self._add(pieces)
        self._add([rest] if rest else [])

    def _add(self, pieces: List[bytes]) -> None:
        texts = [_plain(piece[:_MAX_LINE_BYTES]) for piece in pieces[-_KEPT_LINES:]]
        self.lines = (self.lines + [text for text in texts if text])[-_KEPT_LINES:]

    def finish(self) -> List[str]:
        self._thread.join(timeout=5)
        return self.lines


def _plain(data: bytes) -> str:
    """Turn bytes of any kind into text that can be shown."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _reason(lines: List[str]) -> str:
    """Pick what explains a failure out of the program's output."""
    errors = [line.partition("[E]")[2].strip() for line in lines if "[E]" in line]
    chosen = errors[-3:] or [line for line in lines if not line.startswith("&&&&")][-1:]
    text = "; ".join(line for line in chosen if line)
    return (text or "it printed nothing")[:600]


def build_with_trtexec(trtexec: str, dialect: Dialect, job: BuildJob) -> None:
    """Build; the engine lies at ``job.engine`` afterwards.

    Raises:
        RuntimeFailed: It failed, crashed, took too long, or left no engine.
    """
    line = command(trtexec, dialect, job)
    try:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=job.folder,
        )
    except OSError as exc:
        raise RuntimeFailed(
            "{} cannot be run: {}".format(trtexec, exc.strerror or exc)
        ) from exc
    output = _Output(process.stdout)
    began = time.monotonic()
    try:
        status = _wait(process, job, began)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        lines = output.finish()
        assert process.stdout is not None
        process.stdout.close()
    if status is None:
        raise RuntimeFailed(
            "trtexec was stopped: it took longer than {:.0f} s; its last words: {}".format(
                time.monotonic() - began, _reason(lines)
            )
        )
    if status != 0:
        how = "signal {}".format(-status) if status < 0 else "status {}".format(status)
        raise RuntimeFailed("trtexec ended with {}: {}".format(how, _reason(lines)))
    try:
        size = os.stat(job.engine).st_size
    except OSError:
        size = 0
    if not size:
        raise RuntimeFailed(
            "trtexec says that it is done and left no engine: {}".format(_reason(lines))
        )


def _wait(process: Any, job: BuildJob, began: float) -> Optional[int]:
    """Give the exit status, or None when time is up."""
    while True:
        left = job.deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            return int(process.wait(timeout=min(left, _REPORT_S)))
        except subprocess.TimeoutExpired:
            job.report("building for {:.0f} s".format(time.monotonic() - began))
