"""`pytest --mine` checks your solutions, tests/exercises/mine.py, and nothing else."""

import os
from pathlib import Path

import pytest

# Whatever it was: sums depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded, here and in child processes
collect_ignore = ["exercises"]  # half-written solutions must not stop the ordinary suite


def pytest_addoption(parser):
    parser.addoption("--mine", action="store_true", help="check tests/exercises/mine.py only")


def pytest_configure(config):
    if config.getoption("mine"):
        from exercises.checks import MINE, load, where

        config.args = [f"{Path(__file__).with_name('test_exercises.py')}::test_exercise"]
        config.option.reportchars += "s"  # lists what is not attempted yet
        try:
            config.mine = load(MINE)
        except Exception as error:
            reason = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
            raise pytest.UsageError(f"{where(error, str(MINE))[0]}: {reason}") from None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own summary: the last lines
def pytest_terminal_summary(terminalreporter, config):
    yield
    if config.getoption("mine"):
        from exercises.checks import progress

        terminalreporter.write_line(progress(config.mine))
