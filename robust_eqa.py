"""Robust extractive question answering: losses, decoder, training loop; below the line the rest.

After "Towards Robust Extractive Question Answering Models: Rethinking the Training Methodology"
(Tran & Kretchmar, Findings of EMNLP 2024), whose sections are named where they act. Read this file
first, then data.py and model.py, each down to the line `# ===`: the method ends there. Letters: B
windows in a batch, T positions in a window.
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
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import data
from data import ATTACKS, InputError, Question, collate, length_bucketed, read_questions, refusing
from model import FILES, find_checkpoint, load_model, new_model, one_thread_if_small, save_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BF16 = DEVICE == "cuda" or torch.cpu._is_avx512_bf16_supported()
# The processes of a training, and which of them this is; set by torchrun.
WORLD = int(os.environ.get("WORLD_SIZE") or 1) if os.environ.get("RANK") else 1
RANK = int(os.environ["RANK"]) if WORLD > 1 else 0


# --- Losses (2, 5.2) -------------------------------------------------------------------------
# Logits and labels are (2, B, T), positions (2, B), for start and end; the mask is (B, T).
# paper: padding counts, up to 384 positions [authors' code]. here: the mask leaves it out.


def default_loss(logits, positions, mask):
    """Cross entropy with the first gold's start and end, or with 0, [CLS], where there is none (2).

    Mean of start and end, and over the batch. Position 0 is what the paper calls a hidden answer.
    """
    logits = logits.masked_fill(~mask, -math.inf)
    return F.cross_entropy(logits.flatten(0, 1), positions.flatten())


def qa_loss(logits, labels, mask):
    """Cross entropy with 1/k on each of k labelled positions, or 1/n on all n if none (5.2).

    Mean of start and end, and over the batch; a label under padding counts for nothing.
    """
    labels = labels * mask
    unanswerable = labels.sum(-1, keepdim=True) == 0  # (2, B, 1)
    targets = torch.where(unanswerable, mask.float(), labels)
    targets = targets / targets.sum(-1, keepdim=True)
    log_probs = logits.masked_fill(~mask, -math.inf).log_softmax(-1)
    # Since 0 * -inf is NaN.
    log_probs = log_probs.masked_fill(~mask, 0)
    return -(targets * log_probs).sum(-1).mean()


def tagging_loss(logits, labels, mask, positive_weight=2.0):
    """Binary cross entropy of every position, of labels 1 positive_weight times, summed (5.2).

    Sum over positions; mean of start and end, and over the batch.
    """
    # paper: the batch is summed too. here: its mean, so that its size does not scale the gradient.
    weights = 1 + (positive_weight - 1) * labels
    losses = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none")
    return losses.masked_fill(~mask, 0).sum(-1).mean()


def robust_loss(logits, labels, mask, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
    """The weighted sum (5.2). paper does not say: the weights are those of the authors' code."""
    qa = qa_loss(logits, labels, mask)
    tagging = tagging_loss(logits, labels, mask, positive_weight)
    return qa_weight * qa + tagging_weight * tagging


# --- Decoder (2, 5.2) ------------------------------------------------------------------------
# A score below any real one: of a position outside of the context, of a window without context.
NO_SPAN = -1e30


def best_spans(logits, context_mask, max_answer_length):
    """The span i <= j < i + max_answer_length with the greatest start[i] + end[j], per window (5.2).

    (2, B, T), (B, T) bool -> scores (B,) float64, starts (B,), ends (B,) positions. Both ends are
    context tokens; of equal spans the first start, then the first end. A window without context has
    the score NO_SPAN.

    >>> logits = torch.tensor([[[0.0, 1, 5, 2]], [[9, 3, 0, 4]]])
    >>> context = torch.tensor([[False, True, True, True]])
    >>> [x.item() for x in best_spans(logits, context, 2)]
    [9.0, 2, 3]
    """
    # In float64, so that sums which are equal stay equal.
    start, end = logits.double().masked_fill(~context_mask, NO_SPAN)  # (B, T) each
    width = min(max_answer_length, logits.shape[-1])
    # ends_from[b, i, d] = end[b, i + d], so that a row of the table holds all spans from i.
    ends_from = F.pad(end, (0, width - 1), value=NO_SPAN).unfold(-1, width, 1)
    scores = start[:, :, None] + ends_from  # (B, T, width)
    # Of all spans of a row: index = i * width + d.
    best, index = scores.flatten(1).max(-1)
    starts = index // width
    return best.clamp(min=NO_SPAN), starts, starts + index % width


