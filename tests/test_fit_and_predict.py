"""fit and predict on models of a few lines, by what these are given and asked for."""

import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from test_data import load

import robust_eqa
from data import InputError, Question, make_windows, toy_corpus
from model import Config
from robust_eqa import Settings, best_spans, decide, fit, predict

WHO = [Question(f"q{k}", "Who?", "the lake is new " * (k + 1), []) for k in range(20)]


class Small(torch.nn.Module):
    """What fit and predict ask of a model; its logits are `bias`, what it was given is kept."""

    def __init__(self, width=32, broken_from=10**9):
        super().__init__()
        self.config, self.max_length = Config(hidden_size=width), 80
        self.bias = torch.nn.Parameter(torch.zeros(2))
        self.broken_from, self.batches, self.drawn, self.threads = broken_from, [], [], set()

    def forward(self, input_ids, segment_ids, mask):
        self.batches.append(sorted(mask.sum(1).tolist()))
        self.drawn.append(tuple(torch.rand(4).tolist()))  # as dropout does
        self.threads.add(torch.get_num_threads())
        broken = math.nan if len(self.batches) >= self.broken_from else 0.0
        return (self.bias + broken)[:, None, None].expand(2, *mask.shape)


def fitted(out, model=None, **given):
    """A model after fit, on windows of 20 lengths in batches of 4: five steps an epoch."""
    model, windows = model or Small(), make_windows(WHO, load("roberta"), 400, 0)
    given = {"batch_size": 4, "epochs": 3.0, "out": str(out)} | given
    return model, fit(model, windows, Settings(**given))


# --- Training ------------------------------------------------------------------------------------


def test_each_epoch_has_all_windows_in_an_order_of_its_own(tmp_path):
    model, _ = fitted(tmp_path)
    epochs = [model.batches[k : k + 5] for k in (0, 5, 10)]
    for batches in epochs:
        lengths = [length for batch in batches for length in batch]
        assert len(batches) == 5 and len({*lengths}) == 20, "not all windows, each once"
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0], epochs
    assert fitted(tmp_path)[0].batches == model.batches, "the same seed, another order"
    assert fitted(tmp_path, seed=1)[0].batches != model.batches, "another seed, the same order"


def test_each_step_draws_its_own_dropout_which_the_seed_decides(tmp_path):
    torch.manual_seed(5)  # whatever was drawn before
    drawn = fitted(tmp_path)[0].drawn
    assert len(set(drawn)) == len(drawn) == 15, "steps that draw the same"
    assert fitted(tmp_path)[0].drawn == drawn
    assert not {*drawn} & {*fitted(tmp_path, seed=1)[0].drawn}, "another seed, the same dropout"


LOOKS = [  # seconds between saved states, epochs of five steps, the step that is named
    (300.0, 12.0, 50),  # where it is logged
    (300.0, 4.0, 20),  # at the end
    (0.0, 12.0, 7),  # where it is saved
]


@pytest.mark.parametrize("save_every, epochs, step", LOOKS)
def test_the_loss_is_looked_at_where_it_is_logged_or_saved(save_every, epochs, step, tmp_path):
    """Nowhere else: a GPU would have to be waited for. No state is saved that is not finite."""
    model = Small(broken_from=7)
    with pytest.raises(InputError, match=f"not finite at step {step};"):
        fitted(tmp_path, model, save_every=save_every, epochs=epochs)
    assert len(model.batches) == step
    saved = [torch.load(file, weights_only=True)["model"]["bias"] for file in tmp_path.iterdir()]
    assert len(saved) == (save_every == 0) and all(x.isfinite().all() for x in saved), saved


def test_a_state_is_saved_whenever_save_every_seconds_have_passed(tmp_path, monkeypatch):
    model, saved = Small(), []
    monkeypatch.setattr(time, "monotonic", lambda: len(model.batches))  # a step takes a second
    monkeypatch.setattr(robust_eqa, "save_state", lambda *state: saved.append(state[4]))
    fitted(tmp_path, model, save_every=4.0)
    assert saved == [4, 8, 12, 15], "steps, of which there are 15"


