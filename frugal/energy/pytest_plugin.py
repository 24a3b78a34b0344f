"""pytest: the fixture `energy`, which measures a block and gates it.

    def test_budget(energy):
        with energy(max_joules=0.5):
            work()

A test whose energy is not measured (class A, B or C) is skipped with the reason, never passed; with --energy-required it fails.
Options: --energy-meter SPEC (default auto), --max-joules J (a limit for every block that names none), --energy-required.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .measuring import Measurement

Energy = Callable[..., "AbstractContextManager[Measurement]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The three options."""
    group = parser.getgroup("energy", "energy of tests (frugal)")
    group.addoption("--energy-meter", default="auto", metavar="SPEC", help="meter of the fixture `energy` (default: auto)")
    group.addoption("--max-joules", type=float, default=None, metavar="J", help="limit of blocks that name none")
    group.addoption("--energy-required", action="store_true", help="fail, do not skip, where nothing can be measured")


@pytest.fixture
def energy(request: pytest.FixtureRequest) -> Energy:
    """energy(max_joules=None, meter=None, baseline=0.0): a context manager that yields the Measurement.

    Raises BudgetExceeded at its end above the limit; skips the test where there is no figure of class A, B or C.
    """
    config = request.config

    @contextmanager
    def measured(max_joules: float | None = None, meter: str | None = None, baseline: float = 0.0) -> Iterator[Measurement]:
        from .evidence import MEASURED
        from .measuring import measure

        with measure(meter or config.getoption("--energy-meter"), baseline) as m:
            yield m
        limit = config.getoption("--max-joules") if max_joules is None else max_joules
        if limit is None:
            return
        if m.gross.evidence not in MEASURED and not config.getoption("--energy-required"):
            pytest.skip(f"the limit of {limit} J needs a figure of class A, B or C; this one is {m.gross}")
        m.check(limit)

    return measured
