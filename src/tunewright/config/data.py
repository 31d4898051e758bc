"""Which rows are trained on, and how they become tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.config.param import Alias, param

DatasetSpec = str | Mapping[str, Any]
"""A registered name, a file, a folder, or an inline mapping with `file_name`, `formatting`, `columns`, `tags`."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data sets, splits, lengths, masks."""

    dataset: tuple[DatasetSpec, ...] = param(
        (), "Training sets: names registered in dataset_info.json, files, folders, or inline mappings.",
        llamafactory=Alias("dataset", convert="comma_list"), example="data/train.jsonl",
        cli_reference=Alias("dataset", convert="comma_list"),
        sft_json=Alias("train_file_name", default=("aspcoder_train.csv",), convert="comma_list"),
        qlora_script=Alias("data_path", default=("formatted_samples.json",), convert="comma_list"),
        mindspeed_fsdp2=Alias("dataset", convert="comma_list"))
    eval_dataset: tuple[DatasetSpec, ...] = param(
        (), "Evaluation sets, in the same forms as dataset.", llamafactory=Alias("eval_dataset", convert="comma_list"),
        mindspeed_fsdp2=Alias("eval_dataset", convert="comma_list"))
    dataset_dir: str = param("data", "Folder with dataset_info.json and the files it names.", llamafactory="dataset_dir",
        cli_reference=Alias("dataset_dir", convert="null_is_absent"), sft_json="train_file_path",
        mindspeed_fsdp2=Alias("dataset_dir", default="./configs/fsdp2/data"))
    val_size: float = param(
        0.0, "Part of the training set held out for evaluation: a fraction below 1, or a number of rows from 1 on.",
        minimum=0, llamafactory="val_size",
        cli_reference=Alias("val_size", default=0.1), mindspeed_fsdp2="val_size")
    max_samples: int | None = param(
        None, "First rows of each set to use.", unit="rows", minimum=1, llamafactory="max_samples",
        cli_reference="max_samples", mindspeed_fsdp2="max_samples")
    prompt_column: str = param(
        "instruction", "Column of the questions in sets that do not name their columns, or of the documents in pre-training; another "
        "name than the default reads the rows as Alpaca's.", cli_reference="prompt_column", example="question")
    query_column: str = param(
        "input", "Column that is appended to the question, in the same sets.", cli_reference="query_column", example="context")
    response_column: str = param("output", "Column of the answers, in the same sets.", cli_reference="response_column", example="answer")
    history_column: str = param(
        "history", "Column of the earlier turns, pairs of question and answer, in the same sets.", cli_reference="history_column",
        example="turns")
    cutoff_len: int = param(
        2048, "Longest sequence after tokenisation.", unit="tokens", minimum=8, maximum=2**24,
        llamafactory=Alias("cutoff_len", default=1024),
        cli_reference=Alias("cutoff_len", default=512), sft_json=Alias("max_seq_length", default=1024),
        qlora_script=Alias("max_tokens", default=4096), mindspeed_fsdp2="cutoff_len")
    cutoff_policy: str = param(
        "cut_right", "What happens to a longer row: left out, cut at its end, or cut at its start; each is counted in the audit. "
        "Packed pre-training continues it in a new piece instead of cutting its end.",
        choices=("drop", "cut_right", "cut_left"))
    train_on_prompt: bool = param(False, "Train on the prompt too.", llamafactory="train_on_prompt",
        mindspeed_fsdp2="train_on_prompt")
    mask_history: bool = param(False, "Train on the last answer of a conversation only.", llamafactory="mask_history",
        mindspeed_fsdp2="mask_history")
    packing: bool | None = param(
        None, "Put several rows into one sequence of cutoff_len; absent means: in pre-training only.", llamafactory="packing",
        mindspeed_fsdp2=Alias("packing", default=False))
    neat_packing: bool = param(
        True, "Rows of one packed sequence do not attend to each other.", llamafactory=Alias("neat_packing", default=False),
        mindspeed_fsdp2=Alias("neat_packing", default=False))
    preprocessing_num_workers: int | None = param(
        None, "Processes that tokenise; absent means one.", minimum=1, maximum=512,
        llamafactory="preprocessing_num_workers", recorded=False,
        cli_reference="preprocessing_num_workers", mindspeed_fsdp2="preprocessing_num_workers")
    overwrite_cache: bool = param(
        False, "Tokenise again even if the cache holds the result.", llamafactory="overwrite_cache", recorded=False,
        cli_reference="overwrite_cache", mindspeed_fsdp2="overwrite_cache")
    data_cache_dir: str | None = param(
        None, "Folder of the token cache; absent means `~/.cache/tunewright/tokens`, `none` means no cache.", recorded=False)
    max_dropped_fraction: float = param(
        0.5, "Largest part of a data set that may be dropped as unusable before the run is refused.", minimum=0, maximum=1)

    def columns(self) -> dict[str, str]:
        """The columns of sets that do not name theirs, under the keys of dataset_info.json."""
        return {"prompt": self.prompt_column, "query": self.query_column, "response": self.response_column, "history": self.history_column}


@dataclass(frozen=True, kw_only=True)
class TemplateConfig:
    """How a conversation is rendered to text."""

    template: str = param(
        "auto", "Chat template: `auto` (the tokenizer's own), the name of a bundled one, or a jinja file.",
        llamafactory=Alias("template", convert="null_is_auto"), example="qwen2.5",
        cli_reference=("template", Alias("template_file", convert="template_path")),
        sft_json=Alias("template_name", default="qwen", convert="model_type"),
        mindspeed_fsdp2=Alias("template", convert="null_is_auto"))
    template_type: str = param(
        "default", "What is rendered: the conversation as the template writes it (default and chat are the same), or the texts alone, one "
        "after the other, the answer closed by the end token (completion).", choices=("default", "chat", "completion"),
        cli_reference="template_type")
    default_system: str | None = param(
        None, "System prompt of rows that have none; an empty text means no system prompt; absent leaves it to the template.",
        llamafactory="default_system",
        mindspeed_fsdp2="default_system")
    enable_thinking: bool | None = param(
        True, "Thinking of reasoning models: on, off, or absent to keep rows as they are.",
        llamafactory=Alias("enable_thinking", today=True),
        mindspeed_fsdp2="enable_thinking")
