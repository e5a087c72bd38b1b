"""The exercises: the project and, with --mine, a learner's file by the same checks; and the gate.

The gate: every blank is blank, the project passes, every wrong answer is caught with its own hint.
"""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from exercises import checks
from exercises.checks import EXERCISES, FACTS, MINE, attempt, examine, explain, known_mistakes, load
from exercises.hints import ANY, HINTS
from wrong_answers import RIGHT, WRONG

import data
import model
import robust_eqa

HERE = Path(__file__).parent
NAMES = [name for exercise in EXERCISES for name in exercise.functions]
MODULES = vars(data) | vars(model) | vars(robust_eqa)
PROJECT = SimpleNamespace(**{name: MODULES[name] for name in NAMES})


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_exercise(exercise, pytestconfig):
    """Of the project, or of the learner's file."""
    outcome = attempt(exercise, getattr(pytestconfig, "mine", PROJECT))
    if outcome.state == "not attempted":
        pytest.skip(outcome.text)
    if outcome.state != "right":
        pytest.fail(outcome.text, pytrace=False)


# --- The gate --------------------------------------------------------------------------------


def test_every_blank_is_blank():
    """mine.py as it is kept here has no solutions; its signatures and headings are right."""
    text, blanks = MINE.read_text("utf-8"), load(MINE)
    for exercise in EXERCISES:
        number, name, functions, paper, level, minutes = exercise
        assert f"# --- {number} {name}: {paper}; {level}, {minutes} minutes -" in text
        for name in functions:
            state = examine(name, getattr(blanks, name)).state
            assert state == "not attempted", f"{name} is solved; keep solutions to yourself"
            signature = inspect.signature(getattr(blanks, name))
            assert signature == inspect.signature(getattr(PROJECT, name)), name


@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_caught_each_with_its_own_hint(name):
    """And there is no hint without a wrong answer that leads to it."""
    known = known_mistakes(name)
    for (hint, version), (_, results) in zip(WRONG[name], known):
        outcome = explain(name, version, results, known)
        assert outcome.hint == hint, f"not caught, or not as {hint}: {outcome.text}"
        assert outcome.sure or hint == "rng", f"only a guess: {outcome.text}"
    assert HINTS[name].keys() <= {hint for hint, _ in known}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_in_other_styles_are_right(name):
    for version in RIGHT[name]:
        assert examine(name, version).state == "right", version.__name__


@pytest.mark.parametrize("name", NAMES)
def test_of_an_unknown_mistake_no_hint_is_sure(name):
    """Each wrong answer in turn is forgotten: it may be guessed, never taken for another."""
    known = known_mistakes(name)
    for k, (hint, version) in enumerate(WRONG[name]):
        outcome = explain(name, version, known[k][1], known[:k] + known[k + 1 :])
        assert outcome.state in ("raised", "wrong")
        sure = outcome.sure and outcome.hint not in FACTS
        assert outcome.hint == hint or not sure, f"{hint} is taken for {outcome.text}"


def test_a_blank_that_is_called_is_named():
    """robust_loss before qa_loss, token_f1 before normalize_answer."""
    blanks = load(MINE)

    def robust_loss(logits, labels, mask, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
        return qa_weight * blanks.qa_loss(logits, labels, mask)

    def token_f1(prediction, gold):
        return float(blanks.normalize_answer(prediction) == gold)

    for function, blank, number in (robust_loss, "qa_loss", 7), (token_f1, "normalize_answer", 1):
        outcome = examine(function.__name__, function)
        assert outcome.state == "raised"
        assert f"{blank} is still blank: do exercise {number} first." in outcome.text


def test_what_is_not_sure_is_a_guess():
    """The same mistake alone, and with another one."""

    def alone(logits, labels, mask):
        return PROJECT.qa_loss(logits, labels.flip(0), mask)

    def with_another(logits, labels, mask):
        return alone(logits, labels, mask) + 1e-2 * len(mask)

    assert "hint       Start logits" in examine("qa_loss", alone).text
    assert "hint       Perhaps: " in examine("qa_loss", with_another).text


def test_accidents_have_hints(monkeypatch):
    """Those that can happen in every exercise."""

    def endless(length, room, stride):
        while True:
            pass

    monkeypatch.setattr(checks, "SECONDS", 0.1)
    hints = {hint for versions in WRONG.values() for hint, _ in versions}
    assert ANY.keys() == hints & ANY.keys() | {examine("window_bounds", endless).hint}


def test_one_case_that_does_not_end_is_enough(monkeypatch):
    """The stride taken for the step, which may be 0: each such case would cost time and memory."""
    strides = []

    def window_bounds(length, room, stride):
        strides.append(stride)
        bounds = [(0, min(room, length))]
        while bounds[-1][1] < length:
            start = bounds[-1][0] + stride
            bounds.append((start, min(start + room, length)))
        return bounds

    monkeypatch.setattr(checks, "SECONDS", 0.1)
    assert "hint       Perhaps: Neighbours" in examine("window_bounds", window_bounds).text
    assert strides.count(0) == 1


def test_the_readme_is_true():
    """Its table, and the feedback that it shows."""
    text = (MINE.parent / "README.md").read_text("utf-8")
    for number, name, functions, paper, level, minutes in EXERCISES:
        names = ", ".join(f"`{name}`" for name in functions)
        command = f"`python -m pytest --mine -k {name}`"
        row = f"| {number} | {paper} | {names} | {level}, {minutes} min | {command} |"
        assert row in text, row
    argmaxes = dict(WRONG["best_spans"])["end-before-start"]
    argmaxes.__signature__ = inspect.signature(PROJECT.best_spans)  # for the arguments' names
    feedback = examine("best_spans", argmaxes).text
    assert feedback in text, feedback
    total = sum(map(len, WRONG.values()))
    assert f"{total} of {total} wrong answers caught" in text


SOLUTIONS = """
import data

def normalize_answer(text):
    return text / 2

def token_spans(offsets, answers):
    raise NotImplementedError  # your code

def window_bounds(length, room, stride):
    return data.window_bounds(length, room, stride)

def golds_inside(golds, start, stop):
    return golds
"""


def test_mine_reports_the_four_outcomes(tmp_path):
    """pytest --mine -k, as a learner runs it, in a copy with solutions of its own."""
    copy = shutil.copytree(HERE / "exercises", tmp_path / "tests" / "exercises")
    (copy / "mine.py").write_text(SOLUTIONS, "utf-8")
    for name in ("conftest.py", "test_exercises.py", "wrong_answers.py"):
        shutil.copy(HERE / name, tmp_path / "tests")
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "pytest", "--mine", "-k", "f1 or spans or windows or labels"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    for expected in (
        "2 failed, 1 passed, 1 skipped, 6 deselected",
        "normalize_answer: raised\n\ngiven      normalize_answer(text='Red')\nraised     TypeError: ",
        "\nat         tests/exercises/mine.py:5: return text / 2\nexpected   'red'\nhint       Perhaps: A",
        "golds_inside: wrong\n",
        "token_spans: not attempted, tests/exercises/mine.py:8\n",
        "\n1 of 10 done; next: 1 f1, tests/exercises/mine.py:4 (easy, about 10 minutes)\n",
    ):
        assert expected in run.stdout, run.stdout + run.stderr
