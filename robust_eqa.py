"""Robust extractive question answering: the losses, the decoder, the scores, and the commands.

After "Towards Robust Extractive Question Answering Models: Rethinking the Training Methodology"
(Tran & Kretchmar, Findings of EMNLP 2024), whose sections are named where they act. Read data.py
and model.py first. Letters: B windows in a batch, T positions in a window.
"""

import argparse
import itertools
import json
import math
import random
import re
import string
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from tokenizers import trainers
from tqdm import tqdm

import data
from data import InputError, Question, collate, make_windows, read_questions, write_file
from model import SPECIALS, Config, QAModel, load_model, refusing, save_model, wordpiece_tokenizer

DEVICE, RANDOM = ("cuda", torch.cuda) if torch.cuda.is_available() else ("cpu", torch)

# --- Losses: mean of start and end, and over the batch ---------------------------------------
#
# Logits, labels and mask are (B, T), positions (B,). paper: padding counts, up to 384 positions
# [authors' code]. here: the mask leaves it out, since a loss should not depend on a batch's longest
# window; a mask of ones gives theirs.


def default_loss(start_logits, end_logits, start_positions, end_positions, mask):
    """(CE(s) + CE(e)) / 2, with position 0, [CLS], as the hidden answer where there is none (2)."""
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, -math.inf)  # (2, B, T)
    positions = torch.stack([start_positions, end_positions])  # (2, B)
    return F.cross_entropy(logits.flatten(0, 1), positions.flatten())


def qa_loss(start_logits, end_logits, start_labels, end_labels, mask):
    """Cross entropy with 1/k on each of k labelled positions, or 1/n on all n if none (5.2)."""
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, -math.inf)  # (2, B, T)
    labels = torch.stack([start_labels, end_labels]).to(logits) * mask
    targets = torch.where(labels.any(-1, keepdim=True), labels, mask.to(logits))
    targets = targets / targets.sum(-1, keepdim=True)
    log_probabilities = logits.log_softmax(-1).masked_fill(~mask, 0)  # no 0 * -inf
    return -(targets * log_probabilities).sum(-1).mean()


def tagging_loss(start_logits, end_logits, start_labels, end_labels, mask, positive_weight=2.0):
    """Binary cross entropy of every position, summed over positions (5.2).

    paper: the batch is summed too. here: its mean, so that its size does not scale the gradient.
    """
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, 0)  # (2, B, T)
    labels = torch.stack([start_labels, end_labels]).to(logits)
    weights = {"pos_weight": logits.new_tensor(positive_weight), "reduction": "none"}
    losses = F.binary_cross_entropy_with_logits(logits, labels, **weights)
    return (losses * mask).sum(-1).mean()


def robust_loss(
    start_logits,
    end_logits,
    start_labels,
    end_labels,
    mask,
    qa_weight=2.0,
    tagging_weight=1.0,
    positive_weight=2.0,
):
    """The weighted sum (5.2). paper does not say: the weights are those of the authors' code."""
    batch = start_logits, end_logits, start_labels, end_labels, mask
    return qa_weight * qa_loss(*batch) + tagging_weight * tagging_loss(*batch, positive_weight)


# --- Decoder ---------------------------------------------------------------------------------
NO_SPAN = -1e30  # the score of a window without context tokens


def best_spans(start_logits, end_logits, context_mask, max_answer_length):
    """The span i <= j < i + max_answer_length with the greatest start[i] + end[j], per window.

    (B, T) x2, (B, T) bool -> scores (B,), starts (B,), ends (B,). Exact: for each start, the best
    end is a sliding maximum. Ties go to the earliest start, then the earliest end.
    """
    logits = torch.stack([start_logits, end_logits]).double()  # sums are exact: ties stay ties
    start, end = logits.masked_fill(~context_mask, -math.inf)
    length = min(max_answer_length, end.shape[1])
    end = F.pad(end, (0, length - 1), value=-math.inf)
    best_end, ends = F.max_pool1d(end[:, None], length, stride=1, return_indices=True)  # (B, 1, T)
    scores, starts = (start + best_end[:, 0]).max(-1)
    ends = ends[:, 0].gather(1, starts[:, None])[:, 0]
    return scores.clamp(min=NO_SPAN).to(start_logits.dtype), starts, ends


