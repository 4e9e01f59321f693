"""Write the generated parts of docs/ and of the READMEs from what they describe.

``python tools/generate_docs.py`` writes them; ``--check`` only compares and answers exit code 1 if one is out of date.
The READMEs' figures come from ``docs/benchmarks.md``, everything else from the code. A generated part of a page stands
between the lines ``<!-- generated: NAME -->`` and ``<!-- end -->``; the rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path += [str(p) for p in sorted((ROOT / "packages").glob("*/src")) if str(p) not in sys.path]
MARK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    cells = [list(header), *map(list, rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    return "\n".join(lines) + "\n"


def flags_table() -> str:
    """Every setting, from ``metafuse.config.SETTINGS``."""
    from metafuse.config import SETTINGS

    rows = [(f"`{s.name}`", f"`{s.default!r}`", s.legal, f"`{s.variable}`", s.doc) for s in SETTINGS.values()]
    return markdown(("flag", "default", "legal values", "environment variable", "meaning"), rows)


def further_flags_table() -> str:
    """Every flag of the reference API that is no setting, from ``metafuse.config`` and ``metafuse.flag_names``."""
    from metafuse.config import ALIASES
    from metafuse.flag_names import FLAGS

    rows = [(f"`{name}`", f"The same as `{other}`.") for name, other in ALIASES.items()]
    acting = [row for row in FLAGS.values() if row.works or row.read is not None]
    rows += [(f"`{row.name}`", row.effect) for row in acting]
    rest: dict[str, list[str]] = {}
    for row in FLAGS.values():
        if row not in acting:
            rest.setdefault(row.effect, []).append(f"`{row.name}`")
    rows += [(", ".join(names), effect) for effect, names in rest.items()]
    return markdown(("flag", "here"), rows)


def promotion_table() -> str:
    """The common type of every pair, from ``metafuse.dtypes.promote``."""
    from metafuse.dtypes import DTYPES, promote

    types = list(DTYPES.values())
    rows = [(f"**{a}**", *(str(promote(a, b)) for b in types)) for a in types]
    return markdown(("", *map(str, types)), rows)


def result_type_table() -> str:
    """The types of division, of floating functions, of sums and of accumulation."""
    import metafuse
    from metafuse.dtypes import DTYPES, accumulator, to_floating, true_divide

    rows = []
    for d in DTYPES.values():
        total = metafuse.ones(1, dtype=d).sum().dtype
        kinds = (true_divide(d), to_floating(d), total, accumulator(total))
        rows.append((f"`{d}`", *map(str, kinds)))
    return markdown(("type", "`a / b`", "`exp(a)`, `sqrt(a)` ...", "`a.sum()`", "carried in"), rows)


def operators_table() -> str:
    """Every operator record, by category."""
    import metafuse  # noqa: F401 - operators register themselves when the package is imported
    from metafuse.ops.registry import all_operators

    parts = []
    records = list(all_operators())
    for category in dict.fromkeys(record.category for record in records):
        rows = [(f"`{r.name}`", r.summary) for r in records if r.category == category]
        parts.append(f"## {category}\n\n" + markdown(("operator", "meaning"), rows))
    return "\n".join(parts)


def hooks_table() -> str:
    """Every plugin hook, from ``metafuse.plugins.hookspecs``."""
    from metafuse.plugins import hookspecs

    names = [name for name in dir(hookspecs) if name.startswith("metafuse_")]
    rows = [(f"`{name}()`", (getattr(hookspecs, name).__doc__ or "").strip()) for name in names]
    return markdown(("hook", "meaning"), rows)


def tolerances_table() -> str:
    """The default bounds of the conformance kit, from ``metafuse.backend.contract``."""
    from metafuse.backend.contract import DEFAULT_TOLERANCE

    rows = [(f"`{name}`", f"{t.relative:g}", f"{t.absolute:g}") for name, t in DEFAULT_TOLERANCE.items()]
    return markdown(("type", "relative", "absolute"), rows)


def compat_tables() -> str:
    """What became of every name of the reference API, from the table of the package ``jittor``."""
    from jittor import _follow, _table

    parts = []
    for module, names in _table.names().items():
        groups: dict[tuple[str, str], list[str]] = {}
        for name in names:
            groups.setdefault(_follow.state(module, name), []).append(f"`{name}`")
        order = sorted(groups, key=lambda entry: (_follow.STATES.index(entry[0]), entry[1]))
        rows = [(state + f": {why}" * bool(why), " ".join(groups[state, why])) for state, why in order]
        parts.append(f"## {module}\n\n" + markdown(("state", "names"), rows))
    return "\n".join(parts)


def converter_tables() -> str:
    """What the converter makes of every name of PyTorch, from its table."""
    from metafuse_converter import tables

    parts = []
    entries = list(tables.rows())
    for module in dict.fromkeys(entry.module for entry in entries):
        own = [entry for entry in entries if entry.module == module]
        shown = []
        for state in tables.STATES:
            names = [entry for entry in own if entry.state == state]
            if state in ("same", "not offered"):
                for how in sorted({entry.how if state == "not offered" else "" for entry in names}):
                    listed = " ".join(f"`{e.name}`" for e in names if how in ("", e.how))
                    shown.append((state + f": {how}" * bool(how), listed))
            elif names:
                shown.append((state, ", ".join(f"`{e.name}` → {e.how}" for e in names)))
        parts.append(f"### {module}\n\n" + markdown(("state", "names"), shown))
    return "\n".join(parts)


def converter_counts() -> str:
    """How many names are in which state."""
    from metafuse_converter import tables

    found = [entry.state for entry in tables.rows()]
    rows = [(state, str(found.count(state))) for state in tables.STATES]
    return markdown(("state", "names"), rows)


def scaling_table() -> str:
    """Predicted efficiency on up to 1,024 ranks, from ``metafuse.dist.scaling``."""
    from metafuse.dist import scaling

    parts = []
    for network in scaling.NETWORKS:
        header = ("ranks", *(f"{how}: sending, efficiency" for how in scaling.WAYS))
        parts.append(f"**{network.title}**\n\n" + markdown(header, scaling.rows(network)))
    return "\n".join(parts)


#: words of the table of speed, by language
SPEED_WORDS = {
    "en": ("what", "PyTorch eager", "PyTorch compiled", "forward passes: {}", "a training step: {}",
           "{} cases of layers, {} of them below 1", "{} operators, {} of them below 1", ", "),
    "zh": ("内容", "PyTorch eager", "PyTorch compile", "前向计算：{}", "一个训练步：{}",
           "{} 个层的用例，其中 {} 个低于 1", "{} 个算子，其中 {} 个低于 1", "、"),
}  # fmt: skip


def speed_table(language: str) -> str:
    """How many times as long PyTorch takes, from ``docs/benchmarks.md``: geometric means, and training steps one by one."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    def found(pattern: str, text: str = page) -> re.Match[str]:
        match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
        if match is None:
            raise SystemExit(f"generate_docs: nothing in docs/benchmarks.md matches {pattern!r}")
        return match

    what, eager, compiled, forward, training, layers, operators, comma = SPEED_WORDS[language]
    rows: list[tuple[str, str, str]] = []
    rest = found(r"<!-- bench_models -->(.*?)<!-- ")[1]
    for _ in range(2):
        group = found(r"(.*?)^geometric mean of the \w+ group: ([\d.]+) eager, ([\d.]+) compile", rest)
        names = dict.fromkeys(re.findall(r"^\| (\w+) \| \d+ \|", group[1], re.MULTILINE))
        rows.append((forward.format(comma.join(names)), group[2], group[3]))
        rest = rest[group.end() :]
    steps = found(r"<!-- bench_training -->(.*?)<!-- ")[1]
    for name, *ratios in re.findall(
        r"^\| (\w+) \| [^|]+ \| [^|]+ \(([\d.]+)\) \| [^|]+ \(([\d.]+)\) \|", steps, re.MULTILINE
    ):
        rows.append((training.format(name), ratios[0], ratios[1]))
    count, mean = found(r"^geometric mean of (\d+) ratios: ([\d.]+)").groups()
    slower = re.search(r"^(\d+) of \d+ below 1,", page, re.MULTILINE)  # not there where none is
    rows.append((layers.format(count, slower[1] if slower else 0), mean, ""))
    count, mean, listed = found(r"^(\d+) cases, geometric mean ([\d.]+); below 1: ([^\n]+)").groups()
    rows.append((operators.format(count, len(re.findall(r" \d\.\d\d(?:,|$)", listed))), mean, ""))
    machine = found(r"^[^\n|]*? threads; Python[^;\n]+")[0]
    return f"{machine}\n\n" + markdown((what, eager, compiled), rows)


