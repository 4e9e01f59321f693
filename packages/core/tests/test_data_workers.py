"""Worker processes of data sets: order, memory, exceptions, deaths, interrupts, ways to start."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse import data
from metafuse.data.arena import Arena, TooLarge
from metafuse.data.pool import WorkerError, WorkerTraceback
from metafuse.errors import ArgumentError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX"),
    pytest.mark.usefixtures("limit"),
]


@pytest.fixture
def limit():
    """Nothing here may hang."""

    def late(*_):
        raise TimeoutError("a test of worker processes hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Numbers(data.Dataset):
    """Item k: an array full of k, k, and the process that made it."""

    def __init__(self, count=10, **options):
        super().__init__()
        self.action = None
        self.set_attrs(total_len=count, **{"batch_size": 2, "num_workers": 2, **options})

    def __getitem__(self, k):
        if self.action is not None:
            self.action(k)
        return np.full((3, 4), k, np.float32), k, os.getpid()


def gone(pid):
    """Whether a process ends soon."""
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def processes(dataset):
    return {int(p) for _, _, pids in dataset for p in pids.numpy()}


def test_order_values_and_types():
    here = list(Numbers(11, num_workers=0))
    for workers in (1, 3):
        dataset = Numbers(11, num_workers=workers)
        dataset.action = lambda k: time.sleep(0.02 * (k % 4 == 0))
        found = list(dataset)
        assert len(found) == len(here) == len(dataset)
        for (a, b, pids), (c, d, _) in zip(found, here, strict=True):
            np.testing.assert_array_equal(a.numpy(), c.numpy())
            np.testing.assert_array_equal(b.numpy(), d.numpy())
            assert (a.dtype, b.dtype, a.requires_grad) == ("float32", "int32", False)
            assert os.getpid() not in pids.numpy()
        dataset.terminate()


def test_shuffling_is_the_same_with_and_without_workers():
    orders = []
    for workers in (0, 2):
        data.set_shuffle_seed(5)
        dataset = Numbers(20, num_workers=workers, shuffle=True, drop_last=True, batch_size=3)
        orders.append([y.numpy().tolist() for _ in range(2) for _, y, _ in dataset])
    assert orders[0] == orders[1]


def test_workers_stay_for_the_next_epoch_until_something_changes():
    dataset = Numbers()
    first, second = processes(dataset), processes(dataset)
    assert first == second
    assert len(first) <= 2
    dataset.action = print_nothing
    third = processes(dataset)
    assert not third & first
    assert all(map(gone, first))
    dataset.reset()
    assert all(map(gone, third))
    fourth = processes(dataset)
    dataset.terminate()
    assert all(map(gone, fourth))
    fifth = processes(dataset)
    del dataset
    assert all(map(gone, fifth))


def print_nothing(k):
    pass


def test_randomness_depends_on_the_seed_and_the_batch_alone():
    class Random(Numbers):
        def __getitem__(self, k):
            return np.random.rand(), random.random(), mf.rand(1).numpy(), self.epoch_id

    def drawn(workers):
        mf.set_global_seed(7)
        dataset = Random(num_workers=workers)
        return [[np.concatenate([v.numpy().ravel() for v in batch]) for batch in dataset] for _ in range(2)]

    one, three = drawn(1), drawn(3)
    np.testing.assert_array_equal(one, three)
    assert len(np.unique(np.array(one)[..., :6])) == np.array(one)[..., :6].size
    assert np.array(one)[1, :, 6:].min() == 1


def test_endless_and_stopping_in_the_middle():
    dataset = Numbers(4, endless=True)
    found = []
    for _, y, _ in dataset:
        found.append(y.numpy().tolist())
        if len(found) == 5:
            break
    assert found == [[0, 1], [2, 3]] * 2 + [[0, 1]]
    dataset.set_attrs(endless=False)
    for _ in range(5):
        for _, y, _ in dataset:
            assert y.numpy().tolist() == [0, 1]
            break
    assert [y.numpy().tolist() for _, y, _ in dataset] == [[0, 1], [2, 3]]


def test_two_iterations_at_once():
    dataset = Numbers(6)
    pairs = [(int(a.numpy()[0]), int(b.numpy()[0])) for _, a, _ in dataset for _, b, _ in dataset]
    assert pairs == [(a, b) for a in (0, 2, 4) for b in (0, 2, 4)]


# -- memory -----------------------------------------------------------------------------------------------------------
def test_a_buffer_for_one_batch_is_enough():
    dataset = Numbers(40, buffer_size=4096, batch_size=20, keep_numpy_array=True)
    held = list(dataset)
    assert [x[:, 0, 0].tolist() for x, _, _ in held] == [list(range(20)), list(range(20, 40))]


def test_a_batch_that_does_not_fit():
    with pytest.raises(
        TooLarge, match=r"a batch takes \d+ bytes, and buffer_size is 512; set_attrs\(buffer_size="
    ):
        list(Numbers(buffer_size=512, batch_size=10))


def test_arrays_that_are_kept_are_the_users_own():
    dataset = Numbers(20, keep_numpy_array=True)
    held = [x for x, _, _ in dataset]
    held[0][:] = -1
    again = [x for x, _, _ in dataset]
    assert (held[0] == -1).all()
    for k, (x, y) in enumerate(zip(held[1:], again[1:], strict=True), start=1):
        np.testing.assert_array_equal(x, y)
        assert x[0, 0, 0] == 2 * k


Pair = namedtuple("Pair", "image name")


class Custom:
    def __init__(self, batch):
        self.array = np.stack([item[0] for item in batch])


@pytest.mark.parametrize(
    "wrap", [Custom, lambda b: Pair(np.stack([i[0] for i in b]), "x"), lambda b: {1: {2: (b[0][0],)}}]
)
def test_batches_of_any_kind(wrap):
    dataset = Numbers(12)
    dataset.collate_batch = wrap
    found = list(dataset)
    firsts = [
        f.array if isinstance(f, Custom) else f[0] if isinstance(f, list) else f[1][2][0] for f in found
    ]
    for k, value in enumerate(firsts):
        assert float(np.asarray(value).ravel()[0]) == 2 * k


def test_texts_vars_nothing_and_odd_arrays():
    class Mixed(Numbers):
        def __getitem__(self, k):
            return {
                "t": f"item {k}",
                "v": mf.array([k, k]),
                "n": None,
                "f": np.asfortranarray(np.full((2, 3), k)),
                "e": np.zeros((0, 2)),
            }

        def collate_batch(self, batch):
            found = super().collate_batch(batch)
            found["raw"] = [item["f"][:, ::2] for item in batch]
            found["bytes"] = b"x" * 100
            found["var"] = mf.array([1.5]) + 1
            return found

    for k, batch in enumerate(Mixed(4)):
        assert batch["t"] == [f"item {2 * k}", f"item {2 * k + 1}"]
        assert batch["v"].numpy().tolist() == [[2 * k] * 2, [2 * k + 1] * 2]
        assert batch["n"] == [None, None]
        assert batch["f"].shape == (2, 2, 3)
        assert batch["e"].shape == (2, 0, 2)
        assert batch["raw"][1].numpy().tolist() == [[2 * k + 1] * 2] * 2
        assert (batch["bytes"], batch["var"].item()) == (b"x" * 100, 2.5)


def test_arena():
    arena = Arena(1024)
    a, b, c = (arena.reserve(300) for _ in range(3))
    assert (a, b, c) == (0, 300, 600)
    assert arena.reserve(300) is None
    arena.free(b)
    assert arena.reserve(200) == 300
    assert arena.reserve(101) == 900
    with pytest.raises(TooLarge):
        arena.reserve(1025)
    arena.close()


# -- what goes wrong -----------------------------------------------------------------------------------------------
class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


def fail_at(bad, error):
    def action(k):
        if k == bad:
            raise error

    return action


def test_an_exception_arrives_in_its_place_with_its_traceback():
    dataset = Numbers()
    dataset.action = fail_at(5, KeyError("the fifth"))
    seen = []
    with pytest.raises(KeyError, match="the fifth") as caught:
        for _, y, _ in dataset:
            seen.append(y.numpy().tolist())
    assert seen == [[0, 1], [2, 3]]
    cause = caught.value.__cause__
    assert isinstance(cause, WorkerTraceback)
    assert "which loaded items [4, 5]" in str(cause)
    assert "in __getitem__" in str(cause)
    assert "raise error" in str(cause)
    assert "in __getitem__" in "".join(traceback.format_exception(caught.value))
    assert "worker" in str(cause)
    before = {m.process.pid for m in dataset._pool.members}
    with pytest.raises(KeyError):
        list(dataset)
    assert {m.process.pid for m in dataset._pool.members} == before  # an exception ends no worker


@pytest.mark.parametrize(
    "error", [Unpicklable(1, 2), StopIteration("x"), type("Local", (Exception,), {})("y")]
)
def test_exceptions_that_cannot_travel(error):
    dataset = Numbers()
    dataset.action = fail_at(0, error)
    with pytest.raises(WorkerError, match="could not be loaded: .*") as caught:
        list(dataset)
    assert type(error).__name__ in str(caught.value)
    assert "in __getitem__" in str(caught.value.__cause__)


def test_a_batch_that_cannot_be_pickled():
    dataset = Numbers()
    dataset.collate_batch = lambda batch: threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        list(dataset)


@pytest.mark.parametrize(("how", "message"), [
    (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed by SIGKILL while it had items \[4, 5\] to load; the system may"),
    (lambda: os._exit(3), r"ended with exit code 3 while it had items \[4, 5\] to load"),
    (lambda: sys.exit(4), "ended with exit code 4"),
])  # fmt: skip
def test_a_worker_that_ends_is_reported(how, message, capfd):
    dataset = Numbers(num_workers=1)
    dataset.action = lambda k: how() if k == 4 else None
    seen = []
    with pytest.raises(WorkerError, match=message):
        for _, y, _ in dataset:
            seen.append(y.numpy().tolist())
    dataset.action = None
    assert [y.numpy().tolist() for _, y, _ in dataset] == [[2 * k, 2 * k + 1] for k in range(5)]


def test_a_worker_that_is_killed_from_outside():
    dataset = Numbers(1000)
    others = set()
    with pytest.raises(WorkerError, match=r"worker [01] \(process \d+\) of Numbers was killed by SIGKILL"):
        for k, (_, _, pids) in enumerate(dataset):
            others |= set(pids.numpy().tolist())
            if k == 3:
                os.kill(int(pids.numpy()[0]), signal.SIGKILL)
    assert all(map(gone, others))
    idle = Numbers()
    for pid in processes(idle):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert len(list(idle)) == 5  # between epochs new ones are started


def test_options_are_checked():
    for options, message in (
        ({"num_workers": -1}, "num_workers must be an integer >= 0"),
        ({"start_method": "thread"}, "None or one of fork, forkserver, spawn, got 'thread'"),
        ({"buffer_size": 0}, "buffer_size must be"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Numbers(**options)
    local = Numbers(start_method="spawn")
    local.action = lambda k: None
    with pytest.raises(ArgumentError, match="can't be handed over to a new process.*start_method='fork'"):
        list(local)


def test_status(capsys):
    dataset = Numbers()
    dataset.display_worker_status()
    assert "no workers are running" in capsys.readouterr().out
    list(dataset)
    dataset.display_worker_status()
    text = capsys.readouterr().out
    assert "Numbers: 2 workers" in text
    assert sum(int(line.split(": ")[1].split()[0]) for line in text.splitlines()[1:]) == 5


def test_workers_have_no_workers_of_their_own():
    class Nested(Numbers):
        def __getitem__(self, k):
            return sum(int(y.numpy().sum()) for _, y, _ in Numbers(4))

    assert [b.numpy().tolist() for b in Nested(2)] == [[6, 6]]


def test_forks_after_kernels_have_run_on_threads():
    x = mf.array(np.random.default_rng(0).random((600, 600)))
    expected = (x @ x).sum().item()

    class Computing(Numbers):
        def __getitem__(self, k):
            return (x @ x).sum().item(), (x + k).sum().item()

    for product, _ in Computing(4):
        np.testing.assert_allclose(product.numpy(), expected, rtol=1e-4)
    assert (x @ x).sum().item() == pytest.approx(expected)


# -- whole programs -------------------------------------------------------------------------------------------------
PROGRAM = """
import os, sys, time
import numpy as np
import metafuse as mf

