"""Train and score arms on real text: a line of scores a run, and a report made of those lines.

    python notebooks/experiments.py --init ENCODER --arm default default+both --seed 0 1 2
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
from collections import Counter
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from data import Answer, InputError, attack, read_questions, sentence_bounds, write_file
from model import QAModel, load_model, save_model
from robust_eqa import Settings, add_made_sentences, fit, predict, squad_scores, training_windows

ARMS = {
    "default": {"loss": "default"},
    "robust": {"synthetic": 0.0},
    "default+synthetic": {"loss": "default", "synthetic": 0.3},
    "robust+synthetic": {},  # the paper's
    "default+distractors": {"loss": "default", "distractors": 0.5},  # ours, as are the next two
    "default+both": {"loss": "default", "synthetic": 0.3, "distractors": 0.5},
    "robust+both": {"distractors": 0.5},
}
# In what arms differ; in all other settings, those that are compared are equal.
OF_AN_ARM = "loss synthetic distractors head_bias qa_weight tagging_weight positive_weight".split()
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
TESTS = {  # name: file, number of questions before attacks
    "squad2-dev": ("squad2-dev.json.gz", 1200),
    "addonesent": ("addonesent.json.gz", 1000),
    "squadshifts-reddit": ("squadshifts-reddit.json.gz", 500),
    "squadshifts-new-wiki": ("squadshifts-new-wiki.json.gz", 500),
    "ace-has-answer": ("ace-whqa-has-answer.json", 500),
    "ace-competitive": ("ace-whqa-competitive.json", 500),
    "ace-non-competitive": ("ace-whqa-non-competitive.json", 500),
    "addsent": ("addsent.json.gz", 1000),  # this and the next for the last table alone
    "adversarialqa": ("adversarialqa-dev.jsonl.gz", 1000),
}
FEW = TESTS | {"addsent": ("addsent.json.gz", 300)}
FEW = {name: FEW[name] for name in ("squad2-dev", "addonesent", "addsent")}
# Their mean F1 is compared with earlier lines', so that no later test may join it.
IN_MEANS = [*TESTS][:7] + ["addonesent-originals", "negation", "information-seeking"]
MADE = {"negation": "negation", "addonesent-like": "addonesent"}  # test: kind of attack
PLACES = "", "-first", "-middle"  # of the made statement, which `attack` puts last
# Attacked test: the test that holds its questions as they were before the attack.
BEFORE = {f"{name}{place}": "squad2-dev" for name in MADE for place in PLACES}
BEFORE |= {f"{HELD_OUT}-{kind}": HELD_OUT for kind in MADE.values()}
BEFORE |= {"addonesent": "addonesent-originals", "addsent": "addsent"}
ADVERSARIAL = "-high-conf"  # what follows an original's id in AddOneSent and AddSent


def sample(questions, size):
    return random.Random(0).sample(questions, min(size, len(questions)))


def original_id(question):
    return question.id.split(ADVERSARIAL)[0].removesuffix("-rematched")


def training_questions(folder):
    """Of paragraphs with an unanswerable question, nine tenths to train on; a tenth held out."""
    questions = read_questions(Path(folder, TRAIN))
    core = sorted({q.context for q in questions if not q.answers})
    held = set(sample(core, math.ceil(len(core) / 10)))
    kept = set(core) - held
    return [q for q in questions if q.context in kept], [q for q in questions if q.context in held]


def read_tests(folder, wanted):
    """{name: (file, size)} -> {name: questions}, with their attacked versions."""
    tests = {}
    for name, (file, size) in wanted.items():
        if not Path(folder, file).exists():
            print(f"{name} is not scored, as {folder} lacks {file}", file=sys.stderr)
            continue
        # A file of ACE-whQA begins with the names of its columns.
        questions = [q for q in read_questions(Path(folder, file)) if q.context != "Text"]
        originals = sample([q for q in questions if ADVERSARIAL not in q.id], size)
        ids = {q.id for q in originals}
        attacked = [q for q in questions if ADVERSARIAL in q.id and original_id(q) in ids]
        if name == "addonesent":
            tests |= {"addonesent-originals": originals, name: attacked}
        else:
            tests[name] = originals + attacked
        if name == "squad2-dev":
            tests |= made_attacks(questions, ids)
    return {name: questions for name, questions in tests.items() if questions}


def made_attacks(questions, ids):
    """Our attacks on the questions of these ids, the made statement last, first, in the middle."""
    found, originals = {}, {q.id: q for q in questions}
    for name, kind in {**MADE, "information-seeking": "information-seeking"}.items():
        found[name] = [q for q in attack(questions, kind) if original_id(q) in ids]
    for name, place in product(MADE, PLACES[1:]):
        found[name + place] = [move_statement(q, originals[q.id], place) for q in found[name]]
    return found


def move_statement(attacked, original, place):
    """An appended statement goes first, or to the sentence bound nearest to the text's middle."""
    context, golds = original.context, original.answers
    statement = attacked.context.removeprefix(context).strip() + " "
    inside = {k for gold in golds for k in range(gold.start + 1, gold.start + len(gold.text))}
    bounds = [bound for bound in sentence_bounds(context)[:-1] if bound not in inside]
    slot = 0 if place == "-first" else min(bounds, key=lambda k: abs(k - len(context) / 2))
    moved = []
    for gold in golds:
        shift = len(statement) if gold.start >= slot else 0  # an answer without a place has -1
        moved.append(Answer(gold.text, gold.start + shift))
    return replace(attacked, context=context[:slot] + statement + context[slot:], answers=moved)


