"""Through a login prompt on a serial console to a shell, reading the screen as a person does.

Nothing is known of the device but what it prints, and anything may come in between: messages of
its kernel, a greeting, colours. So prompts are recognised at the end of a screen that has gone
quiet, and a shell by its answer, never by its prompt. A password goes to the line only after a
prompt for one, and into no message.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from edgesdk.errors import AuthError, BootstrapError
from edgesdk.transport.base import OnPassword
from edgesdk.transport.console_screen import Screen

__all__ = ["is_shell", "log_in"]

_COUNTDOWN_CHARS = 300
#: A screen without news for so long waits for us; a prompt is believed sooner than none.
_QUIET_S = 0.4
_SILENT_S = 2.0
_ANSWER_S = 6.0
#: How long checking a password may take: some wait on purpose, some ask a server.
_CHECK_S = 20.0
_WAKE_EVERY_S = 3.0
#: So often a prompt is asked for before a shell without one is thought of.
_WAKES = 3
#: A console that is not quiet for so long never is; a boot may print for longer than that.
_NEVER_QUIET_S = 20.0
#: Ends a half-typed line, so that it is not run, and asks for a new prompt.
_WAKE = b"\x15\r"
_INTERRUPT = b"\x03"

_PROMPTS = (
    ("sudo", re.compile(r"\[sudo\][^\n]*:\s*\Z")),
    ("maintenance", re.compile(r"(?i)(press enter|password) for maintenance[^\n]*\n?[^\n]*\Z")),
    ("expired", re.compile(r"(?i)(current|new|retype new) (unix )?password:\s*\Z")),
    # anywhere: it says so before it starts a login
    ("agent", re.compile(r"an edgesdk agent serves hosts on this line")),
    ("activate", re.compile(r"(?i)press (the )?(enter|return)\b[^\n]*\Z")),
    ("password", re.compile(r"(?i)\bpass(word|phrase|code)\b[^\n:]*:\s*\Z")),
    ("login", re.compile(r"(?i)(?<!last )\b(login|username|user name)\s*:\s*\Z")),
    (
        "boot loader",
        re.compile(
            r"(?m)^(=>|u-boot>|[\w-]*boot[\w-]*>|grub( rescue)?>|barebox[^\n]*:[^\n]*|"
            r"marvell>>|cfe>|redboot>|loader>)\s*\Z",
            re.IGNORECASE,
        ),
    ),
    ("early boot", re.compile(r"\(initramfs\)\s*\Z")),
    ("python", re.compile(r"(?m)^>>>\s*\Z")),
    ("shell", re.compile(r"[#$%>\u276f\u203a\u00bb\u03bb\u279c]\s*\Z")),
)
_COUNTDOWN = re.compile(r"(?i)any key to (stop|abort)|autoboot|automatically in \d+")
_REFUSED = re.compile(r"(?i)login incorrect|authentication failure|access denied|login failed")
_CLOSED_OUT = re.compile(r"(?i)(account|user).{0,30}(locked|expired|disabled)|try again later")
_MUST_CHANGE = re.compile(r"(?i)required to change your password|password (has )?expired")

#: What is at the line where no login is, and what a person can do about it.
_OBSTACLES = {
    "boot loader": (
        "a boot loader's prompt is there",
        "let it start the system (U-Boot: `boot`), then try again",
    ),
    "early boot": (
        "the boot has stopped in its first stage: (initramfs)",
        "the root file system was not found; look at the messages above the prompt",
    ),
    "maintenance": (
        "the boot has stopped and asks for root, for maintenance",
        "log in there and mend the boot: `journalctl -xb` says what failed",
    ),
    "sudo": (
        "sudo asks for a password there",
        "somebody's command waits; end it on the line with Ctrl-C, then try again",
    ),
    "agent": (
        "an edgesdk agent serves this line already",
        "`edgesdk devices ping` with this URL reaches it; to put another one in its place, log "
        "in, stop it, and try again",
    ),
}


@dataclass(slots=True)
class _Attempts:
    """What was tried already, so that nothing is tried for ever."""

    names: int = 0
    passwords: int = 0
    probes: int = 0


def _prompt(text: str) -> str | None:
    for name, pattern in _PROMPTS:
        if pattern.search(text):
            return name
    return None


def _no_login(screen: Screen, seen: str, hint: str) -> BootstrapError:
    shown = f"; the line shows: {screen.tail}" if screen.tail else ""
    return BootstrapError(
        f"cannot log in on {screen.line.name}: {seen}{shown}",
        hint=hint,
        device=screen.line.name,
        screen=screen.tail,
    )


def _wake(screen: Screen, deadline: float) -> str:
    """Get a prompt, without stopping a boot that goes on by itself.

    Raises:
        BootstrapError: Nothing comes, or no text does.
    """
    woken = 0
    while True:
        screen.settle(
            _SILENT_S if woken == 0 else _QUIET_S,
            timeout_s=min(_NEVER_QUIET_S, max(_QUIET_S, deadline - time.monotonic())),
        )
        found = _prompt(screen.text)
        counting = _COUNTDOWN.search(screen.text[-_COUNTDOWN_CHARS:])
        if found in ("shell", None) and counting and time.monotonic() < deadline:
            # any key would stop the boot here: let it go on
            screen.listen(_WAKE_EVERY_S)
            if not screen.listen(_WAKE_EVERY_S):
                screen.forget()
            continue
        if found == "activate" and woken < 2:
            woken += 1
            screen.send(b"\r")
            screen.listen(_WAKE_EVERY_S)
            continue
        if found is not None:
            return found
        if time.monotonic() > deadline:
            break
        woken += 1
        if woken > _WAKES:
            return "shell"  # it has an unusual prompt, or none: its answer will tell
        screen.send(_INTERRUPT + _WAKE if woken > 2 else _WAKE)
        screen.listen(_WAKE_EVERY_S)
    raise _no_prompt(screen)


def _no_prompt(screen: Screen) -> BootstrapError:
    if not screen.heard_bytes:
        return _no_login(
            screen,
            "nothing comes from it",
            "is the device on, is TX joined to RX on both sides, and is this its console?",
        )
    if screen.is_garbage:
        return _no_login(
            screen,
            "what comes is no text",
            "is the speed right? serial:///dev/...?baud=115200",
        )
    return _no_login(screen, "no prompt comes", "is a program running there? end it first")


def _ask(screen: Screen, user: str, on_password: OnPassword | None, *, again: bool) -> str:
    prompt = f"password of {user} on {screen.line.name}"
    if again:
        prompt += " (the last one was refused)"
    secret = on_password(prompt) if on_password is not None else None
    if secret is None:
        raise AuthError(
            f"cannot log in on {screen.line.name}: it asks for the password of {user}",
            hint="run it at a terminal, or set EDGESDK_CONSOLE_PASSWORD",
            user=user,
        )
    if any(c in secret for c in "\r\n\0"):
        raise AuthError(
            f"cannot log in on {screen.line.name}: the password holds a line end",
            hint="retype it; it is one line",
            user=user,
        )
    screen.hide(secret)
    return secret


def log_in(
    screen: Screen,
    *,
    user: str | None,
    on_password: OnPassword | None,
    timeout_s: float,
    attempts: int = 3,
) -> None:
    """Get to a shell, whatever the line shows now.

    Args:
        screen: Of the line.
        user: Whom to log in as where the device asks.
        on_password: Asked for a password, when the device asks for one.
        timeout_s: How long it may take until the device asks.
        attempts: How many passwords may be tried; ``on_password`` is asked for each.

    Raises:
        AuthError: It needs a user or password that was not given, or refuses it.
        BootstrapError: No login and no shell is there; the text says what is.
        ChannelError: The line itself fails.
    """
    deadline = time.monotonic() + timeout_s
    found = _wake(screen, deadline)
    tried = _Attempts()
    while True:
        if found in _OBSTACLES:
            raise _no_login(screen, *_OBSTACLES[found])
        if found == "expired" or _MUST_CHANGE.search(screen.text):
            raise _no_login(
                screen,
                "the device wants a new password first",
                "log in once with a terminal program and set one",
            )
        if found == "login":
            found = _give_name(screen, user, tried, attempts)
        elif found == "password":
            found = _give_password(screen, user, on_password, tried, attempts)
        elif found == "python" and tried.probes < _WAKES:
            tried.probes += 1
            screen.send(b"\x04")
            found = screen.wait_for(_prompt, timeout_s=_ANSWER_S, quiet_s=_QUIET_S) or "shell"
        elif is_shell(screen):
            return
        else:
            tried.probes += 1
            if tried.probes >= _WAKES or time.monotonic() > deadline:
                raise _no_prompt(screen)
            found = _wake(screen, deadline)


def _refuse(screen: Screen, user: str | None, *, hint: str) -> AuthError:
    return AuthError(
        f"cannot log in on {screen.line.name}: the device refuses {user}; "
        f"the line shows: {screen.tail}",
        hint=hint,
        user=user,
    )


def _give_name(screen: Screen, user: str | None, tried: _Attempts, attempts: int) -> str:
    if user is None:
        raise AuthError(
            f"cannot log in on {screen.line.name}: it asks for a user; "
            f"the line shows: {screen.tail}",
            hint="name one in the URL: serial://root@/dev/ttyUSB0",
        )
    if tried.passwords >= attempts or tried.names > attempts:
        raise _refuse(screen, user, hint="are user and password right?")
    if _CLOSED_OUT.search(screen.text):
        raise _refuse(screen, user, hint="too many tries? wait, or log in another way")
    tried.names += 1
    screen.send(user.encode("utf-8") + b"\r")
    return screen.wait_for(_prompt, timeout_s=_CHECK_S, quiet_s=_QUIET_S) or "shell"


def _give_password(
    screen: Screen,
    user: str | None,
    on_password: OnPassword | None,
    tried: _Attempts,
    attempts: int,
) -> str:
    if tried.names == 0:
        # somebody else's half login: an empty password ends it
        tried.names = 0
        screen.send(b"\r")
        found = screen.wait_for(_prompt, timeout_s=_CHECK_S, quiet_s=_QUIET_S)
        tried.probes += 1
        if tried.probes > 3:
            raise _no_login(screen, "it asks for a password, of nobody we named", "look there")
        return found or "shell"
    if tried.passwords >= attempts:
        raise _refuse(screen, user, hint="are user and password right?")
    secret = _ask(screen, str(user), on_password, again=tried.passwords > 0)
    tried.passwords += 1
    screen.send(secret.encode("utf-8") + b"\r")
    found = _after_password(screen)
    if found == "refused":
        if tried.passwords >= attempts:
            raise _refuse(screen, user, hint="are user and password right?")
        found = screen.wait_for(_prompt, timeout_s=_CHECK_S, quiet_s=_QUIET_S) or "shell"
    return found


def _after_password(screen: Screen) -> str:
    deadline = time.monotonic() + _CHECK_S
    while time.monotonic() < deadline:
        found = screen.wait_for(
            lambda text: "refused" if _REFUSED.search(text) else _prompt(text),
            timeout_s=_SILENT_S,
            quiet_s=_QUIET_S,
        )
        if found is not None:
            return found
        before = screen.text
        screen.settle(_SILENT_S, timeout_s=_SILENT_S)
        if before.strip() and screen.text == before:
            break  # it has greeted us and waits: an unusual prompt
    return "shell"


def is_shell(screen: Screen) -> bool:
    """Ask what is there to join two words, which no echo of the question has joined."""
    token = secrets.token_hex(8)
    screen.send(b' echo EDGE"SDK"-%s\r' % token.encode("ascii"))
    wanted = re.compile(f"EDGESDK-{token}")
    return screen.wait_for(wanted.search, timeout_s=_ANSWER_S) is not None