def decide(scores, nulls=None):
    """The window whose best span answers a question, and how much speaks against answering.

    Best spans' scores of its windows (n,) and, for default training, their null scores
    start[0] + end[0] -> index, no-answer score; the answer is empty where that exceeds 0.
    Robust training (5.2): minus the best score, so that a span below 0 is no answer.
    Default training (2): the least null score minus the best score.
    >>> decide([1.5, 4.0]), decide([1.5, 4.0], [9.0, 6.0])
    ((1, -4.0), (1, 2.0))
    """
    best = int(np.argmax(scores))  # ties: the earliest window
    return best, float((0 if nulls is None else np.min(nulls)) - scores[best])


@torch.inference_mode()
def predict(model, tokenizer, questions, settings):
    """The best span of every question, answered or not, and how much speaks against answering.

    -> {id: text}, {id: no-answer score}
    """
    windows = windows_of(questions, model.to(DEVICE).eval(), tokenizer, settings)
    order = np.argsort([-len(window) for window in windows], kind="stable")
    batches = np.split(order, range(32, len(order), 32))
    scores, nulls, starts, ends = np.zeros((4, len(windows)))
    for indices in tqdm(batches, "predict", unit=" batches", disable=None, leave=False):
        batch = collate([windows[i] for i in indices], DEVICE)
        start, end = logits_of(model, batch)
        best = best_spans(start, end, batch.context_mask, settings.max_answer_length)
        scores[indices], starts[indices], ends[indices] = (x.cpu().numpy() for x in best)
        nulls[indices] = (start[:, 0] + end[:, 0]).cpu().numpy()
    texts, no_answer = {}, {}
    for key, group in itertools.groupby(range(len(windows)), lambda i: windows[i].question.id):
        group = list(group)
        n, no_answer[key] = decide(
            scores[group], nulls[group] if settings.loss == "default" else None
        )
        i = group[n]
        texts[key] = windows[i].text(int(starts[i]), int(ends[i])) if scores[i] > NO_SPAN else ""
    return texts, no_answer


def evaluate(model, tokenizer, questions, settings):
    """-> official scores, answers {id: text}, no-answer scores {id: float}."""
    texts, no_answer = predict(model, tokenizer, questions, settings)
    scores = squad_scores(questions, texts, no_answer, settings.threshold)
    answers = {k: "" if no_answer[k] > settings.threshold else text for k, text in texts.items()}
    return scores, answers, no_answer


# --- Scores: the official SQuAD 2.0 script's -------------------------------------------------


