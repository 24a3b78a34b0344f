"""Power rails of NVIDIA Jetson modules: an INA3221 behind hwmon (JetPack 5 and later) or behind iio (before).

VDD_IN (VIN_SYS_5V0, POM_5V_IN) is the input of the module and holds the other rails.  Class B, gain ± 5 % (NVIDIA's developer
guide on the module's power monitors; the shunt's own 1 % is inside).
"""

from __future__ import annotations

from dataclasses import replace

from .base import POWER, MeterError, read_text
from .hwmon import Hwmon, Sensor, _natural, sensors


class Jetson(Hwmon):
    """As Hwmon, on the INA3221 chips of the I2C bus only."""

    name = "jetson"
    title = "Jetson power rails"

    def open(self) -> None:
        drivers = self.root / "bus" / "i2c" / "drivers"
        found: list[Sensor] = []
        for chip in sorted(drivers.glob("ina3221/*/hwmon/hwmon*"), key=lambda p: _natural(str(p))):
            found += sensors(chip)
        for folder in sorted(drivers.glob("ina3221x/*/iio:device*"), key=lambda p: _natural(str(p))):
            for file in sorted(folder.glob("rail_name_*")):
                power = folder / f"in_power{file.name.removeprefix('rail_name_')}_input"
                try:
                    found.append(Sensor("ina3221x", read_text(file), POWER, (power,), 1e-3, 0.035))  # mW
                except MeterError:
                    continue
        found = [s for s in found if s.label not in ("NC", "")]  # a rail that is not connected
        self.take(found, f"{drivers}: there is no INA3221 of a Jetson")
        self.channels = [replace(c, relative=0.05) for c in self.channels]
