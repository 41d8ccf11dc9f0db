"""Where weights come from, in which order, and what is said when they do not fit."""

import hashlib
import io
import socket
import time

import pytest
import torch
from torchvision.models import AlexNet_Weights
from torchvision.models._api import Weights, WeightsEnum

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.backbones import weights
from lpipstore.pipeline.backbones.weights import (
    WeightsMissing,
    find_weights,
    load_weights,
    names_in_torchvision,
    random_state,
    read_tensors,
    select,
)

EXPECTED = {
    "features.0.weight": torch.empty(4, 3, 2, 2, device="meta"),
    "features.0.bias": torch.empty(4, device="meta"),
}
STATE = {
    "features.0.weight": torch.arange(48.0).view(4, 3, 2, 2),
    "features.0.bias": torch.arange(4.0),
}


def load(choice, name="alexnet", member="IMAGENET1K_V1"):
    official, longer_names = names_in_torchvision(name)
    found = find_weights(name, choice, official=official, longer_names=longer_names)
    return load_weights(
        name, choice, found=found, expected=EXPECTED, backbone="alex", member=member
    )


def assert_is_state(loaded):
    assert list(loaded) == list(EXPECTED)
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)


@pytest.fixture
def full_file(tmp_path):
    path = tmp_path / "full.pth"
    torch.save({**STATE, "classifier.weight": torch.ones(2, 2)}, path)
    return path


def test_file_with_a_classifier_is_cut_to_what_the_trunk_needs(full_file):
    loaded = load(full_file)
    assert_is_state(loaded.state)
    assert loaded.origin == str(full_file)
    assert loaded.trained


def test_features_under_bare_names_fit_and_half_precision_is_widened(tmp_path):
    path = tmp_path / "bare.pth"
    torch.save({name.removeprefix("features."): t.half() for name, t in STATE.items()}, path)
    loaded = load(str(path))
    assert_is_state(loaded.state)
    assert loaded.state["features.0.bias"].dtype == torch.float32


def test_old_serialisation_is_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert_is_state(load(path).state)


def test_given_tensors_are_copied():
    given = {name: tensor.clone() for name, tensor in STATE.items()}
    loaded = load(given)
    given["features.0.bias"].zero_()
    assert_is_state(loaded.state)
    assert loaded.origin == "given tensors"


