"""The commands on small input: what they write, print and refuse.

One toy model is trained as a child process; most later commands run in this process, because
importing torch takes longer than what they do.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_metrics import plain_f1, plain_squad_scores

import robust_eqa
from data import make_windows, read_questions, toy_corpus, write_questions
from model import load_model
from robust_eqa import main

ROOT = Path(__file__).parent.parent
BERT = ROOT / "tests" / "fixtures" / "bert"
SCORES = "exact f1 total HasAns_exact HasAns_f1 HasAns_total NoAns_exact NoAns_f1 NoAns_total"
SCORES = {*SCORES.split(), "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}
TOY = ["--limit", "320", "--epochs", "4", "--batch-size", "32", "--eval-every", "10"]
PARAGRAPHS = [  # (context, [(question, answers)]), as in SQuAD 2.0 with several annotators
    (
        "Ada Lee opened the cafe near the lake. It was new in 1912, and she was the owner.",
        [
            ("Who opened the cafe?", ["Ada Lee", "Ada", "Lee"]),
            ("When was it new?", ["1912", "in 1912"]),
            ("Where was the cafe?", ["near the lake"]),
            ("When did she meet Ben?", []),
        ],
    ),
    (
        "The ship of Ben Hale met ice by Cape Dun. Cora Hale, 31, was the owner of it by then.",
        [
            ("Who was the owner of it?", ["Cora Hale"]),
            ("Where did it meet ice?", ["by Cape Dun", "Cape Dun"]),
            ("Who was near the lake?", []),
        ],
    ),
    (
        "In 1874 the lake was open. It was by Ivo Berg, who opened it in 1880 and met Mona Lowe.",
        [
            ("When was the lake open?", ["1874"]),
            ("Who did Ivo Berg meet?", ["Mona Lowe"]),
            ("Who was the owner of the ship?", []),
        ],
    ),
]


# ---- helpers ---------------------------------------------------------------------------------


def child(*arguments, **environment):
    """The command as a child process of its own."""
    command = [sys.executable, ROOT / "robust_eqa.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def finish(process):
    """-> standard output and error of a child that must end well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def call(capsys, *arguments):
    """Standard output of a command in this process."""
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """The message with which a command in this process is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert caught.value.code == 2, f"exit status {caught.value.code}: {err}"
    assert out == "", f"printed before it was refused: {out}"
    assert_one_sentence(err)
    return err


def assert_one_sentence(err):
    assert re.fullmatch(r"error: \S.{10,600}\n", err), f"not one sentence after 'error: ':\n{err}"
    assert "Traceback" not in err


def read(path):
    return json.loads(Path(path).read_text("utf-8"))


def squad(path, paragraphs=PARAGRAPHS):
    """Write an official SQuAD v2.0 file, plausible answers included."""
    data = []
    for p, (context, rows) in enumerate(paragraphs):
        qas = []
        for n, (question, texts) in enumerate(rows):
            answers = [{"text": t, "answer_start": context.index(t)} for t in texts]
            row = {"id": f"q{p}-{n}", "question": question, "answers": answers}
            row["is_impossible"] = not texts
            if not texts:
                row["plausible_answers"] = [{"text": context[:3], "answer_start": 0}]
            qas.append(row)
        data.append({"title": "T", "paragraphs": [{"context": context, "qas": qas}]})
    path.write_text(json.dumps({"version": "v2.0", "data": data}), "utf-8")
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with two evaluation files and `run`, a toy model that was trained for seconds."""
    folder = tmp_path_factory.mktemp("toy")
    write_questions(toy_corpus(120, 7), folder / "b.json")
    write_questions(toy_corpus(120, 8, "addonesent"), folder / "a.json.gz")
    arguments = ["train", *TOY, "--out", folder / "run"]
    arguments += ["--eval", folder / "b.json", folder / "a.json.gz"]
    folder.joinpath("printed").write_text(finish(child(*arguments))[0], "utf-8")
    return folder


@pytest.fixture(scope="module")
def predicted(toy):
    """Unblanked answers and no-answer scores of the toy model on b.json."""
    answers, scores = toy / "unblanked.json", toy / "scores.json"
    arguments = ["predict", toy / "run", toy / "b.json", "--output", answers, "--scores", scores]
    main([*map(str, arguments), "--threshold", "inf"])
    return read(answers), read(scores)


# ---- train, evaluate, predict, ask -----------------------------------------------------------


