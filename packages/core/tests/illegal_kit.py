"""Calls that nobody should make: every public callable with arguments that do not belong there, and what may come of it.

A call is text, made of the pieces below, so that what a failure prints can be pasted and run. Three ways to make one:

* by signature: each argument is something that fits its name or its default, and some are replaced by a stranger;
* by example: the example of a docstring, in which one argument of one call is replaced by a stranger;
* a class is made by signature, then the object is called, and some of its methods.

Run as a program it draws without end, for a time that it is told, and prints every defect once:
``python illegal_kit.py SECONDS [BACKEND [PART-OF-NAME [SEED [ROUNDS]]]]``.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import doctest
import inspect
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.dist import collectives
from metafuse.errors import BackendError, MetafuseError, OutOfMemory
from metafuse.graph.node import state
from metafuse.ops.registry import Sample, Tensor, find
from metafuse.testing.surface import Public, callables, methods_of

Choose = Callable[[Any], Any]  # one of a sequence

#: (beginning of a name, why it is not called at all)
EXCLUDED = [
    ("metafuse.data.download", "downloads"),
    ("metafuse.data.CIFAR", "downloads"),
    ("metafuse.data.MNIST", "downloads"),
    ("metafuse.data.EMNIST", "downloads"),
    ("metafuse.data.VOC", "reads and downloads"),
    ("metafuse.dist.guard", "ends the process"),
    ("metafuse.dist.set_world", "changes what later calls see"),
    ("metafuse.compile_custom_op", "runs a compiler on what it is given"),
    ("metafuse.dist.contract", "for authors of communicators"),
    ("metafuse.dist.Communicator", "for authors of communicators"),
    ("metafuse.dist.loopback.Loopback", "made by run"),
    ("metafuse.debug.Explanation", "an answer"),
    ("metafuse.debug.ModuleTrace", "an answer"),
    ("metafuse.debug.ModuleCall", "an answer"),
    ("metafuse.code", "compiles what it is given"),
    ("metafuse.dist.loopback.run", "raises what the function that it is given raises"),
    ("metafuse.testing", "raises what the function that it is given raises"),
    ("metafuse.DType", "made by the table of types"),
    ("metafuse.Var.register_hook", "hooks of strangers raise what strangers raise"),
]


def excluded(name: str) -> str:
    """Why a callable is left out, or nothing."""
    return next((why for start, why in EXCLUDED if name.startswith(start)), "")


# -- what arguments are made of ----------------------------------------------------------------------------------
class Thing:
    """Something that nobody knows."""

    def __repr__(self) -> str:
        return "<thing>"


class Lying:
    """Something whose protocols answer what they must not."""

    def __index__(self) -> Any:
        return "three"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return 5


class Place:
    """Something that stands for an integer without being one."""

    def __index__(self) -> int:
        return 1


def read_only() -> Any:
    """An array that must not be written to."""
    data = np.ones((2, 3), np.float32)
    data.flags.writeable = False
    return data


def nothing(*args: Any, **kwargs: Any) -> None:
    """A function that takes everything and does nothing."""


def make(shape: tuple[int, ...], dtype: str = "float32", low: float = -2.0, high: float = 3.0) -> mf.Var:
    """A Var with a few values."""
    if dtype == "bool":
        low, high = 0, 2
    data = np.random.default_rng(len(shape)).uniform(low, high, shape)
    return mf.array(data.astype("float32" if dtype == "bfloat16" else dtype), dtype)


NAMESPACE = {
    "mf": mf, "np": np, "Thing": Thing, "nothing": nothing, "make": make, "NAN": float("nan"), "INF": float("inf"),
    "metafuse": mf, "io": io, "Lying": Lying, "Place": Place, "read_only": read_only,
}  # fmt: skip

STRANGERS = [
    "None", "True", "False", "0", "1", "-1", "2", "7", "-9", "99", "2**31", "2**40", "2**62", "2**63", "2**70",
    "-2**63", "0.5", "-1.5", "2.0", "1e30", "1e-30", "NAN", "INF", "-INF", "1j", "''", "'text'", "'add'", "'float32'",
    "'max'", "'mean'", "b'x'", "()", "[]", "[None]", "[1, 'a']", "[[1], [1, 2]]", "(0, 0)", "(1, -1)", "(2, 2)",
    "(1, 1, 1)", "(3, 3, 3, 3)", "[0.5]", "(NAN, 1)", "(2**62, 2**62)", "(2**33, 2**33)", "{}", "{'a': 1}", "{1: 2}",
    "set()", "Thing()", "Thing", "len", "nothing", "slice(2)", "Ellipsis", "range(3)", "iter([1])", "np.dtype('int8')",
    "np.int64", "float", "np.float64(0.5)", "np.float32(NAN)", "np.int32(3)", "np.bool_(True)", "np.array(3)",
    "np.zeros((0,))", "np.zeros((2, 0, 3))", "np.ones((2, 3))", "np.array(['a'])", "np.array([None])", "np.array([1j])",
    "np.zeros((1,) * 12)", "np.arange(3)", "np.array([True, False])", "np.ma.array([1.0])", "np.datetime64('2020')",
    "np.array([2**40])", "np.ones((2, 3))[:, ::-1]", "mf.zeros(0)", "mf.ones(1)", "mf.ones(2, 3)", "mf.ones(2, 3, 4)",
    "mf.ones(1, 2, 3, 4)", "mf.ones(1, 1, 2, 2, 2)", "mf.arange(3)", "mf.array([True, False])", "mf.array([2])",
    "mf.array([0.5])", "[mf.ones(2), mf.ones(3)]", "[mf.ones(2), None]", "(mf.ones(2, 3), mf.ones(2, 3))",
    "mf.ones(1, 1, 1, 1)", "mf.array([-1, 99])", "mf.array([[0, 1], [1, 0]])", "mf.array([1], 'uint8')",
    "mf.array([1.0], 'float16')", "mf.array([NAN, 1.0])", "mf.array([INF])", "mf.zeros(2, 0)",
    "mf.array([2**40, -2**62])", "mf.nn.Linear(2, 3)", "mf.Var", "mf.nn",
    "mf.nn.ComplexNumber(mf.ones(2, 2), mf.ones(2, 2))", "mf.optim.SGD([mf.ones(2)], 0.1)",
    "Lying()", "Place()", "read_only()", "np.arange(6, dtype='>i8')", "np.ones((2, 3), '>f4')", "np.array(['a'], 'S')",
    "np.ones(3, [('a', 'f4'), ('b', 'i4')])", "np.array(2.5)", "np.longdouble(1)", "10**400", "frozenset([1])",
    "memoryview(b'abcd')", "mf.array([2**62, -2**63])", "np.broadcast_to(np.float32(1), (2**40,))",
]  # fmt: skip

ARRAYS = [
    "make((2, 3))", "make((3, 3))", "make((4,))", "make((2, 4, 8, 8))", "make((2, 3, 4))", "make((1, 2, 4, 4, 4))",
    "make((2, 2, 2))", "make((1,))", "make((3,), 'int32', 0, 2)", "make((2, 3), 'int32', 0, 2)", "make((2, 3), 'bool')",
    "make((0, 3))", "make((2, 3), 'float16')", "make((2, 3), 'float64')", "make((2, 3), 'uint8', 0, 9)",
    "make((2, 3), 'bfloat16')", "make((2, 4, 6))",
]  # fmt: skip
INTEGERS = ["1", "2", "3", "4", "8"]
NUMBERS = ["0.5", "1.0", "0.1", "2", "1", "0.0"]
WORDS = [
    "'mean'", "'sum'", "'none'", "'add'", "'maximum'", "'nearest'", "'bilinear'", "'zeros'", "'reflect'", "'relu'",
    "'tanh'", "'float32'", "'int32'", "'multiply'", "'ij'", "'name'", "'a b -> b a'", "'ortho'", "'linear'", "'gelu'",
]  # fmt: skip
TYPES = ["'float32'", "'int32'", "'float64'", "'float16'", "'bool'", "'int64'", "'uint8'", "mf.float32"]
SHAPES = ["[2, 3]", "(2, 3)", "(3,)", "[1, 2, 3]", "2", "(4, 4)", "[6]"]
PAIRS = ["1", "2", "3", "(2, 2)", "(1, 2)", "(2, 2, 2)", "0"]
LISTS = ["[make((2, 3)), make((2, 3))]", "[make((3,))]", "(make((2, 3)), make((2, 3), 'float64'))"]
IMAGES = ["np.zeros((8, 8, 3), np.uint8)", "np.zeros((8, 8), np.uint8)", "np.ones((3, 8, 8), np.float32)"]
INNER = ["mf.nn.Linear(3, 4)", "mf.nn.Conv(4, 2, 3)", "mf.nn.Sequential(mf.nn.Linear(3, 3), mf.nn.ReLU())"]
OPTIMIZERS = ["mf.optim.SGD([make((2,))], 0.1)", "mf.optim.Adam([make((2,))], 0.1)"]

#: methods that are called by what calls the object, with a state of its own
INNER_METHODS = {"grad", "update", "execute", "option", "group_options", "record_with"}

#: what fits an argument: words in its annotation or in its name -> pieces
FITTING: list[tuple[tuple[str, ...], list[str]]] = [
    (("optimizer",), OPTIMIZERS), (("func", "fn", "callback", "hook", "function", "Callable", "lambd"), ["nothing"]),
    (("img", "pic", "image", "Image"), IMAGES), (("module", "Module", "layer"), INNER),
    (("dtype",), TYPES), (("dim", "axis"), ["0", "1", "-1", "None", "(0, 1)"]),
    (("shape", "output_size", "size"), SHAPES + PAIRS),
    (("kernel", "stride", "padding", "dilation", "scale"), PAIRS),
    (("channels", "features", "groups", "num", "count", "heads", "layers", "int"), INTEGERS),
    (("xs", "vars", "tensors", "arrays", "inputs", "params", "extras", "targets", "vh"), LISTS),
    (("reduction", "mode", "op", "name", "str", "pattern", "path", "type", "nonlinearity"), WORDS),
    (("keepdim", "bool", "align", "is_", "affine"), ["True", "False"]),
    (("float", "eps", "lr", "alpha", "beta", "gamma", "p", "momentum", "margin", "gain", "val", "value"), NUMBERS),
]  # fmt: skip


def pieces(parameter: inspect.Parameter) -> list[str]:
    """What may well be meant for a parameter."""
    annotation = str(parameter.annotation)
    if parameter.default is not parameter.empty and type(parameter.default) in (int, float, bool, str):
        own = [repr(parameter.default)]
        kind = type(parameter.default)
        return own * 3 + {int: INTEGERS, float: NUMBERS, bool: ["True", "False"], str: WORDS}[kind]
    name = parameter.name.lower()
    for words, found in FITTING:
        if any(w in name if len(w) > 2 else w == name for w in words if w.islower()):
            return [*found, "None"] if parameter.default is None else found
    for words, found in FITTING:
        if any(w in annotation for w in words if len(w) > 2):
            return [*found, "None"] if parameter.default is None else found
    return [*ARRAYS, "None"] if parameter.default is None else ARRAYS


# -- making calls ----------------------------------------------------------------------------------------------------
def arguments(value: Any, choose: Choose, strange: Any) -> list[str]:
    """The text of arguments for a callable: fitting ones, in which ``strange`` ones are strangers."""
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return [choose(STRANGERS)]
    texts: list[str] = []
    given_by_name = False
    left_out = choose(range(4))
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD or parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            texts += [choose(ARRAYS + PAIRS) for _ in range(choose(range(3)))]
            given_by_name = True
            continue
        if parameter.default is not parameter.empty and left_out:
            if choose(range(2)):
                given_by_name = True
                continue
        text = choose(pieces(parameter))
        if given_by_name or parameter.kind is parameter.KEYWORD_ONLY:
            text = f"{parameter.name}={text}"
        texts.append(text)
    for _ in range(choose(strange)):
        odd = choose(STRANGERS)
        if not texts or not choose(range(12)):
            texts.append(f"nonsense={odd}" if choose(range(2)) or any("=" in t for t in texts) else odd)
            continue
        place = choose(range(len(texts)))
        name, equals, _ = texts[place].partition("=")
        texts[place] = f"{name}={odd}" if equals and name.isidentifier() else odd
    return texts


def sampled(public: Public, choose: Choose, strange: Any) -> list[str] | None:
    """Arguments of one of the record's legal calls, where there are any."""
    record = find(public.name.removeprefix("metafuse.")) if public.name.count(".") == 1 else None
    samples = (record.samples or ((Sample(record.domain),) if record.arity else ())) if record else ()
    if not samples:
        return None
    sample = choose(samples)
    texts = [_text(a) for a in sample.args] + [f"{k}={_text(v)}" for k, v in sample.kwargs.items()]
    for _ in range(choose(strange)):
        place = choose(range(len(texts)))
        name, equals, _ = texts[place].partition("=")
        odd = choose(STRANGERS)
        texts[place] = f"{name}={odd}" if equals and name.isidentifier() else odd
    return texts


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        kinds = {
            "int": "int32",
            "integral": "int32",
            "any": "float32",
            "number": "float32",
            "float": "float32",
        }
        kind = kinds.get(value.dtype, value.dtype)
        low, high = (max(value.low, 0), max(value.high, 1)) if kind != "float32" else (value.low, value.high)
        return f"make({value.shape or (2, 3)}, {kind!r}, {low}, {high})"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_text, value))
        return (
            f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
        )
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "INF" if value > 0 else "-INF"
    if isinstance(value, slice):
        return f"slice({_text(value.start)}, {_text(value.stop)}, {_text(value.step)})"
    text = repr(value)
    return text if not text.startswith("<") else "None"


