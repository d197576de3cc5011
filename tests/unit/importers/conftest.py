"""A store of toolchains whose only one is the environment that the tests run in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.importers import detect, importing
from edgesdk.importers.detect import SourceFormat
from edgesdk.importers.importing import ImportChoices, Imported, import_model
from edgesdk.importers.toolchains import Toolchain, Toolchains

EXPORTERS = Path(__file__).parent / "exporters"
TOLD = SourceFormat(
    code="skops", label="a told source", toolchain="sklearn", exporter="told_exporter"
)

Told = Callable[..., Imported]


def take_told_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files that end in ``.told`` be sources of the exporter that does as it is told."""

    def here(self: Toolchains, spec: object, **_: Any) -> Toolchain:
        return Toolchain(
            name="told",
            digest="0" * 12,
            folder=Path(sys.prefix),
            versions={},
            python="3",
            size_bytes=0,
            seconds=0.0,
        )

    real = detect.detect_format

    def kind(path: Path) -> SourceFormat | None:
        return TOLD if path.suffix == ".told" else real(path)

    monkeypatch.setattr(Toolchains, "make", here)
    monkeypatch.setattr(detect, "detect_format", kind)
    monkeypatch.setattr(importing, "detect_format", kind)
    monkeypatch.setenv("PYTHONPATH", str(EXPORTERS))
    monkeypatch.syspath_prepend(str(EXPORTERS))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Import a source whose text says what its exporter does."""
    take_told_sources(monkeypatch)

    def run(text: str, **choices: Any) -> Imported:
        source = tmp_path / str(choices.pop("name", "word.told"))
        source.write_text(text)
        notes: list[str] = choices.pop("notes", [])
        return import_model(
            source,
            toolchains=Toolchains(tmp_path / "toolchains"),
            imports=tmp_path / "imports",
            choices=ImportChoices(trust=True, **choices),  # PYTHONPATH is for trusted sources
            on_note=notes.append,
        )

    return run
