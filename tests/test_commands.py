"""The commands on small input: what they write, print and refuse.

Every test works in a copy of one folder, in which a toy model was trained for seconds as `run`.
"""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the Hub's client is imported

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_metrics import plain_f1, plain_squad_scores

import robust_eqa
from data import InputError, attack, collate, make_windows, read_questions, toy_corpus
from model import load_model
from robust_eqa import Settings, main

ROOT = Path(__file__).parent.parent
SCRIPT = f"{ROOT}/robust_eqa.py"
BERT = ROOT / "tests" / "fixtures" / "bert"  # with dropout
RUN = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RUN |= {"settings.json", "metrics.jsonl", "metrics.json"}
TOY = "train --limit 200 --epochs 1 --lr 1e-2"
ATTACKS = "--attack addonesent negation information-seeking"
losses = pytest.mark.parametrize("loss", ["default", "robust"])
ADA = "Ada Lee opened the cafe near the lake. It was new in 1912, and she was the owner."
BEN = "The ship of Ben Hale met ice by Cape Dun. Cora Hale, 31, was the owner of it by then."
IVO = "In 1874 the lake was open. It was by Ivo Berg, who opened it in 1880 and met Mona Lowe."
ROWS = [  # context, question, answers
    (ADA, "Who opened the cafe?", ["Ada Lee", "Ada", "Lee"]),
    (ADA, "Where was the cafe?", ["near the lake"]),
    (ADA, "When did she meet Ben?", []),
    (BEN, "Who was the owner of it?", ["Cora Hale"]),
    (BEN, "Where did it meet ice?", ["by Cape Dun", "Cape Dun"]),
    (BEN, "Who was near the lake?", []),
    (IVO, "When was the lake open?", ["1874"]),
    (IVO, "Who did Ivo Berg meet?", ["Mona Lowe"]),
]


# --- The folder, and commands in it --------------------------------------------------------------


