"""The notebooks show what is saved in them (-m slow). Anew: python tests/test_notebooks.py [NAME]

Of cells tagged "trained", which vary from processor to processor, only kinds of output are compared.
"""

import base64
import difflib
import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import execute
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<)])(/[\w.+-]+){2,}|\b[A-Za-z]:\\|file://|(?<!\w)~\w*/")


def run(path):
    """The notebook, executed in its folder, without what tells of this machine and this hour."""
    notebook = nbformat.read(path, as_version=4)
    how = {"timeout": 900, "record_timing": False, "coalesce_streams": True}
    execute(notebook, cwd=str(path.parent), **how)  # raises where a cell does
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                # In at most 256 colours, which the eye does not miss: half of the size.
                picture, file = base64.b64decode(output.data["image/png"]), io.BytesIO()
                image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256)
                image.save(file, "png", optimize=True)
                output.data["image/png"] = base64.b64encode(file.getvalue()).decode()
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """{kind: text} of an output; of a picture, no text."""
    found = {"stdout": output.text} if output.output_type == "stream" else output.data
    return {kind: "" if "image" in kind else text for kind, text in sorted(found.items())}


def shown(cell):
    """Lines to compare: kinds of output, and their texts where those are the same everywhere."""
    trained, lines = "trained" in cell.metadata.get("tags", []), []
    for kind, text in (item for output in cell.outputs for item in texts(output).items()):
        lines += [f"({kind})", *("" if trained else text).splitlines()]
    return lines


SLOW = [pytest.param(path, marks=pytest.mark.slow) for path in NOTEBOOKS if path.stem[0] != "2"]


@pytest.mark.parametrize("path", [FOLDER / "2_windows.ipynb", *SLOW], ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_saved_in_it(path):
    saved, now = nbformat.read(path, as_version=4), run(path)
    for cell, again in zip(code_cells(saved), code_cells(now), strict=True):
        changes = "\n".join(difflib.unified_diff(shown(cell), shown(again), "saved", "now"))
        assert not changes, f"{changes}\n\nis what has changed after\n\n{cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_well_unexecuted_and_names_no_machine(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size <= 300_000
    assert max(len(cell.source.splitlines()) for cell in cells) <= 25 or path.stem == "results"
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output
        assert not ABSOLUTE_PATH.search(" ".join(texts(output).values())), output


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(run(path), path)
