"""A full, failing or read-only disk at every single write: the next push still works."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame
from tests.agent.agent_driver import EchoBundle

METHODS = ("open", "write", "truncate", "fsync", "mkdir", "rename", "link", "unlink", "rmdir")
OLD, NEW = EchoBundle(b"old release"), EchoBundle(b"new release" * 100, parts=2)


class Breaking:
    """System calls of which the n-th fails; the log does not count, it may fail."""

    def __init__(self, real: Any, number: int, code: int) -> None:
        self.real = real
        self.left = number
        self.code = code
        self.broke = ""
        for name in METHODS:
            setattr(self, name, self._wrapped(name))
        self.chmod = real.chmod

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = getattr(self.real, name)

        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.broke = name
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        return call


@pytest.fixture
def modules(agent_modules: Callable[[str], Any]) -> Iterator[Any]:
    fs = agent_modules("edge_agent.fs")
    names = ("handlers", "fs", "landing", "store", "logs", "serve")
    yield {name: agent_modules(f"edge_agent.{name}") for name in names}
    del fs


class Inside:
    """An agent in this process, without links or workers."""

    def __init__(self, modules: Any, state: Path) -> None:
        self.modules = modules
        root = modules["fs"].Folder.open_state(str(state))
        self.agent = modules["handlers"].Agent(root, python="", daemon=False)
        self.agent.log.write = lambda text: None
        self.agent.slots._log = self.agent.log.write
        self.ctx = modules["serve"].Context("test", lambda meta: None)

    def ask(self, op: str, body: bytes = b"", **meta: Any) -> Frame:
        frame: Frame = self.modules["handlers"].answer(
            self.agent, self.ctx, Frame({"op": op, "id": 1, **meta}, body)
        )
        return frame

    def deploy(self, bundle: EchoBundle) -> dict[str, Any] | None:
        """Deploy without the check's worker; give the first refusal."""
        reply = self.ask("stage", bundle.data, bundle=bundle.id).meta
        if not reply["ok"]:
            return reply
        for blob in reply["missing"]:
            data = bundle.blobs[blob["sha256"]][blob["have"] :]
            meta = {"sha256": blob["sha256"], "bytes": blob["bytes"], "offset": blob["have"]}
            reply = self.ask("put", data, **meta).meta
            if not reply["ok"]:
                return reply
        reply = self.ask("commit", bundle=bundle.id).meta
        if not reply["ok"]:
            return reply
        try:
            self.agent.releases.record_pass(bundle.id, {"reply": {}}, b"")
        except OSError as exc:
            return {"ok": False, "code": str(exc.errno)}
        reply = self.ask("activate", bundle=bundle.id).meta
        return None if reply["ok"] else reply

    def current(self) -> str:
        slots = self.ask("status").meta["slots"]
        bundle, manifest = self.agent.releases.need("current")
        self.agent.releases.part_paths(bundle, manifest)
        assert slots["current"]["bundle"] == bundle
        return str(bundle)


def break_everywhere(modules: Any, state: Path, code: int, monkeypatch: Any) -> set[str]:
    """Deploy with the 1st, 2nd, ... call failing until none fails; give the refusals' codes."""
    real, fs = modules["fs"].calls, modules["fs"]
    codes: set[str] = set()
    users = [modules[name] for name in ("fs", "landing", "store", "logs")]

    def use(calls: Any) -> None:
        for module in users:
            if hasattr(module, "calls"):
                monkeypatch.setattr(module, "calls", calls)

    number = 0
    while True:
        number += 1
        folder = state / f"{code}-{number}"
        inside = Inside(modules, folder)
        assert inside.deploy(OLD) is None
        breaking = Breaking(real, number, code)
        use(breaking)
        refused = inside.deploy(NEW)
        use(real)
        if not breaking.broke:
            assert refused is None
            assert number > 30
            inside.agent.close()
            return codes
        if refused is not None:
            codes.add(refused["code"])
        assert inside.current() in {OLD.id, NEW.id}, (number, breaking.broke)
        inside.agent.close()
        again = Inside(modules, folder)
        assert again.current() in {OLD.id, NEW.id}, (number, breaking.broke)
        assert again.deploy(NEW) is None, (number, breaking.broke)
        assert again.current() == NEW.id
        assert again.ask("gc").meta["ok"]
        assert [n for n in fs.Folder.names(again.agent.root) if n.endswith(".tmp")] == []
        again.agent.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, "no-space"),
        (errno.EDQUOT, "no-space"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "disk-error"),
    ],
    ids=["ENOSPC", "EDQUOT", "EROFS", "EIO"],
)
def test_error_at_any_write_loses_nothing(
    modules: Any,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    expected: str,
) -> None:
    state.mkdir()
    codes = break_everywhere(modules, state, code, monkeypatch)
    assert codes - {str(code)} == {expected}


def test_blob_whose_sync_failed_is_sent_again_from_its_beginning(
    modules: Any, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sync may succeed though the bytes are gone: what memory holds proves nothing."""
    inside = Inside(modules, state)
    ((sha256, data), *_) = NEW.blobs.items()
    inside.ask("stage", NEW.data, bundle=NEW.id)
    real, store = modules["fs"].calls, modules["store"]

    class NoSync:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def fsync(self, fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store, "calls", NoSync())
    reply = inside.ask("put", data, sha256=sha256, bytes=len(data), offset=0).meta
    assert reply["code"] == "disk-error"
    monkeypatch.setattr(store, "calls", real)
    missing = inside.ask("stage", NEW.data, bundle=NEW.id).meta["missing"]
    assert {blob["sha256"]: blob["have"] for blob in missing}[sha256] == 0
    inside.agent.close()


def test_full_disk_is_not_filled_further_by_what_failed(
    modules: Any, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = modules["fs"]
    folder = fs.Folder.open_state(str(state))

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(fs.Calls(), name)

        def write(self, fd: int, data: Any) -> int:
            if len(data) > 10:
                return os.write(fd, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fs, "calls", Full())
    with pytest.raises(OSError, match="No space"):
        folder.write_whole("passed.bin", bytes(15))
    assert folder.names() == []
    folder.close()


def test_worker_ended_by_another_is_an_answer_not_silence(
    modules: Any, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, handlers = Inside(modules, state), modules["handlers"]

    def ended(*_: Any) -> None:
        raise handlers.Cancelled

    monkeypatch.setitem(handlers.HANDLERS, "status", ended)
    assert inside.ask("status").meta["code"] == "worker-died"
    inside.ctx.cancel()
    with pytest.raises(handlers.Cancelled):
        inside.ask("status")
    inside.agent.close()