def calls(public: Public, choose: Choose, strange: Any = range(1, 4)) -> list[str]:
    """The lines of a script that calls ``public``, the last of which answers something."""
    name = public.name.replace("metafuse", "mf", 1)
    if name.startswith("mf.Var."):
        receiver = choose(ARRAYS)
        texts = arguments(public.value, choose, strange)
        return [f"{receiver}.{name[7:]}({', '.join(texts[1:])})"]
    if public.is_class and public.name != "metafuse.Var":
        return _object_calls(public, name, choose, strange)
    texts = sampled(public, choose, strange) if choose(range(2)) else None
    return [f"{name}({', '.join(arguments(public.value, choose, strange) if texts is None else texts)})"]


def _object_calls(public: Public, name: str, choose: Choose, strange: Any) -> list[str]:
    later = choose(range(3))
    lines = [
        f"it = {name}({', '.join(arguments(public.value, choose, (0, 0, 1) if later else strange))})",
        "it",
    ]
    if not later:
        return lines
    if issubclass(public.value, mf.nn.Module):
        inputs = arguments(public.value.execute, choose, (0, 0, 1))
        lines.append(f"it({', '.join(inputs) or choose(ARRAYS)})")
    methods = [
        (n, f) for n, f in methods_of(public.value) if not hasattr(mf.nn.Module, n) and n not in INNER_METHODS
    ]
    if methods and later == 2:
        method, function = choose(methods)
        texts = arguments(function, choose, (0, 1, 1, 2))
        lines.append(f"it.{method}({', '.join(texts)})")
    return lines


