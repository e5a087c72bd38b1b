"""The commands on small input: what they write, print and refuse.

Every test works in a copy of one folder, in which a toy model was trained for seconds as `run`.
"""

import io
import json
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, redirect_stdout
from pathlib import Path
from threading import Timer

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the Hub's client is imported

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_metrics import plain_f1, plain_squad_scores

import robust_eqa
from data import InputError, attack, collate, make_windows, read_questions, toy_corpus
from model import load_model
from robust_eqa import Settings, load_run, main, predict

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
    for name in ("bert", "still", "torn", "unsettled", "headless"):
        shutil.copytree(BERT, folder / name)
    zeros = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = read(BERT / "config.json") | zeros
    (folder / "still" / "config.json").write_text(json.dumps(config))
    for name in ("broken.json", "torn/config.json", "unsettled/settings.json"):
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
    torch.set_num_threads(1)
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


def labels_and_tokens(shell, given):
    """How many labels and tokens a step trains on: logits are 0, and a label weighs as 1e5 tokens."""
    weights = load_file("run/model.safetensors")
    zeros = {name: 0 * x for name, x in weights.items() if "qa_outputs" in name}
    save_file(weights | zeros, "run/model.safetensors")
    given += " --train dev.json --init run --max-length 128 --stride 8 --batch-size 100 --epochs 1"
    err = shell(f"train {given} --qa-weight 0 --positive-weight 100001 --out new --overwrite").err
    assert "100 windows, 1 steps" in err, err
    (line,) = lines("new/metrics.jsonl")
    return divmod(round(line["loss"] * 100 / math.log(2)), 100_000)


def test_a_synthetic_answer_is_trained_on_as_gold_and_a_distractor_is_not(shell):
    golds, tokens = labels_and_tokens(shell, "--synthetic 0")
    both, more_tokens = labels_and_tokens(shell, "--synthetic 1")
    still, with_distractors = labels_and_tokens(shell, "--synthetic 0 --distractors 1")
    assert (golds, both, still) == (50, 100, 50), "labels"
    assert min(more_tokens, with_distractors) > tokens + 100, "no sentences were added"


def test_predict_writes_what_it_returns_and_its_scores_are_the_official_ones(predicted, shell):
    questions, (spans, no_answer) = read_questions("dev.json"), predicted
    answers = {key: "" if no_answer[key] > 0 else spans[key] for key in spans}
    model, tokenizer, settings = load_run("run")
    assert predict(model, tokenizer, questions, settings) == (answers, spans, no_answer)
    assert spans.keys() == no_answer.keys() == {q.id for q in questions}
    for q in questions:
        text = spans[q.id]
        assert text and text in q.context and text == text.strip(), f"{text!r} is no span"
    middle = sorted(no_answer.values())[30]
    shell(f"evaluate run dev.json --output scores.json --threshold={middle!r}")
    for file, threshold in (("run/metrics.json", 0.0), ("scores.json", middle)):
        official = plain_squad_scores(questions, spans, no_answer, threshold)
        assert read(file)["dev.json"] == pytest.approx(official, abs=1e-9), file


def test_predict_looks_at_no_answers_in_the_file_but_evaluate_does(shell, refused):
    odd = {}, {"answers": None}, {"answers": "array(['b'])"}, {"answers": [], "is_impossible": "no"}
    rows = [{"id": k, "context": ADA, "question": "Who?"} | labels for k, labels in enumerate(odd)]
    Path("asked.json").write_text(json.dumps(rows))
    shell("predict run asked.json --output out.json")
    assert list(read("out.json")) == ["0", "1", "2", "3"]
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
    wrong = re.findall(r"^wrong: (.*)\n  gold (.*), predicted (.*)$", printed, re.M)
    assert 0 < len(wrong) <= 5, "mistakes are shown, at most five"
    shell("predict run other.json --output answers.json")
    texts, right = read("answers.json"), []
    for q in read_questions("other.json"):
        golds = " / ".join(gold.text for gold in q.answers) or "(no answer)"
        right += [(q.question, golds, texts[q.id] or "(no answer)")]
    assert {*wrong} <= {*right} and all(gold != answer for _, gold, answer in wrong), wrong
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


