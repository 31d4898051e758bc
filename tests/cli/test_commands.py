"""check, explain, convert, env and schema: what they print, worked by hand, and that check is quick and writes nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tunewright import cli
from tunewright.dialects.read import read_config
from tunewright.dialects.reference import json_schema

ROWS = [{"instruction": f"say {number}", "output": str(number)} for number in range(20)]
UNDERSTOOD = ("rows.json: alpaca (prompt=instruction, query=input, response=output, history=history, system=system, tools=tools), detected "
              "from the first row\n")
RUN = "model_name_or_path: demo\ndataset: rows.json\noutput_dir: out\nlora_rank: 4\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.json").write_text(json.dumps(ROWS))
    Path("c.yaml").write_text(RUN)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(list(words))
    found = capsys.readouterr()
    return code, found.out, found.err


def test_check_of_a_good_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what would run, one how the rows are understood; notes before them; nothing is written; well under two seconds."""
    before = sorted(here.rglob("*"))
    start = time.process_time()
    assert told(capsys, "check", "c.yaml", "warmup_steps=3", "warmup_ratio=0.1") == (
        0, "note: command line: warmup_ratio: is not read by this run: warmup_steps wins\n"
        f"{UNDERSTOOD}ready: sft, lora tuning of demo on 1 data set(s), 3 epochs of 4 rows a step and device, into out (native "
        "vocabulary)\n", "")
    assert time.process_time() - start < 2
    assert sorted(here.rglob("*")) == before


