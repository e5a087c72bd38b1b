"""Small wrong versions of the public functions, each with the hint it must be caught with.

`python tests/wrong_answers.py` shows them caught; tests/test_exercises.py does too. Most are the
project's own function with one mistake put around it, and stay wrong in that way when it changes.
"""

import math
import random
import re
import string
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a run as a program

from exercises.checks import examine

from data import (
    ANSWER,
    ELSEWHERE,
    NO_ANSWER,
    Answer,
    synthetic_answer,
    token_spans,
    window_bounds,
    window_label,
)
from model import attention
from robust_eqa import (
    best_spans,
    decide,
    default_loss,
    normalize_answer,
    qa_loss,
    robust_loss,
    tagging_loss,
    token_f1,
)

WRONG = {}  # function -> (hint, wrong version) pairs; a comment says what is wrong

# --- 1 f1 ------------------------------------------------------------------------------------

MARKS = f"[{re.escape(string.punctuation)}]"


def tidy(text, articles=r"\b(a|an|the)\b"):
    return " ".join(re.sub(articles, " ", text).split())


def words(text):
    return normalize_answer(text).split()


def f1(ours, theirs, mean=lambda p, r: 2 * p * r / (p + r), guard=True):
    common = sum((Counter(ours) & Counter(theirs)).values())
    if guard and not common:
        return float(ours == theirs)
    return mean(common / len(ours), common / len(theirs))


WRONG["normalize_answer"] = [
    ("lower", lambda t: tidy(re.sub(MARKS, "", t))),  # capitals stay
    ("punctuation", lambda t: tidy(t.lower())),  # punctuation stays
    ("joined", lambda t: normalize_answer(re.sub(MARKS, " ", t))),  # a space for each mark
    ("articles", lambda t: " ".join(re.sub(MARKS, "", t).lower().split())),  # articles stay
    ("articles", lambda t: tidy(re.sub(MARKS, "", t)).lower()),  # "The" stays
    ("whole-words", lambda t: tidy(re.sub(MARKS, "", t).lower(), "an|a|the")),  # inside words too
    ("spaces", lambda t: re.sub(MARKS + r"|\b(a|an|the)\b", "", t.lower()).strip()),
    ("order", lambda t: normalize_answer(tidy(t.lower()))),  # articles before punctuation
    ("ascii", lambda t: normalize_answer(re.sub(r"[^\w\s]", "", t))),  # all Unicode punctuation
    ("none", lambda t: None),
]
WRONG["token_f1"] = [
    ("harmonic", lambda p, g: float(words(p) == words(g))),  # exact match
    ("harmonic", lambda p, g: f1(words(p), words(g), lambda p, r: (p + r) / 2)),
    ("harmonic", lambda p, g: f1(words(p), words(g), lambda p, r: p)),  # precision alone
    ("harmonic", lambda p, g: f1(words(p), words(g), lambda p, r: r)),  # recall alone
    ("harmonic", lambda p, g: 100 * token_f1(p, g)),  # per cent
    ("bag", lambda p, g: f1({*words(p)}, {*words(g)})),  # sets
    ("nothing-common", lambda p, g: f1(words(p), words(g), guard=False)),
    ("normalised", lambda p, g: f1(p.split(), g.split())),
    ("empty", lambda p, g: token_f1(p, g) if words(p) else 0.0),  # both empty, and right
    ("empty", lambda p, g: token_f1(p, g) if words(g) else 1.0),  # one empty, and wrong
]

# --- 2 spans, 3 windows, 4 labels ------------------------------------------------------------


def cover(offsets, answers, sides=("right", "left"), located=True, ordered=True):
    starts = np.array([answer.start for answer in answers], int)
    ends = starts + np.array([len(answer.text) for answer in answers], int)
    first = np.searchsorted(offsets[:, 1], starts, sides[0])
    last = np.searchsorted(offsets[:, 0], ends, sides[1]) - 1
    lost = ((starts < 0) & located) | ((first > last) & ordered)
    return np.where(lost, -1, (first, last)).T


