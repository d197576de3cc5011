"""``virtual:`` URLs reach a board only if it is there, and say what to do if it is not."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from edgesdk.devices import connect, resolve_device
from edgesdk.devices.agentpack import pack_agent
from edgesdk.devices.install import install_agent
from edgesdk.errors import BootstrapError, ChannelError, InventoryError
from edgesdk.transport.emulator import emulator_command
from edgesdk.transport.local import put_agent, state_folder
from edgesdk.transport.machine import Machine
from edgesdk.transport.url import parse_device_url
from edgesdk.transport.virtual import LISTING, BoardFolder, make_home

AGENT = pack_agent()


@pytest.fixture(autouse=True)
def no_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no board of this computer be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_board_that_is_not_set_up_is_no_crash_but_a_command_to_give(tmp_path: Path) -> None:
    with pytest.raises(BootstrapError, match="it has not been set up") as caught:
        connect(resolve_device("virtual:arm64"))
    assert "edgesdk devices setup virtual:arm64" in caught.value.hint
    assert not list(tmp_path.iterdir()), "nothing is written for a board that is not there"


def test_nothing_is_installed_on_a_virtual_board() -> None:
    with pytest.raises(InventoryError, match="a virtual board has no services"):
        install_agent(resolve_device("virtual:arm64"))


def test_a_command_in_the_board_is_handed_over_word_by_word(tmp_path: Path) -> None:
    board = BoardFolder.of("arm64")
    words = ["/bin/sh", "-c", "echo $HOME; 'x y'"]
    command = board.enter_command(tmp_path / "my disk", words)
    assert command[0] == "unshare"
    assert command[-3:] == words
    assert command[-5:-3] == ["ro", str(tmp_path / "my disk")]
    assert str(board.path / "enter") in command
    assert "rw" in board.enter_command(tmp_path, words, writable=True)


@pytest.mark.parametrize(
    ("listing", "problem"),
    [
        (b"0\troot/there\n", None),
        (b"0\troot/there\n1\troot/gone\n", "root/gone is missing"),
        (b"5\troot/there\n", "root/there has 0 bytes, 5 when it was made"),
        (b"0\troot/the\0\0\0\n", "files.txt is damaged"),
        (b"\0" * 40, "files.txt is damaged"),
        (b"x\troot/there\n", "files.txt is damaged"),
        (b"\xff\n", "files.txt cannot be read"),
        (b"", "files.txt is empty"),
    ],
)
def test_a_board_whose_listing_is_not_what_lies_there_is_not_used(
    tmp_path: Path, listing: bytes, problem: str | None
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "there").write_bytes(b"")
    (tmp_path / "files.txt").write_bytes(listing)
    found = BoardFolder(name="arm64", path=tmp_path).why_unusable()
    assert found is None if problem is None else (found or "").startswith(problem)


@pytest.mark.parametrize(
    "text", ["local:?state=~nobody-here/x", "virtual:arm64?state=~nobody-here/x"]
)
def test_a_folder_of_a_user_who_is_not_here_is_an_error(text: str) -> None:
    with pytest.raises(InventoryError, match="'~nobody-here/x' has no home here") as caught:
        state_folder(parse_device_url(text), Path("/default"))
    assert "state=/PATH" in caught.value.hint


def test_a_folder_that_is_not_ours_is_refused_with_the_words_of_its_scheme(
    tmp_path: Path,
) -> None:
    state = make_home(tmp_path / "home")
    (tmp_path / "elsewhere").mkdir()
    state.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BootstrapError, match="is a link, or others may write") as caught:
        put_agent(AGENT, state, hint="virtual:NAME")
    assert caught.value.hint == "virtual:NAME"
    with pytest.raises(BootstrapError) as caught:
        put_agent(AGENT, state)
    assert "local:?state=FOLDER" in caught.value.hint


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BootstrapError, match="cannot make the board's home folder") as caught:
        make_home(tmp_path / "file" / "home")
    assert "state=FOLDER" in caught.value.hint


def test_a_machine_that_is_not_there_is_an_error_that_says_how_to_make_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(BootstrapError, match="vm: it has not been set up") as caught:
        connect(resolve_device("virtual:vm"))
    assert "edgesdk devices setup virtual:vm" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_board_without_a_kernel_of_its_own_has_no_uart(tmp_path: Path) -> None:
    board = BoardFolder.of("arm64")
    board.path.mkdir(parents=True)
    (board.path / "file").write_text("")
    (board.path / LISTING).write_text("0\tfile\n")
    with pytest.raises(InventoryError, match="arm64 has no such link"):
        connect(resolve_device("virtual:arm64?link=uart"))


def machine(tmp_path: Path, **options: Any) -> Machine:
    """One that has no emulator: what its folder lacks is seen when it is switched on."""
    board = BoardFolder(name="vm", path=tmp_path / "board, with a comma")
    board.path.mkdir()
    return Machine(board, tmp_path / "home", agent=b"agent", disk_bytes=32 << 20, **options)


def test_a_machine_whose_emulator_is_missing_says_so(tmp_path: Path) -> None:
    made = machine(tmp_path)
    with pytest.raises(BootstrapError, match="the emulator cannot be run: No such file"):
        made.boot()
    assert not made.is_running
    with pytest.raises(ChannelError, match="it is switched off"):
        _ = made.ssh_url
    made.shut_down()


def test_a_machine_whose_emulator_fails_repeats_its_words(tmp_path: Path) -> None:
    made = machine(tmp_path)
    program = made.board.path / "emulator" / "lib" / "ld-linux-x86-64.so.2"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'no such processor' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(BootstrapError, match="the emulator says 'no such processor'"):
        made.boot()
    assert made.disk.stat().st_size == 32 << 20
    assert not list(made.home.glob(".*.partial"))


def test_two_machines_cannot_use_one_disk(tmp_path: Path) -> None:
    made = machine(tmp_path)
    made.home.mkdir()
    with (made.home / "machine.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BootstrapError, match="one runs already on the disk") as caught:
            made.boot()
    assert "virtual:NAME?state=FOLDER" in caught.value.hint


def test_every_path_reaches_the_emulator_whole(tmp_path: Path) -> None:
    made = machine(tmp_path, writes=tmp_path / "writes,log")
    words = emulator_command(
        made.board.path,
        disk=made.disk,
        writes=tmp_path / "writes,log",
        console_log=made.console_log,
        files={"key": made.board.path / "key.pub"},
        mount_options="defaults",
    )
    escaped = str(made.board.path).replace(",", ",,")
    assert f"name=opt/edgesdk/key,file={escaped}/key.pub" in words
    assert any("/writes,,log,cache.no-flush=on" in word for word in words)
    assert "tcg" in words
    assert not any("kvm" in word for word in words)
    assert any("restrict=on" in word and "hostfwd=tcp:127.0.0.1:0-" in word for word in words)
