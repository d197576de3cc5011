"""A device whose OpenVINO sees an NPU, and which has none: the CPU computes in its stead.

It shows that an agent asks for the device, falls back where it fails and keeps blobs for one
driver only. What it does not show: speed, and whatever an NPU does otherwise than its documents
say.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FakeOpenvinoNpu"]

_SOURCE = Path(__file__).parent / "_openvino" / "openvino.py"


class FakeOpenvinoNpu:
    """The stand-in, laid out in a folder.

    Args:
        folder: Where; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "npu.log"
        (folder / "python").mkdir(parents=True, exist_ok=True)
        shutil.copy(_SOURCE, folder / "python" / "openvino.py")

    @staticmethod
    def why_not() -> str | None:
        """Say why it cannot be made here, or None."""
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed, which does the work"
        return None

    def environment(self, **settings: str) -> Mapping[str, str]:
        """Give the variables under which an agent finds it.

        Args:
            settings: What it reads, such as ``FAKE_NPU="refuse"``.
        """
        return {
            "PYTHONPATH": str(self.folder / "python"),
            "FAKE_NPU_LOG": str(self.log),
            **settings,
        }

    @property
    def events(self) -> list[str]:
        """What was compiled, loaded or died, in order."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