def test_run_directory(toy):
    """Checkpoint, settings, one JSON object a logged step, final scores; no leftovers."""
    run = toy / "run"
    checkpoint = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    files = checkpoint | {"vocab.txt", "settings.json", "metrics.json", "metrics.jsonl"}
    assert {path.name for path in run.iterdir()} == files
    settings = read(run / "settings.json")
    given = {"limit": 320, "epochs": 4.0, "batch_size": 32, "eval_every": 10, "seed": 0}
    given |= {"loss": "robust", "synthetic": 0.3, "qa_weight": 2.0, "tagging_weight": 1.0}
    given |= {"positive_weight": 2.0, "threshold": 0.0, "out": str(run), "init": ""}
    assert settings | given == settings
    metrics = read(run / "metrics.json")
    assert list(metrics) == ["b.json", "a.json.gz"], "evaluations are not in the order given"
    for name, scores in metrics.items():
        expected = SCORES if name == "b.json" else {k for k in SCORES if "NoAns" not in k}
        assert set(scores) == expected, name
        assert scores["total"] == len(read_questions(toy / name))
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in log if "loss" in line}
    assert list(losses) == [10, 20, 30, 40], "4 epochs of 320 questions in batches of 32"
    assert losses[40] < losses[10], losses
    evaluations = [(line["step"], line["eval"]) for line in log if "eval" in line]
    assert evaluations == [(step, name) for step in (10, 20, 30) for name in metrics]


def test_scores_follow_from_the_predictions(toy, predicted):
    """metrics.json is what the official rules make of `predict --threshold inf --scores`."""
    questions = read_questions(toy / "b.json")
    answers, scores = predicted
    ids = [question.id for question in questions]
    assert sorted(answers) == sorted(scores) == sorted(ids), "not exactly the file's questions"
    for question in questions:
        text, score = answers[question.id], scores[question.id]
        assert text and text in question.context and text == text.strip(), f"{text!r} is no span"
        assert math.isfinite(score), f"no-answer score {score}"
    theirs = plain_squad_scores(questions, answers, scores, threshold=0.0)
    ours = read(toy / "run" / "metrics.json")["b.json"]
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("quantile", [None, 0.25, 0.75])
def test_empty_iff_score_above_threshold(quantile, toy, predicted, tmp_path, capsys):
    """`predict` blanks exactly the answers above the threshold; the run's own one is 0."""
    unblanked, scores = predicted
    threshold = 0.0 if quantile is None else sorted(scores.values())[int(quantile * len(scores))]
    option = [] if quantile is None else [f"--threshold={threshold!r}"]
    output = tmp_path / "new" / "answers.json"
    printed = call(capsys, "predict", toy / "run", toy / "b.json", "--output", output, *option)
    answers = read(output)
    assert answers == {k: "" if scores[k] > threshold else unblanked[k] for k in unblanked}
    kept = sum(score <= threshold for score in scores.values())
    assert f"{kept} of {len(scores)}" in printed
    assert quantile is None or 0 < kept < len(scores), "the threshold separates nothing"


def test_evaluate_prints_the_scores_of_the_run(toy, capsys):
    """One line a file, in the order given here, with the numbers of metrics.json."""
    printed = call(capsys, "evaluate", toy / "run", toy / "a.json.gz", toy / "b.json")
    header, *lines = printed.splitlines()
    assert [line.split()[0] for line in lines] == ["a.json.gz", "b.json"]
    for line in lines:
        name, *cells = line.split()
        scores = read(toy / "run" / "metrics.json")[name]
        expected = [
            f"{scores[c]:.{c != 'total':d}f}" if c in scores else "-" for c in header.split()
        ]
        assert cells == expected, f"{header}\n{line}"
        assert line in (toy / "printed").read_text("utf-8").splitlines(), "train printed another"


@pytest.mark.parametrize("threshold", ["inf", "-inf"])
def test_ask(threshold, toy, predicted, capsys):
    """One question gets the answer that `predict` gives to it."""
    for question in read_questions(toy / "b.json")[:5]:
        words = ["--context", question.context, "--question", question.question]
        printed = call(capsys, "ask", toy / "run", *words, f"--threshold={threshold}")
        text = predicted[0][question.id]
        assert printed == (text if threshold == "inf" else "(no answer)") + "\n"


def test_one_seed_one_result_and_a_run_of_its_own(toy, tmp_path, capsys, monkeypatch):
    """The toy run without --out replaces its own runs/toy, and equals the child's run."""
    monkeypatch.chdir(tmp_path)
    arguments = ["train", *TOY, "--eval", toy / "b.json", toy / "a.json.gz"]
    call(capsys, *arguments)
    for name in ("metrics.json", "metrics.jsonl", "model.safetensors", "tokenizer.json"):
        same = Path("runs/toy", name).read_bytes() == (toy / "run" / name).read_bytes()
        assert same, f"{name} differs between two runs with one seed"
    call(capsys, *arguments, "--seed", 1, "--limit", 64, "--epochs", 1)
    assert read("runs/toy/settings.json")["seed"] == 1, "runs/toy was not replaced"
    first = Path("runs/toy/model.safetensors").read_bytes()
    call(capsys, *arguments, "--seed", 2, "--limit", 64, "--epochs", 1)
    assert Path("runs/toy/model.safetensors").read_bytes() != first, "the seed has no effect"


