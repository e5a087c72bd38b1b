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
import safetensors.torch
import torch
import torch.nn.functional as F
from tokenizers import trainers
from tqdm import tqdm

import data
from data import InputError, Question, collate, make_windows, read_questions, write_file
from model import SPECIALS, Config, QAModel, load_model, refusing, save_model, wordpiece_tokenizer

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
def predict(model, tokenizer, questions, settings):
    """The best span of every question, answered or not, and how much speaks against answering.

    -> {id: text}, {id: no-answer score}. The robust score is minus the best span's, so that a span
    must score 0 or more to be an answer (sec. 5.2). The default one is the null score, the least
    start[0] + end[0] of the question's windows, minus the best span's (sec. 2).
    """
    windows = windows_of(questions, model, tokenizer, settings)
    lengths = np.array([len(window) for window in windows])
    order = np.argsort(-lengths, kind="stable")
    scores, nulls, starts, ends = np.zeros((4, len(windows)))
    model.eval()
    bar = tqdm(total=len(order), unit=" windows", desc="predict", disable=None, leave=False)
    for indices in np.split(order, range(32, len(order), 32)):
        batch = collate([windows[i] for i in indices], device_of(model))
        with autocast(model):
            start, end = model(batch.input_ids, batch.segment_ids, batch.mask)
        best = best_spans(start, end, batch.context_mask, settings.max_answer_length)
        scores[indices], starts[indices], ends[indices] = (x.cpu().numpy() for x in best)
        nulls[indices] = (start[:, 0] + end[:, 0]).cpu().numpy()
        bar.update(len(indices))
    bar.close()
    texts, no_answer = {}, {}
    for index, group in itertools.groupby(range(len(windows)), lambda i: windows[i].question_index):
        group = list(group)
        i = max(group, key=lambda i: scores[i])  # ties: the earliest window
        null = min(nulls[group]) if settings.loss == "default" else 0.0
        text = windows[i].text(int(starts[i]), int(ends[i])) if scores[i] > NO_SPAN else ""
        texts[questions[index].id], no_answer[questions[index].id] = text, float(null - scores[i])
    return texts, no_answer


def evaluate(model, tokenizer, questions, settings):
    """-> official scores, answers {id: text}, no-answer scores {id: float}."""
    texts, no_answer = predict(model, tokenizer, questions, settings)
    scores = squad_scores(questions, texts, no_answer, settings.threshold)
    empty = {key for key, score in no_answer.items() if score > settings.threshold}
    return scores, {k: "" if k in empty else text for k, text in texts.items()}, no_answer


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
            raise InputError(f"{problem} {what}: {data.some_ids(odd)}; score the same file")
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
    # paper does not say: the share of synthetic answers.
    synthetic: float = setting(
        None,
        "share of answerable questions with a synthetic answer "
        "(none given: 0.3 for robust, 0 for default)",
        0,
        1,
    )
    synthetic_kind: str = setting("mixed", "of sentence", choices=["evidence", "template", "mixed"])
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

    def __post_init__(self):
        for f in fields(self):
            value, (low, high) = getattr(self, f.name), f.metadata["range"]
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise InputError(f"{flag(f.name)} {value} is not between {low:g} and {high:g}")
        if self.synthetic is None:
            object.__setattr__(self, "synthetic", 0.3 if self.loss == "robust" else 0.0)


DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"
TOY_SETTINGS = {  # a small encoder, from random weights, on short contexts
    "eval": ("toy-dev", "toy-information-seeking", "toy-addonesent", "toy-negation"),
    "batch_size": 64,
    "lr": 2e-3,
    "warmup": 100,
    "epochs": 4.0,
    "max_length": 128,
    "stride": 32,
    "max_answer_length": 16,
}


def device_of(model):
    return next(model.parameters()).device


def autocast(model):
    """bfloat16 matrix products where the processor has them and the model is wide enough to gain."""
    device = device_of(model).type
    fast = device == "cuda" or torch.cpu._is_amx_tile_supported()
    wide = model.config.hidden_size >= 256
    return torch.autocast(device, torch.bfloat16) if fast and wide else nullcontext()


def windows_of(questions, model, tokenizer, settings):
    """make_windows as the settings and the model want it."""
    if settings.max_length > model.max_length:
        raise InputError(
            f"--max-length {settings.max_length}: the model ends at {model.max_length}"
        )
    shape = settings.max_length, settings.stride
    return make_windows(questions, tokenizer, *shape, model.config.question_overlap)