def test_one_seed_gives_one_result_and_a_toy_run_replaces_its_own_only(shell, refused):
    """On two threads as on one; a run that is named is replaced by --overwrite alone."""
    torch.set_num_threads(2)
    shell(f"{TOY} --eval dev.json other.json")
    shell("predict run dev.json --output out.json")
    assert torch.get_num_threads() == 2, "not put back"
    torch.set_num_threads(1)
    assert_same_run("runs/toy", "run")
    assert "--overwrite" in refused(f"{TOY} --train toy-train --eval dev.json")
    shell(f"{TOY} --train toy-train --eval dev.json other.json --out named")
    assert_same_run("named", "run")
    err = shell(f"{TOY} --eval dev.json other.json --seed 1").err
    assert "runs/toy" in err, f"it does not say what it replaces: {err}"
    settings = read("runs/toy/settings.json")
    assert settings["seed"] == 1, "runs/toy was not replaced"
    assert "another seed" in refused(f"{TOY} --eval dev.json other.json --resume")
    for seed in (0, 1):
        shell(f"{TOY} --limit 20 --synthetic 0 --eval dev.json --out {seed} --seed {seed}")
    tokenizers = [Path(run, "tokenizer.json").read_text("utf-8") for run in ("0", "1")]
    assert tokenizers[0] != tokenizers[1], "another seed gives the same 20 questions"
    Path("runs/toy/settings.json").write_text(json.dumps(settings | {"train": "squad.json"}))
    assert "--overwrite" in refused(f"{TOY} --eval dev.json")


def test_overwrite_removes_the_files_of_a_run_and_no_others(shell, refused):
    Path("run/notes.txt").write_text("precious")
    assert "--overwrite" in refused(f"{TOY} --eval dev.json --out run")
    shell(f"{TOY} --eval dev.json --out run --seed 3 --overwrite")
    assert {path.name for path in Path("run").iterdir()} == RUN | {"notes.txt"}
    assert list(read("run/metrics.json")) == ["dev.json"]
    assert read("run/settings.json")["seed"] == 3


RUNS = [  # settings.json, "loss" in config.json, what is given, what it is decoded with
    (None, None, {}, {"loss": "default", "threshold": 0.0, "max_length": 384}),
    (None, "", {}, {"loss": "default"}),
    (None, "robust", {}, {"loss": "robust"}),
    (None, "robust", {"loss": "default", "stride": 8}, {"loss": "default", "stride": 8}),
    ({"loss": "default", "threshold": 0.5, "of later": 1}, "robust", {}, {"loss": "default"}),
    ({"loss": "default", "threshold": 0.5}, "robust", {"loss": "robust"}, {"loss": "robust"}),
    ({"threshold": 0.5, "lr": 7.0}, "robust", {}, {"loss": "robust", "threshold": 0.5, "lr": 2e-5}),
    ({"threshold": 0.5, "max_length": 64}, "", {"threshold": 2.0}, {"threshold": 2.0}),
]


@pytest.mark.parametrize("stored, loss, given, expected", RUNS)
def test_a_run_is_decoded_as_is_given_else_as_it_was_trained(stored, loss, given, expected):
    """settings.json, then config.json, then the defaults, of which the loss is default."""
    Path("bert/config.json").write_text(json.dumps(read("bert/config.json") | {"loss": loss}))
    if stored:
        Path("bert/settings.json").write_text(json.dumps(stored))
    model, tokenizer, settings = load_run("bert", **given)
    found = {name: getattr(settings, name) for name in expected}
    assert found == expected
    assert not model.training and tokenizer.token_to_id("[CLS]") == 3


# --- Outputs -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_an_output_that_is_a_device_a_pipe_or_a_link_stays_one(shell):
    os.mkfifo("pipe")
    pipe = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # so that nothing waits
    Path("old.json").write_text("old")
    Path("link").symlink_to("old.json")
    Path("dangling").symlink_to("new.json")
    shell("predict run squad.json --output link --scores dangling")
    shell("predict run squad.json --output pipe --scores pipe")  # which can take both
    assert Path("link").is_symlink() and Path("dangling").is_symlink()
    piped = os.read(pipe, 10**6).replace(b"}{", b"},{")
    assert json.loads(b"[%s]" % piped) == [read("old.json"), read("new.json")]
    os.close(pipe)
    try:  # a node of our own
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        Path("null").write_text("")
    except OSError:
        pytest.skip("no device can be made here")
    shell("evaluate run squad.json --output null")
    kinds = [path.name for path in Path().iterdir() if not (path.is_file() or path.is_dir())]
    assert sorted(kinds) == ["null", "pipe"], kinds
    assert not list(Path().glob(".*")), "something is left"


