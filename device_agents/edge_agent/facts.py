"""What this machine is: the host compares it with a target profile before it sends a byte."""

from __future__ import annotations

import glob
import os
import platform
import pwd
import sys
from typing import Any, Dict, List, Optional

from edge_agent.telemetry import emulated, read_text

__all__ = ["machine_facts", "machine_key"]

#: Device nodes by which accelerators are known; the list is what identification may ask about.
_NODES = (
    "/dev/accel/accel*",
    "/dev/apex_*",
    "/dev/dri/renderD*",
    "/dev/ethosu*",
    "/dev/galcore",
    "/dev/hailo*",
    "/dev/mali*",
    "/dev/nvhost-*",
    "/dev/nvidia*",
    "/dev/nvmap",
)
_MAX_NODES = 100
#: MIDR part numbers of Arm's own cores (Linux, arch/arm64/include/asm/cputype.h).
_ARM_PARTS = {
    0xC07: "Cortex-A7",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
}


def _os_release() -> Dict[str, str]:
    found = {}
    for line in (read_text("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip().strip("\"'")
    return {
        "id": found.get("ID", ""),
        "version": found.get("VERSION_ID", ""),
        "name": found.get("PRETTY_NAME", ""),
    }


def _cpuinfo() -> List[Dict[str, str]]:
    cores = [{}]  # type: List[Dict[str, str]]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, colon, value = line.partition(":")
                if colon:
                    cores[-1][key.strip()] = value.strip()
                elif cores[-1]:
                    cores.append({})
    except OSError:
        pass
    return [core for core in cores if core]


def _cpu_model(cores: List[Dict[str, str]]) -> str:
    names = []
    for core in cores:
        name = core.get("model name", "")
        if not name or name.startswith(("ARMv", "AArch64")):
            part = core.get("CPU part", "")
            if core.get("CPU implementer") == "0x41" and part:
                name = _ARM_PARTS.get(int(part, 16), "Arm core " + part)
        if name and name not in names:
            names.append(name)
    return " + ".join(names)


def _cpu_flags(cores: List[Dict[str, str]]) -> List[str]:
    for core in cores:
        text = core.get("flags") or core.get("Features")
        if text:
            return sorted(set(text.split()))
    return []


def libc() -> str:
    """Name and version of the C library: it decides which wheels fit."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        name = None
    if name:
        return name
    if glob.glob("/lib/ld-musl-*"):
        return "musl"
    return " ".join(part for part in platform.libc_ver() if part)


def _ids(pattern: str, vendor: str, product: str) -> List[str]:
    found = set()
    for folder in glob.glob(pattern):
        left = read_text(os.path.join(folder, vendor))
        right = read_text(os.path.join(folder, product))
        if left and right:
            found.add("{}:{}".format(left[-4:].lower(), right[-4:].lower()))
    return sorted(found)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def device_tree_model() -> Optional[str]:
    """The board's own name for itself, on systems with a device tree."""
    return read_text("/proc/device-tree/model") or read_text(
        "/sys/firmware/devicetree/base/model"
    )


def machine_key() -> Dict[str, str]:
    """What has to be the same for a check's result to hold: the processor it ran on."""
    return {"machine": platform.machine(), "cpu_model": _cpu_model(_cpuinfo())}


def machine_facts() -> Dict[str, Any]:
    """Every fact except those of the state folder and of the runtimes."""
    cores = _cpuinfo()
    nodes = sorted({path for pattern in _NODES for path in glob.glob(pattern)})
    return {
        "machine": platform.machine(),
        "emulated": emulated(),
        "system": platform.system(),
        "kernel": platform.release(),
        "os": _os_release(),
        "hostname": platform.node(),
        "user": _user(),
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "libc": libc(),
        "cpu_model": _cpu_model(cores),
        "cpu_count": os.cpu_count() or 1,
        "cpu_flags": _cpu_flags(cores),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device_tree_model": device_tree_model(),
        "devices": nodes[:_MAX_NODES],
        "pci": _ids("/sys/bus/pci/devices/*", "vendor", "device"),
        "usb": _ids("/sys/bus/usb/devices/*", "idVendor", "idProduct"),
    }
