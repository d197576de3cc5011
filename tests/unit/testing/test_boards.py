"""The pieces of a virtual board that need no board: fetching, wrapping, checking, refusing."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.errors import BootstrapError, InventoryError
from edgesdk.testing import set_up_board
from edgesdk.testing.boards.commands import run_program
from edgesdk.testing.boards.host import MACHINE_PROGRAMS, PROGRAMS, why_not_here
from edgesdk.testing.boards.packages import (
    KEYRING,
    apt_configuration,
    planned_files,
    source_lines,
    unpack_file,
)
from edgesdk.testing.boards.spec import SPECS, find_spec
from edgesdk.testing.boards.system import is_program_for, wrap_programs
from edgesdk.testing.boards.vm import pack_initrd
from edgesdk.transport.url import BOARDS
from edgesdk.transport.virtual import LISTING, BoardFolder, board_cache

ARM64 = SPECS["arm64"]
VM = SPECS["vm"]
LOCK = Path(__file__).parents[3] / "requirements.lock"

#: As apt of Debian 12 prints it, with a package of another architecture and one to be replaced.
SIMULATED = """\
NOTE: This is only a simulation!
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [arm64]) []
Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [arm64])
Inst media-types (10.0.0 Debian:12.15/oldstable [all])
Inst libssl3 [3.0.1-1] (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [arm64])
Inst qemu-user-static:amd64 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Conf libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [arm64])
"""


def elf(machine: int) -> bytes:
    """The beginning of an ELF executable."""
    return (
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little") + b"!"
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return board_cache()


@pytest.fixture
def made(cache: Path) -> BoardFolder:
    """A folder that looks like a board that was made."""
    board = BoardFolder.of("arm64")
    assert board.path.parent == cache
    (board.path / "root" / "bin").mkdir(parents=True)
    (board.path / "root" / "bin" / "true").write_bytes(b"12345")
    (board.path / "root" / "sh").symlink_to("bin/nowhere")
    (board.path / LISTING).write_text("5\troot/bin/true\n11\troot/sh\n")
    return board


def test_the_urls_name_the_boards_that_can_be_made() -> None:
    assert tuple(SPECS) == BOARDS
    assert all(name == spec.name for name, spec in SPECS.items())


def test_an_unknown_board_is_refused_with_the_nearest() -> None:
    with pytest.raises(InventoryError, match="'amr64'") as caught:
        find_spec("amr64")
    assert "arm64" in caught.value.hint
    with pytest.raises(InventoryError):
        set_up_board("amr64")


@pytest.mark.parametrize("board", SPECS)
def test_every_wheel_is_pinned_by_a_hash_that_the_lock_knows(board: str) -> None:
    text = SPECS[board].requirements.read_text(encoding="utf-8")
    pins = re.findall(
        r"^(\S+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", text, re.MULTILINE
    )
    assert len(pins) == text.count("==") == text.count("--hash=")
    assert {"onnxruntime", "numpy"} <= {name for name, _, _ in pins}
    locked = LOCK.read_text(encoding="utf-8")
    for name, version, sha256 in pins:
        if name in ("onnxruntime", "ai-edge-litert", "numpy"):
            assert f"\n{name}=={version}" in locked, (
                "`make lock` gave this computer another one"
            )
            assert f"sha256:{sha256}" in locked


def test_what_apt_plans_is_read_as_the_files_it_keeps() -> None:
    assert planned_files(SIMULATED) == [
        "libc6_2.36-9+deb12u14_arm64.deb",
        "zlib1g_1%3a1.2.13.dfsg-1_arm64.deb",
        "media-types_10.0.0_all.deb",
        "libssl3_3.0.22-1~deb12u2_arm64.deb",
        "qemu-user-static_1%3a7.2+dfsg-7+deb12u18+b3_amd64.deb",
    ]
    assert planned_files("E: Unable to locate package\n") == []


def test_apt_is_kept_to_its_own_folder_and_to_signed_sources(tmp_path: Path) -> None:
    text = apt_configuration(tmp_path, ["arm64", "amd64"])
    paths = re.findall(r'^Dir\S* "([^"]*)"', text, re.MULTILINE)
    assert len(paths) >= 5
    assert all(path == "-" or Path(path).is_relative_to(tmp_path) for path in paths)
    assert 'APT::Architecture "arm64";' in text
    for line in source_lines("bookworm", ["arm64", "amd64"]).splitlines():
        assert f"[arch=arm64,amd64 signed-by={KEYRING}]" in line
        assert "trusted" not in line


def test_a_program_of_the_machine_gives_way_to_a_script_that_emulates_it(
    tmp_path: Path,
) -> None:
    root, emulator = tmp_path / "root", tmp_path / "emulator"
    emulator.write_bytes(b"emulates")
    programs = root / "usr" / "bin"
    programs.mkdir(parents=True)
    contents = {"ours": elf(183), "foreign": elf(62), "script": b"#!/bin/sh\n"}
    for name, data in contents.items():
        (programs / name).write_bytes(data)
        (programs / name).chmod(0o755)
    (programs / "data").write_bytes(elf(183))
    (programs / "data").chmod(0o644)
    (programs / "link").symlink_to("ours")
    assert wrap_programs(root, elf_machine=183, emulator=emulator) == ["ours"]
    line = (programs / "ours").read_text()
    interpreter, program = re.fullmatch(r"#!(\S+) (\S+)\n", line).groups()
    assert (root / interpreter.lstrip("/")).read_bytes() == b"emulates"
    # by this ending Debian's qemu knows the order of its arguments
    assert interpreter.endswith("-binfmt-P")
    # the agent takes it from this that it is emulated
    assert Path(interpreter).parent.name == "qemu-binfmt"
    assert (root / program.lstrip("/")).read_bytes() == contents["ours"]
    assert (programs / "foreign").read_bytes() == contents["foreign"]
    assert (programs / "link").readlink() == Path("ours")
    assert len(line) < 128, "kernels before 5.1 read no more of a script's first line"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", elf(62), elf(183)[:19], b"#!/bin/sh\n" * 9])
def test_what_is_no_program_of_the_machine_is_not_taken_for_one(
    data: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    path.chmod(0o755)
    assert not is_program_for(path, 183)


def test_a_board_that_is_as_it_was_made_is_usable(made: BoardFolder) -> None:
    assert made.why_unusable() is None


def truncate(board: BoardFolder) -> None:
    (board.path / "root" / "bin" / "true").write_bytes(b"123")


def delete(board: BoardFolder) -> None:
    (board.path / "root" / "bin" / "true").unlink()


def unlist(board: BoardFolder) -> None:
    (board.path / LISTING).unlink()


def blank(board: BoardFolder) -> None:
    (board.path / LISTING).write_text("")


def scribble(board: BoardFolder) -> None:
    (board.path / LISTING).write_bytes(b"\xff\xfe\0\0 no listing")


def garble(board: BoardFolder) -> None:
    (board.path / LISTING).write_text("no tab in this line\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncate, "root/bin/true has 3 bytes, 5 when it was made"),
        (delete, "root/bin/true is missing"),
        (unlist, "it has not been set up"),
        (blank, "is empty"),
        (scribble, "cannot be read"),
        (garble, ""),
    ],
)
def test_a_broken_board_is_noticed(
    spoil: Callable[[BoardFolder], None], says: str, made: BoardFolder
) -> None:
    spoil(made)
    problem = made.why_unusable()
    assert problem is not None
    assert says in problem


def test_another_machine_is_told_what_to_use_instead(tmp_path: Path) -> None:
    this = replace(ARM64, machine=platform.machine())
    assert why_not_here(this, tmp_path) == (
        f"this computer is {platform.machine()} itself",
        "local: runs on it without emulation",
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has an emulator")
def test_missing_programs_are_all_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [Path(folder, "apt-get") for folder in ("/usr/sbin", "/sbin")]
    assert not any(path.exists() for path in here)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen, hint = why_not_here(ARM64, tmp_path)
    assert "there is no program apt-get, dpkg-deb, unshare" in seen
    assert "Debian" in hint
    assert "apt-get install util-linux" in hint
    assert set(PROGRAMS) >= {"unshare", "mount", "chroot"}


def test_a_machine_needs_no_right_to_mount_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not {"unshare", "mount", "chroot"} & set(MACHINE_PROGRAMS)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    seen, hint = why_not_here(VM, tmp_path)
    assert seen == "this computer is Linux on riscv64 (only Linux on x86_64)"
    assert "another computer" in hint


def test_the_first_file_system_is_packed_as_the_kernel_takes_it() -> None:
    packed = pack_initrd(("dev",), {"init": b"#!/bin/sh\n", "a/b": b"12345"})
    assert len(packed) % 4 == 0
    names, offset = [], 0
    while True:
        assert packed[offset : offset + 6] == b"070701"
        fields = [int(packed[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = packed[offset + 110 : offset + 109 + length].decode()
        start = -(-(offset + 110 + length) // 4) * 4
        names.append((name, mode, packed[start : start + size]))
        offset = -(-(start + size) // 4) * 4
        if name == "TRAILER!!!":
            break
    assert offset == len(packed)
    assert names[:-1] == [
        ("dev", 0o40755, b""),
        ("init", 0o100755, b"#!/bin/sh\n"),
        ("a/b", 0o100755, b"12345"),
    ]


def test_a_command_that_fails_says_so_in_its_own_words() -> None:
    code = "import sys; print('W: old index', file=sys.stderr); "
    code += (
        "print('E: no such mirror', file=sys.stderr); print('bye', file=sys.stderr); exit(7)"
    )
    with pytest.raises(BootstrapError, match="cannot fetch it: E: no such mirror") as caught:
        run_program([sys.executable, "-c", code], doing="fetch it", timeout_s=20, hint="try on")
    assert caught.value.hint == "try on"
    assert caught.value.facts["status"] == 7


@pytest.mark.parametrize(
    ("command", "timeout_s", "says"),
    [
        (["/nonexistent/apt-get"], 5.0, "cannot run /nonexistent/apt-get"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], 0.2, "within 0.2 s"),
        ([sys.executable, "-c", "exit(3)"], 20.0, "it ended with status 3"),
    ],
)
def test_a_command_that_cannot_be_run_or_hangs_is_an_error(
    command: list[str], timeout_s: float, says: str
) -> None:
    with pytest.raises(BootstrapError, match=re.escape(says)):
        run_program(command, doing="fetch it", timeout_s=timeout_s)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one program in it."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "usr" / "bin" / "x").write_bytes(b"program")
    (tree / "usr" / "bin" / "x").chmod(0o755)
    out = tmp_path / "x.deb"
    try:
        command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(out)]
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs dpkg-deb: this is no Debian")
    return out


def test_one_file_of_a_package_is_unpacked_alone(package: Path, tmp_path: Path) -> None:
    unpack_file(package, "usr/bin/x", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"program"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    with pytest.raises(BootstrapError, match=r"x\.deb: it has no usr/bin/y"):
        unpack_file(package, "usr/bin/y", tmp_path / "other")


def test_a_damaged_package_is_an_error(package: Path, tmp_path: Path) -> None:
    package.write_bytes(package.read_bytes()[:100])
    with pytest.raises(BootstrapError, match=r"cannot unpack x\.deb"):
        unpack_file(package, "usr/bin/x", tmp_path / "out")