def decide(scores, null_scores=None):
    """Which window answers a question, and how much speaks against its answer: no-answer score.

    n scores, of the best spans of its n windows -> index of the greatest, and minus that score (5.2).
    After default training there are n null scores, start[0] + end[0]: the least null score minus the
    greatest score (2).

    >>> decide([1.5, 4.0]), decide([1.5, 4.0], [9.0, 6.0])
    ((1, -4.0), (1, 2.0))
    """
    best = int(np.argmax(scores))
    null = 0.0 if null_scores is None else min(null_scores)
    return best, float(null - scores[best])


def predict(model, tokenizer, questions, settings):
    """Answer questions -> answers {id: text}, best spans {id: text}, no-answer scores {id: float}.

    An answer is empty if its no-answer score exceeds settings.threshold. InputError if two questions
    have one id, one has no room for its context, or the model's numbers are not finite.
    """
    ids = Counter(q.id for q in questions)
    if len(ids) < len(questions):
        raise InputError(f"question {ids.most_common(1)[0][0]}: its id occurs twice")
    model.to(DEVICE).eval()
    answers, spans, no_answer = {}, {}, {}
    for k in tqdm(range(0, len(questions), 500), "predict", disable=None, leave=False):
        windows = windows_of(questions[k : k + 500], model, tokenizer, settings)
        scores, null_scores = np.zeros((2, len(windows)))
        starts, ends = np.zeros((2, len(windows)), int)
        lengths = [len(window.input_ids) for window in windows]
        for indices in length_bucketed(lengths, 32, np.random.default_rng(0)):
            batch = collate([windows[i] for i in indices], DEVICE)
            with torch.inference_mode():
                logits = logits_of(model, batch)
            if not logits.isfinite().all():
                raise InputError("the logits are not finite")
            found = best_spans(logits, batch.context_mask, settings.max_answer_length)
            scores[indices], starts[indices], ends[indices] = (part.cpu() for part in found)
            null_scores[indices] = logits[:, :, 0].sum(0).cpu()

        # Question id: indices of its windows.
        windows_by_id = defaultdict(list)
        for i, window in enumerate(windows):
            windows_by_id[window.question.id].append(i)
        for key, indices in windows_by_id.items():
            nulls = null_scores[indices] if settings.loss == "default" else None
            best, no_answer[key] = decide(scores[indices], nulls)
            i = indices[best]
            spans[key] = windows[i].text(starts[i], ends[i]) if scores[i] > NO_SPAN else ""
            answers[key] = "" if no_answer[key] > settings.threshold else spans[key]
    return answers, spans, no_answer


# --- Training --------------------------------------------------------------------------------


