"""Whether a live device is what a profile describes; pure, nothing is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from edgesdk.errors import ProfileError
from edgesdk.profiles.values import TargetProfile

__all__ = ["require_agent", "why_not_target"]

#: Firmware and kernel keep some memory to themselves: a Jetson module sold with 8 GB reports
#: 7.4 GiB, a Xavier NX as little as 6.7. A module of the next smaller size reports half.
_RAM_SHARE = 0.75
_MAX_VALUES = 512
_MAX_CHARS = 256

#: Field of the profile, how a person calls it, and whether a device has several.
_QUESTIONS = (
    ("machine", "machine", False),
    ("device_tree_model", "device tree model", False),
    ("cpu_model", "processor", False),
    ("devices", "device nodes", True),
    ("pci", "PCI ids", True),
    ("usb", "USB ids", True),
)


def _texts(value: object) -> tuple[str, ...]:
    """Take a fact as a device sent it: text, a list of texts, or anything at all."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return ()
    texts = (
        item[:_MAX_CHARS].strip(" \x00\n")
        for item in value[:_MAX_VALUES]
        if isinstance(item, str)
    )
    return tuple(text for text in texts if text)


def _said(values: tuple[str, ...]) -> str:
    shown = ", ".join(repr(value)[1:-1] for value in values[:6])
    return f"{shown}, ..." if len(values) > 6 else shown


def require_agent(profile: TargetProfile) -> None:
    """Refuse what needs an agent on a target that has none.

    Raises:
        ProfileError: The profile names no way to an agent there.
    """
    if not profile.agent.reach:
        raise ProfileError(
            f"cannot deploy to {profile.name}: no agent runs there, so bundles for it are "
            "built only",
            hint="build it with edgesdk build, write its file with edgesdk bundle export, and "
            "take that into the firmware",
            target=profile.name,
        )


def why_not_target(profile: TargetProfile, facts: Mapping[str, object]) -> tuple[str, ...]:
    """Say why a device is not the target; nothing to say means that it is.

    A field the profile asks about must be among the facts: a device that does not say is not
    the target. Memory is asked only from below, since a model that fits the target also fits a
    device with more.

    Args:
        profile: The target.
        facts: What the device's agent answered to ``facts``; may hold anything.

    Returns:
        One sentence for each thing that differs, in a fixed order.
    """
    reasons = []
    for field, called, several in _QUESTIONS:
        globs: tuple[str, ...] = getattr(profile.identify, field)
        if not globs:
            continue
        values = _texts(facts.get(field))
        expected = " or ".join(globs)
        if not values:
            nothing = "it has no" if several else "it does not say its"
            reasons.append(f"{nothing} {called} (expected {expected})")
        elif not any(fnmatchcase(v.lower(), g.lower()) for v in values for g in globs):
            verb = "are" if several else "is"
            reasons.append(f"its {called} {verb} {_said(values)} (expected {expected})")
    ram_bytes = facts.get("ram_bytes")
    if profile.ram_bytes is not None:
        enough = int(profile.ram_bytes * _RAM_SHARE)
        if not isinstance(ram_bytes, int) or isinstance(ram_bytes, bool):
            reasons.append(f"it does not say its memory (expected {_mib(profile.ram_bytes)})")
        elif ram_bytes < enough:
            reasons.append(
                f"its memory is {_mib(ram_bytes)} (expected {_mib(profile.ram_bytes)}, "
                f"of which it would report {_mib(enough)} at least)"
            )
    return tuple(reasons)


def _mib(count_bytes: int) -> str:
    return f"{count_bytes >> 20} MiB"
