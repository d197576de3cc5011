"""Where the files that ship beside the code lie: in a wheel, or in a checkout.

A wheel carries them under ``edgesdk/_data``. An editable install runs the checkout's own
package, which has no ``_data``, so its files come from the checkout's top level and never from
a stale copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgesdk.errors import EdgeError

__all__ = ["ResourceName", "resource_dir"]

ResourceName = Literal["targets", "device_agents", "toolchains"]

#: Where a checkout has them, if not at its top under the same name.
_IN_CHECKOUT = {"toolchains": "configs/toolchains"}


def resource_dir(name: ResourceName, *, package: Path | None = None) -> Path:
    """Find the folder of shipped files called ``name``.

    Args:
        name: Which folder.
        package: The folder of the ``edgesdk`` package; the running one unless a test says
            otherwise.

    Raises:
        EdgeError: Neither place has it, which is a packaging mistake and not the user's.
    """
    home = Path(__file__).resolve().parent if package is None else package
    installed = home / "_data" / name
    checkout = home.parent / _IN_CHECKOUT.get(name, name)
    if installed.is_dir():
        return installed
    if checkout.is_dir() and (home.parent / "pyproject.toml").is_file():
        return checkout
    raise EdgeError(
        f"cannot find the {name} files of edgesdk: neither {installed} nor {checkout} is there",
        hint="the installation is incomplete; install edgesdk again",
        name=name,
    )
