"""Prompts of many kinds on a console, played by a script: what is answered and said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from edgesdk.errors import AuthError, BootstrapError, ChannelTimeout
from edgesdk.transport import console_login, console_screen
from edgesdk.transport.console_login import log_in
from edgesdk.transport.console_screen import Screen

Answer = Callable[[str], str]
_ECHO = re.compile(r'echo EDGE"SDK"-(\w+)')


class PlayedLine:
    """A device whose console answers each line with what ``answer`` gives.

    ``first`` is on the line before anybody types.
    """

    name = "serial:///dev/ttyX"

    def __init__(self, answer: Answer, first: bytes = b"") -> None:
        self.answer = answer
        self.coming = first
        self.typed: list[str] = []
        self._line = ""

    def read(self, *, timeout_s: float) -> bytes:
        data, self.coming = self.coming, b""
        if not data:
            time.sleep(min(timeout_s, 0.01))
            raise ChannelTimeout("nothing")
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        for char in data.decode():
            if char == "\x15":
                self._line = ""
            elif char in "\r\x03\x04":
                line, self._line = self._line + (char if char != "\r" else ""), ""
                self.typed.append(line)
                self.coming += self.answer(line).encode()
            else:
                self._line += char


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_QUIET_S", "_SILENT_S", "_WAKE_EVERY_S", "_ANSWER_S", "_CHECK_S"):
        monkeypatch.setattr(console_login, name, 0.02)


def a_shell(line: str, prompt: str = "$ ") -> str:
    found = _ECHO.search(line)
    return f"{line}\r\n" + (f"EDGESDK-{found[1]}\r\n" if found else "") + prompt


class Login:
    """A login with the password `right`."""

    def __init__(self, *, password: str | None = "right", motd: str = "", prompt: str = "$ "):
        self.password = password
        self.motd = motd
        self.prompt = prompt
        self.at = "login"

    def __call__(self, line: str) -> str:
        if self.at == "shell":
            return a_shell(line, self.prompt)
        if self.at == "login":
            if not line:
                return "\r\nboard login: "
            self.at = "password"
            if self.password is not None:
                return f"{line}\r\nPassword: "
            line = ""
        if line == (self.password or ""):
            self.at = "shell"
            return f"\r\n{self.motd}{self.prompt}"
        self.at = "login"
        return "\r\n\r\nLogin incorrect\r\nboard login: "


def try_it(
    line: PlayedLine,
    *,
    user: str | None = "pi",
    passwords: tuple[str, ...] = ("right",),
    timeout_s: float = 0.5,
) -> list[str]:
    """Log in and give the prompts for a password."""
    left, asked = list(passwords), []

    def on_password(prompt: str) -> str | None:
        asked.append(prompt)
        return left.pop(0) if left else None

    log_in(Screen(line), user=user, on_password=on_password, timeout_s=timeout_s)
    return asked


LAST_LOGIN = "Last login: Tue Mar  3 10:00:00 UTC 2026 on ttyS0\r\n"
COLOURS = (
    "\x1b]0;pi@board: ~\x07\x1b[?2004h\x1b[01;32mpi@board\x1b[00m:\x1b[01;34m~ \u276f\x1b[0m "
)


@pytest.mark.parametrize(
    "device",
    [
        Login(),
        Login(motd=LAST_LOGIN),
        Login(
            motd="\r\n".join(["* Password: never give it away", "Your login:", "#" * 70, ""])
        ),
        Login(prompt=COLOURS),
        Login(prompt="\x1b[6n/ > "),
        Login(prompt=""),
        Login(password=None),
        a_shell,
        lambda line: a_shell(line, COLOURS),
    ],
    ids=[
        "plain",
        "last",
        "motd",
        "colours",
        "cursor",
        "no-prompt",
        "open",
        "shell",
        "coloured",
    ],
)
def test_shell_is_reached_through(device: Answer) -> None:
    line = PlayedLine(device)
    asked = try_it(line)
    with_password = isinstance(device, Login) and device.password is not None
    assert asked == (["password of pi on serial:///dev/ttyX"] if with_password else [])
    assert _ECHO.search(line.typed[-1])
    if isinstance(device, Login):
        assert "pi" in line.typed


def test_console_that_wants_to_be_woken() -> None:
    login = Login()

    def device(line: str) -> str:
        if login.at == "login" and not line and not woken:
            woken.append(1)
            return "\r\nboard login: "
        return login(line)

    woken: list[int] = []
    hint = b"\r\nPlease press Enter to activate this console.\r\n"
    try_it(PlayedLine(device, first=hint))
    assert woken


def test_half_a_command_that_somebody_left_is_not_run() -> None:
    line = PlayedLine(a_shell)
    line._line = "rm -rf /"
    try_it(line)
    assert not any("rm -rf" in typed for typed in line.typed)


def test_half_a_login_that_somebody_left_is_ended_first() -> None:
    login = Login()
    login.at = "password"
    line = PlayedLine(login, first=b"\r\nboard login: eve\r\nPassword: ")
    try_it(line)
    assert line.typed[:2] == ["", "pi"], "our password went to somebody else's prompt"


def test_wrong_password_is_asked_for_again_and_then_given_up() -> None:
    asked = try_it(PlayedLine(Login()), passwords=("wrong", "right"))
    assert asked[1].endswith("(the last one was refused)")
    line = PlayedLine(Login())
    with pytest.raises(AuthError) as caught:
        try_it(line, passwords=("wrong", "wronger", "wrongest", "never asked"))
    assert str(caught.value).startswith(
        "cannot log in on serial:///dev/ttyX: the device refuses pi; the line shows: "
    )
    assert line.typed.count("pi") == 3
    assert "wrong" not in str(caught.value) + repr(caught.value.facts)


def test_password_that_the_device_prints_is_in_no_message() -> None:
    def device(line: str) -> str:
        return f"{line}\r\nyou typed {line}\r\nlogin incorrect: {line}\r\nPassword: "

    line = PlayedLine(device, first=b"login: ")
    with pytest.raises(AuthError) as caught:
        try_it(line, passwords=("s3cret",) * 3)
    assert "s3cret" in line.typed
    assert "s3cret" not in str(caught.value) + repr(caught.value.facts)
    assert "********" in str(caught.value)


@pytest.mark.parametrize(
    ("user", "passwords", "says", "hint"),
    [
        (None, (), "it asks for a user", "serial://root@/dev/ttyUSB0"),
        ("pi", (), "it asks for the password of pi", "set EDGESDK_CONSOLE_PASSWORD"),
        ("pi", ("a\rrm -rf /",), "the password holds a line end", "one line"),
    ],
)
def test_what_a_login_lacks_is_said(
    user: str | None, passwords: tuple[str, ...], says: str, hint: str
) -> None:
    line = PlayedLine(Login())
    with pytest.raises(AuthError) as caught:
        try_it(line, user=user, passwords=passwords)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert not any("rm" in typed for typed in line.typed)


@pytest.mark.parametrize(
    ("screen", "says"),
    [
        ("U-Boot 2024.01\r\n=> ", "a boot loader's prompt is there"),
        ("U-Boot> ", "a boot loader's prompt is there"),
        ("grub> ", "a boot loader's prompt is there"),
        ("BusyBox v1.36 built-in shell (ash)\r\n\r\n(initramfs) ", "first stage: (initramfs)"),
        (
            "You are in emergency mode.\r\nGive root password for maintenance\r\n"
            "(or press Control-D to continue): ",
            "asks for root, for maintenance",
        ),
        ("$ sudo true\r\n[sudo] password for pi: ", "sudo asks for a password there"),
        (
            "board: press Enter to log in; an edgesdk agent serves hosts on this line\r\n",
            "an edgesdk agent serves this line already",
        ),
        ("\r\nCurrent password: ", "wants a new password first"),
        (
            "You are required to change your password immediately.\r\nboard login: ",
            "wants a new password first",
        ),
    ],
)
def test_what_is_no_login_is_named(screen: str, says: str) -> None:
    line = PlayedLine(lambda _: screen, first=screen.encode())
    with pytest.raises(BootstrapError) as caught:
        try_it(line)
    assert says in str(caught.value)
    assert caught.value.hint
    assert "right" not in line.typed, "it was given our password"


def test_silence_garbage_and_a_program_are_told_apart() -> None:
    with pytest.raises(BootstrapError, match="nothing comes from it") as caught:
        try_it(PlayedLine(lambda _: ""))
    assert "TX joined to RX" in caught.value.hint
    line = PlayedLine(lambda _: "", first=bytes(range(128, 256)) * 4)
    with pytest.raises(BootstrapError, match="what comes is no text") as caught:
        try_it(line)
    assert "baud=" in caught.value.hint
    with pytest.raises(BootstrapError, match="no prompt comes"):
        try_it(PlayedLine(lambda _: "temperature 21.5\r\n"))


def test_boot_is_not_stopped_by_a_key() -> None:
    line = PlayedLine(Login(), first=b"U-Boot 2024.01\r\nHit any key to stop autoboot:  3 ")
    screen = Screen(line)
    typed_early: list[str] = []

    def read(*, timeout_s: float) -> bytes:
        if not done:
            done.append(1)
            return b"Hit any key to stop autoboot:  3 "
        if len(done) == 1:
            typed_early.extend(line.typed)
            done.append(1)
            return b"\r\nStarting kernel ...\r\n[    0.0] Booting Linux\r\nboard login: "
        return PlayedLine.read(line, timeout_s=timeout_s)

    done: list[int] = []
    line.coming = b""
    line.read = read  # type: ignore[method-assign] - a line with a boot before its login
    log_in(screen, user="pi", on_password=lambda _: "right", timeout_s=1.0)
    assert typed_early == []


def test_screen_keeps_little_of_a_flood_and_shows_no_control_characters() -> None:
    line = PlayedLine(lambda _: "")
    screen = Screen(line)
    for _ in range(50):
        line.coming = b"\x1b[31mflood\x1b[0m\x00\x07 \xff" * 1000
        screen.listen(0.1)
    assert len(screen.text) <= console_screen._KEPT_CHARS
    assert screen.tail.isprintable()
    assert len(screen.tail) <= 300
