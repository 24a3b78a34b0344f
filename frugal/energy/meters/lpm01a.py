"""ST's X-NUCLEO-LPM01A power shield on a serial port, in its text format (ST UM2243, ascii_dec).

The host sends lines ("htc", "volt 3000m", "freq 10k", "acqtime inf", "trigsrc d7", "start"); the shield answers "ack ..." or
"err ...".  Samples are lines of seven characters, such as 6409-07 for 6409e-7 A; among them come time stamps ("TimeStamp: 001s
002ms, buff 03%") every second, "end" and errors.  Bytes do get lost: what is no sample is counted and skipped, and the time
stamps say how many samples were lost, so that a gap stays a gap and never shifts what comes after.

Trigger edges: with trigger="d7" the shield starts at a rising edge of its pin D7, which the board raises when the work begins:
the first sample is the edge.

Class A.  Gain ± 2 % in dynamic mode (UM2243).  The voltage is the one that was set.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ..evidence import Evidence
from .base import POWER, Channel, Meter, MeterError, Sample

SAMPLE = re.compile(rb"(\d{4})([+-])(\d{2})")
STAMP = re.compile(rb"TimeStamp:\s*(\d+)s\s+(\d+)ms", re.IGNORECASE)
LONGEST_LINE = 256
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)  # what the text format can carry
OVERLOAD = 0.05  # A: the shield switches off above that


class Parser:
    """Bytes in, samples out; survives any bytes.

    Samples get times from their number and the shield's time stamps: sample k lies at k / rate, and when a stamp shows that fewer
    samples have come than time has passed, the count jumps to where it should be and the jump is a gap.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.count = 0  # index of the next sample
        self.bad = 0  # lines that were nothing known
        self.lost = 0  # samples that time stamps showed to be missing
        self.ended = False
        self.messages: list[str] = []  # answers and errors, oldest first
        self._line = b""

    def feed(self, data: bytes) -> list[tuple[float, float]]:
        """(seconds since the start, ampere) of the samples that are whole."""
        found: list[tuple[float, float]] = []
        *lines, rest = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > LONGEST_LINE:
            self.bad += 1
            rest = b""
        self._line = rest
        for line in lines:
            self._take(line.strip(b"\0 "), found)
        return found

    def _take(self, line: bytes, found: list[tuple[float, float]]) -> None:
        sample = SAMPLE.fullmatch(line)
        if sample:
            found.append((self.count / self.rate, int(sample[1]) * 10.0 ** int(sample[2] + sample[3])))
            self.count += 1
            return
        stamp = STAMP.search(line)
        if stamp:
            self._align(int(stamp[1]) + int(stamp[2]) / 1000)
        elif line.lower() in (b"end", b"powershield > acquisition completed"):
            self.ended = True
        elif re.match(rb"(PowerShield > )?(ack|err|error|summary)", line, re.IGNORECASE):
            self.messages.append(line.decode("ascii", "replace"))
        elif line and not re.fullmatch(rb"[\x20-\x7e]*(PowerShield|pwr|begin|buff)[\x20-\x7e]*", line, re.IGNORECASE):
            self.bad += 1

    def _align(self, seconds: float) -> None:
        """A stamp of the shield's clock: jump ahead over samples that did not come; never back.

        A stamp is rounded to a millisecond and written between samples: two samples or two milliseconds are no gap.
        """
        expected = int(seconds * self.rate)
        if expected - self.count > max(2, 0.002 * self.rate) and expected - self.count < 3600 * self.rate:
            self.lost += expected - self.count
            self.count = expected


