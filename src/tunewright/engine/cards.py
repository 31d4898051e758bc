"""The model card: README.md beside the weights, from a list of allowed facts.

No absolute path, host name, user name or row of data gets in: paths are cut to their last part, and a parameter that is not in
`SHOWN` is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tunewright.config.data import DatasetSpec
    from tunewright.config.run import RunConfig

PACKAGES: Final = ("tunewright", "transformers", "peft", "torch", "accelerate", "tokenizers")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_LICENSE = re.compile(r"^license:[ \t]*([\w.+-]{1,64})[ \t]*$", re.MULTILINE)

METRICS_SHOWN: Final = re.compile(r"(train|eval|predict)_[\w./-]+|epoch|total_tokens|peak_memory_gb")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says: base model and data sets by name only, hyper-parameters, results, versions."""

    stage: str
    finetuning_type: str
    base_model: str
    datasets: tuple[str, ...]
    license: str | None
    parameters: Mapping[str, Any]
    results: Mapping[str, float]
    versions: Mapping[str, str]


def card_facts(run: RunConfig, results: Mapping[str, float]) -> CardFacts:
    """The facts of a run. `results` are the contents of all_results.json."""
    model = run.model.model_name_or_path or "unknown"
    return CardFacts(
        stage=run.run.stage,
        finetuning_type=run.tuning.finetuning_type,
        base_model=public_name(model),
        datasets=tuple(dict.fromkeys(_dataset_name(one) for one in run.data.dataset)),
        license=license_of(Path(model)),
        parameters=_shown(run),
        results={name: value for name, value in results.items() if METRICS_SHOWN.fullmatch(name)},
        versions=package_versions())


def write_card(output_dir: Path, facts: CardFacts) -> Path:
    """Write README.md into `output_dir`; returns its path."""
    path = output_dir / "README.md"
    path.write_text(render_card(facts), encoding="utf-8")
    return path


def render_card(facts: CardFacts) -> str:
    """The card's text: YAML front matter that the hub reads, then tables."""
    name = facts.base_model.rsplit("/", 1)[-1]
    data = ", ".join(facts.datasets) or "no named data set"
    parts = [
        _front_matter(facts),
        f"# {_plain(name)}, {facts.stage} ({facts.finetuning_type})",
        f"{_plain(facts.base_model)}, fine-tuned with tunewright on {_plain(data)}.",
        "## Training parameters\n\n" + _table(("parameter", "value"), facts.parameters),
        "## Results\n\n" + (_table(("metric", "value"), facts.results) if facts.results else "None were measured."),
        "## Versions\n\n" + _table(("package", "version"), facts.versions),
    ]
    return "\n\n".join(parts) + "\n"


def public_name(model: str) -> str:
    """A hub id as it is; of a path only the last part."""
    path = Path(model)
    if _HUB_ID.fullmatch(model) and not path.exists() and not model.startswith("."):
        return model
    return path.resolve().name if model in (".", "..") else path.name


def license_of(directory: Path) -> str | None:
    """The licence that the base model's own card names in its front matter, if it is at hand."""
    card = directory / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(65536)
    found = _LICENSE.search(head.split("\n---", 1)[0]) if head.startswith("---") else None
    return found.group(1) if found else None


def _dataset_name(spec: DatasetSpec) -> str:
    given = spec if isinstance(spec, str) else str(spec.get("file_name", "inline"))
    return Path(given).stem if "/" in given or "\\" in given or Path(given).suffix else given


def _shown(run: RunConfig) -> dict[str, Any]:
    """The allowed parameters, with the values of the run."""
    batching, optimizer, schedule = run.batching, run.optimizer, run.schedule
    shown: dict[str, Any] = {
        "learning_rate": optimizer.learning_rate,
        "optim": optimizer.optim,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "lr_scheduler_type": schedule.lr_scheduler_type,
        "warmup_steps": schedule.warmup_steps,
        "warmup_ratio": schedule.warmup_ratio,
        "per_device_train_batch_size": batching.per_device_train_batch_size,
        "gradient_accumulation_steps": batching.gradient_accumulation_steps,
        "num_train_epochs": batching.num_train_epochs,
        "max_steps": batching.max_steps,
        "cutoff_len": run.data.cutoff_len,
        "packing": run.data.packing,
        "seed": run.run.seed,
        "bf16": run.precision.bf16,
        "fp16": run.precision.fp16,
        "pure_bf16": run.precision.pure_bf16,
    }
    return shown | _lora_shown(run) if run.tuning.finetuning_type == "lora" else shown


def _lora_shown(run: RunConfig) -> dict[str, Any]:
    lora = run.lora
    return {
        "lora_rank": lora.lora_rank,
        "lora_alpha": 2 * lora.lora_rank if lora.lora_alpha is None else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "lora_target": ", ".join(lora.lora_target),
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "pissa_init": lora.pissa_init,
        "loraplus_lr_ratio": lora.loraplus_lr_ratio,
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what a run computes."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _front_matter(facts: CardFacts) -> str:
    import yaml

    fields: dict[str, Any] = {
        "library_name": "peft" if facts.finetuning_type == "lora" else "transformers",
        "base_model": facts.base_model,
        "tags": ["tunewright", facts.stage, facts.finetuning_type, "generated_from_trainer"],
    }
    if facts.license:
        fields["license"] = facts.license
    if facts.datasets:
        fields["datasets"] = list(facts.datasets)
    return "---\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True) + "---"


def _table(head: Sequence[str], rows: Mapping[str, Any]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---|---|"]
    return "\n".join(lines + [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows.items()])


def _plain(value: Any) -> str:
    """Text that cannot break out of a table cell or become a link or a tag."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[|\[\]<>`\r\n]+", " ", text)
