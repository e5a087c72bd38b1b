"""What the notebooks show their things with: code, tables, marked texts, pictures, short runs."""

import ast
import html
import inspect
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib import cm, colors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", "IProgress")  # progress bars are not needed here

from data import Question, collate, make_windows, sentence_bounds
from model import attention
from robust_eqa import NO_ANSWER, NO_SPAN, best_spans, decide, load_run

ARMS = {  # "loss, data": how it is drawn, in colours of Okabe and Ito
    "default, plain": {"color": "#0072B2", "marker": "o", "hatch": ""},
    "robust, plain": {"color": "#E69F00", "marker": "s", "hatch": "//"},
    "default, synthetic": {"color": "#56B4E9", "marker": "^", "hatch": ".."},
    "robust, synthetic": {"color": "#D55E00", "marker": "D", "hatch": "xx"},
}
plt.rc("font", size=11)
plt.rc("axes.spines", top=False, right=False)
plt.rc("figure.constrained_layout", use=True)
plt.rc("legend", frameon=False)

# --- Code and tables -------------------------------------------------------------------------


def source(function):
    """Show a function as its module has it, without its docstring."""
    text = inspect.getsource(function).rstrip()
    lines, body = text.split("\n"), ast.parse(text).body[0].body
    if inspect.getdoc(function):
        del lines[body[0].lineno - 1 : body[0].end_lineno]
    display(Markdown("```python\n" + "\n".join(lines) + "\n```"))


def table(header, rows, digits=1):
    """Print rows under a header: words to the left, numbers to the right with so many digits."""
    cells = [list(header)]
    for row in rows:
        cells.append([f"{x:z.{digits}f}" if isinstance(x, float) else str(x) for x in row])
    widths = [max(map(len, column)) for column in zip(*cells)]
    wordy = [any(isinstance(x, str) for x in column) for column in zip(*rows)]
    for row in cells:
        aligned = [x.ljust(w) if left else x.rjust(w) for x, w, left in zip(row, widths, wordy)]
        print("  ".join(aligned).rstrip())


# --- Marked texts ----------------------------------------------------------------------------
TAGS = {
    "[": "<b style='background:#bfe3bf;color:black'>[",
    "]": "]</b>",
    "⟪": "<i style='background:#fdf0c0;color:black'>⟪",
    "⟫": "⟫</i>",
}


def bracketed(text, spans):
    """Brackets around spans (start, end, pair): "Ada saw Oslo", [(8, 12, "[]")] -> "Ada saw [Oslo]"."""
    marks = []
    for k, (start, end, pair) in enumerate(spans):
        marks += [(start, 1, -end, k, pair[0]), (end, 0, -start, -k, pair[1])]
    for at, *_, mark in sorted(marks, reverse=True):
        text = text[:at] + mark + text[at:]
    return text


def excerpt(text, spans):
    """The sentences that hold a part of a span, in brackets; … for the others."""
    shown, moved = "", {}  # moved: place in the text -> place in what is shown
    for first, last in pairwise(sentence_bounds(text)):
        if any(start < last and end > first for start, end, _ in spans):
            moved |= {at: len(shown) + at - first for at in range(first, last + 1)}
            shown += text[first:last]
        elif not shown.endswith("… "):
            shown += "… "
    return bracketed(shown, [(moved[start], moved[end], pair) for start, end, pair in spans])


def texts(rows):
    """Show (label, text with brackets) as a table with colours, or in plain text without."""
    rows, rich = list(rows), ""
    plain = "\n".join(f"{label}: {text}" for label, text in rows)
    for label, text in rows:
        coloured = "".join(TAGS.get(letter, letter) for letter in html.escape(text))
        cell = "<td style='text-align:left;vertical-align:top'>"
        rich += f"<tr>{cell}{html.escape(label)}</td>{cell}{coloured}</td></tr>"
    display({"text/html": f"<table>{rich}</table>", "text/plain": plain}, raw=True)


def golds(question):
    """Its gold answers, as spans to put in brackets."""
    return [(a.start, a.start + len(a.text), "[]") for a in question.answers if a.start >= 0]


# --- Runs ------------------------------------------------------------------------------------


def command(*arguments):
    """python robust_eqa.py ..., as one would type it, without its output."""
    line = [sys.executable, ROOT / "robust_eqa.py", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


def short_runs(arms, seed=0):
    """Train arms on 8,000 toy questions, two at a time -> {arm: (model, tokenizer, settings)}."""
    how = "train --limit 8000 --epochs 2 --lr 4e-3 --warmup 50 --eval toy-dev --seed".split()

    def trained(arm):
        loss, data = arm.split(", ")
        share, out = 0.3 if data == "synthetic" else 0, Path(folder, arm)
        command(*how, seed, "--loss", loss, "--synthetic", share, "--out", out)
        return load_run(out)

    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as workers:
        return dict(zip(arms, workers.map(trained, arms)))


@torch.no_grad()
def look(model, tokenizer, question, settings):
    """A question's windows, as one batch -> windows, batch, logits (2, B, T)."""
    length, overlap = min(settings.max_length, model.max_length), model.config.question_overlap
    windows = make_windows([question], tokenizer, length, settings.stride, overlap)
    batch = collate(windows)
    return windows, batch, model(batch.input_ids, batch.segment_ids, batch.mask)


def attention_weights(model, batch):
    """How much each position takes from each other -> (layers, B, H, T, T)."""
    weights = []

    def watched(query, key, value, mask, p=0.0):
        one = torch.eye(mask.shape[1]).expand(*query.shape[:2], -1, -1)  # as values
        weights.append(attention(query, key, one, mask))
        return attention(query, key, value, mask, p)

    with torch.no_grad(), patch("model.attention", watched):
        model(batch.input_ids, batch.segment_ids, batch.mask)
    return torch.stack(weights)


def descend(loss, x, steps, rate):
    """Gradient descent by hand -> (steps + 1, *x.shape), the beginning included."""
    path = [x]
    for _ in range(steps):
        x = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)
        path.append(path[-1] - rate * gradient)
    return torch.stack(path)


