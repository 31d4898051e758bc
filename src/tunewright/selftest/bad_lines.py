"""Plausible mistakes of a new user, at the command line and in an editor. The answers are written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tunewright.selftest.bad_case import NATIVE, Spoil, put, rows, written

READY: Final = written(NATIVE, {})


class Mistake(NamedTuple):
    """Words of a command line and the answer on stderr; `%` in the words stands for a space."""

    words: str
    expected: tuple[str, ...]
    spoil: Spoil | None = None
    code: int = 2


MISTAKES: Final[Mapping[str, Mistake]] = {
    "wrong verb": Mistake("trian c.yaml", ("'trian' is not a command; did you mean train?",)),
    "a configuration for a verb": Mistake("c.yaml", ("'c.yaml' is not a command; write: tunewright train c.yaml",)),
    "option config": Mistake("train --config c.yaml",
        ("command line: --config: a configuration is a word of its own, not an option; write c.yaml without --config",)),
    "option config with sign": Mistake("check --config_file=c.yaml",
        ("command line: --config_file: a configuration is a word of its own, not an option; write c.yaml without --config_file",)),
    "missing file": Mistake("train d.yaml", ("d.yaml: no such file; did you mean c.yaml?",)),
    "no dashes": Mistake("train c.yaml lora_rank 4", ("command line: lora_rank: a setting without a value; write lora_rank=4",)),
    "spaces around the sign": Mistake("train c.yaml lora_rank = 4",
        ("command line: lora_rank: a setting without a value; write lora_rank=4",)),
    "folder as configuration": Mistake("train data", ("data: is a directory, not a configuration file; name a YAML or JSON file",),
                                       put("data/x", "")),
    "data as configuration": Mistake("train rows.jsonl", ("rows.jsonl ... holds rows, not settings; ... dataset=rows.jsonl",)),
    "empty file": Mistake("train e.yaml", ("e.yaml: the file holds no settings; write one `key: value` on each line",), put("e.yaml", "")),
    "only comments": Mistake("train e.yaml", ("e.yaml: the file holds no settings",), put("e.yaml", "# later\n")),
    "a list": Mistake("train e.yaml", ("e.yaml: the file is not a mapping of keys to values",), put("e.yaml", "- lora_rank: 4\n")),
    "equal signs": Mistake("train e.yaml", ("e.yaml:1: ... `key: value`",), put("e.yaml", "lora_rank = 4\nseed = 1\n")),
    "one equal sign": Mistake("train e.yaml", ("e.yaml ... `key: value`",), put("e.yaml", "lora_rank=4\n")),
    "tab": Mistake("train e.yaml", ("e.yaml:2:1: not valid YAML: a tab is used where a space is needed; indent with spaces",),
                   put("e.yaml", "lora:\n\tlora_rank: 4\n")),
    "no space after colon": Mistake("train e.yaml", ("e.yaml:1: ... `key: value`",), put("e.yaml", "lora_rank:4\nseed:1\n")),
    "typographic quotes": Mistake("train e.yaml", ("e.yaml:1: model_name_or_path: “model” stands in typographic quotes ... write model",),
        put(
        "e.yaml", READY.replace("model\n", "“model”\n", 1))),
    "python tag": Mistake("train e.yaml", ("e.yaml:1: the tag !!python/object/apply:os.system is not allowed; write a plain value",),
                          put("e.yaml", "seed: !!python/object/apply:os.system ['touch canary']\n")),
    "key twice": Mistake("train e.yaml", ("e.yaml:2: seed: given twice, on line 1 and on line 2; remove one",), put("e.yaml",
        "seed: 1\nseed: 2\n")),
    "utf-16": Mistake("train e.yaml", ("e.yaml:1: not UTF-8 text (byte 0); save the file as UTF-8",), put("e.yaml",
        READY.encode("utf-16"))),
    "json comma": Mistake("train e.json", ("e.json:2:1: not valid JSON",), put("e.json", '{"seed": 1,\n}')),
    "json comment": Mistake("train e.json", ("e.json:1:3: not valid JSON",), put("e.json", '{ // seed\n"seed": 1}')),
    "nothing given": Mistake("train", (
        "model_name_or_path: not given; give a directory, a hub id or demo", "dataset: not given, but do_train needs it; give a file",
        "output_dir: not given; give the directory")),
    "check of nothing": Mistake("check", ("check needs a configuration; give a YAML or JSON file, or key=value settings",)),
    "chat without model": Mistake("chat use_cpu=true", ("model_name_or_path: not given; give a directory, a hub id or demo",)),
    "chat with a wrong folder": Mistake("chat ./modle", ("./modle: no such file ... did you mean model?",)),
    "export without folder": Mistake("export model", ("export_dir: not given; give the directory for the exported model",)),
    "export into the model": Mistake("export model export_dir=model",
        ("command line: export_dir: model is the directory of the model itself",)),
    "eval without data": Mistake("eval model", ("eval_dataset: not given; give the rows to evaluate on",)),
    "predict without folder": Mistake("predict model eval_dataset=rows.jsonl",
        ("output_dir: not given; give the directory for checkpoints and results",)),
    "preview beyond the end": Mistake("preview c.yaml --rows 8", ("--rows is '8', but the rows are 0 to 7; choose among them",)),
    "preview of a word": Mistake("preview c.yaml --rows all", ("--rows is 'all'; write a row, a range or a list: 3, 0-4 or 1,5,7",)),
    "preview set": Mistake("preview c.yaml --set eval", ("--set is 'eval'; the sets of this run are: train",)),
    "page into a missing folder": Mistake("preview c.yaml --html gone/page.html", ("--html: no folder gone; make it",)),
    "unknown template": Mistake("preview c.yaml template=chatlm",
        ("command line: template: there is no bundled template 'chatlm'; did you mean chatglm3 or chatml or chatml_de? `tunewright "
         "template list` shows all names",)),
    "explain a typo": Mistake("explain lora_rnk", ("lora_rnk: no parameter has this name; did you mean lora_rank",)),
    "convert to a typo": Mistake("convert --to llamafactroy c.yaml",
        ("--to: 'llamafactroy' is not a vocabulary; did you mean llamafactory?",)),
    "python literals": Mistake("train c.yaml bf16=True val_size=None", ("command line: val_size: 'None' is not a number",)),
    "single dash": Mistake("train c.yaml -lora_rank 4", ("command line: -lora_rank is not an option; options begin with two dashes",)),
    "value missing": Mistake("train c.yaml --lora_rank", ("command line: --lora_rank: a value is missing; write --lora_rank VALUE",)),
    "value missing before another": Mistake("train c.yaml --lora_rank --seed 1", ("command line: --lora_rank: a value is missing",)),
    "negative steps": Mistake("train c.yaml --max_steps -3", ("command line: --max_steps: -3 is out of range",)),
    "comma in a number": Mistake("train c.yaml learning_rate=0,001", ("command line: learning_rate: '0,001' is not a number",)),
    "wrong case": Mistake("train c.yaml LoRA_Rank=4", ("command line: LoRA_Rank: unknown key; did you mean lora_rank?",)),
    "hub id without network": Mistake("train c.yaml model_name_or_path=org/absent", (
        "model_name_or_path: org/absent is no directory here, and the hub did not give it",)),
    "broken json lines as json": Mistake("check c.yaml dataset=d.json", ("d.json:1: ... one array of objects",), put("d.json",
        '{"instruction": "a",\n"output": "b"}\n')),
    "all answers cut off": Mistake("train c.yaml cutoff_len=8",
        ("rows.jsonl: no trainable token in 3 of 3 rows: ... longer than cutoff_len 8 ... ; raise cutoff_len",), rows(
        "rows.jsonl", *[{"instruction": "anchor " * 40, "output": "yes"}] * 3)),
    "template raises": Mistake("train c.yaml template=./t.jinja", ("template t.jinja refuses the conversation: no way",), put("t.jinja",
        "{{ raise_exception('no way') }}")),
}
OPENED: Final = frozenset({
    "all answers cut off", "template raises", "preview beyond the end", "preview of a word", "preview set", "hub id without network"})
"""Those that show only once a tokenizer is open."""
