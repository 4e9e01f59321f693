"""The disk cache: what is stored comes back intact or not at all, whatever happens to the files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metafuse import config
from metafuse.runtime import cache_total, compile_cache
from metafuse.runtime.compile_cache import MAGIC, CompileCache

KERNEL = "void f();"
OTHER = "void g();"


@pytest.fixture
def notices(monkeypatch):
    """The one-time notices of a test, as if the process had just started."""
    seen: list[str] = []
    monkeypatch.setattr(
        config, "notice", lambda message, **_: seen.append(message) if message not in seen else None
    )
    return seen


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache with space and ü"


def files(directory: Path, folder: str) -> list[Path]:
    return sorted((directory / folder).iterdir())


def store(directory: Path, binary: bytes = b"binary") -> None:
    CompileCache(directory).store("g++ 12", [KERNEL, OTHER], binary)


def test_a_batch_is_found_by_each_of_its_sources_in_another_process(directory):
    store(directory)
    fresh = CompileCache(directory)
    assert fresh.lookup("g++ 12", KERNEL) == b"binary"
    assert fresh.lookup("g++ 12", OTHER) == b"binary"
    assert len(files(directory, "modules")) == 1


def test_many_sources_at_once_are_grouped_by_module(directory):
    store(directory)
    CompileCache(directory).store("g++ 12", ["void h();"], b"another")
    cache = CompileCache(directory)
    wanted = ["void h();", OTHER, "void missing();", KERNEL]
    assert cache.lookup_all("g++ 12", wanted) == [(b"another", ["void h();"]), (b"binary", [OTHER, KERNEL])]
    assert cache.lookup_all("g++ 12", []) == []


def test_keys_of_a_lost_module_are_dropped(directory):
    store(directory)
    for module in files(directory, "modules"):
        module.unlink()
    assert CompileCache(directory).lookup_all("g++ 12", [KERNEL, OTHER]) == []
    assert files(directory, "keys") == []


def test_fingerprint_and_source_are_both_part_of_the_key(directory):
    store(directory)
    cache = CompileCache(directory)
    assert cache.lookup("g++ 13", KERNEL) is None
    assert cache.lookup("g++ 12", KERNEL + " ") is None
    assert CompileCache.key("ab", "c") != CompileCache.key("a", "bc")


def test_nothing_is_written_before_the_first_store(directory):
    cache = CompileCache(directory)
    assert cache.lookup("g++ 12", KERNEL) is None
    assert cache.size() == 0
    assert not directory.exists()


@pytest.mark.parametrize("folder", ["keys", "modules"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="truncated"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="flipped bit at the end"),
        pytest.param(
            lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], id="flipped bit in the digest"
        ),
        pytest.param(lambda data: data.replace(MAGIC, b"metafuse-cache-0\n"), id="another version"),
        pytest.param(lambda data: data + b"more", id="longer"),
    ],
)
def test_damaged_files_are_dropped_and_built_again(directory, notices, folder, damage):
    store(directory)
    for file in files(directory, folder):
        file.write_bytes(damage(file.read_bytes()))
    cache = CompileCache(directory)
    assert cache.lookup("g++ 12", KERNEL) is None
    assert not (directory / "keys" / CompileCache.key("g++ 12", KERNEL)).exists()
    store(directory, b"built again")
    assert CompileCache(directory).lookup("g++ 12", KERNEL) == b"built again"
    assert notices == []


@pytest.mark.parametrize("folder", ["keys", "modules"])
def test_nobody_waits_for_what_is_no_file(directory, folder):
    store(directory)
    for file in files(directory, folder):
        file.unlink()
        os.mkfifo(file)
    cache = CompileCache(directory)
    assert cache.lookup("g++ 12", KERNEL) is None
    store(directory, b"built again")
    assert CompileCache(directory).lookup("g++ 12", KERNEL) == b"built again"


def test_a_key_that_leads_outside_is_refused(directory):
    cache = CompileCache(directory)
    store(directory)
    assert cache._write("keys", CompileCache.key("g++ 12", KERNEL), b"../texts/x".ljust(64, b"."))
    assert cache.lookup("g++ 12", KERNEL) is None


def test_modules_read_from_memory_are_those_of_the_key(directory):
    cache = CompileCache(directory)
    for number in range(20):
        cache.store("g++ 12", [f"void f{number}();"], b"%d" % number)
    for _ in range(2):
        for number in range(20):
            assert cache.lookup("g++ 12", f"void f{number}();") == b"%d" % number
    cache.clear()
    assert cache.lookup("g++ 12", "void f19();") is None


def test_texts(directory):
    cache = CompileCache(directory)
    assert cache.get_text("version of /usr/bin/g++") is None
    cache.put_text("version of /usr/bin/g++", "g++ 12 – ü")
    assert CompileCache(directory).get_text("version of /usr/bin/g++") == "g++ 12 – ü"
    assert cache.get_text("version of /usr/bin/clang++") is None


def test_clear_and_size(directory):
    cache = CompileCache(directory)
    cache.store("g++ 12", [KERNEL], bytes(1000))
    assert 1000 < cache.size() < 1500
    (directory / "notes.txt").write_text("not ours")
    cache.clear()
    assert cache.size() == 0
    assert (directory / "notes.txt").exists() and not (directory / "total").exists()
    assert cache.lookup("g++ 12", KERNEL) is None


# -- eviction -----------------------------------------------------------------------------------------------------
def age(directory: Path, seconds: float) -> None:
    for folder in ("keys", "modules"):
        for file in files(directory, folder):
            status = file.stat()
            os.utime(file, (status.st_atime - seconds, status.st_mtime - seconds))


def test_the_least_recently_used_goes_first(directory):
    limit = 50_000
    cache = CompileCache(directory, limit)
    for number in range(4):
        age(directory, 1000) if number else None
        cache.store("g++", [f"kernel {number}"], bytes([number]) * 10_000)
    assert CompileCache(directory, limit).lookup("g++", "kernel 0") is not None  # used again: the newest now
    for number in range(4, 6):
        cache.store("g++", [f"kernel {number}"], bytes([number]) * 10_000)
    assert cache.size() <= limit
    fresh = CompileCache(directory, limit)
    present = [number for number in range(6) if fresh.lookup("g++", f"kernel {number}") is not None]
    assert 1 not in present
    assert {0, 4, 5} <= set(present)


def test_a_limit_smaller_than_one_module_leaves_the_cache_usable(directory):
    cache = CompileCache(directory, 100)
    for number in range(3):
        cache.store("g++", [f"kernel {number}"], bytes(1000))
    assert cache.size() <= 100


def test_remains_of_dead_processes_are_removed(directory):
    store(directory)
    old, young = directory / "modules" / ".old.part", directory / "modules" / ".young.part"
    old.write_bytes(b"half a module")
    young.write_bytes(b"half a module")
    os.utime(old, (time.time() - 7200,) * 2)
    listed(directory, 90_000)
    CompileCache(directory).store("g++ 12", ["void h();"], b"x")
    assert not old.exists()
    assert young.exists()


# -- the total ----------------------------------------------------------------------------------------------------
def listed(directory: Path, seconds: float, total: int = 0) -> None:
    """As if the directory had been listed so many seconds ago and held ``total`` bytes."""
    (directory / "total").write_bytes(cache_total.HEAD + b"%d %d" % (int(time.time() - seconds), total))


@pytest.fixture
def listings(monkeypatch):
    """How often directories were listed."""
    seen: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(path) or scandir(path))
    return seen


def test_other_processes_need_not_list_the_directory(directory, listings):
    store(directory)
    assert len(listings) == 3  # one per folder
    for number in range(3):
        cache = CompileCache(directory)
        cache.put_text("text", "words")
        cache.store("g++ 12", [f"kernel {number}"], b"binary")
    assert len(listings) == 3


@pytest.mark.parametrize("seconds", [90_000, -90_000])
def test_a_count_of_another_day_is_made_again(directory, listings, seconds):
    store(directory)
    listed(directory, seconds)
    del listings[:]
    store(directory, b"another")
    assert len(listings) == 3
    store(directory, b"a third")
    assert len(listings) == 3


@pytest.mark.parametrize(
    "content", [b"", b"metafuse", b"metafuse-cache-total-1 x y", b"metafuse-cache-total-1 5"]
)
def test_a_damaged_count_is_made_again(directory, listings, content):
    store(directory)
    (directory / "total").write_bytes(content)
    del listings[:]
    store(directory, b"another")
    store(directory, b"a third")
    assert len(listings) == 3


def test_what_all_processes_write_counts(directory, listings):
    """Two instances in turn, as two processes would."""
    caches = [CompileCache(directory, 50_000) for _ in range(2)]
    sizes = []
    for number in range(40):
        caches[number % 2].store("g++", [f"kernel {number}"], bytes([number]) * 4000)
        sizes.append(caches[0].size())
    assert max(sizes) <= 50_000 and sizes[-1] > 30_000
    del listings[:]
    caches[0].store("g++", ["one more"], b"x")
    assert len(listings) <= 3


def test_a_half_written_record_leaves_a_sum(directory):
    total = cache_total.Total(directory, directory)
    directory.mkdir()
    total.begin(1000)
    with open(directory / "total", "ab") as stream:
        stream.write(b"+")
    assert cache_total.Total(directory, directory).add(7) == 1007
    assert total.add(0) == 1007


def test_a_long_count_is_written_as_one_sum(directory):
    directory.mkdir()
    total = cache_total.Total(directory, directory)
    total.begin(10)
    with open(directory / "total", "ab") as stream:
        stream.write(b"+1" * 40_000)
    assert total.add(5) == 40_015
    assert (directory / "total").stat().st_size < 100
    assert cache_total.Total(directory, directory).add(0) == 40_015


def test_a_count_that_can_not_be_kept_is_the_processes_own(directory, listings, monkeypatch):
    cache = CompileCache(directory, 50_000)
    cache.store("g++", ["first"], b"x")
    (directory / "total").unlink()
    (directory / "total").mkdir()
    del listings[:]
    for number in range(5):
        cache.store("g++", [f"kernel {number}"], bytes(4000))
    assert len(listings) == 3
    for number in range(5, 40):
        cache.store("g++", [f"kernel {number}"], bytes([number]) * 4000)
        assert cache.size() <= 50_000


def test_a_count_that_can_only_be_read(directory, listings, monkeypatch):
    store(directory)
    del listings[:]
    cache, real = CompileCache(directory, 20_000), os.open

    def refuse(path, flags, *more, **options):
        if flags & os.O_APPEND:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    for number in range(3):
        cache.store("g++", [f"kernel {number}"], bytes([number]) * 4000)
    assert listings == []
    for number in range(3, 10):
        cache.store("g++", [f"kernel {number}"], bytes([number]) * 4000)
        assert cache.size() <= 20_000


# -- disks that refuse --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", ["replace", "open"])
def test_full_disk(directory, notices, monkeypatch, function):
    cache = CompileCache(directory)

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if function == "replace":
        monkeypatch.setattr(os, "replace", full)
    else:
        monkeypatch.setattr("metafuse.runtime.compile_cache.open", full, raising=False)
    for number in range(3):
        cache.store("g++ 12", [f"kernel {number}"], b"binary")
        assert cache.lookup("g++ 12", f"kernel {number}") is None
    assert len(notices) == 1
    assert "No space left" in notices[0]
    monkeypatch.undo()
    leftovers = [file for file in directory.rglob("*") if file.is_file()]
    assert leftovers == []
    cache.store("g++ 12", [KERNEL], b"binary")  # space again
    assert cache.lookup("g++ 12", KERNEL) == b"binary"


def test_a_path_that_is_a_file(tmp_path, notices):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = CompileCache(blocked)
    cache.store("g++ 12", [KERNEL], b"binary")
    assert cache.lookup("g++ 12", KERNEL) is None
    assert cache.size() == 0
    cache.clear()
    assert blocked.read_text() == "in the way"
    assert len(notices) == 1


def test_a_read_only_cache_is_read(directory, notices, monkeypatch):
    store(directory)
    age(directory, 1000)

    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for name in ("utime", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    cache = CompileCache(directory)
    assert cache.lookup("g++ 12", KERNEL) == b"binary"
    cache.store("g++ 12", ["void h();"], b"x")
    assert cache.lookup("g++ 12", "void h();") is None
    assert len(notices) == 1


def test_without_a_home_directory(notices, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(config, "cache_directory", homeless)
    cache = CompileCache()
    assert cache.path is None
    cache.store("g++ 12", [KERNEL], b"binary")
    assert cache.lookup("g++ 12", KERNEL) is None
    assert cache.size() == 0
    cache.clear()
    assert len(notices) == 1


# -- several at once ----------------------------------------------------------------------------------------------
WRITER = """
import sys
from pathlib import Path
from metafuse.runtime.compile_cache import CompileCache
cache = CompileCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(60):
    binary = f"{sys.argv[2]} {turn}".encode() * 1000
    cache.store("g++", ["shared kernel", f"kernel {sys.argv[2]} {turn}"], binary)
    found = cache.lookup("g++", "shared kernel")
    assert found is not None and found == found[: len(found) // 1000] * 1000, turn
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_store_the_same_key(directory):
    writers = [start(WRITER, str(directory), name) for name in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    found = CompileCache(directory).lookup("g++", "shared kernel")
    assert found in {f"{name} 59".encode() * 1000 for name in "ab"}


KILLED = """
import sys, itertools
from pathlib import Path
from metafuse.runtime.compile_cache import CompileCache
cache = CompileCache(Path(sys.argv[1]))
print("ready", flush=True)
for turn in itertools.count():
    cache.store("g++", ["kernel"], bytes([turn % 256]) * 2_000_000)
"""


def test_a_process_killed_while_it_writes(directory):
    for _ in range(3):
        writer = start(KILLED, str(directory))
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        found = CompileCache(directory).lookup("g++", "kernel")
        assert found is None or found == bytes([found[0]]) * 2_000_000
    cache = CompileCache(directory)
    cache.store("g++", ["kernel"], b"whole")
    assert cache.lookup("g++", "kernel") == b"whole"


def test_threads(directory):
    cache = CompileCache(directory, limit_bytes=60_000)
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for turn in range(40):
                cache.store("g++", [f"kernel {name} {turn}"], bytes([turn]) * 3000)
                found = cache.lookup("g++", f"kernel {name} {turn // 2}")
                assert found is None or found == bytes([turn // 2]) * 3000
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert cache.size() <= 60_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_while_another_thread_stores(directory):
    with compile_cache._counting:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            store(directory)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert CompileCache(directory).lookup("g++ 12", KERNEL) == b"binary"


@pytest.mark.serial
def test_a_warm_lookup_is_cheap(directory):
    CompileCache(directory).store("g++", [KERNEL], bytes(20_000))
    best = 1.0
    for _ in range(5):
        start_time = time.perf_counter()
        assert CompileCache(directory).lookup("g++", KERNEL) is not None
        best = min(best, time.perf_counter() - start_time)
    assert best < 0.004
