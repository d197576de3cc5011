"""The quantizer keeps what it promises against its peers, on real models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.perf

PROGRAM = Path(__file__).with_name("quantize.py")


@pytest.mark.timeout(2400)
def test_the_quantizer_keeps_its_promises_against_its_peers(tmp_path: Path) -> None:
    out = tmp_path / "quantize.json"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--json", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stdout.write(f"\n{done.stdout}\n")
    assert out.exists(), "the measurement itself failed; what it said stands above"
    checks = json.loads(out.read_text(encoding="utf-8"))["checks"]
    missed = [f"{check['name']}: {check['detail']}" for check in checks if check["ok"] is False]
    assert not missed, "\n".join(missed)
