"""Optimal assignment: pair every row of a square cost matrix with a column of its own so that the costs add up to the least.

What it is: shortest augmenting paths with dual variables, in NumPy, exact; cubic time in the worst case.
What it is not: an approximation by auctions or by entropic transport.
Who calls it: ``emd``, on the host.

Source: Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems", Computing
38, 1987; the search is the one of Crouse, "On implementing 2D rectangular assignment algorithms", 2016.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["assign"]

Array = np.ndarray[Any, Any]


def assign(cost: Array) -> Array:
    """The column of each row; ``cost`` is ``[n, n]`` of finite numbers.

    Example:
        >>> assign(np.array([[1.0, 2.0], [1.0, 9.0]])).tolist()
        [1, 0]
    """
    size = len(cost)
    columns, rows, row_price, column_price = _first(cost)
    for row in np.flatnonzero(columns < 0):
        distance, parent, done, end = _search(cost, int(row), rows, row_price, column_price)
        # prices: every scanned column and its row move by how much shorter their path was
        seen = np.flatnonzero(done)
        seen = seen[seen != end]
        slack = distance[end] - distance[seen]
        column_price[seen] -= slack
        row_price[rows[seen]] += slack
        row_price[row] += distance[end]
        at = end
        for _ in range(size):  # turn the pairs along the path around
            owner = int(parent[at])
            rows[at] = owner
            columns[owner], at = at, int(columns[owner])
            if owner == row:
                break
    return columns


def _first(cost: Array) -> tuple[Array, Array, Array, Array]:
    """Prices under which no reduced cost is negative, and as many pairs of reduced cost zero as come for free."""
    size = len(cost)
    column_price = cost.min(0) if size else np.zeros(0)
    reduced = cost - column_price
    row_price = reduced.min(1) if size else np.zeros(0)
    columns, rows = np.full(size, -1), np.full(size, -1)
    for row, column in enumerate(reduced.argmin(1) if size else ()):
        if rows[column] < 0:
            rows[column], columns[row] = row, column
    return columns, rows, row_price, column_price


def _search(
    cost: Array, row: int, rows: Array, row_price: Array, column_price: Array
) -> tuple[Array, Array, Array, int]:
    """Dijkstra from a free row to the nearest free column: distances, the row before each column, columns whose distance is
    final, the column found."""
    size = len(cost)
    distance = cost[row] - row_price[row] - column_price
    waiting = distance.copy()  # infinite where the distance is final
    parent = np.full(size, row)
    done = np.zeros(size, bool)
    while True:
        column = int(waiting.argmin())
        least = waiting[column]
        done[column] = True
        waiting[column] = np.inf
        owner = rows[column]
        if owner < 0:
            return distance, parent, done, column
        through = cost[owner] + (least - row_price[owner])
        through -= column_price
        closer = through < waiting
        closer &= ~done
        np.copyto(distance, through, where=closer)
        np.copyto(waiting, through, where=closer)
        parent[closer] = owner
