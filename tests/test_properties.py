"""What must hold for any text: windows, labels, changed questions, scores, files.

Each property is tried on 60 examples, always the same ones, and on 2,000 new ones with `-m slow`.
Texts are arbitrary Unicode mixed with what is known to be awkward; tokenizers are the WordPiece
and the byte-level BPE of fixtures/.
"""

import functools
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data import (
    ANSWER,
    ELSEWHERE,
    NO_ANSWER,
    UNLOCATED,
    Answer,
    Question,
    add_one_sentence,
    add_synthetic_answers,
    attack,
    collate,
    make_windows,
    negate,
    read_questions,
    rematch,
    synthetic_answer,
    token_spans,
    window_bounds,
    write_questions,
)
from robust_eqa import best_spans, exact_match, normalize_answer, squad_scores, token_f1

FIXTURES = Path(__file__).parent / "fixtures"


def holds(*strategies):
    """A test of 60 examples and a slow one of 2,000 from a function of what strategies draw."""

    def make(check):
        few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
        many = settings(max_examples=2000, deadline=None, suppress_health_check=slow)
        sizes = [
            pytest.param(few(given(*strategies)(check)), id="60"),
            pytest.param(many(given(*strategies)(check)), id="2000", marks=pytest.mark.slow),
        ]

        @pytest.mark.parametrize("tried", sizes)
        def test(tried):
            tried()

        test.__doc__ = check.__doc__
        return test

    return make


# ---- what is drawn ---------------------------------------------------------------------------

AWKWARD = [
    *("\u0301", "e\u0301", "\u0323\u0307", "ك\u0651", "\u1112\u1161\u11ab", "각", "ﬁ", "ß", "İ"),
    *("😀", "👩‍👩‍👧‍👦", "🇨🇭", "👍🏽", "\ufe0f", "\U00020000", "\U000e0041"),
    *("\u202e", "\u202c", "\u05d0\u05d1\u05d2", "\u0627\u0644\u0639", "\u200f"),
    *("\u200b", "\u200c", "\u200d", "\ufeff", "\u2060", "\u00ad", "\u034f"),
    *("\t", "\n", "\r\n", "\u2028", "\u00a0", "\u3000", "\x0b", "\0", "\x1c", "\x85", "\ufffd"),
    *("東京", "ไทย", "नि", " ", "  ", ".", "1,5", "[SEP]", "</s>", "[UNK]", "<mask>", "##s"),
    *("the lake", "opened", "ownership", "Ada's", "café", "Lee. He", "1912"),
]
characters = st.characters(exclude_categories=["Cs"])  # surrogates are no text
texts = st.lists(st.sampled_from(AWKWARD) | st.text(characters, max_size=3), max_size=24)
texts = texts.map("".join)
some_text = texts.filter(str.strip)


@st.composite
def answers_in(draw, context, most=3):
    """Any slices of a context that are not blank, at their offsets."""
    found = []
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(context) - 1))
        text = context[start : start + draw(st.integers(1, 12))]
        found += [Answer(text, start)] if text.strip() else []
    return found


@st.composite
def questions(draw, context=some_text):
    """A question about any text whose answers stand there."""
    context = draw(context)
    answers, title = draw(answers_in(context)), draw(st.sampled_from(["", "T"]))
    return Question(draw(some_text), draw(some_text)[:40], context, answers, title)