@pytest.mark.parametrize("width, threads", [(255, 1), (256, 2)])
def test_a_narrow_model_is_trained_on_one_thread_which_is_put_back(width, threads, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fitted(tmp_path, Small(width))[0].threads == {threads}
        assert torch.get_num_threads() == 2
        with pytest.raises(InputError):
            fitted(tmp_path, Small(width, broken_from=1))
        assert torch.get_num_threads() == 2, "not put back after an error"
    finally:
        torch.set_num_threads(before)


# --- Prediction ----------------------------------------------------------------------------------


class Table(Small):
    """Logits that depend on a token and on its place alone, whatever is in the batch with it."""

    def forward(self, input_ids, segment_ids, mask):
        numbers = torch.randn(2, 997, generator=torch.Generator().manual_seed(0))
        return numbers[:, (input_ids * 31 + torch.arange(mask.shape[1]) * 7) % 997]


def long_questions(n):
    """n questions with texts of their own, most of which take several windows of 40 tokens."""
    rng, found = random.Random(0), []
    for k, q in enumerate(toy_corpus(n, 5)):
        context = " ".join(rng.choices(q.context.split(), k=rng.randint(1, 25)))
        found.append(replace(q, question=f"Who is {k}?", context=f"{k} {context}", answers=[]))
    return found


@pytest.mark.parametrize("loss", ["default", "robust"])
def test_predict_looks_up_each_questions_windows_however_many_questions_there_are(loss):
    """Against the windows of all, read one by one: 1,001 questions, and their first 499 to 501."""
    questions, tokenizer, windows_of = long_questions(1001), load("bert"), {}
    settings, expected = Settings(loss=loss, max_length=40, stride=8), {}
    for window in make_windows(questions, tokenizer, 40, 8):
        windows_of.setdefault(window.question.id, []).append(window)
    assert len(windows_of) == 1001 < sum(map(len, windows_of.values())) / 2
    for key, windows in windows_of.items():
        found = []  # score, null score, text
        for window in windows:
            ids = torch.tensor(window.input_ids)[None]
            inside = torch.zeros_like(ids).bool()
            inside[:, window.context] = True
            logits = Table()(ids, None, inside)
            score, start, end = best_spans(logits, inside, settings.max_answer_length)
            found.append((score.item(), logits[:, 0, 0].sum().item(), window.text(start, end)))
        scores, nulls, texts = zip(*found)
        best, no_answer = decide(scores, nulls if loss == "default" else None)
        expected[key] = texts[best], no_answer
    settings.threshold = sorted(no_answer for _, no_answer in expected.values())[400]
    for n in (1001, 499, 500, 501, 0):
        answers, spans, no_answer = predict(Table(), tokenizer, questions[:n], settings)
        keys = [q.id for q in questions[:n]]
        assert list(spans) == list(answers) == list(no_answer) == keys
        wrong = [key for key in keys if (spans[key], no_answer[key]) != expected[key]]
        assert not wrong, f"{len(wrong)} of {n} differ from {expected[wrong[0]]}: {wrong[:5]}"
        kept = {key: spans[key] * (no_answer[key] <= settings.threshold) for key in keys}
        assert answers == kept, f"not by the threshold of {settings.threshold}"


def test_two_threads_predict_with_one_model_and_one_tokenizer_like_one():
    """And the tokenizer, which cuts and pads, is as it was at any moment."""
    questions, tokenizer = long_questions(60), load("bert")
    before, settings = tokenizer.to_str(), Settings(max_length=40, stride=8)
    expected = predict(Table(), tokenizer, questions, settings)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(predict, Table(), tokenizer, questions, settings) for _ in range(12)]
        while not all(call.done() for call in calls):
            assert tokenizer.to_str() == before, "it is changed for the time of a call"
            time.sleep(0.002)
    assert all(call.result() == expected for call in calls)


def test_one_id_twice_is_refused_as_in_a_file():
    with pytest.raises(InputError, match="q0.* twice"):
        predict(Table(), load("bert"), [WHO[0], WHO[1], replace(WHO[2], id="q0")], Settings())
