"""EM, F1 and the best thresholds against the official SQuAD 2.0 script's rules, written again."""

import gzip
import json
import math
import os
import random
import re
import string
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import Answer, InputError, Question
from robust_eqa import exact_match, normalize_answer, squad_scores, token_f1

ROOT = Path(__file__).parent.parent
SQUAD2_DEV = Path(ROOT, os.environ.get("EQA_DATA", "../shared/data"), "squad2-dev.json.gz")


# ---- the official rules, written independently -----------------------------------------------


def plain_tokens(text):
    """Lower case, no ASCII punctuation, no article that is a whole word, split at white space."""
    text = text.lower().translate({ord(character): None for character in string.punctuation})
    pieces = re.findall(r"\w+|\W+", text)
    return "".join(" " if piece in ("a", "an", "the") else piece for piece in pieces).split()


def plain_f1(prediction, gold):
    """Harmonic mean of precision and recall over tokens counted with repetition."""
    prediction, gold = plain_tokens(prediction), plain_tokens(gold)
    if not prediction or not gold:
        return float(prediction == gold)
    left, common = list(gold), 0
    for token in prediction:
        if token in left:
            left.remove(token)
            common += 1
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def plain_squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in its order of operations."""
    has_answer = {q.id: bool(q.answers) for q in questions}
    exact, f1 = {}, {}
    for q in questions:
        golds = [answer.text for answer in q.answers if plain_tokens(answer.text)] or [""]
        tokens = plain_tokens(predictions[q.id])
        exact[q.id] = max(float(tokens == plain_tokens(gold)) for gold in golds)
        f1[q.id] = max(plain_f1(predictions[q.id], gold) for gold in golds)

    blanked = set()
    if no_answer_scores is not None:
        blanked = {key for key, score in no_answer_scores.items() if score > threshold}
    groups = {
        "": list(has_answer),
        "HasAns_": [key for key in has_answer if has_answer[key]],
        "NoAns_": [key for key in has_answer if not has_answer[key]],
    }
    result = {}
    for prefix, keys in groups.items():
        for name, scores in {"exact": exact, "f1": f1}.items() if keys else ():
            final = [float(not has_answer[k]) if k in blanked else scores[k] for k in keys]
            result[prefix + name] = 100 * sum(final) / len(keys)
        if keys:
            result[prefix + "total"] = len(keys)

    for name, scores in {"exact": exact, "f1": f1}.items() if no_answer_scores is not None else ():
        current = best = len(groups["NoAns_"])
        best_threshold = 0.0
        for key in sorted(no_answer_scores, key=lambda key: no_answer_scores[key]):
            if has_answer[key]:
                current += scores[key]
            elif predictions[key]:
                current -= 1
            if current > best:
                best, best_threshold = current, no_answer_scores[key]
        result["best_" + name] = 100 * best / len(questions)
        result[f"best_{name}_thresh"] = best_threshold
    return result


def transformers_squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The port of the official script that transformers carried up to version 4."""
    metrics = pytest.importorskip("transformers.data.metrics.squad_metrics")
    examples = [
        types.SimpleNamespace(qas_id=q.id, answers=[{"text": a.text} for a in q.answers])
        for q in questions
    ]
    scores = metrics.squad_evaluate(examples, predictions, no_answer_scores, threshold)
    if no_answer_scores is None:  # theirs then takes 0 for every question
        scores = {key: value for key, value in scores.items() if not key.startswith("best_")}
    return scores


REFERENCES = {"rules": plain_squad_scores, "transformers": transformers_squad_scores}


def assert_same_scores(found, expected):
    """Same keys, same numbers; thresholds are one of the given scores and must be identical."""
    assert set(found) == set(expected), f"keys that differ: {set(found) ^ set(expected)}"
    for key, value in expected.items():
        tolerance = {"abs": 0, "rel": 0} if key.endswith("thresh") else {"abs": 1e-9}
        difference = (
            f"{key}: found {found[key]}, expected {value}, off by {found[key] - value:+.3g}"
        )
        assert found[key] == pytest.approx(value, **tolerance), difference


# ---- texts -----------------------------------------------------------------------------------

