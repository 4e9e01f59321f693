"""What the CTC loss means, in plain NumPy.

What it is: the sum over alignments by the textbook recursion with infinities, sample by sample.
What it is not: fast, or used when a user computes something.
Who calls it: the operator record; through it the conformance kit and the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _one(scores: Array, labels: list[int], blank: int) -> float:
    path = [blank]
    for label in labels:
        path += [label, blank]
    now = np.full(len(path), -np.inf)
    now[:2] = [scores[0, c] for c in path[:2]]
    for row in scores[1:]:
        before, now = now, np.full(len(path), -np.inf)
        for s, c in enumerate(path):
            ways = [before[s]] + [before[s - 1]] * (s > 0)
            if s > 1 and c not in (blank, path[s - 2]):
                ways.append(before[s - 2])
            now[s] = np.logaddexp.reduce(ways) + row[c]
    return -np.logaddexp.reduce(now[-2:])


def ctc_loss(
    log_probs: Array, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """Sample by sample."""
    labels = np.asarray(targets)
    losses, start = [], 0
    for b, (steps, count) in enumerate(zip(input_lengths, target_lengths)):
        own = labels[b, :count] if labels.ndim == 2 else labels[start : start + count]
        start += count
        loss = _one(log_probs[:steps, b], [int(c) for c in own], blank)
        losses.append(0.0 if zero_infinity and np.isinf(loss) else loss)
    found = np.array(losses)
    if reduction == "mean":
        return (found / np.maximum(target_lengths, 1)).mean()
    return found.sum() if reduction == "sum" else found
