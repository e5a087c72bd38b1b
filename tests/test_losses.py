"""The losses against the paper's formulas, written once more in numpy float64 and plain loops."""

import math

import numpy as np
import pytest
import torch

from robust_eqa import default_loss, qa_loss, robust_loss, tagging_loss

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-9}  # relative
LABEL_LOSSES = {"qa": qa_loss, "tagging": tagging_loss, "robust": robust_loss}
LN2, LN3 = math.log(2), math.log(3)


# ---- the formulas, one row and one side (start or end) at a time -----------------------------


def cross_entropy(logits, targets, kept):
    """Mean over the target positions of -log softmax, the softmax over the kept positions only."""
    top = max(logits[t] for t in kept)
    log_total = top + math.log(sum(math.exp(logits[t] - top) for t in kept))
    return sum(log_total - logits[t] for t in targets) / len(targets)


def qa_formula(logits, labels, kept):
    """Target 1/k at each of k labelled positions, 1/n at each of n kept positions if k is 0."""
    return cross_entropy(logits, [t for t in kept if labels[t] == 1] or kept, kept)


def tagging_formula(logits, labels, kept, positive_weight=2.0):
    """The sum over kept positions of -w y log sigmoid(x) - (1 - y) log(1 - sigmoid(x))."""
    total = 0.0
    for t in kept:
        if labels[t] == 1:
            total += positive_weight * np.logaddexp(0.0, -logits[t])
        else:
            total += np.logaddexp(0.0, logits[t])
    return total


def robust_formula(logits, labels, kept, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
    """2 QA + 1 tagging, positives twice: the authors' constants."""
    tagging = tagging_formula(logits, labels, kept, positive_weight)
    return qa_weight * qa_formula(logits, labels, kept) + tagging_weight * tagging


def default_formula(logits, position, kept):
    """Cross entropy against one position."""
    return cross_entropy(logits, [position], kept)


FORMULAS = {"qa": qa_formula, "tagging": tagging_formula, "robust": robust_formula}


def batch_mean(formula, starts, ends, start_targets, end_targets, mask, **weights):
    """(start + end) / 2 of every row, then the mean over the rows."""
    rows = []
    for b, row_mask in enumerate(mask.numpy()):
        kept = [t for t, keep in enumerate(row_mask) if keep]
        start = formula(starts[b].double().numpy(), start_targets[b].numpy(), kept, **weights)
        end = formula(ends[b].double().numpy(), end_targets[b].numpy(), kept, **weights)
        rows.append((start + end) / 2)
    return sum(rows) / len(rows)


# ---- random batches --------------------------------------------------------------------------


def random_mask(rng, rows, length):
    """Rows of 4 to `length` real positions, then padding; at least one row has padding."""
    lengths = rng.integers(4, length + 1, size=rows)
    lengths[0] = length - 3
    return torch.tensor(np.arange(length) < lengths[:, None])


def random_labels(rng, mask, golds):
    """Multi-hot labels of 1 to 4 gold spans (starts and ends may coincide) in rows with `golds`."""
    start_labels, end_labels = np.zeros(mask.shape), np.zeros(mask.shape)
    for b, has_gold in enumerate(golds):
        for _ in range(rng.integers(1, 5) if has_gold else 0):
            start, end = sorted(rng.integers(0, int(mask[b].sum()), size=2))
            start_labels[b, start] = end_labels[b, end] = 1
    return torch.tensor(start_labels), torch.tensor(end_labels)


def random_batch(seed, dtype, golds=(True, False, True, False, True), length=13, scale=3.0):
    """Start and end logits, start and end labels, mask; the padding's logits are noise."""
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, len(golds), length)
    logits = [torch.tensor(rng.normal(0, scale, mask.shape)).to(dtype) for _ in range(2)]
    labels = [y.to(dtype) for y in random_labels(rng, mask, golds)]
    return *logits, *labels, mask


