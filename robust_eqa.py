"""Robust extractive question answering: the losses, the decoder, the scores, and the commands.

    python robust_eqa.py train        a small model on a generated corpus, in a minute or two
    python robust_eqa.py --help       everything else

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
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import trainers
from tqdm import tqdm

from data import (
    ATTACKS,
    InputError,
    Question,
    add_synthetic_answers,
    attack,
    length_bucketed,
    make_windows,
    read_questions,
    say,
    some_ids,
    write_file,
    write_questions,
)
from model import Config, QAModel, load_model, save_model, wordpiece_tokenizer, WORDPIECE_SPECIALS

# --- Losses ----------------------------------------------------------------------------------
#
# mask (B, T) marks the positions that count. paper: the authors' code lets padding count, up to
# 384 positions. here: padding is masked, since a loss should not depend on a batch's longest
# window; an all-ones mask gives the authors' variant.


def default_loss(start_logits, end_logits, start_positions, end_positions, mask):
    """(CE(s) + CE(e)) / 2, mean over the batch; position 0 stands for "no answer here" (sec. 2).

    (B, T) x2, (B,) int64 x2, (B, T) bool -> scalar. This is what the paper argues against: [CLS]
    becomes a hidden answer.
    """
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, -math.inf)  # (2, B, T)
    positions = torch.stack([start_positions, end_positions])  # (2, B)
    return F.cross_entropy(logits.flatten(0, 1), positions.flatten())


def qa_loss(start_logits, end_logits, start_labels, end_labels, mask):
    """Cross entropy with 1/k on each of k labelled positions, or 1/n on all n if none (sec. 5.2).

    (B, T) x5 -> scalar: mean of start and end, and over the batch.

    >>> logits, none = torch.zeros(1, 4), torch.zeros(1, 4)
    >>> round(qa_loss(logits, logits, none, none, none == 0).item(), 4)  # log 4: already uniform
    1.3863
    """
    logits = torch.stack([start_logits, end_logits]).masked_fill(
        ~mask, torch.finfo(start_logits.dtype).min
    )
    labels = torch.stack([start_labels, end_labels]).to(logits) * mask  # (2, B, T)
    targets = torch.where(labels.any(-1, keepdim=True), labels, mask.to(logits))
    targets = targets / targets.sum(-1, keepdim=True)
    log_probabilities = logits.log_softmax(-1).masked_fill(~mask, 0)  # no 0 * -inf
    return -(targets * log_probabilities).sum(-1).mean()


def tagging_loss(start_logits, end_logits, start_labels, end_labels, mask, positive_weight=2.0):
    """Binary cross entropy of every position, summed over positions (sec. 5.2).

    (B, T) x5 -> scalar: mean of start and end, and over the batch.
    paper: also summed over the batch. here: mean over the batch, so that the learning rate does
    not depend on its size.
    """
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, 0)
    labels = torch.stack([start_labels, end_labels]).to(logits)
    losses = F.binary_cross_entropy_with_logits(
        logits, labels, reduction="none", pos_weight=logits.new_tensor(positive_weight)
    )
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
    """qa_weight * qa_loss + tagging_weight * tagging_loss (sec. 5.2).

    paper does not say: the weights 2, 1 and 2 are those of the authors' code.
    """
    arguments = start_logits, end_logits, start_labels, end_labels, mask
    return qa_weight * qa_loss(*arguments) + tagging_weight * tagging_loss(
        *arguments, positive_weight
    )


# --- Decoder ---------------------------------------------------------------------------------

NO_SPAN = -1e30  # the score of a window without context tokens


def best_spans(start_logits, end_logits, context_mask, max_answer_length):
    """The span i <= j < i + max_answer_length with the greatest start[i] + end[j], per window.

    (B, T) x2, (B, T) bool -> scores (B,), starts (B,), ends (B,). Exact; ties go to the earliest
    start, then the earliest end. A window without context tokens scores NO_SPAN.

    >>> score, start, end = best_spans(torch.tensor([[9., 1., 2.]]), torch.tensor([[9., 3., 0.]]),
    ...                                torch.tensor([[False, True, True]]), 2)
    >>> score.item(), start.item(), end.item()
    (4.0, 1, 1)
    """
    start, end = (
        x.double().masked_fill(~context_mask, -math.inf) for x in (start_logits, end_logits)
    )
    length = max(1, min(max_answer_length, end.shape[1]))
    end = F.pad(end, (0, length - 1), value=-math.inf)
    best_end, ends = F.max_pool1d(end[:, None], length, stride=1, return_indices=True)  # (B, 1, T)
    scores, starts = (start + best_end[:, 0]).max(-1)
    ends = ends[:, 0].gather(1, starts[:, None])[:, 0]
    return scores.clamp(min=NO_SPAN).to(start_logits.dtype), starts, ends


@torch.inference_mode()
def predict(model, windows, loss, max_answer_length):
    """The best span of every question and how much speaks against answering.

    -> {id: text}, {id: no-answer score}. The robust score is minus the best span's (a span must
    score above 0 to be an answer, sec. 5.2); the default one is the null score, the least
    start[0] + end[0] of the question's windows, minus the best span's (sec. 2).
    """
    device = next(model.parameters()).device
    scores, nulls = np.zeros((2, len(windows)))
    spans = np.zeros((2, len(windows)), int)
    order = np.argsort(-windows.lengths, kind="stable")
    with tqdm(total=len(order), unit=" windows", desc="predict", disable=None, leave=False) as bar:
        for k in range(0, len(order), 32):
            indices = order[k : k + 32]
            batch = to_device(windows.batch(indices), device)
            with autocast(model):
                start, end = model(batch.input_ids, batch.segment_ids, batch.mask)
            best = best_spans(start, end, batch.context_mask, max_answer_length)
            scores[indices], spans[0, indices], spans[1, indices] = (x.cpu().numpy() for x in best)
            nulls[indices] = (start[:, 0] + end[:, 0]).cpu().numpy()
            bar.update(len(indices))
    first = np.flatnonzero(np.diff(windows.question_index, prepend=-1))  # window of each question
    best = np.lexsort((-scores, windows.question_index))[first]  # ties: the earliest window
    null = np.minimum.reduceat(nulls, first) if loss == "default" else np.zeros(len(first))
    texts, no_answer = {}, {}
    for i, score, against in zip(best, scores[best].tolist(), null.tolist()):
        key = windows.questions[windows.question_index[i]].id
        texts[key] = windows.text(i, *spans[:, i]) if score > NO_SPAN else ""
        no_answer[key] = against - score
    return texts, no_answer


def blank(texts, no_answer_scores, threshold):
    """Texts with "" where the no-answer score lies above the threshold (sec. 5.2: 0, untuned)."""
    return {k: "" if no_answer_scores[k] > threshold else text for k, text in texts.items()}


# --- Scores: the official SQuAD 2.0 script's -------------------------------------------------


def normalize_answer(text):
    """Lower case, without ASCII punctuation, articles and surplus space.

    >>> normalize_answer("The  Queen's, a «crown»")
    'queens «crown»'
    """
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction, gold):
    """1.0 if the normalised texts are equal, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def token_f1(prediction, gold):
    """F1 of the normalised texts as bags of words; with an empty one, 1.0 only if both are.

    >>> token_f1("the blue house", "a house"), token_f1("", "the"), token_f1("", "x")
    (0.6666666666666666, 1.0, 0.0)
    """
    ours, theirs = normalize_answer(prediction).split(), normalize_answer(gold).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs or not common:
        return float(ours == theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def question_scores(question, prediction):
    """(exact, f1) against the gold that fits best; "" is the only gold of an unanswerable one."""
    golds = [a.text for a in question.answers if normalize_answer(a.text)] or [""]
    return max(exact_match(prediction, g) for g in golds), max(
        token_f1(prediction, g) for g in golds
    )


def squad_scores(questions, predictions, no_answer_scores=None, threshold=1.0):
    """The official script's numbers, in per cent, under its keys.

    Where no-answer scores are given, predictions are unblanked spans: one whose score exceeds the
    threshold (1.0, as there) counts as empty, and best_* report the best threshold in hindsight.
    Raises InputError unless predictions and scores are for exactly these questions.
    """
    ids = {question.id for question in questions}
    for what, found in (("prediction", predictions), ("no-answer score", no_answer_scores)):
        if found is not None and ids ^ found.keys():
            problem = "has no" if ids - found.keys() else "is unknown but has a"
            odd = sorted(ids - found.keys() or found.keys() - ids)
            raise InputError(f"a question {problem} {what} {some_ids(odd)}; score the same file")
    answerable = {question.id: bool(question.answers) for question in questions}
    raw = {q.id: question_scores(q, predictions[q.id]) for q in questions}
    final = dict(raw)
    for key, score in (no_answer_scores or {}).items():
        if score > threshold:
            final[key] = (float(not answerable[key]),) * 2
    result = {}
    for prefix, keys in (
        ("", list(answerable)),
        ("HasAns_", [k for k in answerable if answerable[k]]),
        ("NoAns_", [k for k in answerable if not answerable[k]]),
    ):
        if keys:
            for n, name in enumerate(("exact", "f1")):
                result[prefix + name] = 100 * sum(final[k][n] for k in keys) / len(keys)
            result[prefix + "total"] = len(keys)
    if no_answer_scores is not None:
        order = sorted(no_answer_scores, key=no_answer_scores.get)
        for n, name in enumerate(("exact", "f1")):
            # From "all empty", answer one question more at a time, the surest first.
            current = best = len(keys) if keys else 0
            where = 0.0
            for key in order:
                current += raw[key][n] if answerable[key] else -bool(predictions[key])
                if current > best:
                    best, where = current, no_answer_scores[key]
            result |= {f"best_{name}": 100 * best / len(raw), f"best_{name}_thresh": where}
    return result


# --- Training --------------------------------------------------------------------------------


def setting(default, text, low=0, high=math.inf, choices=None):
    about = {"help": text, "range": (low, high), "choices": choices}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """What a run depends on; the command line is made from it. Sources in brackets."""

    train: str = setting("toy-train", "SQuAD file or name to train on")
    eval: tuple = setting((), "SQuAD files or names to evaluate on")
    init: str = setting("", "checkpoint directory or Hub id to start from; none: small, random")
    out: str = setting("runs/toy", "run directory")
    loss: str = setting("robust", "the paper's or the usual one", choices=["robust", "default"])
    # paper does not say: the share and the making of synthetic answers.
    synthetic: float = setting(
        None,
        "share of answerable questions given a synthetic answer; "
        "if not set, 0.3 for robust and 0 for default",
        0,
        1,
    )
    synthetic_kind: str = setting(
        "mixed", "how they are made", choices=["evidence", "template", "mixed"]
    )
    qa_weight: float = setting(2.0, "weight of the QA loss [authors' code]")
    tagging_weight: float = setting(1.0, "weight of the tagging loss [authors' code]")
    positive_weight: float = setting(2.0, "weight of labelled positions in it [authors' code]")
    threshold: float = setting(
        0.0, "no-answer score above which an answer is empty [5.2]", -math.inf
    )
    max_length: int = setting(384, "tokens in a window [authors' scripts]", 8)
    stride: int = setting(128, "tokens that neighbouring windows share [authors' scripts]")
    max_answer_length: int = setting(128, "tokens in an answer [authors' scripts]", 1)
    batch_size: int = setting(16, "windows in a batch [authors' scripts; the paper: 8]", 1)
    lr: float = setting(2e-5, "peak learning rate [authors' scripts]", 0, 1)
    epochs: float = setting(3.0, "passes over the training windows [authors' scripts]", 0, 1000)
    warmup: int = setting(0, "steps of linear warm-up [authors' scripts: none]")
    limit: int = setting(0, "train on the first N questions after the seeded shuffle; 0: all")
    eval_every: int = setting(0, "also evaluate every N steps; 0: at the end only")
    seed: int = setting(0, "of weights, order, dropout and synthetic answers", 0, 2**32 - 1)


# The toy run: a small encoder, from random weights, on short contexts.
TOY_SETTINGS = {
    "eval": ("toy-dev", "toy-information-seeking", "toy-addonesent", "toy-negation"),
    "batch_size": 64,
    "lr": 2e-3,
    "warmup": 100,
    "epochs": 6.0,
    "max_length": 128,
    "stride": 32,
    "max_answer_length": 16,
}


def to_device(batch, device):
    return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in batch))


