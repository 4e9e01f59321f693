"""The compiler driver: batches, what a compiler is asked only once, and compilers that fail."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from codegen_kit import MACHINE
from contraction_kit import matmul
from metafuse.dtypes import float32
from metafuse.errors import BackendUnavailable, CompileError
from metafuse_backend_cpu import compiler, contraction, libraries, plugin
from runtime_kit import AXPY, axpy_kernel

pytestmark = pytest.mark.compiler
GOOD = 'extern "C" int probe() { return 1; }'


def test_a_batch_is_one_module(backend):
    kernel = axpy_kernel()
    sources = [AXPY.replace("SYMBOL", f"batch{k}") for k in range(3)]
    loaded = backend.load(backend.compile(sources), {f"batch{k}": kernel for k in range(3)})
    assert [loaded[f"batch{k}"].symbol for k in range(3)] == ["batch0", "batch1", "batch2"]


def test_equal_sources_give_a_module_that_any_process_can_load(backend, tmp_path):
    file = tmp_path / "module"
    file.write_bytes(backend.compile([AXPY.replace("SYMBOL", "shared")]))
    script = (
        "import sys; from metafuse_backend_cpu import _native;"
        "print(_native.Module(open(sys.argv[1], 'rb').read()).kernel('shared', 2, 1, 'fi').units([9]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "9\n"


def test_kernels_and_snippets_together(backend):
    snippets = [backend.emit_code(f"snippet{k}", "", f"@out(0) = {k};", [], [(float32, 1)]) for k in range(2)]
    binary = backend.compile([snippets[0], AXPY.replace("SYMBOL", "mixed"), snippets[1]])
    loaded = backend.load(binary, {"snippet0": None, "mixed": axpy_kernel(), "snippet1": None})
    assert all(loaded.values())
    with pytest.raises(CompileError, match="nonsense"):
        backend.compile([snippets[0], "nonsense"])


def test_rejected_code(backend):
    with pytest.raises(CompileError, match=r"(?s)generated code was rejected.*kernel 1:1.*broken"):
        backend.compile([AXPY, "int x = broken;"])
    with pytest.raises(CompileError, match="rejected"):
        backend.compile(["int f( {"])


def test_several_threads(backend):
    kernel = axpy_kernel()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            name = f"threaded{number}"
            assert backend.load(backend.compile([AXPY.replace("SYMBOL", name)]), {name: kernel})[name]
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


# -- finding and asking ---------------------------------------------------------------------------------------------
def test_paths_with_spaces_and_other_letters(script, empty_cache, tmp_path, monkeypatch):
    path = script('exec g++ "$@"')
    folder = tmp_path / "temporary folder ü"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert compiler.find() == ((str(path),), "")
    assert compiler.compile([GOOD])[:4] == b"\x7fELF"
    assert compiler.toolchain().command == (str(path),)
    assert list(folder.iterdir()) == []


def test_commands_with_arguments(monkeypatch):
    monkeypatch.setenv("METAFUSE_CXX", "env g++")
    command, _ = compiler.find()
    assert command is not None
    assert [Path(command[0]).name, *command[1:]] == ["env", "g++"]


def test_order_of_search(monkeypatch, script):
    path = script("exit 1")
    monkeypatch.delenv("METAFUSE_CXX")
    monkeypatch.setenv("CXX", str(path))
    assert compiler.find()[0] == (str(path),)
    monkeypatch.setenv("CXX", "no-such-compiler")
    command, _ = compiler.find()
    assert command is not None  # a wrong CXX does not matter: it was meant for something else
    assert Path(command[0]).name in ("g++", "clang++", "c++")


def test_without_a_compiler(monkeypatch, tmp_path, backend):
    monkeypatch.delenv("METAFUSE_CXX", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (descriptor,) = plugin.metafuse_backends()
    reason = descriptor.probe()
    assert reason is not None
    assert "no C++ compiler found" in reason
    with pytest.raises(BackendUnavailable, match="no C\\+\\+ compiler"):
        backend.compile([GOOD])
    assert "no compiler" in backend.fingerprint()
    assert compiler.vector_math() is False
    monkeypatch.setenv("METAFUSE_CXX", "missing++ -O1")
    assert "'missing++ -O1'" in (descriptor.probe() or "")


def test_a_compiler_is_probed_once(script, empty_cache, tmp_path):
    log = tmp_path / "log"
    script(f'echo "$@" >> {log}\nexec g++ "$@"')
    assert compiler.fingerprint() == compiler.fingerprint()
    known = compiler.toolchain()
    probes = len(log.read_text().splitlines())
    assert 1 < probes < 10
    compiler._known.clear()  # another process
    compiler._fingerprint.cache_clear()
    assert compiler.toolchain() == known
    assert compiler.vector_math() == known.vector_math
    assert len(log.read_text().splitlines()) == probes
    script(f'echo "$@" >> {log}\nexec g++ -O0 "$@"')  # a changed file is another compiler
    compiler._known.clear()
    compiler.toolchain()
    assert len(log.read_text().splitlines()) > probes


def test_damaged_facts_are_asked_again(script, empty_cache):
    script('exec g++ "$@"')
    known = compiler.toolchain()
    compiler.CompileCache().put_text(compiler._facts_key(known.command), "{}")
    compiler._known.clear()
    assert compiler.toolchain() == known


def test_flags_that_a_compiler_refuses_are_left_out(script, empty_cache):
    script('for a in "$@"; do [ "$a" = -march=native ] && exit 1; done\nexec g++ "$@"')
    assert "-march=native" not in compiler.toolchain().flags
    assert "-fopenmp-simd" in compiler.toolchain().flags
    assert compiler.compile([GOOD])


def test_the_fingerprint_names_features_and_no_model():
    text = compiler.fingerprint()
    assert compiler.toolchain().version in text
    assert set(compiler.cpu_features()) <= set(text.split("\n"))
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    assert all(line.split(":")[1].strip() not in text for line in model)


def test_importing_starts_no_process_and_imports_little():
    script = (
        "import subprocess, sys\n"
        "def refuse(*a, **k): raise SystemExit('a process was started')\n"
        "subprocess.Popen.__init__ = refuse\n"
        "import metafuse_backend_cpu.plugin as p\n"
        "d = p.metafuse_backends()[0]\n"
        "assert 'metafuse_backend_cpu._native' not in sys.modules\n"
        "assert d.probe() is None, d.probe()\n"
        "b = d.create()\n"
        "b.free(b.alloc(8))\n"
        "print(d.name, d.priority, b.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "cpu 50 cpu\n"), done.stderr


# -- libraries --------------------------------------------------------------------------------------------------------
@pytest.fixture
def no_libraries(empty_cache):
    """Nothing is built yet, in memory or on disk."""
    libraries._forget()
    yield
    libraries._forget()


def product(symbol: str) -> str:
    """The text of a matrix product, which uses a library."""
    array = np.ones((3, 3), "float32")
    text = contraction.emit(matmul(array, array, array).kernel(), symbol, MACHINE)
    assert text is not None
    return text


def test_a_library_is_compiled_once(script, no_libraries, tmp_path):
    log = tmp_path / "log"
    script(f'echo "$@" >> {log}\nexec g++ "$@"')
    compiler.toolchain()

    def commands(*sources: str) -> int:
        before = len(log.read_text().splitlines())
        assert compiler.compile(sources)[:4] == b"\x7fELF"
        return len(log.read_text().splitlines()) - before

    assert commands(product("first")) == 3  # the library, the kernel, and a link
    assert commands(product("second"), AXPY.replace("SYMBOL", "axpy"), product("third")) == 1
    libraries._forget()  # another process
    assert commands(product("fourth")) == 1
    assert commands(AXPY.replace("SYMBOL", "axpy")) == 1


def test_batches_compiled_at_once_share_a_library(no_libraries):
    built: list[str] = []
    ready = threading.Barrier(4)
    results: list[bytes] = []

    def build(text: str) -> bytes:
        built.append(text)
        return b"object"

    def work() -> None:
        ready.wait()
        results.extend(
            f.result() for f in libraries.requested([AXPY, product("a"), product("b")], "g++", build)
        )

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (len(built), results) == (1, [b"object"] * 4)
    assert libraries.requested([product("a")], "another compiler", build)[0].result() == b"object"
    assert len(built) == 2


def test_a_library_that_could_not_be_built_is_tried_again(no_libraries):
    def fail(text: str) -> bytes:
        raise CompileError("[compile] out of memory")

    (first,) = libraries.requested([product("a")], "g++", fail)
    with pytest.raises(CompileError, match="out of memory"):
        first.result()
    (second,) = libraries.requested([product("a")], "g++", lambda text: b"object")
    assert second.result() == b"object"


def test_a_forked_process_does_not_wait_for_its_parents_threads():
    script = (
        "import os\n"
        "from concurrent.futures import Future\n"
        "from metafuse_backend_cpu import libraries\n"
        "libraries._objects['g++', 'unfinished'] = Future()\n"
        "libraries._lock.acquire()\n"
        "if os.fork() == 0:\n"
        "    os._exit(0 if not libraries._objects and libraries._lock.acquire(timeout=1) else 1)\n"
        "print(os.wait()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_products_with_snippets_and_as_assembly(backend, no_libraries):
    snippet = backend.emit_code("snippet", "", "@out(0) = 1;", [], [(float32, 1)])
    kernel = axpy_kernel()
    loaded = backend.load(backend.compile([snippet, product("mixed")]), {"snippet": None, "mixed": kernel})
    assert all(loaded.values())
    assert "mf_contract_float_float_float" in compiler.assembly(product("shown"))
