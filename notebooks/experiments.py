"""Train and score arms on real text: a line of scores a run, and a report made of those lines.

    python notebooks/experiments.py --init ENCODER --arm default robust+synthetic --seed 0 1 2
    python notebooks/experiments.py report

A run is an arm and a seed. It ends as one line of results/summary.jsonl, which says how to repeat
it: check out its "commit" and give its "command", with --init for the folder of your encoder. A
run that was stopped goes on where it was; one that has its line at this commit is left out.
Choices are made with --choose: those runs see questions held out of training, and no test.

The data files are looked for in the folder EQA_DATA; a test whose file is absent is left out. The
encoder is a BERT or RoBERTa checkpoint, or MPNet, which model.py does not hold.
"""

import argparse
import json
import math
import os
import platform
import random
import re
import subprocess
import sys
import time
import zlib
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from data import InputError, add_synthetic_answers, attack, read_questions, write_file
from model import QAModel, load_model, save_model
from robust_eqa import Settings, fit, predict, squad_scores

ARMS = {
    "default": {"loss": "default"},
    "robust": {"synthetic": 0.0},
    "default+synthetic": {"loss": "default", "synthetic": 0.3},
    "robust+synthetic": {},  # the paper's
    "default+distractors": {"loss": "default", "distractors": 0.5},  # ours, as is the next
    "robust+both": {"distractors": 0.5},
}
COMMON = "train", "init", "limit", "epochs", "batch_size"  # what arms in one table share
HELD_OUT = "held-out"  # training paragraphs, for the calibrated threshold and all choices

# --- Another encoder in the same loop ---------------------------------------------------------


class MPNet(nn.Module):
    """transformers' MPNetModel and a head, as robust_eqa.fit and predict want a model."""

    def __init__(self, directory, head_bias):
        super().__init__()
        from transformers import MPNetModel

        encoder = MPNetModel.from_pretrained(directory, add_pooling_layer=False)
        self.encoder = encoder.float()
        self.config = config = encoder.config
        config.question_overlap = False
        self.padding = config.pad_token_id  # 1: positions begin after it
        self.max_length = config.max_position_embeddings - self.padding - 1
        self.head = nn.Linear(config.hidden_size, 2)
        nn.init.normal_(self.head.weight, std=config.initializer_range)
        nn.init.constant_(self.head.bias, head_bias)

    def forward(self, input_ids, segment_ids, mask):  # (B, T) x3 -> (2, B, T)
        input_ids = input_ids.masked_fill(~mask, self.padding)
        x = self.encoder(input_ids, attention_mask=mask.long())[0]  # (B, T, D)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float()).permute(2, 0, 1)


def load_encoder(directory, head_bias):
    """A checkpoint of any of the three kinds -> model, tokenizer."""
    if '"mpnet"' not in Path(directory, "config.json").read_text("utf-8"):
        return load_model(directory, head_bias=head_bias)
    tokenizer = Tokenizer.from_file(str(Path(directory, "tokenizer.json")))
    return MPNet(directory, head_bias), tokenizer


# --- Data: {name of a test: questions} --------------------------------------------------------

TRAIN = "squad2-train-29k.json.gz"
DEV = "squad2-dev.json.gz"
ADDONESENT = "addonesent.json.gz"
WHOLE = {
    "squadshifts-reddit": "squadshifts-reddit.json.gz",
    "squadshifts-new-wiki": "squadshifts-new-wiki.json.gz",
    "ace-has-answer": "ace-whqa-has-answer.json",
    "ace-competitive": "ace-whqa-competitive.json",
    "ace-non-competitive": "ace-whqa-non-competitive.json",
}
SOURCES = {"addonesent": "addonesent-originals", "negation": "squad2-dev"}  # before the attack
SOURCES |= {f"{HELD_OUT}-addonesent": HELD_OUT, f"{HELD_OUT}-negation": HELD_OUT}
ADVERSARIAL = "-high-conf"  # what follows an original's id in AddOneSent


def sample(questions, size):
    return random.Random(0).sample(questions, min(size, len(questions)))