def aligned(offsets, answers):
    spans = token_spans(offsets, answers)
    same = offsets[spans[:, 0], 0] == [answer.start for answer in answers]
    return np.where(same[:, None], spans, -1)


WRONG["token_spans"] = [
    ("inclusive", lambda o, a: token_spans(o, a) + [0, 1]),  # last token exclusive
    ("cover", lambda o, a: token_spans(o, a)[:, [0, 0]]),  # the first token alone
    ("touching", lambda o, a: cover(o, a, ("left", "left"))),  # a token that ends at the start
    ("touching", lambda o, a: cover(o, a, ("right", "right"))),  # a token that starts at the end
    ("part", aligned),  # only answers that start with a token
    ("no-token", lambda o, a: cover(o, a, ordered=False)),  # (1, 0) for a space
    ("unlocated", lambda o, a: cover(o, a, located=False)),  # -1 taken for an offset
    ("every-answer", lambda o, a: token_spans(o, a[:1])),
    ("every-answer", lambda o, a: np.sort(token_spans(o, a), axis=0)),
    ("shape", lambda o, a: np.array(token_spans(o, a).tolist(), int)),  # (0,) without answers
    ("type", lambda o, a: token_spans(o, a).tolist()),
]


def cut(length, room, starts):
    return [(start, min(start + room, length)) for start in starts]


WRONG["window_bounds"] = [  # n tokens, room r, stride s
    ("stop", lambda n, r, s: [(a, b - 1) for a, b in window_bounds(n, r, s)]),
    ("stop", lambda n, r, s: [(a, a + r) for a, _ in window_bounds(n, r, s)]),  # beyond the end
    ("short", lambda n, r, s: cut(n, r, range(0, n - s, r - s))),
    ("empty", lambda n, r, s: window_bounds(n, r, s) if n else []),
    ("extra", lambda n, r, s: cut(n, r, range(0, max(1, n), r - s))),
    ("overlap", lambda n, r, s: cut(n, r, range(0, max(1, n - s), s or r))),  # s taken for the step
    ("overlap", lambda n, r, s: cut(n, r, range(0, max(1, n - s), r))),  # none
    ("overlap", lambda n, r, s: window_bounds(n, r, max(0, s - 1))),
    ("last", lambda n, r, s: cut(n, r, range(0, max(1, n - r + 1), r - s))),  # full windows only
    ("last", lambda n, r, s: [(min(a, max(0, n - r)), b) for a, b in window_bounds(n, r, s)]),
    ("type", lambda n, r, s: [[*bounds] for bounds in window_bounds(n, r, s)]),
]


def label(golds, inside):
    found = ANSWER if inside.any() else ELSEWHERE if len(golds) else NO_ANSWER
    return golds[inside], found


def relabel(golds, start, stop, labels):
    inside, found = window_label(golds, start, stop)
    return inside, labels[found]


WRONG["window_label"] = [
    ("inside", lambda g, a, b: (window_label(g, a, b)[0] - a, window_label(g, a, b)[1])),
    ("wholly", lambda g, a, b: label(g, (g[:, 0] < b) & (g[:, 1] >= a))),  # any overlap
    ("wholly", lambda g, a, b: label(g, (g[:, 0] >= a) & (g[:, 0] < b))),  # the first token
    ("wholly", lambda g, a, b: label(g, (g[:, 1] >= a) & (g[:, 1] < b))),  # the last token
    ("wholly", lambda *a: relabel(*a, [ANSWER, NO_ANSWER, NO_ANSWER])),
    ("edge", lambda g, a, b: window_label(g, a, b + 1)),  # stop taken for the last token
    ("edge", lambda g, a, b: window_label(g, a, b - 1)),
    ("edge", lambda g, a, b: window_label(g, a + 1, b)),
    ("no-golds", lambda *a: relabel(*a, [ANSWER, ELSEWHERE, ELSEWHERE])),
    ("unplaced", lambda g, a, b: window_label(g[g[:, 0] >= 0], a, b)),
    ("every-gold", lambda g, a, b: (window_label(g, a, b)[0][:1], window_label(g, a, b)[1])),
    ("any-gold", lambda g, a, b: (window_label(g, a, b)[0], window_label(g[:1], a, b)[1])),
    ("in-place", lambda g, a, b: g.sort(axis=0) or window_label(g, a, b)),
]

