"""Linked images: sections, symbols and loadable bytes of an ELF file, and what is made of them: BIN, HEX, UF2."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import InvalidArgument

ALLOC, WRITE, NOBITS = 2, 1, 8
UF2_START, UF2_SECOND, UF2_END, UF2_FAMILY, UF2_PAYLOAD = 0x0A324655, 0x9E5D5157, 0x0AB16F30, 0x2000, 256


@dataclass
class Section:
    name: str
    flags: int
    kind: int
    bytes: int


@dataclass
class Image:
    """segments: (address in flash, bytes); symbols: name -> (address, size)."""

    sections: list[Section]
    segments: list[tuple[int, bytes]]
    symbols: dict[str, tuple[int, int]]
    machine: int = 0  # e_machine: 40 Arm, 243 RISC-V

    def memory(self) -> tuple[int, int]:
        """(bytes in flash, bytes of RAM that data and bss take)."""
        flash = sum(len(b) for _, b in self.segments)
        ram = sum(s.bytes for s in self.sections if s.flags & ALLOC and s.flags & WRITE)
        return flash, ram

    def binary(self) -> tuple[int, bytes]:
        """(base, bytes from there on, gaps of 0xff)."""
        if not self.segments:
            raise InvalidArgument("the image has nothing to load")
        base = min(a for a, _ in self.segments)
        end = max(a + len(b) for a, b in self.segments)
        if end - base > 1 << 26:
            raise InvalidArgument("the image's parts lie too far apart for one file")
        out = bytearray(b"\xff" * (end - base))
        for address, data in self.segments:
            out[address - base : address - base + len(data)] = data
        return base, bytes(out)


def _name(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode(errors="replace")


def read_elf(data: bytes) -> Image:
    """Raises InvalidArgument when data is no little-endian ELF."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[5] != 1:
        raise InvalidArgument("not a little-endian ELF file")
    wide = data[4] == 2
    try:
        if wide:
            phoff, shoff = struct.unpack_from("<QQ", data, 32)
            phsize, phnum, shsize, shnum, names = struct.unpack_from("<5H", data, 54)
        else:
            phoff, shoff = struct.unpack_from("<II", data, 28)
            phsize, phnum, shsize, shnum, names = struct.unpack_from("<5H", data, 42)
        segments = []
        for i in range(phnum):
            at = phoff + i * phsize
            if wide:
                kind, _, offset, _, physical, size = struct.unpack_from("<IIQQQQ", data, at)
            else:
                kind, offset, _, physical, size = struct.unpack_from("<5I", data, at)
            if kind == 1 and size:
                segments.append((physical, data[offset : offset + size]))
        heads = [struct.unpack_from("<IIQQQQIIQQ" if wide else "<10I", data, shoff + i * shsize) for i in range(shnum)]
        texts = data[heads[names][4] : heads[names][4] + heads[names][5]]
        sections = [Section(_name(texts, h[0]), h[2], h[1], h[5]) for h in heads]
        symbols: dict[str, tuple[int, int]] = {}
        for h in heads:
            if h[1] != 2:
                continue
            strings = data[heads[h[6]][4] : heads[h[6]][4] + heads[h[6]][5]]
            for at in range(h[4], h[4] + h[5], h[9]):
                if wide:
                    name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", data, at)
                else:
                    name, value, size = struct.unpack_from("<III", data, at)
                symbols[_name(strings, name)] = (value, size)
    except (struct.error, IndexError, ValueError) as e:
        raise InvalidArgument(f"a damaged ELF file: {e}") from e
    return Image(sections, segments, symbols, struct.unpack_from("<H", data, 18)[0])


def intel_hex(image: Image) -> str:
    """Records of 16 bytes, extended linear addresses."""

    def record(address: int, kind: int, data: bytes) -> str:
        body = bytes([len(data)]) + struct.pack(">H", address) + bytes([kind]) + data
        return ":" + (body + bytes([-sum(body) & 255])).hex().upper()

    lines, high = [], -1
    for address, data in sorted(image.segments):
        for at in range(0, len(data), 16):
            place = address + at
            if place >> 16 != high:
                high = place >> 16
                lines.append(record(0, 4, struct.pack(">H", high)))
            chunk = data[at : at + min(16, 0x10000 - (place & 0xFFFF))]
            lines.append(record(place & 0xFFFF, 0, chunk))
            if len(chunk) < len(data[at : at + 16]):  # the rest lies in the next 64 KiB
                rest = data[at + len(chunk) : at + 16]
                high = (place + len(chunk)) >> 16
                lines += [record(0, 4, struct.pack(">H", high)), record(0, 0, rest)]
    return "\n".join([*lines, record(0, 1, b"")]) + "\n"


def uf2(image: Image, family: int) -> bytes:
    """Blocks of 512 bytes with 256 of the image each."""
    base, data = image.binary()
    data += b"\xff" * (-len(data) % UF2_PAYLOAD)
    count = len(data) // UF2_PAYLOAD
    blocks = []
    for i in range(count):
        payload = data[i * UF2_PAYLOAD : (i + 1) * UF2_PAYLOAD]
        flags = UF2_FAMILY if family else 0
        head = struct.pack("<8I", UF2_START, UF2_SECOND, flags, base + i * UF2_PAYLOAD, UF2_PAYLOAD, i, count, family)
        blocks.append(head + payload + bytes(476 - UF2_PAYLOAD) + struct.pack("<I", UF2_END))
    return b"".join(blocks)
