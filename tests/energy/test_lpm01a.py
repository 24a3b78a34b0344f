"""The serial meter, played by a pseudo terminal: answers, samples, time stamps, gaps, garbage, unplugging."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import tty

import pytest

from frugal.energy.evidence import Evidence
from frugal.energy.meters import make
from frugal.energy.meters.base import MeterError
from frugal.energy.meters.lpm01a import Lpm01a, Parser
from frugal.energy.recording import Recorder


def test_samples_are_four_digits_and_an_exponent():
    parser = Parser(1000)
    assert parser.feed(b"6409-07\r\n1000-0") == [(0.0, pytest.approx(640.9e-6))]
    assert parser.feed(b"3\r\n0001+00\r\n") == [(0.001, 1.0), (0.002, 1.0)]


def test_a_gap_that_a_time_stamp_shows_stays_a_gap():
    parser = Parser(1000)
    parser.feed(b"1000-06\r\n" * 800)  # 200 of the first thousand were lost
    parser.feed(b"TimeStamp: 001s 000ms, buff 03%\r\n")
    assert parser.feed(b"1000-06\r\n") == [(1.0, pytest.approx(1e-3))] and parser.lost == 200
    parser.feed(b"TimeStamp: 001s 001ms, buff 03%\r\n")  # as it should be
    assert parser.lost == 200


def test_any_bytes():
    """No input makes it fail, and nothing that is no sample becomes one."""
    rng = random.Random(1)
    parser = Parser(100)
    for _ in range(2000):
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        for _, amperes in parser.feed(data):
            assert amperes >= 0
    parser.feed(b"x" * 100_000)
    assert parser.bad > 0 and len(parser._line) <= 256
    parser.feed(b"\r\n")
    assert len(parser.feed(b"1234-06\r\n")) == 1


def test_settings_out_of_range():
    for options in ("volts=5", "rate=3", "trigger=x", "speed=1", "volts=x"):
        with pytest.raises(MeterError):
            make(f"lpm01a:/dev/null,{options}")
    with pytest.raises(MeterError, match="No such file"):
        make("lpm01a:/dev/no-such-port").open()


class Shield(threading.Thread):
    """Plays the shield: acknowledges, then sends 1 mA (10 mA while busy) at `rate`, with what `garble` does to its lines."""

    def __init__(self, rate=1000, garble=None, deaf=False, refuse=""):
        super().__init__(daemon=True)
        self.host, self.port = os.openpty()
        tty.setraw(self.host)
        tty.setraw(self.port)
        self.name_of_port = os.ttyname(self.port)
        self.rate, self.garble, self.deaf, self.refuse = rate, garble, deaf, refuse
        self.commands: list[str] = []
        self.busy = threading.Event()
        self.trigger = threading.Event()
        self.stopped = threading.Event()

    def run(self):
        pending = b""
        started = None
        sent = 0
        os.set_blocking(self.host, False)
        while not self.stopped.is_set():
            try:
                pending += os.read(self.host, 4096)
            except BlockingIOError:
                pass
            except OSError:
                return
            *lines, pending = pending.split(b"\n")
            for line in lines:
                command = line.decode()
                self.commands.append(command)
                if command == "start":
                    self._write(b"PowerShield > ack start\r\n")
                    started = 0.0
                elif command in ("stop", "hrc"):
                    started = None
                elif not self.deaf:
                    answer = "err" if self.refuse and command.startswith(self.refuse) else "ack"
                    self._write(f"PowerShield > {answer} {command}\r\n".encode())
            armed = "trigsrc d7" in self.commands and not self.trigger.is_set()
            if started == 0.0 and not armed:
                started, sent = time.monotonic(), 0
            while started and sent < (time.monotonic() - started) * self.rate:
                line = b"1000-05\r\n" if self.busy.is_set() else b"1000-06\r\n"
                if sent and sent % self.rate == 0:
                    line = b"TimeStamp: %03ds 000ms, buff 00%%\r\n" % (sent // self.rate) + line
                self._write(self.garble(sent, line) if self.garble else line)
                sent += 1
            time.sleep(0.002)

    def _write(self, data):
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self.host, data)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()
        for fd in (self.host, self.port):
            with contextlib.suppress(OSError):
                os.close(fd)


def measured(shield, seconds=0.5, **options):
    with Recorder(Lpm01a(shield.name_of_port, 3.0, shield.rate, **options)) as recorder:
        time.sleep(0.15)
        start = recorder.mark()
        time.sleep(seconds)
        end = recorder.mark()
        recorder.settle(end)
    return recorder.recording.figure(start, end), end - start, recorder


def test_power_of_a_played_shield():
    with Shield() as shield:
        figure, seconds, recorder = measured(shield)
        deadline = time.monotonic() + 2
        while shield.commands[-1] != "hrc" and time.monotonic() < deadline:
            time.sleep(0.005)
    assert figure.evidence is Evidence.A and figure.joules == pytest.approx(1e-3 * 3.0 * seconds, rel=1e-6)
    assert shield.commands[:7] == [
        "htc", "format ascii_dec", "volt 3000m", "freq 1k", "acqmode dyn", "trigsrc sw", "acqtime inf",
    ]  # fmt: skip
    assert shield.commands[-2:] == ["stop", "hrc"] and recorder.meter.about()["lines_not_understood"] == 0


def test_garbage_between_samples_costs_those_samples_only():
    def garble(k, line):
        return b"\xff\x00z9\r\n" + line[3:] if k % 50 == 7 else line

    with Shield(garble=garble) as shield:
        figure, seconds, recorder = measured(shield)
    assert recorder.meter.about()["lines_not_understood"] > 5
    # A fiftieth of the samples is missing; until the next time stamp the others stand closer together.
    assert figure.joules == pytest.approx(3e-3 * seconds, rel=0.03)


def test_silence_is_a_gap_and_no_zero():
    def garble(k, line):
        return b"" if 300 <= k < 700 else line

    with Shield(garble=garble) as shield:
        figure, _, _ = measured(shield, 1.2)
    assert figure.joules is None and figure.evidence is Evidence.X


def test_unplugged():
    shield = Shield()
    shield.start()
    with Recorder(Lpm01a(shield.name_of_port, 3.0, 1000)) as recorder:
        time.sleep(0.1)
        start = recorder.mark()
        shield.stopped.set()
        shield.join()
        os.close(shield.port)
        os.close(shield.host)
        time.sleep(0.3)
        end = recorder.mark()
    figure = recorder.recording.figure(start, end)
    assert figure.joules is None and figure.reason


def test_no_answer_and_a_refusal():
    with Shield(deaf=True) as shield, pytest.raises(MeterError, match="is this an LPM01A"):
        Lpm01a(shield.name_of_port).open()
    with Shield(refuse="volt") as shield, pytest.raises(MeterError, match="refuses 'volt 3000m'"):
        Lpm01a(shield.name_of_port).open()


def test_the_first_sample_is_the_trigger_edge():
    """Started by pin D7: what lies before the edge is not there, and what follows is aligned with it."""
    with Shield() as shield, Recorder(Lpm01a(shield.name_of_port, 3.0, 1000, trigger="d7")) as recorder:
        time.sleep(0.2)
        recorder.mark()
        assert not recorder.recording.series[0].times
        edge = recorder.now()
        shield.busy.set()
        shield.trigger.set()
        time.sleep(0.3)
        end = recorder.mark()
        recorder.settle(end)
    series = recorder.recording.series[0]
    assert abs(series.times[0] - edge) < 0.06  # polled every 20 ms
    assert "trigsrc d7" in shield.commands
    joules = recorder.recording.total(series.times[0], series.times[0] + 0.2).joules
    assert joules == pytest.approx(10e-3 * 3 * 0.2, rel=1e-6)
