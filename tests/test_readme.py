"""What the README names is there: functions, tests, exercises, notebooks, options; its size."""

import ast
import re
from pathlib import Path

import pytest

from robust_eqa import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MODULES = "data.py", "model.py", "robust_eqa.py"
MAP = README.split("## Paper map")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| (?!paper|---)(.*) \|$", MAP, re.M)
METHOD = """default_loss qa_loss tagging_loss robust_loss best_spans decide squad_scores token_f1
token_spans window_bounds golds_inside make_windows synthetic_answer add_one_sentence negate
rematch attention QAModel train fit""".split()


def definitions(file):
    """The functions and classes at the top of a module."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


FUNCTIONS = set().union(*map(definitions, MODULES))
TESTS = set().union(*(definitions(path) for path in ROOT.glob("tests/test_*.py")))


def test_the_readme_is_short():
    assert len(README.encode()) <= 12288


def test_the_map_is_whole():
    missing = set(METHOD) - set(re.findall(r"`(\w+)`", MAP))
    assert not missing, f"not in the paper map: {missing}"


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0][:40] for row in ROWS])
def test_a_row_of_the_map_resolves(row):
    _, functions, test, exercises, notebook = row.split(" | ")
    names = set(re.findall(r"`(\w+)`", functions))
    assert names and names <= FUNCTIONS, names - FUNCTIONS
    assert test.strip("`") in TESTS, test
    headings = (ROOT / "tests" / "exercises" / "README.md").read_text("utf-8").splitlines()
    for number in re.findall(r"\d+", exercises):
        line = next(line for line in headings if line.startswith(f"| {number} |"))
        assert any(f"`{name}`" in line for name in names), f"exercise {number}: {line}"
    for number in re.findall(r"\d+", notebook):
        assert list((ROOT / "notebooks").glob(f"{number}_*.ipynb")), f"no notebook {number}"


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "ask"])
def test_options_in_the_readme_are_known(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    lines = re.findall(rf"^python robust_eqa.py {command}\b.*", README, re.M)
    assert lines, f"no example of {command}"
    for line in lines:
        unknown = set(re.findall(r"--[a-z-]+", line)) - known
        assert not unknown, f"{unknown} in: {line}"


def test_the_snippet_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    """But for the answers, since it runs on a model of few steps."""
    monkeypatch.chdir(tmp_path)
    main("train --limit 200 --epochs 1 --eval toy-dev".split())
    snippet = README.split("```python\n")[1].split("```")[0]
    capsys.readouterr()
    exec(compile(snippet, "README.md", "exec"), {})
    assert ast.literal_eval(capsys.readouterr().out).keys() == {"0", "1"}
