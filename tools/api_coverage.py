"""How much of the reference API exists here: names, parameters, and what the tests exercise.

``python tools/api_coverage.py`` prints a line per module of the table
``packages/compat-jittor/src/jittor/_names.json``: how many names are present, missing, and not offered, and the share
of present ones among those that are offered. ``--missing`` lists the missing names, ``--differences`` the present ones
that can't be called as the reference API says, ``--module`` chooses modules, ``--require 95`` answers exit code 1 if
one of ``GOALS`` has a smaller share. ``--generate FILE`` writes the table anew from an inventory of the reference API.

``--tests`` adds how many of the present names are numeric, and the shares of those whose values and whose gradients a
test compares with an oracle; ``tools/api_tests.py`` says what that means. ``--untested`` lists the others,
``--require-tested 100`` answers exit code 1 if either share is smaller.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    ROOT / "tests",
    *sorted((ROOT / "packages").glob("*/tests")),
    ROOT / "packages" / "core" / "src" / "metafuse" / "testing" / "levels",
)
sys.path += [
    str(p) for p in (ROOT / "tools", *sorted((ROOT / "packages").glob("*/src"))) if str(p) not in sys.path
]

from api_tests import Evidence, Numeric, classify  # noqa: E402

from jittor import _follow, _table  # noqa: E402

#: modules of which nearly everything has to be there
GOALS = tuple(
    f"jittor{module}"
    for module in (
        "", ".ops", ".Var", ".misc", ".linalg", ".contrib", ".math_util", ".sparse", ".loss3d", ".gradfunctional", ".einops",
        ".distributions", ".attention",
    )
)  # fmt: skip

#: name and parameter -> why this difference stays
KNOWN = {
    **dict.fromkeys(
        ("CIFAR10 root", "CIFAR100 root", "EMNIST data_root", "MNIST data_root", "VOC data_root"),
        "data are kept in another folder",
    ),
    "display_memory_info fileline": "what it prints says where arrays were made anyway",
    "code inputs": "lists of Vars in the place of shape and dtype are understood, and so are both names",
    "calculate_md5 chunk_size": "the same number, written as a product",
    **dict.fromkeys(
        ("index dtype", "index_var dtype", "Var.index dtype", "Var.index_var dtype", "where dtype"),
        "a type in the place of what comes before is understood",
    ),
    **dict.fromkeys(
        ("reindex indexes", "Var.reindex indexes", "Var.reindex_var indexes"),
        "Vars that are indexes stand in the place of the shape",
    ),
    **dict.fromkeys(
        ("getitem _", "Var.getitem _", "Var.astype op", "Var.cast op", "Var.broadcast y", "Var.__setitem__ value", "Var.index a"),
        "a name by which nobody gives an argument",
    ),
}  # fmt: skip


@dataclass
class Found:
    """One name of the table: what it is here, what became of it, and what is to be tested of it (``None``: it isn't numeric)."""

    module: str
    name: str
    state: str
    value: Any
    numeric: Numeric | None = None

    @property
    def present(self) -> bool:
        """Whether it may be used."""
        return self.state in (_follow.WORKS, _follow.IDLE)


# -- the table --------------------------------------------------------------------------------------------------
def generate(inventory: Path) -> None:
    """Names with the forms in which they may be called, of an inventory; nothing else of it is kept."""
    table: dict[str, dict[str, str | None]] = {}
    for module, entries in json.loads(inventory.read_text())["modules"].items():
        if entries:
            table[module] = {name: _forms(entry) for name, entry in sorted(entries.items())}
    lines = ["{"]
    for module, names in table.items():
        lines.append(f'"{module}": {{')
        lines += [f"{json.dumps(name)}: {json.dumps(forms)}," for name, forms in names.items()]
        lines[-1] = lines[-1].rstrip(",")
        lines.append("},")
    lines[-1] = "}"
    _table.FILE.write_text("\n".join([*lines, "}"]) + "\n")


def _forms(entry: Mapping[str, Any]) -> str | None:
    """Parameter lists, several ones separated by a bar; ``None`` for what is not called or not known."""
    found = [o["params"] for o in entry["overloads"]] if "overloads" in entry else [entry.get("params")]
    if entry.get("kind") == "property" or None in found:
        return None
    # a bit mask of dimensions is not for people
    texts = [", ".join(map(_parameter, f)) for f in found if not any("mask" in p["name"] for p in f)]
    return " | ".join(dict.fromkeys(texts))


def _parameter(parameter: Mapping[str, str]) -> str:
    name = parameter["name"]
    return f"{name}={parameter['default']}" if "default" in parameter else name


# -- looking ------------------------------------------------------------------------------------------------------
def look(chosen: Iterable[str] = ()) -> Iterator[Found]:
    """Every name of the table."""
    for module, names in _table.names().items():
        if chosen and module not in chosen and _table.short(module) not in chosen:
            continue
        for name in names:
            found = Found(module, name, _follow.state(module, name)[0], None)
            if found.present:
                found.value = _follow.value_of(module, name)
            yield found


# -- comparing parameters ----------------------------------------------------------------------------------------
def differences(entries: Iterable[Found]) -> list[str]:
    """The calls that the reference API allows and that are not allowed here or mean something else, as far as parameters tell;
    without those in ``KNOWN``."""
    told: dict[str, str] = {}
    for found in entries:
        for form, (parameter, problem) in _problems(found):
            if f"{short(found)} {parameter}" not in KNOWN:
                shown = ", ".join(name if default is None else f"{name}={default}" for name, default in form)
                told.setdefault(f"{found.name}({shown}): {parameter} {problem}", found.module)
    return sorted(f"{module}.{text}" for text, module in told.items())


def short(found: Found) -> str:
    """A name without its module, but ``Var.`` for methods."""
    return f"Var.{found.name}" if found.module == "jittor.Var" else found.name


def _problems(found: Found) -> Iterator[tuple[_table.Form, tuple[str, str]]]:
    forms = _table.forms(found.module, found.name)
    if not forms or not callable(found.value):
        return
    try:
        here = list(inspect.signature(found.value).parameters.values())
    except (TypeError, ValueError):
        return
    renames = getattr(found.value, "renames", {})
    for form in forms:
        wanted = [(renames.get(name, name), default) for name, default in form]
        problem = _unlike(wanted, here)
        if (
            problem and found.module == "jittor.Var"
        ):  # nobody names the array itself, and some forms leave it out
            problem = _unlike(wanted, here[1:]) and _unlike(wanted[1:], here[1:])
        if problem:
            yield form, problem


def _unlike(form: _table.Form, own: list[inspect.Parameter]) -> tuple[str, str] | None:
    """The first parameter of a form that can't be given to ``own`` alike, and why."""
    gathers = {p.kind for p in own} & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    for position, (name, default) in enumerate(form):
        if name.startswith("*"):
            return None
        here = next((p for p in own if p.name == name), None)
        if here is None:
            return None if gathers else (name, "is no parameter")
        if own.index(here) != position and here.kind is not inspect.Parameter.KEYWORD_ONLY:
            return name, f"stands at {own.index(here)}"
        if default is not None and here.default is inspect.Parameter.empty:
            return name, "has no default"
        if default is not None and _plain(default) != _plain(here.default):
            return name, f"defaults to {here.default!r}"
    return None


def _plain(value: Any) -> str:
    """One spelling for values that mean the same: ``'int32'`` and the type, ``()``, ``[]`` and ``None``."""
    text = getattr(value, "__name__", str(value)).strip("'\"")
    if text in ("()", "[]", "None", ""):
        return ""
    try:
        return str(float(text))
    except ValueError:
        return text.removeprefix("metafuse.")


# -- tests ---------------------------------------------------------------------------------------------------------
@dataclass
class Tested:
    """The numeric ones among some names, and those that no test compares with an oracle."""

    numeric: list[Found]
    values: list[Found]
    gradients: list[Found]

    def shares(self) -> tuple[float, float]:
        """Of values, and of gradients among the names that have one."""
        sloped = sum(e.numeric is not None and e.numeric.gradient for e in self.numeric)
        return 1 - len(self.values) / max(len(self.numeric), 1), 1 - len(self.gradients) / max(sloped, 1)


def tested(entries: Iterable[Found], evidence: Evidence) -> Tested:
    """What tests compare of ``entries``."""
    found = Tested([], [], [])
    for e in entries:
        if e.numeric is not None:
            found.numeric.append(e)
            values, gradient = evidence.of_name(e.name, e.module == "jittor.Var", e.numeric)
            if not (values or id(e.value) in evidence.objects):
                found.values.append(e)
            if e.numeric.gradient and not (gradient or id(e.value) in evidence.sloped_objects):
                found.gradients.append(e)
    return found


def judge(entries: list[Found]) -> Evidence:
    """Say of each present name what is to be tested; answers what the tests do."""
    present = [e for e in entries if e.present and e.module != "jittor.flags"]
    for e, numeric in zip(present, classify(e.value for e in present), strict=True):
        e.numeric = numeric
    evidence = Evidence.of(TESTS)
    for e in present:  # what is tested under one name is tested under all
        if e.numeric is not None:
            values, gradient = evidence.of_name(e.name, e.module == "jittor.Var", e.numeric)
            evidence.objects |= {id(e.value)} if values else set()
            evidence.sloped_objects |= {id(e.value)} if gradient else set()
    return evidence


# -- printing ------------------------------------------------------------------------------------------------------
def report(
    entries: list[Found], evidence: Evidence | None, missing: bool, untested: bool
) -> dict[str, float]:
    """Print the table per module; answers the share of each."""
    columns = f"{'module':34}{'present':>9}{'missing':>9}{'share':>8}{'not offered':>13}"
    print(columns + f"{'numeric':>9}{'values':>9}{'gradients':>11}" * (evidence is not None))
    shares = {}
    for module in [*dict.fromkeys(e.module for e in entries), "all"]:
        listed = [e for e in entries if module in (e.module, "all")]
        own = [e for e in listed if e.state != _follow.ABSENT]
        have = [e for e in own if e.present]
        shares[module] = len(have) / len(own) if own else 1.0
        line = f"{module:34}{len(have):9}{len(own) - len(have):9}{shares[module]:8.0%}{len(listed) - len(own):13}"
        checked = tested(have, evidence) if evidence is not None else None
        if checked is not None:
            values, gradients = checked.shares()
            line += f"{len(checked.numeric):9}{values:9.1%}{gradients:11.1%}"
        print(line)
        if missing and module != "all" and len(have) < len(own):
            print("    missing: " + " ".join(e.name for e in own if not e.present))
        if untested and checked is not None and module != "all":
            for what, names in (("values", checked.values), ("gradients", checked.gradients)):
                if names:
                    print(f"    no {what}: " + " ".join(e.name for e in names))
    return shares


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--generate", type=Path, metavar="FILE", help="write the table from an inventory")
    parser.add_argument("--module", action="append", default=[], help="only this module of the reference API")
    parser.add_argument(
        "--require", type=float, default=0.0, metavar="PERCENT", help="the least share of modules in GOALS"
    )
    parser.add_argument(
        "--require-tested",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="the least shares of what tests compare",
    )
    for flag in ("missing", "differences", "tests", "untested"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    if options.generate:
        generate(options.generate)
        return 0
    entries = list(look(options.module))
    evidence = judge(entries) if options.tests or options.untested or options.require_tested else None
    shares = report(entries, evidence, options.missing, options.untested)
    if options.differences:
        print(*differences(entries), sep="\n")
    return int(
        any([_short_of_goals(shares, options.require), _untested(entries, evidence, options.require_tested)])
    )


def _short_of_goals(shares: Mapping[str, float], least: float) -> bool:
    found = [m for m in GOALS if 100 * shares.get(m, 1.0) < least]
    if found:
        print(f"less than {least:g} % of the names: {', '.join(found)}")
    return bool(found)


def _untested(entries: list[Found], evidence: Evidence | None, least: float) -> bool:
    values, gradients = tested(entries, evidence).shares() if evidence is not None else (1.0, 1.0)
    too_few = 100 * min(values, gradients) < least
    if too_few:
        print(
            f"tests compare {values:.1%} of values and {gradients:.1%} of gradients, less than {least:g} %; see --untested"
        )
    return too_few


if __name__ == "__main__":
    sys.exit(main())
