"""Remember measurements: add, find, label and remove them in one SQLite file.

Reports are kept whole as the bytes of ``report.json``, packed; who reads and writes those is
`edgesdk.report`, so this module takes and gives bytes. What a row of the file says is not
believed: a wrong type counts as absent, and what unpacks to more than a report can be is
refused.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgesdk.bench.history_file import guard, open_file
from edgesdk.bench.history_values import MAX_LABELS, HistoryRun, Provenance, check_label
from edgesdk.errors import HistoryError
from edgesdk.near import suggest

__all__ = ["MAX_PACKED_BYTES", "History", "RunFilter"]

#: No report unpacks to more: the limit of `edgesdk.report.read`.
MAX_PACKED_BYTES = 64 << 20
_FEWEST_DIGITS = 6
_HEX = frozenset("0123456789abcdef")
_COLUMNS = (
    'id, created, model, target, device, bundle, "precision", conditions, verdict, samples, '
    "p50_ms, lower_ms, upper_ms, peak_rss_bytes, trust, branch, commit_id, folder"
)
_KEY = 'model, target, device, "precision", conditions'


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to give; None asks nothing.

    ``label`` is a label, or the branch or the beginning of the commit that a run was made on.
    """

    id: str | None = None
    model: str | None = None
    target: str | None = None
    device: str | None = None
    precision: str | None = None
    label: str | None = None
    but: str | None = None
    """Leave out the run with this id."""
    until: str | None = None
    """Leave out runs that were made after this time."""


