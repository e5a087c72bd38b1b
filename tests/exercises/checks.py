"""From the cases to feedback, for a learner's file, the project and known wrong answers alike."""

import copy
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
from exercises.cases import CASES, Mistake
from exercises.hints import ANY, HINTS

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
    Exercise(4, "labels", ("window_label",), "paper 5.2", "easy", 10),
    Exercise(5, "attention", ("attention",), "Vaswani et al. 2017", "medium", 20),
    Exercise(6, "default_loss", ("default_loss",), "paper 2", "easy", 15),
    Exercise(7, "qa_loss", ("qa_loss",), "paper 5.2", "hard", 30),
    Exercise(8, "robust_loss", ("tagging_loss", "robust_loss"), "paper 5.2", "medium", 20),
    Exercise(9, "decoder", ("best_spans", "decide"), "paper 5.2", "hard", 40),
    Exercise(10, "synthetic", ("synthetic_answer",), "paper 5.3", "hard", 45),
]


class Outcome(NamedTuple):
    state: str  # "not attempted", "raised", "wrong" or "right"
    name: str  # of the function that decided
    text: str = ""
    hint: str = ""  # its id


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
    if isinstance(expected, random.Random) or (got is None and expected is None):
        return None
    if got is None or expected is None:
        return "none" * (got is None), ""
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
    close = isinstance(expected, float) and math.isclose(got, expected, abs_tol=1e-4)
    return None if close or got == expected else ("", "")


def compare_arrays(got, expected):
    shapes = tuple(got.shape), tuple(expected.shape)
    if shapes[0] != shapes[1]:
        hint = "" if got.ndim == expected.ndim else "shape"
        return hint, f"shape {shapes[0]} instead of {shapes[1]}"
    kinds = [x.dtype.kind if isinstance(x, np.ndarray) else x.dtype for x in (got, expected)]
    if kinds[0] != kinds[1]:
        return "dtype", f"{got.dtype} instead of {expected.dtype}"
    x, y = (np.asarray(a.detach() if isinstance(a, torch.Tensor) else a) for a in (got, expected))
    if np.isnan(x).any():
        return "nan", ""
    if np.isclose(x, y, 1e-4, 1e-4).all():
        return None
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


def examine(name, function):
    """The Outcome of one function: what the first of its cases that fails shows."""
    for case in CASES[name]:
        args = copy.deepcopy(case.args)
        try:
            with time_limit():
                got = case.call(function, *args, **case.options)
            odd = compare(got, case.expected)
            rows = {"you said": show(got), "expected": show(case.expected)}
            if changed := [new for new, old in zip(args, case.args) if compare(new, old)]:
                odd, rows = ("in-place", ""), {"you left": show(changed[0])}
        except Mistake as mistake:
            hint, said, expected = mistake.args
            odd, rows = (hint, ""), {"you said": show(said), "expected": expected}
        except Exception as error:
            place, line = where(error, inspect.unwrap(function).__code__.co_filename)
            if isinstance(error, NotImplementedError) and not error.args:
                return Outcome("not attempted", name, f"{name}: not attempted, {place}")
            raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
            odd = "endless" if isinstance(error, TimeoutError) else "", ""
            rows = {"raised": raised, "at": place and f"{place}: {line}"}
            rows["expected"] = show(case.expected)
        if odd:
            hint, state = odd[0] or case.hint, "raised" if "raised" in rows else "wrong"
            rows = {"given": call_of(name, function, case), "looked at": case.what} | rows
            rows |= {"compared": odd[1], "hint": ANY.get(hint) or HINTS[name][hint]}
            text = "\n".join(f"{key:<11}{row:.1500}" for key, row in rows.items() if row)
            return Outcome(state, name, f"{name}: {state}\n\n{text}\n", hint)
    return Outcome("right", name)


def call_of(name, function, case):
    """The call in one line, or with an argument a line."""
    names = [*inspect.signature(function).parameters]
    given = dict(zip(names, case.args)) | case.options
    given = [f"{key}={show(value)}" for key, value in given.items()]
    line = f"{name}({', '.join(given)})"
    return line if len(line) < 90 else f"{name}(" + ",".join(f"\n{'':13}{x}" for x in given) + ")"


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
