"""This implementation and the usual transformers recipe, side by side, in one table.

    python tests/benchmark.py                      # needs transformers and datasets
    python tests/benchmark.py --against d57db4f    # training also by an earlier commit's modules
    python tests/benchmark.py --device cuda        # BERT-base shape, bfloat16

The recipe is question answering as transformers' run_qa documents it: features by datasets.map and
a fast tokenizer, padded to 384; answers from the 20 best starts and ends, in Python loops; fused
AdamW, linear schedule, gradients clipped at 1.0. It runs in fp32 on windows padded to 384, or
under bfloat16 autocast on shuffled batches padded to their longest window, this only where the
processor has bfloat16 products: elsewhere a step takes 17 times as long as ours. Both sides load
one checkpoint, with its dropout. EQA_DATA names a folder with SQuAD 2.0 files, EQA_MINILM one with a
MiniLM-L6 checkpoint; without them, toy questions and random weights of these sizes stand in. With
other programs on the machine, set OMP_WAIT_POLICY=passive, or waiting threads cost more than work.

Both sides run in turns in one process, so that other programs disturb both alike. Numbers are
medians of the repeats (least-greatest). Training and evaluation take the same windows on both
sides: of all our batches in order of length, a random one from each of several equal parts.
Padding does not count as tokens. Peak memory is that of a process per side, all in all.
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import robust_eqa
from data import collate, length_bucketed, make_windows, read_questions, toy_corpus
from model import Config, QAModel, load_model, new_model, save_model
from robust_eqa import BF16, Settings, logits_of, loss_of, predict

ROOT = Path(__file__).resolve().parent.parent
LENGTH, STRIDE, MOST_TOKENS, BEST = 384, 128, 128, 20  # of windows, overlap, answers, n-best list
DEV, TRAIN = "squad2-dev.json.gz", "squad2-train-29k.json.gz"

# --- Data ------------------------------------------------------------------------------------


def generated_questions(n, more=4.5):
    """n questions of the toy corpus, each context with others after it until it is SQuAD's size."""
    rng, questions = np.random.default_rng(0), toy_corpus(n, 0)
    texts = np.array(list(dict.fromkeys(q.context for q in questions)))
    longer = {t: " ".join([t, *rng.choice(texts, round(rng.gamma(4, more / 4)))]) for t in texts}
    return [replace(q, context=longer[q.context]) for q in questions]


def generated_tokenizer():
    return new_model(sorted({q.context for q in toy_corpus(2000, 0)}), LENGTH)[1]


def read(name, n):
    """The first n questions of a file of EQA_DATA, or generated ones."""
    folder = os.environ.get("EQA_DATA")
    return read_questions(str(Path(folder, name)))[:n] if folder else generated_questions(n)


# --- The recipe ------------------------------------------------------------------------------


def recipe_input(questions, directory):  # -> a Dataset and a fast tokenizer
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = {name: [getattr(q, name) for q in questions] for name in ("id", "question", "context")}
    golds = [([a.text for a in q.answers], [a.start for a in q.answers]) for q in questions]
    rows["answers"] = [{"text": texts, "answer_start": starts} for texts, starts in golds]
    return datasets.Dataset.from_dict(rows), transformers.AutoTokenizer.from_pretrained(directory)


def recipe_positions(answers, offsets, owners):
    """First and last token of the first answer, both 0 ([CLS]) unless it lies inside."""
    if not answers["text"]:
        return 0, 0
    begin, end = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
    first, last = owners.index(1), len(owners) - 1
    while owners[last] != 1:
        last -= 1
    if offsets[first][0] > begin or offsets[last][1] < end:
        return 0, 0
    while first < len(offsets) and offsets[first][0] <= begin:
        first += 1
    while offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


