"""The store's limit at the prompt and from Python: kept with the store, changed by an option."""

import json

import lpipstore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


def info(cli):
    return json.loads(cli("store", "info", "--json").out)


def test_a_forgotten_option_evicts_nothing(cli, pictures, tmp_path, monkeypatch):
    run = tmp_path / "run"
    made = cli("pairs", pictures, *MODEL, "--store-limit", "64MB", "--out", run)
    assert (made.code, "limit" in made.err) == (0, False)
    before = info(cli)
    assert (before["limit"], before["rows"]) == (64_000_000, 8)
    monkeypatch.setattr("lpipstore.workflows.session.settings.DEFAULT_LIMIT", 2_000_000)
    # later on the disk is nearly full, which is nothing to a store that has its limit
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 4096})())
    heads = ("--heads", "none", "--out", tmp_path / "two")
    for command in (
        ("extract", pictures, *MODEL),
        ("rescore", run, *heads),
        ("store", "verify"),
        ("store", "evict", "--to", "1GB"),
    ):
        outcome = cli(*command)
        assert outcome.code == 0, outcome.err
        assert "limit" not in outcome.err
    lpipstore.distance_matrix(
        pictures, store=tmp_path / "store", backbone="squeeze", weights="random"
    )
    after = info(cli)
    assert (after["limit"], after["rows"]) == (64_000_000, 8)
    assert "64 MB" in cli("store", "info").out


def test_the_option_changes_it_and_says_what_that_evicts(cli, pictures, tmp_path):
    command = ("extract", pictures, *MODEL, "--size", "128")  # rows of 1 MB
    assert cli(*command, "--store-limit", "64MB").code == 0
    smaller = cli(*command, "--store-limit", "3MB", "--quiet")
    assert smaller.code == 0
    assert "the store's limit is now 3 MB, and was 64 MB: " in smaller.err
    assert "were evicted" in smaller.err
    stat = info(cli)
    assert stat["limit"] == 3_000_000 >= stat["bytes"]
    assert stat["rows"] < 8
    assert "limit is now" not in cli(*command, "--store-limit", "3MB").err
    larger = cli(*command, "--store-limit", "64MB")
    assert "the store's limit is now 64 MB, and was 3 MB\n" in larger.err
    assert (info(cli)["limit"], info(cli)["rows"]) == (64_000_000, 8)


def test_a_dry_run_leaves_it(cli, pictures, tmp_path):
    out = ("--out", tmp_path / "run")
    assert cli("extract", pictures, *MODEL, "--size", "128", "--store-limit", "64MB").code == 0
    dry = cli("pairs", pictures, *MODEL, *out, "--size", "128", "--store-limit", "3MB", "--dry-run")
    assert dry.code == 0, dry.err
    assert "the store's limit is 3 MB" in dry.err  # what it would be
    assert (info(cli)["limit"], info(cli)["rows"]) == (64_000_000, 8)


def test_the_first_limit_is_that_of_the_prompt(tmp_path, pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lpipstore.workflows.session.settings.DEFAULT_LIMIT", 7_000_000)
    lpipstore.distance_matrix(pictures, store="~/store", backbone="squeeze", weights="random")
    assert not (tmp_path / "~").exists()
    with lpipstore.FeatureStore(tmp_path / "home" / "store") as store:
        assert (store.limit, store.stat().rows) == (7_000_000, 8)


def test_store_commands_make_no_store_of_an_empty_folder(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = cli("store", "info", "--store", tmp_path / "empty")
    assert (outcome.code, "no store at" in outcome.err) == (2, True)
    assert not list((tmp_path / "empty").iterdir())
