"""Commands as somebody types them, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cli.app import run


class Typed:
    """Types commands; ``shown`` keeps all that ever came back."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.shown = ""

    def _run(self, args: list[str]) -> tuple[int, str, str]:
        code = run(args)
        seen = self._capsys.readouterr()
        self.shown += seen.out + seen.err
        return code, seen.out, seen.err

    def ok(self, *args: str | Path) -> dict[str, Any]:
        """Run a command that must succeed; give its document."""
        code, out, err = self._run([*map(str, args), "--format", "json"])
        assert code == 0, err
        record: dict[str, Any] = json.loads(out)
        return record

    def text(self, *args: str | Path) -> str:
        """Run a command that must succeed; give what people read."""
        code, out, err = self._run([*map(str, args)])
        assert code == 0, err
        return out

    def refused(self, *args: str | Path, code: int | None = None) -> dict[str, Any]:
        """Run a command that must fail with a sentence and a hint; give its error."""
        seen, out, err = self._run([*map(str, args), "--format", "json"])
        record = json.loads(out)
        assert record["schema"] == "edgesdk.error/1"
        error: dict[str, Any] = record["error"]
        assert seen == error["exit_code"]
        assert code is None or seen == code, err
        assert error["hint"], error
        assert err.count("error: ") == 1
        assert err.count("hint: ") == 1
        assert "Traceback" not in err
        return error
