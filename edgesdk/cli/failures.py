"""How an error ends a command: a sentence, a hint, an exit code; with JSON a document."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import EXIT_BUG, EXIT_INTERRUPTED, EdgeError

if TYPE_CHECKING:
    import typer

__all__ = ["interrupted", "show_failure", "show_usage_error", "wants_json"]

_PASSWORD_IN_URL = re.compile(r"(://[^/@:\s]*):[^@\s]*@")


def wants_json(args: Sequence[str]) -> bool:
    """Say whether a command line asks for JSON, also one that cannot be parsed."""
    asked = False
    for index, arg in enumerate(args):
        if arg == "--":
            break
        if arg.startswith("--format="):
            asked = arg == "--format=json"
        elif arg == "--format" and index + 1 < len(args):
            asked = args[index + 1] == "json"
    return asked


def error_code(error: BaseException) -> str:
    """Name an error for scripts: its class in lower case with hyphens (``model-error``)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(error).__name__).lower()


#: What to try where an error has no hint of its own, by the nearest class that is listed.
_USUAL_HINTS: dict[str, str] = {
    "FindingsError": "edgesdk inspect lists the findings",
    "InputError": "edgesdk COMMAND --help says what each option takes",
    "ModelError": "was the file written completely? export or copy it again",
    "DataError": "data is an .npz with one array per input, a folder of .npz or pictures, or "
    "module:function",
    "ProfileError": "edgesdk targets list shows the targets that are known",
    "RecipeError": "a recipe is YAML; configs/recipes has examples",
    "InventoryError": "edgesdk devices list shows those you named; a URL works, too",
    "BundleError": "build it again: a bundle is never edited",
    "ReportError": "name the folder that edgesdk deploy wrote",
    "HistoryError": "edgesdk settings shows where the history lies (history)",
    "SettingsError": "edgesdk settings lists every setting",
    "OutputError": "is there room, and may you write there?",
    "BuildError": "edgesdk plan shows what the build would do, and why",
    "LinkError": "try edgesdk devices ping",
    "ChannelError": "is the device powered and connected? what was sent stays there: try again",
    "HostKeyError": "compare the key with the one the device has",
    "AuthError": "does ssh to the same address let you in?",
    "BootstrapError": "is there a Python of 3.7 or newer, and a folder the user may write to?",
    "ProtocolError": "try again; if it repeats, replace the agent: edgesdk agent install",
    "DeviceError": "edgesdk devices logs shows what the agent said",
}


def usual_hint(error: EdgeError) -> str:
    """Say what to try after an error of this class, whatever exactly happened."""
    return next(
        (
            _USUAL_HINTS[kind.__name__]
            for kind in type(error).__mro__
            if kind.__name__ in _USUAL_HINTS
        ),
        "",
    )


def show_failure(error: Exception, args: Sequence[str]) -> int:
    """Tell a person, and with JSON a script, what failed; give the exit code.

    An error that is no `EdgeError` is a bug of ours: its traceback is kept in a file.
    """
    if isinstance(error, EdgeError) and error.exit_code != EXIT_BUG:
        _tell(
            args,
            code=error_code(error),
            exit_code=error.exit_code,
            problem=str(error),
            hint=error.hint or usual_hint(error),
            facts=dict(error.facts),
        )
        return error.exit_code
    kept = _keep_traceback(error, args)
    where = f"the traceback is in {kept}" if kept else "its traceback could not be kept"
    _tell(
        args,
        code="bug",
        exit_code=EXIT_BUG,
        problem=f"internal error: {type(error).__name__}: {error}",
        hint=f"this is a bug in edgesdk; {where}",
        facts={"traceback": str(kept) if kept else None},
    )
    return EXIT_BUG


def show_usage_error(error: typer.TyperException, args: Sequence[str]) -> int:
    """Tell what is wrong with a command line; give the exit code, 2."""
    exit_code = int(getattr(error, "exit_code", 2))
    message = error.format_message().strip()
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the whole help text
        if message:
            sys.stderr.write(message + "\n")
        if not wants_json(args):
            return exit_code
        message = "Missing command."
    context = getattr(error, "ctx", None)
    hint = f"try '{context.command_path} --help'" if context is not None else ""
    if context is not None and not wants_json(args):
        sys.stderr.write(context.get_usage().strip() + "\n")
    _tell(args, code="usage", exit_code=exit_code, problem=message, hint=hint, facts={})
    return exit_code


def interrupted(args: Sequence[str]) -> int:
    """Say what an interrupted command leaves behind; give the exit code, 130."""
    _tell(
        args,
        code="interrupted",
        exit_code=EXIT_INTERRUPTED,
        problem="interrupted",
        hint="a device keeps the release it had; run it again to send only what is missing",
        facts={},
    )
    return EXIT_INTERRUPTED


def _tell(
    args: Sequence[str],
    *,
    code: str,
    exit_code: int,
    problem: str,
    hint: str,
    facts: dict[str, object],
) -> None:
    from edgesdk.cli.output import write_json

    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    red, dim, off = ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = [f"{red}error:{off} {_fitted(problem, after='error: ')}"]
    if hint:
        lines.append(f"{dim}hint:{off} {_fitted(hint, after='hint: ')}")
    # a closed pipe is no reason to hide the exit code
    with contextlib.suppress(OSError):
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    if wants_json(args):
        error = {
            "code": code,
            "exit_code": exit_code,
            "problem": problem,
            "hint": hint,
            "facts": facts,
        }
        with contextlib.suppress(OSError):
            write_json({"schema": "edgesdk.error/1", "error": error})


def _fitted(text: str, *, after: str) -> str:
    """Make text safe, and on a terminal as narrow as that, in line with its beginning."""
    from edgesdk.cli.output import printable, wrap_text

    safe = printable(text)
    if not sys.stderr.isatty():
        return safe
    return wrap_text(safe, indent=len(after)).replace("\n", "\n" + " " * len(after))


def _keep_traceback(error: Exception, args: Sequence[str]) -> Path | None:
    from edgesdk import __version__

    shown = [_PASSWORD_IN_URL.sub(r"\1:***@", arg) for arg in args]
    text = "".join(
        [
            f"edgesdk {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n",
            f"arguments: {shown!r}\n\n",
            *traceback.format_exception(error),
        ]
    )
    name = time.strftime("crash-%Y%m%dT%H%M%SZ-", time.gmtime()) + f"{os.getpid()}.txt"
    for folder in _places():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None


def _places() -> tuple[Path, Path]:
    from platformdirs import user_state_dir

    return Path(user_state_dir("edgesdk", appauthor=False)), Path(tempfile.gettempdir())