def recipe_features(dataset, tokenizer, training):
    """Token lists of 384; and the answer's positions, or the context's offsets and the id."""
    how = {"truncation": "only_second", "max_length": LENGTH, "stride": STRIDE}
    how |= {"return_overflowing_tokens": True, "return_offsets_mapping": True}

    def featurize(rows):
        asked = [question.lstrip() for question in rows["question"]]
        encoded = tokenizer(asked, rows["context"], padding="max_length", **how)
        samples, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        owners = [encoded.sequence_ids(k) for k in range(len(samples))]
        if training:
            golds = [rows["answers"][sample] for sample in samples]
            places = [recipe_positions(*window) for window in zip(golds, offsets, owners)]
            encoded["start_positions"], encoded["end_positions"] = map(list, zip(*places))
        else:
            encoded["example_id"] = [rows["id"][sample] for sample in samples]
            both = [zip(*window) for window in zip(offsets, owners)]
            encoded["offset_mapping"] = [[p if o == 1 else None for p, o in w] for w in both]
        return encoded

    names = dataset.column_names
    return dataset.map(featurize, batched=True, remove_columns=names, load_from_cache_file=False)


def recipe_answers(examples, features, all_start_logits, all_end_logits):
    """{id: text} from the 20 x 20 best spans of each window, without the n-best list's file.

    As in the recipe, a window's row is read whole for its id, its offsets and an optional column.
    """
    windows, answers = defaultdict(list), {}
    for k, row in enumerate(features):
        windows[row["example_id"]].append(k)
    for example in examples:
        spans, null = [], {"score": math.inf}
        for k in windows[example["id"]]:
            offsets = features[k]["offset_mapping"]
            widest = features[k].get("token_is_max_context")
            s, e = all_start_logits[k], all_end_logits[k]
            if s[0] + e[0] < null["score"]:
                null = {"place": (0, 0), "score": s[0] + e[0], "start": s[0], "end": e[0]}
            for i in np.argsort(s)[: -BEST - 1 : -1].tolist():
                for j in np.argsort(e)[: -BEST - 1 : -1].tolist():
                    if offsets[i] is None or offsets[j] is None:
                        continue
                    if j < i or j - i >= MOST_TOKENS or (widest and not widest[str(i)]):
                        continue
                    place, score = (offsets[i][0], offsets[j][1]), s[i] + e[j]
                    spans.append({"place": place, "score": score, "start": s[i], "end": e[j]})
        spans = sorted([*spans, null], key=lambda span: span["score"], reverse=True)[:BEST]
        spans += [] if any(span is null for span in spans) else [null]
        exponents = np.exp([span["score"] - spans[0]["score"] for span in spans])
        for span, probability in zip(spans, exponents / exponents.sum()):
            first, last = span["place"]
            span |= {"text": example["context"][first:last], "probability": probability}
        best = next((span for span in spans if span["text"]), null)
        answers[example["id"]] = "" if null["score"] > best["score"] else best["text"]
    return answers


def recipe_steps(directory, features, bf16):
    """-> training step and evaluation forward on the rows of given indices."""
    import transformers

    kind = transformers.AutoModelForQuestionAnswering
    model = kind.from_pretrained(directory, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, 10**5)

    def forward(indices, training=False):
        batch = {name: torch.tensor(x) for name, x in features[indices.tolist()].items()}
        if bf16:  # pad dynamically
            longest = int(batch["attention_mask"].sum(1).max())
            batch = {name: x[:, :longest] if x.dim() == 2 else x for name, x in batch.items()}
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with autocast, torch.set_grad_enabled(training):
            return model.train(training)(**batch)

    def train(indices):
        forward(indices, training=True).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return train, forward


# --- Ours ------------------------------------------------------------------------------------


def collated(windows, indices):
    return collate([windows[i] for i in indices], robust_eqa.DEVICE)


def lengths_of(windows):
    return np.array([len(window.input_ids) for window in windows])


