"""Robust extractive question answering: losses, decoder, scores, training, and the commands.

After "Towards Robust Extractive Question Answering Models: Rethinking the Training Methodology"
(Tran & Kretchmar, Findings of EMNLP 2024), whose sections are named where they act. Read this file
first, then data.py and model.py. Letters: B windows in a batch, T positions in a window.
"""

import argparse
import hashlib
import io
import json
import math
import os
import random
import re
import string
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed
from tqdm import tqdm

import data
from data import ATTACKS, InputError, Question, collate, length_bucketed, read_questions, refusing
from model import FILES, load_model, new_model, save_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORLD = int(os.environ.get("WORLD_SIZE", 1))  # by torchrun, as is RANK
RANK = int(os.environ["RANK"]) if WORLD > 1 else 0
BF16 = DEVICE == "cuda" or torch.cpu._is_avx512_bf16_supported()
# Else a CPU keeps compiled kernels for each of hundreds of shapes, gigabytes in all.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
NO_ANSWER = "(no answer)"

# --- Losses ----------------------------------------------------------------------------------
# Logits and labels are (2, B, T), positions (2, B), for start and end; the mask is (B, T).
# paper: padding counts, up to 384 positions [authors' code]. here: the mask leaves it out.


def default_loss(logits, positions, mask):
    """Cross entropy, with position 0, [CLS], as the hidden answer where there is none (2)."""
    logits = logits.masked_fill(~mask, -math.inf)
    return F.cross_entropy(logits.flatten(0, 1), positions.flatten())


def qa_loss(logits, labels, mask):
    """Cross entropy with 1/k on each of k labelled positions, or 1/n on all n if none (5.2)."""
    labels = labels * mask
    unanswerable = labels.sum(-1, keepdim=True) == 0  # (2, B, 1)
    targets = torch.where(unanswerable, mask.float(), labels)
    targets = targets / targets.sum(-1, keepdim=True)
    log_probs = logits.masked_fill(~mask, -math.inf).log_softmax(-1)
    log_probs = log_probs.masked_fill(~mask, 0)  # since 0 * -inf is NaN
    return -(targets * log_probs).sum(-1).mean()


def tagging_loss(logits, labels, mask, positive_weight=2.0):
    """Binary cross entropy of every position, summed over positions (5.2)."""
    # paper: the batch is summed too. here: its mean, so that its size does not scale the gradient.
    weights = 1 + (positive_weight - 1) * labels
    losses = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none")
    return losses.masked_fill(~mask, 0).sum(-1).mean()