class History:
    """The measurements in one file. Use it as a context manager, or `close` it.

    Args:
        path: The file.
        make: Whether to make it and its folder where they are missing.

    Raises:
        HistoryError: It cannot be used; so does every method where SQLite fails.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self.path = path
        self._connection = open_file(path, make=make)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Make all that is written inside visible at once, or nothing of it."""
        with guard(self.path):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add(self, run: HistoryRun, report: bytes) -> bool:
        """Record a run with the bytes of its report; say whether it was not there yet.

        Labels are added in either case.
        """
        source = run.provenance
        row = (
            run.id, run.created, run.model, run.target, run.device, run.bundle, run.precision,
            run.conditions, run.verdict, run.samples, run.p50_ms, run.lower_ms, run.upper_ms,
            run.peak_rss_bytes, run.trust, source.branch, source.commit, run.folder,
            zlib.compress(report, 6),
        )  # fmt: skip
        marks = ", ".join("?" * len(row))
        with self.writing():
            done = self._connection.execute(
                f"INSERT OR IGNORE INTO runs ({_COLUMNS}, report) VALUES ({marks})",  # noqa: S608  # our own column names
                row,
            )
            self._add_labels(run.id, run.labels)
        return done.rowcount > 0

    def runs(
        self, which: RunFilter | None = None, *, limit: int = -1, as_recorded: bool = False
    ) -> list[HistoryRun]:
        """List runs, newest first, each with the one that came before it.

        Args:
            which: Which of them.
            limit: At most so many; all where it is negative.
            as_recorded: Take what was recorded last for the newest, whatever its date is.
        """
        order = "number DESC" if as_recorded else "created DESC, number DESC"
        where, values = _condition(which or RunFilter())
        earlier = ", ".join(
            f"lag({name}) OVER key AS before_{name}"
            for name in ("id", "created", "p50_ms", "lower_ms", "upper_ms", "samples")
        )
        query = (
            f"SELECT * FROM (SELECT number, {_COLUMNS}, {earlier} FROM runs "  # noqa: S608  # our own column names
            f"WINDOW key AS (PARTITION BY {_KEY} ORDER BY created, number)) AS runs"
            f"{where} ORDER BY {order} LIMIT ?"
        )
        with guard(self.path):
            cursor = self._connection.execute(query, (*values, limit))
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            return [self._run_of(row) for row in rows]

    def find(self, wanted: str) -> HistoryRun:
        """Give the run with that id, or whose id alone begins with it.

        Raises:
            HistoryError: There is none, or several.
        """
        word = wanted.lower()
        if len(word) >= _FEWEST_DIGITS and set(word) <= _HEX:
            with guard(self.path):
                found = self._connection.execute(
                    "SELECT id FROM runs WHERE substr(id, 1, ?) = ? LIMIT 2", (len(word), word)
                ).fetchall()
            if len(found) == 1:
                return self.runs(RunFilter(id=found[0][0]))[0]
            if found:
                raise HistoryError(
                    f"cannot find run {wanted[:80]!r}: several ids begin with it",
                    hint="write more digits; `edgesdk history --format json` has them all",
                    run=wanted[:80],
                )
        raise HistoryError(
            f"cannot find run {wanted[:80]!r}: the history {self.path} has no such id",
            hint=f"`edgesdk history` lists them; {_FEWEST_DIGITS} digits or more name one",
            run=wanted[:80],
        )

    def resolve(self, wanted: str, which: RunFilter) -> HistoryRun:
        """Find a run by label, branch, commit or id; of several, the newest of ``which``.

        Raises:
            HistoryError: There is none; near names are offered.
        """
        found = self.runs(replace(which, label=wanted), limit=1)
        if found:
            return found[0]
        word = wanted.lower()
        if len(word) >= _FEWEST_DIGITS and set(word) <= _HEX:
            return self.find(wanted)
        known = self.names()
        elsewhere = self.runs(RunFilter(label=wanted), limit=1)
        if elsewhere:
            seen = f"there is no other run of {_asked(which)} that is called so"
            hint = "measure and record one with `edgesdk deploy --label` or `bench --label`"
        else:
            seen = "no run has that label, branch, commit or id"
            hint = suggest(wanted, known) or (
                f"known are {', '.join(known[:10])}"
                if known
                else "record one with `edgesdk deploy --label` or `bench --label`"
            )
        raise HistoryError(
            f"cannot find run {wanted[:80]!r} in history {self.path}: {seen}",
            hint=hint,
            run=wanted[:80],
        )

    def names(self) -> tuple[str, ...]:
        """Give every label and every branch that runs have."""
        with guard(self.path):
            rows = self._connection.execute(
                "SELECT label FROM labels UNION SELECT branch FROM runs"
            ).fetchall()
        return tuple(sorted(name for (name,) in rows if isinstance(name, str)))

    def models(self) -> tuple[str, ...]:
        """Give the name of every model that was measured."""
        with guard(self.path):
            rows = self._connection.execute("SELECT DISTINCT model FROM runs").fetchall()
        return tuple(sorted(name for (name,) in rows if isinstance(name, str)))

    def folders(self, bundle: str) -> tuple[str, ...]:
        """Give where a bundle lay on this computer when it was measured, newest first."""
        with guard(self.path):
            rows = self._connection.execute(
                "SELECT folder FROM runs WHERE bundle = ? ORDER BY number DESC LIMIT 100",
                (bundle,),
            ).fetchall()
        return tuple(dict.fromkeys(_text(folder) for (folder,) in rows if _text(folder)))

    def report(self, run: str) -> bytes:
        """Give the bytes of a run's report.

        Args:
            run: Its whole id.

        Raises:
            HistoryError: There is none, or it is damaged.
        """
        with guard(self.path):
            row = self._connection.execute(
                "SELECT report FROM runs WHERE id = ?", (run,)
            ).fetchone()
        data = b""
        if row is not None and isinstance(row[0], bytes):
            unpacker = zlib.decompressobj()
            with contextlib.suppress(zlib.error):
                data = unpacker.decompress(row[0], MAX_PACKED_BYTES)
            if not unpacker.eof:
                data = b""
        if not data:
            raise HistoryError(
                f"cannot read run {run[:12]} from history {self.path}: its report is damaged",
                hint=f"`edgesdk history remove {run[:12]}` drops it; an export or the runs "
                "folder may still have it",
                run=run,
            )
        return data

    def label(self, run: str, *labels: str) -> None:
        """Call a run, given by its whole id, something more.

        Raises:
            HistoryError: A label cannot be one, or the run has too many.
        """
        with self.writing():
            self._add_labels(run, labels)

    def unlabel(self, run: str, label: str) -> None:
        """Take a label away from a run, given by its whole id.

        Raises:
            HistoryError: It does not have it.
        """
        with self.writing():
            done = self._connection.execute(
                "DELETE FROM labels WHERE run = ? AND label = ?", (run, label)
            )
            if done.rowcount == 0:
                has = self._labels_of(run)
                raise HistoryError(
                    f"cannot take label {label[:100]!r} from run {run[:12]}: it has "
                    f"{', '.join(has) or 'none'}",
                    hint=suggest(label, has) or "`edgesdk history show` lists its labels",
                    run=run,
                    label=label[:100],
                )

    def remove(self, run: str) -> None:
        """Forget a run, given by its whole id."""
        with self.writing():
            self._connection.execute("DELETE FROM runs WHERE id = ?", (run,))

    def _add_labels(self, run: str, labels: Sequence[str]) -> None:
        for label in labels:
            self._connection.execute(
                "INSERT OR IGNORE INTO labels (run, label) VALUES (?, ?)",
                (run, check_label(label)),
            )
        if len(self._labels_of(run)) > MAX_LABELS:
            raise HistoryError(
                f"cannot label run {run[:12]}: it would have more than {MAX_LABELS} labels",
                hint=f"take one away: edgesdk history label {run[:12]} --remove NAME",
                run=run,
            )

    def _labels_of(self, run: str) -> tuple[str, ...]:
        rows = self._connection.execute(
            "SELECT label FROM labels WHERE run = ? ORDER BY label LIMIT ?",
            (run, MAX_LABELS + 1),
        ).fetchall()
        return tuple(label for (label,) in rows if isinstance(label, str))

    def _run_of(self, row: dict[str, Any]) -> HistoryRun:
        run = _run(row, labels=self._labels_of(str(row["id"])))
        if row["before_id"] is None:
            return run
        return _run(row, labels=run.labels, before=_run({**row, **_earlier(row)}, labels=()))


