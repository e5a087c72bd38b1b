"""The decoder against brute force over every pair of positions."""

import math

import numpy as np
import pytest
import torch

from robust_eqa import best_spans, decide


def brute_force(starts, ends, context, max_answer_length):
    """The first best (score, start, end) in order of start, then end; None without a valid span."""
    best = None
    for i in range(len(starts)):
        for j in range(i, min(i + max_answer_length, len(starts))):
            score = starts[i] + ends[j]
            if context[i] and context[j] and (best is None or score > best[0]):
                best = (float(score), i, j)
    return best


OUTSIDE = [0.0, -math.inf, 1e30, torch.finfo(torch.float32).max]


@pytest.mark.parametrize("level", [0, -100_000, 100_000])
@pytest.mark.parametrize("logits", ["few integers", "normal"])
def test_the_best_spans_are_those_of_brute_force(logits, level):
    """Full of ties or not, limits from 1 on, any context or none, anything outside of it."""
    rng = np.random.default_rng(0)
    wrong, compared = [], 0
    for trial in range(40):
        length = int(rng.integers(1, 13)) if trial else 200
        limit = int(rng.integers(1, length + 4))
        starts, ends = rng.normal(level, 1, (2, 50, length)).astype(np.float32).astype(float)
        if logits == "few integers":
            starts, ends = rng.integers(-2, 3, size=(2, 50, length)) + level
        context = rng.random((50, length)) < rng.random((50, 1))
        filled = np.where(context, [starts, ends], OUTSIDE[trial % 4]).astype(np.float32)
        spans = best_spans(torch.tensor(filled), torch.tensor(context), limit)
        for b, found in enumerate(zip(*(x.tolist() for x in spans))):
            expected = brute_force(starts[b], ends[b], context[b], limit)
            compared += expected is not None
            right = found == expected
            if expected is None:  # a score that no span has, positions that can be looked up
                right = -math.inf < found[0] < -1e6 and 0 <= found[1] < length > found[2] >= 0
            if not right:
                wrong.append((found, expected, limit, starts[b], ends[b], context[b].astype(int)))
    assert compared > 1000  # the rest has no context
    names = "found, expected, limit, starts, ends, context"
    assert not wrong, f"{len(wrong)} rows differ; {names}: {wrong[0]}"


DECISIONS = [  # scores and null scores of a question's windows, the best window, no-answer score
    ([1.5, 4.0, -2.0], None, (1, -4.0)),  # robust: minus the best score
    ([-3.0, -1.0], None, (1, 1.0)),  # below 0: speaks against answering
    ([0.0], None, (0, 0.0)),  # a score of exactly 0 is an answer
    ([2.0, 2.0], None, (0, -2.0)),  # a tie: the earliest window
    ([1.5, 4.0], [9.0, 6.0], (1, 2.0)),  # default: the least null score, of any window
    ([4.0, 1.5], [9.0, 6.0], (0, 2.0)),
]


@pytest.mark.parametrize("scores, nulls, expected", DECISIONS)
def test_the_best_window_answers_and_the_least_null_score_speaks_against_it(
    scores, nulls, expected
):
    assert decide(np.array(scores), nulls and np.array(nulls)) == expected
