"""Settings: one table, read through ``flags``.

What it is: every setting of metafuse with its default, legal values and meaning; the ``flags`` object that holds the
values; ``flag_scope`` to change some of them for a while; ``notice`` for one-time messages.
What it is not: per-call options. A setting is process-wide and changes how programs run, never what they mean.
Who calls it: everything may read ``flags.<name>``: it is a plain attribute, cheap enough for hot paths.

Each setting ``name`` starts from the environment variable ``METAFUSE_<NAME>``, which is read when the setting is
first asked for. ``docs/flags.md`` is generated from ``SETTINGS``.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ArgumentError, brief

__all__ = ["SETTINGS", "Setting", "cache_directory", "flag_scope", "flags", "notice", "observe", "watch"]


@dataclass(frozen=True)
class Setting:
    """One row of the table. ``low`` and ``high`` are the legal range of an integer; text is always legal."""

    name: str
    kind: type
    default: Any
    doc: str
    low: int = 0
    high: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable the setting starts from."""
        return "METAFUSE_" + self.name.upper()

    @property
    def legal(self) -> str:
        """The legal values, in words."""
        if self.kind is str:
            return " or ".join(self.choices) or "text"
        if self.high is None:
            return f"an integer >= {self.low}"
        if (self.low, self.high) == (0, 1):
            return "0 or 1"
        return f"{self.low} to {self.high}"

    def checked(self, value: object, origin: str) -> Any:
        """``value`` as the setting stores it; ``ArgumentError`` naming ``origin`` if it is not legal."""
        if self.kind is str:
            if isinstance(value, (str, os.PathLike)) and (not self.choices or value in self.choices):
                return os.fspath(value)
        else:
            try:
                number = operator.index(value)  # type: ignore[arg-type]
            except TypeError:
                number = None
            if number is not None and number >= self.low and (self.high is None or number <= self.high):
                return number
        raise ArgumentError(f"[flags] {origin} can't be {brief(value)}; legal: {self.legal}")

    def from_environment(self) -> Any:
        """The value of the environment variable, or the default where it is unset or empty."""
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        value: object = text
        if self.kind is int:
            try:
                value = int(text)
            except ValueError:
                pass
        return self.checked(value, f"environment variable {self.variable}")


def _switch(name: str, default: int, doc: str) -> Setting:
    return Setting(name, int, default, doc, 0, 1)


