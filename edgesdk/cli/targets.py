"""``edgesdk targets``: list and show target profiles, print their JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import FormatOption, TargetsDirOption
from edgesdk.cli.output import Format, Output, size_text, write_json
from edgesdk.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from edgesdk.profiles.values import BackendProfile, TargetProfile

__all__ = ["app", "profile_folder"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and show kinds of device.",
)


def profile_folder(settings: Settings) -> Path | None:
    """Give the user's profile folder: None where nobody named one and none is there."""
    if settings.origins["targets_dir"] == "default" and not settings.targets_dir.exists():
        return None
    return settings.targets_dir


@app.command("list")
def list_targets(targets_dir: TargetsDirOption = None, fmt: FormatOption = Format.TEXT) -> None:
    """List every target with the backends it has, best first."""
    from edgesdk.profiles.catalog import load_catalog

    out = Output("targets-list", fmt)
    settings = resolve_settings({"targets_dir": targets_dir})
    profiles = list(load_catalog(profile_folder(settings)).values())
    out.document({"targets": [_summary(profile) for profile in profiles]})
    out.table(
        ("target", "what it is", "memory", "backends, best first"),
        [
            (
                profile.name + (" (default)" if profile.default else ""),
                profile.title,
                size_text(profile.ram_bytes) if profile.ram_bytes else "",
                ", ".join(backend.id for backend in profile.backends),
            )
            for profile in profiles
        ],
        right=("memory",),
    )


@app.command("show")
def show_target(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A target.")],
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show one target: backends, ceilings, quantization and where each figure is from."""
    from edgesdk.profiles.catalog import find_target

    out = Output("targets-show", fmt)
    settings = resolve_settings({"targets_dir": targets_dir})
    profile = find_target(name, extra_dir=profile_folder(settings))
    out.document({"target": profile, "assumed": profile.assumed})
    out.pairs(
        (
            ("target", profile.name),
            ("what it is", profile.title),
            ("family", f"{profile.family} ({profile.vendor})"),
            ("memory", size_text(profile.ram_bytes) if profile.ram_bytes else "not fixed"),
            ("contest", f"between {', '.join(profile.contest)}" if profile.contest else None),
            ("python", f"{profile.agent.python} or newer" if profile.agent.python else None),
            ("reached by", ", ".join(profile.agent.reach) or "no agent: for building only"),
            ("profile", f"{profile.source} ({profile.digest[:12]})"),
        )
    )
    out.line()
    out.table(
        ("backend", "runtime", "precisions", "max opset", "max IR", "install on the device"),
        [_backend_row(backend) for backend in profile.backends],
    )
    for backend in profile.backends:
        if backend.scheme is not None:
            scheme = backend.scheme
            narrow = ", reduced range" if scheme.reduce_range else ""
            out.line(
                f"{backend.id} quantizes to activations {scheme.activations}, "
                f"weights {scheme.weights}{narrow}, by the rules of {scheme.rules.name}"
            )
    if profile.notes:
        out.line(f"\n{profile.notes.strip()}")
    out.line()
    out.table(
        ("figure", "kind", "checked", "source"),
        [(each.field, each.kind, each.checked, each.source) for each in profile.provenance],
    )


@app.command("schema")
def schema(
    rules: Annotated[
        bool, typer.Option("--rules", help="The schema of scheme rules instead.")
    ] = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Print the JSON Schema of target files, for editors."""
    from edgesdk.profiles.schema import profile_schema, rules_schema

    out = Output("targets-schema", fmt)
    wanted = rules_schema() if rules else profile_schema()
    if out.json:
        out.document({"json_schema": wanted})
    else:
        write_json(wanted)


def _summary(profile: TargetProfile) -> dict[str, object]:
    return {
        "name": profile.name,
        "family": profile.family,
        "vendor": profile.vendor,
        "title": profile.title,
        "default": profile.default,
        "ram_bytes": profile.ram_bytes,
        "backends": [backend.id for backend in profile.backends],
        "assumed": profile.assumed,
        "source": profile.source,
    }


def _backend_row(backend: BackendProfile) -> tuple[object, ...]:
    return (
        backend.id + (" (accelerator)" if backend.accelerator else ""),
        f"{backend.runtime} {backend.runtime_version}".strip(),
        ", ".join(backend.precisions),
        "any" if backend.max_opset is None else backend.max_opset,
        "any" if backend.max_ir is None else backend.max_ir,
        backend.requirement,
    )
