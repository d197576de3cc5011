"""What one look at the surroundings of a benchmark says: clocks, heat, load, memory, power.

Read from /proc and /sys; what a kernel does not offer is None or left out. What files there are
is found once, so that a look costs a few small reads. `vcgencmd` is asked only where no file
says whether the clock is limited, and seldom: it is a program to start.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Dict, Iterable, List, Optional, Tuple

from edge_agent.power import Energy, Power, pmic_watts
from edge_agent.sysfiles import SysFiles

__all__ = ["Sensors", "busy_s", "worked_s"]

_CPU = "/sys/devices/system/cpu/"
_CPUFREQ = _CPU + "cpu[0-9]*/cpufreq/"
_ZONES = "/sys/class/thermal/thermal_zone[0-9]*"
_HWMON = "/sys/class/hwmon/hwmon[0-9]*"
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
#: The same bits, so much higher: it happened since the device started.
_SINCE_BOOT = 16
#: Counters that grow each time the clock was limited: of x86, and of over-current on a Jetson.
_COUNTERS = (
    (_CPU + "cpu0/thermal_throttle/package_throttle_count", "throttled"),
    (_CPU + "cpu0/thermal_throttle/core_throttle_count", "throttled"),
    (_HWMON + "/oc[0-9]*_event_cnt", "over-current"),
)
_DEVFREQ = "/sys/class/devfreq/*"
_MOST_FILES = 64
_ASK_EVERY_S = 5.0
_ASK_TIMEOUT_S = 2.0
_TICKS = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0


def busy_s(files: SysFiles) -> Optional[float]:
    """CPU seconds that all processes together have taken since boot; None if unknown.

    Time a hypervisor gave to others (steal) counts: it was not ours. Guests' time is in user
    time already.
    """
    words = (files.text("/proc/stat") or "").partition("\n")[0].split()
    if len(words) < 5 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:]):
        return None
    ticks = [int(word) for word in words[1:]] + [0] * 10
    user, nice, system, _, _, irq, softirq, steal = ticks[:8]
    return (user + nice + system + irq + softirq + steal) / _TICKS


def worked_s(files: SysFiles, pid: int) -> float:
    """CPU seconds that one process and the children it has buried have taken; 0 if gone."""
    text = files.text("/proc/{}/stat".format(pid)) or ""
    words = text.rpartition(")")[2].split()
    if len(words) < 15 or not all(word.lstrip("-").isdigit() for word in words[11:15]):
        return 0.0
    return sum(int(word) for word in words[11:15]) / _TICKS


def _find(program: str) -> str:
    """Where a program lies, or an empty text."""
    for folder in os.get_exec_path():
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _ask(command: str, word: str) -> Optional[str]:
    """What a program says to a word, or None."""
    try:
        done = subprocess.run(
            [command, word],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


class Sensors:
    """The sensors of one machine.

    Args:
        files: Its /proc and /sys.
        ours: Process ids of whoever is measured, beside this process itself.
        vcgencmd: The program of that name; None looks for it, an empty text has none.
    """

    def __init__(
        self, files: SysFiles, ours: Iterable[int] = (), *, vcgencmd: Optional[str] = None
    ) -> None:
        self.files = files
        self._ours = [os.getpid()] + list(ours)
        self._clocks = files.find(_CPUFREQ + "scaling_cur_freq")[:1024]
        self._governors = files.find(_CPUFREQ + "scaling_governor")[:1024]
        self._zones = self._find_zones()
        self._alarms = files.find(_HWMON + "/in[0-9]*_lcrit_alarm")[:_MOST_FILES]
        self._flags = [path for path in _RASPBERRY_THROTTLED if files.text(path)]
        self._engines = self._find_engines()
        self._counters = [
            (path, cause) for pattern, cause in _COUNTERS for path in files.find(pattern)
        ][:_MOST_FILES]
        self._counted = self._count()
        self._program = _find("vcgencmd") if vcgencmd is None else vcgencmd
        self._asked_at = float("-inf")
        self._said = {}  # type: Dict[str, Any]
        self._since_boot = None  # type: Optional[int]
        self._cpu = (time.monotonic(), busy_s(files), self._worked_s())
        self.power = Power(files)
        self.energy = Energy(files)

    def _find_zones(self) -> List[Tuple[str, str]]:
        found = []  # type: List[Tuple[str, str]]
        taken = set()  # type: set
        for folder in self.files.find(_ZONES)[:_MOST_FILES]:
            kind = self.files.text(folder + "/type") or "zone"
            name, number = kind, 2
            while name in taken:
                name, number = "{}-{}".format(kind, number), number + 1
            taken.add(name)
            found.append((name, folder + "/temp"))
        return found

    def _find_engines(self) -> List[Tuple[str, str]]:
        """Clocks of what is no CPU: graphics, accelerators, memory controllers."""
        paths = self.files.find(_DEVFREQ + "/cur_freq")[:_MOST_FILES]
        return [(path.split("/")[-2], path) for path in paths]

    def _count(self) -> List[Optional[int]]:
        return [self.files.number(path) for path, _ in self._counters]

    def _worked_s(self) -> float:
        return sum(worked_s(self.files, pid) for pid in self._ours)

    # -- what can be asked each time -----------------------------------------------------------

    def cpu_mhz(self) -> List[float]:
        """The present clock of each core; empty where the kernel does not tell."""
        known = [self.files.number(path) for path in self._clocks]
        found = [round(khz / 1000.0, 1) for khz in known if khz is not None]
        if found:
            return found
        for line in (self.files.text("/proc/cpuinfo") or "").splitlines():
            if line.startswith("cpu MHz"):
                try:
                    found.append(round(float(line.partition(":")[2]), 1))
                except ValueError:
                    continue
        return found

    def engine_mhz(self) -> Dict[str, float]:
        """The present clock of each engine that is no CPU, by the kernel's name of it."""
        known = [(name, self.files.number(path)) for name, path in self._engines]
        return {name: round(hz / 1e6, 1) for name, hz in known if hz is not None}

    def governor(self) -> Optional[str]:
        """What sets the clock; several where the cores differ."""
        found = {self.files.text(path) for path in self._governors} - {None, ""}
        return ", ".join(sorted(str(name) for name in found)) or None

    def temperatures(self) -> Dict[str, float]:
        """Degrees Celsius by thermal zone; zones of one type are numbered."""
        found = {}
        for name, path in self._zones:
            milli = self.files.number(path)
            if milli is not None and -60_000 <= milli <= 250_000:
                found[name] = round(milli / 1000.0, 1)
        return found

    def throttled(self) -> Optional[List[str]]:
        """What limits the clock, or did since the last look; None where nothing tells."""
        causes = []  # type: List[str]
        knows = bool(self._alarms)
        bits = self._throttle_bits()
        if bits is not None:
            knows = True
            before, self._since_boot = self._since_boot, bits >> _SINCE_BOOT
            between = 0 if before is None else self._since_boot & ~before
            causes += [name for bit, name in _THROTTLE_BITS if (bits | between) >> bit & 1]
        if any(self.files.number(path) == 1 for path in self._alarms):
            causes.append("under-voltage")
        before_counts, self._counted = self._counted, self._count()
        for (_, cause), one, now in zip(self._counters, before_counts, self._counted):
            if one is not None and now is not None:
                knows = True
                if now > one:
                    causes.append(cause)
        return list(dict.fromkeys(causes)) if knows else None

    def _throttle_bits(self) -> Optional[int]:
        text = None  # type: Optional[str]
        for path in self._flags:
            text = text or self.files.text(path)
        if not self._flags:
            text = self._ask_program().get("throttled")
        try:
            return int((text or "").rpartition("=")[2], 16)
        except ValueError:
            return None

    def _ask_program(self) -> Dict[str, Any]:
        """What ``vcgencmd`` said last, which is at most so old as `_ASK_EVERY_S`."""
        now = time.monotonic()
        if self._program and now - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = now
            told = _ask(self._program, "get_throttled")
            if told is None:
                self._program = ""  # it does not work here, and need not be tried again
                self._said = {}
            else:
                rails = pmic_watts(_ask(self._program, "pmic_read_adc") or "")
                self._said = {"throttled": told.strip(), "rails": rails}
        return self._said

    def ask_anew(self) -> None:
        """Have the program asked again the next time, however long ago that was."""
        self._asked_at = float("-inf")

    def watts(self) -> Dict[str, float]:
        """Power by sensor; the rails of a regulator, where they are all there is, as a sum."""
        found = self.power.watts()
        if not found:
            rails = self._ask_program().get("rails") or {}
            if rails:
                found = {"sum of regulator rails": round(sum(rails.values()), 4)}
        return found

    def others_cpu(self) -> Optional[float]:
        """Cores that other processes took since the last call; None where nothing tells."""
        at, busy, worked = self._cpu
        now = time.monotonic()
        self._cpu = (now, busy_s(self.files), self._worked_s())
        if busy is None or self._cpu[1] is None or now - at < 0.05:
            return None
        spent = (self._cpu[1] - busy) - (self._cpu[2] - worked)
        return round(max(0.0, spent) / (now - at), 3)

    def sample(self, started: float) -> Dict[str, Any]:
        """One look; ``started`` is the monotonic time that its clock counts from."""
        memory = self.files.fields("/proc/meminfo")
        swap = memory.get("SwapTotal")
        found = {
            "t_s": round(time.monotonic() - started, 3),
            "cpu_mhz": self.cpu_mhz(),
            "governor": self.governor(),
            "temp_c": self.temperatures(),
            "load1": _load1(),
            "others_cpu": self.others_cpu(),
            "throttled": self.throttled(),
            "mem_available_bytes": memory.get("MemAvailable"),
            "swap_used_bytes": None if swap is None else swap - memory.get("SwapFree", swap),
        }  # type: Dict[str, Any]
        optional = (("engine_mhz", self.engine_mhz), ("power_w", self.watts))
        for name, read in optional:
            value = read()
            if value:
                found[name] = value
        return found


def _load1() -> Optional[float]:
    """The one-minute load average, or None."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