@pytest.mark.parametrize("encoding", ["ascii", ""])
def test_main_prints_to_whatever_standard_output_is(encoding):
    """A console that lacks a letter, or what a notebook has in its place."""
    out = io.TextIOWrapper(io.BytesIO(), encoding) if encoding else io.StringIO()
    with redirect_stdout(out):
        main(["ask", "run", "--context", "\u6771", "--question", "Who?"])
    out.seek(0)
    assert f"best span: {'?' if encoding else chr(0x6771)}\n" in out.read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("command", ["train --out new --train pipe.json", "evaluate run pipe.json"])
def test_an_interrupted_command_says_so_and_only_train_can_be_resumed(command, capsys):
    os.mkfifo("pipe.json")  # which it waits for
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored
    Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    err = capsys.readouterr().err
    assert caught.value.code == 130 and err.startswith("interrupted") and err.count("\n") == 1, err
    assert ("--resume" in err) == command.startswith("train"), err


# --- Training ------------------------------------------------------------------------------------


@losses
@pytest.mark.parametrize("accumulate", [1, 3, 100])
def test_training_equals_a_loop_by_hand_whatever_the_parts(loss, accumulate, shell):
    """Five steps of one batch: loss, rate, clipping, AdamW."""
    total, lr, warmup = 5, 1e-3, 2
    given = f"--train squad.json --init still --loss {loss} --synthetic 0 --lr {lr} "
    given += f"--warmup {warmup} --batch-size 100 --accumulate {accumulate} --qa-weight 3 "
    given += "--tagging-weight 0.5 --positive-weight 4 --max-length 32 --stride 4"
    shell(f"train {given} --epochs 1 --out one")
    shell(f"train {given} --epochs {total} --out five")

    model, tokenizer = load_model("still")
    windows = make_windows(read_questions("squad.json"), tokenizer, 32, 4)
    batch = collate(windows)
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
            assert first["loss"] == pytest.approx(value.item(), rel=1e-5), "not of these weights"
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
    assert read("new/config.json")["loss"] == loss
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
    drawn = "Path(f'drawn{robust_eqa.RANK}').write_text(str(torch.rand(3)))"  # as dropout would
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport robust_eqa, torch\n"
    program += f"from pathlib import Path\nrobust_eqa.main()\n{drawn}\n"
    Path("program.py").write_text(program)
    train = "train --limit 100 --epochs 2 --batch-size 33 --accumulate 2 --lr 1e-3 --warmup 5"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["program.py", *f"{train} --eval dev.json --out two".split()]
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
    assert Path("drawn0").read_text() != Path("drawn1").read_text(), "the same dropout on both"


PROCESSES = [  # what the environment has of torchrun, how many processes there are, which this is
    ({"RANK": "1"}, 1, 0),
    ({"WORLD_SIZE": "2"}, 1, 0),
    ({"WORLD_SIZE": "1", "RANK": "3"}, 1, 0),
    ({"WORLD_SIZE": "", "RANK": "0"}, 1, 0),
    ({"WORLD_SIZE": "2", "RANK": "1"}, 2, 1),
]


