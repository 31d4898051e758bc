"""Which rows are trained on, and how they become tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import PurePath
from typing import Any, Final

from tunewright.config.param import Alias, Implied, param
from tunewright.config.quirks import QUIRKS

DatasetSpec = str | Mapping[str, Any]
"""A registered name, a file, a folder, a hub id, a path in the cloud, or an inline mapping with `file_name`, `formatting`, `columns`."""


PLACES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""Keys of an inline mapping that say where its rows are."""

_KEYS = (*PLACES, "formatting", "columns", "tags", "ranking", "subset", "split", "folder", "num_samples", "file_sha1")
"""Keys that describe one data set; a mapping without any of them names several."""


VALIDATION: Final = "validation"
"""Name of the evaluation set: all of `eval_dataset` together, unless each has a name of its own, or what `val_size` holds out."""

_NO_WORD: Final = re.compile(r"[^\w.-]+")


def named_sets(specs: tuple[DatasetSpec, ...]) -> list[tuple[str | None, DatasetSpec]]:
    """Each data set with the name that a mapping of names gives it, or None: `{dev: a.jsonl, hard: b.jsonl}` are two sets."""
    found: list[tuple[str | None, DatasetSpec]] = []
    for spec in specs:
        if isinstance(spec, Mapping) and not any(key in spec for key in _KEYS):
            found += [(str(name), one) for name, one in spec.items()]
        else:
            found.append((None, spec))
    return found


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data sets, splits, lengths, masks."""

    dataset: tuple[DatasetSpec, ...] = param(
        (), "Training sets: names registered in dataset_info.json, files, folders, patterns, data sets of a hub, paths in the cloud, or "
        "inline mappings.",
        llamafactory=Alias("dataset", convert="comma_list"), example="data/train.jsonl",
        cli_reference=Alias("dataset", convert="comma_list"),
        sft_json=Alias("train_file_name", default=("aspcoder_train.csv",), convert="comma_list"),
        qlora_script=Alias("data_path", default=("formatted_samples.json",), convert="comma_list"),
        mindspeed_fsdp2=Alias("dataset", convert="comma_list"))
    eval_dataset: tuple[DatasetSpec, ...] = param(
        (), "Evaluation sets, in the same forms as dataset, or a mapping of names to them.",
        llamafactory=Alias("eval_dataset", convert="comma_list"),
        mindspeed_fsdp2=Alias("eval_dataset", convert="comma_list"))
    eval_on_each_dataset: bool = param(
        False, "Evaluate each of several evaluation sets by itself, as eval_<name>_loss, besides all of them together.",
        llamafactory=Alias("eval_on_each_dataset", today=True), mindspeed_fsdp2="eval_on_each_dataset")
    mix_strategy: str = param(
        "concat", "How several training sets become one: one after the other (concat), or in turns until the first of them is at its end "
        "(interleave_under), until each was whole at least once, shorter ones repeating (interleave_over), or until each was whole exactly "
        "once (interleave_once).", choices=("concat", "interleave_under", "interleave_over", "interleave_once"),
        llamafactory="mix_strategy",
        mindspeed_fsdp2=Alias("mix_strategy", choices=("concat", "interleave_under", "interleave_over")))
    interleave_probs: tuple[float, ...] = param(
        (), "With which probability the next row comes from each training set; absent means strictly in turns.", example="0.7,0.3",
        llamafactory=Alias("interleave_probs", convert="comma_numbers"),
        mindspeed_fsdp2=Alias("interleave_probs", convert="comma_numbers"))
    streaming: bool = param(
        False, "Read training rows as they are needed, instead of tokenising all of them before the first step.",
        llamafactory="streaming", mindspeed_fsdp2="streaming")
    buffer_size: int = param(
        16384, "Rows of a stream that are held in memory and shuffled together.", unit="rows", minimum=1,
        llamafactory="buffer_size", mindspeed_fsdp2="buffer_size")
    dataset_dir: str = param(
        "data", "Folder with dataset_info.json and the files it names; `ONLINE` takes every name from the hub, `REMOTE:owner/name` the "
        "registry of a data set there.", llamafactory="dataset_dir",
        cli_reference=Alias("dataset_dir", convert="null_is_absent"), sft_json="train_file_path",
        mindspeed_fsdp2=Alias("dataset_dir", default="./configs/fsdp2/data"))
    data_compat: tuple[str, ...] = param(
        ("strict",), "What becomes of LLaMA-Factory's quirks in reading data: each is mended (strict), all that can be had are reproduced "
        "(compat), or only those that are named.", choices=("strict", "compat", *(quirk.name for quirk in QUIRKS)),
        example="columns-partial-defaults,listdir-order")
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
        "cut_right", "What becomes of a longer row, which the audit always counts: left out (drop), cut at its end (cut_right) or start "
        "(cut_left), made several rows at the borders of its turns (split), or cut in each question and answer by the rule of "
        "LLaMA-Factory, proportional. Packed pre-training continues a document in a new piece instead of cutting its end.",
        choices=("drop", "cut_right", "cut_left", "split", "proportional"),
        llamafactory=Implied("proportional"), mindspeed_fsdp2=Implied("proportional"))
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
    data_manager_type: str = param(
        "lf", "What `dataset` names: rows of text (lf), or prefixes of Megatron's .bin and .idx files of tokens, with weights before them "
        "or without, for pre-training (mg).", choices=("lf", "mg"), mindspeed_fsdp2="data_manager_type")
    split: str = param(
        "100,0,0", "Proportions of the documents of each set for training, validation and test, in this order, where data_manager_type is "
        "mg.", example="949,50,1", mindspeed_fsdp2="split")
    preprocessing_num_workers: int | None = param(
        None, "Processes that tokenise; absent means one for each processor, up to 16, but none for less than 4 MB.", minimum=1,
        maximum=512,
        llamafactory="preprocessing_num_workers", recorded=False,
        cli_reference="preprocessing_num_workers", mindspeed_fsdp2="preprocessing_num_workers")
    preprocessing_batch_size: int = param(
        1000, "Rows that one of these processes is given at a time, and keeps in one file until all are done.", unit="rows", minimum=1,
        maximum=10**7, llamafactory="preprocessing_batch_size", mindspeed_fsdp2="preprocessing_batch_size", recorded=False, example="2000")
    tokenized_path: str | None = param(
        None, "Folder that keeps the prepared sets: what it holds is used and no file of rows is read, else they are saved there.",
        example="tokens/train", llamafactory="tokenized_path", mindspeed_fsdp2="tokenized_path")
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
        "auto", "Chat template: `auto` (the tokenizer's own), a name that `tunewright template list` shows, or a jinja file.",
        llamafactory=Alias("template", convert="null_is_auto"), example="qwen2.5",
        cli_reference=("template", Alias("template_file", convert="template_path")),
        sft_json=Alias("template_name", default="qwen", convert="model_type"),
        mindspeed_fsdp2=Alias("template", convert="null_is_auto"))
    template_type: str = param(
        "default", "What is rendered: the conversation as the template writes it (default and chat are the same), or the texts alone, one "
        "after the other, the answer closed by the end token (completion).", choices=("default", "chat", "completion"),
        cli_reference="template_type")
    tool_format: str | None = param(
        None, "How tools are written - definitions, calls - in the place of the template's own way: ReAct (default) or a family's.",
        choices=("default", "deepseek", "gemma4", "glm4", "glm4_moe", "lfm2", "ling", "llama3", "minimax1", "minimax2", "mistral", "qwen",
                 "qwen3_5", "seed_oss", "react", "hermes"), example="qwen",
        llamafactory="tool_format", mindspeed_fsdp2="tool_format")
    template_date: str | None = param(
        None, "Date that templates which write today's date are given, in place of the clock; absent means 2024-07-26, so that a render "
        "never depends on the day. A date that is given is also fixed in the exported template.", example="2025-01-31")
    default_system: str | None = param(
        None, "System prompt of rows that have none; an empty text means no system prompt; absent leaves it to the template.",
        llamafactory="default_system",
        mindspeed_fsdp2="default_system")
    enable_thinking: bool | None = param(
        True, "Thinking of reasoning models: on, off, or absent to keep rows as they are.",
        llamafactory=Alias("enable_thinking", today=True),
        mindspeed_fsdp2="enable_thinking")


def evaluation_sets(data: DataConfig) -> dict[str, list[DatasetSpec]]:
    """What of `eval_dataset` is evaluated by itself, by name: each set if the run wants that or names them, otherwise all as one.

    A set without a name is called as its file is, without folder and ending; a second one of that name gets a number.
    """
    named = named_sets(data.eval_dataset)
    if len(named) < 2 or not (data.eval_on_each_dataset or any(name for name, _ in named)):
        return {VALIDATION: [spec for _, spec in named]} if named else {}
    given_names = {given for given, _ in named if given}
    found: dict[str, list[DatasetSpec]] = {}
    for given, spec in named:
        if given and given not in found:
            found[given] = [spec]
        else:
            base = given or _NO_WORD.sub("_", PurePath(str(spec.get("file_name", "set") if isinstance(spec, Mapping) else spec)).stem)
            numbered = (f"{base}_{number}" for number in count(2))
            found[next(name for name in chain([base], numbered) if name not in found and name not in given_names)] = [spec]
    return found
