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
    fault: str | None = None  # None if it is right; an id of ANY, or "" where none of them fits
    difference: str = ""  # from what was expected


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
        turned = shapes[0] == shapes[1][::-1]
        hint = "shape" if turned or got.ndim != expected.ndim else ""
        return hint, f"shape {shapes[0]} instead of {shapes[1]}"
    kinds = [kind_of(x.dtype) for x in (got, expected)]
    if kinds[0] != kinds[1] and not (kinds[1] == "float32" and kinds[0] == "float64"):
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


def kind_of(dtype):
    """What must be equal of two arrays' types: for numpy, whose integers have many, the kind."""
    return dtype.kind if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")


def run(function, case):
    args = copy.deepcopy([*case.args])
    try:
        with time_limit():
            got = case.call(function, *args, **case.options)
    except Exception as error:
        error = as_text(error, inspect.unwrap(function).__code__.co_filename)
        return Result(None, args, error, "endless" if error.kind is TimeoutError else "")
    fault, difference = judge(got, args, case)
    return Result(got, args, None, fault, difference)


def as_text(error, file):
    frames = traceback.extract_tb(error.__traceback__)
    blank = isinstance(error, NotImplementedError) and not error.args
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Raised(type(error), text, *where(error, file), frames[-1].name if blank else "")


def judge(got, left, case):
    """The fault and the difference of a Result."""
    if compare(left, [*case.args]):
        return "in-place", ""
    if got is None:
        return "none", ""
    return compare(got, case.expected) or (None, "")


def results_of(name, function):
    """The Results of all cases; none is run after one that does not end."""
    results = []
    for case in CASES[name]:
        results.append(run(function, case))
        if results[-1].fault == "endless":
            break
    return results


def examine(name, function):
    """The Outcome of one function: what the first of its cases that fails shows."""
    return explain(name, function, results_of(name, function))


def explain(name, function, results, known=None):
    """The Outcome of a function with these results; `known` instead of all known mistakes."""
    wrong = [number for number, result in enumerate(results) if result.fault is not None]
    if not wrong:
        return Outcome("right", name)
    case, result = CASES[name][wrong[0]], results[wrong[0]]
    rows = {"given": call_of(name, function, case), "looked at": case.what}
    if result.error:
        rows["raised"] = result.error.text
        rows["at"] = result.error.place and f"{result.error.place}: {result.error.line}"
    elif result.fault == "in-place":
        changed = [x for x, given in zip(result.left, case.args) if compare(x, given)]
        rows["you left"] = show(changed[0])
    else:
        rows["you said"] = show(result.got)
    if result.fault != "in-place":
        rows["expected"] = show(case.expected)
    rows["compared"] = result.difference

    blank = result.error and result.error.blank
    if blank in NUMBERS and blank != name:
        hint, sure = "blank", True
        rows["hint"] = f"{blank} is still blank: do exercise {NUMBERS[blank]} first."
    elif blank:
        return Outcome("not attempted", name, f"{name}: not attempted, {result.error.place}")
    else:
        hint, sure = diagnose(name, results, known or known_mistakes(name))
        text = HINTS[name].get(hint) or ANY[hint]
        rows["hint"] = text if sure else f"Perhaps: {text}"
    state = "raised" if result.error else "wrong"
    text = "\n".join(f"{key:<11}{row:.1500}" for key, row in rows.items() if row)
    return Outcome(state, name, f"{name}: {state}\n\n{text}\n", hint, sure)


# --- Which mistake it is ---------------------------------------------------------------------

FACTS = "type", "shape", "dtype", "in-place"  # of the ids of ANY: seen, not guessed


def diagnose(name, results, known):
    """The id of the hint, and whether it is sure: a known mistake, the same in every case.

    Otherwise it is a guess: the known mistake that does the same in the case that is shown and in
    most of the cases where one of the two is wrong, or else what that case is there for.
    """
    failed = next(k for k, result in enumerate(results) if result.fault is not None)
    fault, case = results[failed].fault, CASES[name][failed]
    if fault == "endless":
        return fault, False
    guess, most = "", 0.5
    for hint, others in known:
        share = likeness(results, others, failed)
        if share > most:
            guess, most = hint, share
    if most == 1 and results[-1].fault != "endless":
        return guess, True
    if fault in FACTS:
        return fault, True
    if results[0].error:
        return "raised", False
    return guess or fault or case.hint, False


def likeness(results, others, failed):
    """Of the cases in which one of two functions is wrong, the share in which both do the same."""
    if failed >= len(others) or not same(results[failed], others[failed]):
        return 0  # nor if they differ in the case that is shown
    alike, either = 0, 0
    for one, other in zip(results, others):
        if one.fault is not None and other.fault is not None and same(one, other):
            alike += 1
        elif one.fault is not None or other.fault is not None:
            either += 1
    return alike / (alike + either)


@functools.cache
def known_mistakes(name):
    """The wrong answers to a function: hint, results of all cases."""
    return [(hint, results_of(name, version)) for hint, version in WRONG[name]]


def same(result, other):
    if result.error or other.error:
        return bool(result.error and other.error) and result.error.text == other.error.text
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
