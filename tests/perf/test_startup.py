"""The command line is there at once: its help against the libraries it cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.perf

ROUNDS = 15


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_takes_at_most_twice_what_importing_typer_and_rich_takes() -> None:
    edgesdk = [str(Path(sys.executable).with_name("edgesdk")), "--help"]
    floor = [sys.executable, "-c", "import typer, rich"]
    seconds(edgesdk)
    seconds(floor)
    ratios = [seconds(edgesdk) / seconds(floor) for _ in range(ROUNDS)]
    sys.stdout.write(
        f"\nedgesdk --help / import typer, rich: {statistics.median(ratios):.2f}\n"
    )
    assert statistics.median(ratios) <= 2.0
