"""Where each tensor's axes lie, chosen once for the whole graph, so that transposes cancel instead of following each convolution.

1. Steps that do not care about the order of axes (FOLLOWING) tie their tensors together in groups; every tensor of a group is
   stored with its axes in one order. All other steps (and the caller) want their tensors as they are.
2. A transpose between two groups, or a view that only moves axes of length 1, costs as many elements as it really moves; so
   does a tensor that a group shares with a step that wants it as it is, when the group has another order.
3. A view that joins, splits, adds or drops axes carries an order from one group to the next, where the order keeps the axes that
   belong together side by side.
4. Each group takes the order with the least cost beside its neighbours' orders, alone or with the groups that views carry it to,
   until nothing changes. Among equals the one that leaves no transpose behind a step that can take in what follows it (TAKES_IN);
   then what is there.
5. Constants of a group's steps are permuted; a transpose that only moves axes of length 1 becomes a view.
Adding a step to FOLLOWING needs the function that renumbers the axes in its attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .. import dims
from ..ir import CONTROL, Graph, Op, Shape, Step, Tensor

Perm = tuple[int, ...]
Renumber = Callable[[Step, Perm], None]
Parts = list[tuple[Perm, Perm]]  # axes of the source and of the result of a view that hold the same elements
TYPICAL = 48  # elements along an axis of unknown length
SWEEPS = 20


def inverse(perm: Perm) -> Perm:
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def permuted(shape: Shape, perm: Perm) -> Shape:
    return tuple(shape[p] for p in perm)


# ---- what follows ----
def _nothing(step: Step, perm: Perm) -> None:
    return


def _axis(step: Step, perm: Perm) -> None:
    step.attrs[0] = perm.index(step.attrs[0])


def _mask_at(place: int) -> Renumber:
    def renumber(step: Step, perm: Perm) -> None:
        mask = int(step.attrs[place])  # type: ignore[arg-type]
        step.attrs[place] = sum(1 << i for i, p in enumerate(perm) if mask >> p & 1)

    return renumber


def _lists(first: int, each: int) -> Renumber:
    """Attributes from `first` on: `each` for every axis."""

    def renumber(step: Step, perm: Perm) -> None:
        rest = step.attrs[first:]
        step.attrs[first:] = [v for p in perm for v in rest[each * p : each * p + each]]

    return renumber


def _resize(step: Step, perm: Perm) -> None:
    """Scales [rank] and region [2 rank] are constants with an entry for every axis."""
    _mask_at(6)(step, perm)
    for place, times in ((1, 1), (2, 2)):
        table = step.inputs[place] if place < len(step.inputs) else None
        if table is not None and table.const is not None:
            values = table.const.reshape(times, -1)[:, list(perm)].reshape(-1)
            step.inputs[place] = Tensor(table.name, table.dtype, table.shape, const=np.ascontiguousarray(values))


FOLLOWING: dict[Op, Renumber] = {
    Op.UNARY: _nothing,
    Op.BINARY: _nothing,
    Op.WHERE: _nothing,
    Op.CAST: _nothing,
    Op.EXPAND: _nothing,
    Op.FILL: _nothing,
    Op.CONCAT: _axis,
    Op.SOFTMAX: _axis,
    Op.CUMSUM: _axis,
    Op.ARG: _axis,
    Op.QUANTIZE: _axis,
    Op.DEQUANTIZE: _axis,
    Op.SLICE: _lists(0, 2),
    Op.PAD: _lists(1, 1),
    Op.REDUCE: _mask_at(1),
    Op.RESIZE: _resize,
}
TAKES_IN = (Op.CONV, Op.CONV_DEPTHWISE, Op.LINEAR)
ELEMENTWISE = (Op.BINARY, Op.WHERE, Op.CONCAT)  # every operand has the result's axes; others only the first
TABLES = {Op.RESIZE: (1, 2)}  # operands that have to be constant


def _operands(step: Step) -> list[int]:
    """Places of the inputs whose axes are the result's."""
    if step.op == Op.FILL:
        return []
    return list(range(len(step.inputs))) if step.op in ELEMENTWISE else [0]


