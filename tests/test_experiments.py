"""notebooks/experiments.py: its parts by hand-made cases, then the whole on small files."""

import gzip
import json
import math
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data import Answer, Question, attack, toy_corpus
from model import load_model, new_model, save_model
from robust_eqa import Settings, predict, squad_scores

sys.path.append(str(Path(__file__).parents[1] / "notebooks"))
import experiments  # noqa: E402

CONTEXT = "Ada Lee lives in Oslo. She moved in 1999. Ben Kay left Rome."
OSLO = Question("q", "Where does Ada Lee live?", CONTEXT, [Answer("Oslo", 17)])


def made(statement):
    return replace(OSLO, context=f"{CONTEXT} {statement}")


def test_of_the_versions_of_a_question_the_worst_counts():
    versions = [replace(OSLO, id=f"q{end}") for end in ("", "-high-conf-turk0", "-high-conf-turk1")]
    questions = [*versions, replace(OSLO, id="r")]  # which has no other version
    spans = dict.fromkeys((q.id for q in questions), "Oslo")
    spans["q-high-conf-turk1"] = "Oslo or Rome"
    no_answer = dict.fromkeys(spans, -1.0) | {"r": 2.0}
    answered = experiments.worst_versions(questions, (spans, no_answer), math.inf)
    assert answered == {"total": 2, "exact": 50, "f1": 75}  # of 0 and 100, 50 and 100
    refused = experiments.worst_versions(questions, (spans, no_answer), 0)
    assert refused == {"total": 2, "exact": 0, "f1": 25}
    no_answer["q"] = 2.0  # the original too may be the worst
    assert experiments.worst_versions(versions, (spans, no_answer), 0)["f1"] == 0


def test_where_the_answers_to_addonesent_come_from():
    attacked = [replace(made("Eve Fox lives in Bonn, not Rome."), id="q-high-conf-turk0")]
    tests = {"addonesent-originals": [OSLO], "addonesent": attacked}
    cases = {"Bonn": "added", "Rome. Eve Fox": "added", "Oslo": "elsewhere", "Rome": "either"}
    for span, where in cases.items():
        after = {"q-high-conf-turk0": span}, {"q-high-conf-turk0": -0.5}
        predicted = {"addonesent-originals": ({"q": "Oslo"}, {"q": 0.5}), "addonesent": after}
        found = experiments.answer_origins(tests, predicted, threshold=0)
        assert found == {"before": Counter(none=1), "after": Counter([where])}, span
        found = experiments.answer_origins(tests, predicted, threshold=-1)
        assert found["after"] == Counter(none=1), span


LONG = "Oslo. She moved in 1999. Ben"  # which holds both inner bounds
MOVED = [  # place, a gold, the context with the statement moved
    ("-first", "Oslo", f"Eve left Bonn. {CONTEXT}"),
    ("-middle", "1999", CONTEXT.replace("She", "Eve left Bonn. She")),
    ("-middle", LONG, f"Eve left Bonn. {CONTEXT}"),
]


@pytest.mark.parametrize("place, gold, context", MOVED)
def test_a_statement_moves_and_the_golds_stay_in_place(place, gold, context):
    golds = [Answer(gold, CONTEXT.index(gold)), Answer("Ada", 0), Answer("x", -1)]
    attacked = replace(made("Eve left Bonn."), id="attacked", answers=golds)
    moved = experiments.move_statement(attacked, replace(OSLO, answers=golds), place)
    golds = [Answer(gold, context.index(gold)), Answer("Ada", context.index("Ada")), golds[2]]
    assert moved == replace(attacked, context=context, answers=golds)


def test_our_attacks_are_the_same_questions_at_three_places():
    questions = toy_corpus(80, 1)
    ids = {q.id for q in questions[:40]}
    tests = experiments.made_attacks(questions, ids)
    kept = [q for q in attack(questions, "negation") if q.id in ids]
    assert tests["negation"] == kept and kept
    for place in ("-first", "-middle"):
        for q, moved in zip(kept, tests[f"negation{place}"], strict=True):
            assert sorted(moved.context.split()) == sorted(q.context.split())
            assert all(moved.context.startswith(gold.text, gold.start) for gold in moved.answers)


def line(arm, seed, drop, **settings):
    usual = asdict(Settings(**experiments.ARMS[arm], **settings))
    attacks = {"all answered": {"negation": {"before": 80.0, "after": 80 - drop, "drop": drop}}}
    scores = {"squad2-dev": {"total": 9, "f1": 70.0}}
    scores = {"threshold 0": scores, "all answered": scores}
    found = {"arm": arm, "seed": seed, "settings": usual, "commit": "abc", "command": ""}
    return found | {"scores": scores, "attacks": attacks}


