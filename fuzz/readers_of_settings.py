"""Readers of what a user writes: configuration files, the command line, the registry of data sets."""

from __future__ import annotations

import contextlib
import json
import os

from fuzz.target import ROOT, Target, folder, words_in, written

_KEYS = words_in(
    "model_name_or_path stage finetuning_type dataset template cutoff_len output_dir learning_rate num_train_epochs lora_rank lora_target "
    "per_device_train_batch_size gradient_accumulation_steps lr_scheduler_type lr_scheduler_kwargs warmup_ratio bf16 seed dialect "
    "pref_loss rope_scaling interleave_probs mix_strategy optim resume_from_checkpoint report_to hub_token training lora model data "
    "adam_beta1 weight_decay train_on_prompt mask_history tool_format quantization_bit max_steps eval_dataset val_size deepspeed fsdp "
    "lora_r lora_alpha r batch_size lr data_path lora_target_modules base_model datasets adapter sequence_len micro_batch_size "
    "<<: &a *a !!python/object ? | > - --- ... # %YAML !!binary !!set !!int !!float !!timestamp .inf .nan ~ 1e-4 0x1 0o7 1_000 1:30 yes")
_ENTRY = words_in(
    "file_name formatting columns tags split num_samples folder subset ranking revision file_sha1 hf_hub_url script_url cloud_file_name "
    "prompt query response history messages system tools chosen rejected kto_tag role_tag content_tag user_tag assistant_tag alpaca "
    "sharegpt openai train[:10%] ../ /etc/passwd")


def _examples() -> list[bytes]:
    """The shorter examples of the repository without their comments: readers of YAML are slow."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.yaml"))]
    bare = ["\n".join(line.partition(" #")[0] for line in text.splitlines() if not line.startswith("#")) for text in texts]
    return [text.encode() for text in sorted(bare, key=len)[:4]]


def config_yaml(content: bytes) -> None:
    """A YAML file, as far as `tunewright check` goes before it opens what the file names."""
    from tunewright.dialects.read import read_config

    read_config([str(written("run.yaml", content))]).resolve()


def config_json(content: bytes) -> None:
    """The same of a JSON file, with what training needs."""
    from tunewright.dialects.read import read_config

    read_config([str(written("run.json", content))], purpose="train").resolve()


def words(content: bytes) -> None:
    """A command line, one word on each line of the input."""
    from tunewright.dialects.read import read_config

    with contextlib.chdir(folder()):
        read_config([os.fsdecode(word) for word in content.split(b"\n") if b"\0" not in word], purpose="chat").resolve()


def dataset_info(content: bytes) -> None:
    """A registry of data sets: the file, and every entry of it."""
    from tunewright.data.dataset_info import read_entry, read_registry
    from tunewright.data.quirks import STRICT
    from tunewright.errors import InputError

    path = written("dataset_info.json", content)
    refused = None
    for name, entry in read_registry(path).items():
        try:
            read_entry(entry, f"{path.name}: {name}", formatting=None, quirks=STRICT)
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def _yaml_seeds() -> list[bytes]:
    return [*_examples(), b"model_name_or_path: demo\nlora: {lora_rank: 8, lora_target: [q_proj, v_proj]}\nlearning_rate: 1.0e-4\n",
            b"a: &a {seed: 1}\ntraining:\n  <<: *a\n  lr_scheduler_kwargs: {num_cycles: 0.5}\n",
            b"dialect: qlora_script\nlora_r: 8\nbatch_size: 4\n",
            b"base_model: a/b\nadapter: qlora\ndatasets:\n  - path: a\n    type: alpaca\n"]


def _json_seeds() -> list[bytes]:
    import yaml

    return [json.dumps(yaml.safe_load(seed), indent=1).encode() for seed in _yaml_seeds()]


def _word_seeds() -> list[bytes]:
    return [b"model_name_or_path=demo\nstage=dpo\npref_loss=ipo\n--lora-rank=4\n"
            b"--learning_rate\n1e-4\n--bf16\n--no_gradient_checkpointing",
            b'--lr_scheduler_kwargs\n{"num_cycles": 0.5}\n'
            b'--training.save-steps\n5\ninterleave_probs=0.3,0.7\ndataset=[{"file_name": "a.json"}]',
            b"--dialect\nllamafactory\n--do_train\ntrue\n--val_size\n0.1\nlora_target=(q_proj,v_proj)"]


def _info_seeds() -> list[bytes]:
    return [json.dumps({
        "a": {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "m", "tools": "t"}, "tags": {"role_tag": "r"}},
        "b": {"hf_hub_url": "a/b", "split": "train", "subset": "c", "num_samples": 5, "ranking": True,
              "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
        "c": {"file_name": "c", "folder": "d", "file_sha1": "0" * 40, "columns": {"prompt": "p", "kto_tag": "k"}}}).encode()]


TARGETS = (
    Target("config_yaml", "configuration file in YAML", config_yaml, _yaml_seeds, _KEYS),
    Target("config_json", "configuration file in JSON", config_json, _json_seeds, _KEYS),
    Target("words", "words of the command line", words, _word_seeds, (*_KEYS, *words_in("-- --no_ = , [ { ( --config --dialect=native"))),
    Target("dataset_info", "registry of data sets", dataset_info, _info_seeds, _ENTRY),
)
