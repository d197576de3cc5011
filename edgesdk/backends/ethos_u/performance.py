"""Read the summary that the compiler leaves: cycles, memory and time, as it estimates them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_summary"]

_MOST_BYTES = 1 << 16
_KIB = 1024

#: Column of the file -> what it is called here, and what one unit of it is.
_COLUMNS: Mapping[str, tuple[str, float]] = {
    "cycles_total": ("cycles", 1),
    "cycles_npu": ("npu_cycles", 1),
    "nn_macs": ("macs", 1),
    "inference_time": ("inference_us", 1e6),
    "core_clock": ("clock_hz", 1),
    "sram_memory_used": ("sram_bytes", _KIB),
    "dram_memory_used": ("dram_bytes", _KIB),
    "on_chip_flash_memory_used": ("on_chip_flash_bytes", _KIB),
    "off_chip_flash_memory_used": ("off_chip_flash_bytes", _KIB),
    "sram_total_bytes": ("sram_traffic_bytes", 1),
    "dram_total_bytes": ("dram_traffic_bytes", 1),
    "off_chip_flash_total_bytes": ("off_chip_flash_traffic_bytes", 1),
}
#: What it was estimated for.
_WORDS = ("accelerator_configuration", "system_config", "memory_mode")


def read_summary(folder: Path, stem: str) -> dict[str, Any]:
    """Read what the compiler estimates of the file ``stem`` in ``folder``.

    Returns:
        Whole numbers, by name with the unit, for what it was estimated (``system_config``,
        ``memory_mode``) and ``provenance``; empty where there is no summary that can be read.
    """
    for path in sorted(folder.glob(f"{stem}_summary_*.csv"))[:1]:
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
        return _parsed(text)
    return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error:
        return {}
    row = rows[-1] if rows else {}
    found: dict[str, Any] = {}
    for column, (name, unit) in _COLUMNS.items():
        value = _number(row.get(column))
        if value is not None:
            found[name] = round(value * unit)
    if not found:
        return {}
    for column in _WORDS:
        word = row.get(column)
        if isinstance(word, str) and word.isprintable():
            found[column] = word[:80]
    return {**found, "provenance": "estimated"}


def _number(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value < 1e18 else None