MODELS: list[tuple[str, dict[str, Any] | None, str]] = [
    ("empty", None,
     "error: command line: model_name_or_path: model directory empty has no config.json; give the directory that holds config.json"),
    ("layers", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, not an integer from 1 to 1024"),
    ("heads", {"num_attention_heads": 0}, "num_attention_heads is 0, not an integer from 1 to 4096"),
    ("negative", {"hidden_size": -64}, "hidden_size is -64, not an integer from 1 to 131072"),
    ("text", {"hidden_size": "64"}, "hidden_size is '64', not an integer from 1 to 131072"),
]


@pytest.mark.parametrize(("name", "config", "what"), MODELS, ids=[name for name, _, _ in MODELS])
def test_check_of_model_directories(
    name: str, config: dict[str, Any] | None, what: str, here: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    """A directory that is no model, and sizes that would build for minutes, in one line, before anything is opened."""
    Path(name).mkdir()
    if config is not None:
        Path(name, "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    code, out, err = told(capsys, "check", "c.yaml", f"model_name_or_path=./{name}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err


DATA = [
    ("missing.json", None, "dataset"),
    ("broken.json", '[{"instruction": "a",\n "output": }]', "broken.json:2"),
    ("rows.jsonl", '{"instruction": "a", "output": "b"}\n{"instruction": "a", "output": 3}\n', "rows.jsonl:2"),
]


@pytest.mark.parametrize(("name", "text", "where"), DATA)
def test_check_of_data(name: str, text: str | None, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are missing, broken or hold a wrong type, with the line."""
    if text is not None:
        Path(name).write_text(text)
    code, _, err = told(capsys, "check", "c.yaml", f"dataset={name}")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and where in err


@pytest.mark.parametrize(("words", "report"), [
    (["lr_scheduler_type=cosine", "lr_scheduler_kwargs=power=2"],
     "error: command line: lr_scheduler_kwargs: `power` is no argument of the schedule cosine; it takes num_cycles\n"),
    (["lr_scheduler_type=cosine_with_min_lr"],
     "error: lr_scheduler_kwargs: cosine_with_min_lr needs exactly one of min_lr and min_lr_rate; for instance {\"min_lr_rate\": 0.1}\n"),
    (["optim=adafactor", "optim_args=nope=1"], None),
])
def test_check_of_arguments(words: list[str], report: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments of schedule and optimizer, at the place of the setting."""
    code, _, err = told(capsys, "check", "c.yaml", *words)
    assert code == 2
    assert err == report if report else err.startswith("error: command line: optim_args: `nope` is no argument of adafactor; it takes ")


def test_check_for_export(capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that only exports needs no data."""
    assert told(capsys, "check", "model_name_or_path=demo", "export_dir=merged") == (
        0, "ready to export demo to merged (native vocabulary)\n", "")


def test_check_of_a_run_that_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What is said to be ready is what would be done."""
    words = ["do_train=false", "do_predict=true", "val_size=1"]
    assert told(capsys, "check", "c.yaml", *words) == (0, f"{UNDERSTOOD}ready to predict with demo, into out (native vocabulary)\n", "")


def test_check_of_a_large_file_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    """60 MB of rows are looked at in part."""
    row = json.dumps({"instruction": "x" * 1000, "output": "y"}) + "\n"
    Path("large.jsonl").write_text(row * 60_000)
    start = time.process_time()
    assert told(capsys, "check", "c.yaml", "dataset=large.jsonl")[0] == 0
    assert time.process_time() - start < 2


def test_explain_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """By another vocabulary's name: meaning, type, range, default, and names and defaults in each vocabulary."""
    assert told(capsys, "explain", "--lora-r") == (0, """lora_r: our lora_rank (lora.lora_rank)
  Rank of the two factors.
  type      an integer
  range     >= 1 and <= 65536
  default   8
  names and defaults
    native          lora_rank                         8
    llamafactory    lora_rank                         8
    cli_reference   lora_rank                         8
    sft_json        lora_rank                         64
    qlora_script    lora_r                            64
""", "")


def test_explain_of_units_choices_and_resume(capsys: pytest.CaptureFixture[str]) -> None:
    """The other facts."""
    out = told(capsys, "explain", "save_strategy")[1]
    assert "  choices   no, steps, epoch\n" in out and "  on resume may differ from the interrupted run\n" in out
    assert "  unit      tokens\n" in told(capsys, "explain", "data.cutoff_len")[1]
    assert "(old)" in told(capsys, "explain", "eval_strategy")[1]
    assert ("    llamafactory    disable_gradient_checkpointing (the opposite), gradient_checkpointing true\n"
            in told(capsys, "explain", "disable_gradient_checkpointing")[1])


@pytest.mark.parametrize(("words", "line"), [
    (["lora_rank"], "    4  <- c.yaml:4 (lora_rank)\n"),
    (["lora_alpha"], "    8  <- derived: twice lora_rank\n"),
    (["--lora_rank", "6", "lora_alpha"], "    12  <- derived: twice lora_rank\n"),
    (["seed=3", "seed"], "    3  <- command line (seed)\n"),
    (["--dialect", "llamafactory", "learning_rate"], "    5e-05  <- default of llamafactory\n"),
    (["optim"], "    adamw_torch_fused  <- default\n"),
])
def test_explain_of_a_run(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The effective value of one parameter, and where it came from."""
    code, out, _ = told(capsys, "explain", "c.yaml", *words)
    assert code == 0 and out.endswith("  in this run\n" + line)


def test_explain_of_all_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Every value of the run in one line."""
    code, out, _ = told(capsys, "explain", "c.yaml")
    assert code == 0 and out.startswith("vocabulary: native\nrun\n")
    assert next(line.split() for line in out.splitlines() if "lora_rank" in line) == ["lora_rank", "4", "c.yaml:4", "(lora_rank)"]


def test_convert_to_a_file_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    """The file means the same run; the report goes to stderr; the configuration to stdout without -o."""
    code, out, err = told(capsys, "convert", "c.yaml", "--to", "llamafactory", "-o", "lf.json")
    assert (code, out) == (0, "") and "exact: lora_rank\n" in err and "default made explicit: cutoff_len 2048\n" in err
    assert read_config(["lf.json"]).dialect == "llamafactory" and "dialect" not in json.loads(Path("lf.json").read_text())
    assert read_config(["lf.json"]).config.lora == read_config(["c.yaml"]).config.lora
    code, out, _ = told(capsys, "convert", "lf.json", "--to=native")
    Path("back.yaml").write_text(out)
    assert read_config(["back.yaml"]).config == read_config(["lf.json"]).config


def test_env_names_versions_and_no_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, cores, memory; nothing of a token."""
    monkeypatch.setenv("HF_TOKEN", "hf_SECRETVALUE")
    code, out, _ = told(capsys, "env")
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert code == 0 and {"tunewright", "python", "torch", "transformers", "peft", "memory"} <= set(facts) and "SECRETVALUE" not in out


def test_schema_describes_what_is_read() -> None:
    """Spot checks against the declarations, and the shape of the whole."""
    schema = json_schema()
    assert schema["properties"]["lora_rank"] == {
        "description": "Rank of the two factors.", "type": ["integer"], "minimum": 1, "maximum": 65536, "default": 8}
    stage = schema["properties"]["stage"]
    assert stage.pop("description").startswith("Training algorithm: ")
    assert stage == {"enum": ["pt", "sft", "rm", "dpo", "kto", "ppo", "grpo"], "default": "sft"}
    assert schema["properties"]["lora"]["properties"]["lora_rank"]["minimum"] == 1
    assert {"anyOf"} == set(schema["properties"]["template"])
    assert schema["additionalProperties"] is False
    assert "disable_gradient_checkpointing" in json_schema("llamafactory")["properties"]


@pytest.mark.parametrize("verb", ["check", "explain", "convert", "env", "schema"])
def test_help_of_commands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says how it is used."""
    code, out, _ = told(capsys, verb, "--help")
    assert code == 0 and out.startswith(f"usage: tunewright {verb}")