NORMALISED = [
    ("The Cat, sat!", "cat sat"),
    ("  two\twords\n", "two words"),
    ("ideographic\u3000and\xa0hard space", "ideographic and hard space"),
    ("A an the", ""),
    ("A.", ""),
    ("Theatre, banana, another", "theatre banana another"),
    ("the-end of the_world", "theend of theworld"),  # punctuation goes before articles do
    ("an apple a day", "apple day"),
    ("U.S.A.", "usa"),
    ("$5,000.50", "500050"),
    (string.punctuation, ""),
    ("“Café” – 5€", "“café” – 5€"),  # punctuation beyond ASCII stays
    ("a’b", "’b"),  # and bounds a word, so that this a is an article
    ("thé", "thé"),  # an accented letter is part of the word
    ("１２３．", "１２３．"),  # full-width forms are not folded
    ("STRASSE Straße", "strasse straße"),  # lower, not casefold
    ("ÅNGSTRÖM", "ångström"),
    ("東京、日本", "東京、日本"),
]


@pytest.mark.parametrize("text, expected", NORMALISED)
def test_normalize_answer_by_hand(text, expected):
    """Lower case, ASCII punctuation, articles, white space: in this order and nothing else."""
    assert normalize_answer(text) == expected


TOKEN_F1 = [
    ("The Cat!", "cat", 1.0, 1.0),
    ("the cat sat on mat", "a cat sat", 2 / 3, 0.0),  # precision 2/4, recall 2/2
    ("cat sat", "the cat sat on mat", 2 / 3, 0.0),  # and the other way round
    ("1970 season", "in 1970", 0.5, 0.0),
    ("go go go", "go go stop", 2 / 3, 0.0),  # repeated tokens count as often as both have them
    ("go", "go go go", 0.5, 0.0),  # precision 1, recall 1/3
    ("sat cat", "cat sat", 1.0, 0.0),  # order counts for the exact match only
    ("dog", "cat", 0.0, 0.0),
    ("", "", 1.0, 1.0),
    ("the", "", 1.0, 1.0),  # an article alone is empty once normalised
    ("cat", "", 0.0, 0.0),
    ("", "cat", 0.0, 0.0),
    ("...", "cat", 0.0, 0.0),
]


@pytest.mark.parametrize("prediction, gold, f1, exact", TOKEN_F1)
def test_token_f1_and_exact_match_by_hand(prediction, gold, f1, exact):
    """Worked-out pairs, among them each way of being empty."""
    assert token_f1(prediction, gold) == pytest.approx(f1, abs=1e-12)
    assert exact_match(prediction, gold) == exact


TEXTS = st.lists(
    st.sampled_from(
        ["a", "an", "The", "cat", "Cat", "sat", ".", ",", "’", "–", "é", "İ", "１", " "]
    )
    | st.sampled_from(["\u3000", "\t", "-", "'s", "_", "東", "\u0301"])
    | st.text(max_size=2)
).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_text_metrics_equal_the_rules(prediction, gold):
    """Normalisation, F1 and exact match on strings made to be awkward."""
    assert normalize_answer(prediction) == " ".join(plain_tokens(prediction))
    assert token_f1(prediction, gold) == pytest.approx(plain_f1(prediction, gold), abs=1e-12)
    assert exact_match(prediction, gold) == (plain_tokens(prediction) == plain_tokens(gold))


# ---- a data set ------------------------------------------------------------------------------


def question(key, *golds):
    """A question of which only the id and the golds' texts matter."""
    return Question(key, "?", "", [Answer(gold, 0) for gold in golds])


FOUR = [
    question("1", "Denver Broncos", "the Broncos"),
    question("2", "in 1970"),
    question("3"),
    question("4"),
]
FOUR_PREDICTIONS = {"1": "Broncos!", "2": "1970 season", "3": "", "4": "Paris"}
# exact: 1, 0, 1, 0; F1: 1, 1/2, 1, 0
FOUR_SCORES = {
    "exact": 50.0,
    "f1": 62.5,
    "total": 4,
    "HasAns_exact": 50.0,
    "HasAns_f1": 75.0,
    "HasAns_total": 2,
    "NoAns_exact": 50.0,
    "NoAns_f1": 50.0,
    "NoAns_total": 2,
}
# With no-answer scores question 3 gets a span, which a threshold of 0 blanks again.
FOUR_SPANS = FOUR_PREDICTIONS | {"3": "Rome"}
FOUR_NO_ANSWER = {"1": -3.0, "2": -1.0, "3": 0.25, "4": 0.0}
# In order of no-answer score: start from 2 right without any answer, question 1 gives +1,
# 2 gives +0 exact and +1/2 F1, 4 and 3 take 1 away each.
FOUR_BEST = {"best_exact": 75.0, "best_exact_thresh": -3.0, "best_f1": 87.5, "best_f1_thresh": -1.0}


def test_four_questions_by_hand():
    """Every official key, with the numbers worked out above."""
    assert_same_scores(squad_scores(FOUR, FOUR_PREDICTIONS), FOUR_SCORES)


