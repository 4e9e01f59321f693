"""Any valid Python stays valid Python, and what is not PyTorch's stays as it is."""

from __future__ import annotations

import ast
import functools
import heapq
import json.decoder
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metafuse_converter import convert_source

FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
IMPORTS = "import torch\nimport torch.nn as nn\nfrom torch import optim, cat as join\nfrom torch.nn import functional as F, Conv2d\n"

names = st.sampled_from(["a", "b", "x", "self", "data", "torch_like", "size", "mf"])
numbers = st.sampled_from(["0", "1", "-1", "2.5", "True", "None", "'text'", "b''"])
leaves = names | numbers


def operations(parts):
    pair = st.tuples(parts, parts)
    return (
        pair.map(lambda p: f"({p[0]} + {p[1]})")
        | pair.map(lambda p: f"[{p[0]}, *{p[1]}]")
        | pair.map(lambda p: f"({p[0]} if {p[1]} else None)")
        | pair.map(lambda p: f"(lambda q, *r, k={p[0]}: {p[1]})")
        | pair.map(lambda p: f"{{{p[0]}: {p[1]}}}")
        | pair.map(lambda p: f"({p[0]}).max({p[1]}, key=len)")
        | parts.map(lambda p: f"({p}).data.size")
        | parts.map(lambda p: f"[w for w in {p} if w]")
        | parts.map(
            lambda p: f"f'{{({p})!r:>10}} {{{{}}}}'".replace("'text'", '"text"').replace("b''", 'b""')
        )
        | parts.map(lambda p: f"(walrus := {p})")
    )


#: PyTorch's names where only expressions stand
calls = st.sampled_from([
    "torch.cat", "torch.max", "torch.float32", "nn.Conv2d", "F.relu", "optim.Adam", "join", "Conv2d", "torch.unknown", "nn.Unknown",
    "F.dropout", "torch.device", "torch.Tensor", "torch.randint", "torch.norm", "torch.where", "F.interpolate", "torch.std", "torch.arange",
    "torch.autograd.grad", "torch.utils.data.DataLoader", "nn.utils.clip_grad_norm_", "torch.set_grad_enabled", "torch.nn.DataParallel",
])  # fmt: skip


def with_torch(parts):
    some = st.lists(parts, max_size=3)
    keywords = st.lists(
        st.sampled_from(["dim", "device", "input", "inplace", "out", "size", "lr"]), max_size=2, unique=True
    )
    return (
        st.tuples(calls, some, keywords, parts).map(
            lambda p: f"{p[0]}({', '.join([*p[1], *(f'{k}={p[3]}' for k in p[2])])})"
        )
        | calls
        | st.tuples(
            parts,
            st.sampled_from(["argmax", "to", "norm", "backward", "type", "max", "new_zeros", "flip", "view"]),
            some,
        ).map(lambda p: f"({p[0]}).{p[1]}({', '.join(p[2])})")
        | st.tuples(parts, st.sampled_from(["data", "T", "grad", "shape", "device", "values"])).map(
            lambda p: f"({p[0]}).{p[1]}"
        )
        | calls.map(lambda c: f"{c}(*a, **b)")
    )


ordinary = st.recursive(leaves, operations, max_leaves=6)
mixed = st.recursive(leaves, lambda parts: operations(parts) | with_torch(parts), max_leaves=8)

CONTEXTS = [
    "value = {}", "value: {} = {}", "value += {}", "if {}:\n    pass  # nothing\nelse: value = {}",
    "for k in {}:\n    yield_ = {}  # again", "with {} as w, {}:\n    value = w", "def function(a, *args, k={}) -> {}:\n    return {}",
    "class Some(Base, metaclass={}):\n    attribute = {}\n    def forward(self, x):\n        return {}",
    "class Net(nn.Module):\n    def __init__(self):\n        self.part = {}\n    def forward(self, x):\n        return {}",
    "async def coroutine():\n    await {}\n    async for k in {}:\n        pass", "@decorated({})\ndef function(): return {}",
    "try:\n    value = {}\nexcept (ValueError, {}) as error:\n    raise", "match {}:\n    case [1, *rest] if {}:\n        pass",
    "assert {}, {}", "del value[{}]", "value[{}:{}] = 1; other = {}", "while {}: break", "global_ = {}\nglobal_.step()\n({}).backward()\nglobal_.step()",
]  # fmt: skip


def modules(expressions):
    def fill(context):
        count = context.replace("{{", "").count("{}")
        return st.tuples(*[expressions] * count).map(lambda parts: context.format(*parts))

    return st.lists(st.sampled_from(CONTEXTS).flatmap(fill), min_size=1, max_size=4).map(
        lambda parts: "\n".join(parts) + "\n"
    )


def valid(text):
    try:
        compile(text, "<text>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


@FEW
@given(modules(ordinary))
def test_modules_without_pytorch_are_not_touched(text):
    if valid(text):
        assert convert_source(text).source == text


@pytest.mark.parametrize(
    "name",
    ["(nn.Conv2d)", "((nn).Conv2d).kernel", "(torch\n.cat).name", "f'{((nn.Conv2d).data.size)!r:>10}'"],
)
def test_parentheses_around_parts_of_names(name):
    done = convert_source(f"{IMPORTS}value = {name}\n")
    assert valid(done.source), done.source
    assert convert_source(done.source).source == done.source


@FEW
@given(modules(mixed))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_modules_with_pytorch_stay_valid(text):
    text = IMPORTS + text
    if not valid(text):
        return
    done = convert_source(text)
    assert valid(done.source), done.source
    assert done.source.count("# ") >= text.count("# ")
    again = convert_source(done.source)
    assert again.source == done.source
    assert all(remark.line > 0 for remark in done.unconverted)


@pytest.mark.parametrize("module", [heapq, textwrap, json.decoder, functools], ids=lambda m: m.__name__)
def test_real_modules_are_changed_in_nothing_but_the_import(module):
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert convert_source(text).source == text
    converted = ast.parse(convert_source(text + "\nimport torch\n").source)
    assert isinstance(converted.body.pop(), ast.Import)
    assert ast.dump(converted) == ast.dump(ast.parse(text))
