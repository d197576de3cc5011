"""The history: what is kept and found, who else writes, and files that are no history."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.bench import history_file
from edgesdk.bench.history import History, RunFilter
from edgesdk.bench.history_source import find_provenance
from edgesdk.bench.history_values import (
    MAX_LABELS,
    Provenance,
    check_label,
    describe_run,
    run_id,
)
from edgesdk.bench.statistics import make_latency
from edgesdk.bench.values import BenchmarkReport
from edgesdk.errors import HistoryError
from edgesdk.report.files import encode_report
from edgesdk.report.read import parse_report
from tests.unit.report.fixtures import lognormal_ms, make_sample_report

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def measured(
    number: int, *, median_ms: float = 4.0, device: str = "bench-3", **fields: object
) -> BenchmarkReport:
    report = make_sample_report()
    return replace(
        report,
        created=f"2026-01-15T09:{number:02d}:00Z",
        latency=make_latency(lognormal_ms(60, median_ms, number)),
        device=replace(report.device, name=device),
        **fields,  # type: ignore[arg-type]  # each caller gives fields of a report
    )


def add(history: History, report: BenchmarkReport, *labels: str, branch: str = "") -> str:
    run = describe_run(
        report,
        labels=labels,
        provenance=Provenance(branch=branch or None, commit=COMMIT if branch else None),
        folder="/runs/one/bundle",
    )
    assert history.add(run, encode_report(report))
    return run.id


@pytest.fixture
def history(tmp_path: Path):
    with History(tmp_path / "data" / "history.sqlite") as opened:
        yield opened


def test_what_was_recorded_comes_back_whole(history: History) -> None:
    report = measured(1)
    run = add(history, report, "main", branch="feature/x")
    (found,) = history.runs()
    assert (found.id, found.model, found.device) == (run, "digits-cnn", "bench-3")
    assert (found.p50_ms, found.samples) == (report.latency.p50_ms, 60)
    assert found.lower_ms < found.p50_ms < found.upper_ms
    assert found.labels == ("main",)
    assert found.provenance == Provenance(branch="feature/x", commit=COMMIT)
    assert found.before is None
    assert parse_report(history.report(run), name="it") == report
    assert history.folders(report.bundle.id) == ("/runs/one/bundle",)
    assert history.folders("ab" * 32) == ()


def test_the_same_measurement_is_one_run_and_its_labels_add_up(history: History) -> None:
    report = measured(1)
    run = add(history, report, "main")
    again = describe_run(report, labels=("v1",))
    assert again.id == run
    assert not history.add(again, encode_report(report))
    (found,) = history.runs()
    assert found.labels == ("main", "v1")


def test_another_sample_is_another_run() -> None:
    report = measured(1)
    samples = (*report.latency.samples_ms[:-1], 5.5)
    other = replace(report, latency=make_latency(samples))
    assert run_id(report) != run_id(other)
    assert run_id(report) == run_id(replace(report, verdict="not-measured"))


def test_each_run_knows_the_one_before_it_of_the_same_kind(history: History) -> None:
    add(history, measured(1, median_ms=4.0))
    add(history, measured(2, median_ms=9.0, device="bench-4"))
    add(history, measured(3, median_ms=4.04))
    threads = replace(make_sample_report().spec, threads=2)
    add(history, measured(4, median_ms=5.0, spec=threads))
    add(history, measured(5, median_ms=6.0))
    shown = [(run.created[14:16], run.change, run.changed) for run in history.runs()]
    assert [(minute, changed) for minute, _, changed in shown] == [
        ("05", True),
        ("04", None),
        ("03", False),
        ("02", None),
        ("01", None),
    ]
    assert shown[0][1] == pytest.approx(0.5, abs=0.05)


def test_a_filtered_list_still_compares_with_what_it_leaves_out(history: History) -> None:
    add(history, measured(1))
    run = add(history, measured(2, median_ms=6.0), "main")
    (found,) = history.runs(RunFilter(label="main"))
    assert found.id == run
    assert found.changed


@pytest.mark.parametrize(
    ("which", "minutes"),
    [
        (RunFilter(), ["03", "02", "01"]),
        (RunFilter(device="bench-4"), ["02"]),
        (RunFilter(model="none"), []),
        (RunFilter(label="main"), ["03", "01"]),
        (RunFilter(label="topic"), ["02"]),
        (RunFilter(label=COMMIT[:8]), ["02"]),
        (RunFilter(label=COMMIT[:5]), []),
        (RunFilter(until="2026-01-15T09:02:00Z"), ["02", "01"]),
    ],
)
def test_a_filter_takes_what_it_says(
    which: RunFilter, minutes: list[str], history: History
) -> None:
    add(history, measured(1), "main")
    add(history, measured(2, device="bench-4"), branch="topic")
    add(history, measured(3), "main")
    assert [run.created[14:16] for run in history.runs(which)] == minutes
    assert len(history.runs(which, limit=1)) == min(1, len(minutes))


def test_a_run_is_found_by_some_digits_and_a_reference_by_any_name(history: History) -> None:
    first = add(history, measured(1), "main")
    second = add(history, measured(2), "main", branch="topic")
    assert history.find(first[:6]).id == first
    assert history.find(first.upper()).id == first
    assert history.resolve("main", RunFilter()).id == second
    assert history.resolve("main", RunFilter(but=second)).id == first
    assert history.resolve("topic", RunFilter()).id == second
    assert history.resolve(first[:8], RunFilter()).id == first


@pytest.mark.parametrize("wanted", ["abc", "ffffffffffff", "'; DROP TABLE runs", ""])
def test_what_is_not_there_is_said(wanted: str, history: History) -> None:
    add(history, measured(1), "main")
    with pytest.raises(HistoryError, match="has no such id") as caught:
        history.find(wanted)
    assert caught.value.hint
    assert len(history.runs()) == 1


def test_a_label_that_nobody_has_offers_near_ones(history: History) -> None:
    add(history, measured(1), "main")
    with pytest.raises(HistoryError, match="no run has that label") as caught:
        history.resolve("mian", RunFilter())
    assert caught.value.hint == "did you mean main?"
    with pytest.raises(HistoryError, match="no other run of device bench-9") as caught:
        history.resolve("main", RunFilter(device="bench-9"))
    assert "--label" in caught.value.hint


@pytest.mark.parametrize("label", ["main", "v1.2", "feature/x", "a", "release@2026"])
def test_words_are_labels(label: str) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize(
    "label", ["", "two words", "-x", "a" * 101, "x\n", "report.json", "0123456789ab", "ä"]
)
def test_what_could_be_something_else_is_no_label(label: str) -> None:
    with pytest.raises(HistoryError, match="cannot use label"):
        check_label(label)


def test_labels_go_and_have_a_limit(history: History) -> None:
    run = add(history, measured(1), "main")
    history.label(run, "v1")
    history.unlabel(run, "main")
    assert history.find(run).labels == ("v1",)
    with pytest.raises(HistoryError, match="it has v1"):
        history.unlabel(run, "v2")
    with pytest.raises(HistoryError, match=f"more than {MAX_LABELS}"):
        history.label(run, *(f"l{number}" for number in range(MAX_LABELS)))
    assert history.find(run).labels == ("v1",)


def test_what_is_removed_is_gone_with_its_labels(history: History) -> None:
    run = add(history, measured(1), "main")
    history.remove(run)
    assert history.runs() == []
    assert history.names() == ()


def test_writing_is_all_or_nothing(history: History) -> None:
    run = describe_run(measured(1), labels=("main",))
    with pytest.raises(HistoryError), history.writing():  # noqa: PT012  # one inside the other
        history.add(run, b"it was there for a moment")
        history.unlabel(run.id, "other")
    assert history.runs() == []


# the file


def _add_many(path: Path, start: int) -> None:
    with History(path) as history:
        for number in range(start, start + 10):
            add(history, measured(number), f"w{start}")


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_many, args=(path, n)) for n in (10, 20, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with History(path) as history:
        assert len(history.runs()) == 30
        assert history.names() == ("w10", "w20", "w30")


def test_a_reader_does_not_wait_for_a_writer(history: History) -> None:
    add(history, measured(1))
    with history.writing():
        add(history, measured(2))
        with History(history.path) as other:
            assert len(other.runs()) == 1
    with History(history.path) as other:
        assert len(other.runs()) == 2


def test_a_file_that_stays_locked_is_said(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "BUSY_TIMEOUT_S", 0.05)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with History(history.path) as other, other.writing():
            inside.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    try:
        with (
            History(history.path) as second,
            pytest.raises(HistoryError, match="others kept it locked") as caught,
        ):
            add(second, measured(1))
    finally:
        done.set()
        holder.join()
    assert "try again" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"not a database " * 100, b"SQLite format 3\0" + b"x" * 500]
)
def test_a_file_that_is_something_else_is_refused_and_kept(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="damaged or no history") as caught:
        History(path)
    assert "edgesdk history import" in caught.value.hint
    assert path.read_bytes() == content


def test_a_damaged_page_is_said(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with History(path) as history:
        for number in range(1, 30):
            add(history, measured(number))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(HistoryError, match="damaged"), History(path) as history:
        history.runs()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    with pytest.raises(HistoryError, match="another program"):
        History(path)


def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    History(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(HistoryError, match=r"its version is 99 \(this edgesdk knows 1 to") as e:
        History(path)
    assert "update" in e.value.hint


def test_an_earlier_version_is_brought_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.sqlite"
    with History(path) as history:
        run = add(history, measured(1), "main")
    step = "ALTER TABLE runs ADD COLUMN note TEXT; UPDATE runs SET note = 'brought up'"
    later = (*history_file.MIGRATIONS, step)
    monkeypatch.setattr(history_file, "MIGRATIONS", later)
    for _ in range(2):
        with History(path) as history:
            assert history.find(run[:8]).labels == ("main",)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT note FROM runs").fetchall() == [("brought up",)]
        assert raw.execute("PRAGMA user_version").fetchone() == (len(later),)
    raw.close()


def test_a_step_that_fails_leaves_the_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.sqlite"
    with History(path) as history:
        run = add(history, measured(1))
    step = "ALTER TABLE runs ADD COLUMN note TEXT; UPDATE nothing SET x = 1"
    with monkeypatch.context() as patch:
        patch.setattr(history_file, "MIGRATIONS", (*history_file.MIGRATIONS, step))
        with pytest.raises(HistoryError):
            History(path)
    with History(path) as history:
        assert history.runs()[0].id == run


def test_what_a_row_says_is_not_believed(history: History) -> None:
    run = add(history, measured(1))
    bomb = zlib.compress(bytes(65 << 20))
    with sqlite3.connect(history.path) as raw:
        raw.execute(
            "UPDATE runs SET p50_ms = 'fast', samples = 1e300, device = x'00ff', report = ?",
            (bomb,),
        )
    raw.close()
    (found,) = history.runs()
    assert (found.p50_ms, found.samples, found.device) == (None, 0, "")
    with pytest.raises(HistoryError, match="its report is damaged") as caught:
        history.report(run)
    assert "history remove" in caught.value.hint


def test_views_and_triggers_are_refused(history: History) -> None:
    with sqlite3.connect(history.path) as raw:
        raw.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    raw.close()
    with pytest.raises(HistoryError, match="views or triggers"):
        History(history.path)


def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "history.sqlite", Path("/proc/none/history.sqlite")):
        with pytest.raises(HistoryError, match="cannot open history") as caught:
            History(path)
        assert "EDGESDK_HISTORY" in caught.value.hint
    with pytest.raises(HistoryError, match="unable to open"):
        History(tmp_path)


# where the work stood


def git(folder: Path, head: str, **files: str) -> Path:
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text(head)
    for name, text in files.items():
        path = folder / ".git" / name.replace("__", "/").replace("_", "-")
        path.write_text(text)
    return folder


def test_the_branch_and_the_commit_of_a_working_folder(tmp_path: Path) -> None:
    folder = git(tmp_path, "ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")
    (folder / "deep" / "er").mkdir(parents=True)
    for place in (folder, folder / "deep" / "er"):
        assert find_provenance(place, {}) == Provenance(branch="main", commit=COMMIT)


def test_a_packed_reference_is_found(tmp_path: Path) -> None:
    packed = f"# pack-refs\n{COMMIT} refs/heads/other\n{COMMIT[::-1]} refs/heads/main\n"
    folder = git(tmp_path, "ref: refs/heads/main\n", packed_refs=packed)
    assert find_provenance(folder, {}).commit == COMMIT[::-1]


def test_a_worktree_looks_where_its_file_says(tmp_path: Path) -> None:
    main = git(tmp_path / "main", "ref: refs/heads/main\n", refs__heads__topic=COMMIT)
    own = main / ".git" / "worktrees" / "w"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/topic\n")
    (own / "commondir").write_text("../..\n")
    tree = tmp_path / "w"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {own}\n")
    assert find_provenance(tree, {}) == Provenance(branch="topic", commit=COMMIT)


def test_a_build_server_names_the_branch_of_a_detached_commit(tmp_path: Path) -> None:
    folder = git(tmp_path, COMMIT)
    assert find_provenance(folder, {}) == Provenance(commit=COMMIT)
    said = {"GITHUB_REF_NAME": "main", "GITHUB_SHA": COMMIT}
    assert find_provenance(folder, said) == Provenance(branch="main", commit=COMMIT)
    other = {"GITHUB_REF_NAME": "main", "GITHUB_SHA": COMMIT[::-1]}
    assert find_provenance(folder, other) == Provenance(commit=COMMIT)


@pytest.mark.parametrize(
    "head",
    ["", "ref: ../../../etc/passwd", "ref: /etc/passwd", "\0\xff", "ref: refs/heads/gone"],
)
def test_a_repository_that_makes_no_sense_tells_nothing(head: str, tmp_path: Path) -> None:
    folder = git(tmp_path, head)
    assert find_provenance(folder, {}).commit is None
