"""Function bodies: the definition that ONNX gives for many operators in terms of simpler ones.

`body_of` finds the definition of a node, for its types, ranks and attributes, with every attribute filled in and every absent
optional input blank; the lowering then translates its nodes in a scope of their own (`Lowering.expand`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .ir import Tensor

if TYPE_CHECKING:
    import onnx


def body_of(
    proto: onnx.NodeProto, inputs: Iterable[Tensor | None], domain: str, opset: int
) -> tuple[onnx.FunctionProto, dict[str, int]] | None:
    """The definition of a node and the opsets it is written in, or None when ONNX has none.

    The newest definition for an opset up to the model's is taken, a context-dependent one first: it knows the types.
    """
    from onnx import FunctionProto, defs

    try:
        schema: Any = defs.get_schema(proto.op_type, opset, domain)
    except defs.SchemaError:
        return None
    body = FunctionProto()
    types = [_type(t).SerializeToString() for t in inputs]
    for version in sorted(schema.context_dependent_function_opset_versions, reverse=True):
        if version > opset:
            continue
        try:
            made = schema.get_context_dependent_function_with_opset_version(version, proto.SerializeToString(), types)
        except Exception:  # the builders are C++ and reject what they cannot write with several exception types
            continue
        body.ParseFromString(made)
        return _bound(body, proto, schema)
    for version in sorted(schema.function_opset_versions, reverse=True):
        if version <= opset:
            body.ParseFromString(schema.get_function_with_opset_version(version))
            return _bound(body, proto, schema)
    return None


def _type(tensor: Tensor | None) -> onnx.TypeProto:
    """The type of an operand with its shape, a symbolic dim as an unnamed one."""
    from onnx import TypeProto, helper

    if tensor is None:
        return TypeProto()
    return helper.make_tensor_type_proto(int(tensor.dtype), [d if isinstance(d, int) else None for d in tensor.shape])


def _bound(body: onnx.FunctionProto, proto: onnx.NodeProto, schema: Any) -> tuple[onnx.FunctionProto, dict[str, int]]:
    """The body with this node's attributes (or their defaults) in place and absent inputs blank."""
    values = {a.name: a.default_value for a in schema.attributes.values() if a.default_value.name}
    values.update({a.name: a for a in body.attribute_proto})
    values.update({a.name: a for a in proto.attribute})
    given = [bool(name) for name in proto.input]
    absent = {name for i, name in enumerate(body.input) if i >= len(given) or not given[i]}
    _fill(body.node, values, absent)
    return body, {"" if o.domain == "ai.onnx" else o.domain: o.version for o in body.opset_import}


def _fill(nodes: Iterable[onnx.NodeProto], values: Mapping[str, onnx.AttributeProto], absent: set[str]) -> None:
    for node in nodes:
        for i, name in enumerate(node.input):
            if name in absent:
                node.input[i] = ""
        kept = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in values:
                    continue  # an optional attribute that the node does not have
                name = attribute.name
                attribute.CopyFrom(values[attribute.ref_attr_name])
                attribute.name = name
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _fill(graph.node, values, absent)
            kept.append(type(attribute).FromString(attribute.SerializeToString()))
        del node.attribute[:]
        node.attribute.extend(kept)