@pytest.mark.parametrize("given, world, rank", PROCESSES)
def test_without_both_of_torchruns_numbers_there_is_one_process(given, world, rank, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = runpy.run_path(SCRIPT)
    assert (found["WORLD"], found["RANK"]) == (world, rank)


def test_what_all_processes_see_the_first_one_says(monkeypatch, capsys):
    monkeypatch.setattr(robust_eqa, "WORLD", 2)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as caught:
            main("train --train none.json --out new".split())
        assert caught.value.code == 2 and ("error" in capsys.readouterr().err) == (rank == "0")


def test_a_run_that_fails_before_its_first_step_does_not_block_the_next(shell, monkeypatch):
    """Its settings.json is removed, but not that of a run that was begun before."""
    command = "train --train squad.json --init bert --stride 4 --epochs 1 --out new"
    for line, stays in ((command, False), (f"{command} --resume", True)):
        with monkeypatch.context() as patched:
            patched.setattr(robust_eqa, "WORLD", 2)  # but no torchrun that started them
            with pytest.raises(ValueError):
                main(line.split())
        assert Path("new/settings.json").exists() == stays
        shell(line)
        assert {path.name for path in Path("new").iterdir()} == RUN
        Path("new/metrics.json").unlink()  # as if it had not ended


def test_head_bias_is_of_a_new_head_alone(shell):
    given = "train --train squad.json --stride 4 --epochs 1 --lr 0 --head-bias=-4.7"
    assert "--head-bias" not in shell(f"{given} --init headless --out new").err
    new = load_file("new/model.safetensors")
    assert new["qa_outputs.bias"].tolist() == pytest.approx([-4.7, -4.7])
    shell(f"{given} --init headless --out other --seed 1")
    other = load_file("other/model.safetensors")
    assert not torch.equal(new["qa_outputs.weight"], other["qa_outputs.weight"]), "of every seed"
    assert "--head-bias" in shell(f"{given} --init bert --out third").err, "no remark"


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
    shell(f"{WHOLE} --out whole --save-every 300 --resume")  # of nothing: it begins anew
    assert_same_run("killed", "whole")
    assert len(lines("whole/metrics.jsonl")) > 2, "the log is too short to show a loss"
    before = snapshot()
    assert "has ended" in shell(f"{stopped} --resume").err
    assert snapshot() == before, "a run that had ended was changed"


@pytest.mark.parametrize("option", ["--lr 1", "--seed 1", "--loss default", "--limit 5"])
def test_other_settings_do_not_resume(option, stopped, refused):
    name = option.split()[0].removeprefix("--")
    assert f"another {name}" in refused(f"{stopped} --resume {option}")


EDITED = [  # file, what stands in it, what then does, what is said
    ("squad.json", b"Ada Lee opened", b"Ada Lee closed", "data has changed"),  # tokens
    ("squad.json", b'near the lake", "answer_start": 24', b'near", "answer_start": 24', "changed"),
    ("bert/tokenizer.json", b'"type_id": 1', b'"type_id": 0', "data has changed"),  # segments
    ("killed/state.pt", b"PK", b"", "state.pt"),  # no state any more
]


@pytest.mark.parametrize("file, old, new, said", EDITED)
def test_changed_training_data_or_states_are_not_resumed(file, old, new, said, stopped, refused):
    content = Path(file).read_bytes()
    assert old in content
    Path(file).write_bytes(content.replace(old, new))
    assert said in refused(f"{stopped} --resume")


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
evaluate run squad.json --max-length 0                               | --max-length  | settings
train --train squad.json --out run --init ./run --overwrite          | --init        | --overwrite
train --resume --overwrite --out run                                 | not allowed
predict run dev.json --output new --threshold nan                    | --threshold   | settings
ask run --question Who? --context 'caf\udce9'                         | context
ask run --context cafe --question 'Who\udce9'                         | question
predict none none.json --output new --scores bert                    | bert
evaluate none none.json --output bert                                | bert
train --train squad.json                                                           | --out
train --train none.json --out new                                                  | none.json
train --train squad.json --eval broken.json --out new                              | broken.json
train --train squad.json --eval squad.json bert/squad.json --out new              | squad.json
train --train squad.json --eval long.json --stride 4 --max-length 64 --out new     | q0
train --train squad.json --out new --init nobody/no-such-model                     | no-such-model
evaluate run squad.json bert/squad.json                                           | squad.json
evaluate headless squad.json --stride 4                                            | qa_outputs
evaluate torn squad.json                                                           | config.json
evaluate unsettled squad.json                                                      | settings.json
evaluate run dev.json --output run/metrics.json                                    | metrics.json
predict run long.json --output new                                                 | q0
predict run squad.json --output squad.json/new                                     | squad.json
predict run squad.json --output new --scores ./new                                 | new
train --train whole.json --max-length 16 --stride 2 --out run --overwrite          | whole.json
train --loss other                                                                 | --loss
evaluate run                                                                       | files
evaluate run dev.json --attack other                                               | --attack
predict run dev.json                                                               | --output
"""


if Path("/proc").exists():  # where not even root can write
    REFUSED += "predict none none.json --output /proc/new | /proc\n"


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_refused_in_one_sentence_and_nothing_is_left_behind(line, refused):
    line, word, *others = map(str.strip, line.split("|"))
    message = refused(line)
    assert word in message and not any(other in message for other in others), message


BAD_VALUES = """--epochs -1|--epochs nan|--epochs inf|--batch-size 0|--accumulate 0|--lr -1|--lr nan|
--lr inf|--synthetic -0.1|--stride -1|--seed -1|--max-length 0|--max-answer-length 0|--limit -1|
--warmup -1|--synthetic 30|--distractors -0.1|--distractors 1.1|--threshold nan|--threshold inf|
--epochs 0|--head-bias nan|--save-every -1|--qa-weight nan|--tagging-weight -1|--positive-weight -1"""


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