def autocast(model):
    """bfloat16 matrix products where the processor has them and the model is wide enough to gain."""
    device = next(model.parameters()).device.type
    fast = device == "cuda" or torch.cpu._is_amx_tile_supported()
    return (
        torch.autocast(device, torch.bfloat16)
        if fast and model.config.hidden_size >= 256
        else nullcontext()
    )


def new_model(questions, settings):
    """A small random encoder and a WordPiece tokenizer trained on the spot; see toy_corpus.

    Matching a name across the text does not emerge from random weights in minutes, so context
    tokens that the question holds get a segment of their own (the exact-match feature of DrQA,
    Chen et al. 2017). Pretrained checkpoints do not need it.
    """
    tokenizer = wordpiece_tokenizer({token: k for k, token in enumerate(WORDPIECE_SPECIALS)}, True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=WORDPIECE_SPECIALS, show_progress=False
    )
    texts = sorted({text for q in questions for text in (q.question, q.context)})
    tokenizer.train_from_iterator(texts, trainer)
    config = Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=settings.max_length,
        type_vocab_size=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        question_overlap=True,
    )
    return QAModel(config), tokenizer


def evaluate(model, tokenizer, questions, settings):
    """-> official scores, final predictions {id: text}, no-answer scores {id: float}."""
    windows = windows_for(model, tokenizer, questions, settings)
    texts, no_answer = predict(model.eval(), windows, settings.loss, settings.max_answer_length)
    scores = squad_scores(questions, texts, no_answer, settings.threshold)
    return scores, blank(texts, no_answer, settings.threshold), texts, no_answer


