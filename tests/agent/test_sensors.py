"""What a device says of itself, read from trees of files like those of real kernels."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Modules = Callable[[str], Any]
CPU = "sys/devices/system/cpu"


class Machine:
    """A root with files in it."""

    def __init__(self, root: Path, modules: Modules) -> None:
        self.root = root
        self._modules = modules

    def put(self, **files: object) -> None:
        for path, text in files.items():
            self.write(path, text)

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def sensors(self, ours: tuple[int, ...] = (), vcgencmd: str = "") -> Any:
        files = self._modules("edge_agent.sysfiles").SysFiles(str(self.root))
        return self._modules("edge_agent.sensors").Sensors(files, ours, vcgencmd=vcgencmd)

    def sample(self, **fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.sensors(**fields).sample(time.monotonic())
        return found


@pytest.fixture
def machine(tmp_path: Path, agent_modules: Modules) -> Machine:
    return Machine(tmp_path, agent_modules)


def test_a_machine_that_tells_nothing_has_no_values(machine: Machine) -> None:
    sample = machine.sample()
    assert sample["cpu_mhz"] == []
    assert sample["temp_c"] == {}
    for name in (
        "governor",
        "throttled",
        "mem_available_bytes",
        "swap_used_bytes",
        "others_cpu",
    ):
        assert sample[name] is None
    assert "power_w" not in sample
    assert "engine_mhz" not in sample


def test_clocks_governors_heat_and_memory(machine: Machine) -> None:
    for cpu in (0, 1, 10):
        machine.write(f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq", 1_500_000 + cpu * 1000)
        machine.write(f"{CPU}/cpu{cpu}/cpufreq/scaling_governor", "ondemand")
    machine.write(f"{CPU}/cpu10/cpufreq/scaling_governor", "performance")
    for zone, (kind, milli) in enumerate([("cpu", 51_234), ("cpu", 40_000), ("gpu", 999_999)]):
        machine.write(f"sys/class/thermal/thermal_zone{zone}/type", kind)
        machine.write(f"sys/class/thermal/thermal_zone{zone}/temp", milli)
    machine.write("sys/class/devfreq/17000000.gpu/cur_freq", 624_750_000)
    machine.write(
        "proc/meminfo",
        "MemTotal: 8000 kB\nMemAvailable:    1000 kB\nSwapTotal: 500 kB\nSwapFree: 100 kB",
    )
    sample = machine.sample()
    assert sample["cpu_mhz"] == [1500.0, 1501.0, 1510.0]
    assert sample["governor"] == "ondemand, performance"
    assert sample["temp_c"] == {"cpu": 51.2, "cpu-2": 40.0}
    assert sample["engine_mhz"] == {"17000000.gpu": 624.8}
    assert sample["mem_available_bytes"] == 1000 * 1024
    assert sample["swap_used_bytes"] == 400 * 1024


FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_flags_of_the_firmware_are_read_with_what_happened_in_between(machine: Machine) -> None:
    machine.write(FIRMWARE, "0")
    sensors = machine.sensors()
    assert sensors.throttled() == []
    machine.write(FIRMWARE, "50005")  # under-voltage and throttling, now and since the start
    assert sensors.throttled() == ["under-voltage", "throttled"]
    machine.write(FIRMWARE, "50000")
    assert sensors.throttled() == []  # known already
    machine.write(FIRMWARE, "70000")  # the frequency was capped between two looks
    assert sensors.throttled() == ["frequency-capped"]
    machine.write(FIRMWARE, "nonsense")
    assert sensors.throttled() is None


def test_an_alarm_for_low_voltage_is_told(machine: Machine) -> None:
    machine.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", 0)
    sensors = machine.sensors()
    assert sensors.throttled() == []
    machine.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", 1)
    assert sensors.throttled() == ["under-voltage"]


def test_counters_of_throttling_are_compared_from_look_to_look(machine: Machine) -> None:
    machine.write(f"{CPU}/cpu0/thermal_throttle/package_throttle_count", 7)
    machine.write("sys/class/hwmon/hwmon3/oc1_event_cnt", 0)
    sensors = machine.sensors()
    assert sensors.throttled() == []
    machine.write(f"{CPU}/cpu0/thermal_throttle/package_throttle_count", 9)
    machine.write("sys/class/hwmon/hwmon3/oc1_event_cnt", 2)
    assert sensors.throttled() == ["throttled", "over-current"]
    assert sensors.throttled() == []


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_vcgencmd_is_asked_where_no_file_tells_and_seldom(
    machine: Machine, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    fake = program(
        tmp_path / "vcgencmd",
        f'echo "$1" >> {count}\n'
        'if [ "$1" = get_throttled ]; then echo throttled=0x1; exit 0; fi\n'
        'echo "     VDD_CORE_A current(7)=1.50000000A"\n'
        'echo "     VDD_CORE_V volt(15)=0.80000000V"\n'
        'echo "        EXT5V_V volt(24)=5.10000000V"',
    )
    sensors = machine.sensors(vcgencmd=fake)
    for _ in range(5):
        sample = sensors.sample(0.0)
    assert sample["throttled"] == ["under-voltage"]
    assert sample["power_w"] == {"sum of regulator rails": 1.2}
    assert count.read_text().split() == ["get_throttled", "pmic_read_adc"]
    sensors.ask_anew()
    sensors.throttled()
    assert len(count.read_text().split()) == 4


def test_a_vcgencmd_that_fails_is_not_asked_again(machine: Machine, tmp_path: Path) -> None:
    count = tmp_path / "count"
    fake = program(tmp_path / "vcgencmd", f"echo x >> {count}; exit 1")
    sensors = machine.sensors(vcgencmd=fake)
    for _ in range(3):
        assert sensors.throttled() is None
        sensors.ask_anew()
    assert count.read_text().split() == ["x"]


def cpu_line(*ticks: int) -> str:
    return "cpu  " + " ".join(map(str, ticks)) + " 0 0"


def process(machine: Machine, pid: int, ticks: int) -> None:
    machine.write(
        f"proc/{pid}/stat", f"{pid} (a ) b) S {' '.join(['0'] * 10)} {ticks} 0 0 0 20"
    )


def test_load_of_others_leaves_out_what_is_ours(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write("proc/stat", cpu_line(0, 0, 0, 0, 0, 0, 0, 0))
    process(machine, 77, 0)
    process(machine, os.getpid(), 0)
    sensors = machine.sensors(ours=(77,))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.0)
    second = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal: 1.7 s of work in all, 1 s is ours
    work = [int(second * share) for share in (1.0, 0.1, 0.2, 9.0, 0.5, 0.1, 0.1, 0.2)]
    machine.write("proc/stat", cpu_line(*work))
    process(machine, 77, int(0.9 * second))
    process(machine, os.getpid(), int(0.1 * second))
    assert sensors.others_cpu() == pytest.approx(0.7, abs=0.03)


def test_power_of_hwmon_and_of_rails(machine: Machine) -> None:
    ina = "sys/class/hwmon/hwmon2"
    machine.put(**{f"{ina}/name": "ina3221", f"{ina}/in1_label": "VDD_IN"})
    machine.put(**{f"{ina}/in1_input": 5000, f"{ina}/curr1_input": 1200})
    machine.put(**{f"{ina}/in2_label": "VDD_SOC", f"{ina}/in2_input": 5000})
    machine.put(**{f"{ina}/curr2_input": 300, f"{ina}/curr9_input": 300})
    machine.put(**{"sys/class/hwmon/hwmon4/name": "ina226"})
    machine.put(**{"sys/class/hwmon/hwmon4/power1_input": 2_500_000})
    rail = "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    machine.put(**{f"{rail}/rail_name_0": "POM_5V_IN", f"{rail}/in_power0_input": 4100})
    assert machine.sample()["power_w"] == {
        "VDD_IN": 6.0,
        "VDD_SOC": 1.5,
        "ina226": 2.5,
        "POM_5V_IN": 4.1,
    }


RAPL = "sys/class/powercap/intel-rapl:"


def test_energy_counters_are_followed_over_their_end(machine: Machine) -> None:
    for number, (name, energy) in enumerate([("package-0", 900_000), ("psys", 10)]):
        machine.put(**{f"{RAPL}{number}/name": name, f"{RAPL}{number}/energy_uj": energy})
        machine.put(**{f"{RAPL}{number}/max_energy_range_uj": 1_000_000})
    machine.put(**{f"{RAPL}0:0/name": "core", f"{RAPL}0:0/energy_uj": 5})
    energy = machine.sensors().energy
    energy.start()
    machine.write(f"{RAPL}0/energy_uj", 400_000)  # it went on from 0
    machine.write(f"{RAPL}1/energy_uj", 250_010)
    assert energy.joules() == {"package-0": 0.5, "psys": 0.25}


def test_counters_that_only_root_may_read_are_named(machine: Machine) -> None:
    machine.write(f"{RAPL}0/name", "package-0")  # its energy_uj cannot be read
    assert "only root" in machine.sensors().energy.why


def test_power_is_averaged_over_uneven_times(agent_modules: Modules) -> None:
    average = agent_modules("edge_agent.power").average
    at = [(0.0, 99.0), (1.0, 2.0), (2.0, 4.0), (10.0, 4.0)]
    samples = [{"t_s": t, "power_w": {"VDD_IN": w}} for t, w in at]
    assert average(samples, 1.0) == {"VDD_IN": (pytest.approx((3.0 + 8 * 4.0) / 9), 3)}
    assert average(samples[:2], 1.0) == {"VDD_IN": (2.0, 1)}
    assert average([{"t_s": 1.0}], 0.0) == {}


def test_a_sampler_counts_from_the_counted_runs_and_what_it_costs(
    machine: Machine, agent_modules: Modules
) -> None:
    machine.put(**{f"{RAPL}0/name": "package-0", f"{RAPL}0/energy_uj": 1_000_000})
    machine.put(**{"sys/class/hwmon/hwmon4/power1_input": 2_000_000})
    files = agent_modules("edge_agent.sysfiles").SysFiles(str(machine.root))
    sampler = agent_modules("edge_agent.sampling").Sampler(files=files, vcgencmd="")
    time.sleep(0.1)
    machine.write(f"{RAPL}0/energy_uj", 2_000_000)
    sampler.begin()
    time.sleep(0.7)
    machine.write(f"{RAPL}0/energy_uj", 2_500_000)
    sampler.end()
    machine.write(f"{RAPL}0/energy_uj", 9_000_000)  # after the counted runs
    found = sampler.finish()
    by_kind = {each["kind"]: each for each in found["energy"]}
    assert by_kind["counter"]["joules"] == 0.5
    assert by_kind["sampled"]["mean_w"] == 2.0
    assert by_kind["sampled"]["joules"] == pytest.approx(2.0 * found["seconds"], rel=1e-3)
    assert 0.7 <= found["seconds"] < 2
    assert found["samples"][0]["t_s"] == 0.0
    assert found["samples"][-1]["t_s"] >= 0.7
    assert found["why_no_energy"] == ""
    assert 0 < found["cpu_share"] < 0.05


def test_a_costly_look_is_taken_less_often(
    machine: Machine, agent_modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look burns 30 ms: at 0.3 % of a core there may be one in 10 s."""
    telemetry = agent_modules("edge_agent.sampling")

    def burn(self: Any, started: float) -> dict[str, Any]:
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass
        return {"t_s": round(time.monotonic() - started, 3)}

    monkeypatch.setattr(telemetry.Sensors, "sample", burn)
    files = agent_modules("edge_agent.sysfiles").SysFiles(str(machine.root))
    sampler = telemetry.Sampler(files=files, vcgencmd="")
    time.sleep(1.3)
    assert len(sampler.samples) == 1
    assert len(sampler.finish()["samples"]) == 2


