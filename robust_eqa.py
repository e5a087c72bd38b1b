"""Robust extractive question answering: the losses, the decoder, the scores, and the commands.

    python robust_eqa.py train        a small model on a generated corpus, in a minute or two
    python robust_eqa.py --help       everything else

After "Towards Robust Extractive Question Answering Models: Rethinking the Training Methodology"
(Tran & Kretchmar, Findings of EMNLP 2024), whose sections are named where they act. Read data.py
and model.py first. Letters: B windows in a batch, T positions in a window.
"""

import argparse
import inspect
import itertools
import json
import math
import random
import re
import string
import sys
import time
from collections import Counter
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
    logits = torch.stack([start_logits, end_logits]).masked_fill(~mask, -math.inf)  # (2, B, T)
    labels = torch.stack([start_labels, end_labels]).to(logits) * mask
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
    """qa_weight * qa_loss + tagging_weight * tagging_loss (sec. 5.2).

    paper does not say: the weights 2, 1 and 2 are those of the authors' code.
    """
    batch = start_logits, end_logits, start_labels, end_labels, mask
    return qa_weight * qa_loss(*batch) + tagging_weight * tagging_loss(*batch, positive_weight)


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
    logits = torch.stack([start_logits, end_logits]).double()  # sums are exact: ties stay ties
    start, end = logits.masked_fill(~context_mask, -math.inf)
    length = min(max_answer_length, end.shape[1])
    end = F.pad(end, (0, length - 1), value=-math.inf)
    best_end, ends = F.max_pool1d(end[:, None], length, stride=1, return_indices=True)  # (B, 1, T)
    scores, starts = (start + best_end[:, 0]).max(-1)
    ends = ends[:, 0].gather(1, starts[:, None])[:, 0]
    return scores.clamp(min=NO_SPAN).to(start_logits.dtype), starts, ends


@torch.inference_mode()
def predict(model, tokenizer, questions, settings):
    """The best span of every question, answered or not, and how much speaks against answering.

    -> {id: text}, {id: no-answer score}. The robust score is minus the best span's, so that a span
    must score 0 or more to be an answer (5.2). The default one is the null score, the least
    start[0] + end[0] of the question's windows, minus the best span's (sec. 2).
    """
    windows = windows_of(questions, model, tokenizer, settings)
    order = np.argsort([-len(window) for window in windows], kind="stable")
    scores, nulls, starts, ends = np.zeros((4, len(windows)))
    model.eval()
    with tqdm(total=len(order), unit=" windows", desc="predict", disable=None, leave=False) as bar:
        for indices in np.split(order, range(32, len(order), 32)):
            batch = collate([windows[i] for i in indices], model.head.weight.device)
            with autocast(model):
                start, end = model(batch.input_ids, batch.segment_ids, batch.mask)
            best = best_spans(start, end, batch.context_mask, settings.max_answer_length)
            scores[indices], starts[indices], ends[indices] = (x.cpu().numpy() for x in best)
            nulls[indices] = (start[:, 0] + end[:, 0]).cpu().numpy()
            bar.update(len(indices))
    texts, no_answer = {}, {}
    for q, group in itertools.groupby(range(len(windows)), lambda i: windows[i].question_index):
        group = list(group)
        i = max(group, key=scores.__getitem__)  # ties: the earliest window
        found = windows[i].text(int(starts[i]), int(ends[i])) if scores[i] > NO_SPAN else ""
        null = nulls[group].min() if settings.loss == "default" else 0.0
        texts[questions[q].id], no_answer[questions[q].id] = found, float(null - scores[i])
    return texts, no_answer


def evaluate(model, tokenizer, questions, settings):
    """-> official scores, answers {id: text}, no-answer scores {id: float}."""
    texts, no_answer = predict(model, tokenizer, questions, settings)
    scores = squad_scores(questions, texts, no_answer, settings.threshold)
    answers = {k: "" if no_answer[k] > settings.threshold else text for k, text in texts.items()}
    return scores, answers, no_answer


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
    return tuple(max(score(prediction, g) for g in golds) for score in (exact_match, token_f1))


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
        current = best = sum(not has for has in answerable.values())
        where = 0.0
        for key in sorted(no_answer_scores, key=no_answer_scores.get):
            current += raw[key][n] if answerable[key] else -bool(predictions[key])
            if current > best:
                best, where = current, no_answer_scores[key]
        result |= {f"best_{name}": 100 * best / len(raw), f"best_{name}_thresh": where}
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
        known = {"loss": ("robust", "default"), "synthetic_kind": ("evidence", "template", "mixed")}
        least = {"threshold": -math.inf, "max_length": 8, "max_answer_length": 1, "batch_size": 1}
        most = {"threshold": math.inf, "synthetic": 1, "lr": 1}
        for name, value in asdict(self).items():
            low, high = least.get(name, 0), most.get(name, 10**9)
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise InputError(f"{flag(name)} {value} is not between {low} and {high}")
            if value not in known.get(name, [value]):
                raise InputError(f"{flag(name)} {value} is none of {', '.join(known[name])}")


