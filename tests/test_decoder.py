"""The decoder against brute force over every pair of positions."""

import math

import numpy as np
import pytest
import torch

from robust_eqa import best_spans, decide

T = 12  # longest random row


def brute_force(starts, ends, context, max_answer_length):
    """The first best (score, start, end) in order of start, then end; None without a valid span."""
    best = None
    for i in range(len(starts)):
        for j in range(i, min(i + max_answer_length, len(starts))):
            score = starts[i] + ends[j]
            if context[i] and context[j] and (best is None or score > best[0]):
                best = (score, i, j)
    return best


def random_context(rng, rows, length, shape):
    """Boolean rows: one run of positions, or any subset; either may be empty."""
    if shape == "any subset":
        return rng.random((rows, length)) < rng.random((rows, 1))
    cuts = np.sort(rng.integers(0, length + 1, size=(rows, 2)), axis=1)
    positions = np.arange(length)
    return (cuts[:, :1] <= positions) & (positions < cuts[:, 1:])


def spans(starts, ends, context, max_answer_length):
    """`best_spans` on anything array-like, as a list of (score, start, end)."""
    tensors = [torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (starts, ends)]
    context = torch.as_tensor(np.asarray(context), dtype=torch.bool)
    return list(zip(*(x.tolist() for x in best_spans(*tensors, context, max_answer_length))))


@pytest.mark.parametrize("logits", ["few integers", "normal"])
@pytest.mark.parametrize("shape", ["one run", "any subset"])
def test_equals_brute_force(shape, logits):
    """10,000 random rows per shape, half of them full of ties, length limits from 1 to T + 3."""
    rng = np.random.default_rng(0)
    wrong, compared = [], 0
    for _ in range(100):
        rows, length = 50, int(rng.integers(1, T + 1))
        limit = int(rng.integers(1, length + 4))
        if logits == "normal":
            starts, ends = rng.normal(size=(2, rows, length)).astype(np.float32)
        else:
            starts, ends = rng.integers(-2, 3, size=(2, rows, length)).astype(np.float32)
        context = random_context(rng, rows, length, shape)
        for b, found in enumerate(spans(starts, ends, context, limit)):
            expected = brute_force(starts[b], ends[b], context[b], limit)
            compared += expected is not None
            if expected is None:
                right = math.isfinite(found[0]) and found[0] < -1e4
            else:
                right = found == (float(expected[0]), *expected[1:])
            if not right:
                wrong.append((found, expected, limit, starts[b], ends[b], context[b].astype(int)))
    assert compared > 3000  # the rest has no context
    assert not wrong, (
        f"{len(wrong)} rows differ; found, expected, limit, starts, ends, context: " + str(wrong[0])
    )


@pytest.mark.parametrize("limit", [1, 30, 127, 128, 129, 384, 400])
def test_equals_brute_force_at_full_size(limit):
    """384 positions, as in training, against a (T, T) table of all sums."""
    rng = np.random.default_rng(limit)
    starts, ends = rng.normal(0, 4, size=(2, 4, 384)).astype(np.float32)
    context = (np.arange(384) > 20) & (np.arange(384) < np.array([384, 380, 200, 60])[:, None])
    i, j = np.indices((384, 384))
    for b, found in enumerate(spans(starts, ends, context, limit)):
        valid = (i <= j) & (j < i + limit) & context[b][:, None] & context[b]
        sums = np.where(valid, starts[b][:, None] + ends[b], -np.inf)
        start, end = np.unravel_index(sums.argmax(), sums.shape)
        assert found == (sums[start, end], start, end), f"row {b}, limit {limit}"


@pytest.mark.parametrize(
    "limit, expected", [(4, (9, 2, 5)), (3, (8, 3, 5)), (2, (7, 2, 3)), (1, (6, 3, 3))]
)
def test_a_span_may_have_exactly_max_answer_length_tokens(limit, expected):
    """The best start, 2, and the best end, 5, are four tokens: allowed at 4, not at 3."""
    starts = [[0, 0, 5, 4, 0, 0, 0]]
    ends = [[0, 0, 0, 2, 0, 4, 0]]
    assert spans(starts, ends, [[True] * 7], limit) == [expected]


def test_start_and_end_are_not_interchangeable():
    """The end may not come before the start, however good the two are apart."""
    starts, ends = [[0, 0, 0, 9]], [[0, 8, 0, 0]]
    assert spans(starts, ends, [[True] * 4], 4) == [(9, 3, 3)]
    assert spans(ends, starts, [[True] * 4], 4) == [(17, 1, 3)]


