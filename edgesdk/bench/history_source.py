"""Which state of the user's own work is measured: branch and commit of the working folder.

Git's files are read, git is not run: what a repository configures can run programs. In a
continuous build, where nothing is checked out by name, the variables of the build say it.
Whether files were changed since that commit is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgesdk.bench.history_values import Provenance

__all__ = ["find_provenance"]

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HEADS = "refs/heads/"
_MAX_BYTES = 4 << 20
#: Where build servers say the branch and the commit, by pairs of variables.
_BUILD_VARIABLES = (
    ("GITHUB_HEAD_REF", "GITHUB_SHA"),
    ("GITHUB_REF_NAME", "GITHUB_SHA"),
    ("CI_COMMIT_BRANCH", "CI_COMMIT_SHA"),
    ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_SHA"),
    ("BUILDKITE_BRANCH", "BUILDKITE_COMMIT"),
)


def find_provenance(folder: Path, environ: Mapping[str, str]) -> Provenance:
    """Say which branch and commit ``folder`` is at; None for what nothing tells.

    Args:
        folder: A folder in, or below, a working tree.
        environ: The environment, for build servers.
    """
    branch = commit = None
    git = _git_folder(folder)
    if git is not None:
        head = _first_line(git / "HEAD")
        if head.startswith("ref: "):
            name = head[len("ref: ") :]
            branch = name.removeprefix(_HEADS) if name.startswith(_HEADS) else None
            commit = _commit_of(git, name)
        elif _COMMIT.fullmatch(head):
            commit = head
    if branch is None:
        for branch_name, commit_name in _BUILD_VARIABLES:
            said, built = environ.get(branch_name), environ.get(commit_name, "")
            if said and (commit is None or commit == built):
                branch = said
                commit = commit or (built if _COMMIT.fullmatch(built) else None)
                break
    if branch is not None:
        branch = "".join(c for c in branch if c.isprintable())[:200] or None
    return Provenance(branch=branch, commit=commit)


def _git_folder(folder: Path) -> Path | None:
    try:
        places = [folder.resolve(), *folder.resolve().parents]
    except OSError:
        return None
    for place in places:
        git = place / ".git"
        if git.is_dir():
            return git
        if git.is_file():  # of a worktree or a submodule
            named = _first_line(git)
            if named.startswith("gitdir: "):
                return place / named[len("gitdir: ") :]
            return None
    return None


def _commit_of(git: Path, name: str) -> str | None:
    """Look a reference up: loose files first, then the packed ones."""
    if ".." in name or name.startswith("/"):
        return None
    common = _first_line(git / "commondir")
    stores = [git, git / common] if common else [git]
    for store in stores:
        found = _first_line(store / name)
        if _COMMIT.fullmatch(found):
            return found
    for store in stores:
        for line in _read(store / "packed-refs").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name and _COMMIT.fullmatch(commit):
                return commit
    return None


def _first_line(path: Path) -> str:
    return next(iter(_read(path).splitlines()), "").strip()


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
