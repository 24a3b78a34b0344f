"""Models for boards, and what this machine can build and emulate."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nets
import pytest

PACKAGES = (
    "gcc-arm-none-eabi qemu-system-arm qemu-system-misc gcc-riscv64-unknown-elf gdb-multiarch qemu-user "
    "gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"
)


def pytest_addoption(parser):
    parser.addoption("--all-boards", action="store_true", help="every model on every board (minutes)")


@pytest.fixture(scope="session")
def tooled():
    """Root on a Debian gets compilers and emulators; elsewhere tests skip and name what is missing."""
    wanted = ("arm-none-eabi-gcc", "qemu-system-arm", "qemu-system-riscv32", "riscv64-unknown-elf-gcc", "gdb-multiarch")
    missing = [
        name for name in (*wanted, "qemu-aarch64", "aarch64-linux-gnu-gcc", "riscv64-linux-gnu-gcc") if not shutil.which(name)
    ]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES.split()], env=environment, **quiet
        )


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """name -> file of every model of nets.py that this machine can make."""
    return nets.write_all(tmp_path_factory.mktemp("nets"))