def our_steps(model, windows):
    """-> what a step of robust_eqa.fit and of predict do, on the windows of given indices."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)

    def train(indices):
        loss_of(model.train(), collated(windows, indices), Settings()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def evaluate(indices):
        return logits_of(model.eval(), collated(windows, indices))

    return train, evaluate


def earlier_step(commit, directory, questions):
    """-> the training step of the modules that git has at a commit, on its own windows."""
    names, found = ("data", "model", "robust_eqa"), {}
    ours = {name: sys.modules.pop(name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            command = ["git", "show", f"{commit}:{name}.py"]
            text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
            Path(folder, f"{name}.py").write_bytes(text)
        sys.path.insert(0, folder)
        for name in names:
            found[name] = importlib.import_module(name)
        sys.path.remove(folder)
    sys.modules.update(ours)
    code = found["robust_eqa"]
    model, tokenizer = found["model"].load_model(directory)
    windows = found["data"].make_windows(questions, tokenizer, LENGTH, STRIDE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)

    def train(indices):
        batch = [windows[i] for i in indices]
        if hasattr(code, "backward"):  # the first edition
            code.backward(model.train(), batch, code.Settings(loss="robust"))
        else:
            batch = found["data"].collate(batch)
            logits = code.logits_of(model.train(), batch)
            code.robust_loss(logits, batch.labels, batch.mask).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return train


class KnownLogits(QAModel):
    """In the model's place: looks up the logits (2, n, LENGTH) that are given to n windows."""

    def __init__(self, config, windows, logits):
        super().__init__(replace(config, num_hidden_layers=1))
        keys = [window.input_ids.astype(np.int64).tobytes() for window in windows]
        self.known = {key: torch.from_numpy(logits[:, k]) for k, key in enumerate(keys)}

    def forward(self, input_ids, segment_ids, mask):
        lengths = mask.sum(1).tolist()
        keys = [ids[:length].tobytes() for ids, length in zip(input_ids.numpy(), lengths)]
        return torch.stack([self.known[key] for key in keys], 1)[:, :, : mask.shape[1]]


class RandomLogits(QAModel):
    """In the model's place: logits that cost nothing, so that predict's own work shows."""

    numbers = torch.randn(2, 2**17)

    def forward(self, input_ids, segment_ids, mask):
        return self.numbers[:, : mask.numel()].view(2, *mask.shape)


# --- Measuring -------------------------------------------------------------------------------


def race(repeats, *sides):
    """Make the calls that every side has for a repeat, in turns.

    -> seconds (sides, repeats), each side's last result. Before, each side makes one call.
    """
    seconds, results = np.zeros((len(sides), repeats)), [side(0)[0]() for side in sides]
    for k in range(repeats):
        calls = [side(k) for side in sides]
        turns = [((j + 0.5) / len(c), s, j) for s, c in enumerate(calls) for j in range(len(c))]
        for _, s, j in sorted(turns):
            began = time.perf_counter()
            results[s] = calls[s][j]()
            seconds[s, k] += time.perf_counter() - began
    return seconds, results


def pick_batches(lengths, batch_size, n, seed):
    """Of length_bucketed's batches in order of length, a random one from each n-th of them."""
    rng = np.random.default_rng(seed)
    batches = [b for b in length_bucketed(lengths, batch_size, rng) if len(b) == batch_size]
    batches.sort(key=lambda batch: lengths[batch].max())
    return [batches[int((k + rng.random()) / n * len(batches))] for k in range(n)]


def measure_share(train, model, lengths, n, repeats, size):
    """Training at batch 16: windows/s, tokens/s, and per cent of the speed of products alone.

    Operations: 6 per encoder weight and token, 12 T T D per layer and window for attention.
    """
    dtype, kind = (torch.bfloat16, "bf16") if BF16 else (torch.float32, "fp32")
    square = torch.randn(size, size, device=robust_eqa.DEVICE, dtype=dtype)
    picked = [pick_batches(lengths, 16, n, seed=k) for k in range(repeats)]

    def steps(k):
        for batch in picked[k]:
            train(batch)
        return model.head.bias[0].item()  # waits for a GPU

    def products():
        return (square @ square)[0, 0].item()

    seconds, _ = race(repeats, lambda k: [partial(steps, k)], lambda k: [products] * 10)
    T = np.array([lengths[np.concatenate(batches)] for batches in picked], float)
    weights = sum(x.numel() for x in model.layers.parameters())
    attention = 12 * model.config.num_hidden_layers * model.config.hidden_size
    speed = (6 * weights * T + attention * T * T).sum(1) / seconds[0]
    peak = 10 * 2 * size**3 / seconds[1]
    rates = f"{spread(16 * n / seconds[0])} windows/s, {spread(T.sum(1) / seconds[0])} tokens/s"
    peak_in_words = f"{kind} products of {size}: {spread(peak / 1e9)} GFLOP/s"
    return np.median(T.sum(1) / seconds[0]), 100 * speed / peak, f"{rates}; {peak_in_words}"


