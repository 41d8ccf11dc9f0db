"""Messages have two faces: from Python they name keywords, at the prompt options."""

import ast
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer

import lpipstore
from lpipstore.cache.errors import LpipstoreError, StoreFull, UsageError, setting, spelled
from lpipstore.workflows.cli.app import app
from lpipstore.workflows.cli.messages import at_prompt, option

ROOT = Path(__file__).parent.parent
MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
_COMMAND = re.compile("`lpipstore store verify --repair`|compare --paired")  # named as commands
_OPTION = re.compile(r"(?<![\w-])--([a-z]|$)")
OF_TORCHRUN = "nproc_per_node"
FILES = sorted(
    path
    for house in ("cache", "pipeline", "workflows")
    for path in (ROOT / house).rglob("*.py")
    if "cli" not in path.parts
)


def name_of(path):
    return str(path.relative_to(ROOT))


def literals(tree):
    """Yield the strings of a module that are not docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_option_is_named_outside_of_the_command_line(path):
    texts = [_COMMAND.sub("", text) for text in literals(ast.parse(path.read_text()))]
    assert not [text for text in texts if _OPTION.search(text)]


def named_settings():
    """Return the names that modules mark with `setting` or hand to those who do."""
    marking = ("setting", "check_choice", "check_folder", "check_new")
    names = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in marking
                and isinstance(node.args[0], ast.Constant)
            ):
                switch = any(k.arg == "value" and k.value.value is False for k in node.keywords)
                names.add((node.args[0].value, False if switch else None))
    return names | {("from_manifest", None), ("update", None)}


def test_every_setting_that_messages_name_is_an_option():
    commands = [typer.main.get_command(app)]
    options = set()
    for command in commands:  # grows: groups hold commands
        commands += getattr(command, "commands", {}).values()
        options |= {spelling for parameter in command.params for spelling in parameter.opts}
    named = named_settings()
    assert {("memory", None), ("compute", False), ("row_dtype", None)} <= named
    unknown = {option(name, value) for name, value in named if name != OF_TORCHRUN} - options
    assert not unknown


@pytest.mark.parametrize(
    ("mark", "from_python", "prompt"),
    [
        (setting("row_dtype"), "row_dtype", "--row-dtype"),
        (setting("size", 64), "size=64", "--size 64"),
        (setting("clip", 2.0), "clip=2", "--clip 2"),
        (setting("held_out", float("nan")), "held_out=nan", "--held-out nan"),
        (setting("weights", "FILE"), "weights=FILE", "--weights FILE"),
        (setting("weights", "random"), 'weights="random"', "--weights random"),
        (setting("columns", "A,B"), 'columns="A,B"', "--columns A,B"),
        (setting("repair", value=True), "repair=True", "--repair"),
        (setting("compute", value=False), "compute=False", "--no-compute"),
        (setting("statistics", value=True), "statistics=True", "--keep-statistics"),
        (setting("from_manifest"), "from_manifest", "--from"),
        (setting("kind", "csv"), 'kind="csv"', "--format csv"),
        (
            setting("out", "ü {x} \ufdd2\ud800"),
            'out="ü {x} \ufdd2\ud800"',
            "--out ü {x} \ufdd2\ud800",
        ),
    ],
)
def test_a_setting_is_spelled_as_each_face_does(mark, from_python, prompt):
    message = f"use {mark}, {{memory}} or %s"
    assert spelled(message) == f"use {from_python}, {{memory}} or %s"
    assert at_prompt(message) == f"use {prompt}, {{memory}} or %s"
    for kind in (LpipstoreError, UsageError, StoreFull):
        error = kind(message)
        assert str(error) == f"use {from_python}, {{memory}} or %s"
        assert repr(error) == f"{kind.__name__}({str(error)!r})"
        assert (
            at_prompt(kind(f"no: {error.message}").message) == f"no: use {prompt}, {{memory}} or %s"
        )


def test_too_little_memory_names_the_keyword_or_the_option(cli, pictures, tmp_path):
    with pytest.raises(UsageError, match="^memory is too small for rows of .*MB at least$"):
        lpipstore.distance_matrix(pictures, backbone="squeeze", weights="random", memory="1kB")
    outcome = cli("pairs", pictures, *MODEL, "--memory", "1kB", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: --memory is too small for rows of ")


def test_braces_in_a_path_stay_what_they_are(cli, pictures, tmp_path):
    gone = tmp_path / "{weights} {0} %s.pth"
    with pytest.raises(UsageError) as caught:
        lpipstore.distance_matrix(pictures, backbone="squeeze", weights=str(gone))
    choices = "untrained), or an existing FILE."
    assert str(caught.value) == (
        f'No weights at {str(gone)!r}. Choose weights="imagenet", weights="random" ({choices}'
    )
    model = ("--backbone", "squeeze", "--weights", gone)
    outcome = cli("pairs", pictures, *model, "--out", tmp_path / "run")
    assert outcome.err.splitlines()[-1] == (
        f"error: No weights at {str(gone)!r}. "
        f"Choose --weights imagenet, --weights random ({choices}"
    )


def test_warnings_at_the_prompt_name_options(cli, pictures, tmp_path):
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    warning = "warning: the trunk is untrained (--weights random): distances mean little"
    assert warning in outcome.err.splitlines()


def test_warnings_from_python_name_keywords(pictures, caplog):
    lpipstore.distance_matrix(pictures, backbone="squeeze", weights="random")
    assert 'the trunk is untrained (weights="random"): distances mean little' in caplog.messages


def test_a_warning_of_the_pipeline_is_shown_at_the_prompt_with_its_option(
    cli, pictures, tmp_path, monkeypatch
):
    class NoThreads(ThreadPoolExecutor):
        def submit(self, *_):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("lpipstore.pipeline.images.loader.ThreadPoolExecutor", NoThreads)
    model = ("--backbone", "squeeze", "--weights", "random", "--workers", "2")
    outcome = cli("pairs", pictures, *model, "--out", tmp_path / "run")
    assert outcome.code == 0
    lines = [line for line in outcome.err.splitlines() if "no thread to decode in" in line]
    assert lines == [
        "warning: no thread to decode in (can't start new thread): decoding goes on in the main "
        "thread; --workers 0 does so from the start"
    ]
