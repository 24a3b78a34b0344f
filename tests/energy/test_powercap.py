"""RAPL counters on a fake sysfs: wraps, trees, mirrors, and everything that can be unreadable."""

from __future__ import annotations

import os

import pytest

from energy.world import RANGE, Clock, zone
from frugal.energy.evidence import Evidence
from frugal.energy.measuring import measure
from frugal.energy.meters.base import MeterError
from frugal.energy.meters.powercap import Powercap
from frugal.energy.recording import Recorder, Recording


def opened(root, clock=None):
    clock = clock or Clock()
    meter = Powercap(root, clock)
    meter.open()
    return meter, Recording.of(meter.name, meter.channels), clock


def polled(meter, recording, clock, seconds=0.1):
    clock.sleep(seconds)
    recording.add(meter.poll())
    return clock.now


def test_a_wrap_is_exact(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 3_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.write_text(str(4_000_000))  # 3 J to the end of the range and 4 J from 0 on
    end = polled(meter, recording, clock)
    figure = recording.figure(start, end)
    assert figure.joules == pytest.approx(7.0, abs=1e-9)
    assert figure.evidence is Evidence.B and figure.interval[0] < 7 < figure.interval[1]
    assert figure.source == "powercap: cpu_package"


def test_many_wraps_of_a_small_range(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0, 1_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    for n in range(1, 200):
        file.write_text(str(n * 300_000 % 1_000_000))
        end = polled(meter, recording, clock)
    assert recording.figure(start, end).joules == pytest.approx(199 * 0.3, abs=1e-9)
    assert meter.poll_seconds <= 0.001  # a range that is passed in no time is polled as often as can be


def test_measure_over_a_wrap_in_real_time(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 3_000_000)
    with measure(f"powercap:{tmp_path}") as m:
        file.write_text("4000000")
    assert m.gross.joules == pytest.approx(7.0, abs=1e-9)
    about = m.to_dict()
    assert about["evidence_class"] == "B" and about["net_joules"] is None and "baseline" in about["net_reason"]
    assert about["interval"][0] < 7 < about["interval"][1] and about["seconds"] > 0


def test_a_step_back_is_no_wrap(tmp_path):
    """pyJoules made -262,063 J of such a moment, others 0."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", 90_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.write_text("10000000")
    middle = polled(meter, recording, clock)
    file.write_text("12000000")
    end = polled(meter, recording, clock)
    lost = recording.figure(start, end)
    assert lost.joules is None and lost.evidence is Evidence.X and "went back from 90000000 to 10000000" in lost.reason
    assert recording.figure(middle, end).joules == pytest.approx(2.0)  # after the reset it counts again


def test_going_back_without_a_range_is_lost(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, None)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.write_text("1000000")
    end = polled(meter, recording, clock)
    assert "gives no range" in recording.figure(start, end).reason


def test_the_tree(tmp_path):
    """psys holds the packages, a package its core and uncore; dram stands beside: nothing is counted twice."""
    files = {
        name: zone(tmp_path, name, label, 1_000_000 * (i + 1))
        for i, (name, label) in enumerate(
            {
                "intel-rapl:0": "package-0",
                "intel-rapl:0:0": "core",
                "intel-rapl:0:1": "uncore",
                "intel-rapl:0:2": "dram",
                "intel-rapl:1": "package-1",
                "intel-rapl:1:0": "core",
                "intel-rapl:1:1": "dram",
                "intel-rapl:2": "psys",
            }.items()
        )
    }
    (tmp_path / "class/powercap/intel-rapl").mkdir()  # the control type has no counter
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    for i, file in enumerate(files.values()):
        file.write_text(str(1_000_000 * (i + 1) + 2**i * 1_000_000))
    end = polled(meter, recording, clock)
    assert recording.figure(start, end).joules == pytest.approx(1 + 8 + 16 + 64)  # packages and drams
    assert recording.label() == "powercap: cpu_package + dram"
    by_name = {s.channel.name: s.energy(start, end).joules for s in recording.series}
    assert by_name["psys"] == pytest.approx(128) and by_name["core #2"] == pytest.approx(32)


def test_only_psys(tmp_path):
    zone(tmp_path, "intel-rapl:0", "psys", 5_000_000)
    meter, _, _ = opened(tmp_path)
    assert [c.counted for c in meter.channels] == [True] and meter.channels[0].scope == "platform"


def test_mirrored_dies_count_once(tmp_path):
    for i in range(4):
        zone(tmp_path, f"intel-rapl:{i}", f"package-0-die-{i}", 5_000_000_000)
    zone(tmp_path, "intel-rapl:4", "package-1-die-0", 7_000_000_000)
    meter, _, _ = opened(tmp_path)
    assert [c.counted for c in meter.channels] == [True, False, False, False, True]
    assert "package-0-die-0" in meter.channels[1].note


def test_two_sockets_that_start_alike_are_two(tmp_path):
    files = [zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 5_000_000) for i in range(2)]
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    for file in files:
        file.write_text("6000000")
    end = polled(meter, recording, clock)
    assert recording.figure(start, end).joules == pytest.approx(2.0)


def test_memory_of_mirrored_dies_counts_once(tmp_path):
    for i in range(2):
        zone(tmp_path, f"intel-rapl:{i}", f"package-0-die-{i}", 5_000_000_000)
        zone(tmp_path, f"intel-rapl:{i}:0", "dram", 3_000_000_000)
    meter, _, _ = opened(tmp_path)
    assert [c.counted for c in meter.channels] == [True, True, False, False]  # die 0, its dram, die 1, its dram


def test_the_same_package_by_mmio_counts_once(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_100_000_000)  # counts apart, measures the same
    meter, _, _ = opened(tmp_path)
    assert [c.counted for c in meter.channels] == [True, False]


def test_vanished_during_the_window(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.unlink()
    end = polled(meter, recording, clock)
    figure = recording.figure(start, end)
    assert figure.joules is None and "No such file" in figure.reason
    file.write_text("3000000")
    late = polled(meter, recording, clock)
    assert recording.figure(start, late).joules == pytest.approx(2.0)  # it never stopped counting


def test_in_a_sysfs_of_its_own(tmp_path):
    """The whole command over the real path: a mount namespace puts a tree that wraps over /sys/class."""
    import json
    import subprocess
    import sys

    program = f"""
import json, threading, time, os
from pathlib import Path
folder = Path("/sys/class/powercap/intel-rapl:0"); folder.mkdir(parents=True)
(folder / "name").write_text("package-0"); (folder / "max_energy_range_uj").write_text("{RANGE}")
start = {RANGE} - 2_000_000
(folder / "energy_uj").write_text(str(start))
def count():
    begin = time.monotonic()
    while True:
        (folder / "energy_uj").write_text(str(int(start + (time.monotonic() - begin) * 20e6) % {RANGE}))
        time.sleep(0.001)
threading.Thread(target=count, daemon=True).start()
import frugal
figures = []
for _ in range(4):
    with frugal.energy.measure() as m:
        time.sleep(0.1)
    figures.append([m.gross.joules, m.seconds, str(m.gross.evidence), m.gross.reason])
print(json.dumps(figures))
"""
    script = tmp_path / "p.py"
    script.write_text(program)
    shell = f"mount -t tmpfs none /sys/class && exec {sys.executable} {script}"
    try:
        done = subprocess.run(["unshare", "-m", "sh", "-c", shell], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if (done.returncode and "mount" in done.stderr + done.stdout) or "Operation not permitted" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    for joules, seconds, evidence, reason in json.loads(done.stdout):
        assert evidence == "B", reason
        assert joules == pytest.approx(20 * seconds, rel=0.25)  # threads share the interpreter


@pytest.mark.parametrize("text", ["", "garbage", "12.5 J"])
def test_garbage_is_a_reason(tmp_path, text):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.write_text(text)
    end = polled(meter, recording, clock)
    assert "not a number" in recording.figure(start, end).reason


def test_a_counter_that_stands_still_is_not_zero_joules(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    soon = polled(meter, recording, clock, 0.01)
    end = polled(meter, recording, clock, 0.99)
    figure = recording.figure(start, end)
    assert figure.joules is None and "stood still for 1 s: it does not count" in figure.reason
    assert "too short for it" in recording.figure(start, soon).reason


def test_a_memory_counter_that_never_moves_is_left_out(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "dram", 0)
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    file.write_text("2000000")
    end = polled(meter, recording, clock)
    assert "dram: the counter stood still" in recording.figure(start, end).reason  # not known yet
    late = polled(meter, recording, clock, 1.0)
    assert recording.figure(start, late).joules == pytest.approx(1.0) and recording.label() == "powercap: cpu_package"


def _as_nobody(call):
    """Run as a user without rights, in a child, when the tests run as root."""
    if os.geteuid() != 0:
        return call()
    os.seteuid(65534)
    try:
        return call()
    finally:
        os.seteuid(0)


def test_permission_denied_says_so(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    file.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)

    def call():
        with pytest.raises(MeterError, match="permission denied"):
            Powercap(tmp_path).open()
        with measure(f"powercap:{tmp_path}") as m:
            pass
        return m

    m = _as_nobody(call)
    assert m.gross.evidence is Evidence.X and m.gross.joules is None and "permission denied" in m.gross.reason


def test_one_unreadable_package_makes_the_total_unavailable(tmp_path):
    """A sum that leaves one socket out would look like a measurement."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    broken = zone(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    broken.unlink()
    broken.mkdir()  # reading it fails, as without permission
    meter, recording, clock = opened(tmp_path)
    start = polled(meter, recording, clock)
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text("2000000")
    end = polled(meter, recording, clock)
    figure = recording.figure(start, end)
    assert figure.joules is None and "package-1" in figure.reason


def test_no_tree(tmp_path):
    with pytest.raises(MeterError, match="no such folder"):
        Powercap(tmp_path).open()
    (tmp_path / "class/powercap/intel-rapl").mkdir(parents=True)
    with pytest.raises(MeterError, match="no zone has"):
        Powercap(tmp_path).open()


def test_the_recorder_polls_between_marks(tmp_path):
    """A window in which the counter wraps twice is right because something looked in between."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, 1_000_000)
    with Recorder(Powercap(tmp_path)) as recorder:
        start = recorder.mark()
        for value in (400_000, 900_000, 300_000):
            file.write_text(str(value))
            recorder.mark()
        end = recorder.mark()
    assert recorder.recording.figure(start, end).joules == pytest.approx(0.5 + 0.5 + 0.4)
