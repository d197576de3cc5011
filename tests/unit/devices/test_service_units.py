"""The systemd units: systemd itself reads them, and says how much they leave open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgesdk._resources import resource_dir
from edgesdk.devices.install import console_unit_text, unit_text

ANALYZE = shutil.which("systemd-analyze")
SERVICE = resource_dir("device_agents") / "service"
#: Of ten. An agent of more trust has lost one of its locks.
MOST_EXPOSED = 3.0

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here")


def analyze(*words: str, folder: Path) -> str:
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return text


def installed(folder: Path, name: str) -> Path:
    """Lay a template out as it is on a device, with an instance for root, who is everywhere."""
    stem, _, suffix = name.partition(".")
    (folder / f"{stem}@.{suffix}").write_text((SERVICE / name).read_text())
    instance = folder / f"{stem}@root.{suffix}"
    instance.symlink_to(f"{stem}@.{suffix}")
    return instance


@needs_systemd
def test_systemd_accepts_the_unit_and_finds_little_open(tmp_path: Path) -> None:
    unit = installed(tmp_path, "edge-agent.service")
    assert analyze("verify", str(unit), folder=tmp_path) == ""
    text = analyze("security", "--offline=yes", str(unit), folder=tmp_path)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", text)
    assert found is not None, text
    assert float(found[1]) <= MOST_EXPOSED, text


@needs_systemd
@pytest.mark.parametrize("how", ["by hand", "by install"])
def test_systemd_accepts_the_unit_of_a_console(tmp_path: Path, how: str) -> None:
    if how == "by hand":
        text = (SERVICE / "edge-agent-console.service").read_text()
        text = re.sub(r" USER$", " root", text, flags=re.MULTILINE)
        assert "--user root\n" in text
    else:
        text = console_unit_text(baud=921_600, rtscts=True)
        for word in ("PYTHON", "AGENT", "STATE"):
            text = text.replace(f"@{word}@", '"/usr/bin/env"')
        assert " --baud 921600 --rtscts --console " in text
    assert "@" not in re.sub(r"\w+@%i", "", text.partition("[Service]")[2])
    (tmp_path / "edge-agent-console@.service").write_text(text)
    unit = tmp_path / "edge-agent-console@ttyS0.service"
    unit.symlink_to("edge-agent-console@.service")
    assert analyze("verify", str(unit), folder=tmp_path) == ""


def test_console_gives_the_line_back_to_the_login_prompt() -> None:
    lines = (SERVICE / "edge-agent-console.service").read_text().splitlines()
    assert "Conflicts=serial-getty@%i.service rescue.service" in lines
    assert "OnFailure=serial-getty@%i.service" in lines
    assert "NoNewPrivileges=yes" not in lines, "nobody who logs in could use sudo"


@needs_systemd
def test_systemd_accepts_the_unit_that_is_installed_for_a_user(tmp_path: Path) -> None:
    unit = tmp_path / "edgesdk-agent.service"
    unit.write_text(
        unit_text(python="/usr/bin/env", agent="/a b/%h $x/agent.pyz", state='/home/u/"s"')
    )
    assert analyze("verify", "--user", str(unit), folder=tmp_path) == ""


@pytest.mark.parametrize("which", ["system", "user"])
def test_units_watch_the_agent_and_restart_it_within_limits(which: str) -> None:
    text = (
        (SERVICE / "edge-agent.service").read_text()
        if which == "system"
        else unit_text(python="/usr/bin/python3", agent="/a.pyz", state="/s")
    )
    lines = set(text.splitlines())
    assert {"Type=notify", "NotifyAccess=main", "Restart=on-failure"} <= lines
    assert {"NoNewPrivileges=yes", "LimitCORE=0", "RestartPreventExitStatus=2 70"} <= lines
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))
    assert 10 <= int(settings["WatchdogSec"]) <= 120
    # the limit can be reached: so many starts fit into the interval
    starts = int(settings["StartLimitIntervalSec"]) / int(settings["RestartSec"])
    assert 5 <= int(settings["StartLimitBurst"]) < starts