class Lpm01a(Meter):
    """port: such as /dev/ttyACM0; volts: supply that the shield gives the board, 1.8 to 3.3; rate in hertz.

    trigger: "sw" (starts when opened) or "d7".
    """

    name = "lpm01a"
    title = "ST X-NUCLEO-LPM01A"
    streams: ClassVar[bool] = True
    poll_seconds = 0.02

    def __init__(
        self,
        port: str,
        volts: float = 3.0,
        rate: int = 10_000,
        trigger: str = "sw",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        if rate not in RATES or not 1.8 <= volts <= 3.3 or trigger not in ("sw", "d7"):
            raise MeterError(f"lpm01a: want a rate of {RATES}, 1.8 to 3.3 V, trigger sw or d7; got {rate}, {volts}, {trigger!r}")
        self.port, self.volts, self.rate, self.trigger = port, volts, rate, trigger
        self.parser = Parser(rate)
        self.fd = -1
        self.origin: float | None = None  # our clock when the first sample was taken

    def open(self) -> None:
        try:
            self.fd = os.open(self.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as e:
            raise MeterError(f"{self.port}: {e.strerror or e}") from e
        try:
            _raw(self.fd)
            self._settings()
        except (MeterError, OSError) as e:
            self.close()
            raise MeterError(f"{self.port}: {e}") from e
        self.channels = [Channel("supply", "board", POWER, Evidence.A, 0.02, 1e-9 * self.volts, 1 / self.rate)]
        self.parser, self.origin = Parser(self.rate), None
        self._send("start")

    def _settings(self) -> None:
        rate = f"{self.rate // 1000}k" if self.rate >= 1000 else str(self.rate)
        for command in (
            "htc",
            "format ascii_dec",
            f"volt {round(self.volts * 1000)}m",
            f"freq {rate}",
            "acqmode dyn",
            f"trigsrc {self.trigger}",
            "acqtime inf",
        ):
            self._ask(command)

    def _send(self, command: str) -> None:
        data = command.encode() + b"\n"
        while data:
            _, ready, _ = select.select([], [self.fd], [], 1.0)
            if not ready:
                raise MeterError(f"{command!r} cannot be sent")
            data = data[os.write(self.fd, data) :]

    def _ask(self, command: str) -> None:
        """Send a setting and wait for its acknowledgement.  Raises MeterError on err, or after two seconds."""
        self._send(command)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            seen = len(self.parser.messages)
            self.parser.feed(self._bytes(0.05))
            for message in self.parser.messages[seen:]:
                lower = message.lower().removeprefix("powershield > ")
                if lower.startswith("ack") and command.split()[0] in lower:
                    return
                if lower.startswith("err"):
                    raise MeterError(f"the shield refuses {command!r}: {message}")
        raise MeterError(f"no answer to {command!r}: is this an LPM01A?")

    def _bytes(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return b""
        try:
            return os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return b""

    def poll(self) -> list[Sample]:
        now = self.clock()
        lost = self.parser.lost
        try:
            found = self.parser.feed(self._bytes(0))
        except OSError as e:  # unplugged
            return [Sample(0, now, float("nan"), f"{self.port}: {e.strerror or e}")]
        if found and self.origin is None:
            self.origin = now - found[-1][0]  # the last of these was taken just now
        samples = [Sample(0, (self.origin or 0.0) + t, amperes * self.volts) for t, amperes in found]
        overload = [f"{a:.3g} A is beyond the shield's range" for _, a in found if a > OVERLOAD]
        if overload:
            samples.append(Sample(0, samples[-1].time, float("nan"), overload[0], True))
        if self.parser.lost > lost:
            when = samples[-1].time if samples else now
            samples.append(Sample(0, when, float("nan"), f"{self.parser.lost - lost} samples were lost on the line"))
        return samples

    def close(self) -> None:
        if self.fd < 0:
            return
        try:
            for command in ("stop", "hrc"):
                self._send(command)
        except (MeterError, OSError):
            pass  # it is gone
        os.close(self.fd)
        self.fd = -1

    def about(self) -> dict[str, Any]:
        return {
            "port": self.port.rpartition("/")[2],
            "volts": self.volts,
            "rate_hz": self.rate,
            "trigger": self.trigger,
            "lines_not_understood": self.parser.bad,
            "samples_lost": self.parser.lost,
        }


def _raw(fd: int) -> None:
    """8 bits, no echo, no translation, the fastest rate that the system has up to the shield's own 3.7 Mbit/s."""
    import termios

    settings = termios.tcgetattr(fd)
    speed = getattr(termios, "B3500000", getattr(termios, "B921600", termios.B115200))
    settings[0] = settings[1] = settings[3] = 0
    settings[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    settings[4] = settings[5] = speed
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    termios.tcflush(fd, termios.TCIFLUSH)
