"""The vendor's compiler, played by programs that a test writes: good, slow, broken, lying."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.backends.base import CompiledPart, PartJob
from edgesdk.backends.edgetpu.compiler import compile_part
from edgesdk.model import open_tflite
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

RULES = load_compiler_rules("edgetpu-16")
LOG = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 96 ms.

On-chip memory used for caching model parameters: 2.50KiB
On-chip memory remaining for caching model parameters: 7.67MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 3
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 1

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
EXP                            1          Operation not supported
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two convolutions and an operator that is left, which gives the output."""
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    inner = net.conv(net.conv(taken, 8), 16)
    given = net.op("EXP", [inner], net.tensor([1, 8, 8, 16]))
    return net.save(tmp_path / "source.tflite", [taken], [given])


def compiled_file(path: Path, left: str = "EXP") -> Path:
    """What the compiler makes of the source, as far as a reader can tell."""
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    inner = net.op("edgetpu-custom-op", [taken], net.tensor([1, 8, 8, 16]), custom=True)
    given = net.op(left, [inner], net.tensor([1, 8, 8, 16]))
    return net.save(path, [taken], [given])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # gives a function
    """Put a program called like the compiler on PATH; its body sees ``out``, ``model``."""

    def write(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / RULES.program
        path.write_text(
            f"#!{sys.executable}\n"
            "import os, pathlib, shutil, signal, subprocess, sys, time\n"
            "out = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n"
            "model = pathlib.Path(sys.argv[-1])\n" + textwrap.dedent(body)
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return path

    return write


def run(source: Path, tmp_path: Path, **options: str | int) -> CompiledPart:
    profile = find_target("coral-dev-board").backends[0]
    profile = replace(profile, options={**profile.options, **options})
    folder = tmp_path / "job"
    folder.mkdir()
    job = PartJob(index=0, model=None, source=source, precision="as-is", folder=folder)
    return compile_part(job, profile, RULES)


def test_without_the_compiler_the_file_is_shipped_and_the_prediction_assumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert made.is_for_rest, "there is nothing for the Edge TPU, nor a use for its library"
    assert made.inside["provenance"] == "assumed"
    assert made.inside["ops"] == [
        {"op": "CONV_2D", "status": "mapped", "count": 2},
        {"op": "EXP", "status": "operator", "count": 1},
    ]
    assert [entry["index"] for entry in made.inside["left"]] == [2]
    (finding,) = made.findings
    assert finding.code == "not-compiled"
    assert "edgetpu_compiler is not on PATH" in finding.message
    assert "install edgetpu-compiler" in finding.hint


def test_what_a_good_compiler_makes_is_shipped_with_its_log(
    source: Path, tmp_path: Path, program
) -> None:
    good = compiled_file(tmp_path / "good.tflite")
    program(f"""
        assert '-s' in sys.argv
        assert sys.argv[sys.argv.index('--min_runtime_version') + 1] == '13'
        print({LOG!r})
        shutil.copy({str(good)!r}, out / (model.stem + '_edgetpu.tflite'))
    """)
    made = run(source, tmp_path, **{"min-runtime-version": 13})
    assert made.files["model"].read_bytes() == good.read_bytes()
    assert not made.is_for_rest
    assert made.on_host == source, "answers are those of the file before it was compiled"
    assert made.inside["provenance"] == "measured"
    assert made.inside["disagreements"] == []
    assert made.findings == ()
    log = made.inside["log"]
    assert (log["version"], log["mapped"], log["left"]) == ("16.0.384591198", 2, 1)
    assert (log["cached_bytes"], log["streamed_bytes"]) == (2560, 0)
    assert {"op": "EXP", "status": "Operation not supported", "count": 1} in log["ops"]


def test_each_disagreement_with_the_prediction_is_named(
    source: Path, tmp_path: Path, program
) -> None:
    other = compiled_file(tmp_path / "other.tflite", left="TANH")
    program(f"shutil.copy({str(other)!r}, out / 'part_edgetpu.tflite')")
    made = run(source, tmp_path)
    assert made.inside["disagreements"] == [
        {"op": "EXP", "foretold_left": 1, "left": 0},
        {"op": "TANH", "foretold_left": 0, "left": 1},
    ]
    assert made.inside["ops"] == [
        {"op": "CONV_2D", "status": "mapped", "count": 2},
        {"op": "EXP", "status": "mapped", "count": 1},
    ]
    (finding,) = made.findings
    assert finding.code == "compiler-disagrees"
    assert "TANH (1 left, 0 foretold)" in finding.message


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "ended with code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("print('all is well')", "ended without a compiled file"),
        ("(out / 'part_edgetpu.tflite').write_bytes(b'\\0' * 99)", "made rubbish"),
        ("shutil.copy(model, out / 'part_edgetpu.tflite.tmp')", "without a compiled file"),
        ("(out / 'part_edgetpu.tflite').symlink_to('/etc/passwd')", "without a compiled file"),
        ("sys.stdout.write('x' * 9_000_000); sys.exit(1)", "ended with code 1"),
    ],
)
def test_a_compiler_that_fails_leaves_the_file_as_it_is(
    source: Path, tmp_path: Path, program, body: str, why: str
) -> None:
    program(body)
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert made.is_for_rest, "there is nothing for the Edge TPU, nor a use for its library"
    assert made.inside["provenance"] == "assumed"
    (finding,) = made.findings
    assert finding.severity == "warning"
    assert why in finding.message


