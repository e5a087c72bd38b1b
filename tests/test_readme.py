"""The README's paper map: every function, line, test, exercise and notebook that it names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ROWS = re.findall(
    r"^\| (?!paper|---)(.*) \|$", README.split("## Paper map")[1].split("\n## ")[0], re.M
)
PUBLIC = {  # what the method consists of; none of it may be missing from the map
    "default_loss qa_loss tagging_loss robust_loss best_spans decide squad_scores token_f1",
    "token_spans window_bounds window_label make_windows synthetic_answer add_one_sentence negate",
    "rematch attention QAModel train",
}


def definitions(file):
    """{name: line} of the functions and classes at the top of a module."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    kinds = ast.FunctionDef, ast.ClassDef
    return {node.name: node.lineno for node in tree.body if isinstance(node, kinds)}


def test_the_map_is_whole():
    """Every function of the method has its row."""
    mapped = set(re.findall(r"`(\w+)` \w+\.py:\d+", "\n".join(ROWS)))
    missing = set(" ".join(PUBLIC).split()) - mapped
    assert not missing, f"not in the paper map: {missing}"


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0][:40] for row in ROWS])
def test_row_resolves(row):
    """file:line is where the function is defined, the test exists, and so on."""
    _, places, tests, exercise, notebook = row.split(" | ")
    found = re.findall(r"`(\w+)` (\w+\.py):(\d+)", places)
    assert found, f"no function in: {row}"
    for name, file, line in found:
        assert definitions(file).get(name) == int(line), f"{name} is not at {file}:{line}"
    for test, file in re.findall(r"`(\w+)` (\w+\.py)", tests):
        assert test in definitions(f"tests/{file}"), f"no {test} in tests/{file}"
    assert "`" in tests, f"no test in: {row}"
    headings = (ROOT / "tests" / "exercises" / "README.md").read_text("utf-8")
    for number in re.findall(r"\d+", exercise):
        line = next(line for line in headings.splitlines() if line.startswith(f"| {number} |"))
        assert any(f"`{name}`" in line for name, _, _ in found), f"exercise {number}: {line}"
    for number in re.findall(r"\d+", notebook):
        assert list((ROOT / "notebooks").glob(f"{number}_*.ipynb")), f"no notebook {number}"


def test_read_in_this_order():
    """Each function of the reading order is in the file that is named."""
    table = README.split("## Read in this order")[1].split("\n## ")[0]
    for file, names in re.findall(r"`(\w+\.py)`: ((?:`\w+`(?:, )?)+)", table):
        missing = set(re.findall(r"`(\w+)`", names)) - definitions(file).keys()
        assert not missing, f"{missing} not in {file}"