def test_a_used_directory_is_refused(toy, tmp_path, capsys):
    """Without --overwrite nothing of an earlier run is touched; with it, all is replaced."""
    run = shutil.copytree(toy / "run", tmp_path / "run")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.iterdir()}
    arguments = ["--limit", 64, "--epochs", 1, "--eval", toy / "b.json", "--out", run]
    for command in ("train", "compare"):
        for both in ((), ("--resume", "--overwrite")):
            assert "--overwrite" in refused(capsys, command, *arguments, *both)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.iterdir()}
    assert after == before, "a refused run changed the directory"
    call(capsys, "train", *arguments, "--overwrite")
    assert list(read(run / "metrics.json")) == ["b.json"]
    assert {path.name for path in run.iterdir()} == set(before)
    changed = {path.name for path in run.iterdir() if path.read_bytes() != before[path.name][1]}
    expected = {"settings.json", "metrics.json", "metrics.jsonl", "model.safetensors"}
    assert expected <= changed, f"{expected - changed} were not replaced"


def test_killed_and_resumed(toy, tmp_path, capsys):
    """A run that is killed and resumed ends like one that was not."""
    out = tmp_path / "run"
    arguments = ["train", *TOY, "--out", out, "--eval", toy / "b.json", toy / "a.json.gz"]
    process, deadline = child(*arguments), time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (out / "metrics.json").exists(), "the run ended before it could be killed"
    assert "--resume" in refused(capsys, *arguments)
    assert "--lr" in refused(capsys, *arguments, "--resume", "--lr", 1)
    call(capsys, *arguments, "--resume")
    files = {path.name: path for path in (toy / "run").iterdir()}
    assert {path.name for path in out.iterdir()} == set(files), "leftovers, or files are missing"
    for name in set(files) - {"settings.json"}:
        same = files[name].read_bytes() == (out / name).read_bytes()
        assert same, f"{name} differs between a resumed and an unbroken run"
    assert "--resume" in refused(capsys, *arguments)


# ---- training on a real-shaped file ----------------------------------------------------------


def bert_without_dropout(folder):
    """The BERT fixture, whose training loss is then a function of its weights."""
    folder = shutil.copytree(BERT, folder)
    config = read(folder / "config.json")
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def loss_by_hand(name, checkpoint, questions):
    """The mean loss of a checkpoint, window by window, with labels from character offsets."""
    model, tokenizer = load_model(checkpoint)
    losses, labels = [], set()
    for window in make_windows(questions, tokenizer, 32, 4):
        ids, segments = torch.tensor([window.input_ids]), torch.tensor([window.segment_ids])
        with torch.no_grad():
            logits = model(ids, segments, torch.ones_like(ids, dtype=torch.bool))
        logits = [x[0].double().numpy() for x in logits]
        context = range(*window.context_slice.indices(len(window.input_ids)))
        golds = []
        for answer in questions[window.question_index].answers:
            start, end = answer.start, answer.start + len(answer.text)
            offsets = window.offsets
            cover = [t for t in context if offsets[t][1] > start and offsets[t][0] < end]
            whole = cover and offsets[cover[0]][0] <= start and offsets[cover[-1]][1] >= end
            golds.append((cover[0], cover[-1]) if whole else None)
        inside = [gold for gold in golds if gold]
        labels.add("answer" if inside else "elsewhere" if golds else "none")
        for side, x in enumerate(logits):
            log_p = x - np.log(np.exp(x).sum())
            if name == "default":
                losses.append(-log_p[golds[0][side] if golds and golds[0] else 0])
                continue
            y = np.zeros(len(x))
            y[[gold[side] for gold in inside]] = 1
            p = 1 / (1 + np.exp(-x))
            target = y / y.sum() if y.any() else np.full(len(x), 1 / len(x))
            tagging = -(4 * y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
            losses.append(3 * -(target * log_p).sum() + 0.5 * tagging)
    assert labels == {"answer", "elsewhere", "none"}, f"the file only has windows with {labels}"
    return np.mean(losses)


def test_steps_are_those_of_torch_adamw():
    """Bit for bit, and the gradients are gone after a step."""
    ours, theirs = (load_model(BERT)[0] for _ in range(2))
    theirs.load_state_dict(ours.state_dict())  # the head is random
    state, *_ = robust_eqa.training_state(ours, 1, None)
    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.0, fused=True)
    for step, lr in enumerate([1e-3, 5e-4, 1e-2]):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        robust_eqa.adamw_step(ours, state, step, lr)
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters()):
            assert torch.equal(mine, other) and mine.grad is None, f"{name} at step {step}"
            assert torch.equal(state[name], other), f"the state has another {name}"


