"""The stable path: ``serve/current`` leads to the current release's folder, if it has one part.

For programs that load the model file themselves. ``slots.json`` is the truth; the link follows
it by one rename, and is put right when the agent starts and before anything is removed. A
release folder never changes and appears whole, so whatever the link leads to is whole: the
current release, or for the moment of a switch or a power cut the one before.
"""

from __future__ import annotations

import contextlib
from typing import Callable

from edge_agent.fs import Folder, NotOurs
from edge_agent.refusals import Refused
from edge_agent.releases import Releases
from edge_agent.slots import Slots

__all__ = ["StablePath"]

_FOLDER, _NAME = "serve", "current"


class StablePath:
    """Keeps the link in step with the slots.

    Args:
        root: The state folder.
        slots: Which release is current.
        releases: What it has.
        log: Writes a line.
    """

    def __init__(
        self, root: Folder, slots: Slots, releases: Releases, log: Callable[[str], None]
    ) -> None:
        self._root = root
        self._slots = slots
        self._releases = releases
        self._log = log
        self.repair()

    def repair(self) -> None:
        """Make the link what the slots say; one that cannot be made is better gone."""
        bundle = self._slots.bundle("current")
        try:
            if bundle is None and not self._root.has_folder(_FOLDER):
                return
            folder = self._root.sub(_FOLDER)
        except (OSError, NotOurs) as exc:
            self._log("serve/current cannot be made: {}".format(exc))
            return
        target = "../releases/{}".format(bundle)
        try:
            if folder.target(_NAME) == target:
                return
            if self._has_one_part():
                folder.point(_NAME, target)
            else:
                self._remove(folder)
        except (OSError, NotOurs) as exc:
            self._log("serve/current cannot be made: {}".format(exc))
            with contextlib.suppress(OSError, NotOurs):
                self._remove(folder)
        finally:
            folder.close()

    @staticmethod
    def _remove(folder: Folder) -> None:
        if folder.remove(_NAME):
            folder.sync()

    def _has_one_part(self) -> bool:
        try:
            _, manifest = self._releases.need("current")
        except Refused:
            return False
        return len(manifest["parts"]) == 1