DECODING = "loss", "threshold", "max_length", "stride", "max_answer_length"
TOY_SETTINGS = {"batch_size": 64, "lr": 2e-3, "warmup": 100, "epochs": 4.0, "max_length": 128}
TOY_SETTINGS |= {"stride": 32, "max_answer_length": 16, "eval": tuple(data.TOY)[1:]}


def autocast(model):
    """bfloat16 products where the processor has them and the model is wide enough to gain."""
    device = model.head.weight.device.type
    fast = device == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast and model.config.hidden_size >= 256)


def windows_of(questions, model, tokenizer, settings):
    """make_windows as the settings and the model want it."""
    if settings.max_length > model.max_length:
        raise InputError(
            f"--max-length {settings.max_length}: the model ends at {model.max_length}"
        )
    shape = settings.max_length, settings.stride
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
    tokenizer = wordpiece_tokenizer({token: k for k, token in enumerate(SPECIALS["bert"])}, True)
    texts = sorted({text for q in questions for text in (q.question, q.context)})
    how = {"vocab_size": 8000, "special_tokens": SPECIALS["bert"], "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(**how))
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"intermediate_size": 256, "type_vocab_size": 3, "max_position_embeddings": max_length}
    start = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    start |= {"initializer_range": 0.1, "question_overlap": True}
    model = QAModel(Config(vocab_size=tokenizer.get_vocab_size(), **shape, **start))
    angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


