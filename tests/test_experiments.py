"""The experiment script on generated text and a tiny BERT: raw lines, stopping, report, texts."""

import json
import random
import re
import signal
import sys
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
        apart = np.abs(experiments.question_f1(line, name, 0.0) - after).max()
        assert apart <= 0.0501, (name, apart)
        if before:
            old = [before[q.id.split("-high-conf")[0]] for q in questions]
            answers = robust_eqa.predict(model, tokenizer, list(before.values()), settings)[0]
            (pairs,), _ = experiments.attack_pairs([line], name, lambda line: 0.0)
            for f1, wanted in zip(pairs, (f1_by_counting(old, answers), after), strict=True):
                assert np.abs(f1 - wanted).max() <= 0.0501, name
    for name, found in line["questions"].items():
        scores = line["scores"][name]
        assert len(found["f1"]) == len(found["no_answer"]) == scores["total"], name
        for group, chosen in zip(("NoAns", "HasAns"), np.arange(2)[:, None]):
            chosen = experiments.answerable(line, name) == chosen
            if chosen.any():
                f1 = experiments.question_f1(line, name, 0.0)[chosen].mean()
                assert abs(f1 - scores[f"{group}_f1"]) < 0.051, (name, group)


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
    step, steps = robust_eqa.adamw_step, []

    def stopping(*arguments, **how):
        steps.append(None)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments, **how)

    monkeypatch.setattr(robust_eqa, "adamw_step", stopping)
    with pytest.raises(SystemExit, match="stopped"):
        call("main", *TINY, "--arms", "default", results="stopped")
    (line,) = call("main", *TINY, "--arms", "default", results="stopped")
    assert len(steps) == line["steps"] == lines[0]["steps"], "steps were taken again"
    assert line["resumed"] and not lines[0]["resumed"]
    apart = {k for k in ("scores", "questions", "settings") if line[k] != lines[0][k]}
    assert not apart, apart


def test_switches_act(call, lines):
    """Each switched arm scores otherwise than without its switch; nothing stays replaced."""
    originals = robust_eqa.robust_loss, robust_eqa.make_windows, data.synthetic_answer
    scores = [lines[1]["scores"]]
    for name in ("ablations", "kinds", "ours"):
        arms = {a: changes for a, changes in experiments.ARMS[name].items() if "switch" in changes}
        for line in call(name, *TINY, "--arms", *arms):
            assert line["switch"] == arms[line["arm"]]["switch"]
            assert line["scores"] not in scores, f"{line['arm']} scores as another arm"
            scores.append(line["scores"])
    now = robust_eqa.robust_loss, robust_eqa.make_windows, data.synthetic_answer
    assert now == originals and robust_eqa.collate is data.collate


def test_further_attacks_use_the_trained_models(call, lines, monkeypatch):
    monkeypatch.setattr(robust_eqa, "adamw_step", None)  # would raise: nothing is trained
    found = call("attacks", *TINY, "--arms", *ARMS)
    for line, trained in zip(found, lines, strict=True):
        assert line["scores"]["squad2-dev"] == trained["scores"]["squad2-dev"]
        unchanged = {"held-out", *experiments.UNCHANGED}
        assert line["scores"].keys() - unchanged == experiments.FURTHER.keys()
        assert line["scores"]["negation-last"] == trained["scores"]["negation"]
        assert "NoAns_f1" in line["scores"]["entity-swap"]


def test_progress_and_tune(folder, call, lines):
    """At 10% steps, of default and of the paper's arm; their sets are parts of main's."""
    for line in lines:
        for name in experiments.UNCHANGED:
            steps = [x["step"] for x in line["progress"] if x["eval"] == f"{name}-400"]
            assert steps == sorted(set(steps)) and len(steps) == line["steps"] - 1, steps
    arm = next(iter(experiments.ARMS["tune"]))
    (line,) = call("tune", *TINY, "--arms", arm)
    assert line["settings"]["loss"] == "default" and line["settings"]["dropout"] == 0.1
    place = folder / "results" / "runs" / "tune"
    kept = read_questions(str(place / "64-of-squad2-train-29k.json.gz"))
    held = line["scores"]["held-out"]["total"]
    assert len(kept) == 64 and 16 <= held <= 40


# ---- the report ------------------------------------------------------------------------------