@pytest.mark.parametrize("loss", ["default", "robust"])
def test_one_step_from_a_pretrained_checkpoint(loss, tmp_path, capsys):
    """The logged loss is the formula's, the step is AdamW's, and --init takes what it left."""
    file, init, rate = squad(tmp_path / "squad.json"), tmp_path / "bert", 1e-3
    questions = read_questions(file)
    arguments = ["train", "--train", file, "--loss", loss, "--synthetic", 0, "--epochs", 1]
    arguments += ["--batch-size", 100, "--max-length", 32, "--stride", 4, "--lr", rate]
    arguments += ["--qa-weight", 3, "--tagging-weight", 0.5, "--positive-weight", 4]
    bert_without_dropout(init)
    logged = []
    for out in (tmp_path / "first", tmp_path / "second"):
        call(capsys, *arguments, "--init", init, "--out", out)
        line = json.loads((out / "metrics.jsonl").read_text())
        logged.append(line["loss"])
        assert line["step"] == 1
        assert line["loss"] == pytest.approx(loss_by_hand(loss, init, questions), rel=1e-5)
        before, after = (load_file(folder / "model.safetensors") for folder in (init, out))
        before = {re.sub("^bert.", "", k): v for k, v in before.items()}
        after = {re.sub("^bert.", "", k): v for k, v in after.items()}
        steps = {k: (after[k] - before[k].float()).abs().max().item() for k in after}
        # The first step of Adam is lr * sign(gradient), wherever that is far from 0.
        assert max(steps.values()) == pytest.approx(rate, rel=1e-2), steps
        # Softmax does not see what is added to all positions: these have no gradient to speak of.
        free = ["key.bias"] + ["qa_outputs.bias", "1.output.LayerNorm.bias"] * (loss == "default")
        still = [k for k, step in steps.items() if step < rate / 2 and not k.endswith(tuple(free))]
        assert not still, f"not trained: {still}"
        init = out
    assert logged[1] < logged[0], f"a step raised the loss: {logged}"


def test_resumed_with_dropout(tmp_path, capsys, monkeypatch):
    """Dropout, order, rate and optimizer go on where the last saved state left them."""
    file = squad(tmp_path / "squad.json")
    arguments = ["train", "--train", file, "--eval", file, "--init", BERT, "--lr", 1e-3]
    arguments += ["--batch-size", 4, "--max-length", 32, "--stride", 4, "--eval-every", 5]
    call(capsys, *arguments, "--out", tmp_path / "unbroken")
    real, steps = robust_eqa.adamw_step, []

    def step(*rest):
        steps.append(rest)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return real(*rest)

    with monkeypatch.context() as patched:
        patched.setattr(robust_eqa, "adamw_step", step)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            main([str(x) for x in [*arguments, "--out", tmp_path / "broken"]])
    call(capsys, *arguments, "--out", tmp_path / "broken", "--resume")
    for name in ("metrics.jsonl", "metrics.json", "model.safetensors"):
        broken, unbroken = ((tmp_path / x / name).read_bytes() for x in ("broken", "unbroken"))
        assert broken == unbroken, f"{name} differs between a resumed and an unbroken run"


@pytest.mark.parametrize("loss", ["default", "robust"])
def test_learns_a_small_file_by_heart(loss, tmp_path, capsys):
    """Some hundred steps on ten real-shaped questions answer them, the unanswerable included."""
    file, out = squad(tmp_path / "squad.json"), tmp_path / "run"
    arguments = [
        "train",
        "--train",
        file,
        "--eval",
        file,
        "--init",
        bert_without_dropout(tmp_path / "i"),
    ]
    arguments += ["--loss", loss, "--synthetic", 0, "--epochs", 60, "--lr", 5e-3, "--warmup", 20]
    arguments += ["--batch-size", 8, "--max-length", 32, "--stride", 4, "--out", out]
    printed = call(capsys, *arguments)
    scores = read(out / "metrics.json")["squad.json"]
    assert scores["total"] == 10 and scores["HasAns_total"] == 7
    assert scores["HasAns_f1"] > 90 and scores["NoAns_f1"] > 90, printed
    ask = ["ask", out, "--context", PARAGRAPHS[0][0], "--question", "Where was the cafe?"]
    assert call(capsys, *ask) == "near the lake\n"


# ---- augment, attack, compare ----------------------------------------------------------------


def assert_squad(path):
    """Official SQuAD v2.0 whose answers stand at their offsets -> {id: (context, texts)}."""
    content, found = read(path), {}
    assert content["version"] == "v2.0"
    for article in content["data"]:
        assert isinstance(article["title"], str)
        for paragraph in article["paragraphs"]:
            for row in paragraph["qas"]:
                assert row["is_impossible"] == (not row["answers"]), row
                for answer in row["answers"]:
                    start, text = answer["answer_start"], answer["text"]
                    there = paragraph["context"][start : start + len(text)]
                    assert there == text, f"{row['id']}: {there!r} is at the offset of {text!r}"
                assert row["id"] not in found, f"{row['id']} occurs twice"
                texts = [answer["text"] for answer in row["answers"]]
                found[row["id"]] = paragraph["context"], row["question"], texts
    return found


