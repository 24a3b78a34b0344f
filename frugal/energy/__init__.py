"""Energy: joules with an evidence class and an interval, or the reason why there are none.

    import frugal

    with frugal.energy.measure() as m:
        work()
    print(m.gross)                      # 12.3 J [11.7, 12.9] (class B: powercap: cpu_package + dram), or X (the reason)

docs/energy.md says what the classes mean and how a model is measured (`frugal profile`).
"""

from __future__ import annotations

from .evidence import MEASURED, Evidence, Figure, MeterError
from .measuring import BudgetExceeded, Measurement, measure

__all__ = ["MEASURED", "BudgetExceeded", "Evidence", "Figure", "Measurement", "MeterError", "measure"]
