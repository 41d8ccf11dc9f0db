"""Weights of a trunk: from a file, from a folder, from torchvision, or random.

Nothing here runs code from a file: every file is read with ``torch.load(weights_only=True)``.
"""

import hashlib
import http.client
import math
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cache.errors import LpipstoreError, UsageError, setting

WEIGHTS_VARIABLE = "LPIPSTORE_WEIGHTS"
WeightsChoice = str | Path | Mapping[str, Tensor]

RANDOM_ORIGIN = "random (untrained)"

_REACH_SECONDS = 8.0


class WeightsMissing(LpipstoreError):  # noqa: N818 - it says what is the matter
    """ImageNet weights are neither on this machine nor available over the network."""


@dataclass(frozen=True)
class TrunkWeights:
    """Tensors of a trunk, and where they came from.

    Attributes
    ----------
    state : Mapping[str, Tensor]
        The expected tensors, on the CPU, with the expected dtypes.
    origin : str
        For display: the file, "torchvision ImageNet (...)", "random (untrained)", "given tensors".
    trained : bool
        False for random weights only.
    """

    state: Mapping[str, Tensor]
    origin: str
    trained: bool


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on this machine, and its origin in words."""

    path: Path
    origin: str


def find_weights(
    torchvision_name: str,
    choice: WeightsChoice,
    *,
    official: str | None,
    longer_names: tuple[str, ...],
) -> WeightsFile | None:
    """Find the weights file on this machine, without reading it.

    Parameters
    ----------
    torchvision_name, choice
        As for `load_weights`.
    official : str or None
        File name of torchvision's weights; None if torchvision has none.
    longer_names : tuple of str
        Models whose names start with this model's name, such as vgg16_bn for vgg16.

    Returns
    -------
    WeightsFile or None
        None if `choice` needs no file, or one that has yet to be downloaded.

    Raises
    ------
    UsageError
        The named file or folder does not exist, or several files would fit.
    """
    if isinstance(choice, Mapping) or choice == "random":
        return None
    if choice != "imagenet":
        path = Path(choice).expanduser()
        if not path.exists():
            raise UsageError(
                f"No weights at {str(path)!r}. "
                f"Choose {setting('weights', 'imagenet')}, {setting('weights', 'random')} "
                "(untrained), or an existing FILE."
            )
        return WeightsFile(path, str(path))
    own = _in_folder(torchvision_name, official, longer_names)
    if own is not None:
        return WeightsFile(own, str(own))
    if official is not None and (place := _hub_folder() / official).exists():
        return WeightsFile(place, _hub_origin(official))
    return None


def load_weights(
    torchvision_name: str,
    choice: WeightsChoice,
    *,
    found: WeightsFile | None,
    expected: Mapping[str, Tensor],
    backbone: str,
    member: str = "DEFAULT",
) -> TrunkWeights:
    """Load the weights of a trunk, check them and convert them to the expected dtypes.

    Parameters
    ----------
    torchvision_name : str
        Name of the model in torchvision, such as "squeezenet1_1".
    choice : str, Path or Mapping
        "imagenet": a file ``<torchvision_name>*.pth`` in the folder $LPIPSTORE_WEIGHTS, else
        torchvision's own weights from the torch.hub cache (downloaded if missing). "random":
        drawn by a private seeded generator. Otherwise a file, or the tensors.
    found : WeightsFile or None
        The result of `find_weights`.
    expected : Mapping of str to Tensor
        Name, shape and dtype of each tensor that the trunk needs (meta tensors will do). A source
        may hold more, such as a classifier, and may omit the prefix ``features.``.
    backbone : str
        Name of the backbone in messages.
    member : str
        Member of torchvision's weights enum to download, such as "IMAGENET1K_V1".

    Raises
    ------
    UsageError
        The source does not hold the tensors of the backbone.
    WeightsMissing
        The weights are neither on this machine nor available over the network.
    """
    if isinstance(choice, Mapping):
        state, origin = select(choice, expected, "the given tensors", backbone), "given tensors"
        return TrunkWeights(state, origin, True)
    if choice == "random":
        return TrunkWeights(random_state(expected), RANDOM_ORIGIN, False)
    if found is None:
        found = _download(_torchvision_entry(torchvision_name, member), torchvision_name)
    tensors = select(read_tensors(found.path), expected, str(found.path), backbone)
    return TrunkWeights(tensors, found.origin, True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors onto the CPU, without running code from it.

    Raises
    ------
    UsageError
        The file does not exist, is unreadable, or is not a dict of tensors by name.
    """
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise UsageError(f"The file {path} {kind}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged file can raise anything in the reader
        raise UsageError(
            f"{path} is not a file of tensors, or is damaged: it needs a state dict saved with "
            "torch.save. Nothing in it was run."
        ) from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds a {type(content).__name__}, not a dict of tensors by name.")
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise UsageError(
            f"{path} is not a plain dict of tensors by name: {_some(strangers)} "
            "is something else. Save the state dict alone."
        )
    return {str(name): value for name, value in content.items()}


def select(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, backbone: str
) -> dict[str, Tensor]:
    """Copy the expected tensors out of `state`, matched strictly by name and shape.

    Raises
    ------
    UsageError
        A tensor is missing or has the wrong shape; the message names source and backbone.
    """
    bare = {name: name.removeprefix("features.") for name in expected}
    if not any(name in state for name in expected) and all(bare[name] in state for name in bare):
        state = {name: state[bare[name]] for name in expected}
    missing = [name for name in expected if name not in state]
    if missing:
        raise UsageError(
            f"{source} does not fit the backbone {backbone}: it lacks {_some(missing)} "
            f"(its tensors are {_some(list(state))})."
        )
    wrong = [name for name in expected if state[name].shape != expected[name].shape]
    if wrong:
        name = wrong[0]
        raise UsageError(
            f"{source} does not fit the backbone {backbone}: {name} has shape "
            f"{tuple(state[name].shape)}, and {tuple(expected[name].shape)} was wanted"
            f"{f' ({len(wrong)} tensors differ)' if len(wrong) > 1 else ''}."
        )
    return {
        name: state[name].detach().to(device="cpu", dtype=like.dtype, copy=True).contiguous()
        for name, like in expected.items()
    }


def random_state(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw He-normal weights from a private generator; torch's global generator is not touched.

    Each tensor depends only on its own name and shape, so a trunk that ends at an earlier tap has
    the same first layers. Scales and variances are 1, biases and means 0.
    """
    return {name: _random_tensor(name, like) for name, like in expected.items()}


def _random_tensor(name: str, like: Tensor) -> Tensor:
    shape = tuple(like.shape)
    if len(shape) < 2 or not like.is_floating_point():
        one = name.endswith(("weight", "running_var")) and like.is_floating_point()
        return torch.full(shape, 1 if one else 0, dtype=like.dtype, device="cpu")
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    generator = torch.Generator("cpu").manual_seed(seed)
    spread = math.sqrt(2.0 / math.prod(shape[1:]))
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return (noise * spread).to(like.dtype)


def _in_folder(
    torchvision_name: str, official: str | None, longer_names: tuple[str, ...]
) -> Path | None:
    """Return the file for this model in $LPIPSTORE_WEIGHTS, or None if there is none."""
    folder_name = os.environ.get(WEIGHTS_VARIABLE)
    if not folder_name:
        return None
    folder = Path(folder_name).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{WEIGHTS_VARIABLE} is {folder_name!r}, which is not a folder.")
    found = [path for path in sorted(folder.glob(f"{torchvision_name}*.pth")) if path.is_file()]
    found = [path for path in found if not path.name.startswith(longer_names)]
    exact = [path for path in found if path.name == official]
    if len(found) > 1 and not exact:
        raise UsageError(
            f"{WEIGHTS_VARIABLE} holds several files for {torchvision_name}: "
            f"{_some([path.name for path in found])}. Name one with "
            f"{setting('weights', 'FILE')}."
        )
    return next(iter(exact or found), None)


def names_in_torchvision(torchvision_name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the file name of a model's weights, and the models whose names extend its name."""
    from torchvision.models import list_models

    entry = _torchvision_entry(torchvision_name, "DEFAULT")
    names = (str(name) for name in list_models())
    longer = tuple(n for n in names if n != torchvision_name and n.startswith(torchvision_name))
    return (None if entry is None else Path(entry.url).name), longer


def _torchvision_entry(torchvision_name: str, member: str) -> Any:  # noqa: ANN401 - untyped enum
    from torchvision.models import get_model_weights

    return getattr(get_model_weights(torchvision_name), member, None)


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()).expanduser() / "checkpoints"


def _hub_origin(file_name: str) -> str:
    return f"torchvision ImageNet ({file_name})"


def _download(entry: Any, torchvision_name: str) -> WeightsFile:  # noqa: ANN401 - untyped enum
    """Download torchvision's own weights into the torch.hub cache."""
    if entry is None:
        raise WeightsMissing(
            f"torchvision has no weights for {torchvision_name!r}. "
            f"Use {setting('weights', 'FILE')} with its state dict, or "
            f"{setting('weights', 'random')} (untrained)."
        )
    place = _hub_folder() / Path(entry.url).name
    obstacle = _obstacle(entry.url)
    if obstacle is None:
        try:
            # torch.hub reports on stdout, which is for results
            with redirect_stdout(sys.stderr):
                entry.get_state_dict(
                    progress=True, check_hash=True, weights_only=True, map_location="cpu"
                )
            return WeightsFile(place, _hub_origin(place.name))
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            obstacle = str(error)
    raise WeightsMissing(
        f"No weights for {torchvision_name}: {entry.url} cannot be fetched ({obstacle}). "
        f"Download it elsewhere and put it at {place}, or into a folder that the environment "
        f"variable {WEIGHTS_VARIABLE} names; or use {setting('weights', 'FILE')}, or "
        f"{setting('weights', 'random')} (an untrained trunk)."
    )


def _obstacle(url: str, seconds: float = _REACH_SECONDS) -> str | None:
    """Return the reason why `url` cannot be reached, within seconds; None if it can."""
    outcome: list[str | None] = []

    def knock() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - torchvision's own https
        try:
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)  # the server answered: the download will tell more
        except (OSError, ValueError) as error:
            outcome.append(str(getattr(error, "reason", error)))

    # In a thread, because name look-ups have no time-out
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return outcome[0] if outcome else f"no answer within {seconds:.0f} s"


def _some(names: list[str], most: int = 4) -> str:
    """Return the first few of many names as text."""
    shown = ", ".join(names[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