# --- 5 attention -----------------------------------------------------------------------------


def ones(mask):
    return torch.ones_like(mask)


def attend(q, k, v, admitted, p=0.0, dim=-1, low=-1e9):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return F.dropout(scores.masked_fill(~admitted, low).softmax(dim), p) @ v


WRONG["attention"] = [
    ("softmax", lambda q, k, v, m, p=0.0: q @ k.transpose(-1, -2) @ v),  # scores for weights
    ("axis", lambda q, k, v, m, p=0.0: attend(q, k, v, m[:, None, None], p, dim=-2)),
    ("axis", lambda q, k, v, m, p=0.0: attention(q, k, v, ~m, p)),  # the mask upside down
    ("mask", lambda q, k, v, m, p=0.0: attention(q, k, v, ones(m), p)),
    ("mask", lambda q, k, v, m, p=0.0: attend(q, k, v, m[:, None, :, None], p)),  # of queries
    ("not-zero", lambda q, k, v, m, p=0.0: attend(q, k, v, m[:, None, None], p, low=0)),
    ("mask-first", lambda q, k, v, m, p=0.0: attention(q, k, v * m[:, None, :, None], ones(m), p)),
    ("scale", lambda q, k, v, m, p=0.0: attention(q * q.shape[-1] ** 0.5, k, v, m, p)),  # none
    ("scale", lambda q, k, v, m, p=0.0: attention(q / q.shape[-1] ** 0.5, k, v, m, p)),  # twice
    ("batch", lambda q, k, v, m, p=0.0: attention(q, k, v, m[:1].expand_as(m), p)),  # of row 0
    ("dropout", lambda q, k, v, m, p=0.0: attention(q, k, v, m)),
    ("dropout", lambda q, k, v, m, p=0.0: (1 - p) * attention(q, k, v, m, p)),  # not scaled up
    ("type", lambda q, k, v, m, p=0.0: attention(q, k, v, m, p).numpy()),
]

# --- 6, 7, 8 losses: start and end logits s, e, their labels y, z, mask m -----------------------


def with_cls(labels):
    """Position 0 labelled where nothing is."""
    return labels + (labels.sum(-1, True) == 0) * (torch.arange(labels.shape[1]) == 0)


def first(labels):
    return labels * (labels.cumsum(-1) == 1)


def fill(logits, mask, value=-math.inf):
    return logits.masked_fill(~mask, value)


def default(s, e, y, z, m, log_softmax=lambda x: x.log_softmax(-1), **options):
    sides = (s, y), (e, z)
    return sum(F.nll_loss(log_softmax(fill(x, m)), at, **options) for x, at in sides) / 2


def by_length(loss):
    """Long rows count more."""

    def wrong(*batch):
        rows = [[x[k : k + 1] for x in batch] for k in range(len(batch[0]))]
        return sum(loss(*row) * row[4].sum() for row in rows) / batch[4].sum()

    return wrong


WRONG["default_loss"] = [
    ("half", lambda *b: 2 * default_loss(*b)),
    ("half", lambda s, e, y, z, m: default_loss(s, s, y, y, m)),  # start alone
    ("swapped", lambda s, e, y, z, m: default_loss(s, e, z, y, m)),
    ("swapped", lambda s, e, y, z, m: default_loss(e, s, y, z, m)),
    ("cls", lambda *b: default(*b, ignore_index=0)),
    ("padding", lambda s, e, y, z, m: default_loss(s, e, y, z, ones(m))),
    ("padding", lambda s, e, y, z, m: default_loss(s * m, e * m, y, z, ones(m))),  # 0 is e^0
    ("batch", lambda *b: len(b[0]) * default_loss(*b)),
    ("stable", lambda *b: default(*b, log_softmax=lambda x: x.softmax(-1).log())),
    ("in-place", lambda s, e, y, z, m: default_loss(s.masked_fill_(~m, -1e9), e, y, z, m)),
    ("formula", by_length(default_loss)),
    ("type", lambda *b: default_loss(*b).item()),
]