# --- A run ------------------------------------------------------------------------------------

KEPT = "total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1"


def score(questions, predicted, threshold):
    """Official scores of some of the questions whose (spans, no-answer scores) are given."""
    spans, no_answer = ({q.id: found[q.id] for q in questions} for found in predicted)
    scores = squad_scores(questions, spans, no_answer, threshold)
    return {name: round(scores[name], 2) for name in KEPT if name in scores}


def answers_of(predicted, threshold):
    spans, no_answer = predicted
    return {key: "" if no_answer[key] > threshold else span for key, span in spans.items()}


def worst_versions(questions, predicted, threshold):
    """AddSent's score: of the versions of a question, the original among them, the worst counts."""
    answers, versions = answers_of(predicted, threshold), {}
    for q in questions:
        own = squad_scores([q], {q.id: answers[q.id]})
        versions.setdefault(original_id(q), []).append((own["exact"], own["f1"]))
    exact, f1 = np.mean([np.min(scores, axis=0) for scores in versions.values()], axis=0)
    return {"total": len(versions), "exact": round(float(exact), 2), "f1": round(float(f1), 2)}


def origin(answer, context, added):
    """Where an answer stands, as far as its text tells: in a text, or in what was added to it."""
    if not answer:
        return "none"
    if answer not in context:
        return "added"
    return "either" if answer in added else "elsewhere"


def answer_origins(tests, predicted, threshold):
    """How many of the answers to AddOneSent's pairs come from where, before and after."""
    names = "addonesent-originals", "addonesent"
    before, after = (answers_of(predicted[name], threshold) for name in names)
    contexts = {q.id: q.context for q in tests["addonesent-originals"]}
    counts = {"before": Counter(), "after": Counter()}
    for q in tests["addonesent"]:
        context = contexts[original_id(q)]
        added = q.context.removeprefix(context)
        counts["before"][origin(before[original_id(q)], context, added="")] += 1
        counts["after"][origin(after[q.id], context, added)] += 1
    return counts


