"""Run an exporter in a toolchain's interpreter, and believe nothing of it but its files.

This file is also the program that runs there. It makes ``edgesdk`` importable without the
packages that lie beside it (a toolchain has its own numpy), limits its memory, and sends what
the framework prints to a log. Lines of JSON on stdout say what is being done; the answer is
``answer.json`` with arrays beside it.

A source that we trust may run its code here, and so may a hole in a framework: the child has
the rights of the user who started it, and no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["ChildAnswer", "ask_exporter"]

_WALL_S = 3600.0
_MAX_LINE = 1 << 16
_MAX_ANSWER_BYTES = 64 << 20
_LOG_TAIL = 6000
_JOIN_S = 5.0
#: The share of this computer's memory that an exporter may take.
_MEMORY_SHARE = 0.8
_ANSWER, _LOG = "answer.json", "log.txt"
_EXIT_MEMORY = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildAnswer:
    """What an exporter answered.

    Attributes:
        record: ``answer.json``: either ``error`` or what `edgesdk.importers.job.Exported` has.
        died: How the process ended, if it gave no answer; else empty.
        log: The end of what the framework printed.
    """

    record: Mapping[str, Any]
    died: str
    log: str


def ask_exporter(
    interpreter: Path,
    exporter: str,
    request: Mapping[str, Any],
    folder: Path,
    *,
    on_step: Callable[[str], None] = lambda _: None,
    wall_s: float = _WALL_S,
    memory_bytes: int | None = None,
) -> ChildAnswer:
    """Run one job in a child process.

    Args:
        interpreter: Of the toolchain.
        exporter: Module with an ``export``, by its full name.
        request: The job, as plain data.
        folder: Empty; the job's files are written there.
        on_step: Told what the exporter says it is doing.
        wall_s: When to give up.
        memory_bytes: What it may take; most of this computer's memory unless given.

    Raises:
        OSError: The folder cannot be written, or the interpreter cannot be started.
    """
    if memory_bytes is None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory_bytes = int(memory * _MEMORY_SHARE)
    asked = {
        **request,
        "exporter": exporter,
        "folder": str(folder),
        "memory_bytes": memory_bytes,
    }
    (folder / "request.json").write_text(json.dumps(asked), encoding="utf-8")
    environment = _environment(folder, trust=bool(request.get("trust")))
    with (folder / _LOG).open("wb") as log:
        child = subprocess.Popen(
            # without -I: PYTHONPATH holds the classes of a source that is trusted
            [str(interpreter), "-P", "-s", __file__, str(folder / "request.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _kill(child)

        timer = threading.Timer(wall_s, give_up)
        timer.start()
        assert child.stdout is not None
        # what the child has started may hold the pipe open for longer than it lives
        reader = threading.Thread(target=_follow, args=(child.stdout, on_step), daemon=True)
        reader.start()
        try:
            status = _wait(child)
        finally:
            timer.cancel()
            # the rest of its group, too; its number is ours until it is waited for
            _kill(child)
            child.wait()
            reader.join(_JOIN_S)
            if not reader.is_alive():
                child.stdout.close()
    record = _read_answer(folder / _ANSWER) if status == 0 else {}
    died = ""
    if not record:
        died = f"it took over {wall_s:g} s" if late.is_set() else _fate(status)
    return ChildAnswer(record=record, died=died, log=_tail(folder / _LOG))


def _environment(folder: Path, *, trust: bool) -> dict[str, str]:
    """Give the child its own home, so that frameworks read no configuration of the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TF_", "KERAS_", "TORCH", "LD_PRELOAD"))
    }
    if trust and os.environ.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return {
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",  # its sums are in another order on each processor
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait until a child has ended, and leave it there to be waited for; give its status."""
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _follow(stream: IO[bytes], on_step: Callable[[str], None]) -> None:
    while line := stream.readline(_MAX_LINE):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and isinstance(said.get("step"), str):
            on_step(said["step"][:100])


def _read_answer(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            record = json.loads(stream.read(_MAX_ANSWER_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and _has_form(record) else {}


def _has_form(record: dict[str, Any]) -> bool:
    """Tell whether an answer is one of the three that there are; their parts are read later."""
    error = record.get("error")
    if error is not None:
        texts = isinstance(error, dict) and all(
            isinstance(error.get(name), str) for name in ("problem", "hint")
        )
        return texts and isinstance(error.get("facts"), dict)
    return isinstance(record.get("bug"), str) or "model" in record


def _fate(status: int) -> str:
    if status == _EXIT_MEMORY:
        return "it ran out of memory"
    if status >= 0:
        return f"it ended with code {status}"
    try:
        return f"it died of {signal.Signals(-status).name}"
    except ValueError:
        return f"it died of signal {-status}"


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LOG_TAIL))
            return stream.read(_LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


# From here on: the child.


def _limit(memory_bytes: int) -> None:
    import resource

    # of data, not of addresses: frameworks reserve far more of these than they use
    for what, value in ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, hard))


def _find_edgesdk() -> None:
    """Make ``edgesdk`` importable from this file's place, and nothing that lies beside it."""
    from importlib import util

    package = Path(__file__).resolve().parents[1]
    spec = util.spec_from_file_location(
        "edgesdk", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["edgesdk"] = module
    spec.loader.exec_module(module)


def _serve(request: dict[str, Any], say: Callable[[str], None]) -> None:
    from edgesdk.importers.exchange import perform_request

    answer = perform_request(request, say)
    path = Path(request["folder"]) / _ANSWER
    path.write_text(json.dumps(answer), encoding="utf-8")


def _main() -> None:
    # what a framework prints must not get between our lines
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(step: str) -> None:
        out.write(json.dumps({"step": step}) + "\n")

    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _limit(request["memory_bytes"])
    _find_edgesdk()
    try:
        _serve(request, say)
    except MemoryError:
        os._exit(_EXIT_MEMORY)
    out.flush()
    os._exit(0)  # a framework's threads must not hold the process up


if __name__ == "__main__":
    _main()
