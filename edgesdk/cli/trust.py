"""``edgesdk trust``: whose signatures a device takes, and what it demands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.devicelink import (
    device_settings,
    find_device,
    find_release,
    open_session,
    short_id,
)
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption, SignOption
from edgesdk.cli.output import Format, Output
from edgesdk.errors import InputError

if TYPE_CHECKING:
    from edgesdk.deploy.trust import DeviceTrust

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Say or set whose signatures a device takes.",
)
_MAX_KEYS_BYTES = 1 << 17


@app.command()
def show(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say what a device demands, and whose signatures count there."""
    from edgesdk.deploy.trust import ask_trust

    out = Output("trust-show", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        trust = ask_trust(session)
    _show(out, found.name, trust)


@app.command("set")
def set_(
    device: DeviceArgument = None,
    *,
    signers: Annotated[
        Path | None,
        typer.Option(
            "--signers", metavar="FILE", help="Whose count: an allowed_signers file of OpenSSH."
        ),
    ] = None,
    revoked: Annotated[
        Path | None,
        typer.Option("--revoked", metavar="FILE", help="Public keys that no longer count."),
    ] = None,
    require: Annotated[
        bool | None,
        typer.Option("--require/--no-require", help="Demand a signature of every bundle."),
    ] = None,
    remote: Annotated[
        bool | None,
        typer.Option("--remote/--no-remote", help="Let hosts change this again."),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Set what a device demands, which a host may do once.

    After that it is changed on the device, with 'edge-agent trust', unless --remote was given.
    """
    from edgesdk.deploy.trust import set_trust

    out = Output("trust-set", fmt)
    if signers is None and revoked is None and require is None and remote is None:
        raise InputError(
            "cannot set what the device demands: nothing was given",
            hint="give --signers FILE --require, for instance",
        )
    settings = device_settings(inventory)
    found = find_device(settings, device)
    texts = [None if path is None else _read(path) for path in (signers, revoked)]
    with open_session(settings, found) as session:
        trust = set_trust(
            session, signers=texts[0], revoked=texts[1], require=require, remote=remote
        )
    _show(out, found.name, trust)


@app.command()
def allow(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="As for other commands.")],
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="A slot, or a bundle id or its beginning.")
    ],
    *,
    sign: SignOption,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Sign a release that a device holds, so that it may go back to it."""
    from edgesdk.deploy.trust import allow_downgrade

    out = Output("trust-allow", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        held = find_release(session, release)
        vouched = allow_downgrade(session, bundle=held.bundle, name=held.name, key=sign)
    out.document({"device": found.name, "bundle": held.bundle, **asdict(vouched)})
    if vouched.verified:
        out.line(
            f"{found.name} takes {held.name} {short_id(held.bundle)}, signed by "
            f"{vouched.signer}"
        )
    else:
        out.note(vouched.why)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Make a key to share with a device on a serial line."""
    from edgesdk.devices.proof import make_key_file

    out = Output("trust-key", fmt)
    make_key_file(file)
    out.document({"file": file})
    out.line(
        f"wrote {file}; give it to the device with `edge-agent trust key --from FILE`, and "
        f"name it here as `key:` in the inventory or serial://...?key={file}"
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_KEYS_BYTES + 1)
        if len(data) > _MAX_KEYS_BYTES:
            raise InputError(f"cannot read keys from {path}: it has more than 128 KiB")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"cannot read keys from {path}: {exc}",
            hint="one line a key: a name, the key's type and the key, as in a .pub file",
            path=str(path),
        ) from exc


def _show(out: Output, name: str, trust: DeviceTrust) -> None:
    record = asdict(trust)
    del record["challenge"]
    out.document({"device": name, **record})
    demanded = "signed bundles only" if trust.require else "no signatures"
    if not trust.require and trust.signers:
        demanded = "no signatures, but checks them"
    if trust.damaged:
        demanded = f"cannot read its demands, so takes nothing: {trust.damaged}"
    floors = [f"{each} {trust.floors[each]}" for each in sorted(trust.floors)]
    out.pairs(
        [
            ("demands", demanded),
            ("signers", "; ".join(trust.signers) or None),
            ("revoked", "; ".join(trust.revoked) or None),
            ("settled on", "; ".join(floors) or None),
            ("checks with", trust.checks_with),
            ("line", "asks for a key" if trust.line_key else "no key"),
            ("hosts may change it", "yes" if trust.remote or not trust.is_set else "no"),
        ]
    )
