"""EM, F1 and the best thresholds against the official SQuAD 2.0 script's rules, written again."""

import math
import os
import random
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import Answer, InputError, Question, read_questions
from robust_eqa import exact_match, normalize_answer, squad_scores, token_f1

ROOT = Path(__file__).parent.parent
SQUAD2_DEV = Path(ROOT, os.environ.get("EQA_DATA", "../shared/data"), "squad2-dev.json.gz")


def plain_tokens(text):
    """Lower case, no ASCII punctuation, no article that is a whole word, split at white space."""
    text = text.lower().translate({ord(character): None for character in string.punctuation})
    pieces = re.findall(r"\w+|\W+", text)
    return "".join(" " if piece in ("a", "an", "the") else piece for piece in pieces).split()


def plain_f1(prediction, gold):
    prediction, gold = plain_tokens(prediction), plain_tokens(gold)
    if not prediction or not gold:
        return float(prediction == gold)
    common = sum(min(prediction.count(token), gold.count(token)) for token in {*gold})
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def plain_squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in its order of operations."""
    has_answer = {q.id: bool(q.answers) for q in questions}
    scores = {"exact": {}, "f1": {}}
    for q in questions:
        golds = [answer.text for answer in q.answers if plain_tokens(answer.text)] or [""]
        tokens = plain_tokens(predictions[q.id])
        scores["exact"][q.id] = max(float(tokens == plain_tokens(gold)) for gold in golds)
        scores["f1"][q.id] = max(plain_f1(predictions[q.id], gold) for gold in golds)

    nulls = no_answer_scores or {}
    blanked = {key for key, null in nulls.items() if null > threshold}
    groups = {"": list(has_answer)}
    groups["HasAns_"] = [key for key in has_answer if has_answer[key]]
    groups["NoAns_"] = [key for key in has_answer if not has_answer[key]]
    result = {}
    for prefix, keys in groups.items():
        for name in scores if keys else ():
            final = [float(not has_answer[k]) if k in blanked else scores[name][k] for k in keys]
            result[prefix + name] = 100 * sum(final) / len(keys)
            result[prefix + "total"] = len(keys)
    for name in scores if nulls else ():
        current = best = len(groups["NoAns_"])
        best_threshold = 0.0
        for key in sorted(nulls, key=lambda key: nulls[key]):
            if has_answer[key]:
                current += scores[name][key]
            elif predictions[key]:
                current -= 1
            if current > best:
                best, best_threshold = current, nulls[key]
        result["best_" + name] = 100 * best / len(questions)
        result[f"best_{name}_thresh"] = best_threshold
    return result


def assert_same_scores(found, expected):
    """Same keys, same numbers; thresholds are one of the given scores and must be identical."""
    assert set(found) == set(expected), f"keys that differ: {set(found) ^ set(expected)}"
    for key, value in expected.items():
        tolerance = 0 if key.endswith("thresh") else 1e-9
        assert abs(found[key] - value) <= tolerance, f"{key}: found {found[key]}, not {value}"


NORMALISED = [
    ("The Cat, sat!", "cat sat"),
    ("ideographic\u3000and\xa0hard \t space\n", "ideographic and hard space"),
    ("Theatre, banana, an apple a day", "theatre banana apple day"),
    ("the-end of the_world", "theend of theworld"),  # punctuation goes before articles do
    ("“Café” – 5€", "“café” – 5€"),  # punctuation beyond ASCII stays
    ("a’b thé", "’b thé"),  # and bounds a word, so that this a is an article
    ("STRASSE Straße １２", "strasse straße １２"),  # lower, not casefold; nothing is folded
]


@pytest.mark.parametrize("text, expected", NORMALISED)
def test_normalising_by_hand(text, expected):
    assert normalize_answer(text) == expected


PIECES = [*"., ’–éİ１_-\u3000", "a", "an", "The", "cat", "Cat"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=2)).map("".join)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(TEXTS, TEXTS)
def test_the_scores_of_any_text_are_the_official_ones(prediction, gold):
    assert normalize_answer(prediction) == " ".join(plain_tokens(prediction))
    assert token_f1(prediction, gold) == pytest.approx(plain_f1(prediction, gold), abs=1e-12)
    assert exact_match(prediction, gold) == (plain_tokens(prediction) == plain_tokens(gold))


def question(key, *golds):
    """A question of which only the id and the golds' texts matter."""
    return Question(key, "?", "", [Answer(gold, 0) for gold in golds])


