"""Compilers that fail, hang, say nothing or too much: what users are told, and that nothing of theirs goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from metafuse.errors import CompileError
from metafuse_backend_cpu import compiler, process

pytestmark = pytest.mark.compiler
GOOD = 'extern "C" int probe() { return 1; }'


def test_a_killed_compiler(spoilt, empty_cache):
    spoilt("kill -9 $$")
    with pytest.raises(CompileError, match="killed by SIGKILL"):
        compiler.compile([GOOD])


def test_a_compiler_that_never_works(script, empty_cache):
    script("echo 'internal error: no licence' >&2; exit 3")
    with pytest.raises(CompileError, match="no licence"):
        compiler.compile([GOOD])
    assert compiler.vector_math() is False
    assert "no compiler" in compiler.fingerprint()


def test_a_program_that_can_not_be_run(script, empty_cache):
    path = script("")
    path.write_bytes(b"\x00\x01 no program")
    with pytest.raises(CompileError, match="can't be started"):
        compiler.compile([GOOD])


def test_a_compiler_that_writes_nothing(spoilt, empty_cache):
    spoilt("exit 0")
    with pytest.raises(CompileError, match="wrote no module; choose another compiler"):
        compiler.compile([GOOD])


def gone(number: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def wait_for(test, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not test() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(test())


@pytest.fixture
def child(spoilt, empty_cache, tmp_path) -> Path:
    """Where the number is found of a compiler's own child, which hangs and holds its output open."""
    number = tmp_path / "number"
    spoilt(f'sleep 300 & echo $! > "{number}"; wait')
    return number


def test_a_compiler_that_hangs(child, monkeypatch):
    monkeypatch.setattr(process, "COMPILE_SECONDS", 0.5)
    before = time.monotonic()
    with pytest.raises(CompileError, match="gave no answer within"):
        compiler.compile([GOOD])
    assert time.monotonic() - before < 60
    assert wait_for(lambda: gone(int(child.read_text())))


def test_an_interrupted_compiler(child):
    class Stop(BaseException):
        pass

    def interrupt() -> None:
        wait_for(lambda: child.exists() and child.read_text().strip())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def stop(*_) -> None:
        raise Stop

    former = signal.signal(signal.SIGUSR1, stop)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(Stop):
            compiler.compile([GOOD])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, former)
    assert wait_for(lambda: gone(int(child.read_text())))


def test_a_compiler_that_says_very_much(spoilt, empty_cache):
    spoilt('yes "x.cc: error: much" | head -c 60000000 >&2; exit 1')
    tracemalloc.start()
    with pytest.raises(CompileError, match="error: much"):
        compiler.compile([GOOD])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6


def test_a_full_disk(script, spoilt, empty_cache, tmp_path, monkeypatch):
    script(f'case "$*" in *{tmp_path}*) echo "No space left on device" >&2; exit 1;; esac\nexec g++ "$@"')
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compiler.compile([GOOD])[:4] == b"\x7fELF"  # in another folder
    spoilt('echo "No space left on device" >&2; exit 1')
    with pytest.raises(CompileError, match=r"(?s)no room.*TMPDIR"):
        compiler.compile([GOOD])


def test_a_missing_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert compiler.compile([GOOD])[:4] == b"\x7fELF"