def new_model(questions, settings):
    """A small random encoder and a WordPiece tokenizer trained on the spot.

    Matching a name across the text does not emerge from random weights in minutes. So context
    tokens that the question holds get a segment of their own (the exact-match feature of DrQA,
    Chen et al. 2017), and positions start as sines (Vaswani et al. 2017). Pretrained encoders need
    neither.
    """
    tokenizer = wordpiece_tokenizer({token: k for k, token in enumerate(SPECIALS["bert"])}, True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=SPECIALS["bert"], show_progress=False
    )
    texts = {text for q in questions for text in (q.question, q.context)}
    tokenizer.train_from_iterator(sorted(texts), trainer)
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
        initializer_range=0.1,
        question_overlap=True,
    )
    model = QAModel(config)
    angles = torch.arange(settings.max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


def train(settings, resume=False):
    """Train, evaluate, and leave a run directory: checkpoint, settings, metrics -> model, tokenizer.

    metrics.jsonl has a line per logged step, metrics.json the final scores of every --eval file.
    """
    out, began = Path(settings.out), time.monotonic()
    tests = {name: read_questions(name) for name in settings.eval}
    questions = read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    questions = data.add_synthetic_answers(
        questions[: settings.limit or None],
        settings.synthetic,
        settings.seed,
        settings.synthetic_kind,
    )
    torch.manual_seed(settings.seed)
    model, tokenizer = (
        load_model(settings.init) if settings.init else new_model(questions, settings)
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    windows = windows_of(questions, model, tokenizer, settings)
    lost = dict.fromkeys(w.question.id for w in windows if (w.golds < 0).any())
    if lost:  # all-zero labels would teach that such a question has no answer
        say(f"{data.some_ids(list(lost))} have an answer that is not in the context; left out")
    windows = [window for window in windows if window.question.id not in lost]
    if not windows:
        raise InputError(f"{settings.train}: leaves nothing to train on; give more questions")
    lengths = np.array([len(window) for window in windows])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    per_epoch = math.ceil(len(windows) / settings.batch_size)
    total = max(1, round(settings.epochs * per_epoch))
    first, log = load_state(settings, model, optimizer) if resume else (0, [])
    write_file(out / "settings.json", json.dumps(asdict(settings), indent=2).encode())
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    say(
        f"{settings.loss} loss, {len(windows)} windows of {len(questions)} questions, {total} steps "
        f"of {settings.batch_size}, {millions:.1f} M parameters, {device_of(model).type}"
    )
    bar = tqdm(total=total, initial=first, unit=" steps", desc="train", disable=None)
    for step in range(first, total):
        epoch, k = divmod(step, per_epoch)
        if k == 0 or step == first:
            rng = np.random.default_rng([settings.seed, epoch])
            order = data.length_bucketed(lengths, settings.batch_size, rng)
        batch = collate([windows[i] for i in order[k]], device_of(model))
        warm = min(1.0, (step + 1) / (settings.warmup + 1))
        optimizer.param_groups[0]["lr"] = settings.lr * warm * (1 - step / total)
        model.train()
        with autocast(model):
            logits = model(batch.input_ids, batch.segment_ids, batch.mask)
        if settings.loss == "default":
            loss = default_loss(*logits, batch.start_positions, batch.end_positions, batch.mask)
        else:
            weights = settings.qa_weight, settings.tagging_weight, settings.positive_weight
            loss = robust_loss(*logits, batch.start_labels, batch.end_labels, batch.mask, *weights)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.update()
        done = step + 1
        scoring = settings.eval_every and done % settings.eval_every == 0 and done < total
        if done % 50 == 0 or done == total or scoring:
            line = {"step": done, "loss": loss.item(), "gradient_norm": norm.item()}
            if not math.isfinite(line["loss"]):
                raise InputError(f"the loss is {line['loss']} at step {done}; try a lower --lr")
            log.append(line)
            bar.set_postfix(loss=f"{line['loss']:.3f}")
        for name, test in tests.items() if scoring else ():
            log.append({"step": done, "eval": name} | evaluate(model, tokenizer, test, settings)[0])
        if done % 500 == 0 or done == total or scoring:
            lines = "".join(json.dumps(line) + "\n" for line in log)
            write_file(out / "metrics.jsonl", lines.encode())
            save_state(settings, model, optimizer, done, log)
    bar.close()
    save_model(model, tokenizer, out)
    results = {name: evaluate(model, tokenizer, test, settings) for name, test in tests.items()}
    metrics = {name: scores for name, (scores, *_) in results.items()}
    write_file(out / "metrics.json", json.dumps(metrics, indent=2).encode())
    (out / STATE).unlink(missing_ok=True)
    print(score_table(metrics))
    for name in settings.eval[:1]:
        print(f"\nMistakes on {name}:\n{mistakes(tests[name], results[name][1])}")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


STATE = "state.safetensors"


def save_state(settings, model, optimizer, step, log):
    """All that training depends on, in one file, so that a kill leaves the old or the new state."""
    tensors = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        tensors[f"weight {name}"] = parameter.detach()
        tensors |= {f"{key} {name}": value for key, value in optimizer.state[parameter].items()}
    about = {"settings": asdict(settings), "step": step, "log": log}
    content = safetensors.torch.save(tensors, {"about": json.dumps(about)})
    write_file(Path(settings.out) / STATE, content)


def load_state(settings, model, optimizer):
    """Put the last saved state back -> steps done, log."""
    file = Path(settings.out) / STATE
    with refusing(file), safetensors.safe_open(file, "pt") as state:
        about = json.loads(state.metadata()["about"])
        tensors = {key: state.get_tensor(key) for key in state.keys()}
    for key, now in json.loads(json.dumps(asdict(settings))).items():
        if about["settings"][key] != now:
            before = about["settings"][key]
            raise InputError(f"{file}: resumed with {flag(key)} {now}, begun with {before}")
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"weight {name}"])
        for key in ("step", "exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][key] = tensors[f"{key} {name}"].to(parameter.device)
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return about["step"], about["log"]


# --- Commands --------------------------------------------------------------------------------


def say(message):
    print(message, file=sys.stderr)


def flag(name):
    return "--" + name.replace("_", "-")


def score_table(metrics):
    """{name: official scores} as text."""
    columns = "total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1"
    lines = [" " * 32 + "".join(f"{column:>11}" for column in columns)]
    for name, scores in metrics.items():
        cells = (f"{scores[c]:.{int(c != 'total')}f}" if c in scores else "-" for c in columns)
        lines.append(f"{Path(name).name:32}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def mistakes(questions, answers, most=5):
    """At most five wrong answers in words."""
    wrong = [q for q in questions if question_scores(q, answers[q.id])[0] < 1]
    lines = []
    for q in wrong[:: max(1, len(wrong) // most)][:most]:
        golds = " / ".join(dict.fromkeys(a.text for a in q.answers))
        said = answers[q.id] or "(no answer)"
        lines.append(f"  {q.question}\n    gold: {golds or '(no answer)'}; predicted: {said}")
    return "\n".join(lines) or "  none"


def compare(settings, seeds, resume):
    """Train with the default and the robust loss from the same seeds and print one table.

    Every test set and both attacks on the first one: F1 (HasAns / NoAns) as mean ± standard
    deviation over the seeds, the F1 that an attack costs, and robust's cost as a share of default's.
    """
    tests = {name: read_questions(name) for name in settings.eval}
    base = settings.eval[0]
    tests |= {kind: data.attack(tests[base], kind) for kind in data.ATTACKS}
    results = {}  # "loss/row" -> [numbers of each seed]
    for loss, seed in itertools.product(("default", "robust"), range(seeds)):
        share = 0.0 if loss == "default" else settings.synthetic
        out, seed = str(Path(settings.out) / f"{loss}-{seed}"), settings.seed + seed
        run = replace(settings, loss=loss, seed=seed, out=out, synthetic=share, eval=())
        if resume and (Path(out) / "metrics.json").exists():
            model, tokenizer = load_model(out, head_required=True)
        else:
            model, tokenizer = train(run, resume and (Path(out) / STATE).exists())
        f1 = {}
        for name, test in tests.items():
            scores, answers, _ = evaluate(model, tokenizer, test, run)
            f1[name] = {q.id: 100 * question_scores(q, answers[q.id])[1] for q in test}
            numbers = [scores[k] for k in ("f1", "HasAns_f1", "NoAns_f1") if k in scores]
            results.setdefault(f"{loss}/{name}", []).append(numbers)
        for kind in data.ATTACKS:
            costs = [f1[base][key] - after for key, after in f1[kind].items()]
            results.setdefault(f"{loss}/{kind} drop", []).append([np.mean(costs)])
    write_file(Path(settings.out) / "compare.json", json.dumps(results, indent=2).encode())
    print(f"{f'F1 (HasAns / NoAns), {seeds} seeds':36}{'default':>36}{'robust':>36}")
    for row in [*tests, *(f"{kind} drop" for kind in data.ATTACKS)]:
        line = f"{Path(row).name:36}"
        for loss in ("default", "robust"):
            columns = zip(*results[f"{loss}/{row}"])
            cells = [f"{np.mean(column):.1f} ± {np.std(column):.1f}" for column in columns]
            line += f"{cells[0] + (f' ({chr(47).join(cells[1:])})' if cells[1:] else ''):>36}"
        print(line)
    for kind in data.ATTACKS:
        drops = [np.mean(results[f"{loss}/{kind} drop"]) for loss in ("default", "robust")]
        ratio = (
            f"{drops[1] / drops[0]:.2f}" if drops[0] >= 3 else "- (default drops by less than 3)"
        )
        print(f"{kind + ' drop, robust / default':36}{ratio:>72}")


COMMANDS = {  # name: (help, settings, own arguments)
    "train": ("train a model and evaluate it", "", ["--resume", "--overwrite"]),
    "compare": (
        "train default and robust side by side",
        "",
        ["--resume", "--overwrite", "--seeds"],
    ),
    "evaluate": ("score a model on files", DECODING, ["model", "files"]),
    "predict": (
        "write a model's answers to a file",
        DECODING,
        ["model", "file", "--output", "--scores"],
    ),
    "ask": ("answer one question", DECODING, ["model", "--context", "--question"]),
    "augment": (
        "add synthetic answers to a file",
        ("synthetic", "synthetic_kind", "seed"),
        ["file", "--output"],
    ),
    "attack": ("write the attacked version of a file", ("seed",), ["file", "--output", "--kind"]),
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


def parse(arguments):
    """Command line -> (command, its own arguments, the settings that were given)."""
    parser = argparse.ArgumentParser(description="Robust extractive question answering.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, settings, own) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        for argument in own:
            sub.add_argument(argument, **ARGUMENTS[argument])
        for f in fields(Settings):
            if f.name in (settings or f.name):
                about = {"nargs": "+"} if f.type is tuple else {"type": f.type}
                about |= {"choices": f.metadata["choices"], "default": argparse.SUPPRESS}
                text = f"{f.metadata['help']} (default: {f.default})"
                sub.add_argument(flag(f.name), help=text, **about)
    given = vars(parser.parse_args(arguments))
    names = [f.name for f in fields(Settings) if f.name in given]
    return given.pop("command"), given, {name: given.pop(name) for name in names}


def run(command, own, given):
    """Carry out one command."""
    if "model" in own:
        path, stored = Path(own["model"]) / "settings.json", {"loss": "default"}
        if path.exists():
            with refusing(path):
                stored = json.loads(path.read_text("utf-8"))
        settings = Settings(**{k: stored[k] for k in DECODING if k in stored} | given)
        model, tokenizer = load_model(own["model"], head_required=True)
    else:
        toy = given.get("train", "toy-train") == "toy-train" and not given.get("init")
        settings = Settings(**(TOY_SETTINGS if toy else {}) | given)
    if command in ("train", "compare"):
        used = [p for p in ("settings.json", "compare.json") if (Path(settings.out) / p).exists()]
        if used and not (own["resume"] or own["overwrite"] or (toy and "out" not in given)):
            raise InputError(f"{settings.out}: holds a run; add --resume, --overwrite or --out")
        if command == "train":
            return train(settings, own["resume"])
        settings = replace(settings, eval=tuple(settings.eval)[: 2 if toy else None])
        return compare(settings, own["seeds"], own["resume"])
    if command == "ask":
        question = Question("", own["question"], own["context"], [])
        _, answers, no_answer = evaluate(model, tokenizer, [question], settings)
        print(answers[""] or "(no answer)")
        return say(f"no-answer score {no_answer['']:.2f}; empty above {settings.threshold:g}")
    if command == "evaluate":
        tests = {name: read_questions(name) for name in own["files"]}
        scores = {n: evaluate(model, tokenizer, test, settings)[0] for n, test in tests.items()}
        return print(score_table(scores))
    questions = read_questions(own["file"])
    if command == "predict":
        _, answers, no_answer = evaluate(model, tokenizer, questions, settings)
        write_file(own["output"], json.dumps(answers, ensure_ascii=False).encode())
        if own["scores"]:
            write_file(own["scores"], json.dumps(no_answer).encode())
        done = sum(map(bool, answers.values()))
    elif command == "attack":
        changed = data.attack(questions, own["kind"], settings.seed)
        done = len(changed)
    else:
        how = settings.synthetic, settings.seed, settings.synthetic_kind
        changed = data.add_synthetic_answers(questions, *how)
        done = sum(a is not b for a, b in zip(changed, questions))
    if command != "predict":
        data.write_questions(changed, own["output"])
    what = {"predict": "answered", "attack": "attacked", "augment": "given a second answer"}
    print(f"{own['output']}: {done} of {len(questions)} questions {what[command]}")


def main(arguments=None):
    try:
        run(*parse(arguments))
    except InputError as error:
        say(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