FOUR = [question("1", "Denver Broncos", "the Broncos"), question("2", "in 1970")]
FOUR += [question("3"), question("4")]
FOUR_PREDICTIONS = {"1": "Broncos!", "2": "1970 season", "3": "", "4": "Paris"}
FOUR_SCORES = {  # exact: 1, 0, 1, 0; F1: 1, 1/2, 1, 0
    **{"exact": 50, "f1": 62.5, "total": 4},
    **{"HasAns_exact": 50, "HasAns_f1": 75, "HasAns_total": 2},
    **{"NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2},
}
# With no-answer scores question 3 gets a span, which a threshold of 0 blanks again.
FOUR_SPANS = FOUR_PREDICTIONS | {"3": "Rome"}
FOUR_NO_ANSWER = {"1": -3.0, "2": -1.0, "3": 0.25, "4": 0.0}
# In order of no-answer score: start from 2 right without any answer, question 1 gives +1,
# 2 gives +0 exact and +1/2 F1, 4 and 3 take 1 away each.
FOUR_BEST = {"best_exact": 75, "best_exact_thresh": -3, "best_f1": 87.5, "best_f1_thresh": -1}
BLANKED = [
    ({}, {"exact": 25, "f1": 37.5, "NoAns_exact": 0, "NoAns_f1": 0}),  # the official 1
    ({"threshold": 0.0}, {}),  # the score of question 4
    ({"threshold": -0.5}, {"exact": 75, "f1": 87.5, "NoAns_exact": 100, "NoAns_f1": 100}),
]


@pytest.mark.parametrize("given, changes", BLANKED)
def test_a_prediction_is_blanked_only_above_the_threshold(given, changes):
    """Four questions by hand; best_* stay what they are."""
    assert_same_scores(squad_scores(FOUR, FOUR_PREDICTIONS), FOUR_SCORES)
    found = squad_scores(FOUR, FOUR_SPANS, FOUR_NO_ANSWER, **given)
    assert_same_scores(found, FOUR_SCORES | FOUR_BEST | changes)


def test_equal_no_answer_scores_keep_the_order_of_the_score_file():
    """The official script may stop between equal scores, so the order of the file counts."""
    questions, predictions = (
        [question("right", "x"), question("wrong")],
        {"right": "x", "wrong": "x"},
    )
    first = squad_scores(questions, predictions, {"right": 1.0, "wrong": 1.0})
    last = squad_scores(questions, predictions, {"wrong": 1.0, "right": 1.0})
    assert (first["best_exact"], first["best_exact_thresh"]) == (100.0, 1.0)
    assert (last["best_exact"], last["best_exact_thresh"]) == (50.0, 0.0)


WORDS = "the a an cat Cat sat mat on U.S. 1970 “café” – １２ 東京 o'clock dog’s The".split()


@pytest.mark.parametrize("name", ["made up", "squad2-dev"])
def test_all_scores_are_the_official_ones(name):
    """Of all, answerable and unanswerable questions; golds may be "the"; predictions in an order of their own, no-answer scores with ties."""
    rng, questions, predictions, nulls = random.Random(0), [], {}, {}
    if name == "squad2-dev":
        if not SQUAD2_DEV.exists():
            pytest.skip(f"{SQUAD2_DEV} is not there (EQA_DATA)")
        questions = read_questions(SQUAD2_DEV)[::8]
    for n in range(0 if questions else 1000):
        golds = [" ".join(rng.choices(WORDS, k=rng.randint(1, 3))) for _ in range(n % 4)]
        questions.append(question(str(n), *golds))
    for q in rng.sample(questions, len(questions)):
        words = rng.choice(q.answers).text.split() if q.answers else rng.choice([[], ["cat"]])
        longer, doubled = [*words, rng.choice(WORDS)], words + words[:1]
        changed = rng.choice([words, words, [], ["the"], words[1:], longer, doubled, words[::-1]])
        predictions[q.id] = " ".join(changed)
    for q in rng.sample(questions, len(questions)):
        nulls[q.id] = round(rng.gauss(-0.5 if q.answers else 0.5, 1.0), 1)
    answerable = [q for q in questions if q.answers]
    for some in (questions, answerable, [q for q in questions if not q.answers]):
        own, own_nulls = ({q.id: kept[q.id] for q in some} for kept in (predictions, nulls))
        for more in ((), (own_nulls,), (own_nulls, -0.7), (own_nulls, math.inf)):
            found = squad_scores(some, own, *more)
            assert_same_scores(found, plain_squad_scores(some, own, *more))


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_ids_are_checked_both_ways(change):
    """A dropped question must not raise the score."""
    questions, right = [question("one", "x"), question("two")], {"one": 1.0, "two": 2.0}
    wrong = {"one": 1.0} if change == "missing" else right | {"three": 3.0}
    for predictions, nulls in ((wrong, right), (right, wrong)):
        predictions = {key: str(value) for key, value in predictions.items()}
        with pytest.raises(InputError, match=f"2 questions and {len(wrong)} predictions"):
            squad_scores(questions, predictions, nulls)