def fit(model, windows, settings, resume=False):
    """Train a model in place on [Window] -> logged lines [{step, loss, gradient_norm}].

    What can be resumed is kept in settings.out. InputError if the loss does not stay finite, or if
    there is a state that cannot be resumed.
    """
    start_processes()
    model.to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    lengths = [len(window.input_ids) for window in windows]
    steps_per_epoch = math.ceil(len(windows) / settings.batch_size)
    total = max(1, round(settings.epochs * steps_per_epoch))
    state, trained_on = Path(settings.out, STATE), fingerprint(windows)
    saved, first, log = time.monotonic(), 0, []
    if resume and state.exists():
        first, log = load_state(state, trained_on, model, optimizer)
    if RANK == 0:
        print(f"{len(windows)} windows, {total} steps, {DEVICE}", file=sys.stderr)
    progress = tqdm(range(first, total), "train", total, initial=first, disable=RANK > 0 or None)
    with one_thread_if_small(model):
        for step in progress:
            epoch, k = divmod(step, steps_per_epoch)
            if k == 0 or step == first:
                rng = np.random.default_rng([settings.seed, epoch])
                batches = length_bucketed(lengths, settings.batch_size, rng)
            # Dropout depends on seed, step and process alone, so that a resumed run repeats it.
            torch.manual_seed(settings.seed + 1_000_003 * (step * WORLD + RANK))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, total, settings)

            # The loss of a batch is the sum of its parts', each weighted by its share of the windows.
            batch = [windows[i] for i in batches[k]]
            loss = torch.zeros((), device=DEVICE)
            for part in parts_of_this_process(batch, settings.accumulate):
                share = len(part) / len(batch)
                part_loss = share * loss_of(model, collate(part, DEVICE), settings)
                part_loss.backward()
                loss += part_loss.detach()
            sum_over_processes(loss, model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            save = RANK == 0 and (done == total or time.monotonic() - saved >= settings.save_every)
            log_now = done == total or done % 50 == 0
            # Looked at nowhere else, since a GPU must be waited for.
            if (log_now or save) and not (loss + norm).isfinite():
                raise InputError(f"the loss is not finite at step {done}; try a lower --lr")
            if log_now:
                log.append({"step": done, "loss": loss.item(), "gradient_norm": norm.item()})
                progress.set_postfix(loss=f"{loss.item():.3f}")
            if save:
                save_state(state, trained_on, model, optimizer, done, log)
                saved = time.monotonic()
    if WORLD > 1:
        torch.distributed.destroy_process_group()
    return log


def learning_rate(step, total, settings):
    """Linear warm-up to settings.lr, then linearly down to 0 after the last step.

    >>> settings = Settings(lr=1.0, warmup=1)
    >>> [learning_rate(step, 4, settings) for step in range(4)]
    [0.5, 1.0, 0.6666666666666666, 0.3333333333333333]
    """
    warm = (step + 1) / (settings.warmup + 1)
    decay = (total - step) / max(1, total - settings.warmup)
    return settings.lr * min(warm, decay)


def loss_of(model, batch, settings):
    """The loss of a Batch, by settings.loss -> scalar."""
    logits = logits_of(model, batch)
    if settings.loss == "default":
        return default_loss(logits, batch.positions, batch.mask)
    weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
    return robust_loss(logits, batch.labels, batch.mask, *weights)


def logits_of(model, batch):
    """Batch -> logits (2, B, T), by bfloat16 products where the processor has them."""
    # Narrower models gain nothing.
    with torch.autocast(DEVICE, torch.bfloat16, enabled=BF16 and model.config.hidden_size >= 256):
        return model(batch.input_ids, batch.segment_ids, batch.mask)


# === Around the method: not needed to understand it ===========================================


# --- Scores: those of the official SQuAD 2.0 script ------------------------------------------


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
    """The official script's numbers, in per cent, under its keys; InputError if ids differ.

    predictions {id: text} are final answers; with no-answer scores {id: float} they are spans, and
    the answer is empty where a score exceeds the threshold (1.0 is the official default). best_* are
    then those of the best threshold in hindsight.
    """
    ids = {q.id for q in questions}
    for found in (predictions, no_answer_scores):
        if found is not None and found.keys() != ids:
            raise InputError(f"{len(ids)} questions and {len(found)} predictions of other ids")
    # Question id: exact match, F1.
    span_scores, final_scores = {}, {}
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
            exact, f1 = (100 * np.mean(pairs, axis=0)).tolist()
            result |= {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(group)}
    # Nothing is answered at first, which is right for the unanswerable; then one question more at a
    # time, that of the least no-answer score first.
    if no_answer_scores:
        order = sorted(no_answer_scores, key=no_answer_scores.get)
        for k, name in enumerate(("exact", "f1")):
            gains = [len(ids - answerable)]
            for key in order:
                # An unanswerable question loses its point, unless its span is empty.
                spoilt = -1.0 if predictions[key] else 0.0
                gains.append(span_scores[key][k] if key in answerable else spoilt)
            totals = np.cumsum(gains)
            # totals[i]: with the first i questions answered.
            best = int(totals.argmax())
            result[f"best_{name}"] = float(100 * totals[best] / len(ids))
            result[f"best_{name}_thresh"] = no_answer_scores[order[best - 1]] if best else 0.0
    return result


# --- Settings --------------------------------------------------------------------------------


def setting(default, help, least=None, most=1e9, toy=None, **more):
    """A field of Settings: its range, its default in the toy run, what else its option needs."""
    return field(default=default, metadata=dict(help=help, range=(least, most), toy=toy, more=more))


@dataclass
class Settings:
    """What a run depends on; each is an option of the command line. [C] is the authors' code."""

    train: str = setting("toy-train", "file or toy name")
    eval: tuple = setting((), "files to evaluate on", toy=[*data.TOY][1:], nargs="+", type=str)
    init: str = setting("", "checkpoint or Hub id")
    out: str = setting("runs/toy", "directory of the run")
    loss: str = setting("robust", "the paper's or the usual", choices=("robust", "default"))
    synthetic: float = setting(None, "share with a synthetic answer", 0, 1)
    distractors: float = setting(0.0, "share with a sentence, no gold [ours]", 0, 1)
    qa_weight: float = setting(2.0, "weight of the QA loss [C]", 0)
    tagging_weight: float = setting(1.0, "weight of the tagging loss [C]", 0)
    positive_weight: float = setting(2.0, "weight of labels 1 [C]", 0)
    threshold: float = setting(0.0, "empty above this no-answer score", -math.inf, math.inf)
    max_length: int = setting(384, "tokens in a window [C]", 1, toy=128)
    stride: int = setting(128, "tokens shared by neighbours [C]", 0, toy=32)
    max_answer_length: int = setting(128, "tokens in an answer [C]", 1, toy=16)
    batch_size: int = setting(16, "windows in a batch [C; the paper: 8]", 1, toy=32)
    lr: float = setting(2e-5, "peak learning rate [C]", 0, toy=2e-3)
    epochs: float = setting(3.0, "passes over windows [C]", 0.001)
    warmup: int = setting(0, "steps of warm-up [C]", 0, toy=100)
    head_bias: float = setting(0.0, "of a new head on --init [ours: -5]", -1e9)
    accumulate: int = setting(1, "parts of a batch, for memory", 1)
    save_every: float = setting(300.0, "seconds between states", 0)
    limit: int = setting(0, "questions to train on; 0: all", 0)
    seed: int = setting(0, "of all that is random", 0)

    def __post_init__(self):
        # paper does not say: 0.3 is an assumption.
        if self.synthetic is None:
            self.synthetic = 0.3 if self.loss == "robust" else 0.0
        for f in fields(self):
            value, (least, most) = getattr(self, f.name), f.metadata["range"]
            option = "--" + f.name.replace("_", "-")
            if least is not None and not least <= value <= most:
                raise InputError(f"{option} {value} is not a number from {least:g} to {most:g}")


TOY_SETTINGS = {f.name: f.metadata["toy"] for f in fields(Settings) if f.metadata["toy"]}
DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"


# --- A run: questions, model, windows, files -------------------------------------------------
STATE = "state.pt"
RUN_FILES = *FILES, "tokenizer_config.json", "settings.json", "metrics.jsonl", "metrics.json", STATE


def train(settings, resume=False, overwrite=False):
    """Train and evaluate; leave a run in settings.out -> model, tokenizer; or InputError."""
    began, out = time.monotonic(), Path(settings.out)
    if RANK == 0:
        check_directory(out, settings, resume, overwrite)
    if resume and (out / "metrics.json").exists():
        print(f"{out}: this run has ended", file=sys.stderr)
        return load_model(out, head_required=True)
    tests, questions = read_tests(settings.eval), read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    questions = add_made_sentences(questions[: settings.limit or None], settings)
    torch.manual_seed(settings.seed)
    if settings.init:
        model, tokenizer = load_model(settings.init, head_bias=settings.head_bias)
    else:
        texts = sorted({text for q in questions for text in (q.question, q.context)})
        model, tokenizer = new_model(texts, settings.max_length)
    if settings.head_bias != 0 and (model.head.bias != settings.head_bias).any():
        print("--head-bias is not used: the head is not new", file=sys.stderr)
    model.config = replace(model.config, loss=settings.loss)
    windows = training_windows(questions, model, tokenizer, settings)
    # What would be refused at the end is refused now.
    windows_of(sum(tests.values(), []), model, tokenizer, settings)
    # Does this call begin the run?
    begins = RANK == 0 and not (resume and (out / "settings.json").exists())
    if begins:
        begin_directory(out, settings, overwrite)
    # If it is unchanged after an error, no step was made.
    before = model.head.weight.detach().clone()
    try:
        log = fit(model, windows, settings, resume)
    except BaseException:
        if begins and not (out / STATE).exists() and torch.equal(model.head.weight.cpu(), before):
            # Without settings.json the directory is free for another run.
            (out / "settings.json").unlink()
        raise
    if RANK == 0:
        save_model(model, tokenizer, out)
        data.write_file(out / "metrics.jsonl", "\n".join(map(json.dumps, log)).encode() + b"\n")
        data.write_file(out / "metrics.json", evaluate(model, tokenizer, tests, settings))
        (out / STATE).unlink()
        print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


def read_tests(paths):
    """Files -> {base name: [Question]}; InputError if two have one name."""
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"of {', '.join(names)} two have one name; rename one")
    return dict(zip(names, map(read_questions, paths)))