def normalize_answer(text):
    """Lower case, no ASCII punctuation, articles or surplus space: "The  «Cat's»" -> "«cats»"."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction, gold):
    """1.0 if the normalised texts are equal, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def token_f1(prediction, gold):
    """F1 of the normalised texts as bags of words: "a red cat", "cat" -> 2/3; "", "the" -> 1."""
    ours, theirs = normalize_answer(prediction).split(), normalize_answer(gold).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not common:
        return float(ours == theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def question_scores(question, prediction):
    """(exact, f1) against the gold that fits best; "" is the only gold of an unanswerable one."""
    golds = [a.text for a in question.answers if normalize_answer(a.text)] or [""]
    return tuple(max(score(prediction, g) for g in golds) for score in (exact_match, token_f1))


def squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in per cent, under its keys.

    Where no-answer scores are given, predictions are unblanked spans: one whose score exceeds the
    threshold (1.0, as there) counts as empty, and best_* report the best threshold in hindsight.
    """
    answerable = {question.id: bool(question.answers) for question in questions}
    for what, found in (("prediction", predictions), ("no-answer score", no_answer_scores)):
        if found is not None and (odd := sorted(answerable.keys() ^ found.keys())):
            raise InputError(f"{data.some_ids(odd)}: no {what}, or no question; score one file")
    raw = {q.id: question_scores(q, predictions[q.id]) for q in questions}
    blanked = {key for key, score in (no_answer_scores or {}).items() if score > threshold}
    final = {k: (float(not answerable[k]),) * 2 if k in blanked else raw[k] for k in raw}
    result = {}
    for prefix, group in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        chosen = [final[key] for key in final if answerable[key] in group]
        if chosen:
            exact, f1 = (100 * sum(values) / len(chosen) for values in zip(*chosen))
            result |= {prefix + "exact": exact, prefix + "f1": f1, prefix + "total": len(chosen)}
    for n, name in enumerate(("exact", "f1") if no_answer_scores is not None else ()):
        # From "all empty", answer one question more at a time, the surest first.
        order = sorted(no_answer_scores, key=no_answer_scores.get)
        gains = [raw[key][n] if answerable[key] else -bool(predictions[key]) for key in order]
        totals = list(itertools.accumulate(gains, initial=len(raw) - sum(answerable.values())))
        best = totals.index(max(totals))  # the first: only a better one replaces it
        result[f"best_{name}"] = 100 * totals[best] / len(raw)
        result[f"best_{name}_thresh"] = no_answer_scores[order[best - 1]] if best else 0.0
    return result


# --- Training --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a run depends on; the command line is made from these lines. Sources in brackets."""

    train: str = "toy-train"  # SQuAD file or name to train on
    eval: tuple = ()  # SQuAD files or names to evaluate on
    init: str = ""  # checkpoint directory or Hub id to start from; none: small and random
    out: str = "runs/toy"  # run directory
    loss: str = "robust"  # robust (the paper's) or default (the usual one)
    synthetic: float = None  # share of answerable questions given a second answer; none: 0.3 or 0
    synthetic_kind: str = "mixed"  # sentence that holds it: evidence, template or mixed
    qa_weight: float = 2.0  # weight of the QA loss [authors' code]
    tagging_weight: float = 1.0  # weight of the tagging loss [authors' code]
    positive_weight: float = 2.0  # weight of labelled positions in tagging [authors' code]
    threshold: float = 0.0  # no-answer score above which an answer is empty [5.2]
    max_length: int = 384  # tokens in a window [authors' scripts]
    stride: int = 128  # tokens that neighbouring windows share [authors' scripts]
    max_answer_length: int = 128  # tokens in an answer [authors' scripts]
    batch_size: int = 16  # windows in a batch [authors' scripts; the paper: 8]
    lr: float = 2e-5  # peak learning rate [authors' scripts]
    epochs: float = 3.0  # passes over the training windows [authors' scripts]
    warmup: int = 0  # steps of linear warm-up [authors' scripts: none]
    limit: int = 0  # train on the first N questions after the seeded shuffle; 0: on all
    eval_every: int = 0  # also evaluate every N steps; 0: at the end only
    seed: int = 0  # of initial weights, data order, dropout and synthetic answers

    def __post_init__(self):
        if self.synthetic is None:  # paper does not say; 0.3 is an assumption
            object.__setattr__(self, "synthetic", 0.3 if self.loss == "robust" else 0.0)
        known = {"loss": ("robust", "default"), "synthetic_kind": ("mixed", "evidence", "template")}
        limits = {"threshold": (-math.inf, math.inf), "synthetic": (0, 1), "stride": (0, 10**9)}
        for f in fields(self):
            value, words = getattr(self, f.name), known.get(f.name, ())
            low, high = limits.get(f.name, (int(f.type is int and f.default > 0), 10**9))
            fits = low <= value <= high if f.type in (int, float) else value in (words or [value])
            if not fits:
                allowed = " or ".join(words) or f"a number from {low} to {high}"
                raise InputError(f"--{f.name} {value} is not {allowed}".replace("_", "-"))


DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"
TOY_SETTINGS = {"batch_size": 64, "lr": 3e-3, "warmup": 100, "epochs": 5.0}
TOY_SETTINGS |= {"max_length": 128, "stride": 32, "max_answer_length": 16}


def logits_of(model, batch):  # -> start and end logits (B, T)
    """In bfloat16 where the processor has its products and the model is wide enough to gain."""
    fast = DEVICE == "cuda" or torch.cpu._is_amx_tile_supported()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=fast and model.config.hidden_size >= 256):
        return model(batch.input_ids, batch.segment_ids, batch.mask)