def qa(s, e, y, z, m, target, log_softmax=lambda x: x.log_softmax(-1), padding=0):
    labels, logs = torch.stack([y, z]), log_softmax(fill(torch.stack([s, e]), m))
    return -(target(labels, m) * fill(logs, m, padding)).sum(-1).mean()


def targets(y, m, k=lambda y: y.sum(-1, True)):
    """1/k or 1/n."""
    return torch.where(y.any(-1, True), y / k(y).clamp(min=1), m / m.sum(-1, True))


def gold_only(y, m):
    """1/k or 0."""
    return y / y.sum(-1, True).clamp(min=1)


def marginal(s, e, y, z, m):
    probabilities = fill(torch.stack([s, e]), m).softmax(-1)
    return -torch.log((probabilities * torch.stack([y, z])).sum(-1)).mean()


WRONG["qa_loss"] = [
    ("half", lambda *b: 2 * qa_loss(*b)),
    ("half", lambda s, e, y, z, m: qa_loss(s, s, y, y, m)),  # start alone
    ("swapped", lambda s, e, y, z, m: qa_loss(s, e, z, y, m)),
    ("one-over-k", lambda *b: qa(*b, lambda y, m: targets(y, m, lambda y: y.amax(-1, True)))),
    ("one-over-k", marginal),  # minus the log of the golds' summed probability
    ("every-gold", lambda s, e, y, z, m: qa_loss(s, e, first(y), first(z), m)),
    ("own-k", lambda *b: qa(*b, lambda y, m: targets(y, m, lambda y: y.sum(-1, True).amax(0)))),
    ("no-gold", lambda *b: qa(*b, gold_only)),  # costs 0
    ("nan", lambda *b: qa(*b, lambda y, m: y / y.sum(-1, True))),  # 0 / 0
    ("nan", lambda *b: qa(*b, targets, padding=-math.inf)),  # 0 * -inf
    ("cls", lambda s, e, y, z, m: qa_loss(s, e, with_cls(y), with_cls(z), m)),
    ("padding", lambda s, e, y, z, m: qa_loss(s, e, y, z, ones(m))),
    ("n", lambda *b: qa(*b, lambda y, m: targets(y, ones(m)))),  # 1/T, of which padding is lost
    ("batch", lambda *b: len(b[0]) * qa_loss(*b)),
    ("per-row", lambda *b: qa(*b, lambda y, m: (gold_only if y.any() else targets)(y, m))),
    ("stable", lambda *b: qa(*b, targets, lambda x: x.softmax(-1).log())),
    ("formula", by_length(qa_loss)),
    ("shape", lambda *b: qa_loss(*b)[None]),
    ("type", lambda *b: qa_loss(*b).item()),
]


def tagging_by_hand(s, e, y, z, m, positive_weight=2.0):
    p, labels = torch.stack([s, e]).sigmoid(), torch.stack([y, z])
    losses = -positive_weight * labels * p.log() - (1 - labels) * (1 - p).log()
    return (fill(losses, m, 0)).sum(-1).mean()


WRONG["tagging_loss"] = [
    ("weight", lambda *b, **o: tagging_loss(*b, **{"positive_weight": 1.0} | o)),
    ("weight", lambda *b, **o: tagging_loss(*b)),  # the argument ignored
    ("weight", lambda *b, positive_weight=2.0: positive_weight * tagging_loss(*b, 1.0)),
    ("sigmoid", lambda s, e, *b, **o: tagging_loss(-s, -e, *b, **o)),
    ("sum", lambda *b, **o: tagging_loss(*b, **o) / b[4].sum(-1).float().mean()),
    ("sum", lambda *b, **o: tagging_loss(*b, **o) / b[0].shape[1]),  # averaged over padding too
    ("swapped", lambda s, e, y, z, m, **o: tagging_loss(s, e, z, y, m, **o)),
    ("cls", lambda s, e, y, z, m, **o: tagging_loss(s, e, with_cls(y), with_cls(z), m, **o)),
    ("padding", lambda s, e, y, z, m, **o: tagging_loss(s, e, y, z, ones(m), **o)),
    ("padding", lambda s, e, y, z, m, **o: tagging_loss(s * m, e * m, y, z, ones(m), **o)),
    ("batch", lambda *b, **o: len(b[0]) * tagging_loss(*b, **o)),
    ("stable", tagging_by_hand),
]


