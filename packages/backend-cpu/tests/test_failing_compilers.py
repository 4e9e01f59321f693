"""Compilers that fail, hang, say nothing or too much: what users are told, and that nothing of theirs goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from metafuse.config import flags
from metafuse.errors import CompileError
from metafuse_backend_cpu import compiler, plugin, process

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


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("echo 'no licence was found' >&2; exit 3", "no licence was found"),
        ("exit 1", "(no message)"),
        ("kill -9 $$", "killed by SIGKILL"),
        ("exit 0", "wrote no module"),
        ('[ "$1" = --version ] && exec g++ --version; echo "cannot execute cc1plus" >&2; exit 1', "cc1plus"),
    ],
    ids=["licence", "silent", "killed", "nothing written", "half installed"],
)
def test_a_compiler_that_builds_nothing_counts_as_none(action, why, script, empty_cache):
    script(action)
    (descriptor,) = plugin.metafuse_backends()
    reason = descriptor.probe()
    assert why in reason
    assert "can't build an empty program" in reason
    assert "\n" not in reason


USER = """
import metafuse as mf
print((mf.ones(3) + 1).tolist(), mf.add(1, 2).item(), [b.reason for b in mf.plugins.registry.registry().backends()][0][-40:])
"""


def process_with(cache, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("METAFUSE_BACKEND", "METAFUSE_LOG_SILENT")
    }
    environment |= {"METAFUSE_CACHE_DIR": str(cache), **more}
    return subprocess.run(
        [sys.executable, "-c", USER], capture_output=True, text=True, check=False, env=environment
    )


def test_programs_run_without_a_compiler_that_works(script, empty_cache, tmp_path):
    path = script('[ -e "$0.works" ] || { echo "no licence" >&2; exit 3; }\nexec g++ "$@"')
    done = process_with(tmp_path / "own")
    assert done.stdout.startswith("[2.0, 2.0, 2.0] 3"), done.stderr
    assert done.stderr.count("computing on the slow NumPy reference backend") == 1
    assert "no licence" in done.stderr
    works = path.with_name(f"{path.name}.works")
    works.touch()
    assert process_with(tmp_path / "own").stderr == ""  # a failure is not remembered
    works.unlink()  # a success is, until something has to be compiled
    flags.cache_dir = str(tmp_path / "own")
    with pytest.raises(CompileError, match="no licence"):
        compiler.compile([GOOD])
    assert "reference backend" in process_with(tmp_path / "own").stderr


def test_what_is_known_of_a_compiler_starts_no_process(script, empty_cache, monkeypatch):
    script('exec g++ "$@"')
    (descriptor,) = plugin.metafuse_backends()
    assert descriptor.probe() is None
    compiler._known.clear()  # another process
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: pytest.fail("a process was started"))
    assert descriptor.probe() is None


def test_a_rejected_snippet_says_nothing_of_the_compiler(script, empty_cache):
    script('exec g++ "$@"')
    with pytest.raises(CompileError, match="nonsense"):
        compiler.compile([f"{compiler.CODE_MARKER}\nnonsense;"])
    assert plugin.metafuse_backends()[0].probe() is None


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


def test_folders_of_killed_processes_go_when_they_are_old(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_folders", lambda: [str(tmp_path)])
    process._clean.cache_clear()
    day = time.time() - process.STALE_SECONDS - 60
    names = ["metafuse-compile-abc", "metafuse-compile-young", "metafuse-mine", "other"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.so").write_bytes(b"x")
        if name != "metafuse-compile-young":
            os.utime(tmp_path / name, (day, day))
    (tmp_path / "metafuse-compile-link").symlink_to(tmp_path / "other")
    (tmp_path / "metafuse-compile-file").write_bytes(b"x")
    os.utime(tmp_path / "metafuse-compile-file", (day, day))
    made: list[str] = []

    def build(folder: str) -> bytes:
        made.append(folder)
        return b"module"

    assert process.in_folder(build) == b"module"
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["metafuse-compile-file", "metafuse-compile-link", *sorted(names[1:])]
    assert (tmp_path / "other" / "module.so").exists()
    assert Path(made[0]).name.startswith(process.PREFIX)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_folders_of_others_stay(monkeypatch, tmp_path):
    folder = tmp_path / "metafuse-compile-theirs"
    folder.mkdir()
    os.utime(folder, (0, 0))
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    process._clean.cache_clear()
    process._clean(str(tmp_path))
    assert folder.exists()
    process._clean(str(tmp_path / "missing"))
