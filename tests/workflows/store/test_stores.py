"""The commands that look after a store: each says what it did, in rows and bytes."""

import json

import pytest

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


@pytest.fixture
def filled(cli, pictures, tmp_path):
    """A store with the eight pictures under two backbones; the first of them is the older one."""
    for model in (MODEL, ("--backbone", "alex", "--weights", "random", "--workers", "0")):
        assert cli("extract", pictures, *model).code == 0
    return tmp_path / "store"


def as_json(outcome, code=0):
    assert outcome.code == code, outcome.err
    return json.loads(outcome.out)


def test_a_sound_store_is_said_to_be_sound(cli, filled):
    report = as_json(cli("store", "verify", "--json"))
    assert (report["ok"], report["rows"], report["findings"]) == (True, 16, [])
    assert "sound" in cli("store", "verify").out


def test_damage_is_found_then_repaired_then_computed_again(cli, filled, pictures):
    shard = sorted(filled.glob("pools/*/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[50] ^= 4
    shard.write_bytes(data)
    report = as_json(cli("store", "verify", "--json"), code=1)
    assert not report["ok"]
    assert [finding["kind"] for finding in report["findings"]] == ["corrupt row"]
    assert "NOT sound" in cli("store", "verify").out
    assert as_json(cli("store", "verify", "--repair", "--json"))["ok"]
    assert as_json(cli("store", "verify", "--json"))["findings"] == []
    missing = 0
    for backbone in ("squeeze", "alex"):
        command = ("extract", pictures, "--backbone", backbone, "--weights", "random", "--json")
        missing += as_json(cli(*command))["forwards"]
    assert missing == 1


def test_evict_comes_down_to_what_was_asked(cli, filled):
    freed = as_json(cli("store", "evict", "--to", "300kB", "--json"))
    assert freed["rows"] > 0
    assert freed["bytes"] > 0
    stat = as_json(cli("store", "info", "--json"))
    assert stat["bytes"] <= 300_000
    assert stat["rows"] == 16 - freed["rows"]
    assert "removed" in cli("store", "evict", "--to", "1GB").out


def test_clear_takes_one_backbone_or_all(cli, filled):
    assert as_json(cli("store", "clear", "--backbone", "alex", "--json"))["rows"] == 8
    stat = as_json(cli("store", "info", "--json"))
    assert {pool["recipe"]["backbone"] for pool in stat["pools"] if pool["rows"]} == {"squeeze"}
    assert "8 rows" in cli("store", "clear").out
    assert as_json(cli("store", "info", "--json"))["rows"] == 0


@pytest.mark.parametrize("command", ["verify", "evict --to 1GB", "clear", "info"])
def test_no_command_makes_a_store(cli, tmp_path, command):
    outcome = cli("store", *command.split(), "--store", tmp_path / "nowhere")
    assert (outcome.code, "no store at" in outcome.err) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_evict_wants_a_size(cli, filled):
    assert cli("store", "evict", "--to", "some").code == 2
    assert cli("store", "evict").code == 2


@pytest.mark.parametrize("option", ["--compress", "--durable"])
def test_other_ways_to_keep_rows_change_no_byte(cli, pictures, tmp_path, option):
    matrices = []
    for name, options in (("plain", ()), ("other", (option, "--store", tmp_path / "other-store"))):
        out = tmp_path / name
        assert cli("pairs", pictures, *MODEL, *options, "--out", out).code == 0
        matrices.append((out / "distances.zarr" / "c" / "0" / "0").read_bytes())
    assert matrices[0] == matrices[1]


def test_clear_says_which_backbones_there_are(cli, filled):
    outcome = cli("store", "clear", "--backbone", "squeez")
    assert outcome.code == 0
    assert "alex, squeeze; no rows of 'squeez'" in outcome.out
    assert as_json(cli("store", "clear", "--backbone", "squeez", "--json"))["rows"] == 0


def test_rows_of_an_earlier_version_are_told_once_and_not_used(cli, pictures, monkeypatch):
    extract = ("extract", pictures, *MODEL)
    with monkeypatch.context() as earlier:
        earlier.setattr("lpipstore.pipeline.features.extractor.ROW_VERSION", "1")
        assert cli(*extract).code == 0
    first, second = cli(*extract), cli(*extract)
    assert "8 rows of this backbone and size that an earlier version" in first.err
    assert "earlier version" not in second.err
    assert as_json(cli(*extract, "--json"))["hits"] == 8
    assert as_json(cli("store", "info", "--json"))["rows"] == 16