def spread(numbers):
    """'6.1 (5.8-6.3)': median, least and greatest, or the only one."""
    three = np.median(numbers), np.min(numbers), np.max(numbers)
    middle, low, high = (f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in three)
    return middle if len(numbers) == 1 else f"{middle} ({low}-{high})"


def verdict(met, bar):
    return f"{bar}: {'met' if met else 'MISSED'}"


def report(numbers, stages, unit=" s", windows=0, tokens=0):
    """A row for each (stage, bar): ours, the recipe's, how many times as much, and the bar.

    numbers (sides, repeats), ours first; seconds are shown as rates where windows are given.
    """
    cells = [spread(x) + unit for x in numbers]
    if windows:
        rates = [(np.median(windows / x), np.median(tokens / x)) for x in numbers]
        cells = [f"{w:.1f} windows/s {t:6.0f} tokens/s" for w, t in rates]
    for (stage, bar), cell, theirs in zip(stages, cells[1:], numbers[1:]):
        ratio = theirs / numbers[0]
        judged = verdict(np.median(ratio) >= bar, f"at least {bar}") if bar else ""
        print(f"{stage:46}{cells[0]:>32}{cell:>32}  {spread(ratio):20}{judged}", flush=True)


# --- Stages in processes of their own --------------------------------------------------------


