"""The cases that the exercises are checked with: for each function a list, simplest first.

Expected values come by hand or from the plain loops here, never from the project. A case's hint is
what to look at where it is the first to fail and the mistake is not a known one.
"""

import copy
import math
import random
import string
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from data import UNLOCATED, Answer, Question, answer_pool, answer_types

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


class Case(NamedTuple):
    hint: str
    args: tuple
    expected: object
    options: dict = {}  # keyword arguments
    call: Callable = lambda f, *args, **options: f(*args, **options)  # gives what is compared
    what: str = ""  # what that is, unless it is the result itself


# --- 1 f1 ------------------------------------------------------------------------------------

NORMALIZE = [
    Case("lower", ("Red",), "red"),
    Case("lower", ("red CAT",), "red cat"),
    Case("punctuation", ("hi, dog!",), "hi dog"),
    Case("joined", ("dog's",), "dogs"),
    Case("kept", ("42 cats",), "42 cats"),
    Case("kept", ("café",), "café"),
    Case("kept", ("5 m²",), "5 m²"),
    Case("ascii", ("red_cat",), "redcat"),
    Case("articles", ("a red dog",), "red dog"),
    Case("articles", ("an eel",), "eel"),
    Case("articles", ("the dog",), "dog"),
    Case("articles", ("see the",), "see"),
    Case("whole-words", ("another theatre",), "another theatre"),
    Case("whole-words", ("banana split",), "banana split"),
    Case("whole-words", ("swan lathe",), "swan lathe"),
    Case("spaces", (" red\tcat ",), "red cat"),
    Case("spaces", ("red the cat",), "red cat"),
    Case("spaces", ("red the an cat",), "red cat"),
    Case("spaces", ("red\ncat",), "red cat"),
    Case("spaces", ("red\u00a0cat",), "red cat"),
    Case("every", ("the a the an dog",), "dog"),
    Case("order", ("The dog",), "dog"),
    Case("order", ("red - cat",), "red cat"),
    Case("order", ("a-1",), "a1"),
    Case("order", ("a. b",), "b"),
    Case("order", ("'the' key",), "key"),
    Case("order", ("t.h.e. key",), "key"),
    Case("order", ("_a_ key",), "key"),
    Case("order", ("A",), ""),
    Case("ascii", ("«cat»",), "«cat»"),
    Case("bounds", ("the–cat",), "–cat"),
    Case("bounds", ("«a» cat",), "« » cat"),
    Case("lower", ("Straße",), "straße"),
    Case("escape", ("red\\cat",), "redcat"),
    Case("punctuation", (f"red{string.punctuation}cat",), "redcat"),
]
F1 = [
    Case("harmonic", ("red cat", "red cat"), 1.0),
    Case("harmonic", ("red cat", "cat"), 2 / 3),
    Case("harmonic", ("cat", "red cat"), 2 / 3),
    Case("bag", ("cat cat", "cat"), 2 / 3),
    Case("bag", ("cat", "cat cat"), 2 / 3),
    Case("bag", ("cat cat", "cat cat"), 1.0),
    Case("nothing-common", ("cat", "dog"), 0.0),
    Case("normalised", ("The cat!", "cat"), 1.0),
    Case("normalised", ("cat", "The cat!"), 1.0),
    Case("empty", ("", ""), 1.0),
    Case("empty", ("cat", ""), 0.0),
    Case("empty", ("", "cat"), 0.0),
    Case("empty", ("the", ""), 1.0),
    Case("empty", ("the", "cat"), 0.0),
    Case("harmonic", ("x y y z", "y z z w q"), 4 / 9),
    Case("harmonic", ("cat red", "red cat"), 1.0),
]

# --- 2 spans ---------------------------------------------------------------------------------

ADA_MET_BEN = [(0, 3), (4, 7), (8, 11), (11, 12)]  # of "Ada met Ben."


def pairs(rows):
    return np.array(rows, int).reshape(-1, 2)


def spans(hint, expected, *answers, offsets=ADA_MET_BEN):
    return Case(hint, (pairs(offsets), [Answer(*answer) for answer in answers]), pairs(expected))


def plain_span(start, end):
    tokens = [t for t, (a, b) in enumerate(ADA_MET_BEN) if a < end and b > start]
    return (tokens[0], tokens[-1]) if tokens else (-1, -1)


