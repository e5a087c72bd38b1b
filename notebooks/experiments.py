"""The experiments of the reproduction: train arms with several seeds, keep raw results, report.

    python notebooks/experiments.py tune --init MINILM --sample 2000
    python notebooks/experiments.py main --init MINILM --seeds 3 --lr 3e-4 --epochs 3
    python notebooks/experiments.py report

The data files are those of the folder EQA_DATA. A run (an arm and a seed) ends as one line of
results/<experiment>.jsonl. A run that has its line is skipped and one that was stopped goes on, so
repeat a command until nothing is left. One process at a time per results folder. `ablations` and
`kinds` are reported beside main's arms, `attacks` are made on main's models (trained first where
they are missing): give them main's options.

What only an ablation needs is no option of robust_eqa.py: while such an arm trains, a function of
the modules is replaced by one of this file (`replaced`).
"""

import argparse
import json
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
from dataclasses import asdict, fields, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import data
from data import InputError, make_windows, read_questions, synthetic_answer
from robust_eqa import Settings, normalize_answer, predict, robust_loss, squad_scores, train

# --- Arms: changes to Settings, and perhaps a switch -----------------------------------------
DEFAULTS = {"init": "", "train": "squad2-train-29k.json.gz", "lr": 3e-4, "epochs": 3.0}
DEFAULTS |= {"batch_size": 16, "warmup": 200, "max_length": 384, "stride": 128}  # not tuned yet
DEFAULT, PAPER = {"loss": "default", "synthetic": 0.0}, {"loss": "robust", "synthetic": 0.3}
GRID = [{"lr": lr, "epochs": epochs} for lr in (1e-4, 3e-4, 5e-4) for epochs in (2.0, 4.0)]
ARMS = {
    "main": {
        "default": DEFAULT,
        "robust": PAPER | {"synthetic": 0.0},
        "default+synthetic": DEFAULT | {"synthetic": 0.3},
        "robust+synthetic": PAPER,
    },
    "ablations": {  # of robust+synthetic; main has the shares 0 and 0.3
        # without tagging nothing ties scores to the threshold 0: compare best F1
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
    "tune": {f"lr-{one['lr']}-epochs-{one['epochs']}": DEFAULT | one for one in GRID},
    "progress": {"default": DEFAULT, "robust+synthetic": PAPER},
}
ARMS["attacks"] = ARMS["main"]


def cls_label(start_logits, end_logits, start_labels, end_labels, mask, *weights):
    """The robust loss with [CLS] as the label, in both its parts, of a window without a gold."""
    labels = torch.stack([start_labels, end_labels])  # (2, B, T)
    labels[..., 0] = (~labels.any(-1)).to(labels)
    return robust_loss(start_logits, end_logits, *labels, mask, *weights)


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


def replaced(switch, settings):
    """What an arm's switch replaces while it trains: {name: function}."""
    padded = {"robust_eqa.robust_loss": padding_counts}  # up to max_length, as the authors do
    padded["robust_eqa.collate"] = lambda w, device, _: data.collate(w, device, settings.max_length)
    return {
        "padding": padded,
        "cls label": {"robust_eqa.robust_loss": cls_label},
        "no elsewhere": {"robust_eqa.make_windows": no_elsewhere},
        "random span": {"data.synthetic_answer": random_span},
        "three kinds": {"data.synthetic_answer": three_kinds},
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
    slots = [match.end() for match in re.finditer(r"[.!?] (?=[A-Z])", context)]
    slots = [k for k in slots if not any(a.start < k < a.start + len(a.text) for a in golds)]
    slot = slots[len(slots) // 2] if where == "middle" and slots else 0
    golds = [replace(a, start=a.start + len(added) * (a.start >= slot)) for a in golds]
    return replace(question, context=context[:slot] + added + context[slot:], answers=golds)


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
    entity = re.compile(r"(?<=\s)[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*|\b\d[\d,.]*\b")
    found = [name for q in questions for name in entity.findall(q.question)]

    def another(name, context):
        tries = (rng.choice(found) for _ in range(100))
        fits = (x for x in tries if x[0].isdigit() == name[0].isdigit() and x not in context)
        return next(fits, name)

    swapped = []
    for q in (q for q in questions if q.answers):
        asked = entity.sub(lambda match, q=q: another(match[0], q.context), q.question)
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
TABLES = dict.fromkeys(("main", "ablations", "kinds"), TESTS)
TABLES["tune"] = {"held-out": ("held-out.json", list, None)}  # of the training file
TABLES["attacks"] = {"squad2-dev": TESTS["squad2-dev"]} | FURTHER
TABLES["progress"] = {name: TESTS[name] for name in ("squad2-dev", "information-seeking")}


def original_id(question):
    return question.id.split(ADVERSARIAL)[0].removesuffix("-rematched")


def read_sets(table, folder, sample):
    """{name: questions}; of a larger set a fixed sample, of a changed one what the sample holds."""
    files, sets = {file: read_questions(str(Path(folder, file))) for file, *_ in table.values()}, {}
    for name, (file, make, source) in table.items():
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
def failure(before, attacked, answer):
    """Why F1 fell: "b" blank, "d" distracted (words that only the added text has), "o" other."""
    if not answer:
        return "b"
    old, new = before.context.split(), attacked.context.split()
    first = next((k for k, (x, y) in enumerate(zip(old, new)) if x != y), len(old))
    texts = " ".join(new[first : first + len(new) - len(old)]), before.context, answer
    added, original, answer = (f" {normalize_answer(text)} " for text in texts)
    new_words = set(answer.split()) & set(added.split()) - set(original.split())
    return "d" if new_words or (answer in added and answer not in original) else "o"


def evaluate(model, tokenizer, settings, table, sets):
    """-> scores, pairs and no-answer scores, as the raw line holds them.

    pairs: of each attacked question F1 before and after, in tenths of a per cent, and the
    failure's letter, "." where F1 did not fall; `ids` is a checksum of the questions' order.
    """
    answers, scores, pairs, histograms = {}, {}, {}, {}
    for name, questions in sets.items():
        answers[name], spans, no_answer = predict(model, tokenizer, questions, settings)
        scores[name] = squad_scores(questions, spans, no_answer, settings.threshold)
        for has, key in ((True, "HasAns"), (False, "NoAns")) if name == "squad2-dev" else ():
            found = [no_answer[q.id] for q in questions if bool(q.answers) == has]
            counts, _ = np.histogram(np.clip(found, -20, 19.99), 80, (-20, 20))
            histograms[key] = counts.tolist()  # 80 bins from -20 to 20, the outer ones open
    for name, questions in sets.items():
        source, rows = table[name][2], []
        before = {question.id: question for question in sets.get(source, [])}
        for q in (q for q in questions if q.answers and source):
            old, answer = before[original_id(q)], answers[name][q.id]
            both = (old, answers[source][old.id]), (q, answer)
            f1 = [round(10 * squad_scores([one], {one.id: text})["f1"]) for one, text in both]
            rows.append((*f1, failure(old, q, answer) if f1[1] < f1[0] else "."))
        if rows:
            f1_before, f1_after, letters = zip(*rows)
            ids = zlib.crc32(" ".join(q.id for q in questions).encode())
            pairs[name] = {"ids": ids, "before": f1_before, "after": f1_after}
            pairs[name]["failure"] = "".join(letters)
    return {"scores": scores, "pairs": pairs, "no_answer": histograms}


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


def run(own, arm, settings, switch, common, sets):
    """Train, or go on training, predict, and add the line to the raw results."""
    began, out = time.monotonic(), Path(settings.out)
    resumed = (out / "settings.json").exists()
    with ExitStack() as stack:
        for name, new in replaced(switch, settings).items():
            stack.enter_context(mock.patch(name, new))
        model, tokenizer = train(settings, resumed)
    trained = time.monotonic()
    found = evaluate(model, tokenizer, settings, TABLES[own.experiment], sets)
    minutes = {"train": trained - began, "predict": time.monotonic() - trained}
    line = {"experiment": own.experiment, "arm": arm, "seed": settings.seed, "switch": switch}
    line["settings"] = asdict(settings) | {k: common[k] for k in ("init", "train", "limit")}
    del line["settings"]["out"], line["settings"]["eval"]
    line |= {"common": common, **surroundings(), "resumed": resumed}
    line["commit"] = own.commit or line["commit"]
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
    folder = Path(own.runs, "main" if experiment == "attacks" else experiment)
    rng, questions = random.Random(0), read_questions(str(Path(own.data, own.train)))
    if experiment == "tune":
        contexts = sorted({question.context for question in questions})
        held = {*rng.sample(contexts, len(contexts) // 10)}
        data.write_questions([q for q in questions if q.context in held], folder / "held-out.json")
        questions = [q for q in questions if q.context not in held]
    if own.limit:  # the same questions for every seed, unlike train's own limit
        kept = {q.id for q in rng.sample(questions, min(own.limit, len(questions)))}
        questions = [q for q in questions if q.id in kept]
    chosen = folder / f"{own.limit or 'all'}-of-{common['train']}"
    data.write_questions(questions, chosen)
    sets = read_sets(TABLES[experiment], folder if experiment == "tune" else own.data, own.sample)
    base = Settings(**options | {"train": str(chosen)})
    if experiment == "progress":  # train() evaluates on files
        for name, test in sets.items():
            data.write_questions(test, folder / name)
        every = max(1, round(own.epochs * len(questions) / own.batch_size / 10))
        base = replace(base, eval=tuple(str(folder / name) for name in sets), eval_every=every)
    for arm, seed in todo:
        changes = dict(arms[arm])
        switch = changes.pop("switch", None)
        settings = replace(base, **changes, seed=seed, out=str(folder / f"{arm}-{seed}"))
        run(own, arm, settings, switch, common, sets)


# --- Report: from the raw lines alone; arms are {arm: [line of a seed]} ------------------------
def measures(line):
    """{name: F1} of a run; the means only where every test set was scored."""
    found, groups = {}, {"HasAns": [], "NoAns": []}
    for name, scores in line["scores"].items():
        parts = [group for group in groups if f"{group}_f1" in scores]
        for key in ["f1"] + ["HasAns_f1", "NoAns_f1", "best_f1"] * (len(parts) == 2):
            found[f"{name} {key}"] = scores[key]
        for group in parts:
            groups[group].append(scores[f"{group}_f1"])
    if line["scores"].keys() == TESTS.keys():
        means = {f"mean of {group} sets": np.mean(values) for group, values in groups.items()}
        found |= means | {"mean of both means": np.mean(list(means.values()))}
    return found


def spread(values):
    """Mean ± standard deviation (of a sample: n - 1), and n: [50, 52] -> "51.0 ± 1.4 (2)"."""
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation} ({len(values)})" if len(values) else "not run"


def score_rows(arms):
    found = {arm: [measures(line) for line in lines] for arm, lines in arms.items()}
    rows = [["F1, mean ± sd (seeds)", *arms]]
    for name in dict.fromkeys(name for runs in found.values() for one in runs for name in one):
        values = ([one[name] for one in runs if name in one] for runs in found.values())
        rows.append([name, *map(spread, values)])
    return rows


def interval(drops):
    """95% bootstrap interval of the mean of (questions,) drops, over the questions."""
    rng, n = np.random.default_rng(0), len(drops)
    return np.percentile([drops[rng.integers(n, size=n)].mean() for _ in range(2000)], [2.5, 97.5])


def drop_ratio(default, own):
    """A drop's share of default's, from F1 (seeds, 2, questions); or why it would say nothing."""
    if len(default) == 0:
        return "none: default is not run"
    (before, after), (own_before, own_after) = default.mean((0, 2)), own.mean((0, 2))
    if before - after < 3:
        return f"none: default loses {before - after:.1f}, less than 3"
    if min(before, own_before) < 60:
        return f"none: F1 before is {before:.1f} (default) and {own_before:.1f}, not 60"
    return f"{(own_before - own_after) / (before - after):.2f}"


def drop_rows(arms):
    rows = [["attack", "arm", "F1 before", "F1 after", "drop", "95% over questions"]]
    rows[0] += ["% blank / distractor / other", "drop / default's"]
    runs = [line["pairs"] for lines in arms.values() for line in lines]
    for name in dict.fromkeys(name for pairs in runs for name in pairs):
        if len({pairs[name]["ids"] for pairs in runs}) > 1:
            raise InputError(f"{name}: the runs were attacked on different questions")
        f1 = {}  # (seeds, 2, questions), in per cent
        for arm, lines in arms.items():
            pairs = [line["pairs"][name] for line in lines]
            f1[arm] = found = np.array([[pair["before"], pair["after"]] for pair in pairs]) / 10
            if pairs:
                drops = found[:, 0] - found[:, 1]
                cells = map(spread, (*found.mean(2).T, drops.mean(1)))
                ends = "{:.1f} to {:.1f}".format(*interval(drops.mean(0)))
                kinds = Counter("".join(pair["failure"] for pair in pairs))
                kinds = " / ".join(f"{100 * kinds[letter] / drops.size:.1f}" for letter in "bdo")
                ratio = drop_ratio(f1["default"], found)
                rows.append([name, arm, *cells, ends, kinds, ratio])
    return rows


def report(own):
    for experiment, names in ARMS.items():
        lines = read_lines(own.results, experiment)
        spent = sum(sum(line["minutes"].values()) for line in lines)
        print(f"\n## {experiment}\n\n{len(lines)} runs, {spent:.0f} minutes")
        if experiment in ("ablations", "kinds") and lines:
            beside = read_lines(own.results, "main")
            same = [line for line in beside if line["common"] == lines[0]["common"]]
            print(f"Beside them: {len(same)} of main's {len(beside)} runs, with the same options")
            lines, names = same + lines, ARMS["main"] | names
        arms = {arm: [line for line in lines if line["arm"] == arm] for arm in names}
        for head, *rows in (score_rows(arms), drop_rows(arms)):
            for row in [head, ["---"] * len(head), *rows] if rows else []:
                print("\n" * (row is head) + f"| {' | '.join(row)} |")


def main(arguments=None):
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**about)
    add, number = parser.add_argument, {"type": int, "default": 0}
    add("experiment", choices=[*ARMS, "report"])
    add("--data", default=os.environ.get("EQA_DATA", "."), help="folder of the data files")
    add("--results", default=HERE / "results", help="folder of the raw results")
    add("--runs", default=HERE.parent / "runs" / "experiments", help="folder of the checkpoints")
    add("--seeds", type=int, default=3, help="runs of each arm: seeds 0, 1, ...")
    add("--arms", nargs="+", help="only these arms")
    add("--commit", default="", help="the commit, where git cannot tell")
    add("--sample", help="test on a fixed sample of each set that has more questions", **number)
    add("--limit", help="train on a fixed sample of the questions", **number)
    for f in fields(Settings):
        if f.name in DEFAULTS:
            add("--" + f.name.replace("_", "-"), type=f.type, default=DEFAULTS[f.name])
    own = parser.parse_args(arguments)
    try:
        (report if own.experiment == "report" else run_all)(own)
    except (InputError, KeyboardInterrupt) as error:
        sys.exit(f"stopped: {error}")


if __name__ == "__main__":
    main()