def windows_of(questions, model, tokenizer, settings):
    """make_windows as the settings want it, as far as the model's positions go."""
    shape = min(settings.max_length, model.max_length), settings.stride
    return make_windows(questions, tokenizer, *shape, model.config.question_overlap)


def read_tests(names):
    """{file name: questions}, in the order given."""
    tests = {Path(name).name: read_questions(name) for name in names}
    if len(tests) < len(names):
        raise InputError(f"two of the files {' '.join(names)} have one name; rename one")
    return tests


def new_model(questions, max_length):
    """A small random encoder and a WordPiece tokenizer trained on the spot.

    Matching a name across the text does not emerge from random weights in minutes. So context
    tokens that the question holds get a segment of their own (the exact-match feature of DrQA,
    Chen et al. 2017), and positions start as sines (Vaswani et al. 2017).
    """
    texts = sorted({text for q in questions for text in (q.question, q.context)})
    tokenizer = wordpiece_tokenizer({token: k for k, token in enumerate(SPECIALS["bert"])}, True)
    # The trainer numbers "##a", "##b" and so on as a hash map has them; listed, they stay in order.
    letters = sorted({*tokenizer.normalizer.normalize_str("".join(texts))} - {" "})
    listed = SPECIALS["bert"] + ["##" + letter for letter in letters]
    how = {"vocab_size": 8000, "special_tokens": listed, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(**how))
    tokenizer = wordpiece_tokenizer(tokenizer.get_vocab(), True)
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"intermediate_size": 256, "type_vocab_size": 3, "max_position_embeddings": max_length}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    shape |= {"initializer_range": 0.1, "question_overlap": True}
    model = QAModel(Config(vocab_size=tokenizer.get_vocab_size(), **shape))
    angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


