"""What must hold for any text, by examples that are always the same ones."""

import functools
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import check_windows, load

import data
from data import UNLOCATED, Answer, Question

few = settings(max_examples=80, deadline=None, derandomize=True, database=None)

AWKWARD = """e\u0301 \u0323\u0307 ك\u0651 \u1112\u1161\u11ab 각 ﬁ ß İ 😀 👩‍👩‍👧‍👦 👍🏽 \ufe0f \U00020000 \U000e0041
\u202e \u05d0\u05d1 \u200f \u200b \u200d \ufeff \u00ad \0 \ufffd 東京 ไทย नि . 1,5 [SEP] </s> [UNK] <mask> ##s
opened ownership Ada's café Lee. 1912 \u0301""".split()
AWKWARD += [*"\t\n\u2028\u00a0\u3000\x1c\x85  ", "\r\n", "  ", ". He"]
characters = st.characters(exclude_categories=["Cs"])  # surrogates are no text
pieces = st.sampled_from(AWKWARD) | st.text(characters, max_size=3)
texts = st.lists(pieces, max_size=24).map("".join)
some_text = texts.filter(str.strip)


@st.composite
def questions(draw, contexts=some_text):
    """Any text with answers that stand there."""
    context, answers = draw(contexts), []
    for start in draw(st.lists(st.integers(0, len(context) - 1), max_size=3)):
        text = context[start : start + draw(st.integers(1, 12))]
        answers += [Answer(text, start)] if text.strip() else []
    return Question(draw(some_text), draw(some_text)[:40], context, answers, draw(texts))


# --- Windows ------------------------------------------------------------------------------------

odd_answers = st.builds(Answer, some_text, st.sampled_from([2**40, UNLOCATED, *range(9)]))


@few
@given(
    st.lists(questions(texts.filter(bool)), min_size=1, max_size=3),
    st.lists(odd_answers, max_size=1),
    st.sampled_from(["bert", "roberta"]),
    st.integers(0, 9),
    st.integers(1, 30),
)
def test_windows_of_any_text_are_pair_truncation(found, odd, family, stride, spare):
    """Among answers there are some that stand nowhere, or beyond the text."""
    found = [replace(q, answers=[*odd, *q.answers], id=str(k)) for k, q in enumerate(found)]
    before = max(w.context.start for w in data.make_windows(found, load(family), 10**6, 0))
    check_windows(found, family, before + stride + spare + 1, stride)


@few
@given(st.lists(st.integers(3, 384), min_size=1), st.integers(1, 16), st.integers(0, 9))
def test_batches_of_like_length_are_a_partition_that_the_seed_decides(lengths, size, seed):
    lengths = np.array(lengths)
    batches = data.length_bucketed(lengths, size, np.random.default_rng(seed))
    again = data.length_bucketed(lengths, size, np.random.default_rng(seed))
    assert [list(b) for b in batches] == [list(b) for b in again]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sizes, full = sorted(map(len, batches), reverse=True), len(lengths) // size
    assert sizes[:full] == [size] * full and len(sizes) == -(-len(lengths) // size), sizes
    padding = sum(lengths[b].max() * len(b) - lengths[b].sum() for b in batches)
    assert padding <= size * (lengths.max() - lengths.min()), padding


# --- Changed questions --------------------------------------------------------------------------

POOL = ["1815", "1066", "7 %", "in 1905 or 1906", "40 days and nights", "blue", "a miller"]
POOL += ["Zora", "Zora Quux", "Zora Quux Berg", "Zora of the Old Mill", "out of wood"]
BY_FORM = [Question(text, "Why?", f"it was {text}", [Answer(text, 7)]) for text in POOL]
BY_FORM = data.answer_pool(BY_FORM)
PLAIN = ["Ada Lee opened it. ", "It was in 1912. ", "Dr. Who left! ", '"Why?" she asked. ', "ok"]
ASKED = ["Who was it of Lake Zug?", "When did Ada Lee of 1912 leave", "in what town is Zug?"]
CHANGES = {"negation": data.negate, "addonesent": data.add_one_sentence}
CHANGES |= {"distractor": data.distractor}
for kind in ("evidence", "template", "mixed"):
    CHANGES[kind] = functools.partial(data.synthetic_answer, kind=kind)


@st.composite
def changeable(draw):
    """A question that can often be changed: some sentences among any text, a question word."""
    pieces = st.lists(st.sampled_from(PLAIN) | texts, min_size=1, max_size=6).map("".join)
    question = draw(questions(pieces.filter(str.strip)))
    return replace(question, question=draw(st.sampled_from(ASKED)) + draw(st.just("") | texts))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_inserts_one_piece_and_keeps_all_offsets(name):
    made = []

    @few
    @given(changeable(), st.integers(0, 99))
    def tried(question, seed):
        first = [answer.text for answer in question.answers[:1]]
        kinds = data.answer_types(question.question, *first) if first else []
        pool = BY_FORM | dict.fromkeys(kinds, POOL)  # whatever type it is
        new = CHANGES[name](question, pool, random.Random(seed))
        made.append(new is not None)
        if new is None:
            return
        assert all(new.context.startswith(a.text, a.start) for a in new.answers), new
        assert (new.id, new.question, new.title) == (question.id, question.question, question.title)
        old, texts = question.context, [answer.text for answer in question.answers]
        grown = len(new.context) - len(old)
        cuts = [k for k in range(len(old) + 1) if new.context[:k] + new.context[k + grown :] == old]
        assert grown > 0 and cuts, "not one inserted piece"
        if name == "distractor":
            assert [answer.text for answer in new.answers] == texts
        elif name in ("evidence", "template", "mixed"):
            assert [answer.text for answer in new.answers][:-1] == texts
            assert min(cuts) <= new.answers[-1].start < max(cuts) + grown, "not in the new piece"
        else:
            assert new.context.startswith(old) and new.answers == question.answers

    tried()
    least = 0 if name == "distractor" else len(made) / 5  # it wants a name that is asked for
    assert sum(made) > least, f"only {sum(made)} of {len(made)} were changed"
