"""The pure parts of tests/bench: statistics, parsing, targets, tables, the converter to ncnn's files, the gate."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """import_module for the files of tests/bench, which call each other by plain names; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(BENCH)):
            del sys.modules[name]


def test_percentiles_are_numpys(bench: Any) -> None:
    values = list(np.random.default_rng(0).standard_normal(23))
    for percent in (0, 10, 37.5, 50, 90, 100):
        assert bench("stats").percentile(values, percent) == pytest.approx(np.percentile(values, percent))
    assert bench("stats").spread([3.0]) == (3.0, 3.0, 3.0)


def test_ratios_are_taken_round_by_round(bench: Any) -> None:
    """A round twice as slow for all changes no ratio; the rival of a round is the fastest there."""
    times = {"ours": [1.0, 2.0, 1.0], "a": [3.0, 6.0, 5.0], "b": [4.0, 8.0, 2.0]}
    result = bench("stats").compare(times, ["a", "b"])
    assert result["ours"]["ratio"][0] == 3.0
    assert result["ours"]["of_medians"] == 4.0  # b's median over ours
    assert result["ours"]["of_best"] == 2.0
    assert result["b"]["ratio"][2] == pytest.approx(np.percentile([0.75, 0.75, 1], 90))
    assert bench("stats").compare(times, []) == {"ours": {}, "a": {}, "b": {}}


def test_a_kernels_row(bench: Any) -> None:
    """1000 operations from 500 bytes at 10 Gop/s are 5 GB/s; at 3 GHz and 2 cycles of 8 x 32 multiply-adds an operation."""
    raw = {"work": "w", "weights": "int4", "rows": 1, "isa": "x", "threads": 1, "bytes": 500, "operations": 1000}
    row = bench("kernels").row_of(
        raw | {"gops": [10, 8, 12], "peak_gops": [20, 20, 20], "read_gbps": [10, 10, 10], "ghz": [3] * 3}
    )
    assert row["peak_share"][0] == 0.5 and row["best_peak_share"] == 0.6
    assert row["gbps"][0] == 5 and row["read_share"][0] == 0.5
    assert row["cycles_a_block"][0] == pytest.approx(3 / 10 * 2 * 256)


def test_callgrinds_dumps_in_order(bench: Any, tmp_path: Path) -> None:
    for i in range(1, 12):
        (tmp_path / f"out.{i}").write_text(f"events: Ir\n1 2\ntotals: {i * 100}\n")
    assert bench("kernels").totals(tmp_path / "out") == [100 * i for i in range(1, 12)]


def test_the_gate_notices_more_instructions(bench: Any) -> None:
    before = {"counts": {"a": [1000, 1], "b": [1000, 1], "c": [1000, 1], "gone": [5, 1]}}
    now = {"counts": {"a": [1030, 1], "b": [1031, 1], "c": [500, 1], "new": [1, 1]}}
    worse = bench("kernels").regressions(now, before, 0.03)
    assert [line.partition(":")[0] for line in worse] == ["b", "gone"]


def test_what_bench_attention_prints(bench: Any) -> None:
    printed = (
        "30 layers, 3 key heads, 9 query heads of 64, 2048 keys; 3.70 GHz\n"
        "avx2        int8 peak 236 Gop/s\n"
        "avx2        int8             1 thread    1.500 ms (median    1.600), 2 threads    0.800 ms (median    0.900),"
        "    30.1 cycles a position,  12 % of the int8 peak\n"
    )
    (row,) = bench("attention").rows_of(printed)
    assert row == {
        "isa": "avx2",
        "cache": "int8",
        "best_1": 1.5,
        "median_1": 1.6,
        "best_2": 0.8,
        "median_2": 0.9,
        "cycles": 30.1,
        "peak_gops": 236.0,
    }
    values = [v for _, v in bench("targets").attention({"attention": {"rows": [row]}})]
    assert values == pytest.approx([0.8 * 236 / 221, 0.9 * 236 / 221])


def test_targets_know_both_directions(bench: Any) -> None:
    target = bench("targets").Target
    more = target("w", 2, 3, lambda report: iter(()))
    less = target("w", 1.5, 1.33, lambda report: iter(()), "", True)
    assert [more.reached(v) for v in (1.9, 2, 3)] == ["no", "yes", "aim"]
    assert [less.reached(v) for v in (1.6, 1.5, 1.33)] == ["no", "yes", "aim"]