def train(settings, resume=False):
    """Train, evaluate, leave checkpoint, settings, metrics in settings.out -> model, tokenizer."""
    out, began = Path(settings.out), time.monotonic()
    if resume and has_ended(settings):
        print(f"{out}: this run has ended", file=sys.stderr)
        return load_model(out, head_required=True)
    tests, questions = read_tests(settings.eval), read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    chosen, how = questions[: settings.limit or None], (settings.seed, settings.synthetic_kind)
    questions = data.add_synthetic_answers(chosen, settings.synthetic, *how)
    torch.manual_seed(settings.seed)
    if settings.init:
        model, tokenizer = load_model(settings.init)
    else:
        model, tokenizer = new_model(questions, settings.max_length)
    windows = windows_of(questions, model.to(DEVICE), tokenizer, settings)
    lost = dict.fromkeys(w.question.id for w in windows if (w.golds < 0).any())
    if lost:  # all-zero labels would teach that such a question has no answer
        print(f"{data.some_ids(lost)} have a gold that no token holds; left out", file=sys.stderr)
    windows = [window for window in windows if window.question.id not in lost]
    if not windows:
        raise InputError(f"{settings.train}: leaves nothing to train on; give more questions")
    lengths = np.array([len(window) for window in windows])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    per_epoch = math.ceil(len(windows) / settings.batch_size)
    total = max(1, round(settings.epochs * per_epoch))
    write_file(out / "settings.json", json.dumps(asdict(settings), indent=2).encode())
    for file in () if resume else (out / STATE, out / "metrics.json", out / "metrics.jsonl"):
        if file.is_file():  # of a run that this one replaces
            file.unlink()
    first, log = load_state(out, model, optimizer) if (out / STATE).exists() else (0, [])
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    counts = f"{len(windows)} windows of {len(questions)} questions, {total} steps"
    print(f"{counts}, {size:.1f} M parameters, {DEVICE}", file=sys.stderr)
    bar = tqdm(range(first, total), "train", total, initial=first, unit=" steps", disable=None)
    for step in bar:
        epoch, k = divmod(step, per_epoch)
        if k == 0 or step == first:
            rng = np.random.default_rng([settings.seed, epoch])
            order = data.length_bucketed(lengths, settings.batch_size, rng)
        batch = collate([windows[i] for i in order[k]], DEVICE)
        warm = min(1.0, (step + 1) / (settings.warmup + 1))
        optimizer.param_groups[0]["lr"] = settings.lr * warm * (1 - step / total)
        logits = logits_of(model.train(), batch)
        if settings.loss == "default":
            loss = default_loss(*logits, batch.start_positions, batch.end_positions, batch.mask)
        else:
            weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
            loss = robust_loss(*logits, batch.start_labels, batch.end_labels, batch.mask, *weights)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        scoring = settings.eval_every and done % settings.eval_every == 0 and done < total
        if done % 50 == 0 or done == total or scoring:
            log.append({"step": done, "loss": loss.item(), "gradient_norm": norm.item()})
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if not math.isfinite(loss.item() + norm.item()):
                raise InputError(f"not finite any more: {log[-1]}; try a lower --lr")
        for name in tests if scoring else ():
            scores = evaluate(model, tokenizer, tests[name], settings)[0]
            log.append({"step": done, "eval": name} | scores)
        if done % 500 == 0 or done == total or scoring:
            save_state(out, model, optimizer, done, log)
    save_model(model, tokenizer, out)
    scores, answers = score_table(model, tokenizer, tests, settings)
    write_file(out / "metrics.json", json.dumps(scores, indent=2).encode())
    (out / STATE).unlink()
    for name, test in list(tests.items())[:1]:
        wrong = [q for q in test if not question_scores(q, answers[name][q.id])[0]]
        for q in wrong[:: len(wrong) // 5 + 1]:  # at most five
            golds = " / ".join(dict.fromkeys(gold.text for gold in q.answers)) or "(no answer)"
            found = answers[name][q.id] or "(no answer)"
            print(f"\nwrong: {q.question}\n  gold {golds}, predicted {found}")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


def score_table(model, tokenizer, tests, settings):
    """Print a line of official scores per file -> {file name: scores}, {file name: answers}."""
    columns, scores, answers = "total exact f1 HasAns_f1 NoAns_f1 best_f1".split(), {}, {}
    for name, test in tests.items():
        found, answers[name], _ = evaluate(model, tokenizer, test, settings)
        if not scores:
            print(" " * 32 + "".join(f"{column:>11}" for column in columns))
        cells = [f"{found[c]:.{c != 'total':d}f}" if c in found else "-" for c in columns]
        print(f"{name:32}" + "".join(f"{cell:>11}" for cell in cells))
        scores[name] = found
    return scores, answers


STATE = "state.safetensors"  # of an unfinished run: all that training depends on, in one file


def save_state(out, model, optimizer, step, log):
    """Write the state, and metrics.jsonl; a kill leaves the old or the new state."""
    tensors = {"random": RANDOM.get_rng_state()}
    for name, x in model.named_parameters():
        moments = {f"{name} {key}": moment for key, moment in optimizer.state[x].items()}
        tensors |= {name: x.data} | moments
    about = {"step": str(step), "log": json.dumps(log)}
    write_file(out / STATE, safetensors.torch.save(tensors, about))
    write_file(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log).encode())


def load_state(out, model, optimizer):
    """Put the last saved state back -> steps done, log."""
    with refusing(out / STATE), safetensors.safe_open(out / STATE, "pt", DEVICE) as state:
        for name, x in model.named_parameters():
            x.data.copy_(state.get_tensor(name))
            moments = "step", "exp_avg", "exp_avg_sq"
            optimizer.state[x] = {key: state.get_tensor(f"{name} {key}") for key in moments}
        RANDOM.set_rng_state(state.get_tensor("random").cpu())
        return int(state.metadata()["step"]), json.loads(state.metadata()["log"])


def has_ended(settings):
    """Whether the run that is to be resumed has ended; InputError if it had other settings."""
    file = Path(settings.out) / "settings.json"
    if not file.exists():
        raise InputError(f"nothing to resume in {settings.out}; start without --resume")
    with refusing(file):
        begun, now = json.loads(file.read_text()), json.loads(json.dumps(asdict(settings)))
        changed = [f"--{k} {begun[k]}" for k in now if k != "out" and begun[k] != now[k]]
    if changed:
        changed = ", ".join(changed).replace("_", "-")
        raise InputError(f"{file}: begun with {changed}; give the same, or --overwrite")
    return file.with_name("metrics.json").exists()


