"""Arm's compiler, played by programs that a test writes: good, slow, broken, lying, absent."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.backends.base import CompiledPart, PartJob
from edgesdk.backends.ethos_u.compiler import compile_part, find_program
from edgesdk.backends.ethos_u.performance import read_summary
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from edgesdk.profiles.constraint_values import ConstraintRules
from tests.unit.backends.edgetpu.files import Network

SUMMARY = """\
experiment,network,accelerator_configuration,system_config,memory_mode,core_clock,\
inference_time,sram_memory_used,dram_memory_used,nn_macs,cycles_npu,cycles_total
default,part,Ethos_U55_128,Ethos_U55_High_End_Embedded,Shared_Sram,500000000.0,\
0.001343898,128.609375,0.0,13576402,366167,671949
"""


def _rules() -> ConstraintRules:
    found = load_compiler_rules("ethos-u-vela")
    assert isinstance(found, ConstraintRules)
    return found


RULES = _rules()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two convolutions and an operator that is left, which gives the output."""
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    inner = net.conv(net.conv(taken, 8), 16)
    given = net.op("SQRT", [inner], net.tensor([1, 8, 8, 16]))
    return net.save(tmp_path / "source.tflite", [taken], [given])


def compiled_file(path: Path, left: str | None = "SQRT", name: bytes = b"t7") -> Path:
    """What the compiler makes of the source, as far as a reader can tell."""
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    inner = net.op("ethos-u", [taken], net.tensor([1, 8, 8, 16]), custom=True)
    if left is None:
        return net.save(path, [taken], [inner])
    given = net.tensor([1, 8, 8, 16])
    net.tensors[given].name = name  # by default that of the source's output
    net.op(left, [inner], given)
    return net.save(path, [taken], [given])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program called like the compiler on PATH; its body sees ``out``, ``model``."""

    def write(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / RULES.program
        path.write_text(
            f"#!{sys.executable}\n"
            "import os, pathlib, shutil, signal, subprocess, sys, time\n"
            "if sys.argv[1:] == ['--version']:\n"
            "    sys.exit(print('9.8.7'))\n"
            "out = pathlib.Path(sys.argv[sys.argv.index('--output-dir') + 1])\n"
            "model = pathlib.Path(sys.argv[1])\n" + textwrap.dedent(body)
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return path

    return write


def run(
    source: Path, tmp_path: Path, rules: ConstraintRules = RULES, **options: str | int
) -> CompiledPart:
    profile = find_target("ethos-u55-128").backends[0]
    profile = replace(profile, options={**profile.options, **options})
    folder = tmp_path / "job"
    folder.mkdir()
    job = PartJob(index=0, model=None, source=source, precision="as-is", folder=folder)
    core = rules.core_of(str(profile.options["accelerator"]))
    assert core is not None
    return compile_part(job, profile, rules, core)


def test_without_the_compiler_the_file_is_shipped_and_the_prediction_assumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    made = run(source, tmp_path, replace(RULES, module="no_such_package.at_all"))
    assert made.files == {"model": source}
    assert made.is_for_rest, "there is nothing for the NPU, nor a use for its library"
    assert made.inside["provenance"] == "assumed"
    assert made.inside["ops"] == [
        {"op": "CONV_2D", "status": "placed", "count": 2},
        {"op": "SQRT", "status": "left", "count": 1},
    ]
    (left,) = made.inside["left"]
    assert (left["index"], left["op"]) == (2, "SQRT")
    assert "no SQRT" in left["reason"]
    (finding,) = made.findings
    assert finding.code == "not-compiled"
    assert "vela is not installed" in finding.message
    assert "pip install" in finding.hint


def test_what_a_good_compiler_makes_is_shipped_with_its_estimates(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    good = compiled_file(tmp_path / "good.tflite")
    program(f"""
        flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
        assert flags['--accelerator-config'] == 'ethos-u55-128', flags
        assert flags['--config'] == 'Arm/vela.ini', flags
        assert flags['--system-config'] == 'Ethos_U55_High_End_Embedded', flags
        assert flags['--memory-mode'] == 'Sram_Only', flags
        (out / 'part_summary_x.csv').write_text({SUMMARY!r})
        shutil.copy({str(good)!r}, out / 'part_vela.tflite')
    """)
    made = run(source, tmp_path, **{"memory-mode": "Sram_Only"})
    assert made.findings == ()
    assert made.files["model"].read_bytes() == good.read_bytes()
    assert not made.is_for_rest
    assert made.on_host == source, "answers are those of the file before it was compiled"
    assert made.inside["provenance"] == "measured"
    assert made.inside["compiler"] == "vela 9.8.7"
    assert made.inside["disagreements"] == []
    assert made.inside["ops"] == [
        {"op": "CONV_2D", "status": "placed", "count": 2},
        {"op": "SQRT", "status": "left", "count": 1},
    ]
    estimate = made.inside["estimate"]
    assert estimate["provenance"] == "estimated"
    assert (estimate["cycles"], estimate["npu_cycles"]) == (671949, 366167)
    assert (estimate["inference_us"], estimate["sram_bytes"]) == (1344, 131696)
    assert estimate["system_config"] == "Ethos_U55_High_End_Embedded"


def test_each_disagreement_with_the_prediction_is_named(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    other = compiled_file(tmp_path / "other.tflite", left=None)
    program(f"shutil.copy({str(other)!r}, out / 'part_vela.tflite')")
    made = run(source, tmp_path)
    assert made.inside["disagreements"] == [{"op": "SQRT", "foretold_left": 1, "left": 0}]
    (finding,) = made.findings
    assert finding.code == "compiler-disagrees"
    assert "SQRT (0 left, 1 foretold)" in finding.message
    assert {"op": "SQRT", "status": "placed", "count": 1} in made.inside["ops"]


def test_an_operator_whose_result_was_renamed_is_still_left(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    renamed = compiled_file(tmp_path / "renamed.tflite", name=b"folded")
    program(f"shutil.copy({str(renamed)!r}, out / 'part_vela.tflite')")
    made = run(source, tmp_path)
    assert {"op": "SQRT", "status": "left", "count": 1} in made.inside["ops"]
    assert made.findings == ()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "ended with code 3: it said nothing"),
        ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("print('all is well')", "ended without a compiled file"),
        ("(out / 'part_vela.tflite').write_bytes(b'\\0' * 99)", "made rubbish"),
        ("(out / 'part_vela.tflite').symlink_to('/etc/passwd')", "without a compiled file"),
        ("(out / 'part_vela.tflite').mkdir()", "without a compiled file"),
        (
            "(out / 'part_vela.tflite').write_bytes(model.read_bytes()[:-200])",
            "made rubbish",
        ),
        ("sys.stdout.write('x' * 9_000_000); sys.exit(1)", "ended with code 1"),
        ("sys.stdout.write('Error: \\x1b[31m\\x00'); sys.exit(1)", "Error:  [31m"),
    ],
)
def test_a_compiler_that_fails_leaves_the_file_as_it_is(
    source: Path, tmp_path: Path, program: Callable[[str], Path], body: str, why: str
) -> None:
    program(body)
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert made.is_for_rest
    assert made.inside["provenance"] == "assumed"
    (finding,) = made.findings
    assert finding.severity == "warning"
    assert why in finding.message
    assert finding.message.isprintable()


def test_a_file_with_other_inputs_is_not_shipped(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    net = Network()
    taken = net.tensor([1, 4])
    given = net.op("ethos-u", [taken], net.tensor([1, 8, 8, 16]), custom=True)
    other = net.save(tmp_path / "other.tflite", [taken], [given])
    program(f"shutil.copy({str(other)!r}, out / 'part_vela.tflite')")
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert "made a file with other inputs" in made.findings[0].message


def test_a_file_in_which_nothing_was_placed_is_for_the_processor(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    given = net.op("SQRT", [taken], net.tensor([1, 8, 8, 4]))
    source = net.save(tmp_path / "source.tflite", [taken], [given])
    program("shutil.copy(model, out / 'part_vela.tflite')")
    made = run(source, tmp_path)
    assert made.is_for_rest
    assert made.files == {"model": source}
    assert made.inside["ops"] == [{"op": "SQRT", "status": "left", "count": 1}]


def test_a_compiler_that_fails_once_is_tried_again(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    good = compiled_file(tmp_path / "good.tflite")
    mark = tmp_path / "mark"
    program(f"""
        mark = pathlib.Path({str(mark)!r})
        if not mark.exists():
            mark.touch()
            sys.exit(1)
        shutil.copy({str(good)!r}, out / 'part_vela.tflite')
    """)
    made = run(source, tmp_path)
    assert made.inside["provenance"] == "measured"
    assert made.inside["estimate"] == {}, "it left no summary"


def test_a_compiler_that_hangs_is_ended(
    source: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    program("time.sleep(600)")
    started = time.monotonic()
    made = run(source, tmp_path, **{"compile-timeout-s": 1})
    assert time.monotonic() - started < 30
    assert "takes longer than 1 s" in made.findings[0].message


def test_a_compiled_file_is_not_compiled_again(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    program("sys.exit('it must not run')")
    source = compiled_file(tmp_path / "given_vela.tflite")
    made = run(source, tmp_path)
    assert made.files == {"model": source}
    assert made.findings == ()
    assert made.inside["ops"] == [
        {"op": "SQRT", "status": "left", "count": 1},
        {"op": "ethos-u", "status": "placed", "count": 1},
    ]


def test_a_program_on_path_goes_before_the_module(
    tmp_path: Path, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program("")
    assert find_program(RULES) == [str(path)]
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_program(replace(RULES, module="json.tool")) == [
        sys.executable,
        "-m",
        "json.tool",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0\0",
        "cycles_total\n",
        "cycles_total\nnan\n",
        "cycles_total\n-4\n",
        "cycles_total\n1e400\n",
        "a,b\n" * 100_000,
        '"' * 9999,
    ],
)
def test_a_summary_of_rubbish_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "part_summary_x.csv").write_text(text)
    assert read_summary(tmp_path, "part") == {}


def test_a_summary_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text(SUMMARY)
    (tmp_path / "part_summary_x.csv").symlink_to(elsewhere)
    assert read_summary(tmp_path, "part") == {}