def windows_for(model, tokenizer, questions, settings):
    if settings.max_length > model.max_length:
        raise InputError(
            f"--max-length {settings.max_length}: the model ends at {model.max_length}"
        )
    overlap = model.config.question_overlap
    return make_windows(questions, tokenizer, settings.max_length, settings.stride, overlap)


def loss_of(start, end, batch, settings):
    """The loss that the settings name, of a batch's logits."""
    if settings.loss == "default":
        return default_loss(start, end, batch.start_positions, batch.end_positions, batch.mask)
    weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
    return robust_loss(start, end, batch.start_labels, batch.end_labels, batch.mask, *weights)


def train(settings, resume=False):
    """Train, evaluate, and leave a run directory: checkpoint, settings, metrics -> model, tokenizer.

    metrics.jsonl has a line per logged step, metrics.json the final scores of every --eval file.
    """
    out, device = Path(settings.out), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tests = {name: read_questions(name) for name in settings.eval}
    questions = read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    questions = questions[: settings.limit or None]
    questions = add_synthetic_answers(
        questions, settings.synthetic, settings.seed, settings.synthetic_kind
    )
    torch.manual_seed(settings.seed)
    model, tokenizer = (
        load_model(settings.init) if settings.init else new_model(questions, settings)
    )
    model.to(device)
    windows = windows_for(model, tokenizer, questions, settings)
    lost = [q.id for q, golds in zip(questions, windows.golds) if (golds < 0).any()]
    if lost:
        say(f"{len(lost)} questions have an answer not in their context; left out {some_ids(lost)}")
    lost = set(lost)
    usable = np.array([questions[q].id not in lost for q in windows.question_index])
    usable = np.flatnonzero(usable)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=0.0, fused=True)
    per_epoch = math.ceil(len(usable) / settings.batch_size)
    total = max(1, round(settings.epochs * per_epoch))
    first = load_state(out, model, optimizer, settings) if resume else 0
    write_file(out / "settings.json", json.dumps(asdict(settings), indent=2).encode())
    log, order, began = [], None, time.monotonic()
    if resume and (out / "metrics.jsonl").exists():
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        log = [line for line in lines if line["step"] <= first]
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"training on {len(usable)} windows of {len(questions)} questions, {total} steps of "
        f"{settings.batch_size}; {parameters / 1e6:.1f} M parameters, {settings.loss} loss, {device}"
    )
    bar = tqdm(total=total, initial=first, unit=" steps", desc="train", disable=None)
    for step in range(first, total):
        epoch, k = divmod(step, per_epoch)
        if order is None or k == 0:
            rng = np.random.default_rng([settings.seed, epoch])
            order = length_bucketed(windows.lengths[usable], settings.batch_size, rng)
        batch = to_device(windows.batch(usable[order[k]]), device)
        warm = min(1.0, (step + 1) / (settings.warmup + 1))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * warm * (1 - step / total)
        model.train()
        with autocast(model):
            start, end = model(batch.input_ids, batch.segment_ids, batch.mask)
        loss = loss_of(start, end, batch, settings)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.update()
        done = step + 1
        evaluating = done < total and settings.eval_every and done % settings.eval_every == 0
        if done % 50 == 0 or done == total or evaluating:
            value = loss.item()
            if not math.isfinite(value):
                raise InputError(
                    f"the loss is {value} at step {done}; lower --lr and go on with --resume"
                )
            bar.set_postfix(loss=f"{value:.3f}")
            seconds = round(time.monotonic() - began, 1)
            log.append(
                {"step": done, "loss": value, "gradient_norm": norm.item(), "seconds": seconds}
            )
        if evaluating:
            for name, test in tests.items():
                log.append(
                    {"step": done, "eval": name} | evaluate(model, tokenizer, test, settings)[0]
                )
        if done % 500 == 0 or evaluating or done == total:
            write_file(out / "metrics.jsonl", "".join(json.dumps(x) + "\n" for x in log).encode())
            if done < total:
                save_state(out, model, optimizer, settings, done)
    bar.close()
    save_model(model, tokenizer, out)
    (out / STATE).unlink(missing_ok=True)
    results = {name: evaluate(model, tokenizer, test, settings) for name, test in tests.items()}
    metrics = {name: result[0] for name, result in results.items()}
    write_file(out / "metrics.json", json.dumps(metrics, indent=2).encode())
    print(score_table(metrics))
    for name, test in list(tests.items())[:1]:
        print(f"\nMistakes on {name}:\n{mistakes(test, results[name][1])}")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


