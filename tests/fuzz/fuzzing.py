"""A small fuzzer that follows coverage: what reaches lines that nothing reached is kept.

It needs nothing but the standard library, runs the same from the same seed, and follows lines
of the code under test alone. Findings and what is worth keeping are files, one per input.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.mutate import mutate_bytes

__all__ = ["CORPUS", "Outcome", "Target", "fuzz", "saved_inputs"]

CORPUS = Path(__file__).parent / "corpus"
_MOST_SAVED_BYTES = 4096

Mutate = Callable[[bytes, random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from others.

    Attributes:
        name: Also that of its folder in the corpus.
        seeds: Gives proper inputs to begin with.
        run: Takes an input; whatever it raises is a finding.
        modules: Parts of the paths of files whose lines count as reached.
        mutate: Makes an input of another.
        per_test: How many inputs a run of `make test` tries.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], Any]
    modules: tuple[str, ...]
    mutate: Mutate = mutate_bytes
    per_test: int = 300


@dataclass
class Outcome:
    """What a run tried, and what it found: pairs of an input and what was raised."""

    tried: int = 0
    new: list[bytes] = field(default_factory=list)
    findings: list[tuple[bytes, BaseException]] = field(default_factory=list)


def saved_inputs(target: Target) -> list[bytes]:
    """Inputs that earlier runs found worth keeping, in a fixed order."""
    folder = CORPUS / target.name
    return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []


class _Lines:
    """Notes which lines of some files run; costs about ten times the time."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._modules = tuple(modules)
        self._known: set[tuple[CodeType, int]] = set()
        self._wanted: dict[str, bool] = {}
        self.is_new = False

    def __enter__(self) -> _Lines:
        self.is_new = False
        if self._modules:
            sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        path = frame.f_code.co_filename
        wanted = self._wanted.get(path)
        if wanted is None:
            wanted = self._wanted[path] = any(part in path for part in self._modules)
        return self._line if wanted else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        key = (frame.f_code, frame.f_lineno)
        if key not in self._known:
            self._known.add(key)
            self.is_new = True
        return self._line


def fuzz(
    target: Target,
    *,
    seed: int,
    tries: int | None = None,
    seconds: float | None = None,
    follow: bool = True,
    keep: bool = False,
) -> Outcome:
    """Try inputs until ``tries`` or ``seconds`` are used up, or ten findings are made.

    Args:
        target: What to try them on.
        seed: The same seed, code and corpus try the same inputs.
        tries: How many inputs.
        seconds: How long.
        follow: Whether lines are noted; without, more is tried, and nothing is learnt.
        keep: Whether inputs that reach new lines go into the corpus.
    """
    rng = random.Random(f"{target.name} {seed}")
    known = [*target.seeds(), *saved_inputs(target)]
    lines = _Lines(target.modules if follow else ())
    outcome = Outcome()
    deadline = None if seconds is None else time.monotonic() + seconds
    for data in known:
        _try(target, data, lines, outcome)
    while len(outcome.findings) < 10:
        if tries is not None and outcome.tried >= tries + len(known):
            break
        if deadline is not None and time.monotonic() > deadline:
            break
        data = target.mutate(rng.choice(known), rng, rng.choice(known))
        if _try(target, data, lines, outcome) and follow:
            known.append(data)
            outcome.new.append(data)
            if keep and len(data) <= _MOST_SAVED_BYTES:
                folder = CORPUS / target.name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return outcome


def _try(target: Target, data: bytes, lines: _Lines, outcome: Outcome) -> bool:
    outcome.tried += 1
    try:
        with lines:
            target.run(data)
    except Exception as exc:  # noqa: BLE001 - that is what is looked for
        outcome.findings.append((data, exc))
    return lines.is_new
