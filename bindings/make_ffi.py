"""Writes the C source of frugal.bindings._ffi from the public headers (run by CMake; not part of the wheel).

cffi's parser knows no preprocessor, so the headers are reduced to declarations here.  In cffi's API mode the C compiler
then checks every one of them against the real header, which the generated file includes.

    python make_ffi.py OUT.c frugal.h frugal_plan.h
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STATIC_ASSERT = re.compile(r"_Static_assert\(.*?\);", re.DOTALL)
INTEGER_MACRO = re.compile(r"#define[ \t]+(\w+)[ \t]+(?:\d+|\(INT64_C\(.*\))[ \t]*$", re.MULTILINE)
DIRECTIVE = re.compile(r"^#.*$", re.MULTILINE)


def declarations(header: str) -> str:
    """What cffi's cdef understands of a header: types and functions, and `#define NAME ...` for integer macros."""
    text = STATIC_ASSERT.sub("", COMMENT.sub("", header))
    macros = "".join(f"#define {name} ...\n" for name in INTEGER_MACRO.findall(text))
    lines = (line.rstrip() for line in DIRECTIVE.sub("", text).splitlines())
    return macros + "\n".join(line for line in lines if line) + "\n"


def main(out: str, *headers: str) -> None:
    """Write the module's C source to `out`."""
    from cffi import FFI

    ffi = FFI()
    for header in headers:
        ffi.cdef(declarations(Path(header).read_text(encoding="utf-8")))
    ffi.set_source("frugal.bindings._ffi", "".join(f'#include "{Path(header).name}"\n' for header in headers))
    ffi.emit_c_code(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