def test_odd_files_do_not_end_a_sample(machine: Machine) -> None:
    machine.write("proc/stat", "cpu  x y z")
    machine.write("proc/meminfo", "MemAvailable: lots\nSwapTotal:")
    machine.write(f"{CPU}/cpu0/cpufreq/scaling_cur_freq", "fast")
    machine.write("sys/class/thermal/thermal_zone0/temp", "\x00\xff")
    machine.write("sys/class/hwmon/hwmon0/power1_input", -5)
    machine.write("sys/class/hwmon/hwmon0/curr1_input", "")
    machine.write("sys/class/powercap/intel-rapl:0/energy_uj", "much")
    sample = machine.sample()
    assert sample["others_cpu"] is None
    assert sample["temp_c"] == {}
    assert "power_w" not in sample


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("quiet edgesdk.emulated=qemu-system panic=-1", "qemu-system"),
        ("quiet panic=-1", None),
        ("edgesdk.emulated=", None),
        ("edgesdk.emulated=<b>", None),
        (None, None),
    ],
)
def test_a_kernel_may_say_that_its_machine_is_emulated(
    line: str | None,
    expected: str | None,
    agent_modules: Modules,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telemetry = agent_modules("edge_agent.telemetry")
    monkeypatch.setattr(telemetry, "read_text", lambda path: line)
    monkeypatch.setattr(telemetry.os, "readlink", lambda path: "/usr/bin/python3.11")
    assert telemetry.emulated() == expected