# --- Commands --------------------------------------------------------------------------------


def compare(settings, seeds, resume):
    """Default and robust training from the same seeds in one table: F1 (HasAns / NoAns), mean ± sd.

    Both attacks on the first file, the F1 they cost, and its ratio where default loses 3 or more.
    """
    if seeds < 1 or not settings.eval:
        raise InputError("compare needs --seeds of 1 or more and at least one --eval file")
    tests = read_tests(settings.eval)
    base = next(iter(tests))
    attacks = {kind: data.attack(tests[base], kind) for kind in data.ATTACKS}
    if tests.keys() & attacks or not all(attacks.values()):
        raise InputError(f"{base} cannot be attacked, or a file has an attack's name; give others")
    tests |= attacks
    results = {"default": defaultdict(list), "robust": defaultdict(list)}
    for (loss, rows), seed in itertools.product(results.items(), range(seeds)):
        share = 0.0 if loss == "default" else settings.synthetic
        out, seed = Path(settings.out) / f"{loss}-{seed}", settings.seed + seed
        run = replace(settings, loss=loss, seed=seed, out=str(out), synthetic=share, eval=())
        model, tokenizer = train(run, resume and (out / "settings.json").exists())
        scores, answers = score_table(model, tokenizer, tests, run)
        for name, found in scores.items():
            rows[name].append([found[k] for k in ("f1", "HasAns_f1", "NoAns_f1") if k in found])
        for kind in data.ATTACKS:
            before = {q.id: answers[base][q.id] for q in tests[kind]}
            before = squad_scores(tests[kind], before)["f1"]
            rows[f"{kind} drop"].append([before - scores[kind]["f1"]])
    write_file(Path(settings.out) / "compare.json", json.dumps(results, indent=2).encode())
    print(f"{f'F1 (HasAns / NoAns), {seeds} seeds':28}{'default':>40}{'robust':>40}{'ratio':>7}")
    for row in results["default"]:
        both = [np.array(rows[row]) for rows in results.values()]  # (seeds, 1 to 3) each
        cells = [[f"{x.mean():.1f} ± {x.std():.1f}" for x in numbers.T] for numbers in both]
        cells = [f1 + (f" ({' / '.join(more)})" if more else "") for f1, *more in cells]
        default, robust = (numbers.mean() for numbers in both)
        ratio = f"{robust / default:.2f}" if "drop" in row and default >= 3 else "-"
        print(f"{row:28}" + "".join(f"{cell:>40}" for cell in cells) + f"{ratio:>7}")


COMMANDS = {  # name: (help, its settings, its own arguments)
    "train": ("train and evaluate a model", "all", "--resume --overwrite"),
    "compare": ("train default and robust side by side", "all", "--resume --overwrite --seeds"),
    "evaluate": ("score a model on files", DECODING, "model files"),
    "predict": ("write a model's answers", DECODING, "model file --output --scores"),
    "ask": ("answer one question", DECODING, "model --context --question"),
    "augment": ("add synthetic answers", ("synthetic", "synthetic_kind", "seed"), "file --output"),
    "attack": ("write the attacked version of a file", ("seed",), "file --output --kind"),
}
ARGUMENTS = {
    "model": {"help": "checkpoint directory or Hub id"},
    "file": {"help": "SQuAD file or name"},
    "files": {"help": "SQuAD files or names", "nargs": "+", "metavar": "file"},
    "--resume": {"help": "go on where an earlier run ended", "action": "store_true"},
    "--overwrite": {"help": "replace an earlier run", "action": "store_true"},
    "--seeds": {"help": "runs of each loss (default: 3)", "type": int, "default": 3},
    "--output": {"help": "file to write", "required": True},
    "--scores": {"help": "file for the no-answer scores"},
    "--context": {"help": "text to search", "required": True},
    "--question": {"help": "what to find in it", "required": True},
    "--kind": {"choices": [*data.ATTACKS, "information-seeking"], "required": True},
}