@pytest.mark.parametrize("kind", ["evidence", "template", "mixed"])
def test_augment(kind, tmp_path, capsys):
    """A new context holds the old one's words and one more gold, listed last."""
    file = squad(tmp_path / "squad.json")
    before, written, printed = assert_squad(file), {}, {}
    for seed, output in ((0, "new.json"), (0, "again.json"), (1, "other.json"), (2, "third.json")):
        options = ["--synthetic", 1, "--synthetic-kind", kind, "--seed", seed]
        printed[output] = call(capsys, "augment", file, "--output", tmp_path / output, *options)
        written[output] = (tmp_path / output).read_bytes()
    assert written["new.json"] == written["again.json"] != written["other.json"]
    for output in written:
        after, changed = assert_squad(tmp_path / output), 0
        assert list(after) == list(before), "ids are lost, new or moved"
        for key, (context, question, texts) in after.items():
            old_context, old_question, old_texts = before[key]
            assert question == old_question and texts[: len(old_texts)] == old_texts
            if context == old_context:
                assert texts == old_texts
                continue
            changed += 1
            assert len(texts) == len(old_texts) + 1 and old_texts, f"{key}: {texts}"
            assert texts[-1] not in old_context, f"{texts[-1]} was in the context before"
            added = len(context) - len(old_context)
            cuts = [context[:k] + context[k + added :] for k in range(len(old_context) + 1)]
            assert old_context in cuts, f"{key}: not one inserted piece: {context}"
        assert changed > 2 and f"{changed} of {len(before)}" in printed[output]
    call(capsys, "augment", file, "--output", tmp_path / "none.json", "--synthetic", 0)
    assert assert_squad(tmp_path / "none.json") == before


@pytest.mark.parametrize("kind", ["addonesent", "negation", "information-seeking"])
def test_attack(kind, toy, tmp_path, capsys):
    """Appended distractors leave golds alone; information-seeking moves the question."""
    file = toy / "b.json"
    before = assert_squad(file)
    printed = call(capsys, "attack", file, "--kind", kind, "--output", tmp_path / "new.json")
    after = assert_squad(tmp_path / "new.json")
    assert len(after) > 10 and f"{len(after)} of {len(before)}" in printed
    for key, (context, question, texts) in after.items():
        old_context, old_question, old_texts = before[key.removesuffix("-rematched")]
        assert question == old_question
        if kind == "information-seeking":
            assert key.endswith("-rematched") and texts == [] and context != old_context
            assert not any(text.lower() in context.lower() for text in old_texts)
            continue
        assert texts == old_texts and texts, "golds changed, or an unanswerable was attacked"
        assert context.startswith(old_context + " "), f"nothing was appended: {context}"
        added = context[len(old_context) :]
        negated = re.search(r"\bnot\b", added, re.IGNORECASE) is not None
        assert negated == (kind == "negation"), added
        assert not any(text in added for text in texts), f"the gold is in the distractor: {added}"


def test_compare(toy, tmp_path, capsys):
    """Its table and compare.json hold what the runs that it leaves behind score."""
    out, file = tmp_path / "cmp", toy / "b.json"
    small = ["--limit", 256, "--epochs", 1, "--seeds", 1, "--eval", file, "--out", out]
    printed = call(capsys, "compare", *small)
    result = read(out / "compare.json")
    assert set(result) == {"default", "robust"}
    for kind in ("addonesent", "negation"):
        call(capsys, "attack", file, "--kind", kind, "--output", tmp_path / kind)
    questions = {name: read_questions(p) for name, p in (("b.json", file), ("addonesent", 0)) if p}
    questions |= {kind: read_questions(tmp_path / kind) for kind in ("addonesent", "negation")}
    for loss, rows in result.items():
        scores = read(out / f"{loss}-0" / "metrics.json")
        assert list(scores) == ["b.json", "addonesent", "negation"]
        settings = read(out / f"{loss}-0" / "settings.json")
        assert settings["loss"] == loss
        assert settings["synthetic"] == (0.3 if loss == "robust" else 0.0)
        f1 = {}
        for name, test in questions.items():
            source = file if name == "b.json" else tmp_path / name
            call(capsys, "predict", out / f"{loss}-0", source, "--output", tmp_path / "answers")
            answers = read(tmp_path / "answers")
            f1[name] = {
                q.id: 100 * max(plain_f1(answers[q.id], g.text) for g in q.answers or [Empty])
                for q in test
            }
            mean = np.mean(list(f1[name].values()))
            assert scores[name]["f1"] == pytest.approx(mean), f"{loss}, {name}"
            assert rows[name][0][0] == pytest.approx(mean), f"{loss}, {name}"
            line = next(
                x for x in printed.splitlines() if x.split()[:1] == [name] and x.endswith(" -")
            )
            assert f" {mean:.1f}" in line and "±" not in line, f"{mean} is not in: {line}"
        for kind in ("addonesent", "negation"):
            costs = [f1["b.json"][key] - value for key, value in f1[kind].items()]
            assert rows[f"{kind} drop"] == [pytest.approx([np.mean(costs)])], f"{loss}, {kind}"
    printed = call(capsys, "compare", *small, "--seeds", 2, "--resume")
    rows = read(out / "compare.json")["default"]["b.json"]
    f1 = [row[0] for row in rows]
    assert f" {np.mean(f1):.1f} ± {abs(f1[0] - f1[1]) / 2**0.5:.1f} (" in printed, f1
    with pytest.raises(SystemExit):  # nor is it replaced unasked
        main(["compare", *map(str, small)])
    assert "is in use" in capsys.readouterr().err