SPANS = [
    spans("inclusive", [(1, 1)], ("met", 4)),
    spans("cover", [(0, 1)], ("Ada met", 0)),
    spans("touching", [(2, 2)], ("Ben", 8)),
    spans("touching", [(3, 3)], (".", 11)),
    spans("part", [(1, 1)], ("e", 5)),
    spans("no-token", [(-1, -1)], (" ", 3)),
    spans("blank", [(1, 1)], ("met ", 4)),
    spans("blank", [(1, 1)], (" met", 3)),
    spans("no-token", [(-1, -1)], ("Ada", 0), offsets=[]),
    spans("unlocated", [(-1, -1)], ("Ada", UNLOCATED)),
    spans("every-answer", [(1, 1), (0, 0)], ("met", 4), ("Ada", 0)),
    spans("every-answer", []),
    spans("cover", [(0, 2)], ("🦉", 0), offsets=[(0, 1)] * 3),
]
for a, b in product(range(12), range(1, 13)):
    if a < b:
        SPANS.append(spans("cover", [plain_span(a, b)], ("Ada met Ben."[a:b], a)))

# --- 3 windows -------------------------------------------------------------------------------


def plain_bounds(length, room, stride):
    windows = [(0, min(room, length))]
    while windows[-1][1] < length:
        start = windows[-1][1] - stride
        windows.append((start, min(start + room, length)))
    return windows


BOUNDS = [
    Case("stop", (3, 5, 2), [(0, 3)]),
    Case("short", (2, 5, 2), [(0, 2)]),
    Case("empty", (0, 5, 2), [(0, 0)]),
    Case("extra", (4, 4, 2), [(0, 4)]),
    Case("overlap", (8, 5, 2), [(0, 5), (3, 8)]),
    Case("last", (6, 5, 2), [(0, 5), (3, 6)]),
    Case("overlap", (4, 2, 0), [(0, 2), (2, 4)]),
]
for shape in product(range(12), range(1, 6), range(5)):
    if shape[1] > shape[2]:
        BOUNDS.append(Case("overlap", shape, plain_bounds(*shape)))

# --- 4 labels --------------------------------------------------------------------------------


def inside(hint, golds, start, stop, expected):
    return Case(hint, (pairs(golds), start, stop), pairs(expected))


def plain_inside(golds, start, stop):
    return [(a - start, b - start) if start <= a and b < stop else (-1, -1) for a, b in golds]


INSIDE = [
    inside("shift", [(1, 2)], 0, 5, [(1, 2)]),
    inside("shift", [(2, 3)], 1, 5, [(1, 2)]),
    inside("wholly", [(4, 6)], 0, 5, [(-1, -1)]),
    inside("wholly", [(1, 3)], 2, 5, [(-1, -1)]),
    inside("exclusive", [(3, 5)], 0, 5, [(-1, -1)]),
    inside("exclusive", [(2, 4)], 1, 4, [(-1, -1)]),
    inside("moved-first", [(2, 5)], 2, 5, [(-1, -1)]),
    inside("edge", [(3, 4)], 0, 5, [(3, 4)]),
    inside("edge", [(2, 3)], 2, 5, [(0, 1)]),
    inside("unplaced", [(-1, -1)], 0, 5, [(-1, -1)]),
    inside("unplaced", [(-1, -1)], 2, 5, [(-1, -1)]),
    inside("every-gold", [(2, 3), (0, 1)], 0, 5, [(2, 3), (0, 1)]),
    inside("every-gold", [(7, 8), (0, 1)], 0, 5, [(-1, -1), (0, 1)]),
    inside("every-gold", [], 0, 5, []),
]
for a, b in product(range(5), range(1, 6)):
    if a < b:
        golds = [(-1, -1), *((i, j) for i, j in product(range(6), range(6)) if i <= j)]
        INSIDE.append(inside("wholly", golds, a, b, plain_inside(golds, a, b)))

# --- 5 attention -----------------------------------------------------------------------------