def train(settings, resume=False):
    """Train, evaluate, and leave a run directory: checkpoint, settings, metrics -> model, tokenizer.

    metrics.jsonl has a line per logged step, metrics.json the final scores of every --eval file.
    """
    out, began, tests = Path(settings.out), time.monotonic(), read_tests(settings.eval)
    questions = read_questions(settings.train)
    random.Random(settings.seed).shuffle(questions)
    chosen, how = questions[: settings.limit or None], (settings.seed, settings.synthetic_kind)
    questions = data.add_synthetic_answers(chosen, settings.synthetic, *how)
    torch.manual_seed(settings.seed)
    start = (
        load_model(settings.init) if settings.init else new_model(questions, settings.max_length)
    )
    model, tokenizer = start
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    windows = windows_of(questions, model, tokenizer, settings)
    lost = dict.fromkeys(w.question.id for w in windows if (w.golds < 0).any())
    if lost:  # all-zero labels would teach that such a question has no answer
        say(f"{data.some_ids(lost)} have an answer that no token of the context holds; left out")
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
        f"{settings.loss} loss, {len(windows)} windows of {len(questions)} questions, {total} steps"
    )
    say(f"of {settings.batch_size}, {millions:.1f} M parameters, {model.head.weight.device.type}")
    bar = tqdm(total=total, initial=first, unit=" steps", desc="train", disable=None)
    for step in range(first, total):
        epoch, k = divmod(step, per_epoch)
        if k == 0 or step == first:
            rng = np.random.default_rng([settings.seed, epoch])
            order = data.length_bucketed(lengths, settings.batch_size, rng)
        batch = collate([windows[i] for i in order[k]], model.head.weight.device)
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
            log.append({"step": done, "loss": loss.item(), "gradient_norm": norm.item()})
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if not math.isfinite(loss.item()):
                raise InputError(f"the loss is {loss.item()} at step {done}; try a lower --lr")
        for name, test in tests.items() if scoring else ():
            log.append({"step": done, "eval": name} | evaluate(model, tokenizer, test, settings)[0])
        if done % 500 == 0 or done == total or scoring:
            save_state(settings, model, optimizer, done, log)
            lines = "".join(json.dumps(line) + "\n" for line in log)
            write_file(out / "metrics.jsonl", lines.encode())
    bar.close()
    save_model(model, tokenizer, out)
    metrics = {}
    for name, test in tests.items():
        metrics[name], answers, _ = evaluate(model, tokenizer, test, settings)
        print(score_line(name, metrics[name], header=len(metrics) == 1))
        if len(metrics) == 1:
            wrong = [q for q in test if not question_scores(q, answers[q.id])[0]]
            mistakes = [(q, answers[q.id]) for q in wrong[:: len(wrong) // 5 + 1]]
    write_file(out / "metrics.json", json.dumps(metrics, indent=2).encode())
    (out / STATE).unlink(missing_ok=True)
    for q, answer in mistakes if tests else ():
        golds = " / ".join(dict.fromkeys(gold.text for gold in q.answers)) or "(no answer)"
        print(f"\nwrong: {q.question}\n  gold {golds}, predicted {answer or '(no answer)'}")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; the model is in {out}")
    return model, tokenizer


STATE = "state.safetensors"


def save_state(settings, model, optimizer, step, log):
    """All that training depends on, in one file, so that a kill leaves the old or the new state."""
    tensors = {f"model {name}": tensor for name, tensor in model.state_dict().items()}
    for k, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{name} {k}": tensor for name, tensor in moments.items()}
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    about = {"about": json.dumps({"settings": asdict(settings), "step": step, "log": log})}
    write_file(Path(settings.out) / STATE, safetensors.torch.save(tensors, about))


def load_state(settings, model, optimizer):
    """Put the last saved state back -> steps done, log."""
    file = Path(settings.out) / STATE
    with refusing(file), safetensors.safe_open(file, "pt") as state:
        about = json.loads(state.metadata()["about"])
        tensors = {key: state.get_tensor(key) for key in state.keys()}
    for key, now in json.loads(json.dumps(asdict(settings))).items():
        if about["settings"][key] != now:
            raise InputError(f"{file}: begun with {flag(key)} {about['settings'][key]}, not {now}")
    model.load_state_dict({name: tensors[f"model {name}"] for name in model.state_dict()})
    names, count = ("step", "exp_avg", "exp_avg_sq"), len(list(model.parameters()))
    moments = {k: {name: tensors[f"{name} {k}"] for name in names} for k in range(count)}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return about["step"], about["log"]


# --- Commands --------------------------------------------------------------------------------


def say(message):
    print(message, file=sys.stderr)


def flag(name):
    return "--" + name.replace("_", "-")


def score_line(name, scores, header):
    """A file's official scores as a line of a table."""
    columns = "total", "exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1"
    cells = [f"{scores[c]:.{int(c != 'total')}f}" if c in scores else "-" for c in columns]
    rows = [["", *columns]] * header + [[name, *cells]]
    return "\n".join(f"{row[0]:32}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows)


def compare(settings, seeds, resume):
    """Train with the default and the robust loss from the same seeds and print one table.

    Every test set and both attacks on the first one: F1 (HasAns / NoAns) as mean ± standard
    deviation over the seeds, the F1 that an attack costs, and robust's cost as a share of default's.
    """
    if seeds < 1 or not settings.eval:
        raise InputError("compare needs --seeds of 1 or more and at least one --eval file")
    tests = read_tests(settings.eval)
    base = next(iter(tests))
    tests |= {kind: data.attack(tests[base], kind) for kind in data.ATTACKS}
    results = {"default": {}, "robust": {}}  # loss -> row -> [numbers of each seed]
    for (loss, rows), seed in itertools.product(results.items(), range(seeds)):
        share = 0.0 if loss == "default" else settings.synthetic
        out, seed = Path(settings.out) / f"{loss}-{seed}", settings.seed + seed
        run = replace(settings, loss=loss, seed=seed, out=str(out), synthetic=share, eval=())
        if resume and (out / "metrics.json").exists():
            model, tokenizer = load_model(out, head_required=True)
        else:
            model, tokenizer = train(run, resume and (out / STATE).exists())
        f1 = {}
        for name, test in tests.items():
            scores, answers, _ = evaluate(model, tokenizer, test, run)
            f1[name] = {q.id: 100 * question_scores(q, answers[q.id])[1] for q in test}
            numbers = [scores[k] for k in ("f1", "HasAns_f1", "NoAns_f1") if k in scores]
            rows.setdefault(name, []).append(numbers)
        for kind in data.ATTACKS:
            costs = [f1[base][key] - after for key, after in f1[kind].items()]
            rows.setdefault(f"{kind} drop", []).append([np.mean(costs)])
    write_file(Path(settings.out) / "compare.json", json.dumps(results, indent=2).encode())
    print(f"{f'F1 (HasAns / NoAns), {seeds} seeds':36}{'default':>40}{'robust':>40}")
    for row in results["default"]:
        cells = []
        for rows in results.values():
            first, *more = [f"{np.mean(x):.1f} ± {np.std(x):.1f}" for x in zip(*rows[row])]
            cells.append(first + (f" ({' / '.join(more)})" if more else ""))
        print(f"{row:36}" + "".join(f"{cell:>40}" for cell in cells))
    for kind in data.ATTACKS:
        ours, theirs = (np.mean(results[x][f"{kind} drop"]) for x in ("robust", "default"))
        ratio = f"{ours / theirs:.2f}" if theirs >= 3 else "- (default drops by less than 3)"
        print(f"{kind + ' drop, robust / default':36}{ratio:>80}")


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


def parse(arguments):
    """Command line -> (command, its own arguments, the settings that were given)."""
    parser = argparse.ArgumentParser(description="Robust extractive question answering.")
    commands = parser.add_subparsers(dest="command", required=True)
    comments = dict(re.findall(r"\n    (\w+): .*?  # (.*)", inspect.getsource(Settings)))
    for name, (text, settings, own) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        for argument in own.split():
            sub.add_argument(argument, **ARGUMENTS[argument])
        for f in fields(Settings):
            if settings == "all" or f.name in settings:
                about = {"nargs": "+"} if f.type is tuple else {"type": f.type}
                text = f"{comments[f.name]} (default: {f.default})"
                sub.add_argument(flag(f.name), help=text, default=argparse.SUPPRESS, **about)
    own = vars(parser.parse_args(arguments))
    given = {f.name: own.pop(f.name) for f in fields(Settings) if f.name in own}
    return own.pop("command"), own, given


def run_training(command, own, given):
    """train and compare."""
    toy = given.get("train", "toy-train") == "toy-train" and not given.get("init")
    settings = Settings(**(TOY_SETTINGS if toy else {}) | given)
    used = [n for n in ("settings.json", "compare.json") if (Path(settings.out) / n).exists()]
    if used and not (own["resume"] or own["overwrite"] or (toy and "out" not in given)):
        raise InputError(f"{settings.out}: holds a run; add --resume, --overwrite or another --out")
    if command == "train":
        train(settings, own["resume"])
    else:  # which attacks the toy corpora itself
        compare(
            replace(settings, eval=settings.eval[: 2 if toy else None]), own["seeds"], own["resume"]
        )


def run_model(command, own, given):
    """evaluate, predict and ask: settings as the model was trained, unless given."""
    path, stored = Path(own["model"]) / "settings.json", {"loss": "default"}
    if path.exists():
        with refusing(path):
            stored = {key: json.loads(path.read_text("utf-8"))[key] for key in DECODING}
    settings = Settings(**stored | given)
    model, tokenizer = load_model(own["model"], head_required=True)
    if command == "ask":
        texts = (own[name].encode(errors="replace").decode() for name in ("question", "context"))
        question = Question("", *texts, [])
        _, answers, no_answer = evaluate(model, tokenizer, [question], settings)
        print(answers[""] or "(no answer)")
        say(f"no-answer score {no_answer['']:.2f}; empty above {settings.threshold:g}")
    elif command == "evaluate":
        for k, (name, test) in enumerate(read_tests(own["files"]).items()):
            print(score_line(name, evaluate(model, tokenizer, test, settings)[0], header=k == 0))
    else:
        questions = read_questions(own["file"])
        _, answers, no_answer = evaluate(model, tokenizer, questions, settings)
        write_file(own["output"], json.dumps(answers, ensure_ascii=False).encode())
        if own["scores"]:
            write_file(own["scores"], json.dumps(no_answer).encode())
        done = sum(map(bool, answers.values()))
        print(f"{own['output']}: {done} of {len(questions)} questions answered")


def run_data(command, own, given):
    """augment and attack."""
    settings, questions = Settings(**given), read_questions(own["file"])
    if command == "augment":
        how = settings.synthetic, settings.seed, settings.synthetic_kind
        changed = data.add_synthetic_answers(questions, *how)
        done = sum(a is not b for a, b in zip(changed, questions))
    else:
        changed = data.attack(questions, own["kind"], settings.seed)
        done = len(changed)
    data.write_questions(changed, own["output"])
    print(f"{own['output']}: {done} of {len(questions)} questions changed")


def main(arguments=None):
    command, own, given = parse(arguments)
    try:
        part = run_model if "model" in own else run_data if "file" in own else run_training
        part(command, own, given)
    except InputError as error:
        say(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