def _follows(step: Step) -> bool:
    if step.op not in FOLLOWING:
        return False
    rank = step.out.rank
    inputs = [step.inputs[i] for i in _operands(step)]
    if rank < 2 or any(t is None or t.rank > rank for t in inputs) or any(o.rank != rank for o in step.outputs):
        return False
    if step.op in (Op.QUANTIZE, Op.DEQUANTIZE) and (step.inputs[1] is None or step.inputs[1].rank > 1):
        return False  # a scale for every block has axes of its own
    return all(
        place >= len(step.inputs) or (t := step.inputs[place]) is None or t.const is not None for place in TABLES.get(step.op, ())
    )


def _turn_of(step: Step) -> Perm | None:
    """The permutation of a TRANSPOSE, or of a view that only moves axes of length 1."""
    if step.op == Op.TRANSPOSE:
        return tuple(int(p) for p in step.attrs)  # type: ignore[arg-type]
    source = step.inputs[0] if step.op == Op.ALIAS else None
    if source is None or source.rank != step.out.rank or source.const is not None:
        return None
    longer = [i for i, d in enumerate(source.shape) if d != 1]
    ones = [i for i, d in enumerate(source.shape) if d == 1]
    if [source.shape[i] for i in longer] != [d for d in step.out.shape if d != 1]:
        return None
    return tuple(ones.pop(0) if d == 1 else longer.pop(0) for d in step.out.shape)


def _parts_of(step: Step) -> Parts | None:
    """The parts of a view, as short as they can be; axes of length 1 belong to none. None: no view of a computed tensor."""
    source = step.inputs[0] if step.op == Op.ALIAS else None
    if source is None or source.const is not None or step.out.dtype != source.dtype:
        return None
    before, after = ([i for i, d in enumerate(t.shape) if d != 1] for t in (source, step.out))
    parts: Parts = []
    while before and after:
        ends = sorted(((i, j) for i in range(1, len(before) + 1) for j in range(1, len(after) + 1)), key=sum)
        for i, j in ends:
            if dims.product(source.shape[a] for a in before[:i]) == dims.product(step.out.shape[a] for a in after[:j]):
                parts.append((tuple(before[:i]), tuple(after[:j])))
                before, after = before[i:], after[j:]
                break
        else:
            return None
    return None if before or after else parts


def carried(parts: Parts, order: Perm, source: Shape, result: Shape) -> Perm | None:
    """The order of a view's result when its source is stored in `order`; None where that tears a part apart."""
    left = [a for a in order if source[a] != 1]
    found: list[int] = []
    while left:
        before, after = next(p for p in parts if left[0] in p[0])
        if tuple(left[: len(before)]) != before:
            return None
        found, left = [*found, *after], left[len(before) :]
    made: list[int] = []
    for a in found:  # an axis of length 1 goes with the axis behind it
        ones = a
        while ones and result[ones - 1] == 1:
            ones -= 1
        made.extend(range(ones, a + 1))
    return (*made, *(a for a in range(len(result)) if a not in made))


def moved(shape: Shape, perm: Perm) -> int:
    """Cost of a transpose of a tensor of this shape: 0 for none, 1 for a view."""
    if perm == tuple(range(len(perm))):
        return 0
    longer = [p for p in perm if shape[p] != 1]
    if longer == sorted(longer):
        return 1
    size = 1
    for d in shape:
        size *= d if isinstance(d, int) else TYPICAL
    return 2 + size