def child(name, size):
    """measure_stage in a process of its own, so that the peak memory is this stage's."""
    command = [sys.executable, __file__, "--stage", name, str(size)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure_stage(name, size):
    """-> seconds, peak MB (with imports and data) of a stage on `size` questions."""
    directory, batches = os.environ["EQA_MINILM"], []
    questions = repeated_questions(size) if name in ("features", "predict") else read(DEV, size)
    if name in ("fp32", "bf16"):
        dataset, fast = recipe_input(questions, directory)
        features = recipe_features(dataset, fast, training=True)
        train = recipe_steps(directory, features, bf16=name == "bf16")[0]
        batches = np.random.default_rng(0).permutation(len(features))[:48].reshape(6, 8)
    else:
        model, tokenizer = load_model(directory)
    began = time.perf_counter()
    if name == "predict":
        model = RandomLogits(replace(model.config, num_hidden_layers=1))
        predict(model, tokenizer, questions, Settings(loss="default"))
    elif name in ("features", "ours"):
        windows = make_windows(questions, tokenizer, LENGTH, STRIDE)
    if name == "ours":
        train, lengths = our_steps(model, windows)[0], lengths_of(windows)
        batches = [*pick_batches(lengths, 8, 5, seed=0), np.argsort(lengths)[-8:]]
    for batch in batches:  # six training steps
        train(batch)
    # ru_maxrss would not do: it starts at what the parent had when it forked.
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return time.perf_counter() - began, int(peak) / 1024


def repeated_questions(size):
    """The training questions over and over, with new ids and contexts: nothing is shared."""
    once, questions = read(TRAIN, size), []
    for k in range(math.ceil(size / len(once))):
        contexts = {q.context: f"{q.context} {k}" for q in once}
        new = (replace(q, id=f"{q.id}-{k}", context=contexts[q.context]) for q in once)
        questions += islice(new, size - len(questions))
    return questions


# --- The tables ------------------------------------------------------------------------------


def compare(directory, quick, against):
    """Ours and the recipe on the first half of SQuAD 2.0's dev questions."""
    repeats, n = (2, 2) if quick else (5, 6)  # batches of training in each
    questions = read(DEV, 600 if quick else 6078)
    (model, tokenizer), (dataset, fast) = load_model(directory), recipe_input(questions, directory)
    seconds, (windows, training, evaluation) = race(
        repeats,
        lambda k: [partial(make_windows, questions, tokenizer, LENGTH, STRIDE)],
        lambda k: [partial(recipe_features, dataset, fast, training=True)],
        lambda k: [partial(recipe_features, dataset, fast, training=False)],
    )
    lengths = lengths_of(windows)
    print(f"{len(windows)} windows of {len(questions)} questions, mean {lengths.mean():.0f} tokens")
    print(f"{repeats} repeats; {torch.get_num_threads()} threads; torch {torch.__version__}\n")
    print(f"{'stage':46}{'ours':>32}{'recipe':>32}  {'ratio':20}bar")
    report(seconds, [("features, training", 3), ("features, evaluation", 3)])
    for window, row in zip(windows, evaluation):
        ids = window.input_ids.tolist()
        assert ids == row["input_ids"][: len(ids)], f"{row['example_id']} differs"

    logits = np.random.default_rng(0).normal(size=(2, len(windows), LENGTH)).astype(np.float32)
    logits[:, :, 0] *= 4  # so that some questions get no answer
    logits[:, np.arange(LENGTH) >= lengths[:, None]] -= 20  # padding
    known, settings = KnownLogits(model.config, windows, logits), Settings(loss="default")
    seconds, ((found, *_), expected, _) = race(
        repeats,
        lambda k: [partial(predict, known, tokenizer, questions, settings)],
        lambda k: [partial(recipe_answers, dataset, evaluation, *logits)],
        lambda k: [partial(make_windows, questions, tokenizer, LENGTH, STRIDE)],
    )
    decoding = seconds[:1] - seconds[2:]  # with collate
    report(np.concatenate([decoding, seconds[1:2]]), [("decoding, the same random logits", None)])
    some = questions[: 60 if quick else 500]
    whole, _ = race(2, lambda k: [partial(predict, model, tokenizer, some, settings)])
    share = 100 * np.median(decoding) / len(questions) * len(some) / np.median(whole)
    judged = verdict(share <= 3, "at most 3%")
    print(f"decoding and padding: {share:.2f}% of an evaluation's time, {judged}", flush=True)

    theirs = [recipe_steps(directory, training, bf16) for bf16 in (False, True)[: 1 + BF16]]
    earlier = earlier_step(against, directory, questions) if against else None

    def race_steps(batch_size, n, ours, theirs, *stages):
        """Ours on batches of like length, the recipe's sides on shuffled ones of 8."""
        picked = [pick_batches(lengths, batch_size, n, seed=k) for k in range(repeats)]
        rng = np.random.default_rng(0)
        mixed = [rng.permutation(np.concatenate(batches)).reshape(-1, 8) for batches in picked]
        sides = [(ours, picked), *((side, picked if side == earlier else mixed) for side in theirs)]
        calls = [
            lambda k, step=step, batches=batches: [partial(step, batch) for batch in batches[k]]
            for step, batches in sides
        ]
        tokens = np.array([lengths[batches].sum() for batches in mixed])
        report(race(repeats, *calls)[0], stages, windows=batch_size * n, tokens=tokens)

    padded, dynamic = "fp32 padded to 384", "bf16, dynamic padding"
    (train, evaluate), (trains, evaluates) = our_steps(model, windows), zip(*theirs)
    race_steps(8, n, train, trains, (f"training, {padded}", None), (f"training, {dynamic}", 2))
    stages = (f"evaluation, {padded}", None), (f"evaluation, {dynamic}", None)
    race_steps(32, n // 2, evaluate, evaluates, *stages)
    if earlier:
        race_steps(16, n // 2, train, [earlier], (f"training, {against}", 0.9))
    sides = ("ours", "fp32", "bf16")[: 2 + BF16]
    memory = np.array([[child(name, len(questions))[1]] for name in sides])
    report(memory, [(f"training's memory, {padded}", None), (f"same, {dynamic}", None)], " MB")
    _, share, rates = measure_share(train, model, lengths, n, repeats, 2048)
    judged = verdict(np.median(share) >= 25, "at least 25%")
    print(f"\ntraining, batch 16: {spread(share)}% of the matmul peak, {judged}; {rates}")
    same = sum(found[key] == expected[key] for key in expected)
    empty = sum(not text for text in found.values())
    print(f"decoding: {same} of {len(expected)} answers are equal; {empty} are empty")


def scale(quick):
    """Features, and predict with logits that cost nothing, at three sizes, each in a process."""
    print(f"\n{'stage':10}{'questions':>12}{'seconds':>10}{'ms a question':>16}{'peak MB':>10}")
    for name in ("features", "predict"):
        for size in (2000, 4000, 8000) if quick else (32_500, 65_000, 130_000):
            seconds, peak = child(name, size)
            judged = verdict(seconds <= 60 and peak <= 1024, "at most 60 s and 1024 MB")
            judged = judged if (name, size) == ("features", 130_000) else ""
            ms = 1000 * seconds / size
            print(f"{name:10}{size:12}{seconds:10.1f}{ms:16.3f}{peak:10.0f}  {judged}", flush=True)


def recipe_gpu_step(windows, padded):
    """-> a training step of transformers' BERT, bfloat16, on our windows, perhaps padded to 384."""
    import transformers

    model = transformers.BertForQuestionAnswering(transformers.BertConfig()).to("cuda").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)

    def train(indices):
        batch = collated(windows, indices)
        inputs = torch.stack([batch.input_ids, batch.segment_ids, batch.mask])
        if padded:
            inputs = torch.nn.functional.pad(inputs, (0, LENGTH - inputs.shape[-1]))
        ids, segments, mask = inputs
        start, end = batch.positions
        with torch.autocast("cuda", torch.bfloat16):
            labels = {"start_positions": start, "end_positions": end}
            loss = model(ids, mask, segments, **labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return train


def compare_gpu(windows, lengths, train, repeats, n):
    """Our training step and the recipe's, batch 16, in turns."""
    picked = [pick_batches(lengths, 16, n, seed=k) for k in range(repeats)]
    rng = np.random.default_rng(0)
    mixed = [rng.permutation(np.concatenate(batches)).reshape(-1, 16) for batches in picked]

    def steps(train, batches):
        for batch in batches:
            train(batch)
        torch.cuda.synchronize()

    theirs = [recipe_gpu_step(windows, padded) for padded in (True, False)]
    seconds, _ = race(
        repeats,
        lambda k: [partial(steps, train, picked[k])],
        *(lambda k, side=side: [partial(steps, side, mixed[k])] for side in theirs),
    )
    tokens = np.array([lengths[batches].sum() for batches in mixed])
    stages = ("training, padded to 384", None), ("training, dynamic padding", None)
    report(seconds, stages, windows=16 * n, tokens=tokens)


def measure_gpu(quick):
    """BERT-base shape, random weights, bfloat16: windows of 384 tokens, and of SQuAD's lengths."""
    model, tokenizer = QAModel(Config()).to("cuda"), generated_tokenizer()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch 16, BERT-base shape")
    for name, n, more in (("384 tokens", 400, 60), ("lengths like SQuAD's", 6000, 4.5)):
        windows = make_windows(generated_questions(n, more), tokenizer, LENGTH, STRIDE)
        windows = [w for w in windows if len(w.input_ids) == LENGTH or more < 60]
        lengths, train = lengths_of(windows), our_steps(model, windows)[0]
        how = (5, 2, 8192) if quick else (30, 5, 8192)
        tokens, share, rates = measure_share(train, model, lengths, *how)
        print(f"{name}: {spread(share)}% of the matmul peak; {rates}")
    minutes = 3 * 132_000 * 186 / tokens / 60
    print(f"three epochs of SQuAD 2.0, 132,000 windows of mean length 186: {minutes:.0f} minutes")
    print(f"peak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
    compare_gpu(windows, lengths, train, *((2, 5) if quick else (5, 30)))


def main():
    parser = argparse.ArgumentParser(description="Ours and the transformers recipe, side by side.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="few data and repeats: a smoke test")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)  # name and size, see child()
    parser.add_argument("--against", metavar="COMMIT", help="an earlier one, for training's time")
    own = parser.parse_args()
    robust_eqa.DEVICE = own.device
    torch.manual_seed(0)
    if own.stage:
        print(json.dumps(measure_stage(own.stage[0], int(own.stage[1]))))
    elif own.device == "cuda":
        measure_gpu(own.quick)
    else:
        with tempfile.TemporaryDirectory() as made:
            if "EQA_MINILM" not in os.environ:
                minilm = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
                save_model(QAModel(Config(**minilm)), generated_tokenizer(), made)
                os.environ["EQA_MINILM"] = made  # where the child processes look, too
            compare(os.environ["EQA_MINILM"], own.quick, own.against)
            scale(own.quick)


if __name__ == "__main__":
    main()