def tensor(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


def attend(hint, query, key, value, expected, mask=(True, True)):
    """One row of the batch, one head, two tokens."""
    *args, expected = (tensor([[x]]) for x in (query, key, value, expected))
    return Case(hint, (*args, torch.tensor([mask])), expected)


def plain_attention(query, keys, values, mask):
    """One query's result, all lists."""
    scores = [sum(x * y for x, y in zip(query, key)) / len(query) ** 0.5 for key in keys]
    weights = [math.exp(score) * admitted for score, admitted in zip(scores, mask)]
    return [sum(w * x for w, x in zip(weights, xs)) / sum(weights) for xs in zip(*values)]


def gradients(f, query, key, value, mask):
    inputs = [x.requires_grad_() for x in (query, key, value)]
    return gradients_of(f(*inputs, mask), inputs)


def gradients_of(result, inputs):
    """Of the sum of a result; 0 where it does not depend on an input, or is cut off from it."""
    if not result.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return [*torch.autograd.grad(result.sum(), inputs, materialize_grads=True)]


def distinct(f, *args, **options):
    return sorted({round(x, 3) for x in f(*args, **options).flatten().tolist()})


def various(f, *args, **options):
    result = f(*args, **options)
    return max(len({round(x, 3) for x in row[0, :, 0].tolist()}) for row in result) > 2


def attention_cases():
    zeros, ones = [[0], [0]], [[1], [1]]
    keys, values = [[LN3, 0, 0, 0], [0] * 4], [[4, 0, 0, 0], [0] * 4]
    yield attend("softmax", zeros, zeros, [[1], [3]], [[2], [2]])
    yield attend("axis", [[1], [0]], [[LN3], [0]], [[4], [0]], [[3], [2]])
    yield attend("mask", ones, [[50], [50]], [[0], [8]], zeros, (True, False))
    yield attend("not-zero", zeros, zeros, [[0], [8]], zeros, (True, False))
    yield attend("not-zero", ones, [[-70], [0]], [[0], [8]], zeros, (True, False))
    yield attend("mask-first", zeros, zeros, [[2], [8]], [[2], [2]], (True, False))
    yield attend("scale", [[2, 0, 0, 0]] * 2, keys, values, [[3, 0, 0, 0]] * 2)
    identity, keys = [[1, 0], [0, 1]], [[0, 0], [LN3 * 2**0.5, 0]]
    yield attend("transpose", identity, keys, identity, [[1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    yield attend("stable", [[10], [-10]], [[10], [10]], [[1], [3]], [[2], [2]])
    q, k = tensor([[[[1], [0]], [[0], [1]]]]), tensor([[[[LN3], [0]], [[0], [LN3]]]])  # H = 2
    v, expected = tensor([[[[4], [0]], [[0], [8]]]]), tensor([[[[3], [2]], [[4], [6]]]])
    yield Case("scale", (q, k, v, torch.tensor([[True, True]])), expected)
    rng, mask = np.random.default_rng(0), [[True] * 3, [True, False, False]]
    q, k, v = rng.integers(-2, 3, (3, 2, 2, 3, 2)).tolist()  # B = H = d = 2, T = 3
    heads = [(x, k[b][h], v[b][h], mask[b]) for b in (0, 1) for h in (0, 1) for x in q[b][h]]
    expected = tensor([plain_attention(*head) for head in heads]).view(2, 2, 3, 2)
    yield Case("batch", (tensor(q), tensor(k), tensor(v), torch.tensor(mask)), expected)
    same, everything = torch.zeros(8, 1, 8, 8), torch.ones(8, 8, dtype=torch.bool)
    args = same, same, torch.eye(8).expand_as(same), everything
    what = "the different values in the result where `value` is the identity matrix"
    yield Case("dropout", args, [0.0, 0.5], {"p": 0.75}, distinct, what)
    args = same, same, torch.ones_like(same), everything
    what = "whether queries get more than two different results where `value` is all ones"
    yield Case("dropout", args, True, {"p": 0.5}, various, what)
    case = attend("gradient", [[1], [1]], [[0], [LN3]], [[0], [4]], [[3], [3]])
    expected = [tensor([[x]]) for x in ([[0.75 * LN3]] * 2, [[-1.5], [1.5]], [[0.5], [1.5]])]
    what = "the gradients of query, key and value, where the loss is the sum of the result"
    yield case._replace(expected=expected, call=gradients, what=what)


# --- 6, 7, 8 losses --------------------------------------------------------------------------


def loss(hint, expected, start, end, start_labels, end_labels, mask=None, **options):
    """A row, or rows; labels are multi-hot, or a position per row for default_loss."""
    rows = start, end, start_labels, end_labels
    rows = rows if isinstance(start[0], list) else [[row] for row in rows]
    logits, labels = tensor(rows[:2]), tensor(rows[2:])
    if labels.ndim == 2:
        labels = labels.long()
    mask = torch.tensor(mask or [True] * logits.shape[-1]).expand(logits.shape[1:]).clone()
    return Case(hint, (logits, labels, mask), tensor(expected), options)


def gradient(f, logits, *args, **options):
    return gradients_of(f(logits.requires_grad_(), *args, **options), [logits])[0]


def learning(case, start, end):
    """The case once more, for the gradient of its logits, a row of start and of end."""
    expected = tensor([[start], [end]])
    what = "the gradient of the logits"
    return case._replace(hint="gradient", expected=expected, call=gradient, what=what)


def cross_entropy(logits, targets):
    log_total = math.log(sum(math.exp(x) for x in logits))
    return sum(y * (log_total - x) for x, y in zip(logits, targets))


def plain_qa(logits, labels):
    labels = labels if any(labels) else [1] * len(labels)
    return cross_entropy(logits, [y / sum(labels) for y in labels])


def plain_tagging(logits, labels):
    odds = [math.exp(-x if y else x) for x, y in zip(logits, labels)]
    return sum((1 + y) * math.log(1 + odd) for odd, y in zip(odds, labels))  # positives twice


def plain_robust(logits, labels):
    return 2 * plain_qa(logits, labels) + plain_tagging(logits, labels)


def batch(hint, formula, start_labels, end_labels):
    """Three rows of 4, 3 and 2 positions against the formula, a row and a side at a time."""
    starts = [[-2, 1, 0, 3], [2, -1, 1, 5], [0, 2, -3, 4]]
    ends = [[1, 0, -1, 2], [3, 0, -2, 5], [-1, 1, 2, 6]]
    lengths = [4, 3, 2]
    total = 0
    for logits, labels in (starts, start_labels), (ends, end_labels):
        for x, y, n in zip(logits, labels, lengths):
            y = y if isinstance(y, list) else [int(t == y) for t in range(n)]
            total += formula(x[:n], y[:n])
    mask = [[t < n for t in range(4)] for n in lengths]
    return loss(hint, total / 6, starts, ends, start_labels, end_labels, mask)


ZERO, LOW, PAD = [0, 0], [LN3, 0], [0, 0, LN2]  # logits; the softmax of LOW is 3/4, 1/4
PADDED = [True, True, False]
LABELLED = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
DEFAULT = [
    loss("formula", LN4, LOW, LOW, 1, 1),
    loss("half", (LN2 + LN4) / 2, [0, LN2, 0], [0, LN2, 0], 1, 2),
    loss("half", (LN4 - LN3 + LN2) / 2, LOW, ZERO, 0, 1),
    loss("swapped", LN2, [0, LN2, 0], PAD, 1, 2),
    loss("padding", LN2, PAD, PAD, 1, 1, PADDED),
    loss("batch", LN2, [ZERO] * 2, [ZERO] * 2, [1, 1], [1, 1]),
    loss("cls", 1.5 * LN2, [LOW, ZERO], [LOW, ZERO], [1, 0], [1, 0]),
    loss("stable", 200, [200, 0], [200, 0], 1, 1),
    batch("formula", cross_entropy, [2, 0, 1], [3, 0, 1]),
    learning(loss("", 0, LOW, ZERO, 0, 1), [-1 / 8, 1 / 8], [1 / 4, -1 / 4]),
    learning(loss("", 0, PAD, PAD, 1, 1, PADDED), *[[1 / 4, -1 / 4, 0]] * 2),
]
QA = [
    loss("formula", LN4 - LN3, LOW, LOW, [1, 0], [1, 0]),
    loss("half", (LN4 - LN3 + LN2) / 2, LOW, ZERO, [1, 0], [1, 0]),
    loss("swapped", LN4, LOW, LOW[::-1], [0, 1], [1, 0]),
    loss("one-over-k", LN2, ZERO, ZERO, [1, 1], [1, 1]),
    loss("every-gold", 1.5 * LN2, [LN2, 0, 0], [LN2, 0, 0], [1, 1, 0], [1, 1, 0]),
    loss("own-k", (1.5 * LN2 + LN4) / 2, [LN2, 0, 0], [LN2, 0, 0], [1, 1, 0], [0, 1, 0]),
    loss("own-k", (LN4 + LN2) / 2, LOW, ZERO, [0, 1], ZERO),
    loss("no-gold", LN2, ZERO, ZERO, ZERO, ZERO),
    loss("no-gold", LN3, [0] * 3, [0] * 3, [0] * 3, [0] * 3),
    loss("cls", (LN4 - LN3 + LN4) / 2, LOW, LOW, ZERO, ZERO),
    loss("padding", LN2, PAD, PAD, [1, 0, 0], [1, 0, 0], PADDED),
    loss("n", LN2, PAD, PAD, [0] * 3, [0] * 3, PADDED),
    loss("labelled-padding", LN2, PAD, PAD, [1, 0, 1], [1, 0, 1], PADDED),
    loss("labelled-padding", LN2, PAD, PAD, [0, 0, 1], [0, 0, 1], PADDED),
    loss("batch", LN2, [ZERO] * 2, [ZERO] * 2, [[1, 0]] * 2, [[1, 0]] * 2),
    loss("per-row", (LN4 + (LN4 - LN3 + LN4) / 2) / 2, [LOW] * 2, [LOW] * 2, *[[[0, 1], ZERO]] * 2),
    loss("stable", 200, [200, 0], [200, 0], [0, 1], [0, 1]),
    batch("formula", plain_qa, *LABELLED),
    learning(loss("", 0, LOW, LOW, [1, 0], ZERO), [-1 / 8, 1 / 8], [1 / 8, -1 / 8]),
    learning(loss("", 0, PAD, PAD, *[[1, 0, 0]] * 2, PADDED), *[[-1 / 4, 1 / 4, 0]] * 2),
]
TAGGING = [
    loss("sigmoid", LN2, [0], [0], [0], [0]),
    loss("weight", 2 * LN2, [0], [0], [1], [1]),
    loss("weight", 5 * LN2, [0], [0], [1], [1], positive_weight=5.0),
    loss("label-0", LN2, [0], [0], [0], [0], positive_weight=5.0),
    loss("sigmoid", 2 * (LN4 - LN3), [LN3], [LN3], [1], [1]),
    loss("half", (2 * LN2 + LN4) / 2, [0], [LN3], [1], [0]),
    loss("sum", 2 * LN2, [0, -50], [0, -50], [1, 0], [1, 0]),
    loss("weight", 3 * LN2, ZERO, ZERO, [1, 0], [1, 0]),
    loss("sigmoid", 2 * LN2 + LN4, LOW, LOW, [0, 1], [0, 1]),
    loss("swapped", (2 * (LN4 - LN3) + 4 * LN2) / 2, LOW, ZERO, [1, 0], [0, 1]),
    loss("cls", 2 * LN2, ZERO, ZERO, ZERO, ZERO),
    loss("padding", 2 * LN2, PAD, PAD, [0] * 3, [0] * 3, PADDED),
    loss("batch", 2 * LN2, [ZERO] * 2, [ZERO] * 2, [ZERO] * 2, [ZERO] * 2),
    loss("stable", 200, [200], [200], [0], [0]),
    batch("sum", plain_tagging, *LABELLED),
    learning(loss("", 0, LOW, ZERO, [1, 0], ZERO), [-1 / 4, 1 / 4], [1 / 4, 1 / 4]),
    learning(loss("", 0, PAD, PAD, *[[1, 0, 0]] * 2, PADDED), *[[-1 / 2, 1 / 4, 0]] * 2),
]
ROW = ZERO, ZERO, [1, 0], [1, 0]  # QA ln 2, tagging 2 ln 2 + ln 2
ROBUST = [
    loss("qa", LN2, *ROW, qa_weight=1.0, tagging_weight=0.0),
    loss("tagging", 3 * LN2, *ROW, qa_weight=0.0, tagging_weight=1.0),
    loss("weights", 13 * LN2, *ROW, qa_weight=1.0, tagging_weight=4.0),
    loss("weights", 5 * LN2, *ROW),
    loss("passed-on", 8 * LN2, *ROW, positive_weight=5.0),
    loss("padding", 5 * LN2, *(row + [0] for row in ROW), PADDED),
    batch("weights", plain_robust, *LABELLED),
    learning(loss("", 0, *ROW), *[[-1, 3 / 4]] * 2),
    learning(loss("", 0, *ROW, qa_weight=0.0), *[[-1 / 2, 1 / 4]] * 2),
]

# --- 9 decoder -------------------------------------------------------------------------------


def decode(hint, starts, ends, limit, *expected, mask=None):
    """A row, or rows; the expected score, start and end of each."""
    rows = (starts, ends) if isinstance(starts[0], list) else ([starts], [ends])
    logits = tensor(rows)
    mask = torch.tensor(mask or [True] * logits.shape[-1]).expand(logits.shape[1:]).clone()
    kinds = torch.float64, torch.int64, torch.int64
    expected = tuple(tensor(x, kind) for x, kind in zip(zip(*expected), kinds))
    return Case(hint, (logits, mask, limit), expected)


def plain_best(starts, ends, mask, limit):
    """All spans in order of start, then end: the first of the best."""
    admitted = [t for t, inside in enumerate(mask) if inside]
    spans = [(i, j) for i, j in product(admitted, admitted) if i <= j < i + limit]
    return max(((starts[i] + ends[j], i, j) for i, j in spans), key=lambda span: span[0])


def decoder_cases():
    yield decode("sum", [0, 5, 0], [0, 0, 4], 3, (9, 1, 2))
    yield decode("end-before-start", [0, 0, 9], [8, 0, 0], 3, (9, 2, 2))
    yield decode("together", [4, 0, 5], [0, 6, 0], 3, (10, 0, 1))
    yield decode("limit", [5, 0, 0], [0, 1, 4], 3, (9, 0, 2))
    yield decode("limit", [5, 0, 0], [0, 1, 4], 2, (6, 0, 1))
    yield decode("limit", [5, 0, 0], [0, 1, 4], 9, (9, 0, 2))
    yield decode("context", [9, 1, 0], [9, 2, 0], 3, (3, 1, 1), mask=[False, True, True])
    yield decode("context", [3, 0, 9], [2, 0, 9], 3, (5, 0, 0), mask=[True, True, False])
    yield decode("below-zero", [0, -5, -6], [0, -5, -6], 3, (-10, 1, 1), mask=[False, True, True])
    yield decode("ties", [0, 0, 0], [0, 0, 0], 3, (0, 0, 0))
    yield decode("ties", [4, 0, 4], [0, 3, 3], 2, (7, 0, 1))
    yield decode("float64", [1000.25, 0], [0, 3e-5], 2, (1000.25 + 3e-5, 0, 1))
    yield decode("limit", [0, 2, 0], [3, 1, 2], 1, (3, 0, 0))
    rows = [[9, 9], [5, 0]], [[9, 9], [0, 4]], 2, (-1e30, 0, 0), (9, 0, 1)
    case = decode("no-context", *rows, mask=[[False, False], [True, True]])
    yield case._replace(expected=case.expected[0], call=lambda f, *args: f(*args)[0], what="scores")
    starts = [0] * 30 + [5, 0] + [9] * 32
    ends = [9] * 30 + [0, 5] + [0] * 32
    what = (
        "a row of 64 positions: start logits of 9 at the last 32, end logits of 9 at the first 30, "
    )
    what += "and 5 for the start 30 and for the end 31; all others 0"
    yield decode("shortlist", starts, ends, 30, (10, 30, 31))._replace(what=what)
    rng = np.random.default_rng(0)
    for limit, T in product(range(1, 5), range(1, 6)):
        starts, ends = rng.integers(-2, 3, (2, 3, T)).tolist()
        mask = (rng.random((3, T)) < 0.7) | (np.arange(T) == T - 1)  # no empty row
        expected = [plain_best(*row, limit) for row in zip(starts, ends, mask)]
        yield decode("sum", starts, ends, limit, *expected, mask=mask.tolist())


def plain_decide(scores, nulls):
    """The first of the best; the least null, 0 where there are none, minus its score."""
    best = 0
    for n, score in enumerate(scores):
        if score > scores[best]:
            best = n
    return best, float((sorted(nulls)[0] if nulls else 0) - scores[best])


DECIDE = [
    Case("sign", ([3.0],), (0, -3.0)),
    Case("best", ([1.5, 4.0],), (1, -4.0)),
    Case("ties", ([2.0, 2.0],), (0, -2.0)),
    Case("null", ([3.0], [5.0]), (0, 2.0)),
    Case("least", ([1.5, 4.0], [9.0, 6.0]), (1, 2.0)),
    Case("least", ([1.5, 4.0], [3.0, 6.0]), (1, -1.0)),
    Case("arrays", (np.array([1.5, 4.0]), np.array([9.0, 0.0])), (1, -4.0)),
]
for two in product((-2.0, 1.0, 3.0), repeat=2):
    DECIDE.append(Case("best", ([*two],), plain_decide(two, ())))
    for nulls in product((-1.0, 2.0), repeat=2):
        DECIDE.append(Case("least", ([*two], [*nulls]), plain_decide(two, nulls)))

# --- 10 synthetic ----------------------------------------------------------------------------


def pool_for(question, *texts):
    """A pool with these texts for what a question asks for."""
    kinds = answer_types(question.question, question.answers[0].text)
    return {kind: [*texts] for kind in kinds}


def asked(question, context, *texts):
    """A question about a context; each text is a gold at its first place."""
    answers = [Answer(text, context.index(text)) for text in texts]
    return Question("7", question, context, answers, "Ada")


CONTEXT = "Ben left. Ada was born in Oslo. She ran."
ADA = asked("Where was Ada born?", CONTEXT, "Oslo")
ROME = pool_for(ADA, "Rome")
BORN, ASKED = "Ada was born in Rome.", "Where was Ada born is Rome."
TWO = asked(ADA.question, CONTEXT, "Oslo", "born in Oslo")
OPENS = asked("Who was born in Oslo?", CONTEXT, "Ada")
FIRST = asked("Who left?", CONTEXT, "Ben")
LAST = asked(ADA.question, CONTEXT[:30], "Oslo")  # ends with the gold, without a full stop
TITLE = "Who Cares? Not Me"
SONG = asked("What did Ada sing?", f"Ada sang {TITLE} well. Ben left.", TITLE)
THREE = asked(SONG.question, SONG.context, "Ben", TITLE, "Ada")
FJORD = "Oslofjord is near Oslo. It rained."  # the gold's text, and that of the new one, twice
FJORD = Question("6", "Which town near Rome is it?", FJORD, [Answer("Oslo", 18)], "Oslo")
DOCTOR = asked("Where did Ada move?", "Did Ada move? Dr. Lee saw her in Oslo. Ben ran.", "Oslo")
TWICE = asked("Where was Ada born?", "Ada of OSLO was born in Oslo. She ran.", "Oslo")
OTHER = asked("Where was Ada born?", "Ada was born in Oslo in Norway. She ran.", "Oslo", "Norway")
LAKE = asked("What did Ada see?", "Ben left. Ada saw the lake. She ran.", "lake")
LAKES = asked("What did Ada see?", "Ben left. The lake was what Ada saw. She ran.", "The lake")
BANG = asked("Where was Ada born?", 'Ben said: "Ada was born in Oslo!" She ran.', "Oslo")
# Questions for a pool: three that ask for a place, of which ADA's context holds two, and two others.
OTHERS = [
    asked("Where was Ben born?", "Ben was born in Rome.", "Rome"),
    asked("Where was Mia born?", "Mia was born in Oslo.", "Oslo"),
    asked("Where was Tom born?", "Tom was born near Ben.", "Ben"),
    *(asked("When did he die?", f"He died in {year}.", str(year)) for year in (1850, 1851)),
]


def everywhere(sentence, context=CONTEXT, begin=(0, 10, 32)):
    """A context with a sentence before each of its own, which begin there, and at the end."""
    inside = [f"{context[:at]}{sentence} {context[at:]}" for at in begin]
    return sorted([*inside, f"{context} {sentence}"])


def synthetic(hint, what, look, expected, question=ADA, pool=None, kind="evidence"):
    """What `look` sees in the results of the seeds, sorted, each thing once, None left out."""
    several = isinstance(expected, list) and len(expected) > 1  # each of them must come up
    seeds = 40 if several else 24

    def call(f, question, pool, _, kind):
        seen = set()
        for seed in range(seeds):
            result = once(f, question, pool, seed, kind)
            if result is None:
                return None
            if not isinstance(result, Question):
                raise TypeError(f"the result is a {type(result).__name__}, not a Question")
            if not isinstance(result.answers, list):
                raise TypeError(f"its answers are a {type(result.answers).__name__}, not a list")
            seen.add(look(result))
        return sorted(seen - {None})

    args = question, pool or pool_for(question, "Rome"), random.Random(0), kind
    return Case(hint, args, expected, {}, call, f"{what}, over {seeds} seeds")


def once(f, question, pool, seed, kind):
    """The result for one seed, or None once the arguments are changed, which the caller will see."""
    given = replace(question, answers=[*question.answers]), copy.deepcopy(pool)
    result = f(*given, random.Random(seed), kind)
    if given == (question, pool):
        return result
    vars(question).update(vars(given[0]))
    pool.clear()
    pool.update(given[1])


def impossible(hint, question, pool=ROME):
    args = question, pool, random.Random(0)
    return Case(hint, args, True, {}, lambda f, *a: f(*a) is None, "whether the result is None")


def without(text):
    return lambda q: None if text in q.context else q.context


def with_text(text):
    return lambda q: q.context if text in q.context else None


def context(q):
    return q.context.rstrip()  # a space at the very end does no harm


def listed(q):
    return tuple(answer.text for answer in q.answers)


def found(q, behind=0):
    return tuple(q.context[a.start :][: len(a.text) + behind] for a in q.answers)


def found_and_behind(q):
    return found(q, 1)


def which(q):
    return BORN if BORN in q.context else ASKED


def rest(q):
    return q.id, q.question, q.title


def one_seed(f, question, pool, _, kind):
    return len({once(f, question, pool, 3, kind).context for _ in range(24)})


def unforeseen(q):
    return None if context(q) in everywhere(BORN) else q.context


def sentence(hint, wanted, question, *texts, kind="evidence"):
    """A case that wants a sentence in every context."""
    pool = pool_for(question, *texts)
    return synthetic(
        hint, f"contexts without {wanted!r}", without(wanted), [], question, pool, kind
    )


SAW = "Dr. Lee saw her in Rome."
BOTH, AT = [("Oslo", "Rome")], "what stands at the answers' starts"
SYNTHETIC = [
    synthetic("both", "the answers, sorted", lambda q: tuple(sorted(listed(q))), BOTH),
    synthetic("gold-first", "the answers", listed, BOTH),
    sentence("evidence", BORN, ADA, "Rome"),
    synthetic("slot", "contexts with anything odd", unforeseen, []),
    synthetic("offsets", AT, found, BOTH),
    synthetic("offsets", AT, found, [("Oslo", "born in Oslo", "Rome")], TWO),
    sentence("first", BORN, TWO, "Rome"),
    synthetic("random-slot", "contexts", context, everywhere(BORN)),
    sentence("template", ASKED, ADA, "Rome", kind="template"),
    synthetic("opens", AT, found, [("Ada", "Rome")], OPENS, kind="template"),
    synthetic("bounds", "contexts", context, everywhere("Rome was born in Oslo."), OPENS),
    sentence("bounds", "Rome left.", FIRST, "Rome"),
    sentence("bounds", "Ada was born in Rome", LAST, "Rome"),
    sentence("full-stop", BORN, LAST, "Rome"),
    synthetic("random-slot", "contexts", context, everywhere(BORN, LAST.context, (0, 10)), LAST),
    synthetic("full-stop", "contexts with '!\".'", with_text('!".'), [], BANG),
    sentence("own-split", SAW, DOCTOR, "Rome"),
    synthetic(
        "own-split", "contexts", context, everywhere(SAW, DOCTOR.context, (0, 14, 39)), DOCTOR
    ),
    synthetic("by-offset", "contexts with 'Romefjord'", with_text("Romefjord"), [], FJORD),
    synthetic(
        "by-offset",
        f"{AT}, and the character behind",
        found_and_behind,
        [("Oslo.", "Rome.")],
        FJORD,
        kind="template",
    ),
    synthetic("mixed", "which sentence", which, [BORN, ASKED], kind="mixed"),
    synthetic("new", "the answers", listed, BOTH, pool=pool_for(ADA, "Ben", "Oslo", "Rome")),
    synthetic("same-type", "the answers", listed, BOTH, pool=dict(answer_pool(OTHERS))),
    sentence("inside-gold", TITLE, SONG, "Let It Be Now"),
    sentence("bounds", "Ada sang Let It Be Now well.", SONG, "Let It Be Now"),
    synthetic("inside-gold", AT, found, [("Ben", TITLE, "Ada", "Rome")], THREE),
    sentence("names-gold", ASKED, TWICE, "Rome"),
    sentence("names-gold", ASKED, OTHER, "Rome"),
    sentence("names-gold", "Which town near Rome is it is Rome.", FJORD, "Rome"),
    sentence("fitted", "Ada saw the river.", LAKE, "a river"),
    sentence("fitted", "The rivers was what Ada saw.", LAKES, "the rivers"),
    synthetic(
        "fitted", "the answers", listed, [("lake", "river")], LAKE, pool_for(LAKE, "a river")
    ),
    synthetic(
        "fitted",
        "the answers",
        listed,
        [("The lake", "The rivers")],
        LAKES,
        pool_for(LAKES, "the rivers"),
    ),
    synthetic("rest", "id, question and title", rest, [rest(ADA)]),
    synthetic(
        "rng", "", None, 1, ADA, pool_for(ADA, "Rome", "Bern", "Lima", "Kyiv"), "mixed"
    )._replace(call=one_seed, what="number of contexts from one seed"),
    impossible("unanswerable", replace(ADA, answers=[])),
    impossible("no-other", ADA, pool_for(ADA, "Oslo")),
    impossible("no-other", ADA, {}),
    impossible("unlocated", replace(ADA, answers=[Answer("Oslo", UNLOCATED)])),
    impossible("unlocated", replace(ADA, answers=[*ADA.answers, Answer("Ulm", UNLOCATED)])),
]

CASES = {
    "normalize_answer": NORMALIZE,
    "token_f1": F1,
    "token_spans": SPANS,
    "window_bounds": BOUNDS,
    "golds_inside": INSIDE,
    "attention": list(attention_cases()),
    "default_loss": DEFAULT,
    "qa_loss": QA,
    "tagging_loss": TAGGING,
    "robust_loss": ROBUST,
    "best_spans": list(decoder_cases()),
    "decide": DECIDE,
    "synthetic_answer": SYNTHETIC,
}
