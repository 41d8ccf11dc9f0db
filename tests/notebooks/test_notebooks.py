"""The notebooks run from the first cell to the last and find what they say."""

import json
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).with_name("researcher.ipynb")
MOST_BYTES = 200_000
RESULTS = """
import json
print(json.dumps({
    "trained": trained,
    "images": {name: len(pictures) for name, pictures in sets.items()},
    "mean": table["mean"].to_dict(),
    "stderr": table["stderr"].to_dict(),
    "copies": copies,
    "forwards": [diversity.forwards, forwards, after.forwards],
    "agreement": scores.query("score == 'agreement'").set_index("metric")["value"].to_dict(),
    "duplicates": duplicates[["path_i", "path_j"]].values.tolist(),
    "kept": float((values[-2:] > 0).mean()),
}))
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Execute the notebook in a folder of its own and return what its variables hold."""
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "default"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    (tmp_path / "work").mkdir()

    def run() -> dict:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(RESULTS))
        place = {"metadata": {"path": str(tmp_path / "work")}}
        nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
        assert not (tmp_path / "default").exists()  # it has a store of its own
        return json.loads(notebook.cells[-1].outputs[0].text)

    return run


def check(found: dict) -> None:
    """Check what holds with any weights."""
    assert found["forwards"] == [sum(found["images"].values()), 0, 0]
    assert found["mean"].keys() == {"real", "varied", "narrow", "copying"}
    assert found["mean"]["narrow"] == min(found["mean"].values())
    assert all(0 < error < 0.05 for error in found["stderr"].values())
    planted = [[number, number] for number in range(20)]
    assert found["copies"] == {"varied": [], "narrow": [], "copying": planted}
    again = {(f"real/{n:02}.png", f"web/again{n:02}.jpg") for n in (3, 14, 27)}
    assert {*map(tuple, found["duplicates"])} == {*again, ("real/31.png", "web/brighter31.png")}
    assert found["agreement"]["head"] > max(0.65, found["agreement"]["stock"] + 0.1)
    assert found["kept"] == 1


@pytest.mark.slow
def test_it_runs_with_trained_weights(results, real_weights):
    found = results()
    assert found["trained"]
    check(found)


@pytest.mark.slow
def test_it_runs_anywhere(results, monkeypatch):
    monkeypatch.delenv("LPIPSTORE_WEIGHTS", raising=False)
    found = results()
    assert not found["trained"]
    check(found)


def test_its_outputs_are_small_and_name_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < MOST_BYTES
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    shown = "".join(json.dumps(output) for output in outputs if "image/jpeg" not in str(output))
    assert not re.search(r"/(tmp|home|root|Users|work)/", shown)
