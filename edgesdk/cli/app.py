"""The root command: a table of subcommands whose modules are imported only when invoked.

``edgesdk --help`` is read far more often than any one command is run, so it must not pay for
them: the root holds a name and a line of help for each, and a test keeps these lines equal to
the docstrings they stand for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgesdk.cli.failures import interrupted, show_failure, show_usage_error

__all__ = ["COMMANDS", "root_command", "run"]

#: Subcommand, then its line in ``edgesdk --help``; its module has the same name, but for
#: those of `_MODULES`, whose names are words of the language.
COMMANDS: dict[str, str] = {
    "deploy": "Build a model, put it on a device, check and measure it.",
    "inspect": "Say what a model is and where it would run.",
    "plan": "Show what a build would do, and why.",
    "build": "Build a bundle for a target, without a device.",
    "debug": "Say which layers lose how much in 8 bits.",
    "bundle": "Show, verify, sign or export a bundle.",
    "bench": "Measure a release that is on a device.",
    "evaluate": "Say how good a release is on labelled data, on the device.",
    "run": "Run one inference on a device.",
    "status": "Say what a device holds and runs.",
    "releases": "List the releases on a device.",
    "confirm": "End the probation of a device's current release.",
    "rollback": "Go back to the previous release of a device.",
    "gc": "Remove what no slot of a device needs.",
    "import": "Turn another framework's model into ONNX.",
    "toolchains": "List, make and remove the environments of importers.",
    "targets": "List and show kinds of device.",
    "devices": "List devices, make virtual ones, reach and question them.",
    "trust": "Say or set whose signatures a device takes.",
    "agent": "Pack the agent, or install it on a device.",
    "history": "List, label, export and import what was measured.",
    "gate": "Fail a build where a release became slower.",
    "report": "Show a report again, compare several, or explain their fields.",
    "settings": "Show every setting and where its value came from.",
}


_MODULES = {"import": "importer"}


class _LazyGroup(TyperGroup):
    """A group whose commands are names with a line of help until one is invoked."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Replace the stand-in by the real command, importing its module."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and name is not None:
            _keep_libraries_quiet()
            module = importlib.import_module(f"edgesdk.cli.{_MODULES.get(name, name)}")
            command = typer.main.get_command(module.app)
            command.name = name
        return name, command, rest


def _keep_libraries_quiet() -> None:
    """Keep warnings that libraries log, and nobody handles, off the screen.

    What matters to a user comes as an error or a finding; a program that wants the log has
    configured logging before.
    """
    import logging

    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        from edgesdk import __version__

        print(f"edgesdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take a trained model to your own boards: built, verified, measured, reversible."""


def root_command() -> Any:
    """Build the command that stands for ``edgesdk``."""
    return typer.main.get_command(app)


def run(args: Sequence[str]) -> int:
    """Run one command line and give its exit code; nothing but an exit code leaves.

    Raises:
        SystemExit: From the parser, for shell completion.
    """
    try:
        code = root_command().main(args=list(args), prog_name="edgesdk", standalone_mode=False)
    except KeyboardInterrupt:
        return interrupted(args)
    except typer.TyperException as exc:
        return show_usage_error(exc, args)
    except Exception as exc:  # noqa: BLE001  # the one place where every error ends
        return show_failure(exc, args)
    # the parser turns Ctrl-C into this code
    if code == 130:
        return interrupted(args)
    sys.stdout.flush()
    return code if isinstance(code, int) else 0
