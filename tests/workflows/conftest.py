"""What tests of several workflows share: commands of every kind, and what runs leave behind."""

import shutil

import pytest


@pytest.fixture
def jobs(pictures, tmp_path, draw):
    """Commands of every kind, each without options of the metric."""
    draw(tmp_path / "others", 5, seed=4)
    shutil.copy(pictures / "003.png", tmp_path / "others" / "twin.png")
    (pictures / "broken.png").write_bytes(b"")
    lines = [f"{i:03}.png,{j:03}.png,{i * j}" for i in range(8) for j in range(0, 8, 3)]
    table = ["left,right,rating", *lines, "003.png,broken.png,9", "gone.png,001.png,1"]
    (pictures / "pairs.csv").write_text("\n".join(table) + "\n")
    return {
        "pairs": ("pairs", pictures, tmp_path / "others"),
        "groups": ("pairs", pictures, tmp_path / "others", "--group-by", "folder"),
        "compare": ("compare", pictures, tmp_path / "others"),
        "paired": ("compare", pictures, tmp_path / "others", "--paired"),
        "score": ("score", pictures / "pairs.csv"),
        "below": ("pairs", pictures, tmp_path / "others", "--below", "0.9"),
        "top-k": ("pairs", pictures, tmp_path / "others", "--top-k", "3"),
        "both": ("pairs", pictures, tmp_path / "others", "--top-k", "3", "--below", "0.9"),
    }
