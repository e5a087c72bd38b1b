"""The notebooks run, and show what is saved in them. All anew: python tests/test_notebooks.py

A cell that is tagged "trained" shows what a trained model says, which differs a little from one
processor to another: of it only the kinds of output are compared, of the others the text too.
"""

import difflib
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<)])(/[\w.+-]+){2,}|\b[A-Za-z]:\\|file://|(?<!\w)~\w*/")


def run(path):
    """The notebook, executed from its folder, without what tells of this machine and this hour."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    how = {"kernel_name": "python3", "timeout": 600, "record_timing": False}
    NotebookClient(notebook, resources=where, **how).execute()  # raises where a cell does
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in code_cells(notebook):
        joined = []  # a stream may come in several parts, cut anywhere
        for output in cell.outputs:
            if joined and "name" in output and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            elif output.get("name") != "stderr":  # such as that fonts are being cached
                joined.append(output)
        cell.outputs = joined
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """{kind: text} of an output; of a picture, no text."""
    data = {"stdout": output.text} if output.output_type == "stream" else output.get("data", {})
    return {kind: "" if kind.startswith("image/") else text for kind, text in data.items()}


def shown(cell):
    """Lines to compare: kinds of output, and their texts where those are the same everywhere."""
    trained, lines = "trained" in cell.metadata.get("tags", []), []
    for output in cell.outputs:
        for kind, text in sorted(texts(output).items()):
            lines += [f"({kind})", *("" if trained else text).splitlines()]
    return lines


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_saved_in_it(notebook, executed):
    saved, now = nbformat.read(notebook, as_version=4), executed[notebook].result()
    for cell, again in zip(code_cells(saved), code_cells(now), strict=True):
        changes = difflib.unified_diff(shown(cell), shown(again), "saved", "now", lineterm="")
        changes = "\n".join(changes)
        assert not changes, f"{changes}\n\nis what has changed after\n\n{cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_well_unexecuted_and_names_no_machine(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "not run from top to bottom"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert outputs, "no saved outputs"
    for output in outputs:
        assert output.output_type != "error" and output.get("name") != "stderr", output
        for text in texts(output).values():
            found = ABSOLUTE_PATH.search(text)
            assert not found, f"absolute path {found[0]} in the output {text:.500}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in /home/ada/runs", True),
        ("'/tmp/x1'", True),
        ("C:\\Users\\ada", True),
        ("~/.cache", True),
        ("file:///a", True),
        ("<p>a</p><br/>", False),
        ("D/H = 16, start/end, 1/n", False),
        ("runs/toy/settings.json", False),
        ("https://arxiv.org/abs/2409.19766", False),
    ],
)
def test_absolute_paths_are_told_from_other_slashes(text, found):
    assert bool(ABSOLUTE_PATH.search(text)) == found


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(run(path), path)