@pytest.mark.parametrize(
    "threshold, changes",
    [
        ({}, {"exact": 25.0, "f1": 37.5, "NoAns_exact": 0.0, "NoAns_f1": 0.0}),
        ({"threshold": 0.0}, {}),
        ({"threshold": 0.25}, {"exact": 25.0, "f1": 37.5, "NoAns_exact": 0.0, "NoAns_f1": 0.0}),
        ({"threshold": -0.5}, {"exact": 75.0, "f1": 87.5, "NoAns_exact": 100.0, "NoAns_f1": 100.0}),
    ],
    ids=["default", "0", "highest score", "between"],
)
def test_a_prediction_is_blanked_only_above_the_threshold(threshold, changes):
    """Empty iff score > threshold, which is 1, as in the official script, unless given; question 4 lies at 0. best_* stay."""
    found = squad_scores(FOUR, FOUR_SPANS, FOUR_NO_ANSWER, **threshold)
    assert_same_scores(found, FOUR_SCORES | FOUR_BEST | changes)


def test_an_answerable_question_that_is_blanked_scores_nothing():
    """Below every score all is empty: the unanswerable half is right."""
    scores = squad_scores(FOUR, FOUR_SPANS, FOUR_NO_ANSWER, threshold=-9)
    assert (scores["HasAns_exact"], scores["HasAns_f1"], scores["NoAns_f1"]) == (0.0, 0.0, 100.0)


def test_only_groups_that_exist_are_reported():
    """No HasAns keys without answerable questions, no NoAns keys without unanswerable ones."""
    answerable = squad_scores(FOUR[:2], {"1": "Broncos", "2": ""})
    expected = {"exact": 50.0, "f1": 50.0, "total": 2}
    assert_same_scores(answerable, expected | {f"HasAns_{k}": v for k, v in expected.items()})
    unanswerable = squad_scores(FOUR[2:], {"3": "x", "4": ""})
    assert_same_scores(unanswerable, expected | {f"NoAns_{k}": v for k, v in expected.items()})


def test_golds_that_normalise_to_nothing_are_dropped():
    """A "." next to "cat" is no gold; "the" alone leaves [""], and the question stays HasAns."""
    questions = [question("1", ".", "cat"), question("2", "the")]
    found = squad_scores(questions, {"1": "", "2": ""})
    assert (found["exact"], found["HasAns_total"]) == (50.0, 2)
    assert "NoAns_total" not in found
    assert squad_scores(questions, {"1": "Cat", "2": "the dog"})["f1"] == 50.0


def test_best_threshold_is_0_where_no_answer_helps():
    """All wrong: the best is to leave everything empty, which the official script reports as 0."""
    scores = squad_scores(FOUR, dict.fromkeys("1234", "x"), dict.fromkeys("1234", -5.0))
    assert scores["best_exact"] == scores["best_f1"] == 50.0
    assert scores["best_exact_thresh"] == scores["best_f1_thresh"] == 0.0


def test_a_later_threshold_wins_only_if_strictly_better():
    """Right, wrong on an unanswerable, right again: level at 2, so the first threshold stays."""
    questions = [question("1", "x"), question("2"), question("3", "x")]
    scores = squad_scores(questions, dict.fromkeys("123", "x"), {"1": 1.0, "2": 2.0, "3": 3.0})
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (pytest.approx(200 / 3), 1.0)


def test_equal_no_answer_scores_keep_the_order_of_the_score_file():
    """The official script may stop between equal scores, so the order of the file counts."""
    questions = [question("right", "x"), question("wrong")]
    predictions = {"right": "x", "wrong": "x"}
    first = squad_scores(questions, predictions, {"right": 1.0, "wrong": 1.0})
    last = squad_scores(questions, predictions, {"wrong": 1.0, "right": 1.0})
    assert (first["best_exact"], first["best_exact_thresh"]) == (100.0, 1.0)
    assert (last["best_exact"], last["best_exact_thresh"]) == (50.0, 0.0)


WORDS = "the a an cat Cat sat mat on U.S. 1970 “café” – １２ 東京 o'clock dog’s The".split()


def noisy(text, rng):
    """The text itself, empty, an article, or with a word dropped, added, doubled or moved."""
    words = text.split()
    match rng.randrange(8):
        case 0:
            return ""
        case 1:
            return "the"
        case 2:
            return " ".join(words[1:])
        case 3:
            return " ".join([*words, rng.choice(WORDS)])
        case 4:
            return " ".join(words + words[:1])
        case 5:
            return " ".join(reversed(words))
        case _:
            return text


