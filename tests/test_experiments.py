"""The experiment script on generated text and a tiny BERT: raw lines, stopping, report, texts."""

import json
import random
import re
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import data
import robust_eqa
from data import Answer, Question, read_questions, toy_corpus, write_questions
from model import load_model

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import experiments  # noqa: E402

BERT = str(ROOT / "tests" / "fixtures" / "bert")
ARMS = ["default", "robust+synthetic"]
TINY = ["--init", BERT, "--seeds", "1", "--limit", "64", "--sample", "40", "--epochs", "1"]
TINY += ["--max-length", "80", "--stride", "8", "--warmup", "0", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated questions under the names of the real files."""
    folder = tmp_path_factory.mktemp("experiments")
    dev = toy_corpus(80, 1)
    originals = [q for q in toy_corpus(80, 2) if q.answers]
    fooled = data.attack(originals, "addonesent")
    originals += [replace(q, id=q.id + "-high-conf-turk0") for q in fooled]
    files = {"squad2-train-29k.json.gz": toy_corpus(200, 3), "squad2-dev.json.gz": dev}
    files["addonesent.json.gz"] = originals
    for k, (file, *_) in enumerate(experiments.TESTS.values()):
        group = [q for q in toy_corpus(20, 4 + k) if bool(q.answers) == ("competitive" not in file)]
        files.setdefault(file, group)
    header = Question("Index", "Question", "Text", [])
    files["ace-whqa-competitive.json"] = [header, *files["ace-whqa-competitive.json"]]
    for file, questions in files.items():
        write_questions(questions, folder / file)
    return folder


@pytest.fixture(scope="module")
def call(folder):
    def call(experiment, *more, results="results"):
        """Run the script as from a shell -> the raw lines."""
        places = ["--data", str(folder), "--runs", str(folder / results / "runs")]
        places += ["--results", str(folder / results)]
        experiments.main([experiment, *places, *more])
        file = folder / results / f"{experiment}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    return call


@pytest.fixture(scope="module")
def lines(call):
    return call("main", *TINY, "--arms", *ARMS)


# ---- runs ------------------------------------------------------------------------------------


def f1_by_counting(questions, answers):
    """The mean F1 in per cent, each word of the shorter text crossed out of the longer."""
    scores = []
    for q in questions:
        best = 0.0
        for gold in [a.text for a in q.answers] or [""]:
            texts = (re.sub(r"[^\w\s]", "", text.lower()) for text in (answers[q.id], gold))
            ours, theirs = ([w for w in t.split() if w not in ("a", "an", "the")] for t in texts)
            left, common = list(theirs), 0
            for word in ours:
                if word in left:
                    left.remove(word)
                    common += 1
            total = len(ours) + len(theirs)
            best = max(best, 2 * common / total if total else 1.0)
        scores.append(best)
    return 100 * np.array(scores)


@pytest.mark.parametrize("k", range(len(ARMS)), ids=ARMS)
def test_raw_line(folder, lines, k):
    line, run = lines[k], folder / "results" / "runs" / "main" / f"{ARMS[k]}-0"
    assert (line["arm"], line["seed"], line["switch"]) == (ARMS[k], 0, None)
    assert line["settings"]["loss"] == ARMS[k].split("+")[0]
    assert line["settings"]["synthetic"] == (0.3 if "synthetic" in ARMS[k] else 0.0)
    assert str(folder) not in json.dumps(line), "a raw line names a folder of this machine"
    settings = robust_eqa.Settings(**json.loads((run / "settings.json").read_text()))
    model, tokenizer = load_model(run, head_required=True)
    dev = read_questions(str(folder / "squad2-dev.json.gz"))
    dev = {q.id: q for q in dev if q.id in {x.id for x in random.Random(0).sample(dev, 40)}}
    both = read_questions(str(folder / "addonesent.json.gz"))
    originals = [q for q in both if "-high-conf" not in q.id]
    originals = {q.id: q for q in random.Random(0).sample(originals, 40)}
    competitive = read_questions(str(folder / "ace-whqa-competitive.json"))
    sets = {  # name: its questions, those before the attack
        "negation": (
            data.attack([*read_questions(str(folder / "squad2-dev.json.gz"))], "negation"),
            dev,
        ),
        "addonesent": ([q for q in both if "-high-conf" in q.id], originals),
        "ace-competitive": ([q for q in competitive if q.id != "Index"], {}),
    }
    for name, (questions, before) in sets.items():
        if before:
            questions = [q for q in questions if q.id.split("-high-conf")[0] in before]
        answers = robust_eqa.predict(model, tokenizer, questions, settings)[0]
        after = f1_by_counting(questions, answers)
        found = line["scores"][name]
        assert found["total"] == len(questions), name
        assert abs(found["f1"] - after.mean()) < 1e-9, (name, found["f1"], after.mean())
        if before:
            old = [before[q.id.split("-high-conf")[0]] for q in questions]
            answers = robust_eqa.predict(model, tokenizer, list(before.values()), settings)[0]
            pairs = line["pairs"][name]
            for key, wanted in (("before", f1_by_counting(old, answers)), ("after", after)):
                apart = np.abs(np.array(pairs[key]) / 10 - wanted).max()
                assert len(pairs[key]) == len(wanted) and apart <= 0.0501, (name, key, apart)
            fell = [a < b for b, a in zip(pairs["before"], pairs["after"])]
            assert [letter != "." for letter in pairs["failure"]] == fell, name
    counts = {key: sum(values) for key, values in line["no_answer"].items()}
    dev_scores = line["scores"]["squad2-dev"]
    assert counts == {key: dev_scores[f"{key}_total"] for key in ("HasAns", "NoAns")}


def test_a_second_call_does_nothing(folder, call, lines, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "train", None)  # would raise if it were called
    before = (folder / "results" / "main.jsonl").read_bytes()
    assert call("main", *TINY, "--arms", *ARMS) == lines
    assert (folder / "results" / "main.jsonl").read_bytes() == before
    assert "2 runs done, 0 to do" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--lr", "2e-3"], ["--arms", "robust", "best"]])
def test_refused(call, lines, option):
    with pytest.raises(SystemExit, match="same options|has no arm best"):
        call("main", *TINY, *option)


def test_stopped_and_resumed_equals_unbroken(call, lines, monkeypatch):
    """Ctrl-C at the second step; the second call goes on and ends at the same scores."""
    step, steps = torch.optim.AdamW.step, []

    def stopping(*arguments, **how):
        steps.append(None)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments, **how)

    monkeypatch.setattr(torch.optim.AdamW, "step", stopping)
    with pytest.raises(SystemExit, match="stopped"):
        call("main", *TINY, "--arms", "default", results="stopped")
    (line,) = call("main", *TINY, "--arms", "default", results="stopped")
    assert len(steps) == line["steps"] == lines[0]["steps"], "steps were taken again"
    assert line["resumed"] and not lines[0]["resumed"]
    apart = {k for k in ("scores", "pairs", "no_answer", "settings") if line[k] != lines[0][k]}
    assert not apart, apart


def test_switches_act(call, lines):
    """Each switched arm scores otherwise than without its switch; nothing stays replaced."""
    originals = robust_eqa.robust_loss, robust_eqa.make_windows, data.synthetic_answer
    scores = [lines[1]["scores"]]
    for name in ("ablations", "kinds"):
        arms = {a: changes for a, changes in experiments.ARMS[name].items() if "switch" in changes}
        for line in call(name, *TINY, "--arms", *arms):
            assert line["switch"] == arms[line["arm"]]["switch"]
            assert line["scores"] not in scores, f"{line['arm']} scores as another arm"
            scores.append(line["scores"])
    now = robust_eqa.robust_loss, robust_eqa.make_windows, data.synthetic_answer
    assert now == originals and robust_eqa.collate is data.collate


def test_further_attacks_use_the_trained_models(call, lines, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", None)  # would raise: nothing is trained
    found = call("attacks", *TINY, "--arms", *ARMS)
    for line, trained in zip(found, lines, strict=True):
        assert line["scores"]["squad2-dev"] == trained["scores"]["squad2-dev"]
        assert line["scores"].keys() - {"squad2-dev"} == experiments.FURTHER.keys()
        assert line["scores"]["negation-last"] == trained["scores"]["negation"]
        assert "NoAns_f1" in line["scores"]["entity-swap"]


def test_progress_and_tune(folder, call):
    (line,) = call("progress", *TINY, "--arms", "default")
    steps = [entry["step"] for entry in line["progress"] if entry["eval"] == "squad2-dev"]
    assert steps == sorted(set(steps)) and len(steps) == line["steps"] - 1, (steps, line["steps"])
    arm = next(iter(experiments.ARMS["tune"]))
    (line,) = call("tune", *TINY, "--arms", arm)
    assert line["settings"]["loss"] == "default" and line["settings"]["lr"] == 1e-4
    place = folder / "results" / "runs" / "tune"
    held = read_questions(str(place / "held-out.json"))
    kept = read_questions(str(place / "64-of-squad2-train-29k.json.gz"))
    shared = {q.context for q in held} & {q.context for q in kept}
    assert len(kept) == 64 and not shared, f"{len(shared)} paragraphs are in both parts"
    assert line["scores"]["held-out"]["total"] == min(40, len(held))


# ---- the report ------------------------------------------------------------------------------


def table(text, head):
    """The report's table whose first cell is `head`: [[cell]] without head and rule."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    first = next(k for k, row in enumerate(rows) if row[0] == head)
    rows = rows[first : rows.index([""], first) if [""] in rows[first:] else None]
    return rows[0], rows[2:]


def made_up_line(arm, seed, before, after, failure, none):
    """A raw line of main whose HasAns sets have the F1 `before`'s mean, NoAns sets `none`."""
    has = float(np.mean(before)) / 10
    scores = {}
    for name in experiments.TESTS:
        scores[name] = {"f1": has, "HasAns_f1": has}
        if name in ("information-seeking", "ace-competitive", "ace-non-competitive"):
            scores[name] = {"f1": none, "NoAns_f1": none}
    scores["squad2-dev"] |= {"f1": (has + none) / 2, "NoAns_f1": none, "best_f1": 90.0}
    pairs = {"negation": {"ids": 1, "before": before, "after": after, "failure": failure}}
    line = {"experiment": "main", "arm": arm, "seed": seed, "common": {}, "minutes": {"train": 2}}
    return line | {"scores": scores, "pairs": pairs}


def test_report_by_hand(tmp_path, capsys):
    """Two seeds: default falls from 80 to 40 and 30, the paper's arm from 70 to 60 and 70."""
    lines = [
        made_up_line("default", 0, [1000, 1000, 1000, 200], [0, 600, 800, 200], "bdo.", 50.0),
        made_up_line("default", 1, [1000, 1000, 1000, 200], [0, 200, 800, 200], "bdd.", 60.0),
        made_up_line(
            "robust+synthetic", 0, [1000, 1000, 800, 0], [600, 1000, 800, 0], "o...", 80.0
        ),
        made_up_line(
            "robust+synthetic", 1, [1000, 1000, 800, 0], [1000, 1000, 800, 0], "....", 80.0
        ),
        made_up_line("robust", 0, [1000, 1000, 0, 0], [0, 1000, 0, 0], "b...", 90.0),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "main.jsonl").write_text(text)
    experiments.main(["report", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "5 runs, 10 minutes" in printed and printed.count("0 runs, 0 minutes") == 5
    head, rows = table(printed, "F1, mean ± sd (seeds)")
    assert head[1:] == ["default", "robust", "default+synthetic", "robust+synthetic"]
    rows = {row[0]: row[1:] for row in rows}
    assert rows["squad2-dev NoAns_f1"] == [
        "55.0 ± 7.1 (2)",
        "90.0 (1)",
        "not run",
        "80.0 ± 0.0 (2)",
    ]
    assert rows["mean of HasAns sets"][0] == "80.0 ± 0.0 (2)"
    assert rows["mean of NoAns sets"][0] == "55.0 ± 7.1 (2)"
    assert rows["mean of both means"][0] == "67.5 ± 3.5 (2)"
    rows = {row[1]: row[2:] for row in table(printed, "attack")[1]}
    assert rows["default"][:3] == ["80.0 ± 0.0 (2)", "35.0 ± 7.1 (2)", "45.0 ± 7.1 (2)"]
    assert rows["default"][4:] == ["25.0 / 37.5 / 12.5", "1.00"]
    assert rows["robust+synthetic"][2] == "5.0 ± 7.1 (2)"
    assert rows["robust+synthetic"][4:] == ["0.0 / 0.0 / 12.5", "0.11"]  # 5 / 45
    assert rows["robust"][-1] == "none: F1 before is 80.0 (default) and 50.0, not 60"
    assert "default+synthetic" not in rows


def test_small_drops_have_no_ratio():
    small = np.array([[[90.0, 90.0], [90.0, 85.0]]])
    assert experiments.drop_ratio(small, small).startswith("none: default loses 2.5")
    assert experiments.drop_ratio(small[:0], small) == "none: default is not run"


def test_interval_is_that_of_a_binomial():
    """400 questions of which a quarter loses all: the mean 25 is known to ± 1.96 * 2.17."""
    low, high = experiments.interval(np.repeat([100.0, 0.0], [100, 300]))
    wanted = 25 - 1.96 * 43.3 / 20, 25 + 1.96 * 43.3 / 20
    assert abs(low - wanted[0]) < 0.5 and abs(high - wanted[1]) < 0.5, (low, high, wanted)


def test_report_follows_from_the_raw_file(folder, lines, capsys):
    experiments.main(["report", "--results", str(folder / "results")])
    printed = capsys.readouterr().out.split("## ablations")[0]
    _, rows = table(printed, "F1, mean ± sd (seeds)")
    for name, *cells in rows[:5]:
        for cell, line in zip((cells[0], cells[3]), lines):
            where, key = name.split()
            assert cell == f"{line['scores'][where][key]:.1f} (1)", (name, cell)
    for name, arm, before, after, drop, _, kinds, _ in table(printed, "attack")[1]:
        pairs = lines[ARMS.index(arm)]["pairs"][name]
        old, new = np.mean(pairs["before"]) / 10, np.mean(pairs["after"]) / 10
        assert [before, after, drop] == [f"{x:.1f} (1)" for x in (old, new, old - new)]
        shares = Counter(pairs["failure"])
        shares = [100 * shares[letter] / len(pairs["failure"]) for letter in "bdo"]
        assert kinds == " / ".join(f"{share:.1f}" for share in shares)


# ---- texts -----------------------------------------------------------------------------------
ADA = Question(
    "1", "Where was Ada Abel born?", "Ada Abel sang. She was born in Rome. It is far.", []
)
ADA = replace(ADA, answers=[Answer("Rome", 31)])
FOOLED = replace(ADA, context=ADA.context + " Ben Berg was born in Oslo.")


@pytest.mark.parametrize(
    "answer, letter",
    [
        ("", "b"),
        ("Oslo", "d"),
        ("born in Oslo", "d"),
        ("Ben", "d"),
        ("far", "o"),
        ("was born", "o"),
    ],
)
def test_failures_by_hand(answer, letter):
    assert experiments.failure(ADA, FOOLED, answer) == letter


def test_failure_of_a_moved_sentence():
    """Words of both texts in an order that only the added one has; and a sentence in the middle."""
    told = replace(ADA, context="Ada Abel sang. Ada sang far. She was born in Rome. It is far.")
    assert experiments.failure(ADA, told, "sang far") == "d"
    assert experiments.failure(ADA, told, "Ada Abel") == "o"


def places(question):
    return [question.context[a.start : a.start + len(a.text)] for a in question.answers]


def test_moved_by_hand():
    first, middle = (experiments.moved(ADA, FOOLED, where) for where in ("first", "middle"))
    assert first.context == "Ben Berg was born in Oslo. " + ADA.context
    wanted = "Ada Abel sang. She was born in Rome. Ben Berg was born in Oslo. It is far."
    assert middle.context == wanted
    assert places(first) == places(middle) == ["Rome"]


def test_true_statement_by_hand():
    (stated,) = experiments.true_statement([ADA])
    assert stated.context == ADA.context + " Rome was Ada Abel born."
    assert stated.answers == ADA.answers and stated.question == ADA.question


def test_changed_texts():
    """Golds stand where they should; swapped entities are not in the text; the rest is as before."""
    questions = toy_corpus(200, 5)
    by_id, pool = {q.id: q for q in questions}, data.answer_pool(questions)
    for name, (_, make, _) in experiments.FURTHER.items():
        changed = make(questions)
        assert len(changed) > 50, f"{name}: only {len(changed)} questions"
        for q in changed:
            before = by_id[q.id]
            if name == "entity-swap":
                new = set(q.question.split()) - set(before.question.split())
                assert not q.answers and q.context == before.context and new, q
                assert " ".join(sorted(new)) not in q.context
            else:
                assert places(q) == [a.text for a in before.answers], (name, q)
                assert q.question == before.question and len(q.context) > len(before.context)
    rng = random.Random(0)
    for make in (experiments.random_span, experiments.three_kinds):
        changed = [make(q, pool, rng) for q in questions]
        for q, before in zip(changed, questions):
            if q is not None:
                assert places(q) == [a.text for a in q.answers], (make.__name__, q)
                assert q.answers[:-1] == [
                    replace(a, start=b.start) for a, b in zip(before.answers, q.answers)
                ]
                if make is experiments.random_span:
                    assert q.answers[-1].text in before.context


def test_switched_losses_by_hand():
    """[CLS] as label where there is none, padding with a mask of ones, both written out."""
    torch.manual_seed(0)
    start, end = torch.randn(2, 2, 4)
    labels, mask = (
        torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 0]]),
        torch.tensor([[1, 1, 1, 0]] * 2) > 0,
    )
    filled = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
    batch = start, end, labels, labels, mask
    wanted = robust_eqa.robust_loss(start, end, filled, filled, mask, 1.0, 3.0, 2.0)
    found = experiments.cls_label(*batch, 1.0, 3.0, 2.0)
    assert abs(found - wanted) < 1e-6, (found, wanted)
    assert labels.sum() == 1, "the labels themselves were changed"
    wanted = robust_eqa.robust_loss(*batch[:4], mask | True, 1.0, 3.0, 2.0)
    assert abs(experiments.padding_counts(*batch, 1.0, 3.0, 2.0) - wanted) < 1e-6
