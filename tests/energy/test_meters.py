"""The other meters, each on a fake of what it reads."""

from __future__ import annotations

import math
import stat
import sys

import pytest

from energy.world import Clock, hwmon
from frugal.energy.evidence import Evidence
from frugal.energy.measuring import measure
from frugal.energy.meters import find, make
from frugal.energy.meters.base import COUNTER, POWER, MeterError
from frugal.energy.meters.battery import Battery
from frugal.energy.meters.hwmon import Hwmon
from frugal.energy.meters.jetson import Jetson
from frugal.energy.meters.perf import Perf
from frugal.energy.meters.pmic import Pmic
from frugal.energy.recording import Recording


def play(meter, clock, changes, seconds=0.1):
    """Open, poll once, and once after each change; (recording, start, end)."""
    meter.open()
    recording = Recording.of(meter.name, meter.channels)
    recording.add(meter.poll())
    start = clock.now
    for change in changes:
        clock.sleep(seconds)
        change()
        recording.add(meter.poll())
    return recording, start, clock.now


# ---- perf ----


class Kernel:
    """Two system calls over a table of counters."""

    def __init__(self, counts, denied=False):
        self.counts, self.denied, self.open_fds = counts, denied, {}

    def open(self, kind, config, cpu):
        if self.denied:
            raise MeterError("perf_event_open: Operation not permitted")
        fd = 10 + len(self.open_fds)
        self.open_fds[fd] = (kind, config, cpu)
        return fd

    def read(self, fd):
        _, config, cpu = self.open_fds[fd]
        value = self.counts[config, cpu]
        if isinstance(value, OSError):
            raise value
        return value

    def close(self, fd):
        del self.open_fds[fd]


def pmu(root, cpumask="0", **events):
    folder = root / "bus/event_source/devices/power"
    (folder / "events").mkdir(parents=True)
    (folder / "type").write_text("34\n")
    (folder / "cpumask").write_text(cpumask + "\n")
    for event, config in events.items():
        name = event.replace("_", "-")
        (folder / "events" / name).write_text(f"event={config:#x}\n")
        (folder / "events" / f"{name}.scale").write_text("2.3283064365386962890625e-10\n")


def test_perf_of_two_packages(tmp_path):
    pmu(tmp_path, "0,8", energy_pkg=2, energy_ram=3, energy_cores=1, energy_psys=5)
    counts = {(config, cpu): 1000 for config in (1, 2, 3, 5) for cpu in (0, 8)}
    kernel, clock = Kernel(counts), Clock()
    scale = 2.0**-32

    def change():
        counts.update(
            {(2, 0): 1000 + 2**32, (2, 8): 1000 + 2**33, (3, 0): 1000 + 2**30, (3, 8): 1000 + 2**30, (1, 0): 1000 + 2**30}
        )

    meter = Perf(tmp_path, clock, kernel)
    recording, start, end = play(meter, clock, [change])
    assert recording.figure(start, end).joules == pytest.approx(1 + 2 + 0.5)
    assert recording.label() == "perf: cpu_package + dram" and meter.channels[0].resolution == pytest.approx(scale)
    meter.close()
    assert not kernel.open_fds
    meter.close()


def test_perf_refused(tmp_path):
    pmu(tmp_path, energy_pkg=2)
    with pytest.raises(MeterError, match="not permitted"):
        Perf(tmp_path, kernel=Kernel({}, denied=True)).open()


def test_perf_counter_that_fails_later(tmp_path):
    pmu(tmp_path, energy_pkg=2)
    counts = {(2, 0): 5}
    clock = Clock()
    recording, start, end = play(Perf(tmp_path, clock, Kernel(counts)), clock, [lambda: counts.update({(2, 0): OSError("gone")})])
    assert "gone" in recording.figure(start, end).reason


@pytest.mark.parametrize("text", ["nonsense", "event=zz"])
def test_perf_with_a_strange_event(tmp_path, text):
    pmu(tmp_path, energy_pkg=2)
    (tmp_path / "bus/event_source/devices/power/events/energy-pkg").write_text(text)
    with pytest.raises(MeterError, match="event=NUMBER"):
        Perf(tmp_path, kernel=Kernel({})).open()


def test_perf_without_a_pmu(tmp_path):
    with pytest.raises(MeterError, match="no energy events"):
        Perf(tmp_path).open()


# ---- hwmon ----


