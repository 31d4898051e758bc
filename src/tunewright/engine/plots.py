"""Curves and adapters of a run as PNG files. The only importer of matplotlib; its Agg canvas needs no display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

CURVES: Final = {
    "loss": "training_loss.png", "eval_loss": "training_eval_loss.png", "eval_accuracy": "training_eval_accuracy.png",
    "rewards/accuracies": "training_rewards_accuracies.png", "eval_rewards/accuracies": "training_eval_rewards_accuracies.png",
    "rewards/margins": "training_rewards_margins.png", "reward": "training_reward.png", "eval_reward": "training_eval_reward.png",
    "kl": "training_kl.png"}
"""Metric of the log -> file."""


def plot_curves(log_history: Sequence[Mapping[str, Any]], output_dir: Path) -> list[Path]:
    """Draw each metric of CURVES that the log has at two steps or more; returns the files written."""
    written = []
    for metric, name in CURVES.items():
        points = [(int(entry["step"]), float(entry[metric])) for entry in log_history if entry.get(metric) is not None]
        if len(points) > 1:
            _draw(points, metric, output_dir / name)
            written.append(output_dir / name)
    return written


def plot_adapter(updates: Iterable[tuple[str, np.ndarray]], output_dir: Path) -> list[Path]:
    """Draw one file for each target, `lora_<target>.png`: a heat map for each module of that name, all on one scale."""
    by_target: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in updates:
        by_target.setdefault(name.rpartition(".")[2], []).append((name, values))
    written = []
    for target, maps in by_target.items():
        written.append(output_dir / f"lora_{target}.png")
        _draw_maps(target, maps, written[-1])
    return written


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average, the stronger the longer the run: its weight rises from 0 towards 0.9 with the number n of
    points, as 1.8 (1 / (1 + e^(-n / 20)) - 1/2) (LLaMA-Factory's rule)."""
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(values))) - 0.5)
    result: list[float] = []
    for value in values:
        result.append(weight * result[-1] + (1 - weight) * value if result else value)
    return result


def _draw(points: Sequence[tuple[int, float]], metric: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, values = [step for step, _ in points], [value for _, value in points]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, values, color="#1f77b4", alpha=0.4, label="as logged")
    axes.plot(steps, smoothed(values), color="#1f77b4", label="smoothed")
    axes.set(xlabel="step", ylabel=metric, title=f"{metric} over the run")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _draw_maps(target: str, maps: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(2.6 * columns + 1, 2.6 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    highest = max(float(values.max(initial=0)) for _, values in maps) or 1.0
    for panel, (name, values) in zip(panels, maps, strict=False):
        image = panel.imshow(values, cmap="viridis", vmin=0, vmax=highest, aspect="auto")
        panel.set_title(name, fontsize=6)
        panel.set(xticks=[], yticks=[])
    for panel in panels[len(maps):]:
        panel.axis("off")
    figure.colorbar(image, ax=list(panels), label="mean of |scaling B A|")
    figure.suptitle(f"what the adapter adds to {target}")
    figure.savefig(path, dpi=120)