WRONG["robust_loss"] = [
    ("qa", lambda *b, **o: robust_loss(*b)),  # weights ignored
    ("tagging", lambda *b, tagging_weight=1.0, **o: robust_loss(*b, tagging_weight=0.0, **o)),
    ("weights", lambda *b, **o: robust_loss(*b, **{"qa_weight": 1.0} | o)),
    ("weights", lambda *b, **o: robust_loss(*b, **{"qa_weight": 1.0, "tagging_weight": 2.0} | o)),
    ("passed-on", lambda *b, positive_weight=2.0, **o: robust_loss(*b, **o)),
    ("padding", lambda s, e, y, z, m, **o: robust_loss(s, e, y, z, ones(m), **o)),
]

# --- 9 decoder -------------------------------------------------------------------------------


def argmaxes(s, e, m, limit, repaired=False):
    (_, i), (_, j) = (fill(x, m).max(-1) for x in (s, e))
    j = torch.maximum(i, j) if repaired else j
    return s.gather(1, i[:, None])[:, 0] + e.gather(1, j[:, None])[:, 0], i, j


def late(x):
    return x + torch.arange(x.shape[1]) * 1e-6


def infinite(s, e, m, limit):
    scores, *span = best_spans(s, e, m, limit)
    return fill(scores, m.any(-1)), *span


WRONG["best_spans"] = [
    ("sum", lambda s, e, m, n: best_spans(e, s, m, n)),  # swapped
    ("sum", lambda s, e, m, n: best_spans(s.softmax(-1), e.softmax(-1), m, n)),  # no logits
    ("end-before-start", argmaxes),  # independent of each other
    ("together", lambda *a: argmaxes(*a, repaired=True)),
    ("together", lambda s, e, m, n: best_spans(fill(s, s == fill(s, m).amax(-1, True)), e, m, n)),
    ("limit", lambda s, e, m, n: best_spans(s, e, m, n + 1)),
    ("limit", lambda s, e, m, n: best_spans(s, e, m, max(1, n - 1))),
    ("limit", lambda s, e, m, n: best_spans(s, e, m, s.shape[1])),  # none
    ("context", lambda s, e, m, n: best_spans(s, e, ones(m), n)),
    ("context", lambda s, e, m, n: best_spans(fill(s, m, -1e9), e, ones(m), n)),  # start alone
    ("below-zero", lambda s, e, m, n: best_spans(s * m, e * m, ones(m), n)),
    ("ties", lambda s, e, m, n: best_spans(late(s), e, m, n)),  # the latest start
    ("ties", lambda s, e, m, n: best_spans(s, late(e), m, n)),  # the latest end
    ("no-context", infinite),
    ("dtype", lambda *a: tuple(x.float() for x in best_spans(*a))),
    ("type", lambda *a: list(best_spans(*a))),
]


WRONG["decide"] = [
    ("sign", lambda s, n=None: (decide(s, n)[0], -decide(s, n)[1])),
    ("best", lambda s, n=None: decide(s[:1], n)),  # the first window
    ("ties", lambda s, n=None: (len(s) - 1 - decide(s[::-1])[0], decide(s, n)[1])),
    ("null", lambda s, n=None: decide(s)),  # nulls ignored
    ("least", lambda s, n=None: decide(s, n and [max(n)])),
    ("least", lambda s, n=None: decide(s, n and [n[decide(s)[0]]])),  # of the span's window
    ("least", lambda s, n=None: decide(np.subtract(s, n or 0))),  # each minus its own null
    ("arrays", lambda s, n=None: decide(s, n if n else None)),
]

# --- 10 synthetic ----------------------------------------------------------------------------


def after(change):
    """A change of the new question, given the old one too."""

    def wrong(question, pool, rng, kind="mixed"):
        new = synthetic_answer(question, pool, rng, kind)
        return new and change(question, new)

    return wrong