class Empty:
    """The only gold of an unanswerable question."""

    text = ""


def test_a_length_that_is_no_multiple_of_16(toy, tmp_path, capsys):
    """Batches are padded to multiples of 16, but not beyond the positions that a model has."""
    odd = ["--max-length", 50, "--stride", 16, "--limit", 64, "--epochs", 1]
    call(capsys, "train", *odd, "--eval", toy / "b.json", "--out", tmp_path / "odd")
    scores = read(tmp_path / "odd" / "metrics.json")["b.json"]
    longer = ["--max-length", 384, "--stride", 16]  # than the model: shorter windows, same scores
    call(capsys, "predict", tmp_path / "odd", toy / "b.json", "--output", tmp_path / "a", *longer)
    questions = read_questions(toy / "b.json")
    found = robust_eqa.squad_scores(questions, read(tmp_path / "a"))
    assert found["f1"] == pytest.approx(scores["f1"])


def test_help_says_where_defaults_come_from(capsys):
    """Of train: the authors' numbers; of commands that take a model: what its run was given."""
    shown = {}
    for command in ("train", "compare", "evaluate"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = " ".join(capsys.readouterr().out.split())
    assert "(default: 384)" in shown["train"] and "(default: 384)" not in shown["evaluate"]
    assert "(default: the run's, or train's)" in shown["evaluate"]
    assert "--loss" in shown["train"] and "--loss" not in shown["compare"]


# ---- what is refused -------------------------------------------------------------------------


def test_a_comparison_of_real_data_is_not_replaced_by_the_toy_run(tmp_path, capsys, monkeypatch):
    """Which without --out replaces its own finished one only."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" / "compare"
    out.mkdir(parents=True)
    (out / "settings.json").write_text('{"train": "squad2-train"}')
    (out / "compare.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        main(["compare"])
    assert caught.value.code == 2 and "is in use" in capsys.readouterr().err


def test_a_run_does_not_replace_what_it_starts_from(toy, tmp_path, capsys):
    """Else an interrupted run would have lost the weights that --resume needs."""
    model = shutil.copytree(BERT, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for command, out in (("train", model), ("compare", tmp_path)):
        arguments = [command, "--train", toy / "b.json", "--eval", toy / "b.json"]
        arguments += ["--init", model, "--out", out, "--overwrite"]
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert caught.value.code == 2 and "--init" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def spoil_weights(change):
    """A fixture's weights after `change` of {name: tensor}."""

    def spoil(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return spoil


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def shorten(weights):
    name = "bert.encoder.layer.0.output.dense.weight"
    weights[name] = weights[name][:-1].contiguous()


def ids_beyond_the_embedding(folder):
    tokenizer = read(folder / "tokenizer.json")
    tokenizer["model"]["vocab"] |= {"##yy": 134, "##zz": 135}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def without_special_tokens(folder):
    tokenizer = read(folder / "tokenizer.json") | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


BAD_CHECKPOINTS = {  # what: (how the BERT fixture is broken, what the message must name)
    "truncated safetensors": (truncate, "model.safetensors"),
    "wrong shape": (spoil_weights(shorten), "encoder.layer.0.output.dense.weight"),
    "ids beyond the embedding": (ids_beyond_the_embedding, "tokenizer"),
    "no special tokens": (without_special_tokens, "special tokens"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "broken settings": (lambda folder: (folder / "settings.json").write_text("{"), "settings.json"),
    "settings of a stranger": (
        lambda folder: (folder / "settings.json").write_text('{"loss": 1}'),
        "settings.json",
    ),
}


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("what", BAD_CHECKPOINTS)
def test_bad_checkpoint(what, command, tmp_path, capsys):
    """A checkpoint that cannot be used is refused in a sentence that says what is wrong."""
    spoil, word = BAD_CHECKPOINTS[what]
    folder, file = shutil.copytree(BERT, tmp_path / "bert"), squad(tmp_path / "squad.json")
    spoil(folder)
    shape = ["--max-length", 32, "--stride", 4]
    if command == "evaluate":
        assert word in refused(capsys, "evaluate", folder, file, *shape)
    elif word != "settings.json":  # of which training takes no notice
        arguments = ["--train", file, "--init", folder, "--out", tmp_path / "run", *shape]
        assert word in refused(capsys, "train", *arguments)
        assert not (tmp_path / "run").exists(), "a refused run left a directory behind"


ROW = {
    "id": "1",
    "question": "Who?",
    "context": "Ada.",
    "answers": {"text": [], "answer_start": []},
}
BAD_FILES = {  # what: (content or None for no file, what the message must name)
    "missing": (None, "bad.json"),
    "empty": ("", "bad.json"),
    "broken JSON": ('{"data": [', "bad.json"),
    "broken line": (json.dumps(ROW) + '\n{"id": ', "bad.json"),
    "a number": ("7", "bad.json"),
    "no questions": ('{"data": []}', "no questions"),
    "other structure": ('{"data": [{"title": "T"}]}', "context"),
    "no answers": (json.dumps([{k: v for k, v in ROW.items() if k != "answers"}]), "answers"),
    "an id twice": (json.dumps([ROW, ROW]), "'1'"),
    "not text": (b"\xff\xfe\x00\x01", "bad.json"),
    "broken gzip": (b"\x1f\x8b\x08\x00", "bad.json"),
}


@pytest.mark.parametrize("command", ["train", "train --eval", "evaluate", "predict", "augment"])
@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_file(what, command, toy, tmp_path, capsys):
    """A question file that cannot be used is refused by every command that reads one."""
    content, word = BAD_FILES[what]
    bad, out = tmp_path / "bad.json", tmp_path / "out"
    if content is not None:
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = {
        "train": ["train", "--train", bad, "--out", out],
        "train --eval": ["train", "--limit", 64, "--eval", toy / "b.json", bad, "--out", out],
        "evaluate": ["evaluate", toy / "run", toy / "b.json", bad],
        "predict": ["predict", toy / "run", bad, "--output", out],
        "augment": ["augment", bad, "--output", out],
    }
    message = refused(capsys, *arguments[command])
    assert word in message and "bad.json" in message
    assert not out.exists(), "a refused command left something behind"


@pytest.mark.parametrize("place", ["below a file", "a directory"])
@pytest.mark.parametrize(
    "command", ["train", "compare", "predict", "predict --scores", "augment", "attack"]
)
def test_unwritable_output(command, place, toy, tmp_path, capsys):
    """An output that cannot be written is refused, and nothing in its way is harmed."""
    blocked = tmp_path / "blocked"
    blocked.write_text("precious") if place == "below a file" else (blocked / "x").mkdir(
        parents=True
    )
    output = blocked / "output" if place == "below a file" else blocked
    if command in ("train", "compare") and place == "a directory":
        output = blocked / "x" / "settings.json"  # a run directory is in the place of a file
        blocked = output.parent / "settings.json" / "settings.json"
        blocked.mkdir(parents=True)
    small = ["--limit", 64, "--epochs", 1, "--seeds", 1][: 4 if command == "train" else 6]
    arguments = {
        "train": ["train", *small, "--eval", toy / "b.json", "--out", output],
        "compare": ["compare", *small, "--eval", toy / "b.json", "--out", output],
        "predict": ["predict", toy / "run", toy / "b.json", "--output", output],
        "augment": ["augment", toy / "b.json", "--output", output],
        "attack": ["attack", toy / "b.json", "--kind", "negation", "--output", output],
    }
    arguments["predict --scores"] = [*arguments["predict"], "--scores", output]
    arguments["predict --scores"][4] = tmp_path / "answers.json"
    assert str(output) in refused(capsys, *arguments[command])
    assert blocked.exists() and (blocked.is_dir() or blocked.read_text() == "precious")


BAD_OPTIONS = [
    *("--batch-size 0", "--batch-size -3", "--lr -1", "--lr nan", "--lr inf", "--epochs nan"),
    *("--epochs -1", "--epochs inf", "--synthetic 1.1", "--synthetic -0.1", "--synthetic nan"),
    *("--loss other", "--synthetic-kind other", "--stride -1", "--stride 500", "--max-length 4"),
    *("--max-answer-length 0", "--limit -1", "--seed -1", "--seed 99999999999999999999999"),
    *("--warmup -1", "--eval-every -1", "--qa-weight nan", "--tagging-weight -1", "--seeds 0"),
    *("--positive-weight -1", "--threshold nan"),
]


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_option_out_of_range(option, toy, tmp_path, capsys):
    """A number or word that makes no sense is refused before anything is written."""
    name, value = option.split()
    command = "compare" if name == "--seeds" else "train"
    arguments = [command, "--limit", 64, "--epochs", 1, "--eval", toy / "b.json"]
    message = refused(capsys, *arguments, "--out", tmp_path / "run", f"{name}={value}")
    assert name.strip("-").replace("-", " ") in message.replace("-", " ").replace("_", " ")
    assert not (tmp_path / "run").exists(), "a refused run left a directory behind"


@pytest.mark.parametrize(
    "line", ["train --nonsense 1", "train --batch-size x", "evaluate", "nonsense", "", "ask x"]
)
def test_usage(line, capsys):
    """What the command line does not know ends with status 2 and a line that says so."""
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and not out
    assert re.search(r"error: \S.*\n\Z", err) and "Traceback" not in err, err


@pytest.mark.parametrize("word", ["context", "question"])
def test_ask_with_bytes_that_are_no_text(word, toy, capsys):
    """An argument that is not UTF-8 reaches Python as a lone surrogate; the rest is still read."""
    printed = []
    for text in ("Ada \udcff", "Ada ?"):
        words = {"context": "Ada.", "question": "Who?"} | {word: text}
        words = [f"--{name}={value}" for name, value in words.items()]
        printed.append(call(capsys, "ask", toy / "run", "--threshold=inf", *words))
    assert printed[0] == printed[1] != "\n"


def test_windows_end_where_the_model_does(tmp_path, capsys):
    """The default windows of 384 tokens are cut down to a smaller model's positions."""
    arguments = ["evaluate", BERT, squad(tmp_path / "squad.json"), "--stride", 8]
    assert call(capsys, *arguments) == call(capsys, *arguments, "--max-length", 80)


def test_name_without_network(toy, tmp_path, capsys, monkeypatch):
    """Where a data set cannot be fetched, the message says which file to put where."""
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("EQA_CACHE", str(tmp_path / "cache"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", str(toy / "run"), "squad2-dev"])
    *_, last = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and last.startswith("error: ")
    assert "dev-v2.0.json" in last and str(tmp_path / "cache" / "squad2-dev.json") in last
    assert not list(tmp_path.glob("cache/*")), "something was left in the cache"


def test_a_refusal_as_a_shell_sees_it(toy, tmp_path):
    """An unknown Hub id without network."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    process = child("evaluate", "nobody/no-such-model", toy / "b.json", **offline)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, f"exit status {process.returncode}: {out}{err}"
    assert_one_sentence(err)
    assert "nobody/no-such-model" in err and out == ""


# ---- parts of a batch, several processes -----------------------------------------------------


def test_parts_of_a_batch_train_like_the_whole(tmp_path, monkeypatch):
    """Parts of one window each leave the whole batch's loss and weights, within rounding."""
    short, found, losses = {"limit": 60, "batch_size": 7, "epochs": 1.0, "lr": 1e-3}, {}, {}
    for part in (1, 10**9):
        monkeypatch.setattr(robust_eqa, "PART", part)
        out = tmp_path / str(part)
        model, _ = robust_eqa.train(robust_eqa.Settings(out=str(out), **short))
        found[part] = torch.cat([x.detach().flatten() for x in model.parameters()])
        losses[part] = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    worst = (found[1] - found[10**9]).abs().max().item()
    assert 0 < worst < 2e-4, worst  # equal bits would mean that nothing was cut
    assert losses[1] == pytest.approx(losses[10**9], rel=1e-3)


def test_compare_is_for_one_process(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(robust_eqa, "WORLD", 2)
    assert "one process" in refused(capsys, "compare", "--limit", 64, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_train_like_one(toy, tmp_path, capsys):
    """torchrun with two gloo ranks: one process's weights and scores, within rounding."""
    arguments = ["--limit", 100, "--epochs", 2, "--batch-size", 33, "--lr", 1e-3, "--warmup", 5]
    arguments += ["--eval", toy / "b.json", "--eval-every", 5]  # batches of 33 and of 1: unequal
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "robust_eqa.py", "train", *arguments, "--out", tmp_path / "two"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*map(str, command)], **pipes)
    call(capsys, "train", *arguments, "--out", tmp_path / "one")
    printed, _ = finish(process)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    worst = max((one[key] - two[key]).abs().max().item() for key in one)
    assert one.keys() == two.keys() and worst < 2e-4, f"largest difference {worst}"
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1], "only one process writes, and it writes the same files"
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    one, two = ([json.loads(line) for line in log.splitlines()] for log in logs)
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for mine, theirs in zip(one, two):
        if "loss" in mine:
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-3), "the batch's mean"
    assert printed.count("the model is in") == 1, printed