def score_three_ways(tests, predicted):
    """{test: questions}, {test: (spans, no-answer scores)} -> what a line says of them."""
    calibrated = squad_scores(tests[HELD_OUT], *predicted[HELD_OUT])["best_f1_thresh"]
    ways = {"threshold 0": 0.0, "calibrated": calibrated, "all answered": math.inf}
    scores, attacks, origins = {}, {}, {}
    for way, threshold in ways.items():
        scores[way], attacks[way] = {}, {}
        for name, questions in tests.items():
            how = worst_versions if name == "addsent" else score
            scores[way][name] = how(questions, predicted[name], threshold)
        for name, source in BEFORE.items():
            if name in tests:
                wanted = {original_id(q) for q in tests[name]}
                originals = [q for q in tests[source] if q.id in wanted]
                before = score(originals, predicted[source], threshold)["f1"]
                after = scores[way][name]["f1"]
                drop = round(before - after, 2)
                attacks[way][name] = {"before": before, "after": after, "drop": drop}
        if "addonesent" in tests:
            origins[way] = answer_origins(tests, predicted, threshold)
    found = {"scores": scores, "attacks": attacks, "addonesent answers": origins}
    return {"calibrated threshold": round(calibrated, 3)} | found


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
    if settings.loss not in ("default", "robust"):
        raise InputError(f"--set loss={settings.loss}: neither default nor robust")
    digest = zlib.crc32(f"{settings} {own.commit or commit()}".encode())
    settings.out = str(Path(own.runs, f"{Path(own.init).name}-{arm}-{seed}-{digest:08x}"))
    return settings


def described(own, arm, settings):
    """What a line of the summary says of its run before there are scores."""
    init, seed = Path(settings.init).name, settings.seed
    command = f"python notebooks/experiments.py --init {init} --arm {arm} --seed {seed}"
    command += " --set " + " ".join(own.set) if own.set else ""
    command += " --choose" if own.choose else ""
    command += " --few" if own.few else ""
    line = {"commit": own.commit or commit(), "command": command, "arm": arm, "seed": seed}
    kept = {k: v for k, v in asdict(settings).items() if k not in ("out", "eval", "seed")}
    return line | {"settings": kept | {"init": init}}