def noisy_data(questions, rng):
    """Predictions and no-answer scores with ties, the ids of each in an order of its own."""
    predictions, scores = {}, {}
    for q in rng.sample(questions, len(questions)):
        gold = rng.choice(q.answers).text if q.answers else rng.choice(["", "cat"])
        predictions[q.id] = noisy(gold, rng)
    for q in rng.sample(questions, len(questions)):
        scores[q.id] = round(rng.gauss(-0.5 if q.answers else 0.5, 1.0), 1)
    return predictions, scores


def check_against(reference, questions, rng):
    """Without scores, and with them at the default threshold, at one of them and above all."""
    predictions, scores = noisy_data(questions, rng)
    expected = reference(questions, predictions)
    assert_same_scores(squad_scores(questions, predictions), expected)
    for threshold in ({}, {"threshold": -0.7}, {"threshold": math.inf}):
        found = squad_scores(questions, predictions, scores, **threshold)
        assert_same_scores(found, reference(questions, predictions, scores, **threshold))


@pytest.mark.parametrize("reference", REFERENCES)
def test_squad_scores_equal_the_official_rules(reference):
    """3,000 made-up questions, 0 to 3 golds each, some golds empty once normalised."""
    rng = random.Random(0)
    questions = []
    for n in range(3000):
        golds = [
            " ".join(rng.choices(WORDS, k=rng.randint(1, 5))) for _ in range(rng.randint(0, 3))
        ]
        golds += ["cat", "."] if golds else []  # so that no question has empty golds only
        questions.append(question(str(n), *golds))
    check_against(REFERENCES[reference], questions, rng)


@pytest.mark.parametrize("reference", REFERENCES)
def test_squad_scores_equal_the_official_rules_on_squad2_dev(reference):
    """The whole SQuAD 2.0 dev set with noise in the place of predictions."""
    if not SQUAD2_DEV.exists():
        pytest.skip(f"{SQUAD2_DEV.name} is not in EQA_DATA")
    with gzip.open(SQUAD2_DEV, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    rows = [row for article in articles for part in article["paragraphs"] for row in part["qas"]]
    questions = [question(row["id"], *(a["text"] for a in row["answers"])) for row in rows]
    assert len(questions) == 11_873 and sum(not q.answers for q in questions) == 5945
    check_against(REFERENCES[reference], questions, random.Random(1))


def test_best_thresholds_equal_a_search_over_every_cut():
    """Each of the n + 1 cuts of the sorted list scored from scratch.

    Predictions and golds of one question are 1, 2 or 4 tokens long each, so that every F1 and
    every sum is exact in binary and a tie is a tie.
    """
    rng = random.Random(2)
    for trial in range(200):
        questions, predictions, right, scores = [], {}, {}, {}
        for n in range(rng.randint(1, 12)):
            key, length, common = str(n), rng.choice([1, 2, 4]), 0
            if rng.random() < 0.5:
                common = rng.randint(0, length)
                gold = [f"g{k}" for k in range(length)]
                questions.append(question(key, " ".join(gold)))
                predictions[key] = " ".join(gold[:common] + ["x"] * (length - common))
            else:
                questions.append(question(key))
                predictions[key] = rng.choice(["", "x"])
            right[key] = (float(common == length), common / length)
            scores[key] = float(rng.randint(-2, 2))
        order = sorted(scores, key=scores.get)
        found = squad_scores(questions, predictions, scores)
        for column, name in enumerate(("exact", "f1")):
            cuts = []
            for cut in range(len(order) + 1):
                answered = set(order[:cut])
                total = sum(
                    (right[q.id][column] if q.id in answered else 0.0)
                    if q.answers
                    else float(q.id not in answered or not predictions[q.id])
                    for q in questions
                )
                cuts.append(total)
            best = cuts.index(max(cuts))  # the first of the best
            expected = scores[order[best - 1]] if best else 0.0
            assert found["best_" + name] == pytest.approx(100 * cuts[best] / len(order)), trial
            assert found[f"best_{name}_thresh"] == expected, f"trial {trial}, {name}: {cuts}"


@pytest.mark.parametrize("which", ["predictions", "no-answer scores"])
@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_ids_are_checked_both_ways(which, change):
    """A dropped question must not raise the score: a sentence that names the id instead."""
    ids = ["id-one", "id-two"]
    questions = [question(key, "x") for key in ids]
    files = {"predictions": dict.fromkeys(ids, "x"), "no-answer scores": dict.fromkeys(ids, 0.0)}
    if change == "missing":
        del files[which]["id-two"]
    else:
        files[which]["id-three"] = files[which]["id-one"]
    with pytest.raises(InputError, match="id-two" if change == "missing" else "id-three"):
        squad_scores(questions, *files.values())