# -- examples --------------------------------------------------------------------------------------------------------
def example(public: Public) -> str:
    """The statements of the docstring's example."""
    found = doctest.DocTestParser().get_examples(inspect.getdoc(public.value) or "")
    return "".join(e.source for e in found)


def spoilt(source: str, choose: Choose) -> str | None:
    """An example in which one argument of one call of ours is a stranger."""
    tree = ast.parse(source)
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not _is_foreign(node.func):
            places += [(node.args, k) for k, a in enumerate(node.args) if not isinstance(a, ast.Starred)]
            places += [(keyword, None) for keyword in node.keywords]
    if not places:
        return None
    where, k = choose(places)
    odd = ast.parse(choose(STRANGERS), mode="eval").body
    if k is None:
        where.value = odd
    else:
        where[k] = odd
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_foreign(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and function.attr in ("run", "make_module"):
        return True  # what the function raises that they are given comes out
    while isinstance(function, ast.Attribute):
        function = function.value
    if isinstance(function, ast.Name):
        foreign = ("np", "os", "sys", "tempfile", "Image", "pathlib")
        return function.id in foreign or hasattr(builtins, function.id)
    return isinstance(function, ast.Constant)


# -- what comes of it ------------------------------------------------------------------------------------------------
SIGNATURE = re.compile(
    r"[\w>]\(\) (got an unexpected keyword|got multiple values|missing \d+ required|takes .*argument|got some positional)"
)


class Hang(BaseException):
    """A call that does not end."""


@contextlib.contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raise ``Hang`` where the body takes too much of the processor's time (where the platform can tell)."""

    def late(*_: Any) -> None:
        raise Hang

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


#: where core's modules are; a clone of the project may lie in a folder of any name
PACKAGE = os.path.join(os.path.dirname(mf.__file__), "")


def verdict(error: BaseException) -> str:
    """What is wrong with an exception that came out, or nothing."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    if frames[-1].filename in ("<call>", __file__):
        return ""  # what a line of the example, or a function that it passes on, raised by itself
    inside = [f for f in frames if f.filename.startswith(PACKAGE) or "backend_cpu" in f.filename]
    where = f" ({os.path.basename(inside[-1].filename)}:{inside[-1].lineno})" if inside else ""
    if isinstance(error, MetafuseError):
        if isinstance(error, BackendError) and not isinstance(error, OutOfMemory):
            return f"{text}{where}"
        return "" if str(error).startswith("[") else f"{text}: no operator's name{where}"
    if isinstance(error, (IndexError, KeyError, NotImplementedError)) and str(error).strip("'\"").startswith(
        "["
    ):
        return ""
    if type(error).__name__ == "EinopsError":
        return ""  # of the package whose pattern language it is
    if isinstance(error, (OSError, StopIteration)) or not inside:
        return ""  # a file that is not there; what a line of the example itself raised
    if isinstance(error, TypeError) and SIGNATURE.search(str(error)):
        return ""  # Python's own words for a call that does not fit the signature
    return f"{text}{where}"


def _leaves(value: Any, depth: int = 3) -> Iterator[mf.Var]:
    if isinstance(value, mf.Var):
        yield value
    elif isinstance(value, mf.nn.ComplexNumber):
        yield from (value.real, value.imag)
    elif depth and isinstance(value, (list, tuple)):
        for v in value[:8]:
            yield from _leaves(v, depth - 1)
    elif depth and isinstance(value, mf.nn.Module):
        for v in value.parameters()[:8]:
            yield v


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def attempt(lines: list[str], evaluate: bool = True, seconds: float = 10.0) -> str:
    """Run a script; answer what is wrong with what came out, or nothing."""
    names: dict[str, Any] = dict(NAMESPACE)
    waiting, state.pending = state.pending, []
    recorded, collectives._recorded.waiting = collectives._recorded.waiting, []
    try:
        with _in_time(seconds), _quiet():
            for line in lines:
                try:
                    code = compile(line, "<call>", "eval")
                except SyntaxError:
                    exec(compile(line, "<call>", "exec"), names)
                    continue
                answer = eval(code, names)
                if evaluate:
                    for leaf in _leaves(answer):
                        if not 10**6 < leaf.numel() < 2**34:
                            leaf.numpy()
    except Hang:
        return "does not end"
    except Exception as error:
        return verdict(error)
    finally:
        names.clear()
        state.pending = waiting
        collectives._recorded.waiting = recorded
    return ""


@contextlib.contextmanager
def memory_limit(more: int = 4 << 30) -> Iterator[None]:
    """What asks for more than ``more`` bytes gets a ``MemoryError`` instead of bringing the machine to its knees."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """A folder of its own, no more memory than a few GiB (where the platform can say so), and no profiler that goes on
    afterwards."""
    here = os.getcwd()
    with memory_limit(), tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            mf.profiler.stop()


def one(public: Public, choose: Choose, evaluate: bool = True) -> tuple[str, str]:
    """Draw a call and run it: its text and what is wrong."""
    source = example(public) if not choose(range(3)) else ""
    if source:
        text = spoilt(source, choose)
        if text is None:
            return "", ""
        return text, attempt([text], evaluate)
    lines = calls(public, choose)
    return "\n".join(lines), attempt(lines, evaluate)


def main(
    seconds: float, backend: str = "reference", part: str = "", seed: int = 0, rounds: int = 10**9
) -> int:
    """Draw until the time is over or every callable had ``rounds`` calls; print every defect once. Answers how many there are."""
    targets = [p for p in callables() if part in p.name and not excluded(p.name)]
    found: dict[tuple[str, str], str] = {}
    choose = random.Random(seed).choice
    end = time.monotonic() + seconds
    count = 0
    with flag_scope(backend=backend), apart():
        while time.monotonic() < end and rounds > 0:
            rounds -= 1
            for public in targets:
                if os.environ.get("TRACE_CALLS"):
                    print(public.name, file=sys.stderr, flush=True)
                text, problem = one(public, choose)
                count += 1
                if problem:
                    place = problem.rpartition("(")[2]
                    key = (place if place.endswith(")") else public.name, problem.split(":")[0])
                    if key not in found:
                        found[key] = text
                        print(f"--- {public.name}\n{text}\n  => {problem}", flush=True)
    print(f"{len(targets)} callables, {count} calls, {len(found)} defects", flush=True)
    return len(found)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(bool(main(float(given[0]), *given[1:3], *map(int, given[3:]))))
