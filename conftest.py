"""What the tests of all packages share: draws that are the same every time, an order that keeps all processes busy, and a
garbage collector that passes over what other files have left."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first: whoever takes one last keeps the other processes waiting."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="module", autouse=True)
def collect_once() -> None:
    """What is alive when a file begins, thousands of tests and all caches, is not looked at again by each test that
    collects garbage to count what is left."""
    gc.collect()
    gc.freeze()
