"""The distribution: small, complete, and installable from the sdist into a clean environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import frugal
import tiny

ROOT = Path(__file__).resolve().parent.parent
WHEEL_LIMIT = 2_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, wheel): `python -m build` makes the wheel from the sdist, so the sdist builds."""
    source = tmp_path_factory.mktemp("source") / "frugal"
    names = "pyproject.toml CMakeLists.txt Makefile LICENSE NOTICE README.md kernels bindings frugal quantize tests examples"
    source.mkdir()
    for name in names.split():
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", ".hypothesis"))
        else:
            shutil.copy(path, source / name)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "-o", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_the_wheel_is_small_and_for_every_python(built):
    _, wheel = built
    assert wheel.stat().st_size <= WHEEL_LIMIT
    assert f"frugal_edge-{frugal.__version__}-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        extension = z.read(next(n for n in names if "_ffi" in n and n.endswith(".so")))
        metadata = z.read(next(n for n in names if n.endswith("METADATA"))).decode()
    print(f"wheel {wheel.stat().st_size} bytes, extension {len(extension)} bytes")
    assert b".debug_info" not in extension and b".symtab" not in extension  # stripped
    assert "Requires-Dist: cffi" in metadata and "License-Expression: Apache-2.0" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert len(required) == 2


def test_what_the_wheel_holds(built):
    _, wheel = built
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
    for wanted in ("frugal/py.typed", "frugal/cli/__init__.py", "frugal/compiler/__init__.py", "frugal/quantize/__init__.py"):
        assert wanted in names
    top = {name.split("/")[0] for name in names}
    assert top == {"frugal", f"frugal_edge-{frugal.__version__}.dist-info"}
    for name in names:
        if name.startswith("frugal/deploy/"):  # bundles for boards are made of C
            continue
        assert not name.endswith((".c", ".h", ".md", ".txt", "make_ffi.py")) or ".dist-info/" in name, name
        assert not name.split("/")[-1].startswith("test_"), name
    for wanted in (
        "mcu/fb.h",
        "mcu/libc/math.h",
        "mcu/start/selftest.c",
        "boards/arm.ld",
        "boards/microbit.toml",
        "src/isa/scalar.c",
    ):
        assert f"frugal/deploy/{wanted}" in names
    licences = {Path(name).name for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_what_the_sdist_holds(built):
    sdist, _ = built
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for wanted in ("kernels/include/frugal.h", "kernels/src/session.c", "bindings/make_ffi.py", "LICENSE", "Makefile"):
        assert wanted in names


def test_installs_into_a_clean_environment(built, tmp_path):
    """Only numpy and cffi come along; a plan runs, and an .onnx says which extra it needs."""
    _, wheel = built
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel)], check=True)
    frugal.compile(tiny.embed().SerializeToString()).save(tmp_path / "m.frugal")
    (tmp_path / "m.onnx").write_bytes(tiny.embed().SerializeToString())
    code = """
import sys, numpy as np, frugal
rows = frugal.InferenceSession("m.frugal").run(["rows"], {"ids": np.array([[1]]), "shift": np.ones(8, np.float32)})[0]
assert rows.shape == (1, 1, 8)
try:
    frugal.InferenceSession("m.onnx")
except frugal.MissingExtra as e:
    print(e)
"""
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "frugal-edge[onnx]" in done.stdout, done.stderr
    done = subprocess.run([tmp_path / "v" / "bin" / "frugal", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert "missing onnx" in done.stdout and done.returncode == 0, done.stderr
    installed = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True).stdout
    packages = {line.partition("==")[0].lower() for line in installed.split()}
    assert packages - {"pip", "setuptools"} == {"frugal-edge", "numpy", "cffi", "pycparser"}
