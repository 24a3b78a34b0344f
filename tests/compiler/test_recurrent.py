"""RNN, GRU and LSTM against onnxruntime: every attribute and operand, constant weights and weights of the run."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from frugal.bindings import library
from onnx import TensorProto, helper, numpy_helper

import frugal
from frugal.compiler import compile_model

from .models import run_onnxruntime

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
OTHERS = [
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign",
    "Softplus",
]  # fmt: skip


class Case:
    """A model of one node with weights and inputs of seed; `omit` names operands and outputs that it does without."""

    def __init__(self, kind: str, *, t: int = 5, b: int = 3, i: int = 4, h: int = 7, seed: int = 0, **attributes: Any) -> None:
        rng = np.random.default_rng(seed)
        self.kind, self.attributes = kind, dict(attributes, hidden_size=h)
        d = 2 if attributes.get("direction") == "bidirectional" else 1
        rows, first = GATES[kind] * h, bool(attributes.get("layout"))

        def draw(*shape: int) -> np.ndarray:
            return rng.uniform(-1, 1, shape).astype(np.float32)

        state = (b, d, h) if first else (d, b, h)
        self.values = {
            "X": draw(b, t, i) if first else draw(t, b, i),
            "W": draw(d, rows, i), "R": draw(d, rows, h), "B": draw(d, 2 * rows),
            "lens": rng.integers(min(1, t), t + 1, b).astype(np.int32), "h0": draw(*state),
        }  # fmt: skip
        if kind == "LSTM":
            self.values |= {"c0": draw(*state), "P": draw(d, 3 * h)}

    def model(
        self, omit: str = "", inputs: str = "X lens h0 c0", dynamic: bool = False, wanted: str = "Y Y_h Y_c", opset: int = 14
    ) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        """Operands named in `inputs` come with the run, the others are constants; dynamic: of symbolic time and batch."""
        names = [n if n not in omit.split() else "" for n in self.values]
        outputs = [n if n in wanted.split() else "" for n in (["Y", "Y_h", "Y_c"] if self.kind == "LSTM" else ["Y", "Y_h"])]
        node = helper.make_node(self.kind, names, outputs, name="node", **self.attributes)
        given = {n: self.values[n] for n in names if n and n in inputs.split()}
        graph = helper.make_graph(
            [node],
            "test",
            [self._info(n, v, dynamic) for n, v in given.items()],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs if o],
            [numpy_helper.from_array(self.values[n], n) for n in names if n and n not in given],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), given

    def _info(self, name: str, value: np.ndarray, dynamic: bool) -> onnx.ValueInfoProto:
        shape: list[Any] = list(value.shape)
        first = bool(self.attributes.get("layout"))
        if dynamic:
            axes = {"X": ("batch", "time") if first else ("time", "batch"), "lens": ("batch",)}
            marks = axes.get(name, ("batch", None) if first else (None, "batch") if name in ("h0", "c0") else ())
            shape = [m or s for m, s in zip((*marks, *[None] * (len(shape) - len(marks))), shape, strict=True)]
        kind = TensorProto.INT32 if value.dtype == np.int32 else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(frugal.InferenceSession(compile_model(model)).run(None, feeds))


def compare(model: onnx.ModelProto, feeds: dict[str, np.ndarray], want: list[np.ndarray] | None = None) -> list[np.ndarray]:
    """States lie in [-1, 1] or a few units; float sums of 4 to 40 terms in another order differ by less than 1e-5."""
    results = run(model, feeds)
    for got, expected in zip(results, want or run_onnxruntime(model, feeds), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return results


def batch_first(case: Case, results: list[np.ndarray]) -> list[np.ndarray]:
    """Results of layout 0 as layout 1 has them: onnxruntime does not run layout 1."""
    return [r.transpose(2, 0, 1, 3) if r.ndim == 4 else r.transpose(1, 0, 2) for r in results]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("omit", ["", "lens", "lens h0 c0 P", "B P", "B lens h0 c0 P"])
@pytest.mark.parametrize("h", [7, 16])
def test_directions_and_operands(kind: str, direction: str, omit: str, h: int) -> None:
    case = Case(kind, direction=direction, h=h)
    constant = compare(*case.model(omit))
    at_run = compare(*case.model(omit, inputs="X W R B lens h0 c0 P"))
    for a, b in zip(constant, at_run, strict=True):
        np.testing.assert_array_equal(a, b)  # packed before or now: the same sums
    compare(*case.model(omit, dynamic=True))
    compare(*case.model(omit, inputs="X R lens"))
    compare(*case.model(omit, inputs="X W lens h0 c0"))
    compare(*case.model(omit, inputs="X B lens h0 c0"))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("wanted", ["Y", "Y_h", "Y Y_h", "Y_c", "Y_h Y_c", "Y Y_c"])
def test_outputs(kind: str, wanted: str) -> None:
    if kind != "LSTM" and "Y_c" in wanted:
        pytest.skip("only an LSTM has Y_c")
    compare(*Case(kind, direction="bidirectional").model(wanted=wanted))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("omit", ["lens", ""])
def test_layout(kind: str, direction: str, omit: str) -> None:
    """Layout 1 equals layout 0 of transposed operands, bit for bit."""
    one, zero = Case(kind, direction=direction, layout=1), Case(kind, direction=direction)
    zero.values = dict(one.values, X=one.values["X"].transpose(1, 0, 2), h0=one.values["h0"].transpose(1, 0, 2))
    if kind == "LSTM":
        zero.values["c0"] = one.values["c0"].transpose(1, 0, 2)
    want = batch_first(zero, compare(*zero.model(omit)))
    for got, expected in zip(run(*one.model(omit, dynamic=True)), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("name", OTHERS)
def test_activations(kind: str, name: str) -> None:
    """Every function in every place, with defaults and with parameters of its own (without them onnxruntime's Affine, ScaledTanh
    and ThresholdedRelu have others than the ONNX operators)."""
    n = FUNCTIONS[kind]
    for place, given in product(range(n), (False, True)):
        names = ["Sigmoid", "Tanh", "Tanh"][:n]
        names[place] = name
        more: dict[str, Any] = {}
        given = given or name in ("Affine", "ScaledTanh", "ThresholdedRelu")
        if given and name in ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"):
            more["activation_alpha"] = [0.3]
        if given and name in ("Affine", "ScaledTanh", "HardSigmoid"):
            more["activation_beta"] = [0.4]
        compare(*Case(kind, activations=names, **more).model("P"))


def test_parameters_in_order() -> None:
    """Functions of a bidirectional LSTM take their alphas and betas one after another, those without take none."""
    names = ["HardSigmoid", "Tanh", "LeakyRelu", "Sigmoid", "Affine", "Elu"]
    more = {"activation_alpha": [0.3, 0.02, 0.8, 0.9], "activation_beta": [0.45, 0.1]}
    compare(*Case("LSTM", direction="bidirectional", activations=names, **more).model())


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("omit", ["", "P"])
def test_clip(kind: str, omit: str) -> None:
    compare(*Case(kind, clip=0.3, activations=["Elu", "Tanh", "Tanh"][: FUNCTIONS[kind]]).model(omit))


@pytest.mark.parametrize("omit", ["", "P", "lens"])
def test_input_forget(omit: str) -> None:
    compare(*Case("LSTM", input_forget=1).model(omit))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("omit", ["", "B", "lens"])
@pytest.mark.parametrize("h", [7, 16])
def test_linear_before_reset(direction: str, omit: str, h: int) -> None:
    case = Case("GRU", linear_before_reset=1, direction=direction, h=h)
    constant = compare(*case.model(omit))
    for a, b in zip(constant, compare(*case.model(omit, inputs="X W R B lens h0")), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("opset", [7, 13, 22, 26])
def test_opsets(opset: int) -> None:
    case = Case("LSTM")
    want = run(*case.model())
    for got, expected in zip(run(*case.model(opset=opset)), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", GATES)
def test_no_length(kind: str) -> None:
    """A row of length 0, and no steps at all: the last state is the first, and y is 0."""
    case = Case(kind, direction="bidirectional")
    case.values["lens"][:] = [0, 5, 2]
    y, y_h, *_ = run(*case.model())
    assert not y[:, :, 0].any() and y[:, :, 1].any()
    np.testing.assert_array_equal(y_h[:, 0], case.values["h0"][:, 0])
    case = Case(kind, t=0)
    y, y_h, *rest = run(*case.model("lens", dynamic=True))
    assert y.shape == (0, 1, 3, 7)
    np.testing.assert_array_equal(y_h, case.values["h0"])
    for y_c in rest:
        np.testing.assert_array_equal(y_c, case.values["c0"])


@pytest.mark.parametrize("kind", GATES)
def test_batch_rows_do_not_matter(kind: str) -> None:
    """Each of 37 rows, run alone and on threads, has the bits it has in the batch."""
    case = Case(kind, b=37, h=20, t=9, direction="bidirectional")
    model, feeds = case.model(dynamic=True)
    options = frugal.SessionOptions()
    options.intra_op_num_threads = 3
    plan = compile_model(model)
    together = frugal.InferenceSession(plan, options).run(None, feeds)
    alone = frugal.InferenceSession(plan)
    for row in (0, 15, 16, 36):
        one = {n: v[row : row + 1] if n == "lens" else v[:, row : row + 1] for n, v in feeds.items()}
        for whole, part in zip(together, alone.run(None, one), strict=True):
            axis = 2 if whole.ndim == 4 else 1
            np.testing.assert_array_equal(whole.take([row], axis), part)


def test_bad_lengths() -> None:
    model, feeds = Case("GRU").model()
    session = frugal.InferenceSession(compile_model(model))
    for bad in (-1, 6):
        with pytest.raises(frugal.InvalidArgument, match="sequence length"):
            session.run(None, dict(feeds, lens=np.array([1, bad, 2], np.int32)))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"activations": ["Cosine", "Tanh", "Tanh"]}, "activation 'cosine'"),
        ({"activations": ["Tanh"]}, "1 activations"),
        ({"direction": "sideways"}, "direction"),
    ],
)
def test_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(frugal.FrugalError, match=message):
        run(*Case("LSTM", **attributes).model())


def test_shapes_that_do_not_fit() -> None:
    case = Case("LSTM")
    case.values["B"] = case.values["B"][:, :-1]
    with pytest.raises(frugal.InvalidModel, match="'B' is"):
        run(*case.model())


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("h", [7, 37])
def test_same_bits_on_every_instruction_set(kind: str, h: int) -> None:
    case = Case(kind, b=5, h=h, t=6, i=19, direction="bidirectional")
    for inputs in ("X lens h0 c0", "X W R B lens h0 c0 P"):
        model, feeds = case.model(inputs=inputs)
        plan = compile_model(model)
        results = []
        for isa in library.isa_list():
            frugal.set_isa(isa)
            results.append(frugal.InferenceSession(plan).run(None, feeds))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def dynamic_lstm(code: type, per_column: bool, direction: str) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, np.ndarray]]:
    """A DynamicQuantizeLSTM and the LSTM of its dequantized weights."""
    rng, (t, b, i, h) = np.random.default_rng(3), (6, 2, 10, 7)
    d = 2 if direction == "bidirectional" else 1
    constants: dict[str, np.ndarray] = {"B": rng.uniform(-1, 1, (d, 8 * h)).astype(np.float32)}
    real = {"B": constants["B"]}
    for name, n in (("W", i), ("R", h)):
        info = np.iinfo(code)
        codes = rng.integers(info.min, info.max + 1, (d, n, 4 * h)).astype(code)
        scale = rng.uniform(0.002, 0.004, (d, 4 * h) if per_column else (d,)).astype(np.float32)
        zero = np.full(scale.shape, 0 if code is np.int8 else 128, code)
        constants |= {name: codes, f"{name}_s": scale, f"{name}_z": zero}
        values = (codes.astype(np.float32) - zero.reshape(d, 1, -1)) * scale.reshape(d, 1, -1)
        real[name] = np.ascontiguousarray(values.transpose(0, 2, 1))
    feeds = {"X": rng.uniform(-1, 1, (t, b, i)).astype(np.float32)}
    models = []
    for kind, operands, held in (
        ("DynamicQuantizeLSTM", ["X", "W", "R", "B", "", "", "", "", "W_s", "W_z", "R_s", "R_z"], constants),
        ("LSTM", ["X", "W", "R", "B"], real),
    ):
        domain = "com.microsoft" if kind != "LSTM" else ""
        node = helper.make_node(kind, operands, ["Y", "Y_h", "Y_c"], domain=domain, hidden_size=h, direction=direction)
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("Y", "Y_h", "Y_c")]
        x = helper.make_tensor_value_info("X", TensorProto.FLOAT, [t, b, i])
        graph = helper.make_graph([node], "g", [x], infos, [numpy_helper.from_array(v, k) for k, v in held.items()])
        imports = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
        models.append(helper.make_model(graph, opset_imports=imports, ir_version=8))
    return models[0], models[1], feeds


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("code", "per_column"), [(np.int8, False), (np.int8, True), (np.uint8, False)])
def test_dynamic_quantize_lstm(code: type, per_column: bool, direction: str) -> None:
    """The LSTM of the dequantized weights; near onnxruntime, which rounds inputs and states to 8 bits at every step."""
    quantized, real, feeds = dynamic_lstm(code, per_column, direction)
    got = run(quantized, feeds)
    for mine, exact, theirs in zip(got, run_onnxruntime(real, feeds), run_onnxruntime(quantized, feeds), strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-5)
        np.testing.assert_allclose(mine, theirs, atol=0.02)
