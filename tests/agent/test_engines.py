"""The folder of finished engines: what is kept, found, refused and removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Modules = Callable[[str], Any]


@pytest.fixture
def engines(agent_modules: Modules, tmp_path: Path) -> Any:
    with agent_modules("edge_agent.engines").Engines(str(tmp_path / "engines")) as opened:
        yield opened


def publish(engines: Any, model: str, data: bytes = b"engine", **more: Any) -> dict[str, Any]:
    wanted = {"model": [model], "driver": 1, **more}
    with engines.building() as folder:
        path = os.path.join(folder, "engine")
        Path(path).write_bytes(data)
        engines.publish(path, wanted, {"builder": "test"})
    return wanted


def names(engines: Any) -> list[str]:
    return sorted(path.suffix for path in Path(engines.path).iterdir())


def test_what_was_published_is_found_with_its_path(engines: Any) -> None:
    wanted = publish(engines, "a" * 64, b"the engine")
    record, why = engines.find(wanted)
    assert why == ""
    assert Path(record["path"]).read_bytes() == b"the engine"
    assert (record["bytes"], record["builder"]) == (10, "test")
    assert names(engines) == [".engine", ".json"]


def test_the_nearest_is_named_where_none_fits(engines: Any) -> None:
    publish(engines, "a" * 64)
    record, why = engines.find({"model": ["a" * 64], "driver": 2})
    assert record is None
    assert why == "the engine that is here was built for driver 1 (here 2)"
    record, why = engines.find({"model": ["b" * 64], "driver": 1})
    assert (record, why) == (None, "no engine has been built of it on this device")


def test_a_record_under_another_name_is_not_believed(engines: Any) -> None:
    wanted = publish(engines, "a" * 64)
    (path,) = Path(engines.path).glob("*.json")
    record = json.loads(path.read_text())
    record["fingerprint"]["driver"] = 9
    path.write_text(json.dumps(record))
    assert engines.find(wanted)[0] is None
    assert engines.find(record["fingerprint"])[0] is None


@pytest.mark.parametrize("kind", ["link", "missing", "short", "folder"])
def test_an_engine_that_is_something_else_is_not_used(engines: Any, kind: str) -> None:
    wanted = publish(engines, "a" * 64, b"0123456789")
    (path,) = Path(engines.path).glob("*.engine")
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "short":
        path.write_bytes(b"01234")
    elif kind == "folder":
        path.mkdir()
    record, why = engines.find(wanted)
    assert record is None
    assert why.startswith("its engine ")


def test_what_a_killed_builder_left_goes_and_the_rest_stays(engines: Any) -> None:
    wanted = publish(engines, "a" * 64)
    folder = Path(engines.path)
    (folder / "build-123").mkdir()
    (folder / "build-123" / "engine").write_bytes(b"half")
    (folder / (40 * "b" + ".engine")).write_bytes(b"no record")
    (folder / ".x.tmp").write_bytes(b"half a record")
    (folder / "timing-ab.cache").write_bytes(b"timings")
    engines.clean()
    assert names(engines) == [".cache", ".engine", ".json"]
    assert engines.find(wanted)[0] is not None


def test_engines_of_models_that_are_gone_are_removed(engines: Any) -> None:
    kept = publish(engines, "a" * 64)
    publish(engines, "b" * 64, b"123456")
    assert engines.keep_only(["a" * 64]) == 6
    assert engines.find(kept)[0] is not None
    assert names(engines) == [".engine", ".json"]


def test_beyond_the_cap_the_longest_unused_go_first(engines: Any) -> None:
    old, used, new = (publish(engines, letter * 64, b"x" * 100) for letter in "abc")
    for age, wanted in enumerate((new, used, old)):
        record, _ = engines.find(wanted)
        path = record["path"].replace(".engine", ".json")
        os.utime(path, (1000 - age, 1000 - age))
    assert engines.find(used)[0] is not None  # which makes it the newest
    assert engines.keep_only(cap_bytes=150) == 200
    assert engines.find(used)[0] is not None
    assert engines.find(old)[0] is None
    assert engines.find(new)[0] is None
    assert engines.keep_only(cap_bytes=1) == 0, "the one in use stays"


def test_states_change_with_the_engine(engines: Any) -> None:
    publish(engines, "a" * 64, b"one")
    before = engines.states(["a" * 64])
    publish(engines, "a" * 64, b"two")
    assert engines.states(["a" * 64]) != before
    assert engines.states(["b" * 64]) == []