def test_drops_stand_beside_those_of_default_by_seed():
    lines = [line("default", 0, 20.0), line("default", 1, 30.0)]
    lines += [line("robust", 1, 25.0), line("robust", 0, 18.0), line("robust", 2, 99.0)]
    rows = experiments.attack_rows(experiments.by_arm(lines), "all answered")
    assert rows[1][1:5] == ["default", "80.0 ± 0.0 (2)", "55.0 ± 7.1 (2)", "25.0 ± 7.1 (2)"]
    # mean -3.5, deviation 2.12, 12.71 * 2.12 / sqrt(2) = 19.07
    assert rows[2][5:] == ["-5.0, -2.0", "-3.5 (-22.6 to +15.6; 2 seeds)"]
    assert experiments.interval([1.5]) == "+1.5 (1 seed)"


def test_only_runs_of_equal_settings_and_questions_stand_side_by_side():
    other_test = line("robust", 0, 1.0)
    other_test["scores"] = {"threshold 0": {"squad2-dev": {"total": 8, "f1": 70.0}}}
    lines = [line("default", 0, 1.0), line("robust", 0, 1.0, head_bias=-5.0), other_test]
    lines += [line("robust", 0, 1.0, lr=1e-4), line("robust", 0, 1.0, max_length=128)]
    groups = list(experiments.comparable(lines).values())
    assert [len(group) for group in groups] == [2, 1, 1, 1]
    assert list(experiments.by_arm(groups[0])) == ["default", "robust, head_bias -5"]


def test_the_last_tables_tests_stay_out_of_the_mean_and_of_choices():
    scores = {name: {"f1": 50.0} for name in experiments.TESTS}
    scores |= {"held-out": {"f1": 0.0}, "negation-first": {"f1": 0.0}, "addsent": {"f1": 0.0}}
    one = {"scores": {"calibrated": scores}, "command": ""}
    found = experiments.measures(one, "calibrated")
    assert found["mean of all sets"] == 50 and found["addsent F1"] == 0
    one["command"] = "... --choose"
    assert list(experiments.measures(one, "calibrated")) == ["held-out F1", "mean of all sets"]


def test_experiments_end_to_end(tmp_path, capsys):
    dev, versions = toy_corpus(80, 1), []
    originals = [q for q in dev if q.answers]
    for turk, kind in enumerate(("addonesent", "negation")):
        attacked = attack(originals, kind)
        versions.append([replace(q, id=f"{q.id}-high-conf-turk{turk}") for q in attacked])
    files = {"squad2-train-29k": toy_corpus(200, 0), "squad2-dev": dev}
    files["addonesent"] = originals + versions[0]
    files["addsent"] = originals + versions[0] + versions[1]
    for name, questions in files.items():
        rows = json.dumps(list(map(asdict, questions))).replace('"start"', '"answer_start"')
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(rows.encode()))
    save_model(*new_model([q.context for q in toy_corpus(200, 0)], 128), tmp_path / "small")
    summary, arms = tmp_path / "summary.jsonl", ["default", "robust+synthetic", "default+both"]
    command = ["--arm", *arms, "--set", "epochs=1", "lr=1e-3", "--init", f"{tmp_path}/small"]
    command += f"--data {tmp_path} --runs {tmp_path}/runs --summary {summary}".split()
    for _ in range(2):  # a run that has its line is not repeated
        experiments.main(command)
        lines = experiments.read_lines(summary)
        assert [line["arm"] for line in lines] == arms
    shares = [[line["settings"][key] for key in ("synthetic", "distractors")] for line in lines]
    assert shares == [[0, 0], [0.3, 0], [0.3, 0.5]]
    losses = {}
    for line in lines:
        (folder,) = (tmp_path / "runs").glob(f"small-{line['arm']}-0-*")
        losses[line["arm"]] = (folder / "metrics.jsonl").read_text()
        decoding = Settings(loss=line["settings"]["loss"])
        answers, spans, _ = predict(*load_model(folder), dev, decoding)
        for way, found in (("threshold 0", answers), ("all answered", spans)):
            scores, attacks = line["scores"][way], line["attacks"][way]
            f1 = pytest.approx(squad_scores(dev, found)["f1"], abs=0.01)
            assert scores["squad2-dev"]["f1"] == f1, way
            assert scores["addsent"]["total"] == len(originals)
            assert attacks["addsent"]["after"] <= scores["addonesent-originals"]["f1"]
            assert {"negation", "negation-first", "addonesent-like-middle"} <= attacks.keys()
            for counts in line["addonesent answers"][way].values():
                assert sum(counts.values()) == len(versions[0]), counts
    assert losses["default"] != losses["default+both"]  # whose texts have more sentences
    experiments.main(["report", "--summary", str(summary)])
    header = "| F1, mean ± sd (seeds) | default | robust+synthetic | default+both |"
    assert header in capsys.readouterr().out
    experiments.main([*command, "--arm", "default", "--choose"])  # which sees no test
    chosen = experiments.read_lines(summary)[-1]
    assert all(name.startswith("held-out") for name in chosen["scores"]["threshold 0"])
    with pytest.raises(SystemExit, match="loss=typo"):
        experiments.main([*command, "--set", "loss=typo"])
