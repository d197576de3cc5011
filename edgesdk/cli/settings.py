"""``edgesdk settings``: every setting, its value and its origin."""

from __future__ import annotations

import typer

from edgesdk.cli.options import FormatOption, InventoryOption, TargetsDirOption
from edgesdk.cli.output import Format, Output
from edgesdk.settings import OPTIONS, resolve_settings, settings_file, unknown_variables

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def settings(
    inventory: InventoryOption = None,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show every setting and where its value came from."""
    out = Output("settings", fmt)
    resolved = resolve_settings({"inventory": inventory, "targets_dir": targets_dir})
    for name in unknown_variables():
        out.note(f"note: the environment variable {name} sets nothing")
    out.document(
        {
            "file": settings_file(),
            "settings": [
                {
                    "name": option.name,
                    "value": resolved.shown(option),
                    "origin": resolved.origins[option.name],
                    "default": option.default,
                    "variable": option.variable,
                    "help": option.help,
                }
                for option in OPTIONS
            ],
        }
    )
    out.table(
        ("setting", "value", "origin", "what it is"),
        [
            (
                option.name,
                "" if resolved.shown(option) is None else resolved.shown(option),
                resolved.origins[option.name],
                option.help,
            )
            for option in OPTIONS
        ],
    )
    out.line(f"\nsettings file: {settings_file()}")