class Squares(mf.data.Dataset):
    def __init__(self, pause, **options):
        super().__init__()
        self.pause = pause
        self.set_attrs(total_len=8, batch_size=2, num_workers=2, **options)
    def __getitem__(self, k):
        time.sleep(self.pause)
        return np.full(2, k * k, np.float32), os.getpid()
"""


def program(tmp_path, main):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + textwrap.dedent(main))
    return [sys.executable, str(path)]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start(tmp_path, method):
    main = f"""
    if __name__ == "__main__":
        dataset = Squares(0.0, start_method={method!r})
        for epoch in range(2):
            print([float(x.numpy()[0, 0]) for x, _ in dataset])
    """
    done = subprocess.run(program(tmp_path, main), capture_output=True, text=True, timeout=90, check=False)
    assert (done.stdout, done.stderr) == ("[0.0, 4.0, 16.0, 36.0]\n" * 2, "")


def test_a_script_without_a_guard(tmp_path):
    main = """
    print([float(x.numpy()[0, 0]) for x, _ in Squares(0.0)])
    """
    done = subprocess.run(program(tmp_path, main), capture_output=True, text=True, timeout=90, check=False)
    assert (done.stdout, done.stderr) == ("[0.0, 4.0, 16.0, 36.0]\n", "")
    done = subprocess.run(
        program(tmp_path, main.replace("0.0)", "0.0, start_method='spawn')")),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "ended with exit code 1" in done.stderr
    assert "its message is above. The main part of a script must stand below" in done.stderr


FOREVER = """
first = True
for x, pids in Squares(0.2, endless=True):
    if first:
        print(*sorted(set(pids.numpy().tolist())), flush=True)
        first = False
"""


@pytest.fixture
def endless(tmp_path):
    """A program that goes on for ever, and the numbers of its workers; nothing of it outlives the test."""
    with subprocess.Popen(
        program(tmp_path, FOREVER),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # jobs in the background ignore interrupts, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        yield running, [int(p) for p in running.stdout.readline().split()]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.serial
def test_an_interrupt_ends_everything_with_one_traceback(endless):
    running, workers = endless
    began = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # what a terminal sends: to all of them
    _, errors = running.communicate(timeout=30)
    assert time.monotonic() - began < 8
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert running.returncode != 0
    assert all(map(gone, workers))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(endless, number):
    running, workers = endless
    running.send_signal(number)
    running.communicate(timeout=30)
    assert all(map(gone, workers))
