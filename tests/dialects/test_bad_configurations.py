"""Bad configurations with the whole report that each must give, compared word by word. The oracle is what a report must hold:
file and line, the key as written, what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.config.optimizer_names import OPTIMIZERS
from tunewright.config.rules.rule import Purpose
from tunewright.dialects.read import read_config
from tunewright.errors import InputError


class Case:
    """A file's text, further arguments, the purpose, and the lines of the report. The file is c.json if an argument says so."""

    def __init__(self, name: str, text: str, arguments: str, purpose: Purpose | None, *lines: str) -> None:
        self.name = name
        self.text = text
        self.arguments = arguments.split()
        self.purpose = purpose
        self.lines = lines


CASES = (
    Case("unknown key", "learnig_rate: 1e-4\n", "c.yaml", None,
         "c.yaml:1: learnig_rate: unknown key; did you mean learning_rate?"),
    Case("unknown key without neighbours", "zzzz: 1\n", "c.yaml", None,
         "c.yaml:1: zzzz: unknown key; `tunewright explain` lists the known ones"),
    Case("name of another vocabulary", "dialect: native\nlora_r: 8\n", "c.yaml", None,
         "c.yaml:2: lora_r: is a name of the qlora_script vocabulary for lora_rank, not of native; write lora_rank"),
    Case("name of another vocabulary in llamafactory", "dialect: llamafactory\nlr: 1e-5\n", "c.yaml", None,
         "c.yaml:2: lr: is a name of the mindspeed_fsdp2 vocabulary for learning_rate, not of llamafactory; write "
         "learning_rate"),
    Case("native name in llamafactory", "dialect: llamafactory\npadding_free: true\n", "c.yaml", None,
         "c.yaml:2: padding_free: is a name of the native vocabulary, not of llamafactory, which has none for it; give it "
         "on the command line, or `tunewright convert --to native` the file"),
    Case("duplicate key", "seed: 1\nstage: sft\nseed: 2\n", "c.yaml", None,
         "c.yaml:3: seed: given twice, on line 1 and on line 3; remove one of them"),
    Case("duplicate key in json", '{"seed": 1,\n "seed": 2}', "c.json", None,
         "c.json:2: seed: given twice, on line 1 and on line 2; remove one of them"),
    Case("tab", "stage: sft\n\tseed: 1\n", "c.yaml", None,
         "c.yaml:2:1: not valid YAML: a tab is used where a space is needed; indent with spaces"),
    Case("syntax", "stage: [sft\nseed: 1\n", "c.yaml", None,
         "c.yaml:2:5: not valid YAML: expected ',' or ']', but got ':'; correct the syntax there"),
    Case("json syntax", '{"seed": 1,\n}', "c.json", None,
         "c.json:2:1: not valid JSON: Expecting property name enclosed in double quotes; correct the syntax there"),
    Case("json NaN", '{"seed": 1,\n"learning_rate": NaN}', "c.json", None,
         "c.json:2: NaN is not a number in JSON; write a finite number or null"),
    Case("python tag", "seed: !!python/object/apply:os.system ['true']\n", "c.yaml", None,
         "c.yaml:1: the tag !!python/object/apply:os.system is not allowed; write a plain value"),
    Case("own tag", "seed: !mine 1\n", "c.yaml", None,
         "c.yaml:1: the tag !mine is not allowed; write a plain value"),
    Case("number that is a text", "learning_rate: 1e-4x\n", "c.yaml", None,
         "c.yaml:1: learning_rate: '1e-4x' is not a number; write a number > 0 and <= 100"),
    Case("negative learning rate", "learning_rate: -1e-4\n", "c.yaml", None,
         "c.yaml:1: learning_rate: -0.0001 is out of range; write a number > 0 and <= 100"),
    Case("nan", "learning_rate: .nan\n", "c.yaml", None,
         "c.yaml:1: learning_rate: nan is not a finite number; write a number > 0 and <= 100"),
    Case("huge learning rate", "learning_rate: 1e10\n", "c.yaml", None,
         "c.yaml:1: learning_rate: 10000000000 is out of range; write a number > 0 and <= 100"),
    Case("weight decay", "weight_decay: -5\n", "c.yaml", None,
         "c.yaml:1: weight_decay: -5 is out of range; write a number >= 0 and <= 10"),
    Case("infinite norm", "max_grad_norm: .inf\n", "c.yaml", None,
         "c.yaml:1: max_grad_norm: inf is not a finite number; write a number >= 0 and <= 1000000"),
    Case("timeout", "ddp_timeout: -1\n", "c.yaml", None,
         "c.yaml:1: ddp_timeout: -1 is out of range; write an integer >= 10 and <= 7200"),
    Case("save_steps", "save_steps: 0\n", "c.yaml", None,
         "c.yaml:1: save_steps: 0 is out of range; write a number > 0"),
    Case("save_steps fraction", "save_steps: 2.5\n", "c.yaml", None,
         "c.yaml:1: save_steps: 2.5 is neither a number of steps nor a fraction of the run; write a whole number, or a "
         "fraction below 1"),
    Case("logging_steps", "logging_steps: -1\n", "c.yaml", None,
         "c.yaml:1: logging_steps: -1 is out of range; write a number > 0"),
    Case("save_total_limit", "save_total_limit: -1\n", "c.yaml", None,
         "c.yaml:1: save_total_limit: -1 is out of range; write an integer >= 1, or null"),
    Case("accumulation negative", "gradient_accumulation_steps: -1\n", "c.yaml", None,
         "c.yaml:1: gradient_accumulation_steps: -1 is out of range; write an integer >= 1 and <= 1048576"),
    Case("accumulation fraction", "gradient_accumulation_steps: 1.5\n", "c.yaml", None,
         "c.yaml:1: gradient_accumulation_steps: 1.5 is not an integer; write an integer >= 1 and <= 1048576"),
    Case("batch size", "per_device_train_batch_size: 0\n", "c.yaml", None,
         "c.yaml:1: per_device_train_batch_size: 0 is out of range; write an integer >= 1 and <= 1048576"),
    Case("warmup", "warmup_steps: 20\nmax_steps: 10\n", "c.yaml", None,
         "c.yaml:1: warmup_steps: 20 steps of warm-up, but the run has max_steps 10; warm up for fewer steps"),
    Case("max_steps", "max_steps: 0\n", "c.yaml", None,
         "c.yaml:1: max_steps: 0 steps train nothing; write -1 for no limit, or an integer >= 1"),
    Case("optimizer typo", "optim: adamw_torhc\n", "c.yaml", None,
         f"c.yaml:1: optim: 'adamw_torhc' is not one of {', '.join(OPTIMIZERS)}; did you mean 'adamw_torch'?"),
    Case("scheduler typo", "lr_scheduler_type: cosin\n", "c.yaml", None,
         "c.yaml:1: lr_scheduler_type: 'cosin' is not one of linear, cosine, cosine_with_restarts, cosine_with_min_lr, "
         "polynomial, constant, constant_with_warmup, inverse_sqrt, warmup_stable_decay; did you mean 'cosine'?"),
    Case("optim_args", "optim_args: lr==\n", "c.yaml", None,
         "c.yaml:1: optim_args: 'lr==' is not key=value; write a mapping, JSON, or key=value pairs with commas"),
    Case("optim_args word", "optim_args: foo\n", "c.yaml", None,
         "c.yaml:1: optim_args: 'foo' is not key=value; write a mapping, JSON, or key=value pairs with commas"),
    Case("scheduler arguments", 'lr_scheduler_kwargs: "{\'num_cycles\': "\n', "c.yaml", None,
         'c.yaml:1: lr_scheduler_kwargs: "{\'num_cycles\': " is neither JSON nor a Python literal; write a mapping, JSON, '
         "or key=value pairs with commas"),
    Case("stage typo", "stage: stf\n", "c.yaml", None,
         "c.yaml:1: stage: 'stf' is not one of pt, sft, rm, dpo, kto, ppo, grpo; did you mean 'sft'?"),
    Case("tuning not built", "dialect: llamafactory\nfinetuning_type: oft\n", "c.yaml", None,
         "c.yaml:2: finetuning_type: 'oft' is not built yet; choose one of lora, freeze, full, none"),
    Case("pattern", "lora_target: '['\n", "c.yaml", None,
         "c.yaml:1: lora_target: '[' is not a valid pattern: unterminated character set at position 0; write module "
         "names, or a valid regular expression"),
    Case("rank", "lora_rank: 0\n", "c.yaml", None,
         "c.yaml:1: lora_rank: 0 is out of range; write an integer >= 1 and <= 65536"),
    Case("rank by kebab", "", "--lora-rank 0", None,
         "command line: --lora-rank: 0 is out of range; write an integer >= 1 and <= 65536"),
    Case("rank in its group", "lora:\n  lora_rank: 0\n", "c.yaml", None,
         "c.yaml:2: lora.lora_rank: 0 is out of range; write an integer >= 1 and <= 65536"),
    Case("wrong group", "model:\n  lora_rank: 8\n", "c.yaml", None,
         "c.yaml:2: model.lora_rank: belongs to the group lora, not to model; write lora.lora_rank"),
    Case("alpha", "lora_alpha: -8\n", "c.yaml", None,
         "c.yaml:1: lora_alpha: -8 is out of range; write a number > 0, or null"),
    Case("dropout", "lora_dropout: -0.1\n", "c.yaml", None,
         "c.yaml:1: lora_dropout: -0.1 is out of range; write a number >= 0 and < 1"),
    Case("bool", "bf16: 1\n", "c.yaml", None,
         "c.yaml:1: bf16: 1 is not true or false; write true or false"),
    Case("bool text", "bf16: maybe\n", "c.yaml", None,
         "c.yaml:1: bf16: 'maybe' is not true or false; write true or false"),
    Case("null", "lora_rank: null\n", "c.yaml", None,
         "c.yaml:1: lora_rank: null is not an integer; write an integer >= 1 and <= 65536"),
    Case("text wanted", "run_name: 12\n", "c.yaml", None,
         "c.yaml:1: run_name: 12 is not a text or null; put it in quotes"),
    Case("list wanted", "lora_target: [1, 2]\n", "c.yaml", None,
         "c.yaml:1: lora_target: 1 is not a text; write a list of texts, or one text with commas"),
    Case("val_size negative", "val_size: -1\n", "c.yaml", None,
         "c.yaml:1: val_size: -1 is out of range; write a number >= 0"),
    Case("val_size not whole", "val_size: 1.5\n", "c.yaml", None,
         "c.yaml:1: val_size: 1.5 is neither a fraction below 1 nor a whole number of rows; write 0.1 for a tenth, or 100 "
         "for a hundred rows"),
    Case("eval_dataset and val_size", "eval_dataset: a.json\nval_size: 0.1\n", "c.yaml", None,
         "c.yaml:2: val_size: rows are held back, but eval_dataset is given too; keep one of them"),
    Case("cutoff_len", "cutoff_len: 0\n", "c.yaml", None,
         "c.yaml:1: cutoff_len: 0 is out of range; write an integer >= 8 and <= 16777216"),
    Case("bf16 and fp16", "bf16: true\nfp16: true\n", "c.yaml", None,
         "c.yaml:2: fp16: fp16 and bf16 are both on; keep one of them"),
    Case("fp16 on cpu", "fp16: true\nuse_cpu: true\n", "c.yaml", None,
         "c.yaml:1: fp16: half precision with loss scaling needs an accelerator, but use_cpu is on; use bf16, or none of "
         "both"),
    Case("quantization", "quantization_bit: 5\n", "c.yaml", None,
         "c.yaml:1: quantization_bit: 5 is not one of 4, 8"),
    Case("deepspeed", "deepspeed: ds.json\n", "c.yaml", None,
         "c.yaml:1: deepspeed: not built yet; remove it, or leave deepspeed at null"),
    Case("tracker typo", "report_to: tensorbord\n", "c.yaml", None,
         "c.yaml:1: report_to: 'tensorbord' is not one of tensorboard, console, none, all; did you mean 'tensorboard'?"),
    Case("tracker not built", "dialect: llamafactory\nreport_to: wandb\n", "c.yaml", None,
         "c.yaml:2: report_to: 'wandb' is not built yet; choose one of tensorboard, console, none"),
    Case("seed negative", "seed: -1\n", "c.yaml", None,
         "c.yaml:1: seed: -1 is out of range; write an integer >= 0 and <= 4294967295"),
    Case("seed large", "seed: 18446744073709551616\n", "c.yaml", None,
         "c.yaml:1: seed: 18446744073709551616 is out of range; write an integer >= 0 and <= 4294967295"),
    Case("secret", "hf_hub_token: hf_abcdef\n", "c.yaml", None,
         "c.yaml:1: hf_hub_token: a secret does not belong in a configuration or on a command line; set the environment "
         "variable HF_TOKEN"),
    Case("secret of unknown name", "wandb_api_key: abcdef\n", "c.yaml", None,
         "c.yaml:1: wandb_api_key: a secret does not belong in a configuration or on a command line; set it as an "
         "environment variable"),
    Case("best model", "load_best_model_at_end: true\n", "c.yaml", None,
         "c.yaml:1: load_best_model_at_end: needs evaluations to find the best, but eval_strategy is no; set "
         "eval_strategy to steps or epoch"),
    Case("metric typo", "metric_for_best_model: eval_los\n", "c.yaml", None,
         "c.yaml:1: metric_for_best_model: 'eval_los' is no metric of an evaluation; did you mean eval_loss?"),
    Case("metric without switch", "metric_for_best_model: accuracy\n", "c.yaml", None,
         "c.yaml:1: metric_for_best_model: 'accuracy' is not computed, because compute_accuracy is off; set "
         "compute_accuracy: true"),
    Case("early stopping", "early_stopping_patience: 3\n", "c.yaml", None,
         "c.yaml:1: early_stopping_patience: early stopping needs evaluations, but eval_strategy is no; set eval_strategy "
         "to steps or epoch"),
    Case("adapter with full", "finetuning_type: full\nadapter_name_or_path: some/adapter\n", "c.yaml", "train",
         "c.yaml:2: adapter_name_or_path: adapters are for LoRA, but finetuning_type is full; merge the adapter first "
         "with `tunewright export`, or set finetuning_type: lora",
         "c.yaml: model_name_or_path: not given; give a directory, a hub id or demo",
         "c.yaml: dataset: not given, but do_train needs it; give a file, a folder or a name in dataset_info.json",
         "c.yaml: output_dir: not given; give the directory for checkpoints and results"),
    Case("dora with full", "finetuning_type: full\nuse_dora: true\n", "c.yaml", None,
         "c.yaml:2: use_dora: is for LoRA, but finetuning_type is full; remove it, or set finetuning_type: lora"),
    Case("pissa_convert", "pissa_convert: true\n", "c.yaml", None,
         "c.yaml:1: pissa_convert: converts a PiSSA adapter, but pissa_init is off; set pissa_init: true"),
    Case("freeze nothing", "finetuning_type: freeze\nfreeze_trainable_layers: 0\n", "c.yaml", None,
         "c.yaml:2: freeze_trainable_layers: 0 layers train nothing; write 2 for the last two layers, -2 for the first two"),
    Case("masks", "train_on_prompt: true\nmask_history: true\n", "c.yaml", None,
         "c.yaml:1: train_on_prompt: trains on prompts, but mask_history trains on the last answer only; keep one of them"),
    Case("two vocabularies", "padding_free: true\ndisable_gradient_checkpointing: true\n", "c.yaml", None,
         "c.yaml:2: disable_gradient_checkpointing: is a name of the llamafactory vocabulary, but padding_free at "
         "c.yaml:1 is one of native; keep to one vocabulary"),
    Case("two names", "dialect: llamafactory\neval_strategy: steps\nevaluation_strategy: epoch\n", "c.yaml", None,
         "c.yaml:3: evaluation_strategy: contradicts eval_strategy: steps at c.yaml:2; both are names of eval_strategy; "
         "remove one of them"),
    Case("a switch and its opposite", "bf16: true\nno_bf16: true\n", "c.yaml", None,
         "c.yaml:2: no_bf16: contradicts bf16: true at c.yaml:1; both are names of bf16; remove one of them"),
    Case("words of LLaMA-Factory today",
         "dialect: llamafactory\nfinetuning_type: oft\nreport_to: swanlab\nsave_strategy: best\ninfer_backend: sglang\ntask: mmlu_test\n",
         "c.yaml", None,
         "c.yaml:2: finetuning_type: 'oft' is not built yet; choose one of lora, freeze, full, none",
         "c.yaml:3: report_to: 'swanlab' is not built yet; choose one of tensorboard, console, none",
         "c.yaml:4: save_strategy: 'best' is refused: save_strategy no with load_best_model_at_end saves at every better evaluation, "
         "and only then; choose one of no, steps, epoch",
         "c.yaml:5: infer_backend: 'sglang' is refused: SGLang is not supported; serve the exported model with it; choose one of "
         "huggingface",
         "c.yaml:6: task: refused: there are no built-in benchmarks; run lm-evaluation-harness on the exported model; remove it"),
    Case("a word of our own for a vocabulary with fewer", "training_recipe: qlora\n", "c.yaml", None,
         "c.yaml:1: training_recipe (our finetuning_type): 'qlora' is not one of lora, full; did you mean 'lora'?"),
    Case("dialect typo", "dialect: llamafactroy\n", "c.yaml", None,
         "c.yaml:1: dialect: 'llamafactroy' is not a vocabulary; did you mean llamafactory?"),
    Case("no settings", "", "c.yaml", None,
         "c.yaml: the file holds no settings; write one `key: value` on each line"),
    Case("a list", "- a\n", "c.yaml", None,
         "c.yaml: the file is not a mapping of keys to values; write one `key: value` on each line"),
    Case("nothing to do", "dialect: llamafactory\n", "c.yaml model_name_or_path=demo output_dir=out dataset=a", "train",
         "c.yaml: do_train: nothing to do: do_train, do_eval and do_predict are off; set do_train: true"),
    Case("nothing given", "seed: 1\n", "c.yaml", "train",
         "c.yaml: model_name_or_path: not given; give a directory, a hub id or demo",
         "c.yaml: dataset: not given, but do_train needs it; give a file, a folder or a name in dataset_info.json",
         "c.yaml: output_dir: not given; give the directory for checkpoints and results"),
    Case("output is a file", "output_dir: c.yaml\n", "c.yaml model_name_or_path=demo dataset=a", "train",
         "c.yaml:1: output_dir: c.yaml is a file; name a directory that can be written"),
    Case("output below a file", "output_dir: c.yaml/x\n", "c.yaml model_name_or_path=demo dataset=a", "train",
         "c.yaml:1: output_dir: c.yaml/x cannot be made: HERE/c.yaml is a file; name a directory that can be "
         "written"),
    Case("model missing", "model_name_or_path: ./nowhere\n", "c.yaml dataset=a output_dir=out", "train",
         "c.yaml:1: model_name_or_path: path not found: ./nowhere; give an existing directory, a hub id or demo"),
    Case("resume missing", "resume_from_checkpoint: out/checkpoint-9\n", "c.yaml model_name_or_path=demo dataset=a output_dir=out", "train",
         "c.yaml:1: resume_from_checkpoint: path not found: out/checkpoint-9; out has no checkpoint; give one of them, "
         "auto or none"),
    Case("adapter missing", "adapter_name_or_path: ./nowhere\n", "c.yaml model_name_or_path=demo", "chat",
         "c.yaml:1: adapter_name_or_path: path not found: ./nowhere; give the directory of an adapter"),
    Case("template missing", "template: ./mine.jinja\n", "c.yaml model_name_or_path=demo", "chat",
         "c.yaml:1: template: path not found: ./mine.jinja; give an existing jinja file, a template's name or auto"),
    Case("option without value", "", "--lora_rank", None,
         "command line: --lora_rank: a value is missing; write --lora_rank VALUE"),
    Case("a switch that nobody has", "seed: 1\n", "c.yaml --overwrite_cach --bf61", None,
         "command line: --overwrite_cach: unknown key; did you mean overwrite_cache?",
         "command line: --bf61: unknown key; did you mean bf16?"),
    Case("short option", "", "-x", None,
         "command line: -x is not an option; options begin with two dashes: --name value"),
    Case("missing file", "", "absent.yaml", None,
         "absent.yaml: no such file; give the path of a YAML or JSON file, or key=value settings"),
    Case("deep", "a: " + "[" * 40 + "]" * 40 + "\n", "c.yaml", None,
         "c.yaml:1: nested deeper than 32 levels; write a flatter file"),
    Case("aliases", "a: &a 1\nb: [" + ", ".join(["*a"] * 101) + "]\n", "c.yaml", None,
         "c.yaml:2: more than 100 aliases; write the values out"),
    Case("key that is a list", "? [a]\n: 1\n", "c.yaml", None,
         "c.yaml:1: a key that is not a plain name; write `key: value`"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_report(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report, whole; exit code 2; nothing is written."""
    monkeypatch.chdir(tmp_path)
    name = "c.json" if "c.json" in case.arguments else "c.yaml"
    Path(name).write_text(case.text, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refused:
        read_config(case.arguments, purpose=case.purpose)
    assert str(refused.value).replace(str(tmp_path), "HERE").splitlines() == list(case.lines)
    assert refused.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before