def test_ina226_power(tmp_path):
    chip = hwmon(tmp_path, 0, "ina226", power1_input=5_000_000, in1_input=5000, curr1_input=1000, update_interval=10)
    hwmon(tmp_path, 1, "nvme", temp1_input=40000)
    clock = Clock()

    def rise():
        (chip / "power1_input").write_text("7000000")

    recording, start, end = play(Hwmon(tmp_path, clock), clock, [rise])
    figure = recording.figure(start, end)
    assert figure.joules == pytest.approx(0.6)  # 5 W to 7 W over 0.1 s
    assert figure.evidence is Evidence.B and recording.series[0].channel.kind == POWER
    assert recording.series[0].channel.period == pytest.approx(0.01)


def test_ina3221_is_current_times_voltage_and_its_input_is_the_total(tmp_path):
    hwmon(
        tmp_path, 0, "ina3221",
        in1_label="VDD_CPU", in1_input=5000, curr1_input=200,
        in2_label="VDD_IN", in2_input=5000, curr2_input=1000,
        in3_label="VDD_SOC", in3_input=5000, curr3_input=100,
    )  # fmt: skip
    clock = Clock()
    recording, start, end = play(Hwmon(tmp_path, clock), clock, [lambda: None])
    assert recording.figure(start, end).joules == pytest.approx(0.5)  # 5 W
    assert recording.label() == "hwmon: board"
    watts = {s.channel.name: s.energy(start, end).joules / 0.1 for s in recording.series}
    assert watts["ina3221/VDD_CPU"] == pytest.approx(1.0)


def test_rails_without_a_total_are_not_added_up_by_guess(tmp_path):
    hwmon(tmp_path, 0, "ina3221", in1_label="A", in1_input=5000, curr1_input=200, in2_label="B", in2_input=3300, curr2_input=100)
    clock = Clock()
    recording, start, end = play(Hwmon(tmp_path, clock), clock, [lambda: None])
    assert recording.figure(start, end).evidence is Evidence.X
    recording, start, end = play(Hwmon(tmp_path, clock, ["a", "ina3221/B"]), clock, [lambda: None])
    assert recording.figure(start, end).joules == pytest.approx(0.133)
    with pytest.raises(MeterError, match="no sensor 'c'"):
        Hwmon(tmp_path, clock, ["C"]).open()


def test_energy_counter_of_a_chip(tmp_path):
    chip = hwmon(tmp_path, 0, "amd_energy", energy1_input=1_000_000, energy1_label="Esocket0")
    clock = Clock()
    recording, start, end = play(
        Hwmon(tmp_path, clock),
        clock,
        [lambda: (chip / "energy1_input").write_text("3500000"), lambda: (chip / "energy1_input").write_text("100")],
    )
    assert recording.series[0].channel.kind == COUNTER
    assert recording.figure(start, end - 0.1).joules == pytest.approx(2.5)
    assert "went back" in recording.figure(start, end).reason


def test_a_sensor_that_vanishes(tmp_path):
    chip = hwmon(tmp_path, 0, "ina226", power1_input=5_000_000)
    clock = Clock()
    changes = [lambda: None, lambda: (chip / "power1_input").unlink()] + [lambda: None] * 5
    recording, start, end = play(Hwmon(tmp_path, clock), clock, changes, 0.3)
    figure = recording.figure(start, end)
    assert figure.joules is None and "power1_input" in figure.reason


# ---- Jetson ----


def test_jetson_rails(tmp_path):
    chip = tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    chip.mkdir(parents=True)
    rails = {"VDD_IN": (5000, 2000), "VDD_CPU_GPU_CV": (5000, 800), "NC": (0, 0)}
    (chip / "name").write_text("ina3221")
    for i, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        (chip / f"in{i}_label").write_text(label)
        (chip / f"in{i}_input").write_text(str(millivolts))
        (chip / f"curr{i}_input").write_text(str(milliamperes))
    clock = Clock()
    recording, start, end = play(Jetson(tmp_path, clock), clock, [lambda: None])
    assert recording.figure(start, end).joules == pytest.approx(1.0)
    assert [s.channel.name for s in recording.series] == ["ina3221/VDD_IN", "ina3221/VDD_CPU_GPU_CV"]