@pytest.mark.parametrize("outside", [-math.inf, -1e30, 1e30, torch.finfo(torch.float32).max])
@pytest.mark.parametrize("shape", ["one run", "any subset"])
def test_logits_outside_the_context_do_not_matter(shape, outside):
    """[CLS], question and padding may hold anything."""
    rng = np.random.default_rng(1)
    starts, ends = rng.integers(-2, 3, size=(2, 200, T))
    context = random_context(rng, 200, T, shape)
    context[:, 5] = True  # no empty row
    expected = [brute_force(*row, 4) for row in zip(starts, ends, context)]
    starts, ends = (np.where(context, x, outside) for x in (starts, ends))
    found = spans(starts, ends, context, 4)
    wrong = [pair for pair in zip(found, expected) if pair[0] != pair[1]]
    assert not wrong, f"{len(wrong)} of 200 rows differ, first (found, expected): {wrong[0]}"


@pytest.mark.parametrize("level", [-100_000, 100_000])
def test_the_level_of_the_logits_does_not_matter(level):
    """Very low logits inside the context still win over what lies outside it."""
    rng = np.random.default_rng(2)
    starts, ends = rng.integers(-2, 3, size=(2, 200, T)) + level
    context = random_context(rng, 200, T, "one run")
    context[:, 5] = True
    expected = [brute_force(*row, 3) for row in zip(starts, ends, context)]
    found = spans(np.where(context, starts, 0), np.where(context, ends, 0), context, 3)
    wrong = [pair for pair in zip(found, expected) if pair[0] != pair[1]]
    assert not wrong, f"{len(wrong)} of 200 rows differ, first (found, expected): {wrong[0]}"


def test_start_of_one_gold_with_end_of_another_is_a_valid_span():
    """Golds 3..4 and 9..10: 3..10 outscores both, and only the length limit forbids it."""
    starts, ends = np.full((2, 1, 14), -4)
    starts[0, [3, 9]] = 6, 5
    ends[0, [4, 10]] = 5, 6
    context = [[False] + [True] * 13]
    assert spans(starts, ends, context, 8) == [(12, 3, 10)]
    assert spans(starts, ends, context, 7) == [(11, 3, 4)]  # a tie with 9..10: the earlier start


def test_ties_go_to_the_smallest_start_then_the_smallest_end():
    """All logits equal: the first context position alone, whatever the limit."""
    context = [[False, False, True, True, True, False]]
    for limit in range(1, 9):
        assert spans(np.zeros((1, 6)), np.zeros((1, 6)), context, limit) == [(0, 2, 2)], limit
    # 2..4, 3..3 and 3..4 all score 5: the start counts first
    assert spans([[0, 0, 3, 3, 0, 0]], [[0, 0, 0, 2, 2, 0]], context, 3) == [(5, 2, 3)]
    assert spans([[0, 0, 3, 3, 0, 0]], [[0, 0, 0, 1, 2, 0]], context, 3) == [(5, 2, 4)]


@pytest.mark.parametrize("logits", [0.0, 1e4, -math.inf])
def test_a_row_without_context_is_finite_very_low_and_alone(logits):
    """No span: a score no real span has, indices that can be looked up, other rows as ever."""
    starts = torch.tensor([[logits] * 4, [0, 2, 0, 0]])
    ends = torch.tensor([[logits] * 4, [0, 0, 3, 0]])
    context = torch.tensor([[False] * 4, [True] * 4])
    scores, start, end = best_spans(starts, ends, context, 3)
    assert torch.isfinite(scores).all() and scores[0] < -1e4, scores
    assert 0 <= start[0] < 4 and 0 <= end[0] < 4, (start, end)
    assert (scores[1].item(), start[1].item(), end[1].item()) == (5, 1, 2)


@pytest.mark.parametrize(
    "scores, nulls, expected",
    [
        ([1.5, 4.0, -2.0], None, (1, -4.0)),  # robust: minus the best score
        ([-3.0, -1.0], None, (1, 1.0)),  # below 0: speaks against answering
        ([0.0], None, (0, 0.0)),  # a score of exactly 0 is an answer
        ([2.0, 2.0], None, (0, -2.0)),  # a tie: the earliest window
        (
            [1.5, 4.0],
            [9.0, 6.0],
            (1, 2.0),
        ),  # default: the least null score, of another window or not
        ([4.0, 1.5], [9.0, 6.0], (0, 2.0)),
        ([5.0, 1.0], [7.0, -3.0], (0, -8.0)),
    ],
)
def test_decide_by_hand(scores, nulls, expected):
    """The window of the best span, and the null score (0 in robust training) minus its score."""
    assert decide(np.array(scores), nulls and np.array(nulls)) == expected
