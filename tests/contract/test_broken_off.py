"""A device that is gone in the middle of a measurement: what had arrived is kept and marked."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from edgesdk.bench import benchmark, run_benchmark
from edgesdk.bench.run import Live
from edgesdk.bench.values import BenchSpec
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.errors import ChannelClosed, EdgeError, LinkError
from edgesdk.report.read import read_report
from edgesdk.report.schema import report_adapter
from edgesdk.testing import make_echo_bundle
from tests.contract.conftest import Way
from tests.contract.typed import Typed

LONG = BenchSpec(warmup_runs=2, runs=0, duration_s=60.0)


@pytest.mark.parametrize(
    "way", ["child", "ssh", pytest.param("pty", marks=pytest.mark.long)], indirect=True
)
def test_a_link_that_is_cut_leaves_what_had_arrived(way: Way, tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle", options={"delay_ms": 25})
    broken: list[EdgeError] = []
    session = way.connect()

    def cut_soon(live: Live) -> None:
        if live.step == "run" and live.done >= 30:
            way.cut(session)

    try:
        deploy_bundle(bundle, session, device=way.device, profile=None)
        report = run_benchmark(
            session,
            bundle,
            device=way.device,
            spec=LONG,
            on_broken=broken.append,
            on_live=cut_soon,
        )
    finally:
        session.close()
    assert isinstance(broken[0], LinkError)
    assert report.procedure is not None
    assert report.procedure.stopped == "broken"
    assert str(broken[0]) in report.procedure.incomplete
    assert report.procedure.inferences >= 30
    assert len(report.latency.samples_ms) >= 20
    assert all(25 <= sample < 500 for sample in report.latency.samples_ms)
    assert report.latency.p50_ms is not None
    assert report.conditions.samples
    assert report.conditions.notes[0].startswith("incomplete: ")
    again = report_adapter().validate_json(report_adapter().dump_json(report))
    assert again == report
    way.mend()


def test_nobody_who_did_not_ask_gets_half_a_measurement(tmp_path: Path) -> None:
    gone_bad = tmp_path / "bad"
    bundle = make_echo_bundle(
        tmp_path / "bundle", options={"delay_ms": 20, "die_if": str(gone_bad)}
    )
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    with connect(device) as session:
        deploy_bundle(bundle, session, device=device, profile=None)
        with pytest.raises(EdgeError, match="the worker ended by SIGKILL"):
            run_benchmark(
                session,
                bundle,
                device=device,
                spec=LONG,
                on_live=lambda live: gone_bad.touch() if live.done > 30 else None,
            )


def test_a_worker_that_dies_leaves_a_report_and_the_exit_code(
    typed: Typed, tmp_path: Path
) -> None:
    gone_bad = tmp_path / "bad"
    device = f"local:?state={tmp_path / 'state'}"
    bundle = make_echo_bundle(
        tmp_path / "bundle", options={"delay_ms": 20, "die_if": str(gone_bad)}
    )
    typed.ok("deploy", bundle.folder, "--device", device, "--no-bench")

    def go_bad() -> None:
        while not Path("out").exists():  # made right before the worker is started
            time.sleep(0.05)
        time.sleep(2.5)
        gone_bad.touch()

    threading.Thread(target=go_bad).start()
    options = ("--bundle", str(bundle.folder), "--runs", "0", "--warmup", "2")
    error = typed.refused("bench", device, *options, "-o", "out", code=5)
    assert "the worker ended by SIGKILL" in error["problem"]
    assert "runs until then are in out/report.json" in error["hint"]
    report = read_report(Path("out/report.json"))
    assert report.procedure is not None
    assert report.procedure.stopped == "broken"
    assert len(report.latency.samples_ms) >= 10
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "Incomplete: " in page
    assert json.loads(Path("out/report.json").read_text())["wall_s"] is None


def test_what_follows_the_runs_cannot_take_them_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ChannelClosed("cannot read from the board: the link is closed")

    bundle = make_echo_bundle(tmp_path / "bundle")
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    spec = BenchSpec(warmup_runs=1, runs=30)
    with connect(device) as session:
        deploy_bundle(bundle, session, device=device, profile=None)
        for step in ("with_link_time", "judge_outputs", "ask_offload"):
            broken: list[EdgeError] = []
            with monkeypatch.context() as patched:
                patched.setattr(benchmark, step, gone)
                report = run_benchmark(
                    session, bundle, device=device, spec=spec, on_broken=broken.append
                )
                assert [type(exc) for exc in broken] == [ChannelClosed], step
                assert len(report.latency.samples_ms) == 30, step
                assert report.offload is None, step
                judged = report.accuracy.host_check is not None
                assert judged == (step == "ask_offload"), "what was known stays known"


def test_a_comparison_that_fails_leaves_the_measurement(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ChannelClosed("cannot read from the board: the link is closed", hint="again")

    device = f"local:?state={tmp_path / 'state'}"
    bundle = make_echo_bundle(tmp_path / "bundle")
    typed.ok("deploy", bundle.folder, "--device", device, "--no-bench")
    monkeypatch.setattr("edgesdk.cli.bench.find_others", lambda *_: ("ab" * 32,))
    monkeypatch.setattr("edgesdk.bench.compare.compare_with_several", gone)
    asked = ("bench", device, "--bundle", bundle.folder, "--runs", "30", "-o", "out")
    error = typed.refused(*asked, "--compare", "previous")
    assert error["hint"] == "again; the 30 runs until then are in out/report.json"
    report = read_report(Path("out"))
    assert (len(report.latency.samples_ms), report.comparisons) == (30, ())
