"""OpenVINO's device names, as an option of a profile has them."""

from __future__ import annotations

__all__ = ["family_of", "mode_of", "named_devices"]

#: Names that stand for several devices, listed behind a colon, best first:
#: https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes.html
_MODES = ("AUTO", "HETERO", "MULTI")


def named_devices(device: str) -> tuple[str, ...]:
    """Give the devices that a name stands for, best first: two for ``HETERO:NPU,CPU``.

    ``AUTO`` alone names none: which devices there are is known where it runs.
    """
    mode, colon, listed = device.partition(":")
    if mode not in _MODES:
        return (device,)
    names = (name.strip() for name in listed.split(",") if colon)
    return tuple(name for name in names if name)


def mode_of(device: str) -> str:
    """Give the mode in which several devices stand together; empty for one device."""
    mode = device.partition(":")[0]
    return mode if mode in _MODES else ""


def family_of(device: str) -> str:
    """Give the kind of a device without its number or batch: ``GPU`` for ``GPU.1``."""
    return device.partition(".")[0].partition("(")[0]