def assert_close(found, expected, dtype=torch.float64):
    """The relative difference is within the dtype's tolerance; the message shows it."""
    found = found.item()
    difference = f"found {found:.10g}, expected {expected:.10g}, off by {found - expected:+.3g}"
    assert found == pytest.approx(expected, rel=TOLERANCE[dtype]), difference


# ---- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LABEL_LOSSES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("padding", ["masked", "counts"])
@pytest.mark.parametrize(
    "golds",
    [(True,) * 5, (False,) * 5, (True, False, True, False, True)],
    ids=["all", "no", "mixed"],
)
def test_label_losses_equal_the_formulas(name, dtype, padding, golds):
    """Value parity with padding masked and with an all-ones mask (the authors' variant)."""
    for seed in range(20):
        *tensors, mask = random_batch(seed, dtype, golds)
        mask = mask if padding == "masked" else torch.ones_like(mask)
        expected = batch_mean(FORMULAS[name], *tensors, mask)
        assert_close(LABEL_LOSSES[name](*tensors, mask), expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("padding", ["masked", "counts"])
def test_default_loss_equals_the_formula(dtype, padding):
    """Value parity of the baseline, [CLS] (position 0) among the targets."""
    for seed in range(20):
        starts, ends, _, _, mask = random_batch(seed, dtype)
        rng = np.random.default_rng(seed)
        positions = [torch.tensor([0] + [int(rng.integers(4)) for _ in range(4)]) for _ in range(2)]
        mask = mask if padding == "masked" else torch.ones_like(mask)
        expected = batch_mean(default_formula, starts, ends, *positions, mask)
        assert_close(default_loss(starts, ends, *positions, mask), expected, dtype)


def test_default_loss_by_hand():
    """Two rows, three positions, every number worked out."""
    # row 0: start (ln 3, 0, 0) at 0: softmax (3/5, 1/5, 1/5), -log 3/5 = ln 5 - ln 3
    #        end   (0, 0, ln 2) at 1: softmax (1/4, 1/4, 1/2), -log 1/4 = 2 ln 2
    # row 1, last position padding: start (0, 0) at 1: ln 2; end (0, ln 3) at 1: -log 3/4
    starts = torch.tensor([[LN3, 0, 0], [0, 0, 50]], dtype=torch.float64)
    ends = torch.tensor([[0, 0, LN2], [0, LN3, 50]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    row_0 = (math.log(5) - LN3 + 2 * LN2) / 2
    row_1 = (LN2 + 2 * LN2 - LN3) / 2
    loss = default_loss(starts, ends, torch.tensor([0, 1]), torch.tensor([1, 1]), mask)
    assert_close(loss, (row_0 + row_1) / 2)


# Start logits (ln 3, 0) have softmax (3/4, 1/4); end logits (0, 0) have (1/2, 1/2).
# name: start labels, end labels, QA loss, tagging loss, each with (start + end) / 2
HAND_CASES = {
    # QA start -log 3/4 = 2 ln 2 - ln 3, end ln 2.
    # tagging start 2 softplus(-ln 3) + softplus(0) = 2 (2 ln 2 - ln 3) + ln 2, end (1 + 2) ln 2
    "one gold": ([1, 0], [0, 1], (3 * LN2 - LN3) / 2, (8 * LN2 - 2 * LN3) / 2),
    # QA start: the mean of -log 3/4 and -log 1/4 = 2 ln 2 - ln 3 / 2, end ln 2 (shared).
    # tagging start 2 (2 ln 2 - ln 3) + 2 ln 2, end (1 + 2) ln 2
    "two golds, one end": ([1, 1], [0, 1], (3 * LN2 - LN3 / 2) / 2, (9 * LN2 - 2 * LN3) / 2),
    # QA as with both positions labelled; tagging start softplus(ln 3) + ln 2 = 3 ln 2, end 2 ln 2
    "no gold": ([0, 0], [0, 0], (3 * LN2 - LN3 / 2) / 2, 5 * LN2 / 2),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", HAND_CASES)
def test_label_losses_by_hand(case, padded):
    """Worked-out values; the defaults must be 2 QA + 1 tagging with positives counted twice."""
    start_labels, end_labels, qa, tagging = HAND_CASES[case]
    pad = [0] * padded
    rows = ([LN3, 0] + [9] * padded, [0, 0] + [9] * padded, start_labels + pad, end_labels + pad)
    batch = [torch.tensor([row], dtype=torch.float64) for row in rows]
    mask = torch.tensor([[True, True] + [False] * padded])
    assert_close(qa_loss(*batch, mask), qa)
    assert_close(tagging_loss(*batch, mask), tagging)
    assert_close(robust_loss(*batch, mask), 2 * qa + tagging)


def test_weights_are_used_where_their_names_say():
    """Other constants than the defaults, by keyword."""
    *tensors, mask = random_batch(0, torch.float64)
    weights = {"qa_weight": 0.3, "tagging_weight": 5.0, "positive_weight": 7.0}
    expected = batch_mean(robust_formula, *tensors, mask, **weights)
    assert_close(robust_loss(*tensors, mask, **weights), expected)
    expected = batch_mean(tagging_formula, *tensors, mask, positive_weight=7.0)
    assert_close(tagging_loss(*tensors, mask, positive_weight=7.0), expected)


def test_a_batch_is_averaged_not_summed():
    """Repeating every row changes nothing."""
    batch = random_batch(1, torch.float64)
    for name, loss in LABEL_LOSSES.items():
        twice = float(loss(*(torch.cat([tensor, tensor]) for tensor in batch)))
        once = float(loss(*batch))
        assert twice == pytest.approx(once, rel=1e-12), f"{name}: {once} became {twice}"


def losses_and_gradients(batch, positions=(1, 3)):
    """{name: (loss, gradient of the start and end logits stacked)} for all four losses."""
    starts, ends, start_labels, end_labels, mask = batch
    start_positions, end_positions = (torch.full((len(mask),), p) for p in positions)
    results = {}
    for name in ("default", *LABEL_LOSSES):
        logits = [tensor.clone().requires_grad_() for tensor in (starts, ends)]
        if name == "default":
            loss = default_loss(*logits, start_positions, end_positions, mask)
        else:
            loss = LABEL_LOSSES[name](*logits, start_labels, end_labels, mask)
        results[name] = loss.detach(), torch.stack(torch.autograd.grad(loss, logits))
    return results


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("filler", ["-inf", "lowest", "highest", "1e4"])
def test_logits_at_masked_positions_never_count(dtype, filler):
    """Whatever stands there: same loss, same gradient, and none at the padding itself."""
    limits = torch.finfo(dtype)
    value = {"lowest": limits.min, "highest": limits.max}.get(filler) or float(filler)
    *logits, start_labels, end_labels, mask = random_batch(2, dtype)
    batches = [
        [*(x.masked_fill(~mask, fill) for x in logits), start_labels, end_labels, mask]
        for fill in (0.0, value)
    ]
    plain, filled = (losses_and_gradients(batch) for batch in batches)
    for name, (loss, gradient) in filled.items():
        assert math.isfinite(loss), f"{name}: the loss is {loss}"
        assert torch.isfinite(gradient).all(), f"{name}: the gradient is {gradient}"
        assert_close(loss, plain[name][0].item(), dtype)
        worst = (gradient - plain[name][1]).abs().max().item()
        assert worst < 1e-6, f"{name}: the gradient moved by {worst:.3g}"
        leak = gradient[:, ~mask].abs().max().item()
        assert leak == 0, f"{name}: a gradient of {leak:.3g} at a masked position"


@pytest.mark.parametrize("extra", [1, 7])
def test_more_padding_changes_nothing(extra):
    """Appending masked columns leaves the value as it was."""
    batch = random_batch(3, torch.float64)
    longer = [torch.nn.functional.pad(tensor, (0, extra), value=5) for tensor in batch[:2]]
    longer += [torch.nn.functional.pad(tensor, (0, extra), value=0) for tensor in batch[2:]]
    before, after = losses_and_gradients(batch), losses_and_gradients(longer)
    for name, (loss, _) in after.items():
        assert_close(loss, before[name][0].item())


@pytest.mark.parametrize("padding", ["masked", "counts"])
def test_gradients_equal_the_derivatives(padding):
    """Autograd against the derivatives of both terms, which are short enough to write down."""
    batch = random_batch(4, torch.float64)
    mask = batch[-1] if padding == "masked" else torch.ones_like(batch[-1])
    results = losses_and_gradients((*batch[:4], mask))
    keep = mask.numpy()
    for side in range(2):
        x, y = batch[side].numpy(), batch[2 + side].numpy()
        golds = y.sum(1, keepdims=True)
        target = np.where(golds > 0, y / np.maximum(golds, 1), keep / keep.sum(1, keepdims=True))
        exponentials = np.exp(x) * keep
        softmax, sigmoid = exponentials / exponentials.sum(1, keepdims=True), 1 / (1 + np.exp(-x))
        qa = (softmax - target) / 2 / len(x)
        tagging = keep * ((1 - y) * sigmoid - 2 * y * (1 - sigmoid)) / 2 / len(x)
        for name, expected in {"qa": qa, "tagging": tagging, "robust": 2 * qa + tagging}.items():
            worst = np.abs(results[name][1][side].numpy() - expected).max()
            assert worst < 1e-12, f"{name}, {('start', 'end')[side]}: off by {worst:.3g}"


def test_qa_loss_is_at_rest_where_all_logits_of_a_window_without_answer_are_equal():
    """The target is uniform there, so that equal logits are the optimum: gradient 0, loss ln n."""
    *_, mask = random_batch(5, torch.float64)
    logits = torch.where(mask, 1.7, 40.0).double()
    labels = torch.zeros_like(logits)
    loss, gradient = losses_and_gradients((logits, logits, labels, labels, mask))["qa"]
    assert_close(loss, mask.sum(1).double().log().mean().item())
    worst = gradient.abs().max().item()
    assert worst < 1e-15, f"a gradient of {worst:.3g} at the optimum"


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_large_logits_neither_overflow_nor_vanish(dtype):
    """Logits of about 1,000, where exp overflows and log(1 - sigmoid) is -inf."""
    *tensors, mask = random_batch(6, dtype, scale=1000.0)
    for name, loss in LABEL_LOSSES.items():
        assert_close(loss(*tensors, mask), batch_mean(FORMULAS[name], *tensors, mask), dtype)


def test_default_loss_equals_transformers():
    """BertForQuestionAnswering's own loss: of a full batch, and of unpadded rows one by one."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=50, intermediate_size=16, **sizes)
    torch.manual_seed(0)
    model = transformers.BertForQuestionAnswering(config).double().eval()
    torch.nn.init.normal_(model.qa_outputs.weight)  # the usual start gives all but equal logits
    ids = torch.randint(50, (6, 11))
    starts, ends = torch.tensor([0, 1, 3, 4, 2, 0]), torch.tensor([0, 4, 3, 2, 4, 0])

    theirs = model(input_ids=ids, start_positions=starts, end_positions=ends)
    everything = torch.ones_like(ids, dtype=torch.bool)
    ours = default_loss(theirs.start_logits, theirs.end_logits, starts, ends, everything)
    assert_close(ours, theirs.loss.item())

    lengths = [5, 11, 8, 5, 9, 6]
    rows = [
        model(ids[b : b + 1, :n], start_positions=starts[b : b + 1], end_positions=ends[b : b + 1])
        for b, n in enumerate(lengths)
    ]
    padded = [torch.full(ids.shape, -math.inf, dtype=torch.float64) for _ in range(2)]
    for b, n in enumerate(lengths):
        padded[0][b, :n], padded[1][b, :n] = rows[b].start_logits[0], rows[b].end_logits[0]
    mask = torch.arange(11) < torch.tensor(lengths)[:, None]
    ours = default_loss(*padded, starts, ends, mask)
    assert_close(ours, sum(row.loss.item() for row in rows) / len(rows))
