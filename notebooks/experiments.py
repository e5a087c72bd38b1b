"""The experiments of the reproduction: train arms with several seeds, keep raw results, report.

    python notebooks/experiments.py tune --init MINILM --seeds 1 --limit 9000
    python notebooks/experiments.py main --init MINILM
    python notebooks/experiments.py report

The data files are those of the folder EQA_DATA. A run (an arm and a seed) ends as one line of
results/<experiment>.jsonl. A run that has its line is skipped and one that was stopped goes on, so
repeat a command until nothing is left. One process at a time per folder of results and of runs:
for two, give each its own and join the lines. `ablations`, `kinds` and `ours` are reported beside
main's arms; `attacks` trains nothing new, it tests main's models (where they are missing it trains
them first): give all of them main's options. A tenth of the training paragraphs is held out.

What only an ablation needs is no option of robust_eqa.py: while such an arm trains, a function of
the modules is replaced by one of this file (`replaced`).
"""

import argparse
import json
import math
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import data
from data import InputError, make_windows, read_questions, synthetic_answer
from model import load_model
from robust_eqa import (
    Settings,
    normalize_answer,
    predict,
    qa_loss,
    robust_loss,
    squad_scores,
    tagging_loss,
    train,
)

# --- Arms: changes to Settings, and perhaps a switch -----------------------------------------
DEFAULTS = {"init": "", "train": "squad2-train-29k.json.gz", "lr": 6e-4, "epochs": 1.0}
DEFAULTS |= {"batch_size": 16, "warmup": 200, "max_length": 384, "stride": 128, "dropout": 0.0}
DEFAULT, PAPER = {"loss": "default", "synthetic": 0.0}, {"loss": "robust", "synthetic": 0.3}
GRID = [(3e-4, 0.1, 16), (4e-4, 0.0, 16), (6e-4, 0.0, 16), (1e-3, 0.0, 16)]
GRID += [(6e-4, 0.0, 8), (6e-4, 0.0, 32)]
TUNED = ("lr", "dropout", "batch_size", "warmup")
ARMS = {
    "main": {
        "default": DEFAULT,
        "robust": PAPER | {"synthetic": 0.0},
        "default+synthetic": DEFAULT | {"synthetic": 0.3},
        "robust+synthetic": PAPER,
    },
    "ablations": {  # of robust+synthetic; main has the shares 0 and 0.3
        # A constant added to all logits leaves the QA loss as it is, so that alone it does not tie
        # scores to the threshold 0: compare best F1.
        "tagging-off": PAPER | {"tagging_weight": 0.0},
        "uniform-off": PAPER | {"switch": "cls label"},
        "weights-1-1": PAPER | {"qa_weight": 1.0, "tagging_weight": 1.0},
        "weights-1-2": PAPER | {"qa_weight": 1.0, "tagging_weight": 2.0},
        "positive-weight-1": PAPER | {"positive_weight": 1.0},
        "padding-counted": PAPER | {"switch": "padding"},
        "share-0.1": PAPER | {"synthetic": 0.1},
        "share-0.6": PAPER | {"synthetic": 0.6},
        "elsewhere-left-out": PAPER | {"switch": "no elsewhere"},
    },
    "kinds": {  # of synthetic answers; main has "mixed": evidence and template in equal parts
        "evidence": PAPER | {"synthetic_kind": "evidence"},
        "template": PAPER | {"synthetic_kind": "template"},
        "random-span": PAPER | {"switch": "random span"},
        "three-kinds": PAPER | {"switch": "three kinds"},
    },
    "tune": {  # of default training, on held-out training questions; the choice is for all arms
        f"lr-{lr}-dropout-{rate}-batch-{size}": DEFAULT
        | {"lr": lr, "dropout": rate, "batch_size": size, "warmup": 3200 // size}
        for lr, rate, size in GRID
    },
}
CONTRAST = {"switch": "contrast", "synthetic": 0.6}
DISTRACTORS = {"switch": "distractor", "synthetic": 0.6}
EVERYWHERE = DISTRACTORS | {"switch": "distract all"}
ARMS["ours"] = {  # not the paper's; a calibrated threshold, also ours, needs no training
    "default+contrast": DEFAULT | CONTRAST,
    "robust+contrast": PAPER | CONTRAST,
    "default+distractors": DEFAULT | DISTRACTORS,
    "default+distractors everywhere": DEFAULT | EVERYWHERE,
    "QA loss+distractors everywhere": PAPER | EVERYWHERE | {"tagging_weight": 0.0},
    "robust, tagging 0.1+distractors everywhere": PAPER | EVERYWHERE | {"tagging_weight": 0.1},
    "robust+synthetic, positive weight 8": PAPER | {"positive_weight": 8.0},
}
ARMS["attacks"] = ARMS["main"]


def cls_label(start_logits, end_logits, start_labels, end_labels, mask, qa, tagging, positive):
    """The robust loss with [CLS] as the QA loss's label of a window without a gold, for 1/n on all."""
    labels = torch.stack([start_labels, end_labels])  # (2, B, T)
    filled = labels.clone()
    filled[..., 0] += ~labels.any(-1)
    logits = start_logits, end_logits
    tagged = tagging_loss(*logits, *labels, mask, positive)
    return qa * qa_loss(*logits, *filled, mask) + tagging * tagged


def padding_counts(start_logits, end_logits, start_labels, end_labels, mask, *weights):
    ones = torch.ones_like(mask)
    return robust_loss(start_logits, end_logits, start_labels, end_labels, ones, *weights)


def no_elsewhere(*arguments):
    """The windows without those of an answerable question that hold none of its golds."""
    return [window for window in make_windows(*arguments) if window.label != data.ELSEWHERE]


def random_span(question, pool, rng, kind="random"):
    """The evidence sentence with random words of the context for the answer, of whatever type."""
    made = synthetic_answer(question, pool, rng, "evidence")
    words = list(re.finditer(r"\w+", question.context))
    if made is None:
        return None
    *golds, old = made.answers
    first = int(rng.random() * len(words))
    last = min(first + len(old.text.split()), len(words)) - 1
    new = replace(old, text=question.context[words[first].start() : words[last].end()])
    longer, end = len(new.text) - len(old.text), old.start + len(old.text)
    golds = [replace(a, start=a.start + longer * (a.start > old.start)) for a in golds]
    context = made.context[: old.start] + new.text + made.context[end:]
    return replace(made, context=context, answers=[*golds, new])


def three_kinds(question, pool, rng, kind="mixed"):
    kind = rng.choice(["evidence", "template", "random"])
    make = random_span if kind == "random" else synthetic_answer
    return make(question, pool, rng, kind)


def inserted(question, slot, text):
    """The question with text in its context at slot; the golds from there on move along."""
    golds = [replace(a, start=a.start + len(text) * (a.start >= slot)) for a in question.answers]
    context = question.context[:slot] + text + question.context[slot:]
    return replace(question, context=context, answers=golds)


def sentence_of(made, question):
    """Where `made` has its added sentence, what stands there before its answer, that, and after."""
    fake, context = made.answers[-1], made.context
    longer = len(context) - len(question.context)
    slots = [0, *(m.end() for m in data.SENTENCE_END.finditer(question.context))]
    slots = [k for k in (*slots, len(question.context)) if k <= fake.start < k + longer]
    slot = next(k for k in slots if context[:k] + context[k + longer :] == question.context)
    end = fake.start + len(fake.text)
    return slot, context[slot : fake.start], fake.text, context[end : slot + longer]


def about_others(before, fake, after, question, pool, rng, first=" "):
    """The sentence with those of its names and numbers exchanged that the question holds.

    A name has a space before it, which `first` gives to the first word, or "" where it is no name.
    """

    def another(match):
        known = re.search(rf"(?<!\w){re.escape(match[0])}(?!\w)", question.question)
        return (known and data._another(match[0], question, pool, rng)) or match[0]

    before = data.ENTITY.sub(another, first + before).removeprefix(first)
    return before + fake + data.ENTITY.sub(another, after)


def contrast(question, pool, rng, kind="mixed"):
    """Ours: a sentence that answers the question, or one about others, which is no gold.

    Both are the evidence sentence with another answer. In three of four, names and numbers that the
    question holds are exchanged too; where there is none, the sentence stays gold, so that 4 in 10
    of SQuAD's speak of others. The AddOneSent attack starts from the question: its texts differ.
    """
    made = synthetic_answer(question, pool, rng, "evidence")
    if made is None or rng.random() < 0.25:
        return made
    slot, before, fake, after = sentence_of(made, question)
    others = about_others(before, fake, after, question, pool, rng)
    return made if others == before + fake + after else inserted(question, slot, others)


def distractor(question, pool, rng, kind="mixed"):
    """Ours: a synthetic answer's sentence that speaks of others, or says "not", and is no gold.

    Half are evidence sentences, half templates; where there is no name to exchange, it says "not",
    after the last auxiliary before the answer, or else before the answer. The attacks put a fake
    answer into the place of the question's "who": the template differs, "not" is common to both,
    and stands before the fake in both where there is no auxiliary.
    """
    form = "template" if rng.random() < 0.5 else "evidence"
    made = synthetic_answer(question, pool, rng, form)
    if made is None:
        return None
    slot, before, fake, after = sentence_of(made, question)
    gap, before = re.match(r"\s*", before)[0], before.lstrip()
    added = before + fake + after
    if rng.random() < 0.5:
        first = " " * (form == "evidence")
        added = about_others(before, fake, after, question, pool, rng, first)
    if added == before + fake + after:
        found = [match.end() for match in re.finditer(rf"(?i)(?<!\S){data.AUX}", before)]
        end, word = (found[-1], " not") if found else (len(before), "not ")
        added = before[:end] + word + before[end:] + fake + after
    return inserted(question, slot, gap + added)


def distract_all(questions, share, seed=0, kind="mixed"):
    """Ours: distractors in a share of all questions: that one is there does not tell of an answer.

    A name or number of the context stands for the answer that an unanswerable question lacks. So
    the fake's type is not the question's, which may still tell; SQuAD's plausible answers are not
    read.
    """
    pool, rng, changed = data.answer_pool(questions), random.Random(seed), []
    for q in questions:
        named = list(data.ENTITY.finditer(q.context))
        found = named and named[int(rng.random() * len(named))]
        golds = q.answers or (found and [data.Answer(found[0], found.start())])
        drawn = rng.random() < share and golds
        made = drawn and distractor(replace(q, answers=golds), pool, rng, kind)
        changed.append(replace(made, answers=made.answers if q.answers else []) if made else q)
    return changed


def with_dropout(rate):
    """-> a function: load_model, but of a model that trains with another dropout."""

    def load(*arguments, **named):
        model, tokenizer = load_model(*arguments, **named)
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        for module in (module for module in model.modules() if hasattr(module, "config")):
            module.config = replace(module.config, **rates)
        return model, tokenizer

    return load


def replaced(switch, settings):
    """What an arm's switch replaces while it trains: {name: function}."""
    padded = {"robust_eqa.robust_loss": padding_counts}  # up to max_length, as the authors do
    padded["robust_eqa.collate"] = lambda w, device, _, most: data.collate(
        w, device, settings.max_length, most
    )
    return {
        "padding": padded,
        "cls label": {"robust_eqa.robust_loss": cls_label},
        "no elsewhere": {"robust_eqa.make_windows": no_elsewhere},
        "random span": {"data.synthetic_answer": random_span},
        "three kinds": {"data.synthetic_answer": three_kinds},
        "contrast": {"data.synthetic_answer": contrast},
        "distractor": {"data.synthetic_answer": distractor},
        "distract all": {"data.add_synthetic_answers": distract_all},
        None: {},
    }[switch]


# --- Test sets: {name: (file, what is made of its questions, the set that was changed)} --------
def attacked(kind, where="last", times=1):
    """-> a function: questions -> those that can be attacked so, with 1 or more added sentences."""

    def make(questions):
        before, changed = {question.id: question for question in questions}, questions
        for seed in range(times):
            changed = data.attack(changed, kind, seed)
        return [q if where == "last" else moved(before[q.id], q, where) for q in changed]

    return make


def moved(question, attacked, where):
    """The added sentence first or, where there are several sentences, in the middle."""
    context, golds = question.context, question.answers
    added = attacked.context[len(context) :].strip() + " "
    slots = [match.end() for match in data.SENTENCE_END.finditer(context)]
    slots = [k for k in slots if not any(a.start < k < a.start + len(a.text) for a in golds)]
    slot = slots[len(slots) // 2] if where == "middle" and slots else 0
    return inserted(question, slot, added)


def true_statement(questions):
    """Appended: what Negation would say of the true answer, without its "not". No attack at all."""
    stated = []
    for q in (q for q in questions if q.answers):
        told = data.negate(replace(q, context=""), [q.answers[0].text], random.Random(0))
        if told:
            told = re.sub(r"\bnot ", "", told.context.strip(), count=1, flags=re.IGNORECASE)
            stated.append(replace(q, context=f"{q.context} {told[0].upper()}{told[1:]}"))
    return stated


def entity_swap(questions):
    """Names and numbers of the question exchanged for some that its text lacks: no answer."""
    rng = random.Random(0)
    found = [name for q in questions for name in data.ENTITY.findall(q.question)]

    def another(name, context):
        tries = (rng.choice(found) for _ in range(100))
        fits = (x for x in tries if x[0].isdigit() == name[0].isdigit() and x not in context)
        return next(fits, name)

    swapped = []
    for q in (q for q in questions if q.answers):
        asked = data.ENTITY.sub(lambda match, q=q: another(match[0], q.context), q.question)
        swapped += [replace(q, question=asked, answers=[])] if asked != q.question else []
    return swapped


def only(adversarial):
    return lambda questions: [q for q in questions if (ADVERSARIAL in q.id) == adversarial]


DEV, ADDONESENT, ADVERSARIAL = "squad2-dev.json.gz", "addonesent.json.gz", "-high-conf"
TESTS = {
    "squad2-dev": (DEV, list, None),
    "addonesent-originals": (ADDONESENT, only(adversarial=False), None),
    "addonesent": (ADDONESENT, only(adversarial=True), "addonesent-originals"),
    "negation": (DEV, attacked("negation"), "squad2-dev"),
    "information-seeking": (DEV, data.rematch, "squad2-dev"),
    "squadshifts-reddit": ("squadshifts-reddit.json.gz", list, None),
    "squadshifts-new-wiki": ("squadshifts-new-wiki.json.gz", list, None),
    "ace-has-answer": ("ace-whqa-has-answer.json", list, None),
    "ace-competitive": ("ace-whqa-competitive.json", list, None),
    "ace-non-competitive": ("ace-whqa-non-competitive.json", list, None),
}
FURTHER = {  # of SQuAD 2.0 dev
    f"{kind}-{where}": attacked(kind, where)
    for kind in ("addonesent", "negation")
    for where in ("first", "middle", "last")
}
FURTHER["addonesent-three-times"] = attacked("addonesent", times=3)
FURTHER["true-statement"] = true_statement  # must not hurt
FURTHER["entity-swap"] = entity_swap  # must turn the answer to empty
FURTHER = {name: (DEV, make, "squad2-dev") for name, make in FURTHER.items()}
HELD_OUT = {"held-out": ("held-out.json", list, None)}  # of the training file
TABLES = dict.fromkeys(("main", "ablations", "kinds", "ours"), HELD_OUT | TESTS) | {
    "tune": HELD_OUT
}
UNCHANGED = {name: TESTS[name] for name in ("squad2-dev", "information-seeking")}
TABLES["attacks"] = HELD_OUT | UNCHANGED | FURTHER
PROGRESS = ("default", "robust+synthetic"), ("squad2-dev", "information-seeking"), 400


def original_id(question):
    return question.id.split(ADVERSARIAL)[0].removesuffix("-rematched")


def read_sets(table, folder, held, sample):
    """{name: questions}; of a larger set a fixed sample, of a changed one what the sample holds."""
    files, sets = {"held-out.json": held}, {}
    for name, (file, make, source) in table.items():
        files[file] = files.get(file) or read_questions(str(Path(folder, file)))
        questions = make(files[file])
        if source:
            kept = {question.id for question in sets[source]}
            questions = [q for q in questions if original_id(q) in kept]
        elif sample and sample < len(questions):
            questions = random.Random(0).sample(questions, sample)
        # a file of ACE-whQA has a row of column headers
        sets[name] = [q for q in questions if (q.context, q.question) != ("Text", "Question")]
        if not sets[name]:
            raise InputError(f"{name}: no question is left; give a larger --sample")
    return sets


# --- A run: train, predict every set once, write one line -------------------------------------
def distracted(before, attacked, answer):
    """Does the answer touch the added text: hold words, or a run of words, that only it has?"""
    old, new = before.context.split(), attacked.context.split()
    first = next((k for k, (x, y) in enumerate(zip(old, new)) if x != y), len(old))
    texts = " ".join(new[first : first + len(new) - len(old)]), before.context, answer
    added, original, answer = (f" {normalize_answer(text)} " for text in texts)
    new_words = set(answer.split()) & set(added.split()) - set(original.split())
    return bool(new_words) or (answer in added and answer not in original)


def evaluate(model, tokenizer, settings, table, sets):
    """-> official scores, and {set: {name: a value per question}}, as the raw line holds them.

    f1: of the best span, blank or not, in tenths of a per cent; answerable: 1 or 0; no_answer: the
    score, rounded up so that it stays on its side of 0; source: the place of the question in the
    set before the attack; distracted: 1 where the best span is from the attack.
    `ids` is a checksum of the questions' order.
    """
    scores, found = {}, {}
    for name, questions in sets.items():
        _, spans, no_answer = predict(model, tokenizer, questions, settings)
        scores[name] = squad_scores(questions, spans, no_answer, settings.threshold)
        f1 = [round(10 * squad_scores([q], {q.id: spans[q.id]})["f1"]) for q in questions]
        golds = [int(bool(q.answers)) for q in questions]
        rounded = [math.ceil(100 * no_answer[q.id]) / 100 for q in questions]
        ids = zlib.crc32(" ".join(q.id for q in questions).encode())
        found[name] = {"ids": ids, "f1": f1, "answerable": golds, "no_answer": rounded}
        if source := table[name][2]:
            places = {question.id: k for k, question in enumerate(sets[source])}
            found[name]["source"] = [places[original_id(q)] for q in questions]
            pairs = [(sets[source][k], q) for k, q in zip(found[name]["source"], questions)]
            fell_for = [distracted(old, q, spans[q.id]) for old, q in pairs]
            found[name]["distracted"] = list(map(int, fell_for))
    return {"scores": scores, "questions": found}


def surroundings():
    """The commit, with a + where Python files have changed since, and the machine."""
    git = {"cwd": HERE.parent, "capture_output": True, "text": True}
    program = shutil.which("git") or "false"
    head = subprocess.run([program, "rev-parse", "HEAD"], **git).stdout.strip()
    changed = subprocess.run([program, "diff", "--quiet", "HEAD", "--", "*.py"], **git).returncode
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = re.search(r"model name\s*: (.*)|$", cpu)[1] or platform.processor()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    machine = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"commit": head + "+" * bool(changed) if head else "unknown", "machine": machine}


def read_lines(folder, experiment):
    file = Path(folder, f"{experiment}.jsonl")
    return list(map(json.loads, file.read_text("utf-8").splitlines())) if file.exists() else []


def run(own, arm, settings, switch, dropout, common, where, sets):
    """Train, or go on training, predict, and add the line to the raw results."""
    began, out = time.monotonic(), Path(settings.out)
    resumed, begun = (out / "settings.json").exists(), Path(f"{out}.begun.json")
    now = {"switch": switch, "dropout": dropout, "commit": where["commit"]}
    old = json.loads(begun.read_text("utf-8")) if resumed and begun.exists() else now
    if old | {"commit": now["commit"]} != now:
        reason = f"was begun with {old['switch']}, dropout {old['dropout']}"
        raise InputError(f"{out}: {reason}; remove it")
    data.write_file(begun, old)
    with ExitStack() as stack:
        switches = replaced(switch, settings) | {"robust_eqa.load_model": with_dropout(dropout)}
        for name, new in switches.items():
            stack.enter_context(mock.patch(name, new))
        model, tokenizer = train(settings, resumed)
    trained = time.monotonic()
    found = evaluate(model, tokenizer, settings, TABLES[own.experiment], sets)
    minutes = {"train": trained - began, "predict": time.monotonic() - trained}
    line = {"experiment": own.experiment, "arm": arm, "seed": settings.seed, "switch": switch}
    line["settings"] = asdict(settings) | {k: common[k] for k in ("init", "train", "limit")}
    line["settings"]["dropout"] = dropout
    del line["settings"]["out"], line["settings"]["eval"]
    line |= {"common": common, "commit": old["commit"], "machine": where["machine"]}
    line |= {"scored_at": where["commit"], "resumed": resumed}
    line["minutes"] = {part: round(s / 60, 2) for part, s in minutes.items()}  # of this process
    logged = list(map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines()))
    line |= {"steps": logged[-1]["step"], "progress": [x for x in logged if "eval" in x], **found}
    lines = [*read_lines(own.results, own.experiment), line]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    data.write_file(Path(own.results, f"{own.experiment}.jsonl"), content.encode())


