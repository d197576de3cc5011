"""The agent as one file: pack what runs on a device into a reproducible zipapp.

The same sources give the same bytes on every computer, so the file can be named by its hash:
members are sorted, dated 1980 and stored without compression (zlib builds differ in their
output, and the device can then import them with no C library at all).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgesdk
from edgesdk.errors import OutputError

__all__ = ["AgentPackage", "pack_agent", "run_agent", "save_agent"]

_DOS_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = b"""\
import sys

if sys.version_info < (3, 7):
    found = "%d.%d" % sys.version_info[:2]
    sys.stderr.write("the edgesdk agent needs Python 3.7 or newer, this is %s\\n" % found)
    sys.exit(70)

from edge_agent.__main__ import main

sys.exit(main())
"""
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPackage:
    """The zipapp that runs on devices: its bytes, their SHA-256, and the version inside."""

    data: bytes
    sha256: str
    version: str

    def __repr__(self) -> str:
        return f"AgentPackage({self.version}, {len(self.data)} bytes, {self.sha256[:12]})"


def _members() -> Iterator[tuple[str, bytes]]:
    from edgesdk._resources import resource_dir

    yield "__main__.py", _MAIN
    # the device has only this corner of the package: its __init__ must import nothing
    yield "edgesdk/__init__.py", b""
    wire = Path(edgesdk.__file__).parent / "wire"
    for folder, prefix in (
        (resource_dir("device_agents") / "edge_agent", "edge_agent"),
        (wire, "edgesdk/wire"),
    ):
        for path in folder.rglob("*.py"):
            yield f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def pack_agent() -> AgentPackage:
    """Pack the agent and the wire code into a zipapp, the same bytes for the same sources."""
    members = dict(_members())
    found = _VERSION.search(members.get("edge_agent/__init__.py", b"").decode("utf-8"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, _DOS_EPOCH)
            member.create_system = 3  # else it depends on the computer that packs
            member.external_attr = 0o100644 << 16
            archive.writestr(member, members[name])
    data = packed.getvalue()
    return AgentPackage(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        version=found.group(1) if found else edgesdk.__version__,
    )


def save_agent(out: Path) -> AgentPackage:
    """Write the zipapp to the file ``out``, in one step, so that no reader sees half of it.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    package = pack_agent()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(package.data)
        partial.replace(out)
    except OSError as exc:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write the agent to {out}: {exc.strerror}",
            hint="name a file in a folder that you may write to",
            path=str(out),
        ) from exc
    return package


def run_agent() -> None:
    """Run the packed agent on this computer: the ``edgesdk-agent`` command.

    It runs the very file a device gets, isolated from this interpreter's packages, in this
    process's place.
    """
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("edgesdk")) / "agent"
    path = folder / f"agent-{pack_agent().sha256[:16]}.pyz"
    save_agent(path)
    os.execv(sys.executable, [sys.executable, "-I", "-S", str(path), *sys.argv[1:]])  # noqa: S606