def test_jetson_before_jetpack_5(tmp_path):
    device = tmp_path / "bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    device.mkdir(parents=True)
    for i, (label, milliwatts) in enumerate((("POM_5V_IN", 4000), ("POM_5V_GPU", 500))):
        (device / f"rail_name_{i}").write_text(label)
        (device / f"in_power{i}_input").write_text(str(milliwatts))
    clock = Clock()
    recording, start, end = play(Jetson(tmp_path, clock), clock, [lambda: None])
    assert recording.figure(start, end).joules == pytest.approx(0.4)
    with pytest.raises(MeterError, match="no INA3221"):
        Jetson(tmp_path / "else").open()


# ---- Raspberry Pi 5 ----

ADC = """\
     3V7_WL_SW_A current(0)=0.10000000A
     3V3_SYS_A current(1)=0.20000000A
     VDD_CORE_A current(7)=1.00000000A
     3V7_WL_SW_V volt(8)=3.70000000V
     3V3_SYS_V volt(9)=3.30000000V
     VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.10000000V
     BATT_V volt(25)=0.00000000V
garbage
"""


def script(path, text):
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path), "pmic_read_adc"]


def test_pmic(tmp_path):
    command = script(tmp_path / "vcgencmd", f"print({ADC!r})")
    clock = Clock()
    meter = Pmic(command, clock)
    recording, start, end = play(meter, clock, [lambda: None])
    assert meter.rails == ["3V7_WL_SW", "3V3_SYS", "VDD_CORE"]  # those with both
    assert recording.figure(start, end).joules == pytest.approx((0.37 + 0.66 + 0.8) * 0.1)


def test_pmic_elsewhere_and_broken(tmp_path):
    with pytest.raises(MeterError, match="no such command"):
        Pmic(["no-such-vcgencmd"]).open()
    with pytest.raises(MeterError, match="VCHI initialization failed"):
        Pmic(script(tmp_path / "a", "import sys; sys.exit('VCHI initialization failed')")).open()
    with pytest.raises(MeterError, match="not a Raspberry Pi 5"):
        Pmic(script(tmp_path / "b", "print('error=1 error_msg=\"Command not registered\"')")).open()


# ---- battery ----


def supply(root, name="BAT0", **files):
    folder = root / "class/power_supply" / name
    folder.mkdir(parents=True)
    for file, value in ({"type": "Battery", "status": "Discharging"} | files).items():
        (folder / file).write_text(f"{value}\n")
    return folder


def test_battery(tmp_path):
    supply(tmp_path, "AC", type="Mains", status="x")
    folder = supply(tmp_path, power_now=12_000_000)
    clock = Clock()
    recording, start, end = play(Battery(tmp_path, clock), clock, [lambda: None])
    figure = recording.figure(start, end)
    assert figure.joules == pytest.approx(1.2) and recording.label() == "battery: system"
    (folder / "status").write_text("Charging")
    with pytest.raises(MeterError, match="is charging"):
        Battery(tmp_path).open()


def test_battery_by_current_and_voltage_that_gets_plugged_in(tmp_path):
    folder = supply(tmp_path, current_now=-1_000_000, voltage_now=11_000_000)
    clock = Clock()
    changes = [lambda: None, lambda: (folder / "status").write_text("Charging")] + [lambda: None] * 20
    recording, start, end = play(Battery(tmp_path, clock), clock, changes, 2.0)
    assert recording.figure(start, start + 2).joules == pytest.approx(22)
    assert "is charging" in recording.figure(start, end).reason


def test_a_second_battery_that_rests(tmp_path):
    supply(tmp_path, "BAT0", power_now=8_000_000)
    supply(tmp_path, "BAT1", power_now=0, status="Not charging")
    clock = Clock()
    recording, start, end = play(Battery(tmp_path, clock), clock, [lambda: None])
    assert recording.figure(start, end).joules == pytest.approx(0.8)


# ---- choice ----


def test_unknown_meter_and_no_meter():
    with pytest.raises(MeterError, match="there is no meter 'rapl'"):
        make("rapl")
    with measure("rapl") as m:
        pass
    assert m.gross.evidence is Evidence.X and math.isnan(float(m.gross.joules or "nan"))


def test_auto_says_why_each_meter_is_not_there(monkeypatch):
    from frugal.energy import meters

    def broken(spec):
        return Battery("/nonexistent")

    monkeypatch.setattr(meters, "make", broken)
    with pytest.raises(MeterError, match=r"no meter here; powercap: .*no battery; perf: .*no battery"):
        find("auto")
