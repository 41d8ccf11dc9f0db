"""The demo on a machine without network, and with real weights where they are at hand."""

import json

import numpy as np

import lpipstore
from lpipstore.workflows.demo import DISTORTIONS, SCENES, STRENGTHS, demo_lines

PICTURES = SCENES * (1 + len(DISTORTIONS) * len(STRENGTHS))


def run_demo(cli, *arguments):
    outcome = cli("demo", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), outcome.err


def check(outcome):
    assert outcome["first"]["forwards"] == PICTURES
    assert outcome["second"]["forwards"] == 0
    assert set(outcome["distances"]) == set(DISTORTIONS)
    for kind, distances in outcome["distances"].items():
        assert (np.diff([0, *distances]) > 0).all(), kind


def test_without_network_the_trunk_is_said_to_be_untrained(cli, no_network):
    outcome, messages = run_demo(cli)
    check(outcome)
    assert "cannot be had" in messages
    assert "untrained" in outcome["weights"]
    assert outcome["first"]["trained"] is False


def test_with_real_weights(cli, real_weights):
    outcome, messages = run_demo(cli)
    check(outcome)
    assert str(real_weights) in outcome["weights"]
    assert "untrained" not in messages


def test_the_folder_is_kept_if_named_and_never_overwritten(cli, no_network, tmp_path):
    run_demo(cli, "--out", tmp_path / "demo")
    assert len(list((tmp_path / "demo" / "pictures").iterdir())) == PICTURES
    assert lpipstore.open_run(tmp_path / "demo" / "second").summary["forwards"] == 0
    again = cli("demo", "--out", tmp_path / "demo")
    assert (again.code, "not a new or empty folder" in again.err) == (2, True)


def test_the_table_is_for_people(cli, no_network):
    outcome = cli("demo")
    assert "Mean distance to the undistorted picture" in outcome.out
    assert outcome.out.count("grows") == len(DISTORTIONS)


def test_a_path_of_weights_is_shown_without_control_characters():
    run = {"trained": True, "images": 1, "pairs": 0, "forwards": 1, "seconds": {"total": 1.0}}
    facts = dict(demo_lines({"first": run, "second": run, "weights": "a\nb/w.pth"}))
    assert facts["weights"] == "a\\nb/w.pth"
