"""What happens to releases on a device, and what it has promised whatever goes wrong in it.

Tests of power cuts, of kills and of failing disks run these scenarios and break them off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside

__all__ = ["NEW", "NEXT", "OLD", "SCENARIOS", "Fast", "Scenario", "broken_path", "damage"]

OLDER = EchoBundle(b"an older release", name="older")
OLD = EchoBundle(b"old release", name="old")
NEW = EchoBundle(b"new release" * 20, parts=2, name="new")
NEWER = EchoBundle(b"newer release", parts=2, name="newer")
NEXT = EchoBundle(b"the next release", name="next")
BUNDLES = {bundle.id: bundle for bundle in (OLDER, OLD, NEW, NEWER, NEXT)}
BLOBS = {sha256: data for bundle in BUNDLES.values() for sha256, data in bundle.blobs.items()}


class Fast:
    """System calls without syncs: where no power is cut, nothing depends on them."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def fsync(self, fd: int) -> None:
        pass


@dataclass(frozen=True)
class Scenario:
    """What happens before the power is at stake, and what while it is.

    ``allowed`` are the releases that may be current, None for no release: the one before, and
    one for each switch that is made.
    """

    prepare: Callable[[Inside, Path], object]
    act: Callable[[Inside], object]
    allowed: tuple[EchoBundle | None, ...]
    links: bool = True

    def allowed_ids(self, told: list[tuple[str, str]]) -> set[str | None]:
        """What may be current once so much has been told: a switch that was told is made."""
        switches = sum(1 for op, _ in told if op in ("activate", "rollback"))
        return {None if each is None else each.id for each in self.allowed[switches:]}


def rot(inside: Inside, state: Path) -> None:
    """Damage a file of the current release as a bad sector would; the blob is whole."""
    inside.deploy(OLD)
    part = next((state / "releases" / OLD.id).glob("part-*"))
    part.unlink()
    part.write_bytes(b"rotten")


def old_then_new(inside: Inside, state: Path) -> None:
    inside.deploy(OLD)
    inside.deploy(NEW)


def three(inside: Inside, state: Path) -> None:
    inside.deploy(OLDER)
    old_then_new(inside, state)


def half_pushed(inside: Inside, state: Path) -> None:
    """A push that was cut off, and a release that is in no slot."""
    three(inside, state)
    inside.ask("stage", NEXT.data, bundle=NEXT.id)
    sha256, data = next(iter(NEXT.blobs.items()))
    inside.ask("put", data[:5], sha256=sha256, bytes=len(data), offset=0)


def two_wait(*waiting: EchoBundle) -> Callable[[Inside, Path], None]:
    """Have an old release, and two that only need to be switched to."""

    def prepare(inside: Inside, state: Path) -> None:
        inside.deploy(OLD)
        for bundle in waiting:
            inside.push(bundle)
            inside.pass_check(bundle)

    return prepare


def switch_and_collect(*waiting: EchoBundle) -> Callable[[Inside], object]:
    """Switch to both, one after the other, so that ``gc`` takes the old release away."""

    def act(inside: Inside) -> object:
        for bundle in waiting:
            inside.ask("activate", bundle=bundle.id)
        return inside.ask("gc")

    return act


def failed_check(inside: Inside) -> None:
    inside.agent.releases.forget_pass(NEW.id)
    inside.told.append(("forget", NEW.id))


SCENARIOS = {
    "first": Scenario(lambda inside, state: None, lambda i: i.deploy(OLD), (None, OLD)),
    "deploy": Scenario(
        lambda i, _: i.deploy(OLD), lambda i: i.deploy(NEW, chunk=64), (OLD, NEW)
    ),
    "no-links": Scenario(
        lambda i, _: i.deploy(OLD), lambda i: i.deploy(NEW), (OLD, NEW), links=False
    ),
    "rollback": Scenario(old_then_new, lambda i: i.ask("rollback"), (NEW, OLD)),
    "gc": Scenario(half_pushed, lambda i: i.ask("gc"), (NEW,)),
    "path": Scenario(
        two_wait(OLDER, NEXT), switch_and_collect(OLDER, NEXT), (OLD, OLDER, NEXT)
    ),
    "no-path": Scenario(
        two_wait(NEW, NEWER), switch_and_collect(NEW, NEWER), (OLD, NEW, NEWER)
    ),
    "repair": Scenario(rot, lambda i: i.push(OLD), (OLD,)),
    "forget": Scenario(
        lambda i, _: (i.deploy(OLD), i.push(NEW), i.pass_check(NEW)), failed_check, (OLD,)
    ),
}


def broken_path(state: Path) -> str | None:
    """Say what is wrong with the stable path, before any agent has looked at it."""
    link = state / "serve" / "current"
    if link.is_symlink() and not (link / "manifest.json").is_file():
        return "the stable path leads nowhere"
    return None


def damage(again: Inside, scenario: Scenario, told: list[tuple[str, str]]) -> str | None:
    """Say which promise is broken on a device that has started after a cut, or None."""
    agent = again.agent
    bundle = agent.slots.bundle("current")
    if bundle not in scenario.allowed_ids(told):
        return f"{bundle and bundle[:12]} is current"
    is_rotten = scenario is SCENARIOS["repair"] and ("commit", OLD.id) not in told
    if bundle is not None and not is_rotten:
        again.current()
        if agent.releases.passed(bundle) is None:
            return "a release is current that has no recorded pass"
    for op, what in told:
        if op == "put" and not agent.store.verify(what, len(BLOBS[what])):
            return "a blob that was told to be complete is gone"
        if op == "commit":
            manifest = agent.releases.manifest(what)
            if manifest is None or agent.slots.slot_of(what) is None:
                return "a release that was told to be committed is gone"
            agent.releases.part_paths(what, manifest)
        if op == "pass" and ("forget", what) not in told and not agent.releases.passed(what):
            return "a pass that was recorded is gone"
        if op == "forget" and agent.releases.has_passed(what):
            return "a pass that was taken back is there again"
    return next_deploy_fails(again)


def next_deploy_fails(again: Inside) -> str | None:
    refused = again.deploy(NEXT)
    if refused is not None:
        return f"the next deployment is refused: {refused}"
    if again.current() != NEXT.id:
        return "the next deployment does not become current"
    if not again.ask("gc").meta["ok"]:
        return "gc fails"
    root = Path(again.agent.root.path)
    left = [path for path in root.rglob("*") if path.name.endswith(".tmp")]
    left += [*(root / "staging").iterdir(), *(root / "pending").iterdir()]
    left += [each for each in (root / "releases").iterdir() if len(each.name) != 64]
    return f"{left[0].name} is left for good" if left else None
