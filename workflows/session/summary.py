"""Lines of a summary that several kinds of runs share."""

from typing import Any

from .collection import STAGES


def show_precision(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how exact fast distances are as a line for people; no line for exact ones."""
    if "precision_error" not in summary:
        return []
    return [("precision", f"fast: within {summary['precision_error']:.1g} of exact (sampled)")]


def show_figures(summary: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    """Return the figures of a summary as lines for people; `kind` is that of the error."""
    stderr = summary["stderr"]
    spread = "" if stderr is None else f" ± {stderr:.4f} (standard error {kind})"
    seconds, quantiles = summary["seconds"], summary["quantiles"]
    stages = ", ".join(f"{name} {seconds[name]:.2f}" for name in STAGES)
    return [
        ("mean distance", f"{summary['mean']:.4f}{spread}"),
        (
            "spread",
            f"std {summary['std']:.4f}, smallest {quantiles['0.0']:.4f}, "
            f"median {quantiles['0.5']:.4f}, largest {quantiles['1.0']:.4f}",
        ),
        ("seconds", f"{seconds['total']:.2f} ({stages})"),
    ]
