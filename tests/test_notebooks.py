"""The notebooks show what is saved in them (-m slow). Anew: python tests/test_notebooks.py [NAME]

Of cells tagged "trained", which vary from processor to processor, only kinds of output are compared.
"""

import base64
import difflib
import gzip
import io
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest
from nbclient import execute
from PIL import Image

from data import toy_corpus
from model import load_model, new_model, save_model
from robust_eqa import Settings, predict, squad_scores

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
                output.data["image/png"] = smaller(output.data["image/png"])
    return notebook


def smaller(png):
    """The picture in 24 colours, which is enough for grey ones, at a third of the size."""
    image, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize(24).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


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
    assert path.stat().st_size <= 250_000
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output
        assert not ABSOLUTE_PATH.search(" ".join(texts(output).values())), output


def test_experiments_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    import experiments

    for name, n, seed in (("squad2-train-29k", 200, 0), ("squad2-dev", 80, 1)):
        rows = json.dumps(list(map(asdict, toy_corpus(n, seed)))).replace("start", "answer_start")
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(rows.encode()))
    save_model(*new_model([q.context for q in toy_corpus(200, 0)], 128), tmp_path / "small")
    summary, dev = tmp_path / "summary.jsonl", toy_corpus(80, 1)
    command = "--arm default robust+synthetic --set epochs=1 lr=1e-3".split()
    command += ["--init", str(tmp_path / "small"), "--data", str(tmp_path)]
    command += ["--runs", str(tmp_path / "runs"), "--summary", str(summary)]
    for _ in range(2):  # a run that has its line is not repeated
        experiments.main(command)
        lines = experiments.read_lines(summary)
        assert [line["arm"] for line in lines] == ["default", "robust+synthetic"]
    for line, folder in zip(lines, sorted((tmp_path / "runs").iterdir())):
        answers, spans, _ = predict(
            *load_model(folder), dev, Settings(loss=line["settings"]["loss"])
        )
        for way, found in (("threshold 0", answers), ("all answered", spans)):
            f1 = pytest.approx(squad_scores(dev, found)["f1"], abs=0.01)
            assert line["scores"][way]["squad2-dev"]["f1"] == f1, way
    experiments.main(["report", "--summary", str(summary)])
    assert "| F1, mean ± sd (seeds) | default | robust+synthetic |" in capsys.readouterr().out
    assert experiments.spread([50, 52]) == "51.0 ± 1.4 (2)"


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(run(path), path)
