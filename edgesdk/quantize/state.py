"""What a long quantization leaves on disk so that a later run goes on where it stopped.

Everything is keyed by a digest of model, data, scheme and options, of the packages that compute
and of the processor's instruction sets, so nothing stale is taken up. Files are small JSON or
npz; what cannot be read is as good as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.quantize.host import cpu_flags
from edgesdk.quantize.packages import PACKAGES, package_versions

if TYPE_CHECKING:
    import numpy as np

__all__ = ["State"]

_MOST_BYTES = 1 << 30
#: What nobody came back to for so long is forgotten.
_KEPT_S = 14 * 24 * 3600.0
#: Keeping takes no more than one part in so many of the time, however slow the disk.
_BACK_OFF = 10.0


class State:
    """A folder for one quantization; without one, nothing is kept.

    Args:
        folder: Where states lie; it is made when something is kept.
        key: Says which quantization it is, by everything that shapes it but the release, the
            packages and the processor.
    """

    def __init__(self, folder: Path | None, *key: str) -> None:
        self.folder = None if folder is None else folder / _digest(key)
        self._saved = time.monotonic()
        self._took_s = 0.0
        self._begun: float | None = None
        if folder is not None:
            _forget_old(folder)

    def part(self, name: str) -> State:
        """Give a state within this one, which is forgotten with it."""
        inner = State(None)
        inner.folder = None if self.folder is None else self.folder / name
        return inner

    def due(self, every_s: float = 5.0) -> bool:
        """Say whether it is time to keep something again: then the caller does.

        What it takes from here to the end of the write counts: the next is due not before ten
        times as long. With nothing or less for ``every_s`` it always is.
        """
        now = time.monotonic()
        pause = max(every_s, _BACK_OFF * self._took_s) if every_s > 0 else every_s
        if self.folder is None or now - self._saved < pause:
            return False
        self._saved = self._begun = now
        return True

    def read(self, name: str) -> dict[str, Any]:
        """Give the record called ``name``; empty where there is none."""
        if self.folder is None:
            return {}
        try:
            path = self.folder / f"{name}.json"
            if path.stat().st_size > _MOST_BYTES:
                return {}
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a record; a disk that cannot be written to costs only the way back."""
        self._replace(f"{name}.json", json.dumps(record).encode())

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Give the arrays called ``name``; empty where there are none."""
        import numpy as np

        if self.folder is None:
            return {}
        try:
            path = self.folder / f"{name}.npz"
            if path.stat().st_size > _MOST_BYTES:
                return {}
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception:  # noqa: BLE001  (a damaged file is as good as none)
            return {}

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays."""
        import io

        import numpy as np

        if self.folder is None:
            return
        if sum(array.nbytes for array in arrays.values()) > _MOST_BYTES:
            return  # it would not be read again
        body = io.BytesIO()
        np.savez(body, **dict(arrays))  # type: ignore[arg-type]  # numpy's stub says bool
        self._replace(f"{name}.npz", body.getbuffer())

    def clear(self) -> None:
        """Forget everything: the quantization is done."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self, name: str, data: bytes | memoryview) -> None:
        """Write a file in one step; not one that would be too large to be read again."""
        if self.folder is None:
            return
        if 0 < len(data) <= _MOST_BYTES:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                part = self.folder / f"{name}.{os.getpid()}.part"
                part.write_bytes(data)
                part.replace(self.folder / name)
        if self._begun is not None:
            self._saved = time.monotonic()
            self._took_s = self._saved - self._begun
            self._begun = None


def _digest(key: tuple[str, ...]) -> str:
    from edgesdk import __version__

    tools = sorted(package_versions((*PACKAGES, "openvino")).items())
    parts = (__version__, repr(tools), repr(sorted(cpu_flags())), *key)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _forget_old(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and time.time() - entry.stat().st_mtime > _KEPT_S:
                shutil.rmtree(entry, ignore_errors=True)