# --- Pictures of a question ------------------------------------------------------------------


def around_zero(scores):
    """Colours of scores, NaN among them: white at 0, each side as wide as its scores."""
    return colors.TwoSlopeNorm(0, min(-0.01, np.nanmin(scores)), max(0.01, np.nanmax(scores)))


def token_map(tokens, scores, framed, label):
    """Tokens as running text, over each its start score as a colour, under each its end score."""
    lines = textwrap.wrap(" ".join(tokens), 92, break_long_words=False, break_on_hyphens=False)
    shades, i = cm.ScalarMappable(around_zero(scores), "RdBu"), 0
    figure, axis = plt.subplots(figsize=(10, 0.62 * len(lines) + 1))
    for y, line in enumerate(lines):
        x = 0
        for token in line.split():
            weight = "bold" if i in framed else "normal"
            axis.text(x, -y, token, family="monospace", va="center", weight=weight)
            for score, at in zip(scores[:, i], (0.18, -0.36)):
                axis.barh(at - y, len(token), 0.18, x, color=shades.to_rgba(score), align="edge")
            x, i = x + len(token) + 1, i + 1
    axis.set(xlim=(0, 92), ylim=(0.5 - len(lines), 0.5))
    axis.axis("off")
    figure.colorbar(shades, ax=axis, label=label, location="bottom", aspect=60)
    plt.show()


def decoded(model, tokenizer, question, settings):
    """The window that answers, its logits and context mask, the best span, its score, the null's."""
    windows, batch, logits = look(model, tokenizer, question, settings)
    scores, starts, ends = best_spans(logits, batch.context_mask, settings.max_answer_length)
    nulls = logits[:, :, 0].sum(0).tolist() if settings.loss == "default" else None
    best, against = decide(scores.tolist(), nulls)
    span, score = (starts[best].item(), ends[best].item()), scores[best].item()
    here = slice(best, best + 1)
    return windows[best], logits[:, here], batch.context_mask[here], span, score, score + against


def best_elsewhere(logits, context_mask, first, last, max_answer_length):
    """The best span before or after positions first..last of a window -> score, start, end."""
    found = []
    for side in (slice(0, first), slice(last + 1, None)):
        mask = torch.zeros_like(context_mask)
        mask[:, side] = context_mask[:, side]
        found.append([x.item() for x in best_spans(logits, mask, max_answer_length)])
    return max(found)


def ask(model, tokenizer, context, question, settings, head=None):
    """Print an answer and what speaks against it, draw the scores; of a head (layer, number), too."""
    asked = Question("asked", question, context, [])
    window, logits, context_mask, span, score, null = decoded(model, tokenizer, asked, settings)
    other, *rival = best_elsewhere(logits, context_mask, *span, settings.max_answer_length)
    bar, by_cls = null - settings.threshold, settings.loss == "default"
    print(f"answer          {window.text(*span) if score >= bar else NO_ANSWER}")
    print(f"best span      {score:+6.2f}  {window.text(*span)}")
    if other > NO_SPAN:
        print(f"next elsewhere {other:+6.2f}  {window.text(*rival)}")
    print(f"to beat        {bar:+6.2f}" + "  [CLS]" * by_cls)

    tokens = [tokenizer.id_to_token(i) for i in window.input_ids]
    n, shown = len(tokens), logits[:, 0]
    if by_cls:
        shown = shown - shown[:, :1]
    label = "start logit (above the token), end logit (below)" + ", less [CLS]'s" * by_cls
    token_map(tokens, shown[:, :n].numpy(), range(span[0], span[1] + 1), label)
    if head is not None:
        weights = attention_weights(model, collate([window]))[head[0], 0, head[1], :n, :n]
        figure, axis = plt.subplots(figsize=(9, 8))
        image = axis.imshow(weights, cmap="Greys", vmin=0)
        axis.set_xticks(range(n), tokens, rotation=90, fontsize=10)
        axis.set_yticks(range(n), tokens, fontsize=10)
        axis.set(xlabel="to (key)", ylabel="from (query)", title="layer {}, head {}".format(*head))
        figure.colorbar(image, label="attention weight; each row adds up to 1", shrink=0.6)
        plt.show()