def robust_loss(logits, labels, mask, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
    """The weighted sum (5.2). paper does not say: the weights are those of the authors' code."""
    qa = qa_loss(logits, labels, mask)
    tagging = tagging_loss(logits, labels, mask, positive_weight)
    return qa_weight * qa + tagging_weight * tagging


# --- Decoder ---------------------------------------------------------------------------------
NO_SPAN = -1e30  # of a window without context


def best_spans(logits, context_mask, max_answer_length):
    """The span i <= j < i + max_answer_length with the greatest start[i] + end[j], per window."""
    # (2, B, T), (B, T) bool -> scores (B,), starts (B,), ends (B,). Exact: the best end within
    # reach of a start is a sliding maximum. Ties go to the earliest start, then the earliest end.
    start, end = logits.double().masked_fill(~context_mask, NO_SPAN)
    width = min(max_answer_length, logits.shape[-1])
    padded = F.pad(end, (0, width - 1), value=2 * NO_SPAN)
    best_end = F.max_pool1d(padded[:, None], width, stride=1)[:, 0]  # (B, T)
    scores, starts = (start + best_end).max(-1)
    in_reach = starts[:, None] + torch.arange(width, device=starts.device)
    ends = starts + padded.gather(-1, in_reach).argmax(-1)
    return scores.clamp(min=NO_SPAN), starts, ends


def decide(scores, nulls=None):
    """Best scores (n,) of a question's windows, and null scores -> best window, no-answer score.
    That is minus its score (5.2), or in default training the least start[0] + end[0] minus it (2).
    >>> decide([1.5, 4.0]), decide([1.5, 4.0], [9.0, 6.0])
    ((1, -4.0), (1, 2.0))
    """
    best = int(np.argmax(scores))
    null = 0.0 if nulls is None else min(nulls)
    return best, float(null - scores[best])


def predict(model, tokenizer, questions, settings):
    """-> answers {id: text}, best spans {id: text}, no-answer scores {id: float}; or InputError."""
    model.to(DEVICE).eval()
    answers, spans, no_answer = {}, {}, {}
    default = settings.loss == "default"
    for k in tqdm(range(0, len(questions), 500), "predict", disable=None, leave=False):
        windows = windows_of(questions[k : k + 500], model, tokenizer, settings)
        scores, nulls = np.zeros((2, len(windows)))
        places = np.zeros((len(windows), 2), int)
        lengths = [len(window.input_ids) for window in windows]
        for indices in length_bucketed(lengths, 32, np.random.default_rng(0)):
            batch = collate([windows[i] for i in indices], DEVICE)
            with torch.inference_mode():
                logits = logits_of(model, batch)
            if not logits.isfinite().all():
                raise InputError("logits are not finite: the training has diverged")
            best = best_spans(logits, batch.context_mask, settings.max_answer_length)
            scores[indices] = best[0].cpu()
            places[indices] = torch.stack(best[1:], dim=1).cpu()
            nulls[indices] = logits[:, :, 0].sum(0).cpu()
        own_windows = defaultdict(list)  # question id: indices of its windows
        for i, window in enumerate(windows):
            own_windows[window.question.id].append(i)
        for key, own in own_windows.items():
            best, no_answer[key] = decide(scores[own], nulls[own] if default else None)
            window, (start, end) = windows[own[best]], places[own[best]]
            spans[key] = window.text(start, end) if scores[own[best]] > NO_SPAN else ""
            answers[key] = "" if no_answer[key] > settings.threshold else spans[key]
    return answers, spans, no_answer


# --- Scores: those of the official SQuAD 2.0 script -------------------------------------------
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
    if common == 0:
        return float(ours == theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in per cent, under its keys; InputError if ids differ."""
    # With no-answer scores, predictions are spans: where a score exceeds the threshold (1.0, the
    # official default) the answer is empty; best_* are those of the best threshold in hindsight.
    ids = {q.id for q in questions}
    for found in (predictions, no_answer_scores):
        if found is not None and found.keys() != ids:
            raise InputError(f"{len(ids)} questions and {len(found)} predictions of other ids")
    span_scores, final_scores = {}, {}  # question id: (exact match, F1)
    for q in questions:
        golds = [gold.text for gold in q.answers if normalize_answer(gold.text)] or [""]
        exact = max(exact_match(predictions[q.id], gold) for gold in golds)
        f1 = max(token_f1(predictions[q.id], gold) for gold in golds)
        span_scores[q.id] = final_scores[q.id] = exact, f1
        if no_answer_scores and no_answer_scores[q.id] > threshold:
            final_scores[q.id] = (0.0, 0.0) if q.answers else (1.0, 1.0)
    answerable = {q.id for q in questions if q.answers}
    result = {}
    for prefix, group in {"": ids, "HasAns_": answerable, "NoAns_": ids - answerable}.items():
        if group:
            pairs = [final_scores[q.id] for q in questions if q.id in group]
            exact, f1 = 100 * np.mean(pairs, axis=0)
            result |= {prefix + "exact": float(exact), prefix + "f1": float(f1)}
            result[prefix + "total"] = len(group)
    if no_answer_scores:  # from none answered, one more at a time
        order = sorted(no_answer_scores, key=no_answer_scores.get)
        for k, name in enumerate(("exact", "f1")):
            gains = [len(ids - answerable)]
            for key in order:
                loss = -1.0 if predictions[key] else 0.0
                gains.append(span_scores[key][k] if key in answerable else loss)
            totals = np.cumsum(gains)
            best = int(totals.argmax())
            result[f"best_{name}"] = float(100 * totals[best] / len(ids))
            result[f"best_{name}_thresh"] = no_answer_scores[order[best - 1]] if best else 0.0
    return result


# --- Settings --------------------------------------------------------------------------------
def setting(default, help, least=None, **more):
    """A field of Settings, with the least value and what else its option needs."""
    return field(default=default, metadata={"help": help, "least": least, "more": more})


@dataclass
class Settings:
    """What a run depends on; each is an option of the command line. [C] is the authors' code."""

    train: str = setting("toy-train", "SQuAD file or toy name to train on")
    eval: tuple = setting((), "files or names to evaluate on", nargs="+", type=str)
    init: str = setting("", "checkpoint directory or Hub id to start from")
    out: str = setting("runs/toy", "directory of the run")
    loss: str = setting("robust", "the paper's or the usual", choices=("robust", "default"))
    synthetic: float = setting(None, "share of questions with a synthetic answer", 0)
    distractors: float = setting(0.0, "share with a sentence that answers nothing [ours]", 0)
    qa_weight: float = setting(2.0, "weight of the QA loss [C]", 0)
    tagging_weight: float = setting(1.0, "weight of the tagging loss [C]", 0)
    positive_weight: float = setting(2.0, "weight of labels 1 in tagging [C]", 0)
    threshold: float = setting(0.0, "no-answer score above which an answer is empty [5.2]")
    max_length: int = setting(384, "tokens in a window [C]", 1)
    stride: int = setting(128, "tokens that neighbouring windows share [C]", 0)
    max_answer_length: int = setting(128, "tokens in an answer [C]", 1)
    batch_size: int = setting(16, "windows in a batch [C; the paper: 8]", 1)
    lr: float = setting(2e-5, "peak learning rate [C]", 0)
    epochs: float = setting(3.0, "passes over the training windows [C]", 0)
    warmup: int = setting(0, "steps of linear warm-up [C]", 0)
    head_bias: float = setting(0.0, "with --init, of a new head's biases [ours: -5]", -1e9)
    accumulate: int = setting(1, "parts of a batch, computed one by one", 1)
    save_every: float = setting(300.0, "seconds between saved states", 0)
    limit: int = setting(0, "train on the first N shuffled questions; 0: all", 0)
    seed: int = setting(0, "of weights, data order, dropout, synthetic answers", 0)

    def __post_init__(self):
        if self.synthetic is None:  # paper does not say; 0.3 is an assumption
            self.synthetic = 0.3 if self.loss == "robust" else 0.0
        for f in fields(self):
            value, least = getattr(self, f.name), f.metadata["least"]
            if least is not None and not least <= value <= 1e9:
                option = "--" + f.name.replace("_", "-")
                raise InputError(f"{option} {value} is not a number from {least} to 1e9")


def logits_of(model, batch):  # -> (2, B, T)
    wide = model.config.hidden_size >= 256  # narrower models gain nothing
    with torch.autocast(DEVICE, torch.bfloat16, enabled=BF16 and wide):
        return model(batch.input_ids, batch.segment_ids, batch.mask)


def windows_of(questions, model, tokenizer, settings):
    limits = min(settings.max_length, model.max_length), settings.stride
    return data.make_windows(questions, tokenizer, *limits, model.config.question_overlap)


# --- Training and evaluation -----------------------------------------------------------------
STATE = "state.pt"
RUN_FILES = *FILES, "tokenizer_config.json", "settings.json", "metrics.jsonl", "metrics.json", STATE
DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"
TOY_SETTINGS = {"batch_size": 32, "lr": 2e-3, "warmup": 100, "max_length": 128, "stride": 32}
TOY_SETTINGS |= {"max_answer_length": 16, "eval": tuple(data.TOY)[1:]}


def train(settings, resume=False, overwrite=False):
    """Train and evaluate; leave a run in settings.out -> model, tokenizer; or InputError."""
    began, out = time.monotonic(), Path(settings.out)
    stored = stored_settings(out) if RANK == 0 else {}
    now = json.loads(json.dumps(asdict(settings)))
    used = RANK == 0 and any((out / name).exists() for name in RUN_FILES)
    same = bool(settings.init) and Path(settings.init).resolve() == out.resolve()
    if same or (used and not (resume or overwrite)):
        raise InputError(f"{out} holds a run; give --resume, --overwrite or another --out")
    changed = [name for name in now if name != "out" and stored.get(name) != now[name]]
    if used and resume and changed:
        raise InputError(f"{out} was begun with another {changed[0]}; give it or --overwrite")
    if resume and (out / "metrics.json").exists():
        print(f"{out}: this run has ended", file=sys.stderr)
        return load_model(out, head_required=True)
    tests, questions = read_tests(settings.eval), read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    questions = questions[: settings.limit or None]
    for kind, share in {"mixed": settings.synthetic, "distractor": settings.distractors}.items():
        if share > 0:
            questions = data.add_synthetic_answers(questions, share, settings.seed, kind)
    torch.manual_seed(settings.seed)
    if settings.init:
        model, tokenizer = load_model(settings.init, head_bias=settings.head_bias)
    else:
        texts = sorted({text for q in questions for text in (q.question, q.context)})
        model, tokenizer = new_model(texts, settings.max_length)
    training_windows(questions, model, tokenizer, settings)  # or refuse
    windows_of(sum(tests.values(), []), model, tokenizer, settings)
    if RANK == 0 and not (resume and stored):
        with refusing(f"{out} cannot be used; give another --out"):
            out.mkdir(parents=True, exist_ok=True)
            for name in RUN_FILES if overwrite else ():
                (out / name).unlink(missing_ok=True)
            with open(out / "settings.json", "x", encoding="utf-8") as file:  # of two runs, one
                json.dump(now, file, indent=2)
    log = fit(model, tokenizer, questions, settings, resume)
    if RANK == 0:
        save_model(model, tokenizer, out)
        data.write_file(out / "metrics.jsonl", "\n".join(map(json.dumps, log)).encode() + b"\n")
        data.write_file(out / "metrics.json", evaluate(model, tokenizer, tests, settings))
        (out / STATE).unlink()
        print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


def stored_settings(directory):
    """What settings.json of a directory holds; nothing where there is none."""
    file = Path(directory, "settings.json")
    with refusing(file):
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def training_windows(questions, model, tokenizer, settings):
    """The windows that can teach something; InputError if there are none."""
    windows = windows_of(questions, model, tokenizer, settings)
    # A question whose gold has no place in any window would be taught to have no answer.
    labelled = slice(1) if settings.loss == "default" else slice(None)
    placed = {w.question.id for w in windows if (w.golds[labelled] >= 0).any()}
    windows = [w for w in windows if not w.question.answers or w.question.id in placed]
    if not windows:
        raise InputError(f"{settings.train}: no question is left to train on")
    return windows


def fit(model, tokenizer, questions, settings, resume=False):
    """Train a model in place -> logged lines; the state to resume from is kept in settings.out."""
    if WORLD > 1:
        if DEVICE == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if DEVICE == "cuda" else "gloo")
    model.to(DEVICE).train()
    windows = training_windows(questions, model, tokenizer, settings)
    lengths = [len(window.input_ids) for window in windows]
    per_epoch = math.ceil(len(windows) / settings.batch_size)
    total = max(1, round(settings.epochs * per_epoch))
    weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    fingerprint = hashlib.sha256(repr(questions).encode()).hexdigest()
    file, first, log = Path(settings.out, STATE), 0, []
    if resume and file.exists():
        with refusing(f"{file} cannot be resumed; give --overwrite"):
            state = torch.load(file, DEVICE, weights_only=True)
            if state["questions"] != fingerprint:
                raise ValueError("the training data has changed")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            first, log = state["step"], state["log"]
    print(f"{len(windows)} windows, {total} steps, {DEVICE}", file=sys.stderr)
    saved = time.monotonic()
    progress = tqdm(range(first, total), "train", total, initial=first, disable=RANK > 0 or None)
    for step in progress:
        epoch, k = divmod(step, per_epoch)
        if k == 0 or step == first:
            rng = np.random.default_rng([settings.seed, epoch])
            order = length_bucketed(lengths, settings.batch_size, rng)
        torch.manual_seed(settings.seed + 1_000_003 * (step * WORLD + RANK))
        warm = (step + 1) / (settings.warmup + 1)
        decay = (total - step) / max(1, total - settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(warm, decay)
        # The loss of a batch is the sum of its parts', each weighted by its share of the windows.
        loss = torch.zeros((), device=DEVICE)
        parts = np.array_split(order[k], WORLD * settings.accumulate)
        for part in parts[RANK::WORLD]:
            if len(part) > 0:
                batch = collate([windows[i] for i in part], DEVICE)
                logits = logits_of(model, batch)
                if settings.loss == "default":
                    part_loss = default_loss(logits, batch.positions, batch.mask)
                else:
                    part_loss = robust_loss(logits, batch.labels, batch.mask, *weights)
                part_loss = part_loss * (len(part) / len(order[k]))
                part_loss.backward()
                loss += part_loss.detach()
        if WORLD > 1:  # add up what all processes have
            distributed.all_reduce(loss)
            for weight in model.parameters():
                if weight.grad is None:  # its share was empty
                    weight.grad = torch.zeros_like(weight)
                distributed.all_reduce(weight.grad)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(loss.item() + norm.item()):
            raise InputError(f"step {step + 1}: the loss is not finite; try a lower --lr")
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % 50 == 0 or done == total:
            log.append({"step": done, "loss": loss.item(), "gradient_norm": norm.item()})
            progress.set_postfix(loss=f"{loss.item():.3f}")
        due = time.monotonic() - saved >= settings.save_every
        if RANK == 0 and (due or done == total):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"questions": fingerprint, "step": done, "log": log}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            data.write_file(file, buffer.getvalue())
            saved = time.monotonic()
    if WORLD > 1:
        distributed.destroy_process_group()
    return log


def read_tests(paths, labelled=True):
    """Files -> {base name: questions}."""
    tests = {}
    for path in paths:
        name = Path(path).name
        if name in tests:
            raise InputError(f"two files are named {name}; rename one")
        tests[name] = read_questions(path, labelled)
    return tests


def evaluate(model, tokenizer, tests, settings, attacks=()):
    """Print a line of scores per test and attacked test, then mistakes -> {name: scores}."""
    columns = ["total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1"]
    columns += ["before"] if attacks else []
    print(" " * 44 + "".join(f"{name:>10}" for name in columns))
    answers, all_scores = {}, {}
    for name, original in tests.items():
        for kind in ("", *attacks):
            title = f"{name} + {kind}" if kind else name
            questions = data.attack(original, kind) if kind else original
            found, spans, no_answer = predict(model, tokenizer, questions, settings)
            scores = squad_scores(questions, spans, no_answer, settings.threshold)
            all_scores[title] = scores
            if not kind:
                answers[name] = found
            before = {key: text for key, text in answers[name].items() if key in found}
            if before and kind not in ("", "information-seeking"):
                scores["before"] = squad_scores(questions, before)["f1"]
            cells = [scores.get(column, "-") for column in columns]
            cells = [f"{cell:.1f}" if isinstance(cell, float) else cell for cell in cells]
            print(f"{title:44}" + "".join(f"{cell:>10}" for cell in cells))
    for name, found in list(answers.items())[:1]:
        wrong = [q for q in tests[name] if squad_scores([q], {q.id: found[q.id]})["exact"] == 0]
        for q in wrong[:: len(wrong) // 5 + 1]:
            gold = " / ".join(dict.fromkeys(a.text for a in q.answers)) or NO_ANSWER
            print(f"\nwrong: {q.question}\n  gold {gold}, predicted {found[q.id] or NO_ANSWER}")
    return all_scores


# --- Commands --------------------------------------------------------------------------------
def parse(arguments):
    """The command line -> its own arguments, and the settings that were given."""
    parser = argparse.ArgumentParser(description="Robust extractive QA.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train a model", allow_abbrev=False)
    training.add_argument("--resume", action="store_true", help="go on with a stopped run")
    training.add_argument("--overwrite", action="store_true", help="replace a run")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model", help="checkpoint directory or Hub id")
    shared.set_defaults(files=[], output=None, scores=None)
    for f in fields(Settings):
        shown = {None: "robust 0.3, default 0", "": "none", (): "none"}.get(f.default, f.default)
        if f.name in TOY_SETTINGS:
            shown = f"{shown}; toy: {TOY_SETTINGS[f.name]}"
        option, text = "--" + f.name.replace("_", "-"), f.metadata["help"]
        more = {"type": f.type, "default": argparse.SUPPRESS} | f.metadata["more"]
        training.add_argument(option, help=f"{text} (default: {shown})", **more)
        if f.name in DECODING:
            shared.add_argument(option, help=f"{text} (default: the run's)", **more)
    scoring = commands.add_parser("evaluate", help="score a model on files", parents=[shared])
    scoring.add_argument("files", nargs="+", help="SQuAD files or toy names")
    scoring.add_argument("--attack", nargs="+", default=(), choices=ATTACKS, help="attacks")
    scoring.add_argument("--output", help="file for the scores")
    answering = commands.add_parser("predict", help="write a model's answers", parents=[shared])
    answering.add_argument("files", nargs=1, metavar="file", help="SQuAD file or toy name")
    answering.add_argument("--output", required=True, help="file for the answers")
    answering.add_argument("--scores", help="file for the no-answer scores")
    asking = commands.add_parser("ask", help="answer one question", parents=[shared])
    asking.add_argument("--context", required=True, help="text to search")
    asking.add_argument("--question", required=True, help="what to find in it")
    own = vars(parser.parse_args(arguments))
    given = {f.name: own.pop(f.name) for f in fields(Settings) if f.name in own}
    return argparse.Namespace(**own), given


def run_train(own, given):
    if not {"train", "init"} & given.keys():
        plain = "out" not in given and not own.resume
        if plain and stored_settings("runs/toy").get("train") == "toy-train":
            print("runs/toy: the earlier run is replaced", file=sys.stderr)
            own.overwrite = True
        given = TOY_SETTINGS | given
    elif "out" not in given:
        raise InputError("--out is missing; name a directory")
    train(Settings(**given), own.resume, own.overwrite)


def run_model(own, given):
    """evaluate, predict and ask, with the settings of the training unless others are given."""
    stored = {"loss": "default"} | stored_settings(own.model) | given
    with refusing(Path(own.model, "settings.json")):
        settings = Settings(**{name: stored[name] for name in DECODING if name in stored})
    inputs = own.files + [Path(own.model, name) for name in RUN_FILES]
    taken = [Path(file).resolve() for file in inputs]
    for output in filter(None, (own.output, own.scores)):
        if Path(output).resolve() in taken:
            raise InputError(f"{output} is read or written by another option; name another")
        taken.append(Path(output).resolve())
    if own.command == "ask":
        tests = {"": [Question("asked", own.question, own.context, [])]}
    else:
        tests = read_tests(own.files, labelled=own.command == "evaluate")
    model, tokenizer = load_model(own.model, head_required=True)
    if own.command == "evaluate":
        written = [(own.output, evaluate(model, tokenizer, tests, settings, own.attack))]
    else:
        (questions,) = tests.values()
        answers, spans, no_answer = predict(model, tokenizer, questions, settings)
        written = [(own.output, answers), (own.scores, no_answer)]
    for file, content in written:
        if file:
            data.write_file(file, content)
    if own.command == "ask":
        margin = no_answer["asked"] - settings.threshold
        print(answers["asked"] or NO_ANSWER)
        print(f"best span: {spans['asked'] or 'none, the context has no words'}")
        print(f'"no answer" {"wins" if margin > 0 else "loses"} by {abs(margin):.2f}')


def main(arguments=None):
    sys.stdout.reconfigure(errors="replace")  # letters a console lacks
    own, given = parse(arguments)
    try:
        run = run_train if own.command == "train" else run_model
        run(own, given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; train --resume goes on from the last state", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