SETTINGS: dict[str, Setting] = {
    row.name: row
    for row in (
        Setting(
            "debug",
            int,
            0,
            "How much is told on stderr: 1 devices and cache, 2 also every kernel with time and bytes, 3 also the "
            "graph around each pass, 4 also the source of kernels, 5 also their assembly.",
            0,
            5,
        ),
        _switch("verify", 0, "Check the graph and the kernels against their specification between passes."),
        Setting(
            "cache_dir",
            str,
            "",
            "Folder of compiled kernels. Empty: `metafuse` under `$XDG_CACHE_HOME`, else under `~/.cache`.",
        ),
        Setting(
            "cache_limit_bytes",
            int,
            1 << 30,
            "Size that the folder of compiled kernels may reach; beyond it the kernels unused for longest go.",
        ),
        Setting(
            "num_threads",
            int,
            0,
            "Threads that kernels may use; read when a backend starts. 0: `OMP_NUM_THREADS`, else the usable cores.",
        ),
        Setting("backend", str, "", "Name of the backend to compute on. Empty: the best usable one."),
        Setting(
            "plugins",
            str,
            "",
            "Comma-separated names of the plugins that may be loaded. Empty: every installed one.",
        ),
        _switch("trace_plugins", 0, "Tell on stderr which plugins are found, loaded, skipped or broken."),
        _switch("auto_convert_64_to_32", 1, "Narrow float64 and int64 NumPy arrays to 32 bits in `array`."),
        _switch(
            "lazy_execution", 1, "Evaluate late, many operators at once; 0 evaluates each when it is called."
        ),
        Setting(
            "math",
            str,
            "float32",
            "`float32`, or `bfloat16`: products of float32 that are summed (matrix products, convolutions) may be rounded to "
            "bfloat16 first, where the backend's library is faster then. Types stay what they are; sums are float32.",
            choices=("float32", "bfloat16"),
        ),
        Setting(
            "auto_mixed_precision_level",
            int,
            0,
            "Mixed precision, also called `amp_level`. 0: none. 1 to 3: matrix products and convolutions of float32 multiply "
            "in `amp_dtype` and answer float32. 4: their answers stay in `amp_dtype`, and what is computed element by element "
            "from those too, while sums, means, norms, softmax and losses answer float32. 5: also float32 data become "
            "`amp_dtype` in `array`. 6: also sums, norms and losses answer the type they are given. Sums are carried in "
            "float32 on every level. Setting it sets `amp_reg`.",
            0,
            6,
        ),
        Setting(
            "amp_reg",
            int,
            0,
            "What the level of mixed precision stands for, as a sum: 1 products in `amp_dtype`, 2 their answers too, 4 arrays "
            "too, 8 answers of sums, norms and losses too.",
            0,
            15,
        ),
        Setting(
            "amp_dtype",
            str,
            "bfloat16",
            "The 16-bit type of mixed precision. `float16` has more digits and overflows above 65504: scale the loss "
            "(`metafuse.amp.GradScaler`).",
            choices=("bfloat16", "float16"),
        ),
        Setting(
            "distribution",
            str,
            "",
            "What connects processes that were started together. Empty: the best usable distribution; `none`: each computes "
            "alone.",
        ),
        Setting(
            "dist_check",
            int,
            1,
            "Whether ranks compare operator, shape and type before a collective: 0 never, 1 the first hundred of each group, "
            "2 always.",
            0,
            2,
        ),
        Setting(
            "dist_timeout",
            int,
            600,
            "Seconds that a rank waits in a collective for the others before the job is ended with every rank's traceback; "
            "0: for ever.",
        ),
        Setting(
            "dist_bucket_bytes",
            int,
            8 << 20,
            "Gradients are sent in pieces of about this size, so that sending begins before all of them are known.",
            1,
        ),
        _switch(
            "dist_shared_memory",
            1,
            "Let few ranks of one machine add up gradients in memory that all of them see.",
        ),
        _switch("library", 1, "Let the backend's library compute products and convolutions that it takes."),
        _switch(
            "compiled",
            1,
            "Record and evaluate by the compiled module, where it was built, and not by Python; read when metafuse is "
            "imported.",
        ),
        _switch("use_cuda", 0, "Compute on the CUDA backend; an error says so where it is not usable."),
        _switch("log_silent", 0, "Print no one-time notices."),
    )
}

#: further names of settings
ALIASES = {
    "amp_level": "auto_mixed_precision_level",
    **dict.fromkeys(("use_device", "use_acl", "use_corex", "use_rocm"), "use_cuda"),
    "check_graph": "verify",
    "enable_tuner": "library",
}

_watchers: dict[str, list[Callable[[Any], None]]] = {}
_observers: dict[str, list[Callable[[Any], None]]] = {}


class UnknownFlag(ArgumentError, AttributeError):
    """A flag that does not exist; an ``AttributeError`` too, so that ``hasattr`` and ``getattr`` defaults work."""


def _unknown(name: str) -> UnknownFlag:
    import difflib  # slow to import, and needed for this message alone

    near = difflib.get_close_matches(name, SETTINGS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(SETTINGS)}"
    return UnknownFlag(f"[flags] there is no flag {name!r}; {hint}")


def _further(name: str) -> Any:
    """The row of a flag that is no setting but that the reference API has."""
    from . import flag_names  # seldom needed

    row = flag_names.find(name)
    if row is None:
        raise _unknown(name)
    return row


