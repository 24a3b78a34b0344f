"""Turns a frugal_status and its frugal_error into an exception whose message carries names and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frugal.errors import FrugalError, InvalidArgument, InvalidPlan, NotAvailable, OutOfMemory

from ._ffi import ffi, lib

if TYPE_CHECKING:
    from .plan import PlanBuffer

_EXCEPTION: dict[int, type[FrugalError]] = {
    lib.FRUGAL_BAD_PLAN: InvalidPlan,
    lib.FRUGAL_BAD_VERSION: InvalidPlan,
    lib.FRUGAL_BAD_INPUT: InvalidArgument,
    lib.FRUGAL_BAD_SHAPE: InvalidArgument,
    lib.FRUGAL_TOO_BIG: OutOfMemory,
    lib.FRUGAL_BAD_ARG: FrugalError,
    lib.FRUGAL_NO_ISA: NotAvailable,
    lib.FRUGAL_UNSUPPORTED: NotAvailable,
    lib.FRUGAL_MORE: OutOfMemory,
}


def _place(error: Any, plan: PlanBuffer | None) -> list[str]:
    """Where it happened: "step 12 'encoder.0' (linear)", "input 'mask'", "tensor 'x'", "axis 1"."""
    parts = []
    if error.step >= 0:
        parts.append(plan.step_label(error.step) if plan else f"step {error.step}")
    if error.input >= 0:
        parts.append(plan.input_label(error.input) if plan else f"input {error.input}")
    if error.tensor >= 0 and error.input < 0:
        parts.append(plan.tensor_label(error.tensor) if plan else f"tensor {error.tensor}")
    if error.axis >= 0:
        parts.append(f"axis {error.axis}")
    return parts


def message(status: int, error: Any, plan: PlanBuffer | None = None) -> str:
    """One line for people: where, what, wanted and found."""
    what = ffi.string(error.what if error.what else lib.frugal_status_text(status)).decode()
    if error.want or error.got:
        what += f" (want {error.want}, got {error.got})"
    return ": ".join([", ".join(_place(error, plan)), what] if _place(error, plan) else [what])


def check(status: int, error: Any, plan: PlanBuffer | None = None) -> None:
    """Raise the FrugalError that stands for `status`, unless it is FRUGAL_OK.  error: frugal_error *."""
    if status != lib.FRUGAL_OK:
        kind = _EXCEPTION.get(status, FrugalError)
        raise kind(message(status, error, plan), code=int(status))