def test_missing_tensor_names_file_and_backbone(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer1.weight": torch.ones(1)}, path)
    with pytest.raises(UsageError, match="backbone alex: it lacks features.0.weight") as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "layer1.weight" in str(caught.value)


def test_other_shape_shows_both_shapes(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({**STATE, "features.0.bias": torch.ones(5)}, path)
    with pytest.raises(UsageError, match=r"features.0.bias has shape \(5,\), and \(4,\)"):
        load(path)


def test_unknown_choice_names_the_choices():
    with pytest.raises(UsageError, match='weights="imagenet", weights="random"') as caught:
        load("imagnet")
    assert "'imagnet'" in str(caught.value)


def test_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        load(tmp_path)


def bad_files():
    whole = io.BytesIO()
    torch.save(STATE, whole)
    content = whole.getvalue()
    yield "empty", b""
    yield "text", b"these are not weights\n"
    yield "half", content[: len(content) // 2]
    yield "flipped", bytes(255 - byte for byte in content)
    yield "header", content[:4]
    yield "zeros", bytes(1000)


@pytest.mark.parametrize(("name", "content"), list(bad_files()), ids=lambda v: str(v)[:8])
def test_damaged_file_is_an_error_that_names_it(tmp_path, name, content):
    path = tmp_path / f"{name}.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a file of tensors, or is damaged") as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


def test_file_that_would_run_a_command_does_not(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pth"
    path.write_bytes(f"cos\nsystem\n(S'touch {trace}'\ntR.".encode())
    with pytest.raises(UsageError, match="Nothing in it was run"):
        read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {"state": {"a": 1}}])
def test_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(UsageError, match="not a (plain )?dict of tensors"):
        read_tensors(path)


def test_random_weights_leave_the_global_generator_alone_and_repeat():
    before = torch.get_rng_state()
    first, second = load("random"), load("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.trained
    assert first.origin == "random (untrained)"
    assert all(torch.equal(first.state[name], second.state[name]) for name in EXPECTED)
    assert torch.equal(first.state["features.0.bias"], torch.zeros(4))


def test_random_tensor_does_not_depend_on_the_others():
    alone = {"features.0.weight": EXPECTED["features.0.weight"]}
    name = "features.0.weight"
    assert torch.equal(random_state(alone)[name], random_state(EXPECTED)[name])
    assert not torch.equal(
        random_state({"other.weight": EXPECTED[name]})["other.weight"], random_state(alone)[name]
    )


def test_random_weights_of_a_norm_layer_let_the_signal_through():
    shape = torch.empty(3, device="meta")
    state = random_state({"bn.weight": shape, "bn.running_var": shape, "bn.running_mean": shape})
    assert [float(tensor.sum()) for tensor in state.values()] == [3, 3, 0]


def save_into(folder, name, shift=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: tensor + shift for key, tensor in STATE.items()}, folder / name)


def test_folder_variable_comes_before_the_cache(no_network, monkeypatch, tmp_path):
    save_into(no_network, "alexnet-owt-7be5be79.pth", shift=1.0)
    save_into(tmp_path / "folder", "alexnet_features.pth")
    monkeypatch.setenv("LPIPSTORE_WEIGHTS", str(tmp_path / "folder"))
    loaded = load("imagenet")
    assert_is_state(loaded.state)
    assert loaded.origin == str(tmp_path / "folder" / "alexnet_features.pth")


def test_folder_without_the_model_falls_back_to_the_cache(no_network, monkeypatch, tmp_path):
    save_into(tmp_path / "folder", "squeezenet1_1.pth", shift=1.0)
    save_into(no_network, "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("LPIPSTORE_WEIGHTS", str(tmp_path / "folder"))
    loaded = load("imagenet")
    assert_is_state(loaded.state)
    assert loaded.origin == "torchvision ImageNet (alexnet-owt-7be5be79.pth)"
    assert loaded.trained


def test_file_of_a_model_with_a_longer_name_is_not_taken(no_network, monkeypatch, tmp_path):
    save_into(tmp_path / "folder", "vgg16_bn-6c64b313.pth", shift=1.0)
    save_into(tmp_path / "folder", "vgg16_features.pth")
    monkeypatch.setenv("LPIPSTORE_WEIGHTS", str(tmp_path / "folder"))
    assert_is_state(load("imagenet", "vgg16").state)


def test_several_files_are_an_error_unless_one_is_the_official(no_network, monkeypatch, tmp_path):
    save_into(tmp_path / "folder", "alexnet_a.pth", shift=1.0)
    save_into(tmp_path / "folder", "alexnet_b.pth", shift=2.0)
    monkeypatch.setenv("LPIPSTORE_WEIGHTS", str(tmp_path / "folder"))
    with pytest.raises(UsageError, match="alexnet_a.pth, alexnet_b.pth"):
        load("imagenet")
    save_into(tmp_path / "folder", "alexnet-owt-7be5be79.pth")
    assert_is_state(load("imagenet").state)


def test_variable_that_is_not_a_folder_is_an_error(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("LPIPSTORE_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="LPIPSTORE_WEIGHTS is .*nowhere.*not a folder"):
        load("imagenet")


def test_without_network_and_file_the_error_says_what_to_do(no_network):
    start = time.monotonic()
    with pytest.raises(WeightsMissing) as caught:
        load("imagenet")
    assert time.monotonic() - start < 15
    message = str(caught.value)
    assert AlexNet_Weights.IMAGENET1K_V1.url in message
    assert str(no_network / "alexnet-owt-7be5be79.pth") in message
    for word in ("LPIPSTORE_WEIGHTS", "weights=FILE", 'weights="random"', "refused"):
        assert word in message


def test_server_that_does_not_answer_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pth"
        start = time.monotonic()
        assert "timed out" in weights._obstacle(url, seconds=0.2)
        assert time.monotonic() - start < 5


def local_entry(tmp_path, digest=None):
    """An entry like torchvision's whose address is a local file."""
    source = tmp_path / "source.pth"
    torch.save(STATE, source)
    digest = digest or hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    named = source.rename(tmp_path / f"tiny-{digest}.pth")

    class Local(WeightsEnum):
        IMAGENET1K_V1 = Weights(url=named.as_uri(), transforms=None, meta={})

    return Local.IMAGENET1K_V1


def test_download_lands_in_the_cache_and_stdout_stays_clean(no_network, tmp_path, capsys):
    entry = local_entry(tmp_path)
    found = weights._download(entry, "tiny")
    assert_is_state(read_tensors(found.path))
    assert found.path.parent == no_network
    assert capsys.readouterr().out == ""


def test_download_with_another_digest_is_refused_and_not_kept(no_network, tmp_path):
    entry = local_entry(tmp_path, digest="00000000")
    with pytest.raises(WeightsMissing, match="invalid hash value"):
        weights._download(entry, "tiny")
    assert not list(no_network.iterdir())


def test_model_without_weights_in_torchvision_says_so(no_network):
    with pytest.raises(WeightsMissing, match="torchvision has no weights for 'alexnet'"):
        load("imagenet", member="NO_SUCH_MEMBER")


def test_select_returns_the_expected_order():
    backwards = dict(reversed(STATE.items()))
    assert_is_state(select(backwards, EXPECTED, "given", "alex"))