def test_a_file_with_other_inputs_is_not_shipped(source: Path, tmp_path: Path, program) -> None:
    net = Network()
    taken = net.tensor([1, 4])
    given = net.op("edgetpu-custom-op", [taken], net.tensor([1, 8, 8, 16]), custom=True)
    other = net.save(tmp_path / "other.tflite", [taken], [given])
    program(f"shutil.copy({str(other)!r}, out / 'part_edgetpu.tflite')")
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert "made a file with other inputs" in made.findings[0].message


def test_a_file_in_which_nothing_was_mapped_is_for_the_processor(
    source: Path, tmp_path: Path, program
) -> None:
    program("shutil.copy(model, out / 'part_edgetpu.tflite')")
    made = run(source, tmp_path)
    assert made.is_for_rest, "there is nothing for the Edge TPU, nor a use for its library"
    assert made.files == {"model": source}
    assert made.inside["ops"] == [
        {"op": "CONV_2D", "status": "left", "count": 2},
        {"op": "EXP", "status": "left", "count": 1},
    ]
    (finding,) = made.findings
    assert "CONV_2D (2 left, 0 foretold)" in finding.message


def test_a_compiler_that_fails_once_is_tried_again(
    source: Path, tmp_path: Path, program
) -> None:
    good = compiled_file(tmp_path / "good.tflite")
    mark = tmp_path / "mark"
    program(f"""
        mark = pathlib.Path({str(mark)!r})
        assert sys.argv[sys.argv.index('--timeout_sec') + 1] == '300'
        assert ('--search_delegate' in sys.argv) == mark.exists()
        if not mark.exists():
            mark.touch()
            sys.exit(1)
        shutil.copy({str(good)!r}, out / 'part_edgetpu.tflite')
    """)
    made = run(source, tmp_path)
    assert made.inside["provenance"] == "measured"


def test_a_compiler_that_hangs_is_ended_with_its_children(
    source: Path, tmp_path: Path, program
) -> None:
    children = tmp_path / "children"
    program(f"""
        child = subprocess.Popen(['sleep', '600'])
        with open({str(children)!r}, 'a') as file:
            file.write(f'{{child.pid}} ')
        time.sleep(600)
    """)
    started = time.monotonic()
    made = run(source, tmp_path, **{"compile-timeout-s": 1})
    assert time.monotonic() - started < 30
    assert "takes longer than 1 s" in made.findings[0].message
    pids = [int(pid) for pid in children.read_text().split()]
    assert len(pids) == 2, "it had two tries"
    for pid in pids:
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_a_compiled_file_is_not_compiled_again(tmp_path: Path, program) -> None:
    program("sys.exit('it must not run')")
    source = compiled_file(tmp_path / "given_edgetpu.tflite")
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert made.findings == ()
    assert made.inside["ops"] == [
        {"op": "EXP", "status": "subgraph", "count": 1},
        {"op": "edgetpu-custom-op", "status": "mapped", "count": 1},
    ]


def test_the_source_is_one_that_our_reader_reads(source: Path) -> None:
    assert [op.name for op in open_tflite(source).graph.ops] == ["CONV_2D", "CONV_2D", "EXP"]