def read(path):
    return json.loads(Path(path).read_text("utf-8"))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def squad(path, rows):
    """Write (context, question, answers) as flat rows."""
    found = []
    for k, (context, question, texts) in enumerate(rows):
        golds = [{"text": text, "answer_start": context.find(text)} for text in texts]
        found.append({"id": f"q{k}", "context": context, "question": question, "answers": golds})
    path.write_text(json.dumps(found), "utf-8")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The folder that every test gets a copy of."""
    folder = tmp_path_factory.mktemp("commands")
    for name, *corpus in (("dev.json", 100, 7), ("other.json", 60, 8, "addonesent")):
        questions = toy_corpus(*corpus)
        rows = [(q.context, q.question, [a.text for a in q.answers]) for q in questions]
        squad(folder / name, rows)
    squad(folder / "squad.json", ROWS)
    squad(folder / "easy.json", [row for row in ROWS if not row[2]])
    squad(folder / "long.json", [(ADA, "Who " * 200, ["Ada"])])
    squad(folder / "whole.json", [(ADA, "Who?", [ADA])])
    for name in ("bert", "still", "torn", "headless"):
        shutil.copytree(BERT, folder / name)
    zeros = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = read(BERT / "config.json") | zeros
    (folder / "still" / "config.json").write_text(json.dumps(config))
    for name in ("broken.json", "torn/config.json", "torn/settings.json"):
        (folder / name).write_text("{")
    weights = load_file(BERT / "model.safetensors")
    weights = {name: x for name, x in weights.items() if "qa_outputs" not in name}
    save_file(weights, folder / "headless" / "model.safetensors")
    shutil.copy(folder / "squad.json", folder / "bert")
    with chdir(folder):
        main(f"{TOY} --eval dev.json other.json --out run".split())
    return folder


@pytest.fixture(autouse=True)
def here(template, tmp_path, monkeypatch):
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(capsys):
    """Command line -> what it wrote to standard output and error."""

    def run(line):
        capsys.readouterr()
        main(shlex.split(line))
        return capsys.readouterr()

    return run


def snapshot():
    """{path: content, None for a directory} of all that is here."""
    return {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture
def refused(capsys):
    """Command line -> the message with which it is refused; nothing here may change."""

    def run(line):
        before = snapshot()
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(line))
        err, after = capsys.readouterr().err, snapshot()
        assert caught.value.code == 2, f"exit status {caught.value.code}: {err}"
        assert "error: " in err.splitlines()[-1] and "Traceback" not in err, err
        if not err.startswith("usage: "):  # argparse
            assert err.startswith("error: ") and err.count("\n") == 1, f"not one sentence: {err}"
        changed = [str(path) for path in before | after if before.get(path) != after.get(path)]
        assert not changed, f"written, changed or removed: {changed}"
        return err

    return run


@pytest.fixture
def predicted(shell):
    """Spans and no-answer scores of the toy model on dev.json."""
    shell("predict run dev.json --output spans.json --scores no_answer.json --threshold inf")
    return read("spans.json"), read("no_answer.json")


def assert_same_run(one, other):
    """Two run directories hold the same files, and but for settings.json the same bytes."""
    files = [{path.name: path.read_bytes() for path in Path(run).iterdir()} for run in (one, other)]
    assert files[0].keys() == files[1].keys() == RUN, "other files"
    differ = [name for name in RUN if files[0][name] != files[1][name]]
    assert differ in ([], ["settings.json"]), f"{differ} differ"


# --- train, evaluate, predict, ask ---------------------------------------------------------------


def test_a_run_directory_holds_exactly_its_files():
    assert {path.name for path in Path("run").iterdir()} == RUN
    settings = read("run/settings.json")
    given = {"limit": 200, "epochs": 1.0, "lr": 1e-2, "synthetic": 0.3, "loss": "robust"}
    given |= {"batch_size": 32, "warmup": 100, "max_length": 128, "max_answer_length": 16}
    assert settings | given == settings, f"settings.json holds {settings}"
    assert list(read("run/metrics.json")) == ["dev.json", "other.json"]
    (line,) = lines("run/metrics.jsonl")
    assert line["step"] == 7 and math.isfinite(line["loss"]), f"200 questions by 32: {line}"


def test_distractors_are_trained_on(shell):
    for share in (0, 1):
        given = f"--limit 64 --epochs 1 --synthetic 0 --distractors {share}"
        shell(f"train {given} --eval dev.json --out with{share}")
    assert lines("with0/metrics.jsonl") != lines("with1/metrics.jsonl")


def test_scores_are_the_official_ones_of_what_predict_writes(predicted, shell):
    questions, (spans, no_answer) = read_questions("dev.json"), predicted
    assert spans.keys() == no_answer.keys() == {q.id for q in questions}
    for q in questions:
        text = spans[q.id]
        assert text and text in q.context and text == text.strip(), f"{text!r} is no span"
    middle = sorted(no_answer.values())[30]
    shell(f"evaluate run dev.json --output scores.json --threshold={middle!r}")
    for file, threshold in (("run/metrics.json", 0.0), ("scores.json", middle)):
        official = plain_squad_scores(questions, spans, no_answer, threshold)
        assert read(file)["dev.json"] == pytest.approx(official, abs=1e-9), file


def test_predict_leaves_out_an_answer_iff_its_score_exceeds_the_threshold(predicted, shell):
    spans, no_answer = predicted
    middle = sorted(no_answer.values())[30]
    for threshold, option in ((0.0, ""), (middle, f"--threshold={middle!r}")):
        shell(f"predict run dev.json --output new/answers.json {option}")
        expected = {key: "" if no_answer[key] > threshold else spans[key] for key in spans}
        assert read("new/answers.json") == expected, f"threshold {threshold}"


def test_predict_needs_no_answers_in_the_file_but_evaluate_does(shell, refused):
    row = {"id": 1, "context": ADA, "question": "Who opened the cafe?"}
    Path("asked.json").write_text(json.dumps([row]))
    shell("predict run asked.json --output out.json")
    assert list(read("out.json")) == ["1"]
    assert "answers" in refused("evaluate run asked.json")


def test_evaluate_prints_and_writes_the_scores_of_the_run_and_of_attacked_versions(shell):
    before, metrics = snapshot(), read("run/metrics.json")
    printed = shell(f"evaluate run other.json dev.json {ATTACKS} --output scores.json").out
    assert before.items() <= snapshot().items(), "the run or a file was changed"
    scores, table = read("scores.json"), printed.splitlines()
    for name, found in scores.items():
        (row,) = [line.split() for line in table if line.startswith(f"{name}  ")]
        cells = [f"{found[c]:.{c != 'total':d}f}" if c in found else "-" for c in table[0].split()]
        assert row == [*name.split(), *cells], table[0]
    shell("predict run dev.json --output answers.json")
    texts, names = read("answers.json"), ["other.json", "dev.json"]
    assert {name: scores[name] for name in names} == metrics
    assert list(scores)[4:] == ["dev.json"] + [f"dev.json + {kind}" for kind in ATTACKS.split()[1:]]
    for kind in ATTACKS.split()[1:]:
        found, attacked = scores[f"dev.json + {kind}"], attack(read_questions("dev.json"), kind)
        assert found["total"] == len(attacked) > 5, f"{kind}: {found['total']} questions"
        if kind == "information-seeking":
            assert "before" not in found, "its questions are new"
        else:
            f1 = [max(plain_f1(texts[q.id], gold.text) for gold in q.answers) for q in attacked]
            assert found["before"] == pytest.approx(100 * np.mean(f1)), kind


def test_questions_moved_by_an_attack_are_not_compared_with_others_of_their_ids(shell):
    moved = [("The city of Rome was seen by Ben.", "What city was seen by Ben?", ["Rome"])]
    moved += [("Ben went to the city Oslo.", "What city was seen by Ben?", ["Oslo"])] * 2
    squad(Path("moved.json"), moved)
    rows = read("moved.json")
    rows[2]["id"] = "q0-rematched"
    Path("moved.json").write_text(json.dumps(rows), "utf-8")
    shell("evaluate run moved.json --attack information-seeking --output scores.json")
    after = read("scores.json")["moved.json + information-seeking"]
    assert after["total"] > 1 and "before" not in after, after


def test_a_file_in_which_nothing_can_be_attacked_is_scored_all_the_same(shell):
    shell(f"evaluate run easy.json {ATTACKS} --output scores.json")
    scores = read("scores.json")
    assert scores.pop("easy.json")["NoAns_total"] == 2
    assert len(scores) == 3 and not any(found.get("total") for found in scores.values()), scores


def test_ask_prints_the_answer_the_best_span_and_what_speaks_against_it(predicted, shell):
    spans, no_answer = predicted
    for q in read_questions("dev.json")[:4]:
        span, score = spans[q.id], no_answer[q.id]
        for threshold in (0.0, score + 5, score - 5):
            asked = f"ask run --context {q.context!r} --question {q.question!r}"
            answer, best, against = shell(f"{asked} --threshold={threshold!r}").out.splitlines()
            assert answer == ("(no answer)" if score > threshold else span)
            assert span in best, best
            assert f"{abs(score - threshold):.2f}" in against, f"{score=}, {threshold=}: {against}"
            assert ("wins" in against) == (score > threshold), f"{score=}, {threshold=}: {against}"
    assert shell("ask run --context ' ' --question Who?").out.startswith("(no answer)\n")


def test_a_checkpoint_without_settings_is_decoded_the_default_way(shell):
    shell("predict bert dev.json --output out.json --scores scores.json --stride 8")
    (model, tokenizer), found, questions = load_model("bert"), {}, read_questions("dev.json")
    for window in make_windows(questions, tokenizer, 80, 8):
        batch = collate([window])
        logits = model(batch.input_ids, batch.segment_ids, batch.mask).detach()
        best = robust_eqa.best_spans(logits, batch.context_mask, 128)[0].item()
        found.setdefault(window.question.id, []).append((logits[:, 0, 0].sum().item(), best))
    for key, score in read("scores.json").items():
        nulls, best = zip(*found[key])
        assert score == pytest.approx(min(nulls) - max(best), abs=1e-4), key


def test_one_seed_gives_one_result_and_a_toy_run_replaces_its_own_only(shell, refused):
    shell(f"{TOY} --eval dev.json other.json")
    assert_same_run("runs/toy", "run")
    err = shell(f"{TOY} --eval dev.json other.json --seed 1").err
    assert "runs/toy" in err, f"it does not say what it replaces: {err}"
    settings = read("runs/toy/settings.json")
    assert settings["seed"] == 1, "runs/toy was not replaced"
    tokenizers = [Path(run, "tokenizer.json").read_text("utf-8") for run in ("runs/toy", "run")]
    assert tokenizers[0] != tokenizers[1], "another seed gives the same 200 questions"
    Path("runs/toy/settings.json").write_text(json.dumps(settings | {"train": "squad.json"}))
    assert "--overwrite" in refused(f"{TOY} --eval dev.json")


def test_overwrite_removes_the_files_of_a_run_and_no_others(shell, refused):
    Path("run/notes.txt").write_text("precious")
    assert "--overwrite" in refused(f"{TOY} --eval dev.json --out run")
    shell(f"{TOY} --eval dev.json --out run --seed 3 --overwrite")
    assert {path.name for path in Path("run").iterdir()} == RUN | {"notes.txt"}
    assert list(read("run/metrics.json")) == ["dev.json"]
    assert read("run/settings.json")["seed"] == 3


# --- Training ------------------------------------------------------------------------------------


def loss_by_hand(loss, model, windows):
    """The mean loss, window by window, with weights 3, 0.5 and 4."""
    found = []
    for window in windows:
        ids, segments, mask, *_ = collate([window])
        logits = model(ids, segments, mask).detach().double().numpy()[:, 0]
        for x, golds in zip(logits, window.golds.T):
            log_p = x - np.log(np.exp(x).sum())
            if loss == "default":
                found.append(-log_p[max(golds[0], 0) if len(golds) else 0])
                continue
            y = np.zeros(len(x))
            y[golds[golds >= 0]] = 1
            p = 1 / (1 + np.exp(-x))
            target = y / y.sum() if y.any() else np.full(len(x), 1 / len(x))
            tagging = -(4 * y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
            found.append(3 * -(target * log_p).sum() + 0.5 * tagging)
    return np.mean(found)


@losses
@pytest.mark.parametrize("accumulate", [1, 3, 100])
def test_training_equals_a_loop_by_hand_whatever_the_parts(loss, accumulate, shell):
    """Five steps of one batch: loss, rate, clipping, AdamW; the first loss also by the formula."""
    total, lr, warmup = 5, 1e-3, 2
    given = f"--train squad.json --init still --loss {loss} --synthetic 0 --lr {lr} "
    given += f"--warmup {warmup} --batch-size 100 --accumulate {accumulate} --qa-weight 3 "
    given += "--tagging-weight 0.5 --positive-weight 4 --max-length 32 --stride 4"
    shell(f"train {given} --epochs 1 --out one")
    shell(f"train {given} --epochs {total} --out five")

    model, tokenizer = load_model("still")
    windows = make_windows(read_questions("squad.json"), tokenizer, 32, 4)
    batch, by_hand = collate(windows), loss_by_hand(loss, model, windows)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    for step in range(total):
        optimizer.zero_grad()
        logits = model(batch.input_ids, batch.segment_ids, batch.mask)
        if loss == "default":
            value = robust_eqa.default_loss(logits, batch.positions, batch.mask)
        else:
            value = robust_eqa.robust_loss(logits, batch.labels, batch.mask, 3, 0.5, 4)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if step == 0:
            (first,) = lines("one/metrics.jsonl")
            assert first["loss"] == pytest.approx(by_hand, rel=1e-5), "not the formula's"
            assert first["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
        rate = lr * min((step + 1) / (warmup + 1), (total - step) / (total - warmup))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    (last,) = lines("five/metrics.jsonl")
    assert last["loss"] == pytest.approx(value.item(), rel=1e-3), "the loss of the last step"
    ours = dict(load_model("five")[0].named_parameters())
    free = "key.bias", "head.bias", "layers.1.output_norm.bias"  # softmax does not see these
    for name, theirs in model.named_parameters():
        off = (ours[name] - theirs).abs().mean().item()
        assert off < 3e-5 or name.endswith(free), f"{name} is off by {off:.2g}"


@losses
def test_a_small_file_is_learned_by_heart(loss, shell):
    given = f"--train squad.json --eval squad.json --init still --loss {loss} --out new --lr 5e-3 "
    given += "--synthetic 0 --epochs 60 --warmup 20 --batch-size 8 --max-length 32 --stride 4"
    printed = shell(f"train {given}").out
    scores = read("new/metrics.json")["squad.json"]
    assert scores["HasAns_total"] == 6 and scores["NoAns_total"] == 2
    assert scores["HasAns_f1"] > 90 and scores["NoAns_f1"] > 90, printed
    asked = shell(f"ask new --context '{ADA}' --question 'Where was the cafe?'").out
    assert asked.startswith("near the lake\n"), asked


@pytest.mark.parametrize("loss, left", [("default", 1), ("robust", 2)])
def test_a_question_whose_label_has_no_place_is_left_out(loss, left, shell):
    """Default training labels the first gold alone, robust training any."""
    squad(Path("half.json"), [(ADA, "Who?", ["Zoe", "Ada Lee"]), (ADA, "Where?", ["near"])])
    given = f"--loss {loss} --synthetic 0 --max-length 32 --stride 4 --epochs 1 --out new"
    err = shell(f"train --train half.json --init bert {given}").err
    assert f"{left} windows" in err, err


def test_two_processes_train_like_one(shell):
    """torchrun with batches of 33 and of 1: unequal shares, and empty ones."""
    train = "train --limit 100 --epochs 2 --batch-size 33 --accumulate 2 --lr 1e-3 --warmup 5"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [SCRIPT, *f"{train} --eval dev.json --out two".split()]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    shell(f"{train} --eval dev.json --out one")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("the model is in") == 1, f"not only one process prints: {out}"
    assert {path.name for path in Path("two").iterdir()} == RUN
    one, two = (load_file(f"{name}/model.safetensors") for name in ("one", "two"))
    worst = max((one[name] - two[name]).abs().max().item() for name in one)
    assert worst < 2e-4, f"weights differ by {worst:.2g}"
    for mine, theirs in zip(lines("one/metrics.jsonl"), lines("two/metrics.jsonl"), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3), "loss and norm of the whole batch"


WHOLE = "train --train squad.json --eval squad.json --init bert --lr 1e-3 --warmup 9 --batch-size 2"
WHOLE += " --epochs 20 --save-every 0 --max-length 32 --stride 4"


@pytest.fixture(scope="session")
def killed(template):
    """A run killed after 50 steps or more, with RANK set as some clusters set it."""
    command = [sys.executable, SCRIPT, *f"{WHOLE} --out killed".split()]
    alone = {**os.environ, "RANK": "0"}
    process = subprocess.Popen(command, cwd=template, env=alone, stderr=-1, text=True)
    state, saved, deadline = template / "killed" / "state.pt", set(), time.monotonic() + 60
    while len(saved) < 55 and process.poll() is None and time.monotonic() < deadline:
        if state.exists():
            saved.add(state.stat().st_mtime_ns)
        time.sleep(0.001)
    process.kill()
    _, err = process.communicate()
    assert len(saved) >= 55 and not (template / "killed" / "metrics.json").exists(), err
    return shutil.move(template / "killed", template.with_name("killed"))


@pytest.fixture
def stopped(killed):
    """The command whose run, here as `killed`, was killed."""
    shutil.copytree(killed, "killed")
    return f"{WHOLE} --out killed"


def test_a_killed_run_resumed_ends_bit_for_bit_like_a_whole_one(stopped, shell, refused):
    assert "--resume" in refused(stopped)
    shell(f"{stopped} --resume")
    shell(f"{WHOLE} --out whole --save-every 300")
    assert_same_run("killed", "whole")
    assert len(lines("whole/metrics.jsonl")) > 2, "the log is too short to show a loss"
    before = snapshot()
    assert "has ended" in shell(f"{stopped} --resume").err
    assert snapshot() == before, "a run that had ended was changed"


@pytest.mark.parametrize("option", ["--lr 1", "--seed 1", "--loss default", "--limit 5"])
def test_other_settings_do_not_resume(option, stopped, refused):
    name = option.split()[0].removeprefix("--")
    assert f"another {name}" in refused(f"{stopped} --resume {option}")


def test_neither_changed_training_data_nor_a_broken_state_resumes(stopped, refused):
    text = Path("squad.json").read_text()
    Path("squad.json").write_text(text.replace("Ada Lee opened", "Ada Lee closed"))
    assert "data has changed" in refused(f"{stopped} --resume")
    Path("killed/state.pt").write_bytes(b"\0" * 99)
    assert "state.pt" in refused(f"{stopped} --resume")


def test_resume_without_a_state_begins_anew(shell):
    shell(f"{TOY} --eval dev.json other.json --out new --resume")
    assert_same_run("new", "run")


def test_of_two_runs_that_start_together_one_is_refused():
    """settings.json is created, not overwritten."""

    def attempt(seed):
        try:
            robust_eqa.train(Settings(train="dev.json", out="new", epochs=1.0, seed=seed))
            return seed
        except InputError:
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(attempt, (1, 2)))
    assert ends.count("refused") == 1, f"both trained: {ends}"
    assert read("new/settings.json")["seed"] in ends


# --- Refused -------------------------------------------------------------------------------------


@losses
def test_a_learning_rate_that_diverges_ends_in_one_sentence(loss, capsys):
    """And of an overwritten run nothing is left, which --resume could take for this one's."""
    Path("run/state.pt").write_text("of a run that was stopped")
    given = "--train squad.json --init bert --out run --overwrite --stride 4 --lr 1e9"
    with pytest.raises(SystemExit) as caught:
        main(f"train {given} --loss {loss}".split())
    *_, last = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and last.startswith("error: ") and "--lr" in last, last
    assert [path.name for path in Path("run").iterdir()] == ["settings.json"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_run_with_nan_weights_is_refused(command, refused):
    weights = load_file("run/model.safetensors")
    weights["bert.encoder.layer.0.output.dense.weight"][0, 0] = math.nan
    save_file(weights, "run/model.safetensors")
    assert "finite" in refused(f"{command} run dev.json --output out.json")


OVER = """predict run dev.json --output OTHER
predict run OTHER --output dev.json
predict run dev.json --output out.json --scores OTHER
predict run other.json --output dev.json --scores OTHER
evaluate run other.json dev.json --output OTHER"""


@pytest.mark.parametrize("line", OVER.splitlines())
@pytest.mark.parametrize("spelling", ["../{}/dev.json", "symbolic link"])
def test_no_output_goes_over_an_input_or_another_output(line, spelling, here, refused):
    if spelling == "symbolic link":
        Path(spelling).symlink_to("dev.json")
    refused(line.replace("OTHER", f"'{spelling.format(here.name)}'"))


REFUSED = """
train --train squad.json                                                           | --out
train --train none.json --out new                                                  | none.json
train --train squad.json --eval broken.json --out new                              | broken.json
train --train squad.json --eval squad.json bert/squad.json --out new              | squad.json
train --train squad.json --eval long.json --stride 4 --max-length 64 --out new     | q0
train --train squad.json --max-length 24 --out new                                 | --stride
train --train squad.json --out new --init nobody/no-such-model                     | no-such-model
train --train squad.json --out new --init torn                                     | torn
evaluate run squad.json bert/squad.json                                           | squad.json
evaluate nobody/no-such-model squad.json                                           | no-such-model
evaluate headless squad.json --stride 4                                            | qa_outputs
evaluate torn squad.json                                                           | settings.json
evaluate run dev.json --output run/metrics.json                                    | metrics.json
predict run long.json --output new                                                 | q0
predict run squad.json --output squad.json/new                                     | squad.json
predict run squad.json --output new --scores ./new                                 | new
train --train whole.json --max-length 16 --stride 2 --out new                      | whole.json
train --train whole.json --max-length 16 --stride 2 --out run --overwrite          | whole.json
train --train squad.json --stride 4 --out bert --init ./bert --overwrite         | --out
train --loss other                                                                 | --loss
evaluate run                                                                       | files
evaluate run dev.json --attack other                                               | --attack
predict run dev.json                                                               | --output
"""


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_refused_in_one_sentence_and_nothing_is_left_behind(line, refused):
    line, word = line.split("|")
    assert word.strip() in refused(line)


BAD_VALUES = """--epochs -1|--epochs nan|--epochs inf|--batch-size 0|--accumulate 0|--lr -1|--lr nan|
--lr inf|--synthetic -0.1|--stride -1|--seed -1|--max-length 0|--max-answer-length 0|--limit -1|
--warmup -1|--save-every -1|--qa-weight nan|--tagging-weight -1|--positive-weight -1"""


@pytest.mark.parametrize("option", BAD_VALUES.replace("\n", "").split("|"))
def test_a_value_out_of_range_is_refused(option, refused):
    name, value = option.split()
    assert name in refused(f"{TOY} --eval dev.json --out new {name}={value}")


def test_help_says_defaults_those_of_the_toy_and_which_are_of_the_run(capsys):
    shown = {}
    for command in ("train", "predict"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = " ".join(capsys.readouterr().out.split())
    assert "384; toy: 128" in shown["train"] and "16; toy: 32" in shown["train"], shown["train"]
    assert "None" not in shown["train"] and "the run's" not in shown["train"], shown["train"]
    assert "the run's" in shown["predict"] and "384" not in shown["predict"], shown["predict"]
    assert "--lr" in shown["train"] and "--lr" not in shown["predict"]