def run_all(own):
    """Every arm and seed of an experiment that has no line yet, seed by seed."""
    experiment, arms = own.experiment, ARMS[own.experiment]
    options = {name: getattr(own, name) for name in DEFAULTS}
    common = options | {"init": Path(own.init).name, "train": Path(own.train).name}
    common |= {"limit": own.limit, "sample": own.sample}
    lines = read_lines(own.results, experiment)
    if odd := [line["common"] for line in lines if line["common"] != common]:
        reason = f"the results so far were made with {odd[0]}, not {common}"
        raise InputError(f"{experiment}: {reason}; give the same options or other --results")
    if odd := [arm for arm in own.arms or () if arm not in arms]:
        raise InputError(f"{experiment} has no arm {odd[0]}; it has {', '.join(arms)}")
    done = {(line["arm"], line["seed"]) for line in lines}
    todo = [(arm, seed) for seed in range(own.seeds) for arm in own.arms or arms]
    todo = [one for one in todo if one not in done]
    print(f"{experiment}: {len(done)} runs done, {len(todo)} to do")
    if not todo:
        return
    where = surroundings() | ({"commit": own.commit} if own.commit else {})
    folder = Path(own.runs, "main" if experiment == "attacks" else experiment)
    rng, questions = random.Random(0), read_questions(str(Path(own.data, own.train)))
    contexts = sorted({question.context for question in questions})
    held = {*rng.sample(contexts, len(contexts) // 10)}
    held_out = [q for q in questions if q.context in held]
    questions = [q for q in questions if q.context not in held]
    if own.limit:  # the same questions for every seed, unlike train's own limit
        kept = {q.id for q in rng.sample(questions, min(own.limit, len(questions)))}
        questions = [q for q in questions if q.id in kept]
    chosen = folder / f"{own.limit or 'all'}-of-{common['train']}"
    data.write_questions(questions, chosen)
    sets = read_sets(TABLES[experiment], own.data, held_out, own.sample)
    dropout = options.pop("dropout")
    base, watched = Settings(**options | {"train": str(chosen)}), {}
    arms_watched, names, few = PROGRESS
    if experiment in ("main", "attacks"):  # train() evaluates on files
        kept = {question.id for question in sets["squad2-dev"][:few]}
        for name in names:
            test = [q for q in sets[name] if original_id(q) in kept]
            data.write_questions(test, folder / f"{name}-{few}")
        every = max(1, round(own.epochs * len(questions) / own.batch_size / 10))
        watched = {"eval": tuple(str(folder / f"{name}-{few}") for name in names)}
        watched["eval_every"] = every
    for arm, seed in todo:
        changes = dict(arms[arm])
        switch, rate = changes.pop("switch", None), changes.pop("dropout", dropout)
        changes |= watched if arm in arms_watched else {}
        settings = replace(base, **changes, seed=seed, out=str(folder / f"{arm}-{seed}"))
        run(own, arm, settings, switch, rate, common, where, sets)


# --- Report: from the raw lines alone; arms are {arm: [line of a seed]} ------------------------
def question_f1(line, name, threshold):
    """(questions,) F1 in per cent where a no-answer score above the threshold means blank."""
    found = line["questions"][name]
    blank = np.array(found["no_answer"]) > threshold
    return np.where(blank, 100 * (1 - np.array(found["answerable"])), np.array(found["f1"]) / 10)


def answerable(line, name):
    return np.array(line["questions"][name]["answerable"]) == 1


def calibrated(line):
    """The threshold with the best mean of HasAns and NoAns F1 on the held-out training questions."""
    found, has = line["questions"]["held-out"], answerable(line, "held-out")
    f1, scores = np.array(found["f1"]) / 1000, np.array(found["no_answer"])
    gains = np.where(has, f1 / has.sum(), (f1 - 1) / (~has).sum())  # of answering it
    order = np.argsort(scores, kind="stable")
    totals, last = gains[order].cumsum(), np.append(np.diff(scores[order]) > 0, True)
    return float(scores[order][np.argmax(np.where(last, totals, -np.inf))])


def measures(line, threshold):
    """{name: F1} of a run; the means only where every test set was scored."""
    found, groups = {}, {"HasAns": [], "NoAns": []}
    for name in line["questions"]:
        f1, has = question_f1(line, name, threshold), answerable(line, name)
        found[f"{name} F1"] = f1.mean()
        if has.any() and not has.all():
            found[f"{name} best F1, in hindsight"] = line["scores"][name]["best_f1"]
        for group, chosen in (("HasAns", has), ("NoAns", ~has)):
            if chosen.any():
                groups[group] += [f1[chosen].mean()] * (name != "held-out")
                found |= {f"{name} {group}": f1[chosen].mean()} if not chosen.all() else {}
    if TESTS.keys() <= line["questions"].keys():
        means = {f"mean of {group} sets": np.mean(values) for group, values in groups.items()}
        found |= means | {"mean of both means": np.mean(list(means.values()))}
        found["mean of all sets"] = np.mean([found[f"{name} F1"] for name in TESTS])
    return found


def spread(values):
    """Mean ± standard deviation (of a sample: n - 1), and n: [50, 52] -> "51.0 ± 1.4 (2)"."""
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    if not len(values):
        return "not run"
    return f"{np.round(np.mean(values), 1) + 0.0}{deviation} ({len(values)})"  # + 0.0: no "-0.0"


def score_rows(arms, threshold_of):
    found = {arm: [measures(line, threshold_of(line)) for line in arms[arm]] for arm in arms}
    rows = [["F1, mean ± sd (seeds)", *arms]]
    for name in dict.fromkeys(name for runs in found.values() for one in runs for name in one):
        values = ([one[name] for one in runs if name in one] for runs in found.values())
        rows.append([name, *map(spread, values)])
    rows.append(["threshold", *(spread(list(map(threshold_of, runs))) for runs in arms.values())])
    return rows


def gain_rows(arms, threshold_of):
    """What an arm gains on default training of the same seed."""
    found = {arm: {x["seed"]: measures(x, threshold_of(x)) for x in arms[arm]} for arm in arms}
    rows = [["minus default's, same seed", *arms]]
    for name in ("squad2-dev F1", "mean of both means", "mean of all sets"):
        cells = []
        for runs in found.values():
            both = [(one, found["default"].get(seed, {})) for seed, one in runs.items()]
            cells.append(spread([a[name] - b[name] for a, b in both if name in a and name in b]))
        rows.append([name, *cells])
    return rows


def interval(drops):
    """95% bootstrap interval of the mean of (questions,) drops, over the questions."""
    return np.percentile(drops[draws(len(drops))].mean(1), [2.5, 97.5])


@cache
def draws(n):
    """2,000 times n of n questions, with replacement."""
    return np.random.default_rng(0).integers(n, size=(2000, n))


def drop_ratio(default, own):
    """A drop's share of default's, from F1 (seeds, 2, questions); or why it would say nothing."""
    (before, after), (own_before, own_after) = default.mean((0, 2)), own.mean((0, 2))
    if before - after < 3:
        return f"none: default loses {before - after:.1f}, less than 3"
    ratio = f"{(own_before - own_after) / (before - after):.2f}"
    return ratio if min(before, own_before) >= 60 else f"({ratio})"


def attack_pairs(lines, name, threshold_of):
    """F1 (seeds, 2, questions) before and after an attack; % blank, distracted, other that fell."""
    f1, reasons = [], Counter()
    for line in lines:
        found, threshold = line["questions"][name], threshold_of(line)
        before = question_f1(line, TABLES[line["experiment"]][name][2], threshold)[found["source"]]
        f1.append((before, question_f1(line, name, threshold)))
        blank = np.array(found["no_answer"]) > threshold
        why = np.where(
            blank, "blank", np.where(np.array(found["distracted"]) == 1, "added", "other")
        )
        reasons.update(why[f1[-1][1] < f1[-1][0]].tolist())
    f1 = np.array(f1)
    return f1, [100 * reasons[why] / f1[:, 0].size for why in ("blank", "added", "other")]


def drop_rows(arms, threshold_of):
    """Pairs of questions; a ratio in brackets where F1 before the attack is below 60 in an arm.

    The intervals are over questions, of the mean of the seeds at hand; the last but one is that of
    the difference on the seeds that both arms have.
    """
    rows = [["attack", "arm", "F1 before", "F1 after", "drop", "95%", "minus default's, 95%"]]
    rows[0] += ["drop / default's", "% that fell: blank / distracted / other"]
    lines = [line for runs in arms.values() for line in runs]
    seeds = {arm: [line["seed"] for line in runs] for arm, runs in arms.items()}
    for name in dict.fromkeys(name for line in lines for name in line["questions"]):
        if "source" not in lines[0]["questions"][name] or not answerable(lines[0], name).all():
            continue
        if len({line["questions"][name]["ids"] for line in lines}) > 1:
            raise InputError(f"{name}: the runs were attacked on different questions")
        found = {arm: attack_pairs(arms[arm], name, threshold_of) for arm in arms if arms[arm]}
        for arm, (f1, kinds) in found.items():
            drops = f1[:, 0] - f1[:, 1]
            cells = [name, arm, *map(spread, (*f1.mean(2).T, drops.mean(1)))]
            cells.append("{:.1f} to {:.1f}".format(*interval(drops.mean(0))))
            both = [seed for seed in seeds[arm] if seed in seeds["default"]]
            if both and arm != "default":
                own, default = (
                    found[a][0][[seeds[a].index(seed) for seed in both]] for a in (arm, "default")
                )
                less = (own[:, 0] - own[:, 1] - default[:, 0] + default[:, 1]).mean(0)
                cells.append("{:.1f} to {:.1f}".format(*interval(less)))
                cells.append(drop_ratio(default, own))
            else:
                cells += ["-", "-"]
            rows.append([*cells, " / ".join(f"{share:.1f}" for share in kinds)])
    return rows


def short_rows(arms, threshold_of):
    """SQuAD 2.0 dev, the mean of both means, the attacks with no threshold.

    A row per arm, or a column where there are more measures than arms.
    """
    names = [f"squad2-dev {what}" for what in ("F1", "best F1, in hindsight", "HasAns", "NoAns")]
    names += ["mean of both means", "entity-swap F1"]
    found = [row for row in score_rows(arms, threshold_of) if row[0] in names]
    columns = [["arm", *arms], *([row[0].replace(", in hindsight", ""), *row[1:]] for row in found)]
    lost = {}
    for attack, arm, _, _, drop, _, _, share, _ in drop_rows(arms, answering)[1:]:
        share = share if re.fullmatch(r"\(?-?[\d.]+\)?", share) else ""  # or why there is none
        lost.setdefault(attack, {})[arm] = f"{drop} {share}".strip()
    for attack, cells in lost.items():
        name = f"F1 lost to {attack}, all answered; share of default's"
        columns.append([name, *(cells.get(arm, "not run") for arm in arms)])
    return [list(row) for row in zip(*columns)] if len(arms) >= len(columns) else columns


def paper(line):
    return line["settings"]["threshold"]


def answering(line):
    """No threshold: a model that may not refuse shows where it points."""
    return math.inf


VIEWS = (
    ("threshold 0, the paper's", paper, (short_rows, score_rows, gain_rows, drop_rows)),
    ("threshold calibrated, ours", calibrated, (short_rows, score_rows, gain_rows, drop_rows)),
    ("every question answered", answering, (drop_rows,)),
)


def arms_of(results, experiment):
    """{arm: [raw line]} of an experiment; ablations and kinds have main's runs beside them."""
    lines, names = read_lines(results, experiment), ARMS[experiment]
    if experiment in ("ablations", "kinds", "ours") and lines:
        beside, seeds = read_lines(results, "main"), {line["seed"] for line in lines}
        same = [x for x in beside if x["common"] == lines[0]["common"] and x["seed"] in seeds]
        lines, names = same + lines, ARMS["main"] | names
    return {arm: [line for line in lines if line["arm"] == arm] for arm in names}


def tune_rows(lines):
    rows = [[*TUNED, "held-out F1", "HasAns", "NoAns", "best F1"]]
    for line in lines:
        scores = line["scores"]["held-out"]
        f1 = [f"{scores[key]:.1f}" for key in ("f1", "HasAns_f1", "NoAns_f1", "best_f1")]
        rows.append([str(line["settings"][key]) for key in TUNED] + f1)
    return rows


def show(rows):
    head, *rows = rows
    for row in [head, ["---"] * len(head), *rows] if rows else []:
        print("\n" * (row is head) + f"| {' | '.join(row)} |")


def report(own):
    for experiment in ARMS:
        lines = read_lines(own.results, experiment)
        spent = sum(sum(line["minutes"].values()) for line in lines)
        print(f"\n## {experiment}\n\n{len(lines)} runs, {spent:.0f} minutes")
        for line in lines[:1]:
            commits = ", ".join(sorted({line["commit"][:7] for line in lines}))
            print(f"{line['common']}, {line['machine']}, commits {commits}")
        if experiment == "tune":
            show(tune_rows(lines))
            continue
        if len({(line["arm"], line["seed"]) for line in lines}) < len(lines):
            raise InputError(f"{experiment}: an arm has two lines of one seed; remove one")
        arms = arms_of(own.results, experiment)
        for title, threshold_of, makers in VIEWS if lines else ():
            print(f"\n### {experiment}, {title}")
            for make in makers:
                show(make(arms, threshold_of))


def main(arguments=None):
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**about)
    add = parser.add_argument
    add("experiment", choices=[*ARMS, "report"])
    add("--data", default=os.environ.get("EQA_DATA", "."), help="folder of the data files")
    add("--results", default=HERE / "results", help="folder of the raw results")
    add("--runs", default=HERE.parent / "runs" / "experiments", help="folder of the checkpoints")
    add("--seeds", type=int, default=3, help="runs of each arm: seeds 0, 1, ...")
    add("--arms", nargs="+", help="only these arms")
    add("--commit", default="", help="the commit, where git cannot tell")
    add("--sample", type=int, default=1000, help="test on so many of each set, a fixed sample")
    add("--limit", type=int, default=18000, help="train on a fixed sample of the questions")
    for name, value in DEFAULTS.items():
        add("--" + name.replace("_", "-"), type=type(value), default=value)
    own = parser.parse_args(arguments)
    try:
        (report if own.experiment == "report" else run_all)(own)
    except (InputError, KeyboardInterrupt) as error:
        sys.exit(f"stopped: {str(error) or 'repeat the command to go on'}")


if __name__ == "__main__":
    main()
