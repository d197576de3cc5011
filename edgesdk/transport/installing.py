"""Make an agent stay on a device: a second constant script, run after the bootstrap.

It copies the agent to a path that stays the same and hands a unit to the user's systemd, where
there is one. As with the bootstrap, all that varies travels as one line of JSON.
"""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import dataclass

from edgesdk.errors import BootstrapError
from edgesdk.transport.bootstrap import MarkerReader, Placed

__all__ = ["InstallOutcome", "install_command", "install_header", "read_outcome"]

UNIT_NAME = "edgesdk-agent.service"

# Python 3.7, like the agent: the bootstrap has made sure of it.
_SCRIPT = r"""
import sys
sys.path = [p for p in sys.path if p]
import os, json, shutil, subprocess, time
head = json.loads(sys.stdin.buffer.readline(65536).decode("utf-8"))
def say(*words):
    os.write(1, ("\nEDGESDK %s %s\n" % (head["token"], json.dumps(words))).encode("ascii"))
def put(path, data):
    part = path + ".partial"
    with open(part, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)
def control(*words):
    done = subprocess.run(["systemctl", "--user"] + list(words), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()[-300:]
stage, notes, unit, running = "copy", [], "", False
try:
    with open(head["agent"], "rb") as f:
        put(head["stable"], f.read())
    stage = "systemd"
    if not shutil.which("systemctl"):
        notes.append("there is no systemctl")
    elif control("show-environment")[0] != 0:
        notes.append("systemd serves no user here: " + control("show-environment")[1])
    else:
        unit = os.path.expanduser("~/.config/systemd/user/" + head["unit_name"])
        os.makedirs(os.path.dirname(unit), exist_ok=True)
        put(unit, head["unit_text"].encode("utf-8"))
        name = head["unit_name"]
        for words in (["daemon-reload"], ["enable", name], ["restart", "--no-block", name]):
            status, text = control(*words)
            if status:
                notes.append("systemctl --user %s: %s" % (words[0], text))
        for _ in range(40):  # it may wait for the agent of a session that goes on
            status, text = control("is-active", name)
            if text not in ("activating", "deactivating"):
                break
            time.sleep(0.5)
        running = status == 0
        if not running:
            why = control("show", "--property=StatusText", "--value", name)[1]
            notes.append("systemd says %s%s" % (text, why and ": " + why))
        if shutil.which("loginctl"):
            null = subprocess.DEVNULL
            done = subprocess.run(["loginctl", "enable-linger"], stdin=null, stdout=null,
                                  stderr=null, timeout=30)
            if done.returncode:
                notes.append("it ends at logout: `sudo loginctl enable-linger $USER` keeps it")
    say("DONE", unit, int(running), *notes)
except subprocess.TimeoutExpired as e:
    say("FAIL", stage, "%s took too long" % e.cmd)
except (OSError, ValueError) as e:
    say("FAIL", stage, str(e))
"""
_ENCODED = base64.b64encode(_SCRIPT.encode("ascii")).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOutcome:
    """What the script did; ``unit`` is empty where no systemd takes one."""

    unit: str
    running: bool
    notes: tuple[str, ...]


def install_command(python: str = "python3") -> str:
    """Give the remote command; see `edgesdk.transport.bootstrap.bootstrap_command`."""
    code = f'import base64;exec(base64.b64decode("{_ENCODED}"))'
    return f"{shlex.quote(python)} -E -s -S -c '{code}'"


def install_header(*, token: str, placed: Placed, stable: str, unit_text: str) -> bytes:
    """Give the line that goes to the script's standard input."""
    record = {
        "token": token,
        "agent": placed.path,
        "stable": stable,
        "unit_name": UNIT_NAME,
        "unit_text": unit_text,
    }
    return json.dumps(record).encode("ascii") + b"\n"


def read_outcome(output: bytes, *, token: str, name: str) -> InstallOutcome:
    """Read what the script printed.

    Raises:
        BootstrapError: It failed, or said nothing.
    """
    marker = MarkerReader(token).feed(output)
    words = [str(word) for word in marker.words] if marker is not None else []
    if marker is None or marker.stage != "DONE" or len(words) < 2:
        reason = ": ".join(words) or "the script said nothing"
        raise BootstrapError(
            f"cannot install the agent on {name}: {reason}",
            hint="may that user write to the state folder and to ~/.config?",
            device=name,
        )
    return InstallOutcome(unit=words[0], running=words[1] == "1", notes=tuple(words[2:]))
