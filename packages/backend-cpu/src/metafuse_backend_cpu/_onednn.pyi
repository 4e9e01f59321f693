# Types of the oneDNN extension; see native/onednn/bindings.cpp.
from collections.abc import Sequence
from typing import Any

class Plan:
    @property
    def step(self) -> Any: ...
    @property
    def scratch_bytes(self) -> int: ...
    @property
    def kept_bytes(self) -> int: ...
    @property
    def about(self) -> str: ...

def start(services: Any, own_threads: bool, /) -> bool: ...
def version() -> str: ...
def plan(
    kind: str,
    first: tuple[str, Sequence[int], Sequence[int]],
    second: tuple[str, Sequence[int], Sequence[int]],
    result: tuple[str, Sequence[int], Sequence[int]],
    groups: int,
    stride: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    scale: bool,
    operands: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    posts: Sequence[tuple[str, int, float, float]],
    constant: bool,
    bfloat16: bool,
    /,
) -> Plan | None: ...
