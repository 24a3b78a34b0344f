"""8-bit codes while a model is translated: what a float tensor was dequantized from, and in which layout its codes already exist.

A tensor of codes can be known in several forms: as the model sees it, as unsigned codes, and with its channels last.  Steps are
emitted for a form when it is first asked for; what nobody reads is dropped later.  So a chain of integer convolutions never
leaves the channels-last unsigned form, and nothing has to be cancelled afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dims import Dim
from .ir import DType, Op, Step, Tensor
from .lower import Lowering, Node

CODE_TYPES = (DType.INT8, DType.UINT8)
MOVING = (Op.ALIAS, Op.TRANSPOSE, Op.SLICE, Op.EXPAND, Op.GATHER)  # their first operand is the data
DEPTH = 32  # steps that codes_of looks through


class Stay(Exception):
    """Why a node cannot run on integers; it then runs in float."""


@dataclass
class Codes:
    """value = scale * (code - zero); zero belongs to the unsigned code (int8 plus 128)."""

    tensor: Tensor
    scale: np.float32
    zero: int


@dataclass
class Target:
    """What a result is quantized to.  inner: only DequantizeLinear reads it, so that any form of the codes will do."""

    scale: np.float32
    zero: int
    dtype: int
    inner: bool = False
    low: int = 0
    high: int = 255

    @property
    def step_dtype(self) -> int:
        return DType.UINT8 if self.inner else self.dtype


def unsigned_zero(zero: np.ndarray | None, dtype: int) -> int:
    return (0 if zero is None else int(zero.reshape(-1)[0])) + (128 if dtype == DType.INT8 else 0)


def positive(scale: Tensor | None) -> np.float32:
    """The value of a constant scale of one element."""
    if scale is None or scale.const is None or scale.const.size != 1 or scale.const.dtype != np.float32:
        raise Stay("a scale is not one constant float32 number")
    value = np.float32(scale.const.reshape(-1)[0])
    if not (np.isfinite(value) and value > 0):
        raise Stay("a scale is not a positive number")
    return value


def known_zero(zero: Tensor | None, dtype: int) -> int:
    if dtype not in CODE_TYPES:
        raise Stay("its codes have other than 8 bits")
    if zero is not None and (zero.const is None or zero.const.size != 1):
        raise Stay("a zero point is not one constant number")
    return unsigned_zero(None if zero is None else zero.const, dtype)


# ---- where codes come from ----
def producer(lowering: Lowering, tensor: Tensor) -> Step | None:
    """The step that writes a tensor; near the end in practice."""
    for step in reversed(lowering.graph.steps):
        if any(t is tensor for t in step.outputs):
            return step
    return None


def codes_of(node: Node, tensor: Tensor | None, depth: int = DEPTH) -> Codes:
    """The codes of which a float tensor is the value, looking through steps that only move elements; Stay when there are none."""
    reason = "an operand is not dequantized with one scale"
    if tensor is None or depth == 0:
        raise Stay(reason)
    if tensor.quant is not None:
        return _constant_codes(node, tensor)
    lowering = node.lowering
    if tensor in lowering.moved:
        return lowering.moved[tensor]
    step = producer(lowering, tensor)
    source = step.inputs[0] if step is not None and step.inputs else None
    if step is None or source is None or tensor.input >= 0:
        raise Stay(reason)
    if step.op == Op.DEQUANTIZE:
        if step.attrs[1] or step.inputs[1] is None or step.inputs[1].const is None or step.inputs[1].const.size != 1:
            raise Stay("an operand is dequantized with several scales")
        return Codes(source, positive(step.inputs[1]), known_zero(step.inputs[2], source.dtype))
    if step.op not in MOVING:
        raise Stay(reason)
    inner = codes_of(node, source, depth - 1)
    data = form(node, inner.tensor, last=False)
    if step.op == Op.TRANSPOSE:
        moved = turned(node, data, [int(p) for p in step.attrs])  # type: ignore[arg-type]
    else:
        moved = node.tensor(data.dtype, tensor.shape, f"{tensor.name}/codes")
        node.graph.steps.append(Step(step.op, [data, *step.inputs[1:]], [moved], list(step.attrs), step.name))
    lowering.moved[tensor] = Codes(moved, inner.scale, inner.zero)
    return lowering.moved[tensor]


def _constant_codes(node: Node, tensor: Tensor) -> Codes:
    quant = tensor.quant
    assert quant is not None
    if quant.bits != 8 or quant.scale.size != 1 or quant.codes.dtype not in (np.int8, np.uint8):
        raise Stay("a constant operand is not of 8 bits with one scale")
    codes = node.constant(np.ascontiguousarray(quant.codes))
    scale = positive(node.constant(quant.scale.astype(np.float32)))
    return Codes(codes, scale, unsigned_zero(quant.zero, codes.dtype))


# ---- forms ----
def turned(node: Node, x: Tensor, perm: Sequence[int]) -> Tensor:
    """x transposed: a view where only axes of length 1 move, and what x itself was transposed from where that is it."""
    shape = [x.shape[p] for p in perm]
    if x.const is not None:
        return node.constant(np.ascontiguousarray(x.const.transpose(perm)))
    moving = [p for p in perm if x.shape[p] != 1]
    if moving == sorted(moving):
        return node.alias(x, shape)
    step = producer(node.lowering, x)
    if step is not None and step.op == Op.TRANSPOSE and step.inputs[0] is not None:
        before = [int(p) for p in step.attrs]  # type: ignore[arg-type]
        if [before[p] for p in perm] == list(range(x.rank)):
            return step.inputs[0]
    return node.emit(Op.TRANSPOSE, [x], x.dtype, shape, *perm)


def last_perm(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def first_perm(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def form(node: Node, codes: Tensor, last: bool) -> Tensor:
    """The codes of a tensor (int8 or uint8, whichever exists) in its own order of axes, or with axis 1 last."""
    forms, rank = node.lowering.forms, codes.rank
    last = last and rank > 2
    if (codes, last) not in forms:
        other = forms.get((codes, not last))
        made = None if other is not None else entered(node, codes, last)
        if made is None and last:
            made = turned(node, codes if other is None else other, last_perm(rank))
        elif made is None:
            made = codes if other is None else turned(node, other, first_perm(rank))
        forms[codes, last] = made
    return forms[codes, last]


def entered(node: Node, codes: Tensor, last: bool) -> Tensor | None:
    """Codes that QuantizeLinear makes of a float tensor, straight in the form that is wanted."""
    step = producer(node.lowering, codes)
    if step is None or step.op != Op.QUANTIZE or step.inputs[0] is None or step.inputs[0].dtype != DType.FLOAT or step.attrs[1]:
        return None
    try:
        scale, zero = positive(step.inputs[1]), known_zero(step.inputs[2], codes.dtype)
    except Stay:
        return None
    shape = [codes.shape[p] for p in last_perm(codes.rank)] if last else codes.shape
    return node.emit(Op.QCODES, [step.inputs[0]], DType.UINT8, shape, int(last), zero, float(scale))


def has_last(node: Node, codes: Tensor) -> bool:
    return (codes, True) in node.lowering.forms


def publish(node: Node, made: Tensor, dtype: int, last: bool) -> Tensor:
    """What the model sees of codes that a step has made: its data type, its order of axes."""
    last = last and made.rank > 2
    plain = turned(node, made, first_perm(made.rank)) if last else made
    if plain.dtype != dtype:
        flip = np.arange(256, dtype=np.uint8) ^ 0x80
        table = node.constant(flip.view(np.int8) if dtype == DType.INT8 else np.arange(256, dtype=np.uint8))
        plain = node.emit(Op.QLOOKUP, [plain, table], dtype, plain.shape)
    node.lowering.forms[plain, last] = made
    return plain


# ---- tables ----
def values_of(codes: Codes) -> np.ndarray:
    """The 256 values that codes stand for, by unsigned code."""
    values: np.ndarray = (np.arange(256, dtype=np.float32) - np.float32(codes.zero)) * codes.scale
    return values


def quantized(values: np.ndarray, target: Target) -> np.ndarray:
    """Values to unsigned codes, as QuantizeLinear does it."""
    with np.errstate(all="ignore"):
        scaled = np.rint(values.astype(np.float32) / target.scale) + np.float32(target.zero)
    kept: np.ndarray = np.clip(np.nan_to_num(scaled, nan=0.0), target.low, target.high).astype(np.uint8)
    return kept


def look_up(node: Node, x: Codes, values: np.ndarray, target: Target) -> Tensor:
    """The result of a function of one operand, of which values has the 256 results."""
    table = quantized(values, target)
    if target.step_dtype == DType.INT8:
        table = (table ^ 0x80).view(np.int8)
    last = has_last(node, x.tensor)
    data = form(node, x.tensor, last)
    made = node.emit(Op.QLOOKUP, [data, node.constant(table)], target.step_dtype, data.shape)
    return publish(node, made, target.dtype, last)


def requantized(node: Node, x: Codes, target: Target) -> Tensor:
    """Codes of one scale as codes of another."""
    plain = (target.low, target.high) == (0, 255)
    if plain and x.scale == target.scale and x.zero == target.zero:
        if x.tensor.dtype == target.dtype and x.tensor.input < 0 and x.tensor.const is None:
            return x.tensor
        last = has_last(node, x.tensor)
        data = form(node, x.tensor, last)
        if data.dtype == target.step_dtype and data.input < 0 and data.const is None:
            return publish(node, data, target.dtype, last)
    return look_up(node, x, values_of(x), target)


def spread_shape(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """[n, .., c] with one or two axes between as [n, h, w, c]."""
    return (shape[0], 1, *shape[1:]) if len(shape) == 3 else tuple(shape)