def test_targets_find_their_rows(bench: Any) -> None:
    compared = {"frugal int8": {"ratio": [1.3, 1, 2], "of_medians": 1, "of_best": 1}, "frugal int8, FRUGAL_ISA=avx2": {}}
    report = {"minilm": {"speed": {"128 tokens, batch 8, 1 thread": {"int8": compared, "int4": {}}}}}
    (found,) = [r for r in bench("targets").results(report) if r[3] != "no"]
    assert found[1:] == ("1 thread", 1.3, "yes")


def test_cycles_count_where_memory_is_fast(bench: Any) -> None:
    row = {"work": "w", "weights": "int4", "rows": 1, "threads": 1, "isa": "x", "cycles_a_block": (10, 9, 11)}
    find = bench("targets").kernel("int4", (1,), "cycles_a_block")
    assert list(find({"kernels": [row | {"read_gbps": (24, 23, 25)}]})) == []
    assert list(find({"kernels": [row | {"read_gbps": (26, 25, 27)}]})) == [("x, 1 row, 1 thread", 10)]


def test_tables_keep_their_columns(bench: Any) -> None:
    page = bench("page")
    assert page.table(["a", "b"], [["x|y", "two\nlines"]]) == ["| a | b |", "|---|---|", "| x\\|y | two lines |", ""]
    assert [page.number(v) for v in (0.1234, 1.234, 99.99, 1234.5)] == ["0.123", "1.23", "99.99", "1234"]
    assert page.left_out({}) == [] and page.left_out({"b": "why"}) == ["Left out: b (why).", ""]


def test_ncnns_files(bench: Any, tmp_path: Path) -> None:
    """Conv and Relu join, a value read twice is split, weights are flagged as floats, biases are not."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.arange(2 * 1 * 3 * 3, dtype=np.float32).reshape(2, 1, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[0, 1, 1, 2], strides=[2, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Add", ["r", "r"], ["y"]),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(2, np.float32), "b")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1, 1, 5, 5])], [value("y", TensorProto.FLOAT, None)], constants
    )
    save(helper.make_model(graph), tmp_path / "m.onnx")
    bench("to_ncnn").convert(tmp_path / "m.onnx", tmp_path / "m.param")
    assert (tmp_path / "m.param").read_text().splitlines() == [
        "7767517",
        "4 5",
        "Input input 0 1 input",
        "Convolution conv0 1 1 input b1 0=2 1=3 11=3 3=1 13=2 4=1 14=0 15=2 16=1 5=1 6=18 9=1",
        "Split split_b1 1 2 b1 b1_0 b1_1",
        "BinaryOp add2 2 1 b1_1 b1_0 output 0=0",
    ]
    raw = (tmp_path / "m.bin").read_bytes()
    assert raw == bytes(4) + weights.tobytes() + np.ones(2, np.float32).tobytes()


def test_int8_weights_become_floats(bench: Any, tmp_path: Path) -> None:
    """DequantizeLinear of a constant goes, also with a scale a channel."""
    from onnx import TensorProto, helper, load, numpy_helper, save

    codes = np.array([[[[3]]], [[[-4]]]], np.int8)
    constants = [
        numpy_helper.from_array(codes, "q"),
        numpy_helper.from_array(np.array([0.5, 2], np.float32), "s"),
        numpy_helper.from_array(np.array([1, 0], np.int8), "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1, 1, 1, 1])], [value("y", TensorProto.FLOAT, None)], constants
    )
    save(helper.make_model(graph), tmp_path / "m.onnx")
    made = load(bench("small").plain_float(tmp_path / "m.onnx", tmp_path / "f.onnx")).graph
    assert [n.op_type for n in made.node] == ["Conv"]
    (left,) = made.initializer
    assert left.name == "w" and numpy_helper.to_array(left).ravel().tolist() == [1.0, -8.0]


def test_a_worker_is_stopped_between_turns(bench: Any) -> None:
    """It answers every turn, and is in state T (stopped) in between."""
    answer = (
        "import sys\nprint('{}', flush=True)\nfor n in sys.stdin: print('{\"wall\": %s, \"cpu\": 1}' % n.strip(), flush=True)"
    )
    worker = bench("driver").Worker([sys.executable, "-c", answer])
    try:
        for _ in range(3):
            assert worker.seconds(4) == 1.0
            state = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state == "T"
    finally:
        worker.close()
    assert worker.process.poll() is not None


def test_a_worker_that_fails_says_why(bench: Any) -> None:
    driver = bench("driver")
    with pytest.raises(driver.Unusable, match="no such engine"):
        driver.Worker([sys.executable, "-c", 'print(\'{"error": "no such engine"}\')'])
    with pytest.raises(driver.Unusable, match="ended with 3"):
        driver.Worker([sys.executable, "-c", "raise SystemExit(3)"])
