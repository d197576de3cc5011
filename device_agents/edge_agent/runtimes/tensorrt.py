"""TensorRT: engines that `finish` builds on the device, and `load` finds and runs.

Options: ``precision`` (what the part was converted to), ``dla`` (a core's number; without it
the GPU), ``cache_dir``. A part's files are an ONNX file, perhaps its weights, perhaps a
calibration cache. Loading never builds: where there is no engine for this GPU, driver and
TensorRT it fails and says which there is, and a fallback of the part runs.

The interface by tensor names exists since TensorRT 8.5, the oldest that a supported image has.
Nothing of this has run on an NVIDIA device yet.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.engines import NONE_YET, Engines, fingerprint_id
from edge_agent.runtimes import cuda, trtexec
from edge_agent.runtimes.base import Part, RuntimeFailed, whole_number
from edge_agent.runtimes.trtexec import BuildJob
from edge_agent.runtimes.trtpart import TensorrtPart, deserialize, package, read_file

__all__ = ["finish", "load", "module_file", "version", "why_missing"]

_PRECISIONS = ("fp32", "fp16", "int8")
#: The builder may try kernels in this share of the memory that is free: what serves meanwhile
#: lives in the same memory.
_WORKSPACE_SHARE = 0.5
_MIN_WORKSPACE_MIB = 64


def why_missing() -> Optional[str]:
    """Say why no engine can be run here, or None."""
    try:
        package()
    except RuntimeFailed as exc:
        program = trtexec.find_trtexec()
        if program is None:
            return "neither the tensorrt package nor trtexec is here: {}".format(exc)
        return (
            "{} builds engines, but the tensorrt package that runs them is missing: {}".format(
                program, exc
            )
        )
    return cuda.why_missing()


def version() -> str:
    """The installed version."""
    return str(package().__version__)


def module_file() -> str:
    """Where the package is installed."""
    return str(package().__file__)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline(300).strip()
    except OSError:
        return ""


def _l4t() -> str:
    """The release of Jetson Linux, with which drivers come; empty elsewhere."""
    line = _first_line("/etc/nv_tegra_release")
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", line)
    return "{}.{}".format(*found.groups()) if found else line


def _wanted(options: Dict[str, Any]) -> Tuple[str, Optional[int]]:
    """Read the part's precision and DLA core out of its options."""
    precision = options.get("precision", "fp32")
    if precision not in _PRECISIONS:
        raise RuntimeFailed("option precision is {!r}".format(precision))
    core = whole_number(options, "dla") if "dla" in options else None
    return str(precision), core


def fingerprint(
    device: cuda.Cuda, part: Dict[str, Any], options: Dict[str, Any]
) -> Dict[str, Any]:
    """Everything an engine depends on; units of the same kind give the same."""
    precision, core = _wanted(options)
    return {
        "model": list(part.get("sha256", [])),
        "precision": precision,
        "dla_core": core,
        "gpu": device.device_name(),
        "compute_capability": device.compute_capability(),
        "tensorrt": version(),
        "driver": device.driver_version(),
        "cuda": device.runtime_version(),
        "l4t": _l4t(),
    }


def _cache(options: Dict[str, Any]) -> str:
    folder = options.get("cache_dir")
    if not isinstance(folder, str):
        raise RuntimeFailed("there is no folder to keep engines in")
    return folder


# -- finishing -------------------------------------------------------------------------------


def finish(
    files: List[str],
    part: Dict[str, Any],
    options: Dict[str, Any],
    report: Callable[[str], None],
    deadline: float,
) -> Dict[str, Any]:
    """Have an engine for this device: the one that is there, or a new one.

    Args:
        files: Paths of the part's files.
        part: Its record, with ``roles`` and ``sha256`` of the files.
        options: Its options.
        report: Told what is being done.
        deadline: By `time.monotonic`.

    Returns:
        ``fingerprint`` (its id), ``outcome`` (``cached`` or ``built``), ``seconds``, ``bytes``,
        ``builder``; and ``instead_of``, why an engine that was there is not used.

    Raises:
        RuntimeFailed: There is no engine, and the reason.
    """
    began = time.monotonic()
    tensorrt, device = package(), cuda.open_cuda()
    wanted = fingerprint(device, part, options)
    with Engines(_cache(options)) as engines:
        engines.clean()
        record, why = engines.find(wanted)
        if record is not None and not options.get("build_again"):
            return _finished("cached", wanted, record, began, "")
        with engines.building() as folder:
            job = _job(files, part, options, folder=folder, report=report, deadline=deadline)
            timings = _timing_file(wanted)
            _bring(os.path.join(engines.path, timings), job.timing_cache)
            builder = _build(tensorrt, job)
            report("reading the engine back")
            deserialize(tensorrt, read_file(job.engine), job.dla_core)
            details = {"builder": builder, "build_s": round(time.monotonic() - began, 3)}
            record = engines.publish(job.engine, wanted, details)
            _keep_timings(job.timing_cache, os.path.join(engines.path, timings))
        engines.keep_only()
    return _finished("built", wanted, record, began, "" if why == NONE_YET else why)


