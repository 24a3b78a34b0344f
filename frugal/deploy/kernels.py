"""Integer steps of the plan as calls of the small kernels (kernels/mcu/fb.h).

Codes are signed on boards.  A tensor of uint8 that only these steps see is kept less 128 ("moved"); one that the model's caller
or another operation sees stays as it is, and fb_flip stands between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.ir import NUMPY, DType, Op, Step, Tensor, Unary
from ..compiler.pack import round_up
from . import native, packing
from .memory import EXACT
from .network import Buffer, Network, short
from .packing import Weights
from .program import Program

INTEGER = {Op.QCONV, Op.QDEPTH, Op.QBINARY, Op.QPOOL, Op.QSOFTMAX, Op.QLOOKUP, Op.QCODES}
MOVING = {Op.SLICE, Op.CONCAT, Op.UNARY}
SAFE_PRODUCT = 32000.0  # |acc * scale| that leaves 16 bits room for a zero point
FAR = 1 << 30


class Lowering:
    """One program for one back end: portable, dsp or mve."""

    def __init__(self, net: Network, backend: str, hard_float: bool) -> None:
        self.net, self.backend, self.hard_float = net, backend, hard_float
        self.program = Program(net)
        self.moved = self._moved()
        self.flipped: dict[tuple[Tensor, int], Buffer] = {}

    # ---- which tensors are kept less 128 ----
    def _moved(self) -> set[Tensor]:
        parent: dict[Tensor, Tensor] = {}

        def find(t: Tensor) -> Tensor:
            while parent.setdefault(t, t) is not t:
                t = parent[t]
            return t

        fixed: set[Tensor] = set()
        ports = {p.buffer for p in (*self.net.inputs, *self.net.outputs)}
        for step in self.net.steps:
            mine = [
                self.net.roots[t] for t in (*step.inputs, *step.outputs) if t is not None and not t.known and t.weight is None
            ]
            if step.op in MOVING and self._moves(step):
                for other in mine[1:]:
                    parent[find(other)] = find(mine[0])
            elif step.op not in INTEGER or not self._takes(step):
                fixed.update(mine)
        fixed.update(t for t in self.net.buffers if self.net.buffers[t] in ports)
        heads = {find(t) for t in fixed}
        return {t for t in self.net.buffers if t.dtype == DType.UINT8 and find(t) not in heads}

    def _buffer(self, t: Tensor) -> Buffer:
        return self.net.buffer(t)

    def codes(self, t: Tensor) -> Buffer:
        """Where a step reads the signed codes of t."""
        root = self.net.roots[t]
        if t.dtype != DType.UINT8 or root in self.moved:
            return self._buffer(t)
        source = self._buffer(t)
        made = Buffer(f"{t.name} less 128", source.bytes)
        self.program.call(
            f"fb_flip({{1}}, {{0}}, {source.bytes});", [source], [made], f"{t.name} to signed codes", over={source: 0}
        )
        return made

    def put_codes(self, t: Tensor, make: Callable[[Buffer], None]) -> None:
        """Let make write the signed codes of t."""
        root, target = self.net.roots[t], self._buffer(t)
        if t.dtype != DType.UINT8 or root in self.moved:
            make(target)
            return
        signed = Buffer(f"{t.name} less 128", target.bytes, target.slack)
        make(signed)
        self.program.call(
            f"fb_flip({{1}}, {{0}}, {target.bytes});", [signed], [target], f"{t.name} to unsigned codes", over={signed: 0}
        )

    # ---- steps ----
    def run(self) -> Program:
        p = self.program
        for port in self.net.inputs:
            p.touch(port.buffer)
            p.lives[port.buffer].first = -1
        for step in self.net.steps:
            integer = step.op in INTEGER and self._takes(step)
            if integer or (step.op in MOVING and self._moves(step)):
                getattr(self, "_" + step.op.name.lower())(step)
            else:
                native.lower(p, step)
        return p

    def _takes(self, step: Step) -> bool:
        """Whether the kernels here do a step of INTEGER."""
        x, y = step.inputs[0], step.out
        assert x is not None
        if step.op == Op.QBINARY:
            return step.attrs[0] == 0 and all(t is not None and self.net.shape(t) == self.net.shape(y) for t in step.inputs)
        if step.op in (Op.QCONV, Op.QDEPTH, Op.QPOOL):
            return self.net.shape(x)[0] == 1
        if step.op == Op.QSOFTMAX:
            return self.net.number(step.attrs[0]) == len(self.net.shape(x)) - 1
        if step.op == Op.QCODES:
            return not step.attrs[0] or self.net.shape(x)[0] == 1
        return True

    def _attributes(self, step: Step) -> list[int]:
        return [self.net.number(a) for a in step.attrs if not isinstance(a, float)]

    def _convolution(self, step: Step, w: Weights, depth: bool) -> None:
        a = self._attributes(step)
        x, y = step.inputs[0], step.out
        assert x is not None
        _, h, width, c = self.net.shape(x)
        _, oh, ow, co = self.net.shape(y)
        if a[1] * a[2] == 1 and not depth and h * width == oh * ow and a[9] == a[10] == 0 and h == 1:
            h, width, oh, ow = 1, width, 1, ow
        shape = {
            "h": h,
            "w": width,
            "c": c,
            "kh": a[1],
            "kw": a[2],
            "sh": a[3],
            "sw": a[4],
            "pt": a[9],
            "pl": a[10],
            "oh": oh,
            "ow": ow,
            "co": co,
        }
        points = {"zx": a[11] - 128, "zy": a[12] - 128, "lo": a[13] - 128, "hi": a[14] - 128}
        out = {DType.INT32: 1, DType.FLOAT: 2}.get(DType(y.dtype), 0)
        source = self.codes(x)
        name = short(step.name)
        fast = self._fast(step, w, depth, shape, points, out)
        general = {"groups": a[0], "dh": a[5], "dw": a[6], "uh": a[7], "uw": a[8], "out": out}

        def make(target: Buffer) -> None:
            if isinstance(fast, str):
                self._general(name, w, depth, shape, points, general, source, target)
            else:
                self._packed(name, fast, shape, points, source, target)

        if isinstance(fast, str):
            self.program.refused.append(f"{name}: {fast}")
        if out:
            make(self._buffer(y))
        else:
            self.put_codes(y, make)

    def _fast(self, step: Step, w: Weights, depth: bool, s: dict[str, int], points: dict[str, int], out: int) -> Any:
        """(function, weights, constants) of the back end, or why it does not take the layer."""
        a = self._attributes(step)
        if out or w.wzero.any() or a[5:9] != [1, 1, 1, 1]:
            return "dilated, spread, of weights with a zero point, or not giving codes"
        low, high = w.extremes(points["zx"])
        most = np.maximum(-low, high).astype(np.float64)
        if (most >= 1 << 31).any():
            return "its sums could leave 32 bits"
        if self.backend == "dsp" and (most * w.scale >= SAFE_PRODUCT).any():
            return "its results before saturation could leave 16 bits"
        narrow = (most >= 1 << 23).any() or (w.scale < 2.0**-20).any() or (w.scale >= 0.25).any()
        if self.backend == "portable" and not self.hard_float and narrow:
            return "its sums or scales are out of the range of integer rounding"
        if depth:
            return self._fast_depth(w, s, points)
        if a[0] != 1:
            return "of several groups"
        pixels = s["oh"] * s["ow"]
        if pixels > 1 and s["co"] % 4 and self.backend != "portable":
            return "its output channels are no multiple of 4"
        plain = pixels == 1 and s["h"] * s["w"] == s["kh"] * s["kw"] and s["pt"] == s["pl"] == 0
        if self.backend == "portable":
            if (w.codes == -128).any():
                return "it has weights of -128"
            return ("fb_fc_run" if plain else "fb_conv_run", *packing.portable(w, points["zx"]))
        if self.backend == "mve":
            return ("fb_fc_run" if plain else "fb_conv_run", *packing.mve(w, points["zx"]))
        if s["c"] % 4 and s["kw"] * s["c"] > 64:
            return "a row of its kernel is not whole words"
        packed = packing.dsp(w, points["zx"])
        if packed is None:
            return "two of its channels do not fit in halfwords"
        return ("fb_fc_run" if plain and s["kh"] * s["kw"] == 1 and s["c"] % 8 == 0 else "fb_conv_run", *packed)

    def _fast_depth(self, w: Weights, s: dict[str, int], points: dict[str, int]) -> Any:
        if (s["kh"], s["kw"]) != (3, 3) or s["c"] % 4 or s["c"] != s["co"] or s["sh"] != s["sw"] or s["sh"] > 2:
            return "not a kernel of 3 x 3 on a multiple of 4 channels"
        if self.backend == "portable":
            return ("fb_dw3_run", *packing.portable_depth3(w, points["zx"]))
        inside = s["pt"] <= 1 and s["pl"] <= 1 and (s["oh"] - 1) * s["sh"] + 3 - s["pt"] <= s["h"] + 1
        if not inside or s["h"] < 2:
            return "padded by more than one row"
        if self.backend == "mve":
            return ("fb_dw3_run", *packing.mve_depth3(w, points["zx"]))
        return ("fb_dw3_run", *packing.dsp_depth3(w, points["zx"]))

    def _packed(self, name: str, fast: Any, s: dict[str, int], points: dict[str, int], x: Buffer, y: Buffer) -> None:
        function, weights, constants = fast
        p = self.program
        at = p.data.add(weights, f"{name}: weights", weights=True)
        if function == "fb_dw3_run" and self.backend == "mve":
            at += 16
        offsets = {"weights": at, "consts": p.data.add(constants, f"{name}: constants") if constants else 0}
        layer = p.layer("fb_conv", [*s.items(), *points.items(), *offsets.items()])
        scratch, over = self._needs(function, s)
        if s["co"] % 4:
            y.slack = max(y.slack, round_up(y.bytes, 4) - y.bytes)
        if function == "fb_dw3_run" and self.backend == "dsp" and s["sh"] == 2 and s["ow"] % 2:
            y.slack = max(y.slack, s["co"])
        p.sources.add(f"fb_{self.backend}.c")
        tmp = "{2}" if scratch else "0"
        p.call(f"{function}({layer}, data, {{0}}, {{1}}, {tmp});", [x], [y], name, scratch, {} if over is None else {x: over})
        self._clamp(name, s, points, y)

    def _clamp(self, name: str, s: dict[str, int], points: dict[str, int], y: Buffer) -> None:
        if self.backend != "portable" and (points["lo"] > -128 or points["hi"] < 127):
            n = s["oh"] * s["ow"] * s["co"]
            self.program.call(f"fb_clamp({{0}}, {n}, {points['lo']}, {points['hi']});", [y], [], f"{name}: limits")

    def _needs(self, function: str, s: dict[str, int]) -> tuple[int, int | str | None]:
        """Bytes of scratch, and how far the output may lie beyond the input."""
        depth, row = s["kh"] * s["kw"] * s["c"], s["kw"] * s["c"]
        pairs = s["kh"] * (row // 4 * 2 + min(row % 4, 2))
        single = s["kh"] * s["kw"] == 1 and s["sh"] == s["sw"] == 1 and s["pt"] == s["pl"] == 0
        if function == "fb_fc_run":
            if self.backend == "mve":
                return 0, None
            return (4 * round_up(depth, 4) if self.backend == "portable" else 2 * depth), FAR
        if function == "fb_conv_run":
            if self.backend == "portable":
                return 4 * round_up(depth, 4), lag(s, 2, 2)
            if self.backend == "dsp":
                return 8 * pairs, lag(s, 2, 2)
            return (0, lag(s, 0, 2)) if single else (2 * round_up(depth, 16) + 16, lag(s, 2, 2))
        if self.backend == "portable":
            return s["c"], lag(s, 0, 1)
        if self.backend == "mve":
            return 256, None
        width = s["ow"] + 2 if s["sw"] == 1 else 2 * round_up(s["ow"], 2) + 1
        same = s["sh"] == 1 and (s["oh"], s["ow"]) == (s["h"], s["w"])
        return 32 * width, EXACT if same else None

    def _general(
        self,
        name: str,
        w: Weights,
        depth: bool,
        s: dict[str, int],
        points: dict[str, int],
        general: dict[str, int],
        x: Buffer,
        y: Buffer,
    ) -> None:
        p = self.program
        p.sources.add("fb_any.c")
        size = y.bytes // max(1, s["oh"] * s["ow"] * s["co"])
        if depth and s["c"] == s["co"] and general["uh"] == general["uw"] == 1 and not w.wzero.any():
            taps = np.ascontiguousarray(w.codes.reshape(s["co"], -1).T).tobytes()
            offsets = {"weights": p.data.add(taps, f"{name}: weights", weights=True)}
            offsets["consts"] = p.data.add(packing.channels(w, w.folded(points["zx"])), f"{name}: constants")
            layer = p.layer("fb_any", [*s.items(), *points.items(), *offsets.items(), *general.items()])
            text = f"fb_depth_any({layer}, data, {{0}}, {{1}}, {{2}});"
            p.call(text, [x], [y], name, 5 * s["co"], {x: lag(s, 1, 1, general)})
            return
        offsets = {"weights": p.data.add(w.codes.tobytes(), f"{name}: weights", weights=True)}
        offsets["consts"] = p.data.add(packing.channels(w, w.bias), f"{name}: constants")
        layer = p.layer("fb_any", [*s.items(), *points.items(), *offsets.items(), *general.items()])
        over: dict[Buffer, int | str] = {x: lag(s, 0, 1, general, size)} if general["uh"] == general["uw"] == 1 else {}
        p.call(f"fb_conv_any({layer}, data, {{0}}, {{1}});", [x], [y], name, 0, over)

    def _qconv(self, step: Step) -> None:
        a = self._attributes(step)
        c, co = self.net.shape(_known(step.inputs[0]))[3], self.net.shape(step.out)[3]
        w = packing.unpack_conv(_const(step.inputs[1]), _const(step.inputs[2]), a[0], co, a[1], a[2], c // a[0], a[6] != 1, a[11])
        self._convolution(step, w, depth=False)

    def _qdepth(self, step: Step) -> None:
        a = self._attributes(step)
        co = self.net.shape(step.out)[3]
        self._convolution(
            step, packing.unpack_depth(_const(step.inputs[1]), _const(step.inputs[2]), co, a[1], a[2], a[11]), depth=True
        )

    def _qbinary(self, step: Step) -> None:
        a = self._attributes(step)
        ma, mb = (float(np.float32(v)) for v in step.attrs[6:8])  # type: ignore[arg-type]
        ia, ib = (round(v * 2.0**21) for v in (ma, mb))
        reach = 255 * (abs(ma) + abs(mb))
        exact = reach < 1000
        buffers = [self.codes(_known(t)) for t in step.inputs]
        n = int(np.prod(self.net.shape(step.out)))
        values: list[tuple[str, int | float]] = [("n", n), ("za", a[1] - 128), ("zb", a[2] - 128), ("zy", a[3] - 128)]
        values += [("lo", a[4] - 128), ("hi", a[5] - 128), ("ma", ma), ("mb", mb), ("ia", ia * exact), ("ib", ib * exact)]
        layer = self.program.layer("fb_add", values)

        def make(target: Buffer) -> None:
            over: dict[Buffer, int | str] = dict.fromkeys(buffers, 0)
            self.program.sources.add("fb_add.c")
            self.program.call(f"fb_add_run({layer}, {{0}}, {{1}}, {{2}});", buffers, [target], short(step.name), over=over)

        self.put_codes(step.out, make)

    def _qpool(self, step: Step) -> None:
        a = self._attributes(step)
        x = _known(step.inputs[0])
        _, h, w, c = self.net.shape(x)
        _, oh, ow, _ = self.net.shape(step.out)
        kh, kw = (h, w) if 0 in a[1:3] else a[1:3]
        names = ("h", "w", "c", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "oh", "ow", "zx", "zy", "kind")
        numbers = (h, w, c, kh, kw, *a[3:9], oh, ow, a[9] - 128, a[10] - 128, a[0])
        m = float(step.attrs[11])  # type: ignore[arg-type]
        layer = self.program.layer("fb_pool", [*zip(names, numbers, strict=True), ("m", m)])
        source = self.codes(x)
        self.put_codes(
            step.out, lambda y: self.program.call(f"fb_pool_run({layer}, {{0}}, {{1}});", [source], [y], short(step.name))
        )

    def _qsoftmax(self, step: Step) -> None:
        x = _known(step.inputs[0])
        shape = self.net.shape(x)
        table = self.program.data.add(_const(step.inputs[1]).astype("<f4").tobytes(), f"{short(step.name)}: exponentials")
        zero, m = self.net.number(step.attrs[1]) - 128, float(step.attrs[2])  # type: ignore[arg-type]
        values: list[tuple[str, int | float]] = [
            ("rows", int(np.prod(shape[:-1]))),
            ("n", shape[-1]),
            ("zy", zero),
            ("m", m),
            ("table", table),
        ]
        layer = self.program.layer("fb_softmax", values)
        source = self.codes(x)
        self.put_codes(
            step.out,
            lambda y: self.program.call(
                f"fb_softmax_run({layer}, data, {{0}}, {{1}});", [source], [y], short(step.name), over={source: 0}
            ),
        )

    def _qlookup(self, step: Step) -> None:
        x, y = _known(step.inputs[0]), step.out
        table = _const(step.inputs[1])
        if y.dtype == DType.UINT8 and self.net.roots[y] in self.moved:
            table = table ^ 0x80
        source = self.codes(x)
        offset = self.program.data.add(table.tobytes(), f"{short(step.name)}: table")
        n = int(np.prod(self.net.shape(x)))
        layer = self.program.layer("fb_lookup", [("n", n), ("size", table.itemsize), ("table", offset)])
        over: dict[Buffer, int | str] = {source: 0} if table.itemsize == 1 else {}
        self.program.call(
            f"fb_lookup_run({layer}, data, {{0}}, {{1}});", [source], [self._buffer(y)], short(step.name), over=over
        )

    def _qcodes(self, step: Step) -> None:
        x = _known(step.inputs[0])
        shape = self.net.shape(x)
        c, pixels = (shape[1], int(np.prod(shape[2:]))) if step.attrs[0] else (1, int(np.prod(shape)))
        values: list[tuple[str, int | float]] = [("c", c), ("pixels", pixels), ("zy", self.net.number(step.attrs[1]) - 128)]
        layer = self.program.layer("fb_codes", [*values, ("scale", float(step.attrs[2]))])  # type: ignore[arg-type]
        source = self._buffer(x)
        over: dict[Buffer, int | str] = {source: 0} if c == 1 else {}
        self.put_codes(
            step.out,
            lambda y: self.program.call(f"fb_codes_run({layer}, {{0}}, {{1}});", [source], [y], short(step.name), over=over),
        )

    # ---- moving ----
    def _moves(self, step: Step) -> bool:
        """Whether a step is copies of evenly spaced blocks of run-time tensors."""
        if any(t is not None and (t.known or t.weight is not None) for t in step.inputs):
            return False
        if step.op == Op.UNARY:
            return step.is_unary(Unary.COPY)
        if step.op == Op.CONCAT:
            return True
        x, y = _known(step.inputs[0]), step.out
        if len([t for t in step.inputs if t is not None]) != 1 or any(self.net.number(s) != 1 for s in step.attrs[1::2]):
            return False
        return sum(a != b for a, b in zip(self.net.shape(x), self.net.shape(y), strict=True)) <= 1

    def _copy(
        self, blocks: int, size: int, step_x: int, step_y: int, x: tuple[Buffer, int], y: tuple[Buffer, int], name: str
    ) -> None:
        if step_x == size and step_y == size:
            blocks, size, step_x, step_y = 1, blocks * size, blocks * size, blocks * size
        layer = self.program.layer("fb_copy", [("blocks", blocks), ("bytes", size), ("step_x", step_x), ("step_y", step_y)])
        over: dict[Buffer, int | str] = {x[0]: FAR if blocks == 1 else x[1]} if y[1] == 0 and step_y <= step_x else {}
        text = f"fb_copy_run({layer}, {{0}} + {x[1]}, {{1}} + {y[1]});"
        self.program.call(text, [x[0]], [y[0]], name, over=over)

    def _unary(self, step: Step) -> None:
        x, y = self._buffer(_known(step.inputs[0])), self._buffer(step.out)
        self._copy(1, y.bytes, y.bytes, y.bytes, (x, 0), (y, 0), short(step.name))

    def _slice(self, step: Step) -> None:
        x, y = _known(step.inputs[0]), step.out
        sx, sy, item = self.net.shape(x), self.net.shape(y), NUMPY[x.dtype].itemsize
        axis = next((i for i, (a, b) in enumerate(zip(sx, sy, strict=True)) if a != b), 0)
        inner = int(np.prod(sx[axis + 1 :])) * item
        blocks, start = int(np.prod(sx[:axis])), self.net.number(step.attrs[2 * axis])
        self._copy(
            blocks,
            sy[axis] * inner,
            sx[axis] * inner,
            sy[axis] * inner,
            (self._buffer(x), start * inner),
            (self._buffer(y), 0),
            short(step.name),
        )

    def _concat(self, step: Step) -> None:
        shape, item = self.net.shape(step.out), NUMPY[step.out.dtype].itemsize
        axis = self.net.number(step.attrs[0]) % len(shape)
        inner, at = int(np.prod(shape[axis + 1 :])) * item, 0
        for x in step.inputs:
            size = self.net.shape(_known(x))[axis] * inner
            blocks = int(np.prod(shape[:axis]))
            self._copy(
                blocks,
                size,
                size,
                shape[axis] * inner,
                (self._buffer(_known(x)), 0),
                (self._buffer(step.out), at),
                short(step.name),
            )
            at += size


def _known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _const(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None and tensor.const is not None
    return tensor.const


def lag(s: dict[str, int], ahead: int, at_once: int, general: dict[str, int] | None = None, size: int = 1) -> int:
    """How far y may begin beyond x when pixels are written at_once together, after those `ahead` of them have read their windows:
    the least distance from the end of what is written to the first byte that later pixels read."""
    oy, ox = np.divmod(np.arange(s["oh"] * s["ow"]), s["ow"])
    first = np.maximum(oy * s["sh"] - s["pt"], 0) * s["w"] * s["c"] + np.maximum(ox * s["sw"] - s["pl"], 0) * s["c"]
    needed = np.minimum.accumulate(first[::-1])[::-1]
    starts = np.arange(0, len(first), max(1, at_once))
    ends = np.minimum(starts + at_once, len(first)) * s["co"] * size
    later = starts + ahead
    inside = later < len(first)
    if not inside.any():
        return FAR
    return int((needed[later[inside]] - ends[inside]).min())
