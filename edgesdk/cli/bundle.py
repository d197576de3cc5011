"""``edgesdk bundle``: show, verify, sign or export a bundle folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.build import bundle_record, show_bundle
from edgesdk.cli.options import FormatOption, KeyOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import progress_bars

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show, verify, sign or export a bundle.",
)
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder that 'edgesdk build' wrote.")
]


@app.command()
def show(folder: FolderArgument, fmt: FormatOption = Format.TEXT) -> None:
    """Show what a bundle holds: parts, inputs, outputs, how it was built."""
    from edgesdk.bundle.store import read_bundle

    out = Output("bundle-show", fmt)
    bundle = read_bundle(folder)
    out.document({"bundle": bundle_record(bundle), "manifest": bundle.manifest})
    show_bundle(out, bundle)


@app.command()
def verify(folder: FolderArgument, fmt: FormatOption = Format.TEXT) -> None:
    """Hash every blob of a bundle and compare it with its name."""
    from edgesdk.bundle.store import read_bundle, verify_bundle

    out = Output("bundle-verify", fmt)
    bundle = read_bundle(folder)
    with progress_bars() as on_progress:
        hashed_bytes = verify_bundle(bundle, on_progress=on_progress)
    out.document({"id": bundle.id, "folder": folder, "verified": True, "bytes": hashed_bytes})
    out.line(f"{folder} is bundle {bundle.id}: {size_text(hashed_bytes)} verified")


@app.command()
def sign(
    folder: FolderArgument,
    *,
    key: KeyOption,
    counter: Annotated[
        int | None,
        typer.Option(
            "--counter",
            metavar="N",
            help="Orders bundles of this name: a device refuses a lower one than it has "
            "settled on. Default: the time in seconds.",
        ),
    ] = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Sign a bundle with an SSH key, for devices that demand it."""
    from edgesdk.bundle.signing import sign_bundle
    from edgesdk.bundle.store import read_bundle, verify_bundle

    out = Output("bundle-sign", fmt)
    bundle = read_bundle(folder)
    with progress_bars() as on_progress:
        verify_bundle(bundle, on_progress=on_progress)
    signature = sign_bundle(bundle, key=key, counter=counter)
    out.document(
        {
            "id": bundle.id,
            "folder": folder,
            "name": signature.name,
            "counter": signature.counter,
        }
    )
    out.line(f"signed {bundle.name} {bundle.id[:12]} with counter {signature.counter}")


@app.command()
def export(
    folder: FolderArgument,
    out_dir: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A new or empty folder.")
    ],
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Write each part under a telling name, for use without edgesdk."""
    from edgesdk.bundle.export import export_bundle
    from edgesdk.bundle.store import read_bundle

    out = Output("bundle-export", fmt)
    bundle = read_bundle(folder)
    files = export_bundle(bundle, out_dir)
    out.document({"id": bundle.id, "folder": out_dir, "files": files})
    for path in files:
        out.line(f"wrote {path}")