PARTS: dict[str, Callable[[], str]] = {
    "speed": lambda: speed_table("en"),
    "speed-zh": lambda: speed_table("zh"),
    "flags": flags_table,
    "further-flags": further_flags_table,
    "promotion": promotion_table,
    "result-types": result_type_table,
    "operators": operators_table,
    "hooks": hooks_table,
    "tolerances": tolerances_table,
    "compat": compat_tables,
    "converter": converter_tables,
    "converter-counts": converter_counts,
    "scaling": scaling_table,
}


def render(text: str) -> str:
    """``text`` with every generated part as the code has it now."""

    def part(match: re.Match[str]) -> str:
        name = match[2]
        if name not in PARTS:
            raise SystemExit(f"generate_docs: unknown part {name!r}; known: {', '.join(PARTS)}")
        return f"{match[1]}\n{PARTS[name]()}\n{match[3]}"

    return MARK.sub(part, text)


def pages() -> list[Path]:
    """The pages that hold generated parts."""
    candidates = [*ROOT.glob("README*.md"), *DOCS.rglob("*.md")]
    return [path for path in sorted(candidates) if MARK.search(path.read_text(encoding="utf-8"))]


def outdated() -> list[Path]:
    """Pages whose generated parts differ from what the code says."""
    return [p for p in pages() if render(p.read_text(encoding="utf-8")) != p.read_text(encoding="utf-8")]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of docs/ and of the READMEs.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a page is out of date"
    )
    check = parser.parse_args().check
    stale = outdated()
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is out of date; run: python -m nox -s docs")
        else:
            path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