def add_made_sentences(questions, settings):
    """Questions with synthetic answers (5.3) and distractors [ours], by the settings' shares."""
    made = (data.synthetic_answer, settings.synthetic), (data.distractor, settings.distractors)
    for make, share in made:
        if share > 0:
            questions = data.add_sentences(questions, share, make, settings.seed)
    return questions


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


def windows_of(questions, model, tokenizer, settings):
    """make_windows, as long as the settings and the model allow."""
    limits = min(settings.max_length, model.max_length), settings.stride
    return data.make_windows(questions, tokenizer, *limits, model.config.question_overlap)


def load_run(directory_or_id, **given):
    """A run or another checkpoint -> model, tokenizer, Settings to decode it as it was trained.

    A setting is what is given, else what settings.json has, else the default; the loss, without
    settings.json, what config.json has, else "default". InputError if a file cannot be used.
    """
    directory = find_checkpoint(directory_or_id)
    model, tokenizer = load_model(directory, head_required=True)
    stored = {"loss": model.config.loss or "default"} | stored_settings(directory)
    with refusing(directory / "settings.json"):
        settings = Settings(**{name: stored[name] for name in DECODING if name in stored})
    return model, tokenizer, replace(settings, **given)


def check_directory(out, settings, resume, overwrite):
    """InputError if `out` holds a run that must be kept, or another than --resume wants."""
    if not math.isfinite(settings.threshold):
        raise InputError("--threshold must be finite in train")
    if settings.init and Path(settings.init).resolve() == out.resolve():
        raise InputError(f"--out {out} is what --init reads; give another")
    if overwrite or not any((out / name).exists() for name in RUN_FILES):
        return
    if not resume:
        raise InputError(f"{out} holds a run; give --resume, --overwrite or another --out")
    stored = stored_settings(out)
    for name, value in json.loads(json.dumps(asdict(settings))).items():
        if name != "out" and stored.get(name) != value:
            raise InputError(f"{out} was begun with another {name}; give it or --overwrite")