def _earlier(row: dict[str, Any]) -> dict[str, Any]:
    prefix = "before_"
    return {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if name.startswith(prefix)
    }


def _run(
    row: dict[str, Any], *, labels: tuple[str, ...], before: HistoryRun | None = None
) -> HistoryRun:
    return HistoryRun(
        id=_text(row["id"]),
        created=_text(row["created"]),
        model=_text(row["model"]),
        target=_text(row["target"]),
        device=_text(row["device"]),
        bundle=_text(row["bundle"]),
        precision=_text(row["precision"]),
        conditions=_text(row["conditions"]),
        verdict=_text(row["verdict"]),
        samples=row["samples"] if type(row["samples"]) is int else 0,
        p50_ms=_amount(row["p50_ms"]),
        lower_ms=_amount(row["lower_ms"]),
        upper_ms=_amount(row["upper_ms"]),
        peak_rss_bytes=row["peak_rss_bytes"] if type(row["peak_rss_bytes"]) is int else None,
        trust=_text(row["trust"]) or None,
        provenance=Provenance(
            branch=_text(row["branch"]) or None, commit=_text(row["commit_id"]) or None
        ),
        folder=_text(row["folder"]) or None,
        labels=labels,
        before=before,
    )


def _text(value: object) -> str:
    return value[:20_000] if isinstance(value, str) else ""


def _amount(value: object) -> float | None:
    good = isinstance(value, float | int) and math.isfinite(value) and 0 <= value <= 1e18
    return float(value) if good and isinstance(value, float | int) else None


def _condition(which: RunFilter) -> tuple[str, list[object]]:
    """Make the WHERE clause of a filter, and its values."""
    clauses, values = [], list[object]()
    for name in ("id", "model", "target", "device", "precision"):
        value = getattr(which, name)
        if value is not None:
            clauses.append(f'"{name}" = ?')
            values.append(value)
    if which.label is not None:
        clauses.append(
            "(EXISTS (SELECT 1 FROM labels WHERE run = runs.id AND label = ?) OR branch = ? "
            "OR (length(?) >= 6 AND substr(commit_id, 1, length(?)) = ?))"
        )
        values += [which.label] * 5
    if which.but is not None:
        clauses.append("id <> ?")
        values.append(which.but)
    if which.until is not None:
        clauses.append("created <= ?")
        values.append(which.until)
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), values


def _asked(which: RunFilter) -> str:
    pairs = ((name, getattr(which, name)) for name in ("model", "target", "device"))
    return ", ".join(f"{name} {value}" for name, value in pairs if value is not None)
