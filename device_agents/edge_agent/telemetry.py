"""What a benchmark has to know of its surroundings: clocks, temperature, throttling, load.

Read from /proc and /sys only; what a kernel does not offer is None or left out. A sample costs
a few small reads and is taken by the agent, never inside the worker's loop.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from typing import Any, Dict, List, Optional

__all__ = [
    "Sampler",
    "emulated",
    "mem_available_bytes",
    "read_text",
    "sample",
    "static_conditions",
]

_MAX_SAMPLES = 3000
_MAX_TEXT_BYTES = 1 << 16
_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/"
_RASPBERRY_THROTTLED = (
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
    "/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
)
#: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_THROTTLE_BITS = (
    (0, "under-voltage"),
    (1, "frequency-capped"),
    (2, "throttled"),
    (3, "soft-temperature-limit"),
)


def read_text(path: str) -> Optional[str]:
    """The stripped text of a small system file, or None if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_TEXT_BYTES).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None


def read_int(path: str) -> Optional[int]:
    """The number in a small system file, or None."""
    try:
        return int(read_text(path) or "", 0)
    except ValueError:
        return None


def _in_order(pattern: str) -> List[str]:
    return sorted(glob.glob(pattern), key=lambda path: (len(path), path))


def cpu_mhz() -> List[float]:
    """The present clock of each core; empty where the kernel does not tell."""
    found = []
    for path in _in_order(_CPUFREQ + "scaling_cur_freq"):
        khz = read_int(path)
        if khz is not None:
            found.append(round(khz / 1000.0, 1))
    if found:
        return found
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("cpu MHz"):
            try:
                found.append(round(float(line.partition(":")[2]), 1))
            except ValueError:
                continue
    return found


def temperatures() -> Dict[str, float]:
    """Degrees Celsius by thermal zone; zones of one type are numbered."""
    found = {}  # type: Dict[str, float]
    for folder in _in_order("/sys/class/thermal/thermal_zone[0-9]*"):
        milli = read_int(os.path.join(folder, "temp"))
        if milli is None or not -60_000 <= milli <= 250_000:
            continue
        kind = read_text(os.path.join(folder, "type")) or "zone"
        name, number = kind, 2
        while name in found:
            name, number = "{}-{}".format(kind, number), number + 1
        found[name] = round(milli / 1000.0, 1)
    return found


def throttled() -> Optional[List[str]]:
    """What limits the clock right now; None where nothing tells, empty where nothing does."""
    for path in _RASPBERRY_THROTTLED:
        text = read_text(path)
        if text:
            try:
                bits = int(text, 16)
            except ValueError:
                continue
            return [name for bit, name in _THROTTLE_BITS if bits >> bit & 1]
    return None


def throttle_count() -> Optional[int]:
    """How often the package was throttled since boot (x86), or None."""
    return read_int("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")


def mem_available_bytes() -> Optional[int]:
    """Memory that can be had without swapping, or None."""
    for line in (read_text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def load1() -> Optional[float]:
    """The one-minute load average, or None."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def emulated() -> Optional[str]:
    """What emulates this process's machine, or None where it runs on a processor.

    qemu's user mode answers for ``/proc/self/exe`` and ``/proc/<pid>/exe`` with the program it
    runs, but not for the same link of a thread, which names the emulator itself.
    """
    try:
        program = os.readlink("/proc/thread-self/exe")
    except OSError:
        return None
    folder, name = os.path.split(program)
    ours = name.startswith("qemu-") or os.path.basename(folder) == "qemu-binfmt"
    return "qemu-user" if ours else None


def sample(started: float) -> Dict[str, Any]:
    """One look at the surroundings; ``started`` is the monotonic time the clock counts from."""
    return {
        "t_s": round(time.monotonic() - started, 3),
        "cpu_mhz": cpu_mhz(),
        "temp_c": temperatures(),
        "load1": load1(),
        "throttled": throttled(),
        "mem_available_bytes": mem_available_bytes(),
    }


def static_conditions() -> Dict[str, Any]:
    """What does not change during a benchmark."""
    governors = {read_text(p) for p in _in_order(_CPUFREQ + "scaling_governor")} - {None}
    limits = [read_int(p) for p in _in_order(_CPUFREQ + "scaling_max_freq")]
    known = [khz / 1000.0 for khz in limits if khz is not None]
    turbo = read_int("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = read_int("/sys/devices/system/cpu/cpufreq/boost")
    return {
        "emulated": emulated(),
        "governor": ", ".join(sorted(str(g) for g in governors)) or None,
        "max_mhz": known or None,
        "turbo": turbo == 0
        if turbo is not None
        else (boost == 1 if boost is not None else None),
        "cpu_count": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else None,
    }


class Sampler:
    """Takes a sample now and every ``period_s`` on a thread of its own, until stopped."""

    def __init__(self, *, period_s: float = 0.5) -> None:
        self.samples = []  # type: List[Dict[str, Any]]
        self._period_s = max(0.5, period_s)
        self._started = time.monotonic()
        self._throttle_count = throttle_count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.samples.append(sample(self._started))
            if len(self.samples) >= _MAX_SAMPLES:
                # a very long benchmark: keep every other sample, look half as often
                del self.samples[1::2]
                self._period_s *= 2
            if self._stop.wait(self._period_s):
                return

    def finish(self) -> List[Dict[str, Any]]:
        """Stop, take the last sample, and give all of them."""
        self._stop.set()
        self._thread.join()
        last = sample(self._started)
        before, after = self._throttle_count, throttle_count()
        if last["throttled"] is None and before is not None and after is not None:
            last["throttled"] = ["throttled"] if after > before else []
        self.samples.append(last)
        return self.samples