@functools.cache
def tokenizer_of(family):
    tokenizer = Tokenizer.from_file(str(FIXTURES / family / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


families = st.sampled_from(["bert", "roberta"])
strides, spare = st.integers(0, 9), st.integers(1, 30)


def windows_of(question, family, stride, spare):
    """The windows of one question with `stride` + `spare` context tokens each."""
    tokenizer = tokenizer_of(family)
    taken = len(tokenizer.encode(question.question, "").ids)
    return make_windows([question], tokenizer, taken + stride + spare, stride)


# ---- windows and labels ----------------------------------------------------------------------


@holds(questions(texts.filter(bool)), families, strides, spare)
def test_windows_cover_every_context_token(question, family, stride, spare):
    """Every token once, and once more where neighbours share; every visible character in one."""
    encoding = tokenizer_of(family).encode(question.context, add_special_tokens=False)
    seen = []
    for window in windows_of(question, family, stride, spare):
        ids = window.input_ids[window.context_slice]
        offsets = window.offsets[window.context_slice]
        assert len(ids) <= stride + spare and len(window.input_ids) == len(window.segment_ids)
        seen[len(seen) - (stride if seen else 0) :] = zip(ids, offsets)
    assert seen == list(zip(encoding.ids, encoding.offsets))


@holds(st.integers(0, 10**4), st.integers(1, 400), st.integers(0, 399))
def test_window_bounds_cover(length, spare, stride):
    """From the first to the last token without a gap, `stride` shared, none longer than allowed."""
    bounds = window_bounds(length, stride + spare, stride)
    assert bounds[0][0] == 0 and bounds[-1][1] == length
    for (start, stop), (after, end) in zip(bounds, bounds[1:]):
        assert stop - start == stride + spare and after == stop - stride and end > stop
    assert bounds[-1][1] - bounds[-1][0] <= stride + spare


@holds(questions(), families, strides, spare)
def test_labels_decode_to_their_answers(question, family, stride, spare):
    """Logits that are the labels give a span whose text is the answer and what its tokens add."""
    windows = windows_of(question, family, stride, spare)
    for answer in question.answers:
        alone = replace(question, answers=[answer])
        for window, whole in zip(windows_of(alone, family, stride, spare), windows):
            assert window.input_ids == whole.input_ids
            if window.label != ANSWER:
                continue
            batch = collate([window])
            labels = batch.start_labels * 9, batch.end_labels * 9
            _, (start,), (end,) = best_spans(*labels, batch.context_mask, 10**6)
            assert [(start, end)] == window.answer_spans, "the labels are not the span"
            assert (start, end) in whole.answer_spans, "lost among other answers"
            decoded = window.text(int(start), int(end))
            offsets = window.offsets[int(start) : int(end) + 1]
            first, last = offsets[0][0], offsets[-1][1]
            held = question.context[first:last]
            assert decoded == held.strip(), f"{decoded!r}, not {held!r}"
            bare = question.context[answer.start : answer.start + len(answer.text)]
            cut = max(first, answer.start), min(last, answer.start + len(bare))
            assert cut[0] < cut[1], f"{decoded!r} has nothing of {bare!r}"
            missing = (
                question.context[answer.start : cut[0]]
                + question.context[cut[1] : answer.start + len(bare)]
            )
            tokens = tokenizer_of(family).encode(question.context, add_special_tokens=False).offsets
            at = range(answer.start, cut[0]), range(cut[1], answer.start + len(bare))
            lost = [c for span in at for c in span if any(s <= c < e for s, e in tokens)]
            assert not lost, f"{missing!r} of {bare!r} is in a token, but not in {decoded!r}"


@holds(questions(), families, strides, spare)
def test_labels_are_as_small_as_tokens_allow(question, family, stride, spare):
    """Without its first or its last token a span would lack a part of its answer."""
    for answer in question.answers:
        alone = replace(question, answers=[answer])
        for window in windows_of(alone, family, stride, spare):
            for start, end in window.answer_spans:
                for s, e in (window.offsets[start], window.offsets[end]):
                    stop = answer.start + len(answer.text)
                    part = range(max(s, answer.start), min(e, stop))
                    empty = answer.start < s == e < stop  # byte-level BPE trims a lone space
                    assert part or empty, f"token {s, e} has no part in {answer}"


@holds(
    questions(),
    st.lists(
        st.tuples(some_text, st.integers(-50, 10**6) | st.just(2**40) | st.just(UNLOCATED)),
        min_size=1,
        max_size=4,
    ),
    families,
    strides,
    spare,
)
def test_any_offsets(question, odd, family, stride, spare):
    """Answers beyond the text, before it or nowhere give no span outside it, and no error."""
    question = replace(question, answers=[Answer(*pair) for pair in odd])
    windows = windows_of(question, family, stride, spare)
    encoding = tokenizer_of(family).encode(question.context, add_special_tokens=False)
    offsets = np.array(encoding.offsets).reshape(-1, 2)
    spans = token_spans(offsets, question.answers)
    for answer, (first, last) in zip(question.answers, spans.tolist()):
        if answer.start == UNLOCATED or answer.start >= len(question.context):
            assert (first, last) == (-1, -1), f"{answer} has the tokens {first} to {last}"
        assert (first, last) == (-1, -1) or 0 <= first <= last < len(offsets)
    for window in windows:
        positions = range(*window.context_slice.indices(len(window.input_ids)))
        assert all(s in positions and e in positions for s, e in window.answer_spans)
        batch = collate([window])
        assert not (batch.start_labels * ~batch.context_mask).any()
        assert window.label == (ANSWER if window.answer_spans else ELSEWHERE)
    empty = windows_of(replace(question, answers=[]), family, stride, spare)
    assert {window.label for window in empty} == {NO_ANSWER}


# ---- changed questions -----------------------------------------------------------------------

POOL = ["1815", "1066", "7 %", "in 1905 or 1906", "40 days and nights", "3 or 4 of them"]
POOL += ["Zora", "Zora Quux", "Zora Quux Berg", "Zora van der Berg", "Zora of the Old Mill"]
POOL += ["blue", "a miller", "out of wood", "to the other side", "no more than a few of them"]
PLAIN = ["Ada Lee opened it. ", "It was in 1912. ", "Dr. Who left! ", '"Why?" she asked. ', "ok"]
CHANGES = {
    **{
        kind: functools.partial(synthetic_answer, kind=kind)
        for kind in ("evidence", "template", "mixed")
    },
    "negation": negate,
    "addonesent": add_one_sentence,
}
ASKED = ["Who opened Lake Zug?", "When did Ada Lee of 1912 leave", "in what town is Zug?", "Wo?"]


@st.composite
def changeable(draw):
    """A question that can often be changed: some sentences among any text, a question word."""
    pieces = st.lists(st.sampled_from(PLAIN) | texts, min_size=1, max_size=6).map("".join)
    question = draw(questions(pieces.filter(str.strip)))
    asked = draw(st.sampled_from(ASKED)) + draw(st.just("") | texts)
    return replace(question, question=asked)


def assert_offsets(question):
    for answer in question.answers:
        there = question.context[answer.start : answer.start + len(answer.text)]
        assert there == answer.text, f"{there!r} stands where {answer} should in {question}"


@holds(changeable(), st.sampled_from(sorted(CHANGES)), st.integers(0, 99))
def test_changes_keep_all_offsets(question, name, seed):
    """One piece more in the context; every answer at its offset, the old ones first."""
    new = CHANGES[name](question, POOL, random.Random(seed))
    if new is None:
        return
    assert_offsets(new)
    assert (new.id, new.question, new.title) == (question.id, question.question, question.title)
    old, texts = question.context, [answer.text for answer in question.answers]
    assert [answer.text for answer in new.answers][: len(texts)] == texts
    added = name in ("evidence", "template", "mixed")
    assert len(new.answers) == len(texts) + added
    grown = len(new.context) - len(old)
    cuts = (new.context[:k] + new.context[k + grown :] for k in range(len(old) + 1))
    assert grown > 0 and old in cuts, "not one inserted piece"
    if not added:
        assert new.context.startswith(old) and new.answers == question.answers


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_not_vacuous(name):
    """The examples above are changed often enough for that property to say something."""
    made = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(changeable())
    def tried(question):
        made.append(CHANGES[name](question, POOL, random.Random(0)) is not None)

    tried()
    assert sum(made) > len(made) / 5, f"only {sum(made)} of {len(made)} were changed"


@holds(st.lists(changeable(), min_size=1, max_size=6, unique_by=lambda q: q.id), st.integers(0, 9))
def test_files_of_changed_questions(found, seed):
    """attack, add_synthetic_answers and rematch: offsets, ids and order over whole files."""
    ids = [question.id for question in found]
    for share in (0.5, 1.0):
        new = add_synthetic_answers(found, share, seed)
        assert [question.id for question in new] == ids
    for question in new:
        assert_offsets(question)
    for kind in ("addonesent", "negation"):
        new = attack(found, kind, seed)
        assert [key for key in ids if key in {q.id for q in new}] == [q.id for q in new]
        for question in new:
            assert_offsets(question)
    contexts = {(question.title, question.context) for question in found}
    for moved in rematch(found):
        assert not moved.answers and (moved.title, moved.context) in contexts


# ---- scores ----------------------------------------------------------------------------------

words = st.lists(st.sampled_from(["the", "a", "cat", "Cat.", "sat", "İ", "é", "1,5", "-"]) | texts)
phrases = words.map(" ".join)


@holds(phrases, phrases)
def test_text_scores_are_bounded_and_symmetric(one, two):
    """0 to 1, the same either way round, 1 of a text with itself; exact only where F1 is 1."""
    for score in (token_f1, exact_match):
        assert 0 <= score(one, two) <= 1
        assert score(one, two) == score(two, one)
        assert score(one, one) == 1
    assert exact_match(one, two) <= token_f1(one, two)
    assert token_f1(one, " ".join(reversed(normalize_answer(one).split()))) == 1, "order counts"
    again = normalize_answer(one)
    assert exact_match(one, again) == (normalize_answer(again) == again)


scored = st.tuples(phrases, st.lists(phrases, max_size=3), st.floats(-9, 9))


@holds(st.lists(scored, min_size=1, max_size=8), st.floats(-9, 9), st.randoms())
def test_squad_scores_are_bounded(rows, threshold, shuffled):
    """0 to 100, the parts' mean is the whole, order does not count, and the best is no worse."""
    found = [
        Question(str(k), "?", "", [Answer(text, 0) for text in golds])
        for k, (_, golds, _) in enumerate(rows)
    ]
    texts = {str(k): text for k, (text, _, _) in enumerate(rows)}
    nulls = {str(k): null for k, (_, _, null) in enumerate(rows)}
    scores = squad_scores(found, texts, nulls, threshold)
    for key, value in scores.items():
        if not key.endswith(("total", "thresh")):
            assert 0 <= value <= 100 + 1e-9, f"{key} is {value}"
    for name in ("exact", "f1"):
        parts = [p for p in ("HasAns_", "NoAns_") if p + name in scores]
        sums = sum(scores[p + name] * scores[p + "total"] for p in parts)
        assert scores[name] == pytest.approx(sums / len(rows), abs=1e-9)
        assert scores[f"best_{name}_thresh"] in {0.0, *nulls.values()}
        if all(normalize_answer(text) for text in texts.values()):
            assert scores[f"best_{name}"] >= scores[name] - 1e-9, "hindsight made it worse"
    shuffled.shuffle(found)
    again = squad_scores(found, texts, nulls, threshold)
    assert again == pytest.approx(scores, abs=1e-9)


@holds(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_best_span_is_bounded_and_in_the_context(length, limit, seed):
    """No longer than allowed, inside the mask, and no single token scores more."""
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, 3, length, generator=generator) * 5
    mask = torch.rand(3, length, generator=generator) < 0.6
    scores, starts, ends = best_spans(start, end, mask, limit)
    for row in range(3):
        if not mask[row].any():
            assert scores[row].isfinite()
            continue
        i, j = starts[row], ends[row]
        assert mask[row, i] and mask[row, j] and 0 <= j - i < limit
        assert torch.isclose(scores[row], start[row, i] + end[row, j])
        assert scores[row] >= (start + end)[row][mask[row]].max() - 1e-6


# ---- files -----------------------------------------------------------------------------------


@holds(st.lists(questions(), min_size=1, max_size=6, unique_by=lambda q: q.id), st.booleans())
def test_written_questions_are_read_back(found, packed):
    """Equal and in order, whatever the text; written again, the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.json.gz" if packed else "x.json")
        write_questions(found, path)
        first = path.read_bytes()
        assert read_questions(path) == found
        write_questions(read_questions(path), path)
        assert path.read_bytes() == first
