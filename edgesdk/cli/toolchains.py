"""``edgesdk toolchains``: the environments that importers run in, made, listed, removed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.options import FormatOption
from edgesdk.cli.output import Format, Output, printable, size_text
from edgesdk.cli.progress import progress_bars
from edgesdk.errors import InputError
from edgesdk.settings import resolve_settings

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, make and remove the environments of importers.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A toolchain.")]


@app.command("list")
def list_toolchains(fmt: FormatOption = Format.TEXT) -> None:
    """List every toolchain, and which are there."""
    from edgesdk.importers.detect import FORMATS
    from edgesdk.importers.toolchain_spec import shipped_toolchains
    from edgesdk.importers.toolchains import Toolchains

    out = Output("toolchains-list", fmt)
    settings = resolve_settings()
    store = Toolchains(settings.toolchains_dir)
    specs = shipped_toolchains()
    made = {name: store.find(spec) for name, spec in specs.items()}
    current = {one.folder for one in made.values() if one is not None}
    old = [one for one in store.present() if one.folder not in current]
    formats = {
        name: [each.code for each in FORMATS.values() if each.toolchain == name]
        for name in specs
    }
    out.document(
        {
            "folder": store.root,
            "toolchains": [
                {
                    "name": name,
                    "about": spec.about,
                    "formats": formats[name],
                    "packages": spec.packages,
                    "made": made[name],
                }
                for name, spec in specs.items()
            ],
            "outdated": old,
        }
    )
    rows: list[tuple[object, ...]] = []
    for name, spec in specs.items():
        there = made[name]
        state = "not made" if there is None else f"Python {there.python}"
        size = "" if there is None else size_text(there.size_bytes)
        rows.append((name, spec.about, ", ".join(formats[name]), state, size))
    rows += [
        (one.name, "of another list; nothing uses it", "", f"Python {one.python}",
         size_text(one.size_bytes))
        for one in old
    ]  # fmt: skip
    out.table(("toolchain", "what it is", "imports", "state", "size"), rows, right=("size",))


@app.command("make")
def make_toolchain(
    name: NameArgument,
    again: Annotated[
        bool, typer.Option("--again", help="Make it anew even if it is there.")
    ] = False,
    wheels: Annotated[
        Path | None,
        typer.Option(
            "--wheels", metavar="DIR", help="Take every package from this folder, offline."
        ),
    ] = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Make a toolchain ready; the first import that needs it does the same."""
    from edgesdk.importers.toolchain_spec import find_toolchain
    from edgesdk.importers.toolchains import Toolchains

    out = Output("toolchains-make", fmt)
    settings = resolve_settings()
    if wheels is not None and not wheels.is_dir():
        raise InputError(
            f"cannot take packages from {wheels}: it is no folder",
            hint="pip download -d DIR fills one",
            path=str(wheels),
        )
    spec = find_toolchain(name)
    with progress_bars() as on_progress:
        made = Toolchains(settings.toolchains_dir).make(
            spec,
            again=again,
            wheels=None if wheels is None else wheels.resolve(),
            on_progress=on_progress,
            on_note=lambda text: print(f"note: {printable(text)}", file=sys.stderr),
        )
    out.document({"toolchain": made})
    out.line(f"{made.name} is ready: {size_text(made.size_bytes)} in {made.folder}")
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in spec.packages}
    shown = {k: v for k, v in made.versions.items() if k.lower().replace("_", "-") in names}
    out.pairs([("python", made.python), *sorted(shown.items())])


@app.command("remove")
def remove_toolchain(name: NameArgument, fmt: FormatOption = Format.TEXT) -> None:
    """Remove a toolchain from the disk; the next import makes it again."""
    from edgesdk.importers.toolchain_spec import find_toolchain
    from edgesdk.importers.toolchains import Toolchains

    out = Output("toolchains-remove", fmt)
    settings = resolve_settings()
    store = Toolchains(settings.toolchains_dir)
    if not any(one.name == name for one in store.present()):
        find_toolchain(name)  # one that is not made is no mistake, an unknown name is
    gone = store.remove(name)
    out.document({"removed": gone})
    freed = size_text(sum(one.size_bytes for one in gone))
    out.line(f"removed {name}: {freed}" if gone else f"{name} is not there")
