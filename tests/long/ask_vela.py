"""Compile every ``.tflite`` file of a folder with Vela, each in a process forked for it.

Run as a program: ``ask_vela.py FOLDER ACCELERATOR``. Beside ``x.tflite`` it leaves
``x_vela.tflite`` where Vela made one, and ``x.log`` with what it said. Starting Vela anew for
each of some thousands of files would take an hour; a crash still ends one process only.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import Pool
from pathlib import Path

#: Some graphs keep it busy for minutes, or for ever.
_LIMIT_S = 20


def compile_one(job: tuple[Path, str]) -> None:
    """Compile a file in a child process, and wait for it."""
    path, accelerator = job
    child = os.fork()
    if child == 0:
        _as_child(path, accelerator)
    os.waitpid(child, 0)


def _as_child(path: Path, accelerator: str) -> None:
    code = 1
    try:
        log = os.open(path.with_suffix(".log"), os.O_CREAT | os.O_WRONLY, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.alarm(_LIMIT_S)
        from ethosu.vela import vela

        folder = str(path.parent)
        code = vela.main(
            [str(path), "--output-dir", folder, "--accelerator-config", accelerator]
        )
    finally:
        sys.stdout.flush()
        os._exit(code or 0)


def main() -> None:
    """Compile the folder."""
    folder, accelerator = Path(sys.argv[1]), sys.argv[2]
    import ethosu.vela.vela  # noqa: F401 - once here, so that no child loads it again

    jobs = [(path, accelerator) for path in sorted(folder.glob("*.tflite"))]
    with Pool(os.cpu_count()) as pool:
        pool.map(compile_one, jobs, chunksize=16)


if __name__ == "__main__":
    main()