STATE = "state.safetensors"


def save_state(out, model, optimizer, settings, step):
    """All that training depends on, in one file, so that a kill leaves the old or the new state."""
    tensors = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        tensors["model." + name] = parameter.detach()
        for key, moment in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = moment
    about = {"step": str(step), "settings": json.dumps(asdict(settings))}
    write_file(out / STATE, save(tensors, about))


def load_state(out, model, optimizer, settings):
    """Put the last saved state back -> the number of steps done."""
    try:
        with safe_open(out / STATE, "pt") as file:
            about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{out / STATE}: cannot be resumed from ({error}); start anew") from None
    before, now = json.loads(about["settings"]), json.loads(json.dumps(asdict(settings)))
    changed = [key for key in now if now[key] != before.get(key)]
    if changed:
        raise InputError(f"{out}: cannot be resumed with other settings than before: {changed}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors["model." + name])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                moment = tensors[f"{key}.{name}"]
                optimizer.state[parameter][key] = (
                    moment.to(parameter.device) if key != "step" else moment
                )
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return int(about["step"])


def score_table(metrics):
    """{name: official scores} as text."""
    columns = ("total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1")
    lines = [f"{'':32}" + "".join(f"{column:>11}" for column in columns)]
    for name, scores in metrics.items():
        cells = [scores.get(column) for column in columns]
        cells = ["-" if c is None else str(c) if type(c) is int else f"{c:.1f}" for c in cells]
        lines.append(f"{Path(name).name:32}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def mistakes(questions, predictions, most=5):
    """At most five wrong answers in words."""
    wrong = [q for q in questions if question_scores(q, predictions[q.id])[0] < 1]
    lines = []
    for q in wrong[:: max(1, len(wrong) // most)][:most]:
        golds = " / ".join(dict.fromkeys(a.text for a in q.answers)) or "(no answer)"
        lines.append(
            f"  {q.question}\n    gold {golds} | predicted {predictions[q.id] or '(no answer)'}"
        )
    return "\n".join(lines) or "  none"


# --- Commands --------------------------------------------------------------------------------


def compare(settings, seeds, resume):
    """Train with the default and the robust loss from the same seeds and print one table.

    Every test set and both attacks on the first one: F1 (HasAns / NoAns) as mean ± standard
    deviation over the seeds; the F1 that an attack costs; robust's cost as a share of default's.
    """
    tests = {name: read_questions(name) for name in settings.eval}
    first = settings.eval[0]
    tests |= {kind: attack(tests[first], kind) for kind in ATTACKS}
    originals = {question.id: question for question in tests[first]}
    results = {}  # loss -> row -> column -> a value per seed
    for loss, seed in itertools.product(("default", "robust"), range(seeds)):
        share = 0.0 if loss == "default" else settings.synthetic
        out, seed = str(Path(settings.out) / f"{loss}-{seed}"), settings.seed + seed
        run = replace(settings, loss=loss, seed=seed, out=out, synthetic=share, eval=())
        say(f"\n{loss} loss, seed {seed}")
        if resume and (Path(out) / "metrics.json").exists():
            model, tokenizer = load_model(out, head_required=True)
        else:
            model, tokenizer = train(run, resume and (Path(out) / STATE).exists())
        finals, rows = {}, results.setdefault(loss, {})
        for name, test in tests.items():
            scores, finals[name], *_ = evaluate(model, tokenizer, test, run)
            for column in ("f1", "HasAns_f1", "NoAns_f1"):
                if column in scores:
                    values = rows.setdefault(name, {}).setdefault(column, [])
                    values.append(scores[column])
        for kind in ATTACKS:
            attacked = [question_scores(q, finals[kind][q.id])[1] for q in tests[kind]]
            before = [question_scores(originals[q.id], finals[first][q.id])[1] for q in tests[kind]]
            cost = 100 * (np.mean(before) - np.mean(attacked))
            rows.setdefault(f"{kind} drop", {}).setdefault("f1", []).append(cost)
    write_file(Path(settings.out) / "compare.json", json.dumps(results, indent=2).encode())
    print(f"{'F1 (HasAns / NoAns), ' + str(seeds) + ' seeds':36}{'default':>34}{'robust':>34}")
    for row, columns in results["default"].items():
        cells = []
        for rows in results.values():
            numbers = [f"{np.mean(v):.1f} ± {np.std(v):.1f}" for v in rows[row].values()]
            cells.append(numbers[0] + (f" ({' / '.join(numbers[1:])})" if numbers[1:] else ""))
        print(f"{Path(row).name:36}" + "".join(f"{cell:>34}" for cell in cells))
    for kind in ATTACKS:
        drops = [np.mean(rows[f"{kind} drop"]["f1"]) for rows in results.values()]
        ratio = f"{drops[1] / drops[0]:.2f}" if drops[0] >= 3 else "- (default drops less than 3)"
        print(f"{kind + ' drop, robust / default':36}{ratio:>68}")


def stored_settings(directory, given):
    """The settings a checkpoint was trained with, where it says so, under those now given."""
    path = Path(directory) / "settings.json"
    stored = {"loss": "default"}
    if path.exists():
        try:
            found = json.loads(path.read_text("utf-8"))
            stored = {key: found[key] for key in DECODING if key in found}
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); repair or remove it") from None
    return make_settings(stored | given)


DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"


def make_settings(given):
    """Given options over the defaults, checked."""
    toy = given.get("train", "toy-train") == "toy-train" and not given.get("init")
    settings = Settings(**((TOY_SETTINGS if toy else {}) | given))
    if settings.synthetic is None:
        settings = replace(settings, synthetic=0.3 if settings.loss == "robust" else 0.0)
    for f in fields(Settings):
        value, (low, high) = getattr(settings, f.name), f.metadata["range"]
        if f.type in (int, float) and not low <= value <= high:
            raise InputError(f"{flag(f.name)} {value} is not between {low:g} and {high:g}")
    return replace(settings, eval=tuple(settings.eval))


def flag(name):
    return "--" + name.replace("_", "-")


def argument_parser():
    parser = argparse.ArgumentParser(description="Robust extractive question answering.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, text, names, *positional):
        sub = commands.add_parser(name, help=text, description=text)
        for argument in positional:
            many = {"nargs": "+", "metavar": "FILE"} if argument == "files" else {}
            sub.add_argument(argument, **many)
        for f in fields(Settings):
            if f.name in names:
                kind = {"nargs": "+"} if f.type is tuple else {"type": f.type}
                text = f"{f.metadata['help']} (default: {f.default})"
                options = kind | {"choices": f.metadata["choices"], "default": argparse.SUPPRESS}
                sub.add_argument(flag(f.name), help=text, **options)
        return sub

    everything = [f.name for f in fields(Settings)]
    train = command("train", "train a model and evaluate it", everything)
    both = command("compare", "train default and robust side by side", everything)
    both.add_argument("--seeds", type=int, default=3, help="runs of each loss (default: 3)")
    for sub in train, both:
        sub.add_argument("--resume", action="store_true", help="go on where an earlier run ended")
        sub.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    command("evaluate", "score a model on files", DECODING, "model", "files")
    sub = command("predict", "write a model's answers", DECODING, "model", "file")
    sub.add_argument(
        "--output", required=True, help="{id: text} JSON, as the official script wants"
    )
    sub.add_argument("--scores", help="{id: no-answer score} JSON, for its --na-prob-file")
    sub = command("ask", "answer one question", DECODING, "model")
    sub.add_argument("--context", required=True)
    sub.add_argument("--question", required=True)
    names = "synthetic", "synthetic_kind", "seed"
    sub = command("augment", "add synthetic answers to a file", names, "file")
    sub.add_argument("--output", required=True, help="SQuAD v2.0 JSON")
    sub = command("attack", "write the attacked version of a file", ("seed",), "file")
    sub.add_argument("--kind", required=True, choices=[*ATTACKS, "information-seeking"])
    sub.add_argument("--output", required=True, help="SQuAD v2.0 JSON")
    return parser


def run_command(command, given):
    """One command with its options."""
    ours = {f.name: given.pop(f.name) for f in fields(Settings) if f.name in given}
    if command in ("train", "compare"):
        settings = make_settings(ours)
        toy = settings.train == "toy-train" and "out" not in ours
        used = any(
            (Path(settings.out) / name).exists() for name in ("settings.json", "compare.json")
        )
        if used and not (given["resume"] or given["overwrite"] or toy):
            raise InputError(f"{settings.out}: holds a run; add --resume, --overwrite or --out")
        if command == "compare":
            compare(
                replace(settings, eval=settings.eval[:2] if toy else settings.eval),
                given["seeds"],
                given["resume"],
            )
        else:
            train(settings, given["resume"])
    elif command in ("evaluate", "predict", "ask"):
        settings = stored_settings(given["model"], ours)
        model, tokenizer = load_model(given["model"], head_required=True)
        if command == "evaluate":
            tests = {name: read_questions(name) for name in given["files"]}
            print(
                score_table(
                    {n: evaluate(model, tokenizer, t, settings)[0] for n, t in tests.items()}
                )
            )
            return
        if command == "ask":
            questions = [Question("ask", given["question"], given["context"], [])]
        else:
            questions = read_questions(given["file"])
        _, final, _, no_answer = evaluate(model, tokenizer, questions, settings)
        if command == "ask":
            print(final["ask"] or "(no answer)")
            say(f"no-answer score {no_answer['ask']:.2f}, empty above {settings.threshold:g}")
            return
        write_file(given["output"], json.dumps(final, ensure_ascii=False).encode())
        if given["scores"]:
            write_file(given["scores"], json.dumps(no_answer).encode())
        print(
            f"{len(final)} answers, {sum(not t for t in final.values())} of them empty: {given['output']}"
        )
    else:
        questions, settings = read_questions(given["file"]), make_settings(ours)
        if command == "attack":
            changed = attack(questions, given["kind"], settings.seed)
            print(
                f"{len(changed)} of {len(questions)} questions could be attacked: {given['output']}"
            )
        else:
            changed = add_synthetic_answers(
                questions, settings.synthetic, settings.seed, settings.synthetic_kind
            )
            more = sum(len(a.answers) > len(b.answers) for a, b in zip(changed, questions))
            print(f"{more} of {len(questions)} questions got a second answer: {given['output']}")
        write_questions(changed, given["output"])


def main():
    given = vars(argument_parser().parse_args())
    try:
        run_command(given.pop("command"), given)
    except InputError as error:
        say(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
