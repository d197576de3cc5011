"""Power cuts at every moment, on a disk that keeps no more than it was made to keep.

A kill leaves what the system holds in memory, so it never shows a missing fsync. Here the
agent's operations run on a recorder (`crash_model`), and after each system call every state
that a cut might leave is built; the agent starts on it, and has to keep what it promised.
"""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.agent import crash_model
from tests.agent.crash_model import Recorder
from tests.agent.inside import Inside, import_agent, using_calls
from tests.agent.scenarios import SCENARIOS, Fast, broken_path, damage

#: Of the same kind as what is left in, and as long as all of that.
LONGER = pytest.mark.faults

#: In the order in which a missing sync is found soonest.
QUICKEST = (
    "forget",
    "path",
    "no-path",
    "rollback",
    "first",
    "repair",
    "no-links",
    "deploy",
    "gc",
)
assert set(QUICKEST) == set(SCENARIOS)
#: Where the sync of a function is missed at once; else several scenarios run before that.
SOONEST = {"sub": "first", "move": "first", "_remove": "no-path"}


class Violation(BaseException):
    """A promise that a power cut breaks; no `Exception`, which the agent would answer."""


@dataclass
class Seen:
    """What a run of a scenario looked at."""

    calls: int = 0
    states: int = 0
    sites: set[str] = field(default_factory=set)


def cut_everywhere(
    modules: Any, folder: Path, name: str, *, without: str | None = None
) -> Seen:
    """Run a scenario and cut the power after each system call.

    Raises:
        Violation: A state breaks a promise.
    """
    scenario = SCENARIOS[name]
    real, seen, known = modules["fs"].Calls(), Seen(), set[str]()
    fast = Fast(real)
    state = folder / "state"
    state.mkdir(mode=0o700, parents=True)
    if name != "first":
        with using_calls(fast):
            inside = Inside(modules, state)
            scenario.prepare(inside, state)
            inside.close()
    recorder = Recorder(real, state, without=without, links=scenario.links)
    running: list[Inside] = []

    def look() -> None:
        told = list(running[0].told) if running else []
        for each in recorder.states():
            key = crash_model.digest(each) + repr(told)
            if key in known:
                continue
            known.add(key)
            crashed = folder / f"crash-{len(known)}"
            crash_model.write_state(each, crashed)
            with using_calls(fast):
                try:
                    why = broken_path(crashed)
                    again = Inside(modules, crashed)
                    why = why or damage(again, scenario, told)
                    again.close()
                except (AssertionError, modules["refusals"].Refused) as exc:
                    why = str(exc)
            if why is not None:
                raise Violation(f"{name}, call {recorder.count}: {why} ({crashed})")
            shutil.rmtree(crashed)

    recorder.on_change = look
    with using_calls(recorder):
        inside = Inside(modules, state)
        running.append(inside)
        scenario.act(inside)
        look()
        recorder.on_change = lambda: None
        inside.close()
    seen.calls, seen.states, seen.sites = recorder.count, len(known), recorder.sites
    return seen


@pytest.fixture
def modules() -> dict[str, Any]:
    return import_agent()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=LONGER if each == "no-links" else ()) for each in SCENARIOS],
)
def test_a_power_cut_after_any_call_breaks_no_promise(
    name: str, modules: Any, tmp_path: Path
) -> None:
    seen = cut_everywhere(modules, tmp_path, name)
    print(f"{name}: {seen.calls} calls, {seen.states} states")
    assert seen.states > seen.calls


#: Everything that syncs on the way of a release. An engine's cache is sealed by hashes instead.
SYNCING = ("fs", "landing", "releases", "serving_path", "slots", "store")


def written_sites() -> dict[str, str]:
    """Name every line that syncs a file or a folder, from the source, and its function."""
    found = {}
    for module in SYNCING:
        path = Path(__file__).parents[2] / "device_agents" / "edge_agent" / f"{module}.py"
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.name in ("sync", "fsync"):
                continue
            for node in ast.walk(function):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr in ("sync", "fsync"):
                    found[f"{module}.py:{called.lineno}"] = function.name
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "function"),
    [
        pytest.param(site, name, id=f"{site}-{name}", marks=LONGER if name == "_copy" else ())
        for site, name in sorted(written_sites().items())
    ],
)
def test_without_any_one_sync_a_promise_breaks(
    site: str, function: str, modules: Any, tmp_path: Path
) -> None:
    """Which proves both that the sync is needed and that the test above would miss it."""
    ran = False
    for name in sorted(QUICKEST, key=lambda each: each != SOONEST.get(function)):
        try:
            seen = cut_everywhere(modules, tmp_path / name, name, without=site)
        except Violation:
            return
        ran = ran or site in seen.sites
    pytest.fail(
        f"no promise depends on the sync at {site}: drop it, or test what it is for"
        if ran
        else f"no scenario comes by the sync at {site}"
    )
