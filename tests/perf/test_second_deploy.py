"""Deploying what is already there costs next to nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.perf

DEMO = Path(__file__).parents[2] / "configs" / "demo"
#: Runs the command line several times in one process: the first run pays for the imports.
PROGRAM = """
import contextlib, io, json, sys, time
from edgesdk.cli import main

def once(arguments):
    sys.argv = ["edgesdk", *arguments]
    out = io.StringIO()
    begun = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    return time.perf_counter() - begun, json.loads(out.getvalue())

runs = [once(sys.argv[1:]) for _ in range(6)]
print(json.dumps([[seconds, record["deployment"]["blobs_sent"]] for seconds, record in runs]))
"""


def test_a_second_deploy_sends_nothing_and_takes_half_a_second(tmp_path: Path) -> None:
    cli = [sys.executable, "-m", "edgesdk.cli"]
    model, calib = str(DEMO / "digits_cnn.onnx"), str(DEMO / "calib.npz")
    subprocess.run(
        [*cli, "build", model, "--calib", calib, "-o", str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
    )
    deploy = ["deploy", str(tmp_path / "bundle"), "--no-bench", "--format", "json"]
    deploy += ["--device", f"local:?state={tmp_path / 'state'}", "-o", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *deploy], capture_output=True, text=True, check=True
    )
    runs = json.loads(done.stdout)
    assert runs[0][1] > 0
    assert [blobs for _, blobs in runs[1:]] == [0] * 5
    seconds = statistics.median(seconds for seconds, _ in runs[1:])
    sys.stdout.write(f"\nsecond deploy: {seconds:.3f} s beyond imports, 0 blobs\n")
    assert seconds <= 0.5
