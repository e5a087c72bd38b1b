"""EM, F1 and the best thresholds against the official SQuAD 2.0 script's rules, written again."""

import math
import random
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import REAL

from data import Answer, InputError, Question, read_questions
from robust_eqa import exact_match, normalize_answer, squad_scores, token_f1


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


PIECES = [*"., ’–éİ１_-\u3000\xa0ß", "a", "an", "The", "cat", "Cat"]
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


WORDS = "the a an cat Cat sat mat on U.S. 1970 “café” – １２ 東京 o'clock dog’s The".split()


@pytest.mark.parametrize("name", ["made up", "squad2-dev"])
def test_all_scores_are_the_official_ones(name):
    """Of all, answerable and unanswerable questions; golds may be "the"; predictions in an order of their own, no-answer scores with ties."""
    rng, questions, predictions, nulls = random.Random(0), [], {}, {}
    if name == "squad2-dev":
        if not REAL.exists():
            pytest.skip(f"{REAL} is not there (EQA_DATA)")
        questions = read_questions(REAL)[::8]
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
