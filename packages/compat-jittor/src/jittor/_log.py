"""``jittor.LOG``: lines that scripts write beside their output.

What it is: the reference's logger over what ``metafuse.log_capture_scope`` captures and ``flags.log_file`` redirects.
What it is not: Python's ``logging``.
Who calls it: users, as ``jittor.LOG`` and ``jittor_utils.LOG``.
"""

from __future__ import annotations

from typing import Any, NoReturn

from metafuse.config import flags

__all__ = ["LOG", "Log"]


class Log:
    """``i``, ``w`` and ``e`` write a line (information, warning, error), ``f`` also raises; ``v``, ``vv``, ``vvv`` and
    ``vvvv`` write where ``flags.log_v`` is at least 1, 10, 100, 1000.

    Example:
        >>> import jittor as jt
        >>> with jt.log_capture_scope() as lines:
        ...     jt.LOG.w("loss is", 3.5)
        ...     jt.LOG.v("detail")
        >>> lines
        [{'level': 'w', 'name': '', 'msg': 'loss is 3.5'}]
    """

    def _write(self, level: str, msg: tuple[Any, ...]) -> str:
        from metafuse.debug.output import put

        text = " ".join(map(str, msg))
        if not flags.log_silent or level in "ef":
            put(level, "", text)
        return text

    def i(self, *msg: Any) -> None:
        """Information."""
        self._write("i", msg)

    def w(self, *msg: Any) -> None:
        """A warning."""
        self._write("w", msg)

    def e(self, *msg: Any) -> None:
        """An error after which the script goes on."""
        self._write("e", msg)

    def f(self, *msg: Any) -> NoReturn:
        """An error after which it can't: raises ``RuntimeError``."""
        raise RuntimeError(self._write("f", msg))

    def V(self, verbose: int, *msg: Any) -> None:
        """Information for those who set ``flags.log_v`` to ``verbose`` or more."""
        if flags.log_v >= verbose:
            self._write("i", msg)

    def v(self, *msg: Any) -> None:
        """``V`` of 1."""
        self.V(1, *msg)

    def vv(self, *msg: Any) -> None:
        """``V`` of 10."""
        self.V(10, *msg)

    def vvv(self, *msg: Any) -> None:
        """``V`` of 100."""
        self.V(100, *msg)

    def vvvv(self, *msg: Any) -> None:
        """``V`` of 1000."""
        self.V(1000, *msg)


LOG = Log()
