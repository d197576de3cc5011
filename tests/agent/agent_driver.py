"""Drives a packed agent as a host would, and makes bundles that need no runtime."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesdk.wire.frames import Frame, FrameReader, encode_frame
from edgesdk.wire.manifest import MANIFEST_SCHEMA, bundle_id, canonical_bytes, load_manifest

# read at import: tests run with a home of their own
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
VERSIONS = ("3.7", "3.8", "3.9", "3.11", "3.13")
HELLO = {"protocol": [1, 1], "host_version": "0.1.0", "session": "ab" * 16}
ONE = b"\1\0\0\0\2\0\0\0"


def find_python(version: str) -> str | None:
    """A real CPython of that minor version: from pyenv, else from PATH."""
    for found in sorted(_PYENV.glob(f"{version}.*/bin/python{version}")):
        return str(found)
    return shutil.which(f"python{version}")


class AgentProcess:
    """One agent as a child process, and the host's side of the conversation."""

    def __init__(
        self, command: list[str], *, env: dict[str, str] | None = None, greet: bool = True
    ) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.talk = Talk(self.process.stdout.fileno(), self.process.stdin.fileno())
        if greet:
            self.hello = self.ask("hello", **HELLO).meta

    def ask(self, op: str, body: bytes = b"", **meta: Any) -> Frame:
        return self.talk.ask(op, body, **meta)

    def hang_up(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stderr(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


class Talk:
    """Frames over two descriptors."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing
        self.reader = FrameReader()
        self.frames: list[Frame] = []
        self.events: list[dict[str, Any]] = []
        self.last_id = 0

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.writing, data) :]

    def send(self, op: str, body: bytes = b"", **meta: Any) -> int:
        self.last_id += 1
        self.write(encode_frame(Frame({"op": op, "id": self.last_id, **meta}, body)))
        return self.last_id

    def receive(self, timeout_s: float = 60) -> Frame:
        deadline = time.monotonic() + timeout_s
        while True:
            while not self.frames:
                left = deadline - time.monotonic()
                ready, _, _ = select.select([self.reading], [], [], max(0.0, left))
                assert ready, f"the agent said nothing for {timeout_s} s"
                data = os.read(self.reading, 1 << 18)
                if not data:
                    raise EOFError("the agent hung up")
                self.frames += self.reader.feed(data)
            frame = self.frames.pop(0)
            if "event" not in frame.meta:
                return frame
            self.events.append(frame.meta)

    def ask(self, op: str, body: bytes = b"", **meta: Any) -> Frame:
        number = self.send(op, body, **meta)
        frame = self.receive()
        assert frame.meta["id"] == number
        return frame


Start = Callable[..., AgentProcess]


class SocketTalk(Talk):
    """Frames over the daemon's socket."""

    def __init__(self, state: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(state / "agent.sock"))
        super().__init__(self.socket.fileno(), self.socket.fileno())

    def close(self) -> None:
        self.socket.close()


class EchoBundle:
    """A bundle of echo parts: int32[2] in, the same out."""

    def __init__(
        self,
        data: bytes = b"model",
        *,
        parts: int = 1,
        options: dict[str, Any] | None = None,
        given: bytes = ONE,
        expected: bytes = ONE,
        name: str = "echo",
        runtime: str = "echo",
        tolerance: float = 0.0,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        names = ["x", *(f"between-{i}" for i in range(1, parts)), "y"]
        self.manifest: dict[str, Any] = {
            "schema": MANIFEST_SCHEMA,
            "name": name,
            "precision": "fp32",
            "target": {"name": "some-board"},
            "model": {},
            "inputs": [self._value("x")],
            "outputs": [self._value("y")],
            "parts": [
                {
                    "backend": "echo-cpu",
                    "runtime": runtime,
                    "format": "bytes",
                    "precision": "fp32",
                    "files": [{**self._add(data + b"\0" * i), "role": "model"}],
                    "inputs": [self._value(names[i])],
                    "outputs": [self._value(names[i + 1])],
                    "options": options or {},
                }
                for i in range(parts)
            ],
            "checks": [
                {
                    "blob": self._add(given + expected),
                    "inputs": [{**self._value("x"), "offset": 0, "nbytes": len(given)}],
                    "expected": [
                        {**self._value("y"), "offset": len(given), "nbytes": len(expected)}
                    ],
                    "reference": [],
                    "tolerance": [{"output": "y", "abs": tolerance, "rel": 0.0}],
                }
            ],
            "attachments": [],
        }

    @staticmethod
    def _value(name: str) -> dict[str, Any]:
        return {"name": name, "dtype": "int32", "shape": [2]}

    def _add(self, data: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return {"sha256": sha256, "bytes": len(data)}

    @property
    def data(self) -> bytes:
        data = canonical_bytes(self.manifest)
        load_manifest(data)
        return data

    @property
    def id(self) -> str:
        return bundle_id(self.manifest)


def stage(talk: Any, bundle: EchoBundle) -> list[dict[str, Any]]:
    reply = talk.ask("stage", bundle.data, bundle=bundle.id).meta
    assert reply["ok"], reply
    missing: list[dict[str, Any]] = reply["missing"]
    return missing


def put(talk: Any, sha256: str, data: bytes, *, have: int = 0, chunk: int = 1 << 16) -> None:
    offset = have
    while True:
        reply = talk.ask(
            "put", data[offset : offset + chunk], sha256=sha256, bytes=len(data), offset=offset
        ).meta
        assert reply["ok"], reply
        offset = reply["have"]
        if reply["done"]:
            return


def push(talk: Any, bundle: EchoBundle, *, chunk: int = 1 << 16) -> None:
    for blob in stage(talk, bundle):
        data = bundle.blobs[blob["sha256"]]
        put(talk, blob["sha256"], data, have=blob["have"], chunk=chunk)
    assert talk.ask("commit", bundle=bundle.id).meta["committed"]


def deploy(talk: Any, bundle: EchoBundle) -> None:
    push(talk, bundle)
    assert talk.ask("check", bundle=bundle.id).meta["passed"]
    slots = talk.ask("activate", bundle=bundle.id).meta["slots"]
    assert slots["current"]["bundle"] == bundle.id


def current(talk: Any) -> str | None:
    slot = talk.ask("status").meta["slots"]["current"]
    return None if slot is None else slot["bundle"]


def wait_until_gone(pid: int, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still lives after {timeout_s} s")
