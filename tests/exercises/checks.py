"""From the cases to feedback, for a learner's file, the project and known wrong answers alike."""

import copy
import functools
import importlib.util
import inspect
import math
import os
import random
import signal
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from exercises.cases import CASES
from exercises.hints import ANY, HINTS
from wrong_answers import WRONG

from data import Answer, Question

MINE = Path(__file__).with_name("mine.py")
SECONDS = 3  # that one call may take


class Exercise(NamedTuple):
    number: int
    name: str
    functions: tuple
    paper: str
    level: str
    minutes: int


EXERCISES = [
    Exercise(1, "f1", ("normalize_answer", "token_f1"), "paper 6", "easy", 10),
    Exercise(2, "spans", ("token_spans",), "paper 5.2", "medium", 20),
    Exercise(3, "windows", ("window_bounds",), "paper 5.2", "easy", 10),
    Exercise(4, "labels", ("golds_inside",), "paper 5.2", "easy", 10),
    Exercise(5, "attention", ("attention",), "Vaswani et al. 2017", "medium", 20),
    Exercise(6, "default_loss", ("default_loss",), "paper 2", "easy", 15),
    Exercise(7, "qa_loss", ("qa_loss",), "paper 5.2", "hard", 30),
    Exercise(8, "robust_loss", ("tagging_loss", "robust_loss"), "paper 5.2", "medium", 20),
    Exercise(9, "decoder", ("best_spans", "decide"), "paper 5.2", "hard", 40),
    Exercise(10, "synthetic", ("synthetic_answer",), "paper 5.3", "hard", 30),
]


NUMBERS = {name: exercise.number for exercise in EXERCISES for name in exercise.functions}
STACKED = "logits", "labels", "positions"  # arguments: index 0 is the start, 1 the end


class Outcome(NamedTuple):
    state: str  # "not attempted", "raised", "wrong" or "right"
    name: str  # of the function that decided
    text: str = ""
    hint: str = ""  # its id
    sure: bool = False  # the mistake is a known one


class Raised(NamedTuple):
    """An exception as text: its traceback would keep alive whatever the function has made."""

    kind: type
    text: str
    place: str  # file:line
    line: str
    blank: str  # the name of the function whose blank was reached


class Result(NamedTuple):
    """What a function makes of a case."""

    got: object
    left: list  # its arguments afterwards
    error: Raised | None


def show(value):
    """Floats in four digits, ln 2 to ln 4 by name; tensors and arrays as lists if small."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        small = 0 < math.prod(value.shape) <= 24
        return show(value.tolist()) if small else f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(show, value)) + "," * (type(value) is tuple and len(value) == 1)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, float):
        names = (f"ln {n}" for n in (2, 3, 4) if math.isclose(value, math.log(n), rel_tol=1e-6))
        return next(names, f"{value:.4g}")
    if isinstance(value, Answer):
        return f"Answer({value.text!r}, {value.start})"
    if isinstance(value, Question):
        return f"Question({', '.join(f'{k}={show(v)}' for k, v in vars(value).items())})"
    return "random.Random(0)" if isinstance(value, random.Random) else repr(value)


def compare(got, expected):
    """None if they agree, else a hint of ANY, or "" for the case's own, and the difference."""
    if isinstance(expected, random.Random):
        return None
    kind = {float: (float, int, np.floating), int: (int, np.integer)}
    kind = kind.get(type(expected), type(expected))
    if not isinstance(got, kind) or isinstance(got, bool) != isinstance(expected, bool):
        cut = ": .item() cuts the gradient off" * isinstance(expected, torch.Tensor)
        cut *= isinstance(got, float)
        return "type", f"{type(got).__name__} instead of {type(expected).__name__}{cut}"
    if isinstance(expected, (list, tuple)):
        differences = filter(None, (compare(*pair) for pair in zip(got, expected)))
        return next(differences, ("", "") if len(got) != len(expected) else None)
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return compare_arrays(got, expected)
    if isinstance(expected, float):
        return None if np.isclose(got, expected, 1e-4, 1e-4, equal_nan=True) else ("", "")
    return None if got == expected else ("", "")


def compare_arrays(got, expected):
    shapes = tuple(got.shape), tuple(expected.shape)
    if shapes[0] != shapes[1]:
        hint = "" if got.ndim == expected.ndim else "shape"
        return hint, f"shape {shapes[0]} instead of {shapes[1]}"
    kinds = [x.dtype.kind if isinstance(x, np.ndarray) else x.dtype for x in (got, expected)]
    if kinds[0] != kinds[1]:
        return "dtype", f"{got.dtype} instead of {expected.dtype}"
    x, y = (np.asarray(a.detach() if isinstance(a, torch.Tensor) else a) for a in (got, expected))
    if np.isclose(x, y, 1e-4, 1e-4, equal_nan=True).all():
        return None
    if np.isnan(x).any():
        return "nan", ""
    differences = np.abs(x - y)
    at = np.unravel_index(differences.argmax(), x.shape)
    worst = f"worst {differences[at]:.4g} at {[*map(int, at)]}: {x[at]:.4g} for {y[at]:.4g}"
    return "", f"shape {shapes[0]} and {got.dtype} are right; {worst}" if at else ""


@contextmanager
def time_limit():
    """TimeoutError in code that never ends, where the system has alarms (Windows has none)."""

    def stop(*_):
        raise TimeoutError(f"no result after {SECONDS} seconds")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(function, case):
    args = copy.deepcopy([*case.args])
    try:
        with time_limit():
            got = case.call(function, *args, **case.options)
    except Exception as error:
        return Result(None, args, as_text(error, inspect.unwrap(function).__code__.co_filename))
    return Result(got, args, None)