# ---- groups ----
class _Groups:
    """Tensors by group, and what joins groups."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parent: dict[Tensor, Tensor] = {}
        self.follows = {s for s in graph.steps if _follows(s)}
        self.turns = {s: turn for s in graph.steps if (turn := _turn_of(s)) is not None}
        self.views = {s: parts for s in graph.steps if s not in self.turns and (parts := _parts_of(s)) is not None}
        for step in graph.steps:
            if step in self.follows:
                self.find(step.out)
                for tensor in self.tied(step)[1:]:
                    self.join(step.out, tensor)
            elif step in self.turns or step in self.views:
                self.find(step.out)
                self.find(self.source(step))
        self.fixed = self._fixed()
        self.order: dict[Tensor, Perm] = {}  # of a group's root; absent: as it is
        self.shared = self._shared()
        self.taken = {t for s in graph.steps if s.op in TAKES_IN for t in s.outputs}
        self.edges: dict[Tensor, list[Step]] = {}
        for step in (*self.turns, *self.views):
            for tensor in {self.find(step.out), self.find(self.source(step))}:
                self.edges.setdefault(tensor, []).append(step)

    @staticmethod
    def source(step: Step) -> Tensor:
        source = step.inputs[0]
        assert source is not None
        return source

    @staticmethod
    def tied(step: Step) -> list[Tensor]:
        rank = step.out.rank
        inputs = [step.inputs[i] for i in _operands(step)]
        return [*step.outputs, *(t for t in inputs if t is not None and t.const is None and t.rank == rank)]

    def find(self, tensor: Tensor) -> Tensor:
        root = self.parent.setdefault(tensor, tensor)
        while self.parent[root] is not root:
            root = self.parent[root]
        while self.parent[tensor] is not root:
            self.parent[tensor], tensor = root, self.parent[tensor]
        return root

    def join(self, a: Tensor, b: Tensor) -> None:
        self.parent[self.find(b)] = self.find(a)

    def _fixed(self) -> set[Tensor]:
        """Roots of groups that must stay: control flow or late dims know their tensors, or several steps write them."""
        written: set[Tensor] = set()
        fixed: set[Tensor] = set()
        for step in self.graph.steps:
            for tensor in (*step.outputs, *step.inputs):
                if tensor is not None and tensor in self.parent and (step.op in CONTROL or tensor.pinned):
                    fixed.add(self.find(tensor))
            for tensor in step.outputs:
                if tensor in written and tensor in self.parent:
                    fixed.add(self.find(tensor))
                written.add(tensor)
        return fixed

    def _shared(self) -> dict[Tensor, list[Tensor]]:
        """By root: the tensors that a step outside of all groups writes (or the caller gives), and those that one reads."""
        inside = self.follows | set(self.turns) | set(self.views)
        table: dict[Tensor, list[Tensor]] = {}
        made = {t for s in inside for t in s.outputs}
        read = {t for s in self.graph.steps if s not in inside for t in s.inputs if t is not None}
        read.update(self.graph.outputs)
        for tensor in self.parent:
            for outside in (tensor not in made, tensor in read):
                if outside:
                    table.setdefault(self.find(tensor), []).append(tensor)
        return table

    def perm(self, tensor: Tensor) -> Perm:
        return self.order.get(self.find(tensor), tuple(range(tensor.rank)))

    def turn(self, step: Step) -> Perm:
        """What is left of a transpose between the orders of its two groups."""
        before, after = inverse(self.perm(self.source(step))), self.perm(step.out)
        return tuple(before[self.turns[step][p]] for p in after)

    def view(self, step: Step) -> tuple[Perm | None, Perm]:
        """(order in which the view of the stored source is the result, if there is one; the transpose from there)."""
        source, after = self.source(step), self.perm(step.out)
        order = carried(self.views[step], self.perm(source), source.shape, step.out.shape)
        return order, tuple(map(order.index, after)) if order is not None else after

    def crossing(self, step: Step) -> int:
        """Elements that a turn or a view moves."""
        source = self.source(step)
        if step in self.turns:
            return moved(permuted(source.shape, self.perm(source)), self.turn(step))
        order, turn = self.view(step)
        if order is None:
            return moved(source.shape, self.perm(source)) + moved(step.out.shape, turn)
        return moved(permuted(step.out.shape, order), turn)

    def cost(self, roots: Iterable[Tensor]) -> tuple[int, int]:
        """(elements moved, transposes between a step of TAKES_IN and a group) by some groups."""
        total = behind = 0
        steps: dict[Step, None] = {}
        for root in roots:
            total += sum(moved(t.shape, self.perm(root)) for t in self.shared.get(root, ()))
            steps.update(dict.fromkeys(self.edges.get(root, ())))
        for step in steps:
            size = self.crossing(step)
            total += size
            behind += size > 0 and step in self.turns and self.source(step) in self.taken and self.find(step.out) in roots
        return total, behind

    def along(self, root: Tensor, order: Perm) -> dict[Tensor, Perm]:
        """Orders of the groups that views carry the order of one to."""
        orders, waiting = {root: order}, [root]
        while waiting:
            here = waiting.pop()
            for step in self.edges.get(here, ()):
                if step not in self.views:
                    continue
                ends = (self.source(step), step.out)
                parts = self.views[step]
                if self.find(ends[0]) is not here:
                    ends, parts = ends[::-1], [(b, a) for a, b in parts]
                there = self.find(ends[1])
                found = carried(parts, orders[here], ends[0].shape, ends[1].shape)
                if found is not None and there not in orders and there not in self.fixed:
                    orders[there] = found
                    waiting.append(there)
        return orders

    def candidates(self, root: Tensor) -> list[Perm]:
        """Orders in which some transpose of the group vanishes."""
        found: list[Perm] = [tuple(range(root.rank))]
        for step in self.edges.get(root, ()):
            if step in self.views:
                continue
            turn, source = self.turns[step], self.source(step)
            if self.find(source) is root:
                found.append(tuple(turn[p] for p in self.perm(step.out)))
            if self.find(step.out) is root:
                back = inverse(turn)
                found.append(tuple(back[p] for p in self.perm(source)))
        return list(dict.fromkeys(found))

    def choose(self) -> None:
        roots = list(dict.fromkeys(self.find(t) for t in self.parent))
        for _ in range(SWEEPS):
            changed = False
            for root in roots:
                if root in self.fixed or root not in self.edges:
                    continue
                changed = self.improve(root) or changed
            if not changed:
                return

    def improve(self, root: Tensor) -> bool:
        """Take the best order of a group; whether that is another one."""
        before, gain = dict(self.order), (0, 0)
        best = before
        for order in self.candidates(root):
            for orders in ({root: order}, self.along(root, order)):
                self.order = dict(before)
                old = self.cost(orders)
                self.order.update(orders)
                new = self.cost(orders)
                change = (new[0] - old[0], new[1] - old[1])
                if change < gain:
                    best, gain = self.order, change
        self.order = best
        return best is not before


# ---- rewriting ----
class _Rewriter:
    def __init__(self, groups: _Groups) -> None:
        self.groups, self.graph = groups, groups.graph
        self.steps: list[Step] = []
        self.turned: dict[Tensor, Tensor] = {}
        self.views = {s for s in groups.views if groups.view(s)[0] is not None}
        inside = groups.follows | set(groups.turns) | self.views
        self.made = {t for s in inside for t in s.outputs}
        self.wanted = {t for s in groups.graph.steps if s not in inside for t in s.inputs if t is not None}
        self.wanted.update(groups.graph.outputs)

    def stored(self, tensor: Tensor) -> Tensor:
        """The tensor in its group's order."""
        if tensor.const is not None or tensor not in self.groups.parent:
            return tensor
        order = self.groups.perm(tensor)
        if order == tuple(range(tensor.rank)):
            return tensor
        if tensor not in self.turned:
            self.turned[tensor] = Tensor(tensor.name, tensor.dtype, permuted(tensor.shape, order))
        return self.turned[tensor]

    def transpose(self, source: Tensor, to: Tensor, perm: Perm, name: str) -> None:
        if moved(source.shape, perm) > 1:
            self.steps.append(Step(Op.TRANSPOSE, [source], [to], list(perm), name))
        else:
            self.steps.append(Step(Op.ALIAS, [source], [to], [], name))

    def written(self, step: Step | None, tensor: Tensor) -> None:
        """What follows the step that wrote `tensor`, in the order that this step gave it."""
        stored = self.stored(tensor)
        if stored is tensor:
            return
        order, name = self.groups.perm(tensor), step.name if step is not None else tensor.name
        if tensor not in self.made:
            self.transpose(tensor, stored, order, name)
        elif tensor in self.wanted:
            self.transpose(stored, tensor, inverse(order), name)

    def operand(self, tensor: Tensor | None, order: Perm, strip: bool) -> Tensor | None:
        """An operand of a following step whose result has this order."""
        if tensor is None or order == tuple(range(len(order))):
            return tensor
        if tensor.const is None and tensor.rank == len(order):
            return self.stored(tensor)
        ones: Shape = (1,) * (len(order) - tensor.rank)
        shape: Shape = ones + tensor.shape
        if tensor.const is not None:
            values = np.ascontiguousarray(tensor.const.reshape((1,) * len(ones) + tensor.const.shape).transpose(order))
            while strip and values.ndim > 1 and values.shape[0] == 1:
                values = values[0]
            return Tensor(tensor.name, tensor.dtype, values.shape, const=values)
        wide = Tensor(tensor.name, tensor.dtype, shape)
        result = Tensor(tensor.name, tensor.dtype, permuted(shape, order))
        self.steps.append(Step(Op.ALIAS, [tensor], [wide], [], tensor.name))
        self.transpose(wide, result, order, tensor.name)
        return result

    def follow(self, step: Step) -> None:
        order = self.groups.perm(step.out)
        places = _operands(step)
        strip = step.op in (Op.BINARY, Op.WHERE) and len(self.groups.tied(step)) > 1
        step.inputs = [self.operand(t, order, strip) if i in places else t for i, t in enumerate(step.inputs)]
        outputs = list(step.outputs)
        step.outputs = [self.stored(t) for t in outputs]
        if order != tuple(range(len(order))):
            FOLLOWING[step.op](step, order)
        self.steps.append(step)
        for tensor in outputs:
            self.written(step, tensor)

    def turn(self, step: Step) -> None:
        source, result = self.groups.source(step), step.out
        self.transpose(self.stored(source), self.stored(result), self.groups.turn(step), step.name)
        self.written(step, result)

    def view(self, step: Step) -> None:
        source, result = self.stored(self.groups.source(step)), self.stored(step.out)
        order, turn = self.groups.view(step)
        assert order is not None
        if turn == tuple(range(len(turn))):
            self.steps.append(Step(Op.ALIAS, [source], [result], [], step.name))
        else:
            seen = Tensor(step.out.name, source.dtype, permuted(step.out.shape, order))
            self.steps.append(Step(Op.ALIAS, [source], [seen], [], step.name))
            self.transpose(seen, result, turn, step.name)
        self.written(step, step.out)

    def run(self) -> None:
        for tensor in self.graph.inputs:
            self.written(None, tensor)
        for step in list(self.graph.steps):
            if step in self.groups.follows:
                self.follow(step)
            elif step in self.groups.turns:
                self.turn(step)
            elif step in self.views:
                self.view(step)
            else:
                self.steps.append(step)
                for tensor in step.outputs:
                    self.written(step, tensor)
        self.graph.steps = self.steps


def choose_layouts(graph: Graph) -> None:
    groups = _Groups(graph)
    groups.choose()
    _Rewriter(groups).run()
