"""A full, failing or read-only disk, or a kill, at every call: the next push still works."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.inside import Inside, import_agent, using_calls
from tests.agent.scenarios import NEW, SCENARIOS, Fast, Scenario, damage

METHODS = (
    *("open", "write", "truncate", "fsync", "chmod", "mkdir"),
    *("rename", "link", "symlink", "unlink", "rmdir"),
)


class Killed(BaseException):
    """The process is gone: nothing it would have tidied up is tidied up."""


class Breaking:
    """System calls of which the n-th fails, or is where the process is killed.

    A process that is killed makes no call any more, so neither does this one.
    """

    def __init__(self, real: Any, number: int, code: int | None) -> None:
        self.left = number
        self.code = code
        self.broke = ""
        for name in METHODS:
            setattr(self, name, self._wrapped(name, getattr(real, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.broke = name
            if self.code is None and self.left <= 0:
                raise Killed
            if self.code is not None and self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        return call


@pytest.fixture
def modules() -> dict[str, Any]:
    return import_agent()


def break_everywhere(
    modules: Any, folder: Path, scenario: Scenario, code: int | None
) -> tuple[int, set[str]]:
    """Break a scenario at its 1st, 2nd, ... call until it gets by without one.

    Give how many calls it makes, and the codes of the refusals.
    """
    fast = Fast(modules["fs"].Calls())
    codes: set[str] = set()
    number = 0
    while True:
        number += 1
        state = folder / f"{code}-{number}"
        with using_calls(fast):
            inside = Inside(modules, state)
            scenario.prepare(inside, state)
            inside.told.clear()
        breaking = Breaking(fast, number, code)
        refused: object = None
        with using_calls(breaking), contextlib.suppress(OSError, Killed):
            refused = scenario.act(inside)
        meta = getattr(refused, "meta", refused)
        if isinstance(meta, dict) and not meta["ok"]:
            codes.add(meta["code"])
        with using_calls(fast):
            if breaking.broke and code is not None:
                # the agent that met the error lives on, and has forgotten nothing
                assert inside.agent.slots.bundle("current") in scenario.allowed_ids(inside.told)
            inside.agent.close()
            again = Inside(modules, state)
            why = damage(again, scenario, inside.told)
            again.close()
        assert why is None, f"call {number} ({breaking.broke}): {why}"
        shutil.rmtree(state)
        if not breaking.broke:
            return number - 1, codes


@pytest.mark.parametrize("name", SCENARIOS)
def test_kill_at_any_call_loses_nothing(
    name: str, modules: dict[str, Any], tmp_path: Path
) -> None:
    calls, codes = break_everywhere(modules, tmp_path, SCENARIOS[name], None)
    assert calls >= 2
    assert not codes


#: What the host is told of each error. To the agent the second two are what the first are.
TOLD = {
    errno.ENOSPC: "no-space",
    errno.EIO: "disk-error",
    errno.EDQUOT: "no-space",
    errno.EROFS: "read-only",
}
CASES = [(name, code) for code in (errno.ENOSPC, errno.EIO) for name in SCENARIOS]
CASES += [("deploy", errno.EDQUOT), ("deploy", errno.EROFS)]


@pytest.mark.parametrize(
    ("name", "code"), CASES, ids=[f"{name}-{errno.errorcode[code]}" for name, code in CASES]
)
def test_error_at_any_call_loses_nothing(
    name: str, code: int, modules: dict[str, Any], tmp_path: Path
) -> None:
    expected = TOLD[code]
    calls, codes = break_everywhere(modules, tmp_path, SCENARIOS[name], code)
    assert calls >= 2
    assert codes - {str(code)} <= {expected}
    if name == "deploy":
        assert calls > 30
        assert expected in codes


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