def _finished(
    outcome: str, wanted: Dict[str, Any], record: Dict[str, Any], began: float, why: str
) -> Dict[str, Any]:
    return {
        "outcome": outcome,
        "fingerprint": fingerprint_id(wanted),
        "seconds": round(time.monotonic() - began, 3),
        "bytes": record.get("bytes"),
        "builder": record.get("builder"),
        "instead_of": why,
    }


def _timing_file(wanted: Dict[str, Any]) -> str:
    """Timings hold for one GPU, driver and version, whatever the model."""
    shared = {key: wanted[key] for key in ("gpu", "tensorrt", "driver", "cuda")}
    return "timing-{}.cache".format(fingerprint_id(shared)[:16])


def _bring(kept: str, wanted: str) -> None:
    try:
        data = read_file(kept)
    except OSError:
        return
    with open(wanted, "wb") as stream:
        stream.write(data)


def _keep_timings(made: str, kept: str) -> None:
    """Keep timings for the next build; losing them costs time only."""
    try:
        os.replace(made, kept)
    except OSError:
        return


def _own_scales(given: str, made: str) -> None:
    """Write a calibration cache under this TensorRT's own version, or it would be ignored.

    The scales are the bundle's; a version stands in the first line, and one of another release
    makes the builder measure scales anew, of which it has no data.
    """
    header, _, lines = read_file(given).partition(b"\n")
    found = re.match(rb"TRT-\d+-(\w+)\Z", header)
    if found is None:
        raise RuntimeFailed("the calibration file begins with {!r}".format(header[:60]))
    numbers = [int(n) for n in re.findall(r"\d+", version())[:3]]
    major, minor, patch = (numbers + [0, 0, 0])[:3]
    number = major * (10000 if major >= 10 else 1000) + minor * 100 + patch
    with open(made, "wb") as stream:
        stream.write("TRT-{}-".format(number).encode("ascii") + found.group(1) + b"\n" + lines)


def _job(
    files: List[str],
    part: Dict[str, Any],
    options: Dict[str, Any],
    *,
    folder: str,
    report: Callable[[str], None],
    deadline: float,
) -> BuildJob:
    from edge_agent.telemetry import mem_available_bytes

    precision, core = _wanted(options)
    roles = list(part.get("roles", ["model"]))
    free = mem_available_bytes() or 0
    calibration = None  # type: Optional[str]
    if "calibration" in roles:
        calibration = os.path.join(folder, "scales.calib")
        _own_scales(files[roles.index("calibration")], calibration)
    return BuildJob(
        files[0],
        calibration,
        precision,
        core,
        workspace_mib=max(_MIN_WORKSPACE_MIB, int(free * _WORKSPACE_SHARE) >> 20)
        if free
        else 0,
        folder=folder,
        deadline=deadline,
        report=report,
    )


def _build(tensorrt: Any, job: BuildJob) -> str:
    """Build with trtexec, which is a process of its own, else with the package.

    An engine is of use only to the package of its own version, so another trtexec is passed by.
    """
    program = trtexec.find_trtexec()
    if program is not None:
        dialect = trtexec.read_dialect(program)
        ours = tuple(int(n) for n in re.findall(r"\d+", str(tensorrt.__version__))[:3])
        if dialect.version is None or dialect.version == ours:
            job.report("building with trtexec {}".format(dialect.text()))
            trtexec.build_with_trtexec(program, dialect, job)
            return "trtexec " + dialect.text()
    from edge_agent.runtimes.trtbuilder import build_with_package

    job.report("building with the tensorrt package {}".format(tensorrt.__version__))
    build_with_package(tensorrt, job)
    return "tensorrt {}".format(tensorrt.__version__)


def load(_: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Load the engine that was finished for this device."""
    device = cuda.open_cuda()
    wanted = fingerprint(device, part, options)
    with Engines(_cache(options)) as engines:
        record, why = engines.find(wanted)
    if record is None:
        raise RuntimeFailed("it is not finished for this device: {}".format(why))
    return TensorrtPart(record, part, device)