def run_training(command, own, given):
    """train and compare; neither replaces a run unless it is told to."""
    toy = given.get("train", "toy-train") == "toy-train" and not given.get("init")
    if toy:  # compare makes the attacks itself
        tests = tuple(data.TOY)[1 : 3 if command == "compare" else None]
        given = TOY_SETTINGS | {"eval": tests} | given
    elif "out" not in given:
        raise InputError("a run that is not the toy run needs a directory of its own; add --out")
    settings = Settings(**given | ({"loss": "robust"} if command == "compare" else {}))
    names = "settings.json", "config.json", "compare.json", "default-0/settings.json"
    used = any((Path(settings.out) / name).exists() for name in names)
    if used and not (own["resume"] or own["overwrite"] or (toy and "out" not in given)):
        raise InputError(f"{settings.out}: is in use; add --resume, --overwrite or another --out")
    if command == "train":
        train(settings, own["resume"])
    else:
        compare(settings, own["seeds"], own["resume"])


def run_data(command, own, given):
    """augment and attack."""
    settings, questions = Settings(**given), read_questions(own["file"])
    if command == "augment":
        how = settings.synthetic, settings.seed, settings.synthetic_kind
        changed = data.add_synthetic_answers(questions, *how)
    else:
        changed = data.attack(questions, own["kind"], settings.seed)
    data.write_questions(changed, own["output"])
    done = len({*map(id, changed)} - {*map(id, questions)})
    print(f"{own['output']}: {done} of {len(questions)} questions changed")


def run_model(command, own, given):
    """evaluate, predict and ask, with the settings of the training unless others are given."""
    file, stored = Path(own["model"]) / "settings.json", {}
    with refusing(file):
        if file.exists():
            stored = json.loads(file.read_text("utf-8"))
            stored = {name: stored[name] for name in DECODING if name in stored}
        settings = Settings(**{"loss": "default"} | stored)
    settings = replace(settings, **given)
    model, tokenizer = load_model(own["model"], head_required=True)
    if command == "evaluate":
        score_table(model, tokenizer, read_tests(own["files"]), settings)
        return
    if command == "predict":
        questions = read_questions(own["file"])
    else:  # bytes that are no text reach Python as lone surrogates
        texts = (own[name].encode(errors="replace").decode() for name in ("question", "context"))
        questions = [Question("", *texts, [])]
    _, answers, no_answer = evaluate(model, tokenizer, questions, settings)
    if command == "predict":
        write_file(own["output"], json.dumps(answers, ensure_ascii=False).encode())
        if own["scores"]:
            write_file(own["scores"], json.dumps(no_answer).encode())
        done = sum(map(bool, answers.values()))
        print(f"{own['output']}: {done} of {len(questions)} questions answered")
    else:
        print(answers[""] or "(no answer)")
        score = f"no-answer score {no_answer['']:.2f}; empty above {settings.threshold:g}"
        print(score, file=sys.stderr)


def main(arguments=None):
    """Run a command; what cannot be done ends with one sentence and exit status 2."""
    parser = argparse.ArgumentParser(description="Robust extractive question answering.")
    commands = parser.add_subparsers(dest="command", required=True)
    comments = dict(re.findall(r"\n    (\w+): .*?  # (.*)", Path(__file__).read_text("utf-8")))
    for name, (text, settings, own) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        for argument in own.split():
            sub.add_argument(argument, **ARGUMENTS[argument])
        for f in fields(Settings):
            if settings == "all" or f.name in settings:
                how = {"nargs": "+"} if f.type is tuple else {"type": f.type}
                how["help"] = f"{comments[f.name]} (default: {f.default})"
                option = "--" + f.name.replace("_", "-")
                sub.add_argument(option, default=argparse.SUPPRESS, **how)
    own = vars(parser.parse_args(arguments))
    command = own.pop("command")
    given = {f.name: own.pop(f.name) for f in fields(Settings) if f.name in own}
    run = run_model if "model" in own else run_data if "file" in own else run_training
    try:
        run(command, own, given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
