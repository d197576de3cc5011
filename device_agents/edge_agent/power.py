"""What measures power and energy on a device, wherever it has a sensor.

Counters of energy (RAPL's ``energy_uj``) are read before and after; sensors of power are read
with every sample and averaged. None of it needs a program, but for ``vcgencmd pmic_read_adc``,
which is the only way to the power regulator of a Raspberry Pi 5.

Sources: the kernel's Documentation/power/powercap/powercap.rst (RAPL) and
Documentation/hwmon/sysfs-interface.rst (power in microwatts, current in milliamperes, voltage
in millivolts), and NVIDIA's Jetson Linux developer guide, "Power Monitor" (rails of an
INA3221).
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.sysfiles import SysFiles

__all__ = ["Energy", "Power", "average", "pmic_watts"]

_RAPL = "/sys/class/powercap/*-rapl:[0-9]*"
_HWMON = "/sys/class/hwmon/hwmon[0-9]*"
_IIO_RAILS = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"
_MOST_SENSORS = 32
#: More than any device takes: a sensor that says so is read wrongly.
_MOST_W = 10_000.0
_PMIC_LINE = re.compile(r"\s*(\w+?)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)[AV]")


def pmic_watts(text: str) -> Dict[str, float]:
    """Watts by rail of what ``vcgencmd pmic_read_adc`` prints, which is current and voltage."""
    seen = {}  # type: Dict[str, Dict[str, float]]
    for line in text.splitlines():
        found = _PMIC_LINE.match(line)
        if found is not None:
            seen.setdefault(found.group(1), {})[found.group(2)] = float(found.group(3))
    return {name: v["A"] * v["V"] for name, v in seen.items() if len(v) == 2}


class Power:
    """The sensors of power that one machine has; looked for once."""

    def __init__(self, files: SysFiles) -> None:
        self._files = files
        #: A name, and what gives watts.
        self._sensors = []  # type: List[Tuple[str, Callable[[], Optional[float]]]]
        taken = {}  # type: Dict[str, int]
        for name, read in self._find():
            taken[name] = taken.get(name, 0) + 1
            unique = "{}-{}".format(name, taken[name]) if taken[name] > 1 else name
            if len(self._sensors) < _MOST_SENSORS:
                self._sensors.append((unique, read))

    def _find(self) -> List[Tuple[str, Callable[[], Optional[float]]]]:
        files = self._files
        found = []  # type: List[Tuple[str, Callable[[], Optional[float]]]]
        for folder in files.find(_HWMON):
            driver = files.driver(folder) or "hwmon"
            inputs = files.find(folder + "/power[0-9]*_input", folder + "/power[0-9]*_average")
            for path in inputs:
                label = files.text(path.rpartition("_")[0] + "_label") or driver
                found.append((label, self._scaled(path, 1e-6)))
            if inputs:
                continue
            for current in files.find(folder + "/curr[0-9]*_input"):
                number = current[len(folder) + len("/curr") : -len("_input")]
                volt = "{}/in{}_input".format(folder, number)
                label = files.text("{}/in{}_label".format(folder, number)) or driver
                if files.number(volt) is not None and not label.startswith("sum of"):
                    found.append((label, self._product(current, volt)))
        for path in files.find(_IIO_RAILS):  # Jetson Linux before release 34
            folder, _, number = path.rpartition("/rail_name_")
            value = "{}/in_power{}_input".format(folder, number)
            found.append((files.text(path) or "rail", self._scaled(value, 1e-3)))
        return found

    def _scaled(self, path: str, factor: float) -> Callable[[], Optional[float]]:
        def read() -> Optional[float]:
            value = self._files.number(path)
            return None if value is None else value * factor

        return read

    def _product(self, current: str, volt: str) -> Callable[[], Optional[float]]:
        def read() -> Optional[float]:
            milliamperes, millivolts = self._files.number(current), self._files.number(volt)
            if milliamperes is None or millivolts is None:
                return None
            return milliamperes * millivolts * 1e-6

        return read

    def watts(self) -> Dict[str, float]:
        """What each sensor says now."""
        found = {}
        for name, read in self._sensors:
            value = read()
            if value is not None and 0.0 <= value <= _MOST_W:
                found[name] = round(value, 4)
        return found


class Energy:
    """The counters of energy that one machine has, and what they counted since `start`."""

    def __init__(self, files: SysFiles) -> None:
        self._files = files
        self._domains = []  # type: List[Tuple[str, str, int]]
        #: Why there are none, where there would be.
        self.why = ""
        hidden = 0
        for folder in files.find(_RAPL)[:_MOST_SENSORS]:
            if folder.rpartition("/")[2].count(":") != 1:
                continue  # a part of a domain that is counted already
            if files.number(folder + "/energy_uj") is None:
                hidden += 1
                continue
            most = files.number(folder + "/max_energy_range_uj") or 0
            self._domains.append((folder, files.driver(folder) or "package", most))
        if hidden and not self._domains:
            self.why = "only root may read the energy counters of this machine"
        self._before = self._read()

    def _read(self) -> List[Optional[int]]:
        return [self._files.number(folder + "/energy_uj") for folder, _, _ in self._domains]

    def start(self) -> None:
        """Count from here."""
        self._before = self._read()

    def joules(self) -> Dict[str, float]:
        """What each domain took since then; a counter that began anew is followed once."""
        found = {}  # type: Dict[str, float]
        for (_, name, most), before, now in zip(self._domains, self._before, self._read()):
            if before is None or now is None:
                continue
            spent = now - before
            if spent < 0:
                spent += most
            if spent >= 0:
                found[name] = round(found.get(name, 0.0) + spent * 1e-6, 6)
        return found


def average(samples: List[Dict[str, Any]], since_s: float) -> Dict[str, Tuple[float, int]]:
    """Mean watts of each sensor over the samples from ``since_s`` on, and how many there are.

    Power is taken to change evenly between two samples: uneven distances count by their time.
    """
    taken = [each for each in samples if each["t_s"] >= since_s and each.get("power_w")]
    names = sorted({name for each in taken for name in each["power_w"]})
    found = {}  # type: Dict[str, Tuple[float, int]]
    for name in names:
        points = [
            (each["t_s"], each["power_w"][name]) for each in taken if name in each["power_w"]
        ]
        spans = [max(0.0, later[0] - one[0]) for one, later in zip(points, points[1:])]
        whole = sum(spans)
        if whole <= 0:
            found[name] = (points[-1][1], len(points))
            continue
        sums = [
            span * (one[1] + later[1]) / 2
            for span, one, later in zip(spans, points, points[1:])
        ]
        found[name] = (sum(sums) / whole, len(points))
    return found
