"""The peers: which packages, each in a virtual environment of its own below build/, made when it is first asked for.

Packages are pinned and installed without what they depend on, numpy apart: none of the rest is needed to run a model.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMPY = "numpy==2.4.6"


@dataclass
class Peer:
    """package: with its version; reason: why it cannot run here, once that is known."""

    package: str
    reason: str = field(default="", init=False)

    @property
    def version(self) -> str:
        return self.package.partition("==")[2]


PEERS = {
    "onnxruntime": Peer("onnxruntime==1.32.0"),
    "litert": Peer("ai-edge-litert==2.3.0"),
    "openvino": Peer("openvino==2026.4.1"),
    "ncnn": Peer("ncnn==1.0.20261020"),
    "llama.cpp": Peer("xllamacpp==2026.10.11549"),
    "ik_llama.cpp": Peer("ik-llama-cpp-python==0.1.5"),
}


def python_of(name: str, folder: Path = ROOT / "build" / "bench-venv") -> str | None:
    """The interpreter that has this peer; None, with the peer's `reason` set, where it cannot be installed."""
    peer, venv = PEERS[name], folder / name
    python, done = venv / "bin" / "python", venv / ".done"
    wanted = f"{peer.package} {NUMPY}"
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return str(python)
    if peer.reason:
        return None
    print(f"installing {peer.package} in {venv.relative_to(ROOT) if venv.is_relative_to(ROOT) else venv}", file=sys.stderr)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--only-binary", ":all:"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(venv)], [*pip, peer.package, NUMPY]):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if "ERROR" in line] or ran.stderr.splitlines() or ["no output"]
            peer.reason = f"cannot be installed here: {lines[-1].removeprefix('ERROR: ')}"
            return None
    done.write_text(wanted, encoding="utf-8")
    return str(python)
