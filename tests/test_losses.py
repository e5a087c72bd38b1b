"""The losses against the paper's formulas, written once more in plain loops and float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from robust_eqa import default_loss, qa_loss, robust_loss, tagging_loss

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}  # relative
LABEL_LOSSES = {"qa": qa_loss, "tagging": tagging_loss, "robust": robust_loss}
ENDS = torch.tensor([[1], [3]])  # the first gold's, for the default loss
LOSSES = LABEL_LOSSES | {"default": lambda x, y, m: default_loss(x, ENDS.expand(2, len(m)), m)}


def cross_entropy_formula(logits, targets, kept):
    """Mean over the targets of -log softmax, the softmax over the kept positions only."""
    log_total = np.logaddexp.reduce([logits[t] for t in kept])
    return sum(log_total - logits[t] for t in targets) / len(targets)


def qa_formula(logits, labels, kept):
    """Target 1/k at each of k labelled positions, 1/n at each of n kept positions if k is 0."""
    return cross_entropy_formula(logits, [t for t in kept if labels[t] == 1] or kept, kept)


def tagging_formula(logits, labels, kept, positive_weight=2.0):
    """The sum over kept positions of -w y log sigmoid(x) - (1 - y) log(1 - sigmoid(x))."""
    positive = [positive_weight * np.logaddexp(0.0, -logits[t]) for t in kept if labels[t] == 1]
    negative = [np.logaddexp(0.0, logits[t]) for t in kept if labels[t] == 0]
    return sum(positive) + sum(negative)


def robust_formula(logits, labels, kept, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
    """2 QA + 1 tagging, positives twice: the constants of the authors' code."""
    tagging = tagging_formula(logits, labels, kept, positive_weight)
    return qa_weight * qa_formula(logits, labels, kept) + tagging_weight * tagging


FORMULAS = {"qa": qa_formula, "tagging": tagging_formula, "robust": robust_formula}
WEIGHTS = {"qa": {}, "tagging": {"positive_weight": 7.0}}
WEIGHTS["robust"] = {"qa_weight": 0.3, "tagging_weight": 5.0, "positive_weight": 7.0}


def batch_mean(formula, logits, targets, mask, **weights):
    """(start + end) / 2 of every row, then the mean over the rows."""
    found = []
    for side in range(2):
        for b, row in enumerate(mask):
            kept = [t for t, keep in enumerate(row.tolist()) if keep]
            found.append(formula(logits[side, b].tolist(), targets[side, b], kept, **weights))
    return float(sum(found) / len(found))


def random_batch(seed, dtype=torch.float64, has_gold=(1, 0, 1, 0, 1), length=13, scale=3.0):
    """Logits and labels (2, B, T) of 0 to 4 golds a row, mask (B, T); the padding's are noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, length + 1, size=len(has_gold))
    lengths[0] = length - 3  # at least one row has padding
    mask = torch.tensor(np.arange(length) < lengths[:, None])
    labels = torch.zeros((2, *mask.shape), dtype=dtype)
    for b, some in enumerate(has_gold):
        for _ in range(rng.integers(1, 5) if some else 0):
            start, end = sorted(rng.integers(0, lengths[b], size=2))
            labels[0, b, start] = labels[1, b, end] = 1
    return torch.tensor(rng.normal(0, scale, labels.shape)).to(dtype), labels, mask


def assert_close(found, expected, dtype=torch.float64):
    off = f"found {found:.10g}, off by {found - expected:+.3g}"
    assert float(found) == pytest.approx(expected, rel=TOLERANCE[dtype]), off


def loss_and_gradient(name, logits, labels, mask):
    logits = logits.clone().requires_grad_()
    loss = LOSSES[name](logits, labels, mask)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("name", LABEL_LOSSES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("padding", ["masked", "counts"])  # "counts": the authors' variant
def test_the_label_losses_equal_the_formulas(name, dtype, padding):
    """With golds in all rows, none and some; at logits of 1,000 exp would overflow."""
    for has_gold in ((1, 1, 1), (0, 0, 0), (1, 0, 1, 0, 1)):
        for scale in (1.0, 3.0, 1000.0):
            logits, labels, mask = random_batch(int(scale), dtype, has_gold, scale=scale)
            mask = mask if padding == "masked" else torch.ones_like(mask)
            expected = batch_mean(FORMULAS[name], logits, labels, mask, **WEIGHTS[name])
            found = LABEL_LOSSES[name](logits, labels, mask, **WEIGHTS[name])
            assert_close(found, expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_default_loss_equals_the_formula_and_torchs_cross_entropy(dtype):
    for seed in range(5):
        logits, _, mask = random_batch(seed, dtype)
        positions = torch.tensor(np.random.default_rng(seed).integers(0, 4, (2, 5)))
        positions[:, 0] = 0  # [CLS]
        expected = batch_mean(cross_entropy_formula, logits, positions[:, :, None], mask)
        assert_close(default_loss(logits, positions, mask), expected, dtype)
        sides = [cross_entropy(x, y) for x, y in zip(logits, positions)]
        found = default_loss(logits, positions, torch.ones_like(mask))
        assert_close(found, float(sum(sides) / 2), dtype)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logits_at_masked_positions_never_count(name, dtype):
    """Whatever stands there: same loss, same gradient, and none at the padding itself."""
    logits, labels, mask = random_batch(2, dtype)
    plain, gradient = loss_and_gradient(name, logits.masked_fill(~mask, 0), labels, mask)
    limits = torch.finfo(dtype)
    for value in (-math.inf, limits.min, limits.max, 1e4):
        loss, moved = loss_and_gradient(name, logits.masked_fill(~mask, value), labels, mask)
        assert_close(loss, float(plain), dtype)
        worst = (moved - gradient).abs().max().item()
        assert worst < 1e-6, f"{value} there moved the gradient by {worst:.3g}"
        leak = moved[:, ~mask].abs().max().item()
        assert leak == 0, f"{value} there has a gradient of {leak:.3g}"


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_slope_of_the_loss(name):
    """By small steps of each logit; gradcheck raises with both."""
    logits, labels, mask = random_batch(4)
    inputs = logits.requires_grad_(), labels, mask
    assert torch.autograd.gradcheck(LOSSES[name], inputs)