def begin_directory(out, settings, overwrite):
    """Write settings.json of a new run, in the place of an older run if overwrite."""
    with refusing(f"{out} cannot be used; give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        for name in RUN_FILES if overwrite else ():
            (out / name).unlink(missing_ok=True)
        # Of two runs that start together one can.
        with open(out / "settings.json", "x", encoding="utf-8") as file:
            json.dump(asdict(settings), file, indent=2)


def stored_settings(directory):
    """What settings.json of a directory holds; nothing where there is none."""
    file = Path(directory, "settings.json")
    with refusing(file):
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def fingerprint(windows):
    """A digest of all that the windows hold for a training."""
    digest = hashlib.sha256()
    for w in windows:
        digest.update(w.input_ids.tobytes() + w.segment_ids.tobytes() + w.golds.tobytes())
    return digest.hexdigest()


def save_state(file, trained_on, model, optimizer, step, log):
    """Write all that a resumed training goes on from."""
    tensors = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state = {"windows": trained_on, "step": step, "log": log, **tensors}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data.write_file(file, buffer.getvalue())


def load_state(file, trained_on, model, optimizer):
    """Take up what save_state wrote -> steps done, logged lines; or InputError."""
    with refusing(f"{file} cannot be resumed; give --overwrite"):
        state = torch.load(file, DEVICE, weights_only=True)
        if state["windows"] != trained_on:
            raise ValueError("the training data has changed")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["log"]


# --- Several processes, by torchrun: each computes parts of a batch --------------------------


def start_processes():
    if WORLD > 1 and DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if WORLD > 1:
        torch.distributed.init_process_group("nccl" if DEVICE == "cuda" else "gloo")


def parts_of_this_process(batch, accumulate):
    """Of a batch in WORLD * accumulate parts of about equal size, those of this process."""
    parts = np.array_split(np.arange(len(batch)), WORLD * accumulate)
    return [[batch[i] for i in part] for part in parts[RANK::WORLD] if len(part) > 0]


def sum_over_processes(loss, model):
    """Add up a loss and the gradients of all processes, in place."""
    if WORLD == 1:
        return
    torch.distributed.all_reduce(loss)
    for weight in model.parameters():
        # This process had no part.
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        torch.distributed.all_reduce(weight.grad)


# --- Evaluation ------------------------------------------------------------------------------
COLUMNS = "total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1", "before"
NO_ANSWER = "(no answer)"


def evaluate(model, tokenizer, tests, settings, attacks=()):
    """Print scores of {name: [Question]} and attacked versions, then mistakes -> {name: scores}."""
    columns = COLUMNS if attacks else COLUMNS[:-1]
    print(" " * 44 + "".join(f"{column:>10}" for column in columns))
    all_scores, mistakes = {}, []
    for name, original in tests.items():
        for kind in ("", *attacks):
            title = f"{name} + {kind}" if kind else name
            questions = data.attack(original, kind) if kind else original
            with one_thread_if_small(model):
                found, spans, no_answer = predict(model, tokenizer, questions, settings)
            scores = squad_scores(questions, spans, no_answer, settings.threshold)
            all_scores[title] = scores
            if not kind:
                # The answers before the attacks.
                answers = found
                mistakes = mistakes or [(q, found[q.id]) for q in questions if is_wrong(q, found)]
            elif questions and kind != "information-seeking":
                # Not there, since its questions are new.
                before = {q.id: answers[q.id] for q in questions}
                scores["before"] = squad_scores(questions, before)["f1"]
            cells = [scores.get(column, "-") for column in columns]
            cells = [f"{cell:.1f}" if isinstance(cell, float) else cell for cell in cells]
            print(f"{title:44}" + "".join(f"{cell:>10}" for cell in cells))
    for q, answer in mistakes[:: len(mistakes) // 5 + 1]:
        golds = " / ".join(dict.fromkeys(gold.text for gold in q.answers)) or NO_ANSWER
        print(f"\nwrong: {q.question}\n  gold {golds}, predicted {answer or NO_ANSWER}")
    return all_scores


def is_wrong(question, answers):
    return squad_scores([question], {question.id: answers[question.id]})["exact"] == 0


# --- Commands --------------------------------------------------------------------------------


def parse(arguments):
    """The command line -> its own arguments, and the settings that were given."""
    parser = argparse.ArgumentParser(description="Robust extractive QA.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train a model", allow_abbrev=False)
    either = training.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with a run")
    either.add_argument("--overwrite", action="store_true", help="replace a run")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model", help="checkpoint or Hub id")
    for f in fields(Settings):
        shown = {None: "robust 0.3, default 0", "": "none", (): "none"}.get(f.default, f.default)
        if f.name in TOY_SETTINGS:
            shown = f"{shown}; toy: {TOY_SETTINGS[f.name]}"
        option, text = "--" + f.name.replace("_", "-"), f.metadata["help"]
        more = {"type": f.type, "default": argparse.SUPPRESS, **f.metadata["more"]}
        training.add_argument(option, help=f"{text} (default: {shown})", **more)
        if f.name in DECODING:
            shared.add_argument(option, help=f"{text} (default: the run's)", **more)
    scoring = commands.add_parser("evaluate", help="score a model", parents=[shared])
    scoring.add_argument("files", nargs="+", help="files or toy names")
    scoring.add_argument("--attack", nargs="+", default=(), choices=ATTACKS, help="attacks")
    scoring.add_argument("--output", help="file for the scores")
    answering = commands.add_parser("predict", help="write answers", parents=[shared])
    answering.add_argument("file", help="file or toy name")
    answering.add_argument("--output", required=True, help="file for the answers")
    answering.add_argument("--scores", help="file for no-answer scores")
    asking = commands.add_parser("ask", help="answer a question", parents=[shared])
    asking.add_argument("--context", required=True, help="text to search")
    asking.add_argument("--question", required=True, help="what to find in it")
    own = vars(parser.parse_args(arguments))
    given = {f.name: own.pop(f.name) for f in fields(Settings) if f.name in own}
    return argparse.Namespace(**own), given


def run_train(own, given):
    if given.get("train", "toy-train") == "toy-train" and "init" not in given:
        plain = not {"train", "out"} & given.keys() and not own.resume
        given = TOY_SETTINGS | given
        if plain and stored_settings("runs/toy").get("train") == "toy-train":
            print("runs/toy: the earlier run is replaced", file=sys.stderr)
            own.overwrite = True
    elif "out" not in given:
        raise InputError("--out is missing; name a directory")
    train(Settings(**given), own.resume, own.overwrite)


def run_evaluate(own, given):
    check_outputs([own.output], own.files, own.model)
    tests = read_tests(own.files)
    model, tokenizer, settings = load_run(own.model, **given)
    scores = evaluate(model, tokenizer, tests, settings, own.attack)
    if own.output is not None:
        data.write_file(own.output, scores)


def run_predict(own, given):
    check_outputs([own.output, own.scores], [own.file], own.model)
    questions = read_questions(own.file, labelled=False)
    model, tokenizer, settings = load_run(own.model, **given)
    with one_thread_if_small(model):
        answers, _, no_answer = predict(model, tokenizer, questions, settings)
    data.write_file(own.output, answers)
    if own.scores is not None:
        data.write_file(own.scores, no_answer)


def run_ask(own, given):
    with refusing("--context and --question"):
        question = Question("asked", own.question, own.context, [])
    model, tokenizer, settings = load_run(own.model, **given)
    with one_thread_if_small(model):
        answers, spans, no_answer = predict(model, tokenizer, [question], settings)
    margin = no_answer["asked"] - settings.threshold
    print(answers["asked"] or NO_ANSWER)
    print(f"best span: {spans['asked'] or 'none, the context has no words'}")
    print(f'"no answer" {"wins" if margin > 0 else "loses"} by {abs(margin):.2f}')


def check_outputs(outputs, inputs, run):
    """InputError, before the work, if an output cannot be written or is a file that must stay."""
    taken = {os.path.realpath(path) for path in (*inputs, *(Path(run, name) for name in RUN_FILES))}
    for path in [Path(output) for output in outputs if output is not None]:
        real = os.path.realpath(path)
        if real in taken:
            raise InputError(f"{path} is read or written already; name another")
        with refusing(f"{path} cannot be written; name another"):
            if path.is_dir():
                raise ValueError("it is a directory")
            # Else it is a device or a named pipe.
            if path.is_file() or not path.exists():
                taken.add(real)
                folder = next(p for p in Path(real).parents if p.exists())
                tempfile.TemporaryFile(dir=folder).close()


def main(arguments=None):
    """A command line, that of the program if None; SystemExit 2 for what a user can mend."""
    # A letter that the console lacks becomes "?"; a notebook's output has no such method.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    own, given = parse(arguments)
    run = {"train": run_train, "evaluate": run_evaluate, "predict": run_predict, "ask": run_ask}
    try:
        run[own.command](own, given)
    except InputError as error:
        # Once, where all processes see it.
        if WORLD == 1 or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        advice = "; --resume goes on from there" if own.command == "train" else ""
        print("interrupted" + advice, file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
