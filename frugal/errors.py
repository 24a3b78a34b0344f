"""Every exception frugal raises on purpose, under one root, so that `except frugal.FrugalError` catches them all.

`.code` is the frugal_status of the C library when the error came from there, else None.
"""

from __future__ import annotations

__all__ = [
    "FrugalError",
    "InvalidArgument",
    "InvalidModel",
    "InvalidPlan",
    "MissingExtra",
    "NoSuchFile",
    "NotAvailable",
    "OutOfMemory",
    "UnsupportedOperator",
]


class FrugalError(Exception):
    """Root of all errors raised by frugal; code: int (a frugal_status) or None."""

    def __init__(self, *args: object, code: int | None = None) -> None:
        super().__init__(*args)
        self.code = code


class MissingExtra(FrugalError, ImportError):
    """A library is missing that an extra installs; the message names the extra."""


class InvalidArgument(FrugalError, ValueError):
    """A value given by the caller does not fit: unknown name, wrong shape, dtype or option."""


class NoSuchFile(FrugalError, FileNotFoundError):
    """The model's file does not exist."""


class InvalidModel(FrugalError):
    """The ONNX model is malformed or contradicts itself."""


class UnsupportedOperator(InvalidModel):
    """The model uses an operator, attribute or data type that frugal does not have."""


class InvalidPlan(FrugalError):
    """The bytes are not a plan, or a damaged one, or one of another version."""


class OutOfMemory(FrugalError, MemoryError):
    """Running would need more memory than the limit of the session, or than there is."""


class NotAvailable(FrugalError):
    """This build or this CPU lacks what was asked for (an instruction set, an operation)."""
