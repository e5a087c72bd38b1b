"""Robust extractive question answering: the losses, the decoder, the scores, and the commands.

After "Towards Robust Extractive Question Answering Models: Rethinking the Training Methodology"
(Tran & Kretchmar, Findings of EMNLP 2024), whose sections are named where they act. Read data.py
and model.py first. Letters: B windows in a batch, T positions in a window.
"""

import argparse
import itertools
import json
import math
import os
import random
import re
import string
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from signal import SIGINT, default_int_handler, signal
from typing import Literal, get_args

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.adamw import adamw
from tqdm import tqdm

import data
from data import InputError, Question, collate, length_bucketed, make_windows, read_questions
from model import load_model, new_model, refusing, save_model

DEVICE, RANDOM = ("cuda", torch.cuda) if torch.cuda.is_available() else ("cpu", torch)
RANK, WORLD = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
# bfloat16 products are 4.6 times as fast as float32 with AVX512-BF16, 3.5 times with AMX.
AMX, AVX = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
BF16 = DEVICE == "cuda" or AMX or AVX
# Lengths are padded to multiples of STEP, so that what one batch frees fits the next: 60 steps of 8
# windows with MiniLM take 2.3 GB instead of 2.8. On a CPU a batch goes through the model in parts of
# about PART numbers a layer, 768 of MiniLM's tokens: 1.5 GB, in 1.14 times the time.
STEP, PART = 16, 300_000
NONE = "(no answer)"

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
    best_end, reach = end, 1  # best_end[i] = max end[i : i + reach]
    while reach < length:  # doubled: log2(length) steps, a fifth of max_pool1d's time or less
        step = min(reach, length - reach)
        shifted = F.pad(best_end[:, step:], (0, step), value=-math.inf)
        best_end, reach = torch.maximum(best_end, shifted), reach + step
    scores, starts = (start + best_end).max(-1)
    place = torch.arange(end.shape[1], device=end.device) - starts[:, None]  # after the start
    ends = end.masked_fill((place < 0) | (place >= length), -math.inf).argmax(-1)
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
    """-> answers {id: text}, best spans {id: text}, no-answer scores {id: float} of every question.

    An answer is the best span, or empty where the no-answer score exceeds the threshold.
    """
    model, spans, no_answer = model.to(DEVICE).eval(), {}, {}
    for k in tqdm(range(0, len(questions), 500), "predict", disable=None, leave=False):
        part = questions[k : k + 500]  # so that memory does not grow with the questions
        windows = windows_of(part, model, tokenizer, settings)
        lengths, found = np.array([len(window) for window in windows]), np.zeros((len(windows), 4))
        for indices in length_bucketed(lengths, 32, np.random.default_rng(0)):
            batch = collate([windows[i] for i in indices], DEVICE, STEP, model.max_length)
            start, end = logits_of(model, batch)
            score, *span = best_spans(start, end, batch.context_mask, settings.max_answer_length)
            found[indices] = torch.stack([score, start[:, 0] + end[:, 0], *span], 1).cpu().numpy()
        for _, pairs in itertools.groupby(zip(windows, found), lambda pair: pair[0].question_index):
            own, rows = zip(*pairs)  # the windows of one question
            scores, nulls, starts, ends = np.transpose(rows)
            i, score = decide(scores, nulls if settings.loss == "default" else None)
            text = own[i].text(int(starts[i]), int(ends[i])) if scores[i] > NO_SPAN else ""
            spans[own[i].question.id], no_answer[own[i].question.id] = text, score
    answers = {k: "" if no_answer[k] > settings.threshold else text for k, text in spans.items()}
    return answers, spans, no_answer


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


def squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in per cent, under its keys.

    Where no-answer scores are given, predictions are unblanked spans: one whose score exceeds the
    threshold (1.0, as there) counts as empty, and best_* report the best threshold in hindsight.
    """
    answerable = {question.id: bool(question.answers) for question in questions}
    for what, found in (("prediction", predictions), ("no-answer score", no_answer_scores)):
        if found is not None and (odd := sorted(answerable.keys() ^ found.keys())):
            raise InputError(f"{data.some_ids(odd)}: no {what}, or no question; score one file")
    raw = {}
    for q in questions:  # of several golds the one that fits best; "" is that of an unanswerable
        golds = [a.text for a in q.answers if normalize_answer(a.text)] or [""]
        raw[q.id] = [max(f(predictions[q.id], g) for g in golds) for f in (exact_match, token_f1)]
    blanked = {key for key, score in (no_answer_scores or {}).items() if score > threshold}
    final = {k: [float(not answerable[k])] * 2 if k in blanked else raw[k] for k in raw}
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


# --- Settings --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a run depends on; the command line is made from these lines. Sources in brackets."""

    train: str = "toy-train"  # SQuAD file or name to train on
    eval: tuple = ()  # SQuAD files or names to evaluate on
    init: str = ""  # checkpoint directory or Hub id to start from; none: small and random
    out: str = "runs/toy"  # run directory; compare has runs/compare
    loss: Literal["robust", "default"] = "robust"  # the paper's, or the usual one
    synthetic: float = None  # share of answerable questions given a second answer; none: 0.3 or 0
    synthetic_kind: Literal["mixed", "evidence", "template"] = "mixed"  # form of that sentence
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
        limits = {"threshold": (-math.inf, math.inf), "stride": (0, 10**9)}
        data.check_fields(self, synthetic=(0, 1), max_length=(1, 10**6), **limits)


DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"
TOY_SETTINGS = {"batch_size": 32, "lr": 2e-3, "warmup": 100, "epochs": 3.0}
TOY_SETTINGS |= {"max_length": 128, "stride": 32, "max_answer_length": 16}


def logits_of(model, batch):  # -> start and end logits (B, T)
    """In bfloat16 where the processor has its products and the model is wide enough to gain."""
    wide = getattr(model, "module", model).config.hidden_size >= 256
    with torch.autocast(DEVICE, torch.bfloat16, enabled=wide and BF16):
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


# --- Training --------------------------------------------------------------------------------


