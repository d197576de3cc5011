"""The packed agent is the same bytes everywhere, and holds what a device needs and no more."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgesdk.devices.agentpack import pack_agent, save_agent
from edgesdk.devices.hints import runtime_hint
from edgesdk.devices.install import unit_text
from edgesdk.errors import OutputError


def test_packing_twice_gives_the_same_bytes() -> None:
    first, second = pack_agent(), pack_agent()
    assert first == second
    assert first.sha256 == hashlib.sha256(first.data).hexdigest()


def test_another_process_packs_the_same_bytes(root: Path) -> None:
    code = "from edgesdk.devices import pack_agent; print(pack_agent().sha256)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=root,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
    )
    assert done.stdout.strip() == pack_agent().sha256


def test_package_holds_agent_and_wire_only() -> None:
    with zipfile.ZipFile(io.BytesIO(pack_agent().data)) as archive:
        names = archive.namelist()
        assert archive.read("edgesdk/__init__.py") == b""
    assert names == sorted(names)
    assert "edge_agent/__main__.py" in names
    assert "edgesdk/wire/frames.py" in names
    assert {name.split("/")[0] for name in names} == {"__main__.py", "edge_agent", "edgesdk"}
    assert not [
        n
        for n in names
        if n.startswith("edgesdk/") and n.split("/")[1] not in ("__init__.py", "wire")
    ]
    assert all(name.endswith(".py") for name in names)


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the agent to"):
        save_agent(tmp_path / "file" / "agent.pyz")


@pytest.mark.parametrize(
    ("runtime", "python", "machine", "says"),
    [
        ("onnxruntime", "3.7.16", "aarch64", "`python3.7 -m pip install onnxruntime==1.14.1`"),
        ("onnxruntime", "3.8.10", "aarch64", "onnxruntime==1.19.2`"),
        ("onnxruntime", "3.9.2", "x86_64", "onnxruntime==1.19.2`"),
        ("onnxruntime", "3.10.12", "aarch64", "onnxruntime==1.23.2`"),
        ("onnxruntime", "3.12.1", "aarch64", "-m pip install onnxruntime`"),
        ("onnxruntime", "3.11.2", "armv7l", "there is no wheel of onnxruntime for Python 3.11"),
        ("litert", "3.7.3", "aarch64", "tflite-runtime==2.11.0`"),
        ("litert", "3.9.2", "aarch64", "ai-edge-litert==2.1.0`"),
        ("litert", "3.11.2", "armv7l", "tflite-runtime==2.14.0`"),
        ("litert", "3.13.0", "x86_64", "-m pip install ai-edge-litert`"),
        ("litert", "3.12.0", "armv7l", "no wheel of ai-edge-litert or tflite-runtime"),
        ("openvino", "3.8.10", "x86_64", "openvino==2024.4.0`"),
        ("tensorrt", "3.8.10", "aarch64", "comes with the board's own image"),
        ("unheard-of", "3.8.10", "aarch64", "install unheard-of"),
        ("onnxruntime", "nonsense", "aarch64", "install onnxruntime for the interpreter"),
    ],
)
def test_missing_runtime_has_the_exact_command(
    runtime: str, python: str, machine: str, says: str
) -> None:
    assert says in runtime_hint(runtime, python=python, machine=machine)


def test_unit_quotes_what_systemd_would_interpret() -> None:
    text = unit_text(python="/usr/bin/python3", agent="/a b/%h $x/agent.pyz", state='/s"')
    assert '"/a b/%%h $$x/agent.pyz"' in text
    assert '"/s\\""' in text
    assert "NoNewPrivileges=yes" in text