def training_questions(folder):
    """Of paragraphs with an unanswerable question, nine tenths to train on; a tenth held out."""
    questions = read_questions(Path(folder, TRAIN))
    core = sorted({q.context for q in questions if not q.answers})
    held = set(sample(core, math.ceil(len(core) / 10)))
    kept = set(core) - held
    training = [q for q in questions if q.context in kept]
    return training, [q for q in questions if q.context in held]


def read_tests(folder):
    """All tests whose files are there -> {name: questions}."""
    tests = {}
    absent = [f for f in (DEV, ADDONESENT, *WHOLE.values()) if not Path(folder, f).exists()]
    if absent:
        print(f"not scored, as {folder} lacks them: {', '.join(absent)}", file=sys.stderr)
    if DEV not in absent:
        dev = read_questions(Path(folder, DEV))
        tests["squad2-dev"] = sample(dev, 1200)
        ids = {q.id for q in tests["squad2-dev"]}
        for kind in ("negation", "information-seeking"):
            tests[kind] = [q for q in attack(dev, kind) if original_id(q) in ids]
    if ADDONESENT not in absent:
        questions = read_questions(Path(folder, ADDONESENT))
        tests["addonesent-originals"] = [q for q in questions if ADVERSARIAL not in q.id]
        tests["addonesent"] = [q for q in questions if ADVERSARIAL in q.id]
    for name, file in WHOLE.items():
        if file not in absent:
            questions = read_questions(Path(folder, file))
            # A file of ACE-whQA begins with the names of its columns.
            tests[name] = sample([q for q in questions if q.context != "Text"], 500)
    return {name: questions for name, questions in tests.items() if questions}


def original_id(question):
    return question.id.split(ADVERSARIAL)[0].removesuffix("-rematched")


# --- A run ------------------------------------------------------------------------------------

KEPT = "total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1"


def score(questions, predicted, threshold):
    spans, no_answer = ({q.id: found[q.id] for q in questions} for found in predicted)
    scores = squad_scores(questions, spans, no_answer, threshold)
    return {name: round(scores[name], 2) for name in KEPT if name in scores}


def score_three_ways(tests, predicted):
    """-> scores, attacks, each {way of answering: ...}; the threshold best on held-out questions."""
    calibrated = squad_scores(tests[HELD_OUT], *predicted[HELD_OUT])["best_f1_thresh"]
    ways = {"threshold 0": 0.0, "calibrated": calibrated, "all answered": math.inf}
    scores, attacks = {}, {}
    for way, threshold in ways.items():
        scores[way], attacks[way] = {}, {}
        for name, questions in tests.items():
            scores[way][name] = score(questions, predicted[name], threshold)
        for name, source in SOURCES.items():
            if name in tests:
                wanted = {original_id(q) for q in tests[name]}
                originals = [q for q in tests[source] if q.id in wanted]
                before = score(originals, predicted[source], threshold)["f1"]
                after = scores[way][name]["f1"]
                drop = round(before - after, 2)
                attacks[way][name] = {"before": before, "after": after, "drop": drop}
    return scores, attacks, calibrated


def commit():
    """The commit, with a + where Python files have changed since; unknown outside of git."""
    git = {"cwd": HERE.parent, "capture_output": True, "text": True}
    head = subprocess.run(["git", "rev-parse", "HEAD"], **git).stdout.strip()[:7]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], **git)
    return head + "+" * changed.returncode if head else "unknown"


def processor():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")
    found = re.search("model name\\s*: (.*)", file.read_text()) if file.exists() else None
    return f"{found[1] if found else platform.processor()}, {torch.get_num_threads()} threads"


def settings_of(own, arm, seed):
    """The Settings of a run, in a directory whose name tells them apart."""
    kinds = {f.name: f.type for f in fields(Settings)}
    given = {"train": TRAIN, "init": own.init, "seed": seed, **ARMS[arm]}
    for name, _, value in (text.partition("=") for text in own.set):
        given[name] = kinds[name](value)
    settings = Settings(**given)
    digest = zlib.crc32(f"{settings} {own.commit or commit()}".encode())
    settings.out = str(Path(own.runs, f"{Path(own.init).name}-{arm}-{seed}-{digest:08x}"))
    return settings