def backward(network, windows, settings):
    """Add the gradients of a batch's mean loss, part by part -> this process's part, times WORLD."""
    mine, size, total = windows[RANK::WORLD], len(windows), 0.0
    model = getattr(network, "module", network)  # without what makes it data-parallel
    if DEVICE == "cpu" and WORLD == 1:
        size = max(1, PART // (model.config.hidden_size * max(map(len, windows))))
    for k in range(0, max(1, len(mine)), size):
        part = mine[k : k + size]
        batch = collate(part or windows[:1], DEVICE, STEP, model.max_length)
        logits = logits_of(network, batch)
        if settings.loss == "default":
            loss = default_loss(*logits, batch.start_positions, batch.end_positions, batch.mask)
        else:
            weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
            loss = robust_loss(*logits, batch.start_labels, batch.end_labels, batch.mask, *weights)
        loss = loss * (len(part) * WORLD / len(windows))  # so that the mean is the whole batch's
        loss.backward()
        total += loss.detach()
    return total


def adamw_step(model, state, step, lr):
    """Move the weights by AdamW (Loshchilov & Hutter 2019), without decay, and drop the gradients.

    Every weight needs one. torch.optim.AdamW does the same, after 2 to 4 s to import the compiler.
    """
    names, weights = zip(*model.named_parameters())
    moments = [[state[f"{name} {moment}"] for name in names] for moment in MOMENTS]
    steps = torch.full([len(names)], float(step), device=DEVICE).unbind()
    how = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    how |= {"fused": True, "amsgrad": False, "maximize": False}
    with torch.no_grad():
        adamw(list(weights), [x.grad for x in weights], *moments, [], list(steps), **how)
    model.zero_grad()


def train(settings, resume=False):
    """Train and evaluate; rank 0 leaves all files in settings.out. -> model, tokenizer."""
    out, began = Path(settings.out), time.monotonic()
    if resume and any(out.glob("[!.]*")):  # else it was stopped before it wrote a file
        begun, now = stored_settings(out), json.loads(json.dumps(asdict(settings)))
        changed = [name for name in now if name != "out" and begun.get(name) != now[name]]
        if changed:
            were = ", ".join(f"--{name.replace('_', '-')} {begun.get(name)}" for name in changed)
            how = f"begun with {were}" if begun else "nothing to resume"
            raise InputError(f"{out}: {how}; give the same, or --overwrite")
        if (out / "metrics.json").exists():  # the last file of a run
            (out / STATE).unlink(missing_ok=True)
            print(f"{out}: this run has ended", file=sys.stderr)
            return load_model(out, head_required=True)
    if WORLD > 1:
        if DEVICE == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if DEVICE == "cuda" else "gloo")
    tests, questions = read_tests(settings.eval), read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    chosen, how = questions[: settings.limit or None], (settings.seed, settings.synthetic_kind)
    questions = data.add_synthetic_answers(chosen, settings.synthetic, *how)
    torch.manual_seed(settings.seed)
    if settings.init:
        model, tokenizer = load_model(settings.init)
    else:
        texts = {text for q in questions for text in (q.question, q.context)}
        model, tokenizer = new_model(sorted(texts), settings.max_length)
    windows = windows_of(questions, model.to(DEVICE), tokenizer, settings)
    lost = dict.fromkeys(w.question.id for w in windows if (w.golds < 0).any())
    if lost:  # all-zero labels would teach that such a question has no answer
        print(f"{data.some_ids(lost)} have a gold that no token holds; left out", file=sys.stderr)
    windows = [window for window in windows if window.question.id not in lost]
    if not windows:
        raise InputError(f"{settings.train}: leaves nothing to train on; give more questions")
    lengths = np.array([len(window) for window in windows])
    per_epoch = math.ceil(len(windows) / settings.batch_size)
    total = max(1, round(settings.epochs * per_epoch))
    state, first, log = training_state(model, total, resume and out / STATE)
    old = ("metrics.json", "metrics.jsonl", STATE, "model.safetensors") if first == 0 else ()
    if RANK == 0:  # remove what an earlier run left, if this one can be written
        data.write_file(out / "settings.json", None)
        for file in [*out.glob(".*.tmp"), *(out / name for name in old)]:
            file.unlink(missing_ok=True)
        data.write_file(out / "settings.json", asdict(settings))
        size = f"{sum(x.numel() for x in model.parameters()) / 1e6:.1f} M parameters, {DEVICE}"
        counts = f"{len(windows)} windows of {len(questions)} questions, {total} steps"
        print(f"{counts}, {size}", file=sys.stderr)
    network = DistributedDataParallel(model) if WORLD > 1 else model
    stops = []  # the first Ctrl-C takes effect between two steps, a second one at once
    handler = signal(SIGINT, lambda *_: stops.append(signal(SIGINT, handler)))
    how = {"unit": " steps", "disable": RANK > 0 or None}
    for step in (bar := tqdm(range(first, total), "train", total, initial=first, **how)):
        epoch, k = divmod(step, per_epoch)
        if k == 0 or step == first:
            rng = np.random.default_rng([settings.seed, epoch])
            order = length_bucketed(lengths, settings.batch_size, rng)
        lr = settings.lr * min(1.0, (step + 1) / (settings.warmup + 1)) * (1 - step / total)
        loss = backward(network.train(), [windows[i] for i in order[k]], settings)
        told = stops  # or, of several processes, whether any was interrupted before this step's sum
        if WORLD > 1:  # all log the whole batch's loss, and stop together
            both = torch.stack([loss / WORLD, loss.new_tensor(len(stops))])
            torch.distributed.all_reduce(both)
            loss, told = both[0], bool(both[1])
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw_step(model, state, step, lr)
        done = step + 1
        scoring = settings.eval_every and done % settings.eval_every == 0 and done < total
        if logged := done % 50 == 0 or done == total or scoring:
            now = {"loss": loss.item(), "gradient_norm": norm.item()}
            log.append({"step": done, **now, "threads": torch.get_num_threads()})
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (logged or told) and not math.isfinite(loss.item() + norm.item()):
            signal(SIGINT, handler)
            raise InputError(f"step {done}: the loss is not finite any more; try a lower --lr")
        if scoring and RANK == 0:
            scores, _ = score_table(model, tokenizer, tests, settings)
            log += [{"step": done, "eval": name} | scores[name] for name in scores]
        if RANK == 0 and (done % 500 == 0 or done == total or scoring or told):
            lines = "".join(json.dumps(line) + "\n" for line in log)
            data.write_file(out / "metrics.jsonl", lines.encode())
            state["random"] = RANDOM.get_rng_state()
            about = {"step": str(done), "log": json.dumps(log)}
            data.write_file(out / STATE, safetensors.torch.save(state, about))
        if told:
            raise KeyboardInterrupt
    signal(SIGINT, handler)
    if WORLD > 1:
        torch.distributed.destroy_process_group()
    if RANK > 0:
        return model, tokenizer
    save_model(model, tokenizer, out)
    scores, answers = score_table(model, tokenizer, tests, settings)
    data.write_file(out / "metrics.json", scores)
    (out / STATE).unlink()
    for name, test in list(tests.items())[:1]:
        found = answers[name]
        wrong = [q for q in test if not squad_scores([q], {q.id: found[q.id]})["exact"]]
        for q in wrong[:: len(wrong) // 5 + 1]:  # at most five
            gold = " / ".join(dict.fromkeys(answer.text for answer in q.answers)) or NONE
            print(f"\nwrong: {q.question}\n  gold {gold}, predicted {found[q.id] or NONE}")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


def score_table(model, tokenizer, tests, settings):
    """Print a line of official scores per file -> {file name: scores}, {file name: answers}."""
    columns, scores, answers = "total exact f1 HasAns_f1 NoAns_f1 best_f1".split(), {}, {}
    for name, test in tests.items():
        answers[name], spans, no_answer = predict(model, tokenizer, test, settings)
        if not scores:
            print(" " * 32 + "".join(f"{column:>11}" for column in columns))
        scores[name] = found = squad_scores(test, spans, no_answer, settings.threshold)
        cells = [f"{found[c]:.{c != 'total':d}f}" if c in found else "-" for c in columns]
        print(f"{name:32}" + "".join(f"{cell:>11}" for cell in cells))
    return scores, answers


STATE = "state.safetensors"  # of an unfinished run: all that training depends on, in one file
MOMENTS = "exp_avg", "exp_avg_sq"  # means of the gradients and of their squares, as AdamW has them


def training_state(model, total, file):
    """-> {name: weights (the model's own), moments, random state}, step, log; a file's if any."""
    state, first, log = {"random": RANDOM.get_rng_state()}, 0, []
    for name, x in model.named_parameters():
        state |= {name: x.data} | {f"{name} {moment}": torch.zeros_like(x) for moment in MOMENTS}
    if file and file.exists():
        with refusing(file), safetensors.safe_open(file, "pt", DEVICE) as saved:
            for name, tensor in state.items():
                found = saved.get_tensor(name)
                if found.shape != tensor.shape or not found.isfinite().all():
                    raise ValueError(f"{name} is not of this model")
                tensor.copy_(found)
            RANDOM.set_rng_state(state["random"])
            first = range(total + 1).index(int(saved.metadata()["step"]))
            log = list(json.loads(saved.metadata()["log"]))
    return state, first, log


def stored_settings(directory):
    """What settings.json of a run directory holds; nothing where there is none."""
    file = Path(directory) / "settings.json"
    with refusing(file):
        return {**json.loads(file.read_text("utf-8"))} if file.exists() else {}


# --- Commands --------------------------------------------------------------------------------


def compare(settings, seeds, resume):
    """Default and robust training from the same seeds in one table: F1 (HasAns / NoAns), mean ± sd.

    Both attacks on the first file, the F1 they cost, and its ratio where default loses 3 or more.
    """
    tests = read_tests(settings.eval)
    base = next(iter(tests), None)
    attacks = {kind: data.attack(tests.get(base, []), kind) for kind in data.ATTACKS}
    if WORLD > 1 or seeds < 1 or tests.keys() & attacks or not all(attacks.values()):
        raise InputError("compare needs one process, --seeds from 1, an --eval file it can attack")
    tests |= attacks
    results = {"default": defaultdict(list), "robust": defaultdict(list)}
    if not resume:  # what an earlier comparison left is not to be taken for this one's
        for pattern in "compare.json", "default-*/*s.json", "robust-*/*s.json":  # settings, metrics
            for file in Path(settings.out).glob(pattern):
                file.unlink()
    data.write_file(Path(settings.out) / "settings.json", asdict(settings))
    for (loss, rows), seed in itertools.product(results.items(), range(seeds)):
        share = 0.0 if loss == "default" else settings.synthetic
        out, seed = Path(settings.out) / f"{loss}-{seed}", settings.seed + seed
        run = replace(settings, loss=loss, seed=seed, out=str(out), synthetic=share, eval=())
        model, tokenizer = train(run, resume and (out / "settings.json").exists())
        scores, answers = score_table(model, tokenizer, tests, run)
        data.write_file(out / "metrics.json", scores)
        for name, found in scores.items():
            rows[name].append([found[k] for k in ("f1", "HasAns_f1", "NoAns_f1") if k in found])
        for kind in data.ATTACKS:
            before = {q.id: answers[base][q.id] for q in tests[kind]}
            before = squad_scores(tests[kind], before)["f1"]
            rows[f"{kind} drop"].append([before - scores[kind]["f1"]])
    data.write_file(Path(settings.out) / "compare.json", results)
    print(f"{f'F1 (HasAns / NoAns), {seeds} seeds':28}{'default':>40}{'robust':>40}{'ratio':>7}")
    for row in results["default"]:
        both = [np.array(rows[row]) for rows in results.values()]  # (seeds, 1 to 3) each
        cells = []
        for numbers in both:
            spread = [f" ± {x.std(ddof=1):.1f}" if seeds > 1 else "" for x in numbers.T]
            f1, *more = [f"{x.mean():.1f}{s}" for x, s in zip(numbers.T, spread)]
            cells.append(f1 + (f" ({' / '.join(more)})" if more else ""))
        default, robust = (numbers.mean() for numbers in both)
        ratio = f"{robust / default:.2f}" if "drop" in row and default >= 3 else "-"
        print(f"{row:28}" + "".join(f"{cell:>40}" for cell in cells) + f"{ratio:>7}")


BUT_LOSS = [f.name for f in fields(Settings) if f.name != "loss"]
COMMANDS = {  # name: (help, its settings, its own arguments)
    "train": ("train and evaluate a model", "all", "--resume --overwrite"),
    "compare": ("train default and robust side by side", BUT_LOSS, "--resume --overwrite --seeds"),
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


def run_training(command, given, resume, overwrite, seeds=0):
    """train and compare; neither replaces a run unless it is told to."""
    toy = given.get("train", "toy-train") == "toy-train" and not given.get("init")
    replaces = toy and "out" not in given
    given = {"out": "runs/toy" if command == "train" else "runs/compare"} | given
    if toy:  # compare makes the attacks itself
        tests = tuple(data.TOY)[1 : 3 if command == "compare" else None]
        given = TOY_SETTINGS | {"eval": tests} | given
    settings = Settings(**given)
    out, old = Path(settings.out), stored_settings(settings.out)
    ended = (out / ("metrics.json" if command == "train" else "compare.json")).exists()
    own = (old.get("train", "toy-train"), old.get("init", "")) == ("toy-train", "") and ended
    with refusing(out):
        used = any(out.glob("[!.]*"))  # a killed run may have left a hidden file
        inside = settings.init and Path(settings.init).resolve().is_relative_to(out.resolve())
    if inside:
        raise InputError(f"{settings.init}: --init lies in --out; name another directory")
    if used and resume == overwrite and (resume or not (replaces and own)):
        raise InputError(f"{out}: is in use; add either --resume or --overwrite, or another --out")
    train(settings, resume) if command == "train" else compare(settings, seeds, resume)


def run_data(command, given, file, output, kind=""):
    """augment and attack."""
    settings, questions = Settings(**given), read_questions(file)
    if command == "augment":
        how = settings.synthetic, settings.seed, settings.synthetic_kind
        changed = data.add_synthetic_answers(questions, *how)
    else:
        changed = data.attack(questions, kind, settings.seed)
    data.write_questions(changed, output)
    done = len({*map(id, changed)} - {*map(id, questions)})
    print(f"{output}: {done} of {len(questions)} questions changed")


def run_model(command, given, model, files=(), file="", output="", scores="", **asked):
    """evaluate, predict and ask, with the settings of the training unless others are given."""
    stored = {"loss": "default"} | stored_settings(model)
    with refusing(Path(model) / "settings.json"):
        settings = Settings(**{name: stored[name] for name in DECODING if name in stored})
    settings = replace(settings, **given)
    if scores and scores == output:
        raise InputError(f"--scores {scores} is --output; name two files")
    model, tokenizer = load_model(model, head_required=True)
    for place in filter(None, (output, scores)):
        data.write_file(place, None)  # before the work rather than after it
    if command == "evaluate":
        return score_table(model, tokenizer, read_tests(files), settings)
    # Bytes that are no text reach Python as lone surrogates.
    asked = {name: text.encode(errors="replace").decode() for name, text in asked.items()}
    questions = read_questions(file) if file else [Question("asked", answers=[], **asked)]
    answers, _, no_answer = predict(model, tokenizer, questions, settings)
    if command == "ask":
        return print(answers["asked"] or NONE)
    data.write_file(output, answers)
    if scores:
        data.write_file(scores, no_answer)
    print(f"{output}: {sum(map(bool, answers.values()))} of {len(questions)} questions answered")


def main(arguments=None):
    """Run a command; what cannot be done ends with one sentence and exit status 2."""
    if hasattr(sys.stdout, "reconfigure"):  # not so in a notebook
        sys.stdout.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(description="Robust extractive question answering.")
    commands = parser.add_subparsers(dest="command", required=True)
    comments = dict(re.findall(r"\n    (\w+): .*?  # (.*)", Path(__file__).read_text("utf-8")))
    for name, (text, settings, own) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        for argument in own.split():
            sub.add_argument(argument, **ARGUMENTS[argument])
        for f in (f for f in fields(Settings) if settings == "all" or f.name in settings):
            default = "the run's, or train's" if settings is DECODING else f.default
            sub.add_argument(
                "--" + f.name.replace("_", "-"),
                type=f.type if f.type in (int, float) else str,
                nargs="+" if f.type is tuple else None,
                default=argparse.SUPPRESS,
                metavar="|".join(get_args(f.type)) or None,
                help=comments[f.name] + f" (default: {default})" * (default not in (None, "", ())),
            )
    own = vars(parser.parse_args(arguments))
    command = own.pop("command")
    given = {f.name: own.pop(f.name) for f in fields(Settings) if f.name in own}
    run = run_model if "model" in own else run_data if "file" in own else run_training
    try:
        run(command, given, **own)
        sys.stdout.flush()
    except (InputError, OSError) as error:
        if isinstance(error, OSError):  # standard output is a closed pipe or a full device
            sys.stdout = open(os.devnull, "w")  # where Python may flush it on leaving
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        how = "; --resume goes on from what is saved" * (run is run_training)
        print(f"interrupted{how}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal(SIGINT, default_int_handler)


if __name__ == "__main__":
    main()
