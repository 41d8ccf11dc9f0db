"""What a training leaves behind."""

import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from lpipstore.pipeline.training.checkpoint import write_tensorboard


def test_event_files_of_others_stay(tmp_path, monkeypatch):
    class Writer:
        """Stands for TensorBoard's, which tests do without."""

        def __init__(self, folder, filename_suffix):
            Path(folder).mkdir(exist_ok=True)
            (Path(folder) / f"events.out.tfevents.{next(times)}{filename_suffix}").touch()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_scalar(self, *_):
            pass

    times = count()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    write_tensorboard([], tmp_path)
    mine = tmp_path / "tensorboard" / "events.out.tfevents.1.host.2.0"
    mine.touch()
    write_tensorboard([], tmp_path)
    left = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert left == [mine.name, "events.out.tfevents.1.lpipstore"]
