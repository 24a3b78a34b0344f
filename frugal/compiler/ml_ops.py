"""The operators of the domain ai.onnx.ml that are plain arithmetic: what converters write of scalers and linear models."""

from __future__ import annotations

import numpy as np

from .dims import Dim
from .ir import Binary, DType, Op, Tensor, elements
from .lower import Node, op, show
from .math_ops import binary
from .nn_ops import product
from .types_ops import cast_to

ML = "ai.onnx.ml"


def row(node: Node, values: list[float]) -> Tensor:
    return node.constant(np.array(values, np.float32))


@op("Binarizer", domain=ML)
def binarizer(node: Node) -> Tensor:
    """1 where x is above the threshold, else 0."""
    x = node.get(0)
    node.floats(x)
    above = node.emit(Op.BINARY, [x, row(node, [node.attr("threshold", 0.0)])], DType.BOOL, x.shape, int(Binary.GREATER))
    return cast_to(node, above, x.dtype)


@op("Scaler", domain=ML)
def scaler(node: Node) -> Tensor:
    """(x - offset) * scale, with one value or one a column of each."""
    x = cast_to(node, node.get(0), DType.FLOAT)
    for name, kind in (("offset", Binary.SUB), ("scale", Binary.MUL)):
        values = list(node.attr(name) or [])
        if len(values) > 1 and isinstance(x.shape[-1], int) and len(values) != x.shape[-1]:
            raise node.fail(f"{len(values)} values of {name} for an input {show(x.shape)}")
        if values:
            x = binary(node, kind, x, row(node, values))
    return x


@op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(node: Node) -> Tensor:
    """The columns of x [.., c] that the indices name; of one axis: [1, n]."""
    x, ids = node.get(0), node.get(1)
    if ids.dtype != DType.INT64:
        raise node.fail(f"indices '{ids.name}' are not int64")
    ids = node.alias(ids, (elements(ids.shape),))
    shape: tuple[Dim, ...] = (*x.shape[:-1], *ids.shape)
    made = node.emit(Op.GATHER, [x, ids], x.dtype, shape, x.rank - 1)
    return node.alias(made, (1, *ids.shape)) if x.rank == 1 else made


@op("LinearRegressor", domain=ML)
def linear_regressor(node: Node) -> Tensor:
    """x [n, c] times coefficients [targets, c], plus intercepts."""
    x, targets = cast_to(node, node.get(0), DType.FLOAT), node.attr("targets", 1)
    after = node.attr("post_transform", "NONE")
    if after not in ("NONE", b"NONE"):
        raise node.unsupported(f"the transform '{after}' behind a linear model")
    coefficients = np.array(node.attr("coefficients") or [], np.float32)
    if targets < 1 or not coefficients.size or coefficients.size % targets:
        raise node.fail(f"{coefficients.size} coefficients for {targets} targets")
    weights = np.ascontiguousarray(coefficients.reshape(targets, -1).T)
    made = product(node, x if x.rank > 1 else node.alias(x, (1, *x.shape)), node.constant(weights))
    intercepts = list(node.attr("intercepts") or [])
    return binary(node, Binary.ADD, made, row(node, intercepts)) if intercepts else made
