"""The command line, as a user runs it: in processes, with pipes, files and mistakes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import frugal
import tiny


def run(*args, code=0, env=None, **kwargs):
    done = subprocess.run(
        [sys.executable, "-m", "frugal", *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        timeout=120,
        **kwargs,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def fails(*args, code=1, **kwargs):
    """The one line that the command says on stderr."""
    done = run(*args, code=code, **kwargs)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("frugal") and ": error: " in lines[-1], done.stderr
    if code == 1:
        assert len(lines) == 1
    return lines[-1]


@pytest.fixture
def inputs(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 3]]))
    np.save(tmp_path / "shift.npy", np.ones(8, np.float32))
    return [f"--input=ids={tmp_path}/ids.npy", "--input", f"shift={tmp_path}/shift.npy"]


def test_version_and_help():
    assert run("--version").stdout == f"frugal {frugal.__version__}\n"
    text = run("--help").stdout
    for name in ("export", "quantize", "compile", "run", "bench", "inspect", "doctor"):
        assert name in text
        assert "usage: frugal " + name in run(name, "--help").stdout


def test_the_command_is_installed():
    command = os.path.join(os.path.dirname(sys.executable), "frugal")
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done.stdout == f"frugal {frugal.__version__}\n"


def test_compile_and_run(embed_onnx, inputs, tmp_path):
    out = tmp_path / "m.frugal"
    assert "steps" in run("compile", embed_onnx, out).stdout
    run("run", out, *inputs, "--output", tmp_path / "o")
    want = frugal.InferenceSession(embed_onnx).run(None, {"ids": np.array([[1, 2, 3]]), "shift": np.ones(8, np.float32)})
    for name, array in zip(("rows", "same"), want, strict=True):
        np.testing.assert_array_equal(np.load(tmp_path / "o" / f"{name}.npy"), array)
    about = json.loads(run("run", embed_onnx, *inputs, "--json").stdout)
    assert [(o["name"], o["dtype"], o["shape"]) for o in about["outputs"]] == [
        ("rows", "float32", [1, 3, 8]),
        ("same", "int64", [1, 3]),
    ]
    assert about["outputs"][1]["max"] == 3 and about["seconds"] > 0


def test_outputs_with_strange_names_stay_in_the_folder(tmp_path):
    model = tiny.every_type()
    for old, new in (
        ("f_out", "../../escape"),
        ("d_out", "a/b"),
        ("b_out", "a_b"),
        ("i_out", ".."),
        ("u_out", "x" * 40),
    ):
        for node in model.graph.node:
            node.output[0] = new if node.output[0] == old else node.output[0]
        for value in model.graph.output:
            value.name = new if value.name == old else value.name
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    args = []
    for name, dtype in (("f", "f4"), ("d", "f8"), ("b", "?"), ("i", "i4"), ("u", "u1")):
        np.save(tmp_path / f"{name}.npy", np.ones((2, 2) if name == "f" else 2, dtype))
        args += ["--input", f"{name}={tmp_path}/{name}.npy"]
    run("run", path, *args, "--output", tmp_path / "deep" / "o")
    assert len(os.listdir(tmp_path / "deep" / "o")) == 5
    assert os.listdir(tmp_path / "deep") == ["o"]


def test_folder_stands_for_its_model(embed_onnx):
    folder = embed_onnx.parent / "folder"
    folder.mkdir()
    embed_onnx.rename(folder / "model.onnx")
    assert "steps" in run("inspect", folder).stdout
    assert "model.onnx" in fails("inspect", embed_onnx.parent)


def test_inspect(embed_onnx, tmp_path):
    text = run("inspect", embed_onnx, "--steps").stdout
    assert "[batch, sequence, 8]" in text and "gather" in text and "\x1b" not in text
    out = tmp_path / "m.frugal"
    run("compile", embed_onnx, out)
    about = json.loads(run("inspect", out, "--json", "--verify").stdout)
    assert about["inputs"][0] == {"name": "ids", "dtype": "int64", "shape": ["batch", "sequence"]}
    assert about["steps"][0]["op"] == "gather" and about["plan_bytes"] == out.stat().st_size
    assert sum(about["constant_bytes"].values()) >= tiny.TABLE.nbytes
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    assert "SHA-256" in fails("inspect", out, "--verify")


def test_bench(embed_onnx):
    done = run("bench", embed_onnx, "--seconds", "0.3", "--threads", "1", "--shape", "ids=2x5", "--json")
    about = json.loads(done.stdout)
    assert about["shapes"] == {"ids": [2, 5], "shift": [8]} and about["threads"] == 1
    assert 0 < about["latency_ms_p10"] <= about["latency_ms"] <= about["latency_ms_p90"]
    assert about["load_seconds"] > 0 and about["peak_rss_bytes"] > 1 << 20
    assert about["isa"] and about["cpu"] and about["versions"]["frugal"] == frugal.__version__
    text = run("bench", embed_onnx, "--seconds", "0.2", "--against", "onnxruntime").stdout
    assert "onnxruntime" in text and "x the speed" in text
    about = json.loads(run("bench", embed_onnx, "--seconds=0.2", "--against=onnxruntime", "--json").stdout)
    assert about["against"]["latency_ms"] > 0 and about["against"]["difference"] < 1e-6 and about["times_faster"] > 0


def test_doctor():
    about = json.loads(run("doctor", "--json").stdout)
    assert about["frugal"] == frugal.__version__ and about["isa"] in about["isas_usable"]
    assert about["extras"]["onnx"]["onnx"]
    assert "frugal" in run("doctor").stdout
    about = json.loads(run("doctor", "--json", env={"FRUGAL_ISA": "mmx"}, code=1).stdout)
    assert about["isa"] is None and "mmx" in about["isa_error"]
    assert about["self_test"] is None
    about = json.loads(run("doctor", "--json", env={"FRUGAL_ISA": "scalar"}).stdout)
    assert about["isa"] == "scalar" and about["isas"]["scalar"] == "in use"


def test_doctor_machine():
    about = json.loads(run("doctor", "--json").stdout)
    assert about["self_test"] == "passed" and about["isas"][about["isa"]] == "in use"
    usable = [name for name, state in about["isas"].items() if state in ("in use", "usable")]
    assert usable == about["isas_usable"] and list(about["isas"])[-1] == "scalar"
    assert all(
        state in ("in use", "usable", "not in this build") or state.startswith("needs ") for state in about["isas"].values()
    )
    assert about["packages"]["numpy"] and about["threads"] == about["cpus_usable"] >= 1
    limits = [about["cpus_affinity"], about["cpu_quota"] and math.ceil(about["cpu_quota"])]
    assert about["cpus_usable"] == max(1, min(n for n in limits if n))
    assert about["memory_bytes"] > about["memory_available_bytes"] > 0
    text = run("doctor").stdout
    for line in ("self test", "caches", "huge pages", "isas", "numpy"):
        assert line in text


def test_wrong_usage(embed_onnx, inputs, tmp_path):
    plan = tmp_path / "m.frugal"
    run("compile", embed_onnx, plan)
    for args in (
        [],
        ["frob"],
        ["run"],
        ["run", embed_onnx],
        ["run", embed_onnx, inputs[0]],
        ["run", embed_onnx, "--input", "ids"],
        ["run", embed_onnx, *inputs, "--input", f"more={tmp_path}/ids.npy"],
        ["run", embed_onnx, *inputs, "--threads", "-1"],
        ["run", embed_onnx, *inputs, "--threads", "x"],
        ["bench", embed_onnx, "--shape", "ids=2"],
        ["bench", embed_onnx, "--shape", "ids=2xx"],
        ["bench", embed_onnx, "--shape", "none=2x2"],
        ["bench", embed_onnx, "--seconds", "0"],
        ["bench", embed_onnx, "--against", "tensorflow"],
        ["bench", plan, "--against", "onnxruntime"],
        ["compile", plan, tmp_path / "n.frugal"],
        ["compile", embed_onnx, tmp_path],
        ["compile", embed_onnx, plan, "--target", "toaster"],
        ["quantize", embed_onnx, plan],
        ["quantize", embed_onnx, plan, "--scheme", "int3"],
    ):
        fails(*args, code=2)


def test_failures_are_one_line(embed_onnx, inputs, tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "empty.onnx").write_bytes(b"")
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    assert "none.onnx" in fails("inspect", tmp_path / "none.onnx")
    assert "none.frugal" in fails("inspect", tmp_path / "none.frugal")
    fails("inspect", tmp_path / "junk.onnx")
    fails("inspect", tmp_path / "empty.onnx")
    fails("run", embed_onnx, inputs[0], f"--input=shift={tmp_path}/junk.npy")
    fails("run", embed_onnx, inputs[0], f"--input=shift={tmp_path}/pickle.npy")
    fails("run", embed_onnx, inputs[0], f"--input=shift={tmp_path}/none.npy")
    assert "shift" in fails("run", embed_onnx, inputs[0], f"--input=shift={tmp_path}/ids.npy")
    assert "no such folder" in fails("compile", embed_onnx, tmp_path / "none" / "m.frugal")
    fails("run", embed_onnx, *inputs, "--output", tmp_path / "junk.npy")
    assert "mmx" in fails("run", embed_onnx, *inputs, env={"FRUGAL_ISA": "mmx"})
    fails("quantize", tmp_path / "none.onnx", tmp_path / "o.onnx", "--scheme", "int8")
    fails("export", tmp_path / "none", tmp_path / "o")


def test_compile_failure_leaves_the_old_plan(embed_onnx, tmp_path):
    out = tmp_path / "m.frugal"
    run("compile", embed_onnx, out)
    before = out.read_bytes()
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    fails("compile", tmp_path / "junk.onnx", out)
    assert out.read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.skipif(os.name != "posix", reason="sh")
def test_pipes(embed_onnx):
    script = f"{sys.executable} -m frugal inspect {embed_onnx} --steps --json"
    done = subprocess.run(["sh", "-c", f"{script} | head -1"], capture_output=True, text=True)
    assert done.stdout == "{\n" and done.stderr == ""
    done = subprocess.run(["sh", "-c", f"{script} | true"], capture_output=True, text=True)
    assert done.stderr == ""
    done = subprocess.run(["sh", "-c", f"{script} > /dev/full"], capture_output=True, text=True)
    if os.path.exists("/dev/full"):
        assert done.returncode == 1 and done.stderr.startswith("frugal: error: ") and done.stderr.count("\n") == 1


def test_unwritable_cache_is_a_warning(embed_onnx, inputs, tmp_path):
    done = run("run", embed_onnx, *inputs, env={"FRUGAL_CACHE_DIR": str(tmp_path / "ids.npy")})
    assert done.stderr.startswith("frugal: warning: ") and done.stderr.count("\n") == 1


def test_control_characters_of_a_model_do_not_reach_the_terminal(tmp_path):
    model = tiny.embed()
    model.graph.node[0].name = "\x1b[31mred\n"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    text = run("inspect", path, "--steps").stdout
    assert "\x1b" not in text and "\\x1b[31mred\\n" in text


def test_a_missing_extra_is_named(embed_onnx, tmp_path):
    """With onnx hidden, as in an installation without extras."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "onnx.py").write_text("raise ImportError('hidden', name='onnx')")
    env = {"PYTHONPATH": str(tmp_path / "hide")}
    assert "frugal-edge[onnx]" in fails("inspect", embed_onnx, env=env)
    assert "frugal-edge[" in fails("quantize", embed_onnx, tmp_path / "o.onnx", "--scheme", "int8", env=env)


@pytest.mark.parametrize("on,terminal,shown", [(True, True, True), (True, False, False), (False, True, False)])
def test_progress_is_for_terminals(on: bool, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that says how far, rewritten and at last wiped; nothing in a pipe, nothing with --json."""
    import io

    from frugal.cli.common import Progress

    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress(on) as progress:
        progress("layer\x1b.0", 512, 2048)
        progress("reading 3 of 4")
    said = stderr.getvalue()
    assert said.endswith("\r\x1b[K") == shown and bool(said) == shown
    assert not shown or (" 25% of 2.0 KiB  layer\\x1b.0" in said and "reading 3 of 4" in said)
