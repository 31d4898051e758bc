"""Wrong files: configuration, data, model, adapter, template, output directory. The answers are written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.badinputs.spoiling import adapter, change, cut, every, folder, put, remove, rows
from tests.badinputs.workspace import NATIVE, Case, answer, assert_lines, assert_refused, case, tree, written

GOOD = {"instruction": "say", "output": "yes"}
SHARE = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}

DATA = (
    case("unknown data set", "c.yaml:2: dataset: `alpca_en` is not a name in data/dataset_info.json ... did you mean `alpaca_en`?",
         dataset="alpca_en", spoil=put("data/dataset_info.json", '{"alpaca_en": {"file_name": "a.json"}}')),
    case("registry broken", "data/dataset_info.json:2: ... JSON", dataset="x", spoil=put("data/dataset_info.json", '{"a": {}\n,}')),
    case("registry file missing", "data/dataset_info.json `x`: file_name: `gone.json` does not exist", dataset="x",
         spoil=put("data/dataset_info.json", '{"x": {"file_name": "gone.json"}}')),
    case("data missing", "c.yaml:2: dataset: `rowz.jsonl` is not ... did you mean `rows.jsonl`?", dataset="rowz.jsonl"),
    case("array truncated", "d.json:2:23: not valid JSON: ... text ends in the middle of a row", dataset="d.json",
         spoil=put("d.json", '[{"instruction": "a", "output": "b"},\n {"instruction": "a", "ou')),
    case("line broken", "d.jsonl:7:36: not valid JSON", dataset="d.jsonl",
         spoil=put("d.jsonl", '{"instruction": "a", "output": "b"}\n' * 6 + '{"instruction": "a", "output": "b" "c"}\n')),
    case("output integer", "d.jsonl:6: output: string wanted, found integer 5", dataset="d.jsonl",
         spoil=rows("d.jsonl", *[GOOD] * 5, {"instruction": "a", "output": 5})),
    case("output null", "d.jsonl:6: output: string wanted, found null", dataset="d.jsonl",
         spoil=rows("d.jsonl", *[GOOD] * 5, {"instruction": "a", "output": None})),
    case("outputs empty", "d.jsonl: ... in 3 of 3 rows: ... d.jsonl:1 ... mend the rows", dataset="d.jsonl",
         spoil=rows("d.jsonl", *[{"instruction": "a", "output": ""}] * 3)),
    case("column absent", "d.jsonl:1: question (columns.prompt of d.jsonl): missing; columns present: instruction, output",
         dataset='{file_name: d.jsonl, formatting: alpaca, columns: {prompt: question}}', spoil=rows("d.jsonl", GOOD)),
    case("empty array", "d.json: the file holds no rows; put rows into it", dataset="d.json", spoil=put("d.json", "[]")),
    case("empty file", "d.jsonl: the file is empty; put rows into it", dataset="d.jsonl", spoil=put("d.jsonl", "")),
    case("wrong order", "d.jsonl: ... in 2 of 2 rows: ... d.jsonl:1, d.jsonl:2; mend the rows", dataset="d.jsonl",
         spoil=rows("d.jsonl", *[{"conversations": SHARE["conversations"][::-1]}] * 2)),
    case("unknown role", "d.jsonl ... d.jsonl:1", dataset="d.jsonl",
         spoil=rows("d.jsonl", *[{"conversations": [{"from": "wizard", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 2)),
    case("utf-16", "d.jsonl: the text is UTF-16, UTF-8 wanted; convert it: iconv", dataset="d.jsonl",
         spoil=put("d.jsonl", '{"instruction": "a", "output": "b"}\n'.encode("utf-16"))),
    case("not utf-8", "d.jsonl:2: byte 53 (0xff) is not UTF-8; save the file as UTF-8", dataset="d.jsonl",
         spoil=put("d.jsonl", b'{"instruction": "a", "output": "b"}\n{"instruction": "\xff", "output": "b"}\n')),
    case("lone surrogate", "d.jsonl:1: \\ud800 is half of a surrogate pair", dataset="d.jsonl",
         spoil=put("d.jsonl", '{"instruction": "\\ud800", "output": "b"}\n')),
    case("NaN", "d.jsonl:1: NaN is not JSON", dataset="d.jsonl", spoil=put("d.jsonl", '{"instruction": "a", "output": NaN}\n')),
    case("key twice", "d.jsonl:1: the key `output` is there twice", dataset="d.jsonl",
         spoil=put("d.jsonl", '{"instruction": "a", "output": "b", "output": "c"}\n')),
    case("key missing in a row", "d.jsonl:2: output: missing; columns present: instruction", dataset="d.jsonl",
         spoil=rows("d.jsonl", GOOD, {"instruction": "a"})),
    case("folder of mixed files", "c.yaml:2: dataset: files of different types in one data set: `a.jsonl`, `b.csv`; name the files",
         dataset="d", spoil=every(rows("d/a.jsonl", GOOD), put("d/b.csv", "instruction,output\na,b\n"))),
    case("folder without data", "d: the folder holds no data files; types", dataset="d", spoil=folder("d")),
    case("array in jsonl", "d.jsonl:1: a row is a JSON object, found array; a file that is one array ends in .json", dataset="d.jsonl",
         spoil=put("d.jsonl", '[{"instruction": "a", "output": "b"}]\n')),
    case("pretty array in jsonl", "d.jsonl:1 ... a file that is one array ends in .json", dataset="d.jsonl",
         spoil=put("d.jsonl", '[\n  {"instruction": "a", "output": "b"}\n]\n')),
    case("semicolons", "d.csv:1: ... semicolons", dataset="d.csv", spoil=put("d.csv", "instruction;output\na;b\n")),
    case("tabs in csv", "d.csv:1: ... tabs", dataset="d.csv", spoil=put("d.csv", "instruction\toutput\na\tb\n")),
    case("fields missing", "d.csv:3: 1 fields, but the header has 2: instruction, output", dataset="d.csv",
         spoil=put("d.csv", "instruction,output\na,b\nc\n")),
    case("packed file truncated", "d.jsonl.gz: the packed file is damaged or truncated: ... fetch it again", dataset="d.jsonl.gz",
         spoil=put("d.jsonl.gz", b"\x1f\x8b\x08\x00")),
    case("compressed under another name", "d.jsonl: ... compressed ... gunzip", dataset="d.jsonl", spoil=put("d.jsonl",
         b"\x1f\x8b\x08\x00abc")),
    case("spreadsheet", "d.xlsx: unknown type `.xlsx`; types", dataset="d.xlsx", spoil=put("d.xlsx", b"PK")),
    case("parquet truncated", "d.parquet: not a Parquet file, or truncated", dataset="d.parquet", spoil=put("d.parquet", b"PAR1abc")),
    case("no format", "d.jsonl:1: no format fits the columns a, b; say what they are", dataset="d.jsonl", spoil=rows("d.jsonl", {"a": "1",
         "b": "2"})),
    case("documents for sft", "d.jsonl:1: stage sft trains on conversations, but these rows are documents; set stage: pt",
         dataset="d.jsonl",
         spoil=rows("d.jsonl", {"text": "abc"})),
    case("eval data missing", "c.yaml:7: eval_dataset: `gone.jsonl` is not", eval_dataset="gone.jsonl"),
    case("val_size takes all", "c.yaml:7: val_size: 8 holds out 8 of 8 rows and leaves none to train on; make it smaller", val_size="8"),
    case("home folder", "c.yaml:2: dataset: `~/nowhere/rows.jsonl` is not", dataset="~/nowhere/rows.jsonl"),
)

MODEL = (
    case("model missing", "c.yaml:1: model_name_or_path: path not found: ./modle; give an existing directory",
         model_name_or_path="./modle"),
    case("model is a file", "c.yaml:1: model_name_or_path: rows.jsonl is a file, not a model directory", model_name_or_path="rows.jsonl"),
    case("model empty", "c.yaml:1: model_name_or_path: ... empty has no config.json; give the directory", model_name_or_path="empty",
         spoil=folder("empty")),
    case("model a folder too high", "c.yaml:1: model_name_or_path: ... has no config.json ... did you mean model?", model_name_or_path="."),
    case("weights truncated",
         "c.yaml:1: model_name_or_path: weights file truncated or damaged: ... model.safetensors: needs ... has 50000; fetch",
         spoil=cut("model/model.safetensors", 50000)),
    case("weights missing", "c.yaml:1: model_name_or_path: ... has no model.safetensors; fetch", spoil=remove("model/model.safetensors")),
    case("weights a pickle", "c.yaml:1: model_name_or_path: ... has no model.safetensors; pytorch_model.bin is a pickle ... convert",
         spoil=every(remove("model/model.safetensors"), put("model/pytorch_model.bin", b"x"))),
    case("weights a pointer", "c.yaml:1: model_name_or_path: ... Git LFS ... git lfs pull",
         spoil=put("model/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")),
    case("config broken", "model/config.json:1: not valid JSON", spoil=put("model/config.json", "{")),
    case("layers 10^6", "model/config.json: num_hidden_layers is 1000000, not an integer from 1 to 1024",
         spoil=change("model/config.json", num_hidden_layers=10**6)),
    case("heads 0", "model/config.json: num_attention_heads is 0, not", spoil=change("model/config.json", num_attention_heads=0)),
    case("hidden -64", "model/config.json: hidden_size is -64, not", spoil=change("model/config.json", hidden_size=-64)),
    case("hidden text", "model/config.json: hidden_size is '64', not", spoil=change("model/config.json", hidden_size="64")),
    case("unknown rope", "model/config.json: rope_type is 'nope', not one of", spoil=change("model/config.json",
         rope_parameters={"rope_type": "nope"})),
    case("unknown family", "model/config.json: model_type is 'lama' ... did you mean llama?", spoil=change("model/config.json",
         model_type="lama")),
    case("quantised", "model/config.json: the weights are quantised (gptq) ... use the unquantised model",
         spoil=change("model/config.json", quantization_config={"quant_method": "gptq"})),
    case("vocabulary too small",
         "model/config.json: vocab_size is 100, but the tokenizer makes ids up to ... use the tokenizer that belongs",
         spoil=change("model/config.json", vocab_size=100)),
    case("no tokenizer", "c.yaml:1: model_name_or_path: ... has no tokenizer files; one of tokenizer.json",
         spoil=remove("model/tokenizer.json")),
    case("tokenizer broken", "model/tokenizer.json: ... not valid JSON ... fetch the file again", spoil=cut("model/tokenizer.json", 500)),
    case("no chat template", "c.yaml:1: model_name_or_path: the tokenizer has no chat template; set template",
         spoil=remove("model/chat_template.jinja")),
    case("tokenizer leaves its folder", "model/tokenizer_config.json: vocab_file names a file outside the model directory",
         spoil=change("model/tokenizer_config.json", vocab_file="../rows.jsonl")),
    case("gguf missing", "c.yaml:7: gguf_file: no file m.gguf in", gguf_file="m.gguf"),
    case("freeze too many", "c.yaml:8: freeze_trainable_layers: 9 ... the model has 2 layers; use -2 to 2", finetuning_type="freeze",
         freeze_trainable_layers="9"),
    case("freeze nothing known", "c.yaml:8: freeze_trainable_modules: 'mpl' matches no module of this model; use mlp",
         finetuning_type="freeze",
         freeze_trainable_modules="mpl"),
    case("fp16 without accelerator", "c.yaml:7: fp16: ... accelerator", use_cpu="true", fp16="true"),
)

ADAPTER = (
    case("not an adapter", "c.yaml:7: adapter_name_or_path: model has no adapter_config.json; give the directory of an adapter",
         adapter_name_or_path="model"),
    case("adapter missing", "c.yaml:7: adapter_name_or_path: path not found: ./gone; give", adapter_name_or_path="./gone"),
    case("other method", "a/adapter_config.json: peft_type is 'IA3', only LORA can be loaded; merge it", adapter_name_or_path="a",
         spoil=adapter("a", peft_type="IA3")),
    case("adapter of another size",
         "c.yaml:7: adapter_name_or_path: adapter a was made for another model (model): ... 64 inputs there ... give the model",
         adapter_name_or_path="a", spoil=adapter("a", hidden=64)),
    case("adapter of another family",
         "c.yaml:7: adapter_name_or_path: adapter a was made for another model (gpt2): it adapts transformer.h.0.attn",
         adapter_name_or_path="a", spoil=adapter("a", module="transformer.h.0.attn", base_model_name_or_path="gpt2")),
    case("rank differs", "a: adapter_config.json says rank 4, but ... has rank 2", adapter_name_or_path="a", spoil=adapter("a", rank=4)),
)

TEMPLATE = (
    case("template file missing", "c.yaml:7: template: path not found: ./mine.jinja; give", template="./mine.jinja"),
    case("template syntax", "mine.jinja:2: ... not valid jinja: ... correct the template", template="./mine.jinja",
         spoil=put("mine.jinja", "{% for m in messages %}\n{% endif %}")),
    case("template too large", "mine.jinja ... larger than 64 kB; use a smaller template", template="./mine.jinja",
         spoil=put("mine.jinja", "x" * 70000)),
    case("template is not text", "mine.jinja: the template file cannot be read: it is not UTF-8 text", template="./mine.jinja",
         spoil=put("mine.jinja", b"\xff\xfe")),
)

OUTPUT = (
    case("output is a file", "c.yaml:3: output_dir: rows.jsonl is a file; name a directory", output_dir="rows.jsonl"),
    case("output below a file", "c.yaml:3: output_dir: rows.jsonl/x cannot be made", output_dir="rows.jsonl/x"),
    case("output is the model", "c.yaml:3: output_dir: model is the directory of the model itself; name another", output_dir="model"),
    case("resume missing", "c.yaml:7: resume_from_checkpoint: path not found: out/checkpoint-9; out has checkpoint-3; give",
         resume_from_checkpoint="out/checkpoint-9", spoil=folder("out/checkpoint-3")),
    case("resume no checkpoint",
         "c.yaml:7: resume_from_checkpoint: model is not a checkpoint: it has no manifest.json; out has no checkpoint; give",
         resume_from_checkpoint="model"),
    case("warm-up longer than the run", "c.yaml:7: warmup_steps: 1000000000 steps of warm-up, but the run has max_steps 1; warm up",
         warmup_steps="1000000000"),
    case("several at once", "c.yaml:1: model_name_or_path: path not found: ./gone", "c.yaml:2: dataset: `gone.jsonl` is not",
         "c.yaml:7: lora_rank: 0 is out of range", model_name_or_path="./gone", dataset="gone.jsonl", lora_rank="0"),
)


@pytest.mark.parametrize("one", [*DATA, *MODEL, *ADAPTER, *TEMPLATE, *OUTPUT], ids=lambda one: one.name.replace(" ", "-"))
def test_file(one: Case, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` and `train` say the same, and nothing is written."""
    Path("c.yaml").write_text(written(NATIVE, one.settings))
    if one.spoil is not None:
        one.spoil(here)
    for verb in ("check", "train"):
        assert_refused(here, [verb, "c.yaml", *one.words], one, capsys)


def test_learning_rate_above_one_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate above 1 is unusual, not impossible: `check` passes and tells."""
    Path("c.yaml").write_text(written(NATIVE, {"learning_rate": "3"}))
    before = tree(here)
    capsys.readouterr()
    from tunewright.cli import main

    assert main(["check", "c.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "note: c.yaml:7: learning_rate: 3 is far above any rate that trains; 1e-5 to 1e-3 is usual"
    assert tree(here) == before


def test_the_base_is_ready(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the cases spoil is good before they do: without this, every case could pass for a wrong reason."""
    Path("c.yaml").write_text(written(NATIVE, {}))
    code, lines = answer(["check", "c.yaml"], capsys)
    assert_lines(lines, ())
    assert code == 0