def table(text, head):
    """The report's table whose first cell is `head`: [[cell]] without head and rule."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    first = next(k for k, row in enumerate(rows) if row[0] == head)
    rows = rows[first : rows.index([""], first) if [""] in rows[first:] else None]
    return rows[0], rows[2:]


def made_up_line(arm, seed, before, after, none, no_answer=(-1, -1, -1, -1), distracted=(0,) * 4):
    """A raw line of main: F1 `before` on sets with answers, `none` of 10 blank on the others."""
    has = {"ids": 1, "f1": before, "answerable": [1] * 4, "no_answer": [-1] * 4}
    has_no = {"ids": 2, "f1": [0] * 10, "answerable": [0] * 10}
    has_no["no_answer"] = [1] * none + [-1] * (10 - none)
    both = {key: has[key] + has_no[key] for key in ("f1", "answerable", "no_answer")}
    questions = {"held-out": both}
    for name in experiments.TESTS:
        questions[name] = has
        if name in ("information-seeking", "ace-competitive", "ace-non-competitive"):
            questions[name] = has_no
    attacked = {
        "ids": 3,
        "f1": after,
        "answerable": [1] * 4,
        "no_answer": no_answer,
        "distracted": distracted,
    }
    questions |= {"squad2-dev": both, "negation": attacked | {"source": [0, 1, 2, 3]}}
    questions |= {"addonesent": attacked | {"source": [0, 1, 2, 3], "f1": before}}
    scores = {name: {"best_f1": 90.0} for name in questions}
    line = {"experiment": "main", "arm": arm, "seed": seed, "common": {}, "minutes": {"train": 2}}
    line |= {"commit": "c0ffee", "machine": {}}
    return line | {"scores": scores, "questions": questions, "settings": {"threshold": 0.0}}


def test_report_by_hand(tmp_path, capsys):
    """Two seeds: default falls from 80 to 40 and 30, the paper's arm from 70 to 60 and 70."""
    full, most = [1000, 1000, 1000, 200], [1000, 1000, 800, 0]
    blank, first = (1, -1, -1, -1), (0, 1, 0, 0)
    paper = "robust+synthetic"
    lines = [
        made_up_line("default", 0, full, [500, 600, 800, 200], 5, blank, first),
        made_up_line("default", 1, full, [900, 200, 800, 200], 6, blank, (0, 1, 1, 0)),
        made_up_line(paper, 0, most, [600, 1000, 800, 0], 8),
        made_up_line(paper, 1, most, most, 8),
        made_up_line("robust", 0, [1000, 1000, 0, 0], [1000, 1000, 0, 0], 9, blank),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "main.jsonl").write_text(text)
    experiments.main(["report", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "5 runs, 10 minutes" in printed and printed.count("0 runs, 0 minutes") == 5
    rows = {row[0]: row[1:] for row in table(printed, "arm")[1]}
    assert rows["squad2-dev NoAns"] == ["55.0 ± 7.1 (2)", "90.0 (1)", "not run", "80.0 ± 0.0 (2)"]
    lost = rows["F1 lost to negation, all answered; share of default's"]  # (28 + 27) / 2, 10 and 0
    assert lost == ["27.5 ± 0.0 (2)", "0.0 (1) (0.00)", "not run", "5.0 ± 7.1 (2) 0.18"]
    head, rows = table(printed, "F1, mean ± sd (seeds)")
    assert head[1:] == ["default", "robust", "default+synthetic", paper]
    rows = {row[0]: row[1:] for row in rows}
    wanted = ["55.0 ± 7.1 (2)", "90.0 (1)", "not run", "80.0 ± 0.0 (2)"]
    assert rows["squad2-dev NoAns"] == wanted
    # eight sets of F1 80 but for negation's 40 and 30, addonesent's 60, 55 where one is blank
    means = [np.mean([80.0] * 5 + [55.0] + [after]) for after in (40.0, 30.0)]
    assert rows["mean of HasAns sets"][0] == experiments.spread(means)
    assert rows["mean of NoAns sets"][0] == "55.0 ± 7.1 (2)"
    means = [(has + none) / 2 for has, none in zip(means, (50, 60))]
    assert rows["mean of both means"][0] == experiments.spread(means)
    alike = [
        np.mean([(4 * 80 + 10 * none) / 14, *[80.0] * 4, 55.0, negation, *[none] * 3])
        for negation, none in ((40.0, 50.0), (30.0, 60.0))
    ]
    assert rows["mean of all sets"][0] == experiments.spread(alike)
    rows = {row[0]: row[1:] for row in table(printed, "minus default's, same seed")[1]}
    # dev: (4 * 80 + 50) / 14 and (4 * 80 + 60) / 14 against (4 * 70 + 80) / 14
    gains = [(10 * 80 + 4 * 70 - 4 * 80 - 10 * none) / 14 for none in (50, 60)]
    assert rows["squad2-dev F1"] == [
        "0.0 ± 0.0 (2)",
        f"{(4 * 50 + 10 * 90 - 4 * 80 - 10 * 50) / 14:.1f} (1)",
        "not run",
        experiments.spread(gains),
    ]
    drops = [row for row in table(printed, "attack")[1] if row[0] == "negation"]
    rows = {row[1]: row[2:] for row in drops}
    assert rows["default"][:3] == ["80.0 ± 0.0 (2)", "35.0 ± 7.1 (2)", "45.0 ± 7.1 (2)"]
    assert rows["default"][4:] == ["-", "-", "25.0 / 37.5 / 12.5"]
    assert rows[paper][2] == "5.0 ± 7.1 (2)"
    assert rows[paper][5:] == ["0.11", "0.0 / 0.0 / 12.5"]  # 5 / 45
    low, high = map(float, rows[paper][4].split(" to "))
    assert low <= -40 <= high, "5 - 45"
    assert rows["robust"][-2] == "(0.62)"  # 25 / 40, of seed 0; F1 before is 50
    assert "default+synthetic" not in rows


def test_calibration_by_hand():
    """Two golds found and one missed, two blanks: the threshold between the surest ones is best."""
    line = {"questions": {"held-out": {}}}
    found = {"f1": [1000, 500, 0, 0, 0], "answerable": [1, 1, 1, 0, 0]}
    found["no_answer"] = [-3, 0.5, 2, 1, 4]
    line["questions"]["held-out"] = found
    assert experiments.calibrated(line) == 0.5
    found["f1"][1] = 0  # then nothing is lost by calling it blank
    assert experiments.calibrated(line) == -3


def test_small_drops_have_no_ratio():
    small = np.array([[[90.0, 90.0], [90.0, 85.0]]])
    assert experiments.drop_ratio(small, small).startswith("none: default loses 2.5")


def test_interval_is_that_of_a_binomial():
    """400 questions of which a quarter loses all: the mean 25 is known to ± 1.96 * 2.17."""
    low, high = experiments.interval(np.repeat([100.0, 0.0], [100, 300]))
    wanted = 25 - 1.96 * 43.3 / 20, 25 + 1.96 * 43.3 / 20
    assert abs(low - wanted[0]) < 0.5 and abs(high - wanted[1]) < 0.5, (low, high, wanted)


def test_report_follows_from_the_raw_file(folder, lines, capsys):
    experiments.main(["report", "--results", str(folder / "results")])
    printed = capsys.readouterr().out.split("## ablations")[0]
    _, rows = table(printed, "F1, mean ± sd (seeds)")
    for name, *cells in rows[:9]:
        where, key = name.split(" ", 1)
        key = {"F1": "f1", "HasAns": "HasAns_f1", "NoAns": "NoAns_f1"}.get(key, "best_f1")
        for cell, line in zip((cells[0], cells[3]), lines):
            found = line["scores"][where][key]
            assert abs(float(cell.removesuffix(" (1)")) - found) < 0.11, (name, cell, found)
    for name, arm, _, after, *_ in table(printed, "attack")[1]:
        found = lines[ARMS.index(arm)]["scores"][name]["f1"]
        assert abs(float(after.removesuffix(" (1)")) - found) < 0.11, (name, arm)


def test_readme_shows_what_the_report_prints(capsys):
    """Every row of the README's results that has three means over seeds is a row of the report."""
    experiments.main(["report"])
    printed = set(capsys.readouterr().out.splitlines())
    results = (ROOT / "README.md").read_text("utf-8").split("## Results")[1].split("\n## ")[0]
    rows = [row for row in results.splitlines() if re.search(r"(\|[^|]*\(\d\)[^|]*){3}", row)]
    missing = [row for row in rows if row not in printed]
    assert rows and not missing, "\n".join(missing)


# ---- texts -----------------------------------------------------------------------------------
ADA = Question(
    "1", "Where was Ada Abel born?", "Ada Abel sang. She was born in Rome. It is far.", []
)
ADA = replace(ADA, answers=[Answer("Rome", 31)])
FOOLED = replace(ADA, context=ADA.context + " Ben Berg was born in Oslo.")


@pytest.mark.parametrize("answer", ["Oslo", "born in Oslo", "Ben"])
def test_distracted_by_hand(answer):
    assert experiments.distracted(ADA, FOOLED, answer)
    assert not any(experiments.distracted(ADA, FOOLED, text) for text in ("far", "was born", ""))


def test_distracted_by_a_moved_sentence():
    """Words of both texts in an order that only the added one has; and a sentence in the middle."""
    told = replace(ADA, context="Ada Abel sang. Ada sang far. She was born in Rome. It is far.")
    assert experiments.distracted(ADA, told, "sang far")
    assert not experiments.distracted(ADA, told, "Ada Abel")


def added_text(question, made):
    """The sentence that `made` has and the question has not."""
    longer = len(made.context) - len(question.context)
    slots = range(len(question.context) + 1)
    cut = (made.context[:k] + made.context[k + longer :] for k in slots)
    first = next(k for k, text in enumerate(cut) if text == question.context)
    return made.context[first : first + longer]


def test_contrast():
    """Some added sentences answer the question; the others name none of its names and are no gold."""
    questions = [q for q in toy_corpus(400, 5) if q.answers]
    pool, rng, others = data.answer_pool(questions), random.Random(0), 0
    for q in questions:
        made = experiments.contrast(q, pool, rng)
        assert places(made) == [a.text for a in made.answers], made
        assert made.answers[0].text == q.answers[0].text and made.question == q.question
        added, others = added_text(q, made), others + (len(made.answers) == 1)
        names = [name for name in data.ENTITY.findall(q.question) if name in added]
        assert len(made.answers) == 2 or not names, (q.question, added)
    assert 0.65 * len(questions) < others < 0.85 * len(questions), others


def test_distractor():
    """Half the added sentences say "not", the others name none of the question's names; no gold."""
    questions = [q for q in toy_corpus(400, 5) if q.answers]
    pool, rng, negated = data.answer_pool(questions), random.Random(0), 0
    for q in questions:
        made = experiments.distractor(q, pool, rng)
        assert places(made) == [a.text for a in made.answers] == [q.answers[0].text], made
        assert made.question == q.question
        added = added_text(q, made)
        names = [name for name in data.ENTITY.findall(q.question) if name in added]
        assert (" not " in f" {added}") == bool(names), (q.question, added)
        negated += bool(names)
    assert 0.4 * len(questions) < negated < 0.6 * len(questions), negated
    nameless = Question("1", "who was it?", "it was Ada. so it ended.", [Answer("Ada", 7)])
    for seed in range(20):  # no name to exchange: it says "not" after the auxiliary
        made = experiments.distractor(nameless, ["Bob"], random.Random(seed))
        assert re.search(r"(was|is) not Bob", made.context) and len(made.answers) == 1, made


def test_distract_all():
    """A share of both kinds of questions gets a sentence; each keeps its own golds, at their places."""
    questions = toy_corpus(400, 5)
    made = experiments.distract_all(questions, 0.6)
    changed = {True: [], False: []}
    for old, new in zip(questions, made, strict=True):
        assert [a.text for a in old.answers] == [a.text for a in new.answers] == places(new)
        added = added_text(old, new)
        named = any(name in added for name in data.ENTITY.findall(old.question))
        assert not named or " not " in f" {added}", (old.question, added)
        changed[bool(old.answers)].append(old.context != new.context)
    assert all(0.5 < np.mean(share) < 0.7 for share in changed.values()), changed


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
    wanted = robust_eqa.qa_loss(start, end, filled, filled, mask)
    wanted += 3 * robust_eqa.tagging_loss(start, end, labels, labels, mask, 2.0)
    found = experiments.cls_label(*batch, 1.0, 3.0, 2.0)
    assert abs(found - wanted) < 1e-6, (found, wanted)
    assert labels.sum() == 1, "the labels themselves were changed"
    wanted = robust_eqa.robust_loss(*batch[:4], mask | True, 1.0, 3.0, 2.0)
    assert abs(experiments.padding_counts(*batch, 1.0, 3.0, 2.0) - wanted) < 1e-6
