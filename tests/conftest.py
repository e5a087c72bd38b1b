"""`pytest --mine` checks your solutions, tests/exercises/mine.py, and nothing else; a fixture."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

# Whatever it was: sums depend on the number of threads, and a second would wait for notebooks.
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


def executes(item):
    """The notebook that a test wants executed, or None."""
    return item.callspec.params.get("notebook") if hasattr(item, "callspec") else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: executes(item) is not None)  # the others leave them time to run


@pytest.fixture(scope="session", autouse=True)
def executed(request):
    """{path: future notebook} of those to be tested, one after another beside the other tests."""
    paths = list(filter(None, map(executes, request.session.items)))
    # A process: a thread would see what the tests replace, such as os.replace.
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    if paths:
        from test_notebooks import run
    yield {path: pool.submit(run, path) for path in paths}
    pool.shutdown(wait=False, cancel_futures=True)
    for process in active_children():  # of a run that ends early
        process.kill()