def context(change):
    return after(lambda q, new: replace(new, context=change(new.context)))


def answers(choose):
    return after(lambda q, new: replace(new, answers=choose(q.answers, new.answers)))


def opening_stays(old, new):
    """A gold moves if it starts behind the new sentence's place, not if it starts there."""
    place = new.context.rfind(". ", 0, new.answers[-1].start) + 2
    pairs = zip(old.answers, new.answers)
    golds = [before if before.start <= place else moved for before, moved in pairs]
    return replace(new, answers=[*golds, new.answers[-1]])


def any_kind(kind):
    return random.choice(["evidence", "template"]) if kind == "mixed" else kind


def at_the_end(question, pool, rng, kind="mixed"):
    new = synthetic_answer(question, pool, rng, kind)
    while new and not new.context.startswith(question.context):
        new = synthetic_answer(question, pool, rng, kind)
    return new


def drawn(fits):
    """Any answer of the pool that `fits` is drawn, whatever its type, in the context or not."""

    def wrong(question, pool, rng, kind="mixed"):
        text = rng.choice([text for text in pool if fits(text)] or ["Rome"])
        new = synthetic_answer(question, [*pool, "Rome"], rng, kind)
        return new and replace(
            new, answers=[*new.answers[:-1], Answer(text, new.answers[-1].start)]
        )

    return wrong


WRONG["synthetic_answer"] = [
    ("both", answers(lambda old, new: new[-1:])),
    ("both", answers(lambda old, new: new[:-1])),  # as an attack would
    ("gold-first", answers(lambda old, new: new[::-1])),
    ("evidence", lambda q, p, r, kind="mixed": synthetic_answer(q, p, r, "template")),
    ("slot", context(lambda text: text.replace(". ", "."))),  # no spaces
    ("offsets", answers(lambda old, new: [*old, new[-1]])),  # as they were
    ("offsets", answers(lambda old, new: [new[0], *old[1:], new[-1]])),  # the first alone moved
    ("opens", after(opening_stays)),
    ("random-slot", at_the_end),
    ("template", lambda q, p, r, kind="mixed": synthetic_answer(q, p, r, "evidence")),
    ("mixed", lambda q, p, r, kind: synthetic_answer(q, p, r, kind.replace("mixed", "evidence"))),
    ("same-type", drawn(lambda text: True)),
    ("new", drawn(str.isalpha)),
    ("inside-gold", context(lambda text: text.replace("Cares? Not", "Cares? Who? Not"))),
    ("rest", after(lambda q, new: replace(new, id=q.id + "-synthetic"))),
    ("rest", after(lambda q, new: replace(new, title=""))),
    ("rng", lambda q, p, r, kind="mixed": synthetic_answer(q, p, random, kind)),
    ("rng", lambda q, p, r, kind="mixed": synthetic_answer(q, random.sample(p, len(p)), r, kind)),
    ("rng", lambda q, p, r, kind="mixed": synthetic_answer(q, p, r, any_kind(kind))),
    ("unanswerable", lambda q, *rest: synthetic_answer(q, *rest) or q),
    ("no-other", lambda q, *rest: synthetic_answer(q, *rest) or (q if q.answers else None)),
    ("unlocated", lambda q, *rest: synthetic_answer(q, *rest) or (q if "-1" in str(q) else None)),
    ("in-place", after(lambda q, new: q.answers.append(new.answers[-1]) or new)),
    ("none", lambda *_: None),
]


def main():
    pairs = [(name, *pair) for name, versions in WRONG.items() for pair in versions]
    found = [examine(name, version) for name, _, version in pairs]
    for (name, hint, _), outcome in zip(pairs, found):
        if outcome.hint != hint:
            print(f"{name}, {hint}: not caught, or with another hint\n{outcome.text}")
    caught = sum(outcome.hint == hint for (_, hint, _), outcome in zip(pairs, found))
    print(f"{caught} of {len(pairs)} wrong answers caught, each with its own hint")
    sys.exit(caught < len(pairs))


if __name__ == "__main__":
    main()
