"""How a training went: loss and agreement over its epochs."""

from typing import Any

from ..contract import Content, Subject

_PLOTS = (("Agreement with the majority", "agreement"), ("Loss", "loss"))
_PARTS = (("train", "train"), ("held out", "held_out"))


class Curves:
    """Two plots, of the judgements trained on and of those held out; the epoch kept is marked."""

    name = "curves"
    title = "Curves"
    kinds = ("train",)

    def content(self, subject: Subject) -> Content:
        """Return the values of each epoch."""
        history, best = subject.training.history, int(subject.run.summary["best_epoch"])
        epochs = sorted({line["epoch"] for line in history})
        held = any(line["part"] == "held_out" for line in history)
        known = {(line["part"], line["epoch"]): line for line in history}
        plots = [
            {
                "name": name,
                "series": [_series(known, epochs, *part, key) for part in _PARTS[: 1 + held]],
            }
            for name, key in _PLOTS
        ]
        chosen = (
            "the one kept has the lowest loss on what is held out"
            if held
            else "nothing is held out, so the last one is kept"
        )
        return Content(
            f"Each point is an epoch, the first one the head at the start; {chosen}. A gap that "
            "opens between the lines is overfitting.",
            {"plots": plots, "epochs": epochs, "best": best},
            {"plots": plots, "epochs": epochs, "best": best},
        )


def _series(
    known: dict[tuple[str, int], dict[str, Any]],
    epochs: list[int],
    shown: str,
    part: str,
    key: str,
) -> dict[str, Any]:
    values = [known.get((part, epoch), {}).get(key) for epoch in epochs]
    return {"name": shown, "values": values}