def as_text(error, file):
    frames = traceback.extract_tb(error.__traceback__)
    blank = isinstance(error, NotImplementedError) and not error.args
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Raised(type(error), text, *where(error, file), frames[-1].name if blank else "")


def timed_out(result):
    return result.error is not None and result.error.kind is TimeoutError


def judge(result, case):
    """None if it is right, else a hint of ANY, or "" where none fits; and the difference."""
    if timed_out(result):
        return "endless", ""
    if result.error:
        return "", ""
    if compare(result.left, [*case.args]):
        return "in-place", ""
    return ("none", "") if result.got is None else compare(result.got, case.expected)


def examine(name, function):
    """The Outcome of one function: what the first of its cases that fails shows."""
    for number, case in enumerate(CASES[name]):
        result = run(function, case)
        fault = judge(result, case)
        if not fault:
            continue
        rows = {"given": call_of(name, function, case), "looked at": case.what}
        if result.error:
            rows["raised"] = result.error.text
            rows["at"] = result.error.place and f"{result.error.place}: {result.error.line}"
        elif fault[0] == "in-place":
            changed = [x for x, given in zip(result.left, case.args) if compare(x, given)]
            rows["you left"] = show(changed[0])
        else:
            rows["you said"] = show(result.got)
        if fault[0] != "in-place":
            rows["expected"] = show(case.expected)
        rows["compared"] = fault[1]

        blank = result.error and result.error.blank
        if blank in NUMBERS and blank != name:
            hint, sure = "blank", True
            rows["hint"] = f"{blank} is still blank: do exercise {NUMBERS[blank]} first."
        elif blank:
            return Outcome("not attempted", name, f"{name}: not attempted, {result.error.place}")
        else:
            hint, sure = diagnose(name, function, number, fault[0])
            own = HINTS[name].get(hint)
            rows["hint"] = "Perhaps: " * (not sure) + own if own else ANY[hint]
        state = "raised" if result.error else "wrong"
        text = "\n".join(f"{key:<11}{row:.1500}" for key, row in rows.items() if row)
        return Outcome(state, name, f"{name}: {state}\n\n{text}\n", hint, sure)
    return Outcome("right", name)


# --- Which mistake it is ---------------------------------------------------------------------


def diagnose(name, function, failed, fault):
    """The id of the hint, and whether the mistake is sure: a known one, the same in every case.

    Otherwise it is a guess: the known mistake that does the same in most of the cases where one
    of the two is wrong, or else what the case that failed is there for. No case is run after one
    that does not end.
    """
    cases = CASES[name]
    if fault == "endless":
        return fault, False
    results = []
    while len(results) < len(cases) and not (results and timed_out(results[-1])):
        results.append(run(function, cases[len(results)]))
    guess, most = "", 0.5
    for hint, known in known_mistakes(name):
        alike, either = 0, 0
        for result, other, case in zip(results, known, cases):
            if same(result, other):
                alike += judge(result, case) is not None
            else:
                either += 1
        share = alike / (alike + either)
        if share > most:
            guess, most = hint, share
    if most == 1 and not timed_out(results[-1]):
        return guess, True
    if results[0].error:
        fault = "raised"
    return fault or guess or cases[failed].hint, False


@functools.cache
def known_mistakes(name):
    """The wrong answers to a function: hint, results of all cases."""
    known = []
    for hint, version in WRONG[name]:
        known.append((hint, [run(version, case) for case in CASES[name]]))
    return known


def same(result, other):
    if result.error or other.error:
        return bool(result.error and other.error) and result.error.kind is other.error.kind
    return compare(result.got, other.got) is None and compare(result.left, other.left) is None


# --- Feedback --------------------------------------------------------------------------------


def call_of(name, function, case):
    """The call in one line, or with an argument a line; start and end have a line each."""
    names = [*inspect.signature(function).parameters]
    given = dict(zip(names, case.args)) | case.options
    parts = []
    for key, value in given.items():
        indent = " " * (14 + len(key))
        if key in STACKED and isinstance(value, torch.Tensor):
            start, end = value
            parts.append(f"{key}=start {show(start)}\n{indent}end   {show(end)}")
        else:
            parts.append(f"{key}={show(value)}")
    line = f"{name}({', '.join(parts)})"
    if len(line) < 90 and "\n" not in line:
        return line
    return f"{name}(" + ",".join(f"\n{'':13}{part}" for part in parts) + ")"


def where(error, file):
    """file:line of the last call in a file on the way to an exception, and its text."""
    if isinstance(error, SyntaxError):
        return f"{os.path.relpath(file)}:{error.lineno}", ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return (f"{os.path.relpath(file)}:{frames[-1].lineno}", frames[-1].line) if frames else ("", "")


def attempt(exercise, solution):
    """The Outcome of an exercise: that of its first function that is not right."""
    for name in exercise.functions:
        if not hasattr(solution, name):
            return Outcome("raised", name, f"{name}: it is missing; put its first line back")
        outcome = examine(name, getattr(solution, name))
        if outcome.state != "right":
            break
    return outcome


def progress(solution):
    """How many are done, and which is next."""
    outcomes = {exercise: attempt(exercise, solution) for exercise in EXERCISES}
    left = [exercise for exercise, outcome in outcomes.items() if outcome.state != "right"]
    done = f"{len(EXERCISES) - len(left)} of {len(EXERCISES)} done"
    if not left:
        return f"{done}: the whole method is yours"
    number, name, *_, level, minutes = left[0]
    function = getattr(solution, outcomes[left[0]].name, None)
    line = inspect.unwrap(function).__code__.co_firstlineno if function else 1
    place = f"{os.path.relpath(MINE)}:{line}"
    return f"{done}; next: {number} {name}, {place} ({level}, about {minutes} minutes)"


def load(path=MINE):
    """A file of solutions as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