class Flags:
    """The values of all settings as attributes; assignments are checked. There is one instance, ``flags``.

    Errors: ``ArgumentError`` for an unknown flag (with near matches) or an illegal value (with the legal ones).

    Example:
        >>> from metafuse.config import flags
        >>> flags.lazy_execution
        1
        >>> flags.debug = 9
        Traceback (most recent call last):
        metafuse.errors.ArgumentError: [flags] debug can't be 9; legal: 0 to 5
    """

    __slots__ = tuple(SETTINGS)

    def __getattr__(self, name: str) -> Any:
        # Reached only while the slot is empty: the first time that a setting is asked for, or for an unknown name.
        if name in ALIASES:
            return getattr(self, ALIASES[name])
        setting = SETTINGS.get(name)
        if setting is None:
            return _further(name).value()
        value = setting.from_environment()
        object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        name = ALIASES.get(name, name)
        setting = SETTINGS.get(name)
        if setting is None:
            _further(name).set(value)
            return
        value = setting.checked(value, name)
        for callback in _watchers.get(name, ()):
            callback(value)
        self._store(name, value)

    def _store(self, name: str, value: Any) -> None:
        """Keep a value that was checked, and tell those who follow it."""
        object.__setattr__(self, name, value)
        for callback in _observers.get(name, ()):
            callback(value)

    def __delattr__(self, name: str) -> None:
        raise ArgumentError(f"[flags] {name!r} can't be deleted; assign a value")

    def __dir__(self) -> list[str]:
        return sorted(SETTINGS)

    def __repr__(self) -> str:
        return "flags(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in SETTINGS) + ")"


flags = Flags()


def watch(name: str, callback: Callable[[Any], None]) -> None:
    """Have ``callback(value)`` check every new value of ``flags.<name>``; what it raises prevents the change."""
    if name not in SETTINGS:
        raise _unknown(name)
    _watchers.setdefault(name, []).append(callback)


def observe(name: str, callback: Callable[[Any], None]) -> None:
    """Call ``callback(value)`` now and whenever ``flags.<name>`` has changed: for code too hot to read the flag itself."""
    if name not in SETTINGS:
        raise _unknown(name)
    _observers.setdefault(name, []).append(callback)
    callback(getattr(flags, name))


class flag_scope(ContextDecorator):  # noqa: N801 - reads as a statement, like contextlib's
    """Set flags for a ``with`` block or for the calls of a function; their former values come back afterwards.

    All values are checked before any is set. Flags are process-wide: other threads see the values too.

    Example:
        >>> from metafuse.config import flag_scope, flags
        >>> with flag_scope(verify=1):
        ...     flags.verify
        1
        >>> @flag_scope(verify=1)
        ... def checked():
        ...     return flags.verify
        >>> checked()
        1
    """

    def __init__(self, **values: Any) -> None:
        values = {ALIASES.get(name, name): value for name, value in values.items()}
        for name, value in values.items():
            if name in SETTINGS:
                SETTINGS[name].checked(value, name)
            else:
                _further(name).checked(value)
        self._values = values
        self._former: list[dict[str, Any]] = []

    def _recreate_cm(self) -> flag_scope:  # a fresh scope per call, so that a decorated function may recurse
        return type(self)(**self._values)

    def __enter__(self) -> Flags:
        former = {name: getattr(flags, name) for name in self._values}
        if "auto_mixed_precision_level" in former:  # which sets this one: it is restored last
            former["amp_reg"] = former.pop("amp_reg", flags.amp_reg)
        try:
            for name, value in self._values.items():
                setattr(flags, name, value)
        except BaseException:
            self._restore(former)
            raise
        self._former.append(former)
        return flags

    def __exit__(self, *exception: object) -> None:
        self._restore(self._former.pop())

    @staticmethod
    def _restore(former: dict[str, Any]) -> None:
        for name, value in former.items():
            if name in SETTINGS:
                flags._store(name, value)  # it was accepted before: no check may refuse it now
            else:
                _further(name).set(value, told=False)


#: level of mixed precision -> bits of ``amp_reg``
_AMP_BITS = (0, 1, 1, 1, 3, 7, 15)


def _follow_level(level: int) -> None:
    flags.amp_reg = _AMP_BITS[level]


_observers["auto_mixed_precision_level"] = [_follow_level]
if flags.auto_mixed_precision_level:  # by the environment
    _follow_level(flags.auto_mixed_precision_level)


def cache_directory() -> Path:
    """The folder of compiled kernels, not necessarily existing yet: ``flags.cache_dir`` or the user's cache folder."""
    if flags.cache_dir:
        return Path(flags.cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "metafuse"


_noticed: set[str] = set()
_notice_lock = threading.Lock()


def notice(message: str) -> None:
    """Tell ``message`` (on stderr), once per process, unless ``flags.log_silent`` is 1."""
    with _notice_lock:
        if message in _noticed or flags.log_silent:
            return
        _noticed.add(message)
    from .debug.output import put

    put("w", "", message)
