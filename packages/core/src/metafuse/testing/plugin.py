"""The pytest plugin of the conformance kit: parameters, order of levels, skipping, expected failures, profiles.

What it is: hooks that touch only modules that import ``metafuse.testing.suite``; any other project's tests are left as
they are.
What it is not: tests.
Who calls it: pytest, through the entry point ``metafuse.testing.plugin``, or ``suite`` where that is not installed.

A test module may set ``BACKEND`` (a name), ``XFAIL_FILE`` (relative to the module) and ``PROFILE``. Every line of an
expected-failures file names a test and gives a reason::

    test_elementwise[erf]   our erf has 12 bits
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..plugins.registry import registry
from .errors import ConformanceError
from .kit import LEVELS, Kit, Profile, profile_named

__all__ = ["conformance"]

_profile_key = pytest.StashKey[Profile]()
_red_key = pytest.StashKey[dict[Any, dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("metafuse", "conformance of metafuse backends")
    group.addoption("--metafuse-backend", default=None, help="the backend that metafuse.testing.suite tests")
    group.addoption(
        "--metafuse-profile", default=None, choices=("ci", "deep"),
        help="ci: quick, always the same draws; deep: all dtypes, many random draws. Default: METAFUSE_TEST_PROFILE or ci",
    )  # fmt: skip
    group.addoption("--metafuse-seed", default=None, type=int, help="seed of the draws (METAFUSE_TEST_SEED)")
    group.addoption(
        "--metafuse-all-levels", action="store_true", help="run later levels although an earlier one failed"
    )


def _option(config: pytest.Config, name: str, default: Any = None) -> Any:
    """An option, also where the plugin was loaded too late to declare it."""
    return config.getoption(f"metafuse_{name}", default=default)


def _profile(config: pytest.Config) -> Profile:
    found = config.stash.get(_profile_key, None)
    if found is None:
        name = _option(config, "profile") or os.environ.get("METAFUSE_TEST_PROFILE", "") or "ci"
        seed = _option(config, "seed")
        if seed is None and os.environ.get("METAFUSE_TEST_SEED", "").isdigit():
            seed = int(os.environ["METAFUSE_TEST_SEED"])
        try:
            found = profile_named(name, seed)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[_profile_key] = found
    return found


def _level_of(function: Any) -> str | None:
    return getattr(function, "metafuse_level", None)


def _ours(items: list[pytest.Item]) -> list[pytest.Function]:
    return [i for i in items if isinstance(i, pytest.Function) and _level_of(i.function) is not None]


# -- which backend --------------------------------------------------------------------------------------------------
def _backend_name(item: Any) -> str:
    name = getattr(item.module, "BACKEND", None) or _option(item.config, "backend")
    if not name:
        raise pytest.UsageError(
            '[conformance] no backend: set BACKEND = "name" in the test file, or give --metafuse-backend=NAME'
        )
    return str(name)


@pytest.fixture
def conformance(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """The backend under test; everything computes on it while the test runs.

    A backend that is not installed is an error. One that can't be used on this machine is skipped with its reason, unless
    it was asked for on the command line.
    """
    kit = Kit(_backend_name(request.node), _profile(request.config))
    reasons = {status.descriptor.name: status.reason for status in registry().backends()}
    if kit.name not in reasons:
        installed = ", ".join(reasons)
        pytest.fail(f"[conformance] there is no backend {kit.name!r}; installed: {installed}", pytrace=False)
    if reasons[kit.name]:
        give_up = pytest.fail if _option(request.config, "backend") else pytest.skip
        give_up(f"[conformance] {kit.name!r} is not usable here: {reasons[kit.name]}")
    with kit.active():
        yield kit


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cases come from the operator records as they are now."""
    cases = getattr(metafunc.function, "metafuse_cases", None)
    if _level_of(metafunc.function) is not None and cases is not None and "case" in metafunc.fixturenames:
        pairs = cases()
        metafunc.parametrize("case", [value for _, value in pairs], ids=[name for name, _ in pairs])


# -- order, expected failures -----------------------------------------------------------------------------------------
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Within each module by level; then the expected failures are marked."""
    ours = _ours(items)
    if not ours:
        return
    places = {id(item): k for k, item in enumerate(items)}
    first: dict[Any, int] = {}
    for item in ours:
        first.setdefault(item.module, places[id(item)])

    def place(item: pytest.Item) -> tuple[int, int, int]:
        if isinstance(item, pytest.Function) and _level_of(item.function) is not None:
            return first[item.module], LEVELS.index(str(_level_of(item.function))), places[id(item)]
        return places[id(item)], 0, 0

    items.sort(key=place)
    for module in first:
        _mark_expected(config, module, [item for item in ours if item.module is module])


def _mark_expected(config: pytest.Config, module: Any, items: list[pytest.Function]) -> None:
    name = getattr(module, "XFAIL_FILE", None)
    if not name:
        return
    path = Path(module.__file__).parent / name
    try:
        expected = _read_expected(path)
    except OSError as error:
        raise pytest.UsageError(f"[conformance] XFAIL_FILE {name!r} can't be read: {error}") from None
    known = {item.name for item in items}
    unmatched = sorted(set(expected) - known)
    if unmatched and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(
            f"[conformance] {path} names tests that do not exist: {', '.join(unmatched)}; remove them"
        )
    for item in items:
        if item.name in expected:
            item.add_marker(pytest.mark.xfail(reason=expected[item.name], strict=True))


def _read_expected(path: Path) -> dict[str, str]:
    """Test name -> reason."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            name, _, reason = text.partition(" ")
            found[name] = reason.strip() or "expected failure"
    return found


# -- levels -------------------------------------------------------------------------------------------------------------
def _red(config: pytest.Config, module: Any) -> dict[str, str]:
    """Level -> the first test of it that failed, per module."""
    table = config.stash.setdefault(_red_key, {})
    return table.setdefault(module, {})


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what stands on a level that failed."""
    if not isinstance(item, pytest.Function) or _option(item.config, "all_levels", False):
        return
    own = _level_of(item.function)
    if own is None:
        return
    red = _red(item.config, item.module)
    for lower in LEVELS[: LEVELS.index(own)]:
        if lower in red:
            pytest.skip(f"level {lower!r} failed ({red[lower]}): what stands on it would fail too")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note failures by level; where the kit says what is wrong, that is the report."""
    report = yield
    if call.excinfo is not None and report.failed and call.excinfo.errisinstance(ConformanceError):
        report.longrepr = str(call.excinfo.value)
    if report.failed and isinstance(item, pytest.Function):
        own = _level_of(item.function)
        if own is not None:
            _red(item.config, item.module).setdefault(own, item.name)
    return report


def pytest_report_header(config: pytest.Config) -> str | None:
    """How to have the same draws again; said only where the kit is used on purpose."""
    if _option(config, "backend") or _option(config, "profile") or os.environ.get("METAFUSE_TEST_PROFILE"):
        profile = _profile(config)
        return f"metafuse conformance: profile {profile.name}, seed {profile.seed}"
    return None
