"""What the converter believes about PyTorch's names, against the PyTorch that is installed; all that it writes exists here."""

from __future__ import annotations

import importlib
import inspect

import pytest

from metafuse_converter import lookup, tables
from metafuse_converter.lookup import TABLE

torch = pytest.importorskip("torch")

#: kind of a receiver -> the class whose methods its rules are about
CLASSES = {
    "tensor": "torch.Tensor", "module": "torch.nn.Module", "optimizer": "torch.optim.Optimizer", "scaler": "torch.amp.GradScaler",
    "parallel": "torch.nn.parallel.DistributedDataParallel", "loader": "torch.utils.data.DataLoader",
    "distsampler": "torch.utils.data.DistributedSampler", "device": "torch.device", "generator": "torch.Generator",
}  # fmt: skip
#: attributes that objects have and their classes have not
OF_OBJECTS = {"module.module", "parallel.module", "loader.dataset", "loader.sampler"}
#: parameters that older versions have
OLDER = {"verbose", "data_source"}


def has_torchvision() -> bool:
    try:
        importlib.import_module("torchvision")
    except Exception:  # absent, or made for another PyTorch
        return False
    return True


VISION = has_torchvision()
ABSENT = object()


def found(name: str) -> object:
    """What PyTorch has under a full name; ``ABSENT`` if nothing."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for part in parts[k:]:
            value = getattr(value, part, ABSENT)
            if value is ABSENT:
                return ABSENT
        return value
    return ABSENT


def known(name: str) -> bool:
    """Whether the installed packages can tell about a name."""
    return name.startswith("torch") and (VISION or not name.startswith("torchvision"))


MODULES = [module for module in lookup.inventory() if known(module)]
RULES = [name for name in TABLE if known(name)]
METHODS = [name for name in TABLE if not name.startswith("torch")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", MODULES)
def test_names_of_the_inventory_exist(module):
    names = lookup.inventory()[module]
    assert [name for name in names if found(f"{module}.{name}") is ABSENT] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", [m for m in lookup.HOMES if known(m)])
def test_modules_exist(module):
    assert inspect.ismodule(found(module))


@pytest.mark.filterwarnings("ignore")
def test_names_with_rules_exist():
    assert [name for name in RULES if found(name) is ABSENT] == []


def test_methods_with_rules_exist():
    missing = set()
    for name in METHODS:
        kind, _, last = name.partition(".")
        if found(f"{CLASSES[kind]}.{last}") is ABSENT:
            missing.add(name)
    assert missing == OF_OBJECTS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in RULES if TABLE[name].parameters])
def test_parameters_of_rules_exist(name):
    try:
        parameters = inspect.signature(found(name)).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):  # native
        return
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return
    told = {p.name for p in lookup.parse(TABLE[name].parameters or "")}
    assert told - {p.name for p in parameters} <= OLDER


def test_everything_that_is_written_exists_here():
    paths = set()
    for row in tables.rows():
        kind = {"torch.Tensor": "tensor", "torch.nn.Module": "module"}.get(row.module)
        answer = lookup.method(kind, row.name) if kind else lookup.find(f"{row.module}.{row.name}")
        if answer is not None and answer.offered and answer.path is not None:
            paths.add(answer.path)
    assert len(paths) > 500
    assert {"nn.TransformerEncoder", "optim.NAdam", "data.random_split", "Var.fmod"} <= paths
    for path in paths:
        lookup.resolve(path)  # raises where there is nothing