def described(own, arm, settings):
    """What a line of the summary says of its run before there are scores."""
    init, seed = Path(settings.init).name, settings.seed
    command = f"python notebooks/experiments.py --init {init} --arm {arm} --seed {seed}"
    command += " --set " + " ".join(own.set) if own.set else ""
    command += " --choose" if own.choose else ""
    line = {"commit": own.commit or commit(), "command": command, "arm": arm, "seed": seed}
    line["settings"] = asdict(settings) | {"init": init}
    for name in ("out", "eval", "seed"):
        del line["settings"][name]
    return line


def run(line, settings, questions, tests):
    """Train, or go on training; predict each test once -> the line of the summary."""
    began, out = time.monotonic(), Path(settings.out)
    torch.manual_seed(settings.seed)
    model, tokenizer = load_encoder(settings.init, settings.head_bias)
    questions = sample(questions, settings.limit or len(questions))
    for kind, share in {"mixed": settings.synthetic, "distractor": settings.distractors}.items():
        questions = add_synthetic_answers(questions, share, settings.seed, kind)
    log = fit(model, tokenizer, questions, settings, resume=True)
    metrics = "".join(json.dumps(logged) + "\n" for logged in log)
    write_file(out / "metrics.jsonl", metrics.encode())
    write_file(out / "settings.json", asdict(settings))
    if isinstance(model, QAModel):
        save_model(model, tokenizer, out)
    trained, predicted = time.monotonic(), {}
    for name, test in tests.items():
        _, spans, no_answer = predict(model, tokenizer, test, settings)
        predicted[name] = spans, no_answer
    scores, attacks, calibrated = score_three_ways(tests, predicted)
    minutes = {"train": trained - began, "predict": time.monotonic() - trained}
    return line | {
        "processor": processor(),
        "minutes": {part: round(seconds / 60, 2) for part, seconds in minutes.items()},
        "steps": log[-1]["step"],
        "calibrated threshold": round(calibrated, 3),
        "scores": scores,
        "attacks": attacks,
    }


def read_lines(file):
    return [json.loads(line) for line in file.open(encoding="utf-8")] if file.exists() else []


def run_all(own):
    """Every arm and seed that was asked for and has no line yet, seed by seed."""
    if not own.init:
        raise InputError("--init is missing; give the folder of an encoder")
    done = [(line["commit"], line["command"]) for line in read_lines(own.summary)]
    questions, held_out = training_questions(own.data)
    tests = {HELD_OUT: held_out}
    for kind in ("addonesent", "negation"):
        tests[f"{HELD_OUT}-{kind}"] = attack(held_out, kind)
    tests |= {} if own.choose else read_tests(own.data)
    for seed, arm in product(own.seed, own.arm):
        settings = settings_of(own, arm, seed)
        line = described(own, arm, settings)
        if (line["commit"], line["command"]) in done:
            print(f"{settings.out} has its line", file=sys.stderr)
            continue
        print(settings.out, file=sys.stderr)
        line = run(line, settings, questions, tests)
        with open(own.summary, "a", encoding="utf-8") as summary:
            summary.write(json.dumps(line) + "\n")
        Path(settings.out, "state.pt").unlink()  # for MPNet 1.3 GB


# --- Report: from lines of the summary alone --------------------------------------------------


def spread(values):
    """Mean ± standard deviation of a sample (n - 1), and n: [50, 52] -> "51.0 ± 1.4 (2)"."""
    if not values:
        return "not run"
    mean = np.round(np.mean(values), 1) + 0.0  # no "-0.0"
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{mean:.1f}{deviation} ({len(values)})"


def by_arm(lines):
    """{arm, with settings in which its lines differ: lines}, of two of one seed the later."""
    arms = {}
    for line in lines:
        name = line["arm"]
        for key, value in line["settings"].items():
            if len({one["settings"].get(key) for one in lines if one["arm"] == line["arm"]}) > 1:
                name += f", {key} {value:g}"
        arms.setdefault(name, {})[line["seed"]] = line
    return {name: list(seeds.values()) for name, seeds in arms.items()}


