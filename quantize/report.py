"""What quantization did and what it cost: Report, written by `quantize`, printed by the command."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TensorReport:
    """One quantized tensor. bytes: codes, scales and zeros; cosine and max_abs_error: of the weight against float."""

    name: str
    nodes: list[str]
    bits: int
    block_size: int | None
    shape: list[int]
    bytes: int
    cosine: float
    max_abs_error: float


@dataclass
class OutputReport:
    """One value compared in the float and the quantized model, over all feeds.

    cosine_mean, cosine_min: of vectors along the last axis; relative_error: |float - quantized| / |float| (2-norms).
    """

    name: str
    cosine_mean: float
    cosine_min: float
    max_abs_error: float
    relative_error: float


@dataclass
class Report:
    """Result of `quantize`. Sizes in bytes (model and data files), times in seconds.

    peak_rss_bytes: of the process when the file was written, verify_peak_rss_bytes: after both models ran.
    verified_on: 'given' inputs, 'generated' ones, or 'not verified'. nodes: per-layer figures when asked for.
    """

    model: str
    out: str
    scheme: str
    activations: str
    bytes_in: int
    bytes_out: int
    seconds: float = 0.0
    verify_seconds: float = 0.0
    peak_rss_bytes: int | None = None
    verify_peak_rss_bytes: int | None = None
    verified_on: str = "not verified"
    tensors: list[TensorReport] = field(default_factory=list)
    outputs: list[OutputReport] = field(default_factory=list)
    nodes: list[OutputReport] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)
