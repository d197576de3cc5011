"""The file in which measurements are remembered: SQLite, with a version and a way up to it.

The version stands in the file's header (``user_version``) beside a number that says whose file
it is (``application_id``). A file of an earlier version is brought up in one transaction, one
of a later version is left alone. Writers wait for each other; readers wait for nobody where
the file system lets SQLite write ahead.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edgesdk.errors import HistoryError

__all__ = ["APPLICATION_ID", "BUSY_TIMEOUT_S", "MIGRATIONS", "guard", "open_file"]

#: "edge" as a number, in the header of every history.
APPLICATION_ID = 0x65646765
#: How long a writer waits for others.
BUSY_TIMEOUT_S = 20.0
#: What makes version 1, then version 2, ...; a step that was released never changes.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        model TEXT NOT NULL,
        target TEXT NOT NULL,
        device TEXT NOT NULL,
        bundle TEXT NOT NULL,
        "precision" TEXT NOT NULL,
        conditions TEXT NOT NULL,
        verdict TEXT NOT NULL,
        samples INTEGER NOT NULL,
        p50_ms REAL,
        lower_ms REAL,
        upper_ms REAL,
        peak_rss_bytes INTEGER,
        trust TEXT,
        branch TEXT,
        commit_id TEXT,
        folder TEXT,
        report BLOB NOT NULL
    );
    CREATE INDEX runs_by_key
        ON runs (model, target, device, "precision", conditions, created, number);
    CREATE TABLE labels (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        label TEXT NOT NULL,
        PRIMARY KEY (run, label)
    ) WITHOUT ROWID;
    CREATE INDEX labels_by_name ON labels (label);
    """,
)


def open_file(path: Path, *, make: bool = True) -> sqlite3.Connection:
    """Open the history at ``path``, bringing it up where that is needed.

    Args:
        path: The file.
        make: Whether to make it where there is none.

    Raises:
        HistoryError: It cannot be read or written, is no history, is damaged, or was written by
            a later version of edgesdk.
    """
    if not make and not path.exists():
        raise HistoryError(
            f"cannot open history {path}: there is none",
            hint="edgesdk deploy and bench write what they measure; the setting history "
            "(EDGESDK_HISTORY) names another file",
            path=str(path),
        )
    with guard(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise HistoryError(
                f"cannot open history {path}: {exc.strerror or exc}",
                hint="name another file with the setting history (EDGESDK_HISTORY)",
                path=str(path),
            ) from exc
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA foreign_keys = ON")
            _bring_up(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def guard(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file at ``path`` into a sentence and a way on.

    Raises:
        HistoryError: In place of any error of SQLite, and for what is no text.
    """
    try:
        yield
    except UnicodeEncodeError as exc:
        raise HistoryError(
            f"cannot use history {path}: {ascii(exc.object)[:100]} is no text in UTF-8",
            hint="name it in UTF-8: `edgesdk history` lists what there is",
            path=str(path),
        ) from exc
    except sqlite3.Error as exc:
        said = clean(str(exc))
        if "locked" in said or "busy" in said:
            hint = "another command has it open for long: try again when that is done"
            raise HistoryError(
                f"cannot use history {path}: others kept it locked for {BUSY_TIMEOUT_S:g} s",
                hint=hint,
                path=str(path),
            ) from exc
        if isinstance(exc, sqlite3.OperationalError) and _is_about_access(said):
            raise HistoryError(
                f"cannot use history {path}: {said}",
                hint="is there room, and may you write there? the setting history "
                "(EDGESDK_HISTORY) names another file",
                path=str(path),
            ) from exc
        raise HistoryError(
            f"cannot use history {path}: it is damaged or no history of edgesdk ({said})",
            hint="move the file away; `edgesdk history import` fills another one from an "
            "export, or from report.json files of the runs folder",
            path=str(path),
        ) from exc


def clean(text: str) -> str:
    """Make what a library said one printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _is_about_access(said: str) -> bool:
    return any(
        word in said
        for word in ("unable to open", "readonly", "disk I/O", "full", "permission")
    )


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection, path) == len(MIGRATIONS):
        return
    with contextlib.suppress(sqlite3.OperationalError):
        # not every file system can; then readers wait for writers
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # another process may have been first
        for step in MIGRATIONS[version:]:
            for statement in step.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Give the version of a history of ours; 0 for a file that is empty yet."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner == 0 and version == 0 and tables == 0:
        return 0
    if owner != APPLICATION_ID:
        raise HistoryError(
            f"cannot use history {path}: it is a database of another program",
            hint="name another file with the setting history (EDGESDK_HISTORY)",
            path=str(path),
        )
    (other,) = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    ).fetchone()
    if other:
        raise sqlite3.DatabaseError("it holds views or triggers, which no history has")
    if not 1 <= version <= len(MIGRATIONS):
        raise HistoryError(
            f"cannot use history {path}: its version is {version} (this edgesdk knows 1 to "
            f"{len(MIGRATIONS)})",
            hint="a later edgesdk wrote it: update this one, or name another file with the "
            "setting history (EDGESDK_HISTORY)",
            path=str(path),
            version=version,
        )
    return int(version)