def measures(line, way):
    """{name: F1} of a run: each test, and means of those with and without answers."""
    choosing, scores = "--choose" in line.get("command", ""), line["scores"][way]
    scores = {k: v for k, v in scores.items() if k.startswith(HELD_OUT) == choosing}
    found, means = {}, []
    for name, own in scores.items():
        found[f"{name} F1"] = own["f1"]
        if {"HasAns_f1", "NoAns_f1"} <= own.keys():
            found[f"{name} best F1, in hindsight"] = own["best_f1"]
            found[f"{name} HasAns"] = own["HasAns_f1"]
            found[f"{name} NoAns"] = own["NoAns_f1"]
    for key in ("HasAns_f1", "NoAns_f1"):
        means.append(np.mean([own[key] for own in scores.values() if key in own]))
    found["mean over HasAns sets"], found["mean over NoAns sets"] = means
    found["mean of both means"] = np.mean(means)
    found["mean of all sets"] = np.mean([own["f1"] for own in scores.values()])
    return found


def score_rows(arms, way):
    """A row for each measure, a column for each arm."""
    found = {arm: [measures(line, way) for line in lines] for arm, lines in arms.items()}
    names = dict.fromkeys(name for runs in found.values() for one in runs for name in one)
    rows = [["F1, mean ± sd (seeds)", *arms]]
    for name in names:
        values = ([one[name] for one in runs if name in one] for runs in found.values())
        rows.append([name, *map(spread, values)])
    return rows


def share(default, own):
    """A drop as a share of default's; in brackets where F1 before it is below 60 in either."""
    theirs = np.mean([attack["drop"] for attack in default])
    if theirs < 3:
        return f"none: default loses {theirs:.1f}, less than 3"
    ratio = f"{np.mean([attack['drop'] for attack in own]) / theirs:.2f}"
    before = [np.mean([attack["before"] for attack in runs]) for runs in (default, own)]
    return ratio if min(before) >= 60 else f"({ratio})"


def attack_rows(arms, way):
    """A row for each attack and arm: F1 before and after, and what is lost."""
    rows = [["attack", "arm", "F1 before", "F1 after", "drop", "drop / default's"]]
    for name in next(iter(arms.values()))[0]["attacks"][way]:
        for arm, lines in arms.items():
            own = [line["attacks"][way][name] for line in lines]
            cells = [spread([a[key] for a in own]) for key in ("before", "after", "drop")]
            default = [line["attacks"][way][name] for line in arms.get("default", [])]
            compared = default and arm != "default"
            rows.append([name, arm, *cells, share(default, own) if compared else "-"])
    return rows


def markdown(rows):
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def report(lines):
    """Print every table; arms stand side by side where all else is equal."""
    groups = {}
    for line in sorted(lines, key=lambda line: [*ARMS].index(line["arm"])):
        common = {name: line["settings"][name] for name in COMMON}
        common["choose"] = "--choose" in line["command"]
        groups.setdefault(json.dumps(common), []).append(line)
    for common, lines in groups.items():
        print(common)
        for name in ("commit", "processor"):
            print(f"{name}: {', '.join(dict.fromkeys(line[name] for line in lines))}")
        minutes = np.mean([sum(line["minutes"].values()) for line in lines])
        print(f"minutes a run: {minutes:.1f}, on average")
        for way in lines[0]["scores"]:
            print(f"\n## {way}\n\n{markdown(score_rows(by_arm(lines), way))}")
            print(f"\n{markdown(attack_rows(by_arm(lines), way))}\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add, root = parser.add_argument, HERE.parent
    add("command", nargs="?", default="run", choices=("run", "report"))
    add("--init", default="", help="folder of the encoder")
    add("--arm", nargs="+", default=[*ARMS], choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    add("--seed", nargs="+", type=int, default=[0], help="one run of each arm for each (0)")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings of train")
    add("--choose", action="store_true", help="score held-out questions only")
    add("--data", default=os.environ.get("EQA_DATA", root.parent / "shared/data"), help="EQA_DATA")
    add("--runs", default=root / "runs/experiments", help="folder of the runs")
    add("--summary", type=Path, default=HERE / "results/summary.jsonl", help="file of the lines")
    add("--commit", default="", help="the commit, where git cannot tell")
    own = parser.parse_args(arguments)
    try:
        if own.command == "report":
            report(read_lines(own.summary))
        else:
            run_all(own)
    except (InputError, OSError, KeyboardInterrupt) as error:
        sys.exit(f"stopped: {str(error) or 'the same command goes on'}")


if __name__ == "__main__":
    main()
