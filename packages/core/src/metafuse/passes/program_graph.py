"""The graph of one program: what the passes read and mark.

What it is: pending nodes numbered in topological order, the leaves they read, who uses whom, and the set of values that
get storage of their own.
What it is not: the recorded graph (``graph.node``); recorded nodes are never changed by passes.
Who calls it: ``passes.pipeline`` builds one per new program; every pass takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.node import Node, Spec
from .affine import ordered, reshaped, row_major

__all__ = ["ProgramGraph"]


class ProgramGraph:
    """Numbered nodes of one program.

    Numbers: ``0 .. len(nodes) - 1`` are the nodes to run, in topological order; then the leaves; then values that passes
    add (``add_virtual``). ``stored`` holds the numbers of nodes and virtual values that get storage.
    """

    def __init__(self, nodes: Sequence[Node], leaves: Sequence[Node], roots: Sequence[int]) -> None:
        self.nodes = list(nodes)
        self.count = len(nodes)
        self.roots: frozenset[int] = frozenset(roots)
        number = {node: k for k, node in enumerate(nodes)}
        number.update((leaf, self.count + k) for k, leaf in enumerate(leaves))
        self.specs: list[Spec] = [n.spec for n in nodes] + [n.spec for n in leaves]
        self.leaves = len(leaves)
        self.inputs: list[tuple[int, ...]] = [tuple(number[i] for i in n.inputs) for n in nodes]
        #: filled by the simplify pass: value -> the nodes that read it
        self.users: list[list[int]] = [[] for _ in self.specs]
        self.scalar_base: list[int] = []
        scalars = 0
        kinds: list[str] = []
        for n in nodes:
            self.scalar_base.append(scalars)
            scalars += len(n.scalars)
            kinds.extend("f" if d.is_float else "i" for d in n.sig.scalars)
        self.scalar_kinds = "".join(kinds)
        self.stored: set[int] = set()
        #: filled by the simplify pass: node -> the earlier node that is equal to it; nodes that nothing depends on
        self.same: dict[int, int] = {}
        self.dead: frozenset[int] = frozenset()
        #: filled by the library pass: arrays and vectors computed from them that are expected to stay the same
        self.constants: set[int] = set()
        #: filled by the materialise pass: reshapes of images that are computed on the way, dimension by dimension
        self.by_dims: set[int] = set()
        #: filled by the materialise pass: values that are computed in kernels of their own
        self.picked: set[int] = set()
        #: value with storage -> its dimensions in the order of memory, slowest first; row-major where missing
        self.orders: dict[int, tuple[int, ...]] = {
            self.count + k: leaf.buffer.order
            for k, leaf in enumerate(leaves)
            if leaf.buffer is not None and leaf.buffer.order is not None
        }
        #: leaves in another order that somebody reads as if they were row-major
        self.read_flat: set[int] = set()

    def add_virtual(self, spec: Spec) -> int:
        """A value that no node stands for (partial results, say); it is stored."""
        self.specs.append(spec)
        self.users.append([])
        self.stored.add(len(self.specs) - 1)
        return len(self.specs) - 1

    def replace(self, number: int, node: Node, inputs: tuple[int, ...]) -> None:
        """Let ``node``, which means the same, stand in place of a recorded one without run-time numbers. Users are not told."""
        assert not node.scalars and not self.nodes[number].scalars
        self.nodes[number] = node
        self.inputs[number] = inputs

    def is_leaf(self, number: int) -> bool:
        """Whether the value exists before the program runs."""
        return self.count <= number < self.count + self.leaves

    def has_storage(self, number: int) -> bool:
        """Whether the value is read from memory."""
        return number in self.stored or self.is_leaf(number)

    def kind(self, number: int) -> str:
        """Kind of a node, ``leaf`` for leaves and virtual values."""
        return self.nodes[number].sig.kind if number < self.count else "leaf"

    def strides(self, number: int) -> tuple[int, ...]:
        """Elements between neighbours along each dimension of a value where it is stored."""
        shape = self.specs[number].shape
        order = self.orders.get(number)
        if order is not None:
            return ordered(shape, order)
        base = self.base(number)
        return self.strides_as(base, shape) if base != number and base in self.orders else row_major(shape)

    def strides_as(self, base: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The strides of a stored value seen under another shape."""
        strides = reshaped(self.specs[base].shape, self.strides(base), shape)
        assert strides is not None, "the layout pass keeps such values row-major"
        return strides

    def squeezed_strides(self, number: int) -> tuple[int, ...]:
        """The strides of dimensions whose extent is not 1."""
        shape = self.specs[number].shape
        return tuple(s for s, n in zip(self.strides(number), shape, strict=True) if n != 1)

    def base(self, number: int) -> int:
        """The value whose storage an alias shares: aliases are stripped."""
        while number < self.count and self.nodes[number].sig.kind == "alias" and number not in self.stored:
            number = self.inputs[number][0]
        return number