def run(line, settings, questions, tests):
    """Train, or go on training; predict each test once -> the line of the summary."""
    began, out = time.monotonic(), Path(settings.out)
    torch.manual_seed(settings.seed)
    model, tokenizer = load_encoder(settings.init, settings.head_bias)
    questions = sample(questions, settings.limit or len(questions))
    questions = add_made_sentences(questions, settings)
    windows = training_windows(questions, model, tokenizer, settings)
    log = fit(model, windows, settings, resume=True)
    write_file(out / "metrics.jsonl", "\n".join(map(json.dumps, log)).encode() + b"\n")
    write_file(out / "settings.json", asdict(settings))
    if isinstance(model, QAModel):
        save_model(model, tokenizer, out)
    trained, predicted = time.monotonic(), {}
    for name, test in tests.items():
        predicted[name] = predict(model, tokenizer, test, settings)[1:]  # spans, no-answer scores
    minutes = {"train": trained - began, "predict": time.monotonic() - trained}
    return line | {
        "processor": processor(),
        "minutes": {part: round(seconds / 60, 2) for part, seconds in minutes.items()},
        "steps": log[-1]["step"],
        **score_three_ways(tests, predicted),
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
    tests |= {f"{HELD_OUT}-{kind}": attack(held_out, kind) for kind in MADE.values()}
    if not own.choose:
        tests |= read_tests(own.data, FEW if own.few else TESTS)
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
    mean = np.round(np.mean(values), 1) + 0.0  # no "-0.0"
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{mean:.1f}{deviation} ({len(values)})"


T_975 = 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26  # Student's, of 1 to 9 degrees


def interval(values):
    """Mean and its 95% interval by Student's t: [1, 3] -> "+2.0 (-10.7 to +14.7; 2 seeds)"."""
    n, mean = len(values), np.mean(values)
    if n == 1:
        return f"{mean:+.1f} (1 seed)"
    reach = T_975[n - 2] * np.std(values, ddof=1) / math.sqrt(n)
    return f"{mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f}; {n} seeds)"


def arm_name(line):
    """The arm, with all that was set otherwise than the arm says: "robust, head_bias -5"."""
    name, usual = line["arm"], asdict(Settings(**ARMS[line["arm"]]))
    for key in OF_AN_ARM:
        if line["settings"][key] != usual[key]:
            name += f", {key} {line['settings'][key]}".removesuffix(".0")
    return name


def by_arm(lines):
    """{name of an arm: lines}, of two of one seed the later."""
    arms = {}
    for line in sorted(lines, key=lambda line: [*ARMS].index(line["arm"])):
        arms.setdefault(arm_name(line), {})[line["seed"]] = line
    return {name: list(seeds.values()) for name, seeds in arms.items()}


def by_seed(own, others):
    """{seed: value} minus {seed: value}, where a seed is in both."""
    return {seed: own[seed] - others[seed] for seed in own if seed in others}


def measures(line, way):
    """{name: F1} of a run: each test, and the mean of those IN_MEANS."""
    choosing, scores = "--choose" in line["command"], line["scores"][way]
    scores = {k: v for k, v in scores.items() if k.startswith(HELD_OUT) == choosing}
    found = {}
    for name, own in scores.items():
        found[f"{name} F1"] = own["f1"]
        if {"HasAns_f1", "NoAns_f1"} <= own.keys():
            found[f"{name} best F1, in hindsight"] = own["best_f1"]
            found[f"{name} HasAns"], found[f"{name} NoAns"] = own["HasAns_f1"], own["NoAns_f1"]
    in_means = [own for name, own in scores.items() if choosing or name in IN_MEANS]
    found["mean of all sets"] = np.mean([own["f1"] for own in in_means])
    return found


def score_rows(arms, way):
    """A row for each measure, a column for each arm."""
    found = {arm: [measures(line, way) for line in lines] for arm, lines in arms.items()}
    rows = [["F1, mean ± sd (seeds)", *arms]]
    for name in next(iter(found.values()))[0]:
        rows.append([name, *(spread([one[name] for one in runs]) for runs in found.values())])
    return rows


def attack_rows(arms, way):
    """A row for each attack and arm: F1 before and after, the drop, and it minus default's."""
    rows = [["attack (F1)", "arm", "before", "after", "drop"]]
    rows[0] += ["drop minus default's, by seed", "their mean, 95%"]
    for name in next(iter(arms.values()))[0]["attacks"][way]:
        default = {x["seed"]: x["attacks"][way][name]["drop"] for x in arms.get("default", [])}
        for arm, lines in arms.items():
            found = {line["seed"]: line["attacks"][way][name] for line in lines}
            row = [spread([one[key] for one in found.values()]) for key in rows[0][2:5]]
            gaps = by_seed({seed: one["drop"] for seed, one in found.items()}, default)
            if gaps and arm != "default":
                row += ", ".join(f"{gap:+.1f}" for gap in gaps.values()), interval([*gaps.values()])
            rows.append([name, arm, *row])
    return rows


def markdown(rows):
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def comparable(lines):
    """{what they share: lines}, which differ in the arm and the seed alone."""
    groups = {}
    for line in lines:
        settings = {k: v for k, v in line["settings"].items() if k not in OF_AN_ARM}
        totals = {name: own["total"] for name, own in line["scores"]["threshold 0"].items()}
        shared = {"commit": line["commit"], "settings": settings, "questions": totals}
        groups.setdefault(json.dumps(shared), []).append(line)
    return groups


def report(own):
    """Print every table of the summary."""
    for shared, lines in comparable(read_lines(own.summary)).items():
        print(f"# {shared}")
        print(f"processor: {', '.join(dict.fromkeys(line['processor'] for line in lines))}")
        for way in lines[0]["scores"]:
            print(f"\n## {way}\n\n{markdown(score_rows(by_arm(lines), way))}")
            print(f"\n{markdown(attack_rows(by_arm(lines), way))}\n")
            for line in lines:
                counts = line.get("addonesent answers", {}).get(way, "not counted")
                print(f"answers to AddOneSent, {arm_name(line)}, {line['seed']}: {counts}")


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
    add("--few", action="store_true", help="dev, AddOneSent, 300 of AddSent; for a CPU")
    add("--data", default=os.environ.get("EQA_DATA", root.parent / "shared/data"), help="EQA_DATA")
    add("--runs", default=root / "runs/experiments", help="folder of the runs")
    add("--summary", type=Path, default=HERE / "results/summary.jsonl", help="file of the lines")
    add("--commit", default="", help="the commit, where git cannot tell")
    own = parser.parse_args(arguments)
    try:
        {"run": run_all, "report": report}[own.command](own)
    except (InputError, OSError, KeyboardInterrupt) as error:
        sys.exit(f"stopped: {str(error) or 'the same command goes on'}")


if __name__ == "__main__":
    main()
