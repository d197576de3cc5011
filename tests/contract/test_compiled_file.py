"""From a compiled file to a report on a device with an Edge TPU, by the command line.

The file is what the vendor's compiler makes, as far as LiteRT can tell, and is deployed as it
is; the device is this computer, with the vendor's library played by
`edgesdk.testing.FakeCompiledDelegate`, which LiteRT loads and hands the compiled operator.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cli.app import run
from edgesdk.testing import FakeCompiledDelegate
from tests.unit.backends.edgetpu.files import Network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FakeCompiledDelegate.why_not() is not None, reason=str(FakeCompiledDelegate.why_not())
    ),
]
Deploy = Callable[..., tuple[int, dict[str, Any], str]]
OP = "edgetpu-custom-op"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FakeCompiledDelegate:
    return FakeCompiledDelegate(
        tmp_path_factory.mktemp("vendor"), library="libedgetpu.so.1", op=OP
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A compiled operator, and what the compiler left: enough to be measured under load."""
    net = Network()
    taken = net.tensor([1, 128, 128, 4])
    given = net.op(OP, [taken], net.tensor([1, 128, 128, 64]), custom=True)
    for _ in range(4):
        given = net.op("EXP", [given], net.tensor([1, 128, 128, 64]))
    return net.save(tmp_path / "net_edgetpu.tflite", [taken], [given])


@pytest.fixture
def deploy(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    tmp_path: Path,
    model: Path,
    library: FakeCompiledDelegate,
    monkeypatch: pytest.MonkeyPatch,
) -> Deploy:
    """Deploy the file; give the exit code, the document and what was said on stderr."""
    monkeypatch.chdir(tmp_path)

    def typed(*args: str, **settings: str) -> tuple[int, dict[str, Any], str]:
        library.log.unlink(missing_ok=True)
        for name, value in library.environment(FAKE_DELEGATE_US="20000", **settings).items():
            monkeypatch.setenv(name, value)
        device = f"local:?state={tmp_path / 'state'}"
        options = ["--target", "coral-usb", "--device", device, "--force-target"]
        options += ["--runs", "20", "--format", "json", *args]
        code = run(["deploy", str(model), *options])
        seen = capsys.readouterr()
        return code, json.loads(seen.out), seen.err

    return typed


def test_a_compiled_file_runs_on_the_delegate_as_it_is(
    deploy: Deploy, library: FakeCompiledDelegate, model: Path
) -> None:
    code, document, said = deploy("--max-cpu-time", "50%", "-o", "out")
    assert code == 0, said
    assert library.events[:2] == ["created it", "took 1"]
    bundle = json.loads(Path("out/bundle/manifest.json").read_text(encoding="utf-8"))
    (part,) = bundle["parts"]
    assert (part["backend"], part["options"]["delegate"]) == ("edgetpu", "edgetpu")
    assert part["files"][0]["bytes"] == model.stat().st_size
    text = json.dumps(document)
    assert '"accelerated"' in text
    assert '"EDGETPU"' in text, "the compiled operator ran there"
    assert '"EXP"' in text


def test_a_limit_on_time_off_the_accelerator_is_kept(deploy: Deploy) -> None:
    code, _, said = deploy("--max-cpu-time", "0.001%")
    assert code == 1
    assert "0.001%" in said or "off the accelerator" in said


def test_a_device_without_the_accelerator_keeps_what_it_had(
    deploy: Deploy, library: FakeCompiledDelegate
) -> None:
    code, _, said = deploy(FAKE_DELEGATE_ABSENT="1")
    assert code not in (0, 1)
    assert "libedgetpu.so.1" in said
    assert "no device was found" in said
    assert "took 1" not in library.events
