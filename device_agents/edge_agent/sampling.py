"""Watching the surroundings of a benchmark, without disturbing it.

A thread of the agent looks at the sensors (`edge_agent.sensors`) now and then, never the worker
that is measured. It keeps count of the CPU time it takes and looks less often where that would
be more than `MOST_SHARE` of a core.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import Any, Dict, Iterable, List, Optional

from edge_agent.power import average
from edge_agent.sensors import Sensors
from edge_agent.sysfiles import SysFiles
from edge_agent.telemetry import emulated

__all__ = ["MOST_SHARE", "Sampler", "static_conditions"]

#: Of one core, what looking may take.
MOST_SHARE = 0.003
_MAX_SAMPLES = 3000
_PERIOD_S = 0.5
_LONGEST_PERIOD_S = 30.0
_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/"


def static_conditions(files: Optional[SysFiles] = None) -> Dict[str, Any]:
    """What does not change during a benchmark."""
    files = files or SysFiles()
    governors = {files.text(p) for p in files.find(_CPUFREQ + "scaling_governor")} - {None}
    limits = [files.number(p) for p in files.find(_CPUFREQ + "scaling_max_freq")]
    known = [khz / 1000.0 for khz in limits if khz is not None]
    turbo = files.number("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = files.number("/sys/devices/system/cpu/cpufreq/boost")
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


def _thread_cpu_s() -> float:
    """CPU seconds of this thread, and of programs that the process has started and buried."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + children.ru_utime + children.ru_stime


class Sampler:
    """Takes a sample now and every half second on a thread of its own, until stopped.

    Args:
        ours: Process ids whose CPU time is no load of others.
        files: The machine's /proc and /sys.
        vcgencmd: See `Sensors`.
    """

    def __init__(
        self,
        ours: Iterable[int] = (),
        *,
        files: Optional[SysFiles] = None,
        vcgencmd: Optional[str] = None,
    ) -> None:
        self.samples = []  # type: List[Dict[str, Any]]
        #: CPU seconds that the samples took.
        self.cpu_s = 0.0
        self._sensors = Sensors(files or SysFiles(), ours, vcgencmd=vcgencmd)
        self._period_s = _PERIOD_S
        self._started = self._counted_from = time.monotonic()
        #: When the counted runs were over, and the joules by counter then.
        self._ended_at = None  # type: Optional[float]
        self._joules = {}  # type: Dict[str, float]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """The counted runs begin: energy counts from here, and the samples' clock is 0 here."""
        self._sensors.energy.start()
        self._counted_from = time.monotonic()

    def latest(self) -> Optional[Dict[str, Any]]:
        """The last sample there is, or None."""
        samples = self.samples
        return self._shifted(samples[-1]) if samples else None

    def _shifted(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        since_s = self._counted_from - self._started
        return dict(sample, t_s=round(max(0.0, sample["t_s"] - since_s), 3))

    def _take(self) -> None:
        self.samples.append(self._sensors.sample(self._started))

    def _run(self) -> None:
        while True:
            before_s = _thread_cpu_s()
            self._take()
            spent_s = _thread_cpu_s() - before_s
            self.cpu_s += spent_s
            if len(self.samples) >= _MAX_SAMPLES:
                # a very long benchmark: keep every other sample, look half as often
                del self.samples[1::2]
                self._period_s *= 2
            wait_s = max(self._period_s, min(spent_s / MOST_SHARE, _LONGEST_PERIOD_S))
            if self._stop.wait(wait_s):
                return

    def end(self) -> None:
        """The counted runs are over: energy counts to here, and so do the samples."""
        if self._ended_at is None:
            self._ended_at = time.monotonic()
            self._joules = self._sensors.energy.joules()
            self._stop.set()

    def finish(self) -> Dict[str, Any]:
        """Stop, take the last sample, and give all that was seen.

        Returns:
            ``samples`` from the last one before the counted runs on, whose ``t_s`` is 0;
            ``seconds`` from `begin` to `end`; ``energy``, a list of ``{name, kind, joules,
            mean_w, samples}``; ``why_no_energy``; and ``cpu_share``, what looking took of one
            core.
        """
        self.end()
        assert self._ended_at is not None
        self._thread.join()
        self._sensors.ask_anew()
        self._take()
        whole_s = time.monotonic() - self._started
        since_s = self._counted_from - self._started
        seconds = self._ended_at - self._counted_from
        energy = self._energy(since_s, seconds)
        before = sum(each["t_s"] < since_s for each in self.samples)
        return {
            "samples": [self._shifted(each) for each in self.samples[max(0, before - 1) :]],
            "seconds": round(seconds, 6),
            "energy": energy,
            "why_no_energy": ""
            if energy
            else self._sensors.energy.why or "this device has no sensor of power or energy",
            "cpu_share": round(self.cpu_s / whole_s, 6) if whole_s > 0 else None,
        }

    def _energy(self, since_s: float, seconds: float) -> List[Dict[str, Any]]:
        """What each counter counted, and what each sensor of power saw on average."""
        energy = [
            {"name": name, "kind": "counter", "joules": spent, "mean_w": None, "samples": None}
            for name, spent in self._joules.items()
        ]
        for name, (watts, count) in average(self.samples, since_s).items():
            energy.append(
                {
                    "name": name,
                    "kind": "sampled",
                    "joules": round(watts * seconds, 6),
                    "mean_w": round(watts, 4),
                    "samples": count,
                }
            )
        return energy
