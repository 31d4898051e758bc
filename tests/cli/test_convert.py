"""`tunewright convert`: what it prints and writes, its exit codes, and that it is quick and imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tunewright import cli
from tunewright.config.table import values
from tunewright.dialects.read import read_config

RUN = "model_name_or_path: demo\ndataset: rows.json\noutput_dir: out\nlora_rank: 4\n"
AXOLOTL = "base_model: m\nsequence_len: 64\nmicro_batch_size: 2\nhub_token: hf_SECRET\nplugins: [x]\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(RUN)
    Path("a.yaml").write_text(AXOLOTL)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["convert", *words])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize("target", ["native", "llamafactory", "cli_reference", "sft_json", "qlora_script", "mindspeed_fsdp2"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_to_every_vocabulary(target: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is recognised as what it is, and says what the first said; the last line of the report counts."""
    code, out, err = told(capsys, "c.yaml", "--to", target, "-o", f"n{suffix}")
    assert (code, out) == (0, "")
    reading = read_config([f"n{suffix}"])
    assert reading.dialect == target and reading.config.model.model_name_or_path == "demo" and reading.config.data.dataset == ("rows.json",)
    assert "mindspeed_fsdp2" in target or reading.config.lora.lora_rank == 4
    last = err.splitlines()[-1]
    assert last.startswith(f"n{suffix}: ") and last.endswith(f" equivalent in {target}")


def test_what_has_no_equivalent_is_counted_and_strict_makes_it_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Two settings that qlora_script does not know; the file is written all the same, because the report says what it lacks."""
    words = ("c.yaml", "use_dora=true", "use_rslora=true", "--to", "qlora_script")
    code, out, err = told(capsys, *words)
    assert code == 0 and yaml.safe_load(out)["lora_r"] == 4
    assert err.splitlines()[-1] == "2 settings have no equivalent in qlora_script"
    assert err.count("no equivalent: use_") == 2
    code, _, err = told(capsys, *words, "--strict", "-o", "n.json")
    assert code == 2 and err.splitlines()[-1] == "n.json: 2 settings have no equivalent in qlora_script" and Path("n.json").exists()
    assert told(capsys, "c.yaml", "cutoff_policy=proportional", "--to", "llamafactory", "--strict")[0] == 0
    assert told(capsys, "c.yaml", "use_dora=true", "--to", "qlora_script")[2].splitlines()[-1] == (
        "1 setting has no equivalent in qlora_script")


def test_a_default_that_the_target_cannot_say_is_told_with_its_mend(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours cuts long rows at the end, LLaMA-Factory and MindSpeed by their rule, which has no name there: a difference, so --strict
    refuses; what the line says to write makes both runs the same. What a user wrote himself is no matter of taste."""
    mend = "; to have that here too, write cutoff_policy: proportional"
    for target in ("llamafactory", "mindspeed_fsdp2"):
        lines = told(capsys, "c.yaml", "--to", target)[2].splitlines()
        (line,) = [line for line in lines if "cutoff_policy" in line]
        assert line.startswith(f"no equivalent: cutoff_policy cut_right is not known in {target}: there it is proportional (")
        assert line.endswith(mend)
    code, _, error = told(capsys, "c.yaml", "--to", "llamafactory", "--strict")
    assert (code, error.splitlines()[-1], error.count(mend)) == (2, "1 setting has no equivalent in llamafactory", 1)
    code, out, error = told(capsys, "c.yaml", "cutoff_policy=proportional", "--to", "llamafactory", "--strict")
    assert (code, error.splitlines()[-1]) == (0, "everything has an equivalent in llamafactory")
    Path("lf.yaml").write_text(out)
    there, here = (values(read_config(words).config) for words in (["lf.yaml"], ["c.yaml", "cutoff_policy=proportional"]))
    assert there["cutoff_policy"] == here["cutoff_policy"] == "proportional"
    assert mend not in told(capsys, "c.yaml", "cutoff_policy=drop", "--to", "llamafactory")[2]


def test_everything_has_an_equivalent_in_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """The file of another vocabulary, there and back."""
    Path("l.yaml").write_text("do_train: true\nstage: sft\nlora_rank: 4\nlearning_rate: 1e-4\n")
    code, out, err = told(capsys, "l.yaml", "--to", "native")
    assert code == 0 and err.splitlines()[-1] == "everything has an equivalent in native"
    Path("back.yaml").write_text(out)
    assert read_config(["back.yaml"]).config == read_config(["l.yaml"]).config


def test_to_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    """The shell makes the words of the command that means the same run."""
    code, _, _ = told(capsys, "c.yaml", "--to", "cli_reference", "-o", "run.sh")
    text = Path("run.sh").read_text().replace("exec tunewright", "exec printf '%s\\n'")
    words = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    assert code == 0 and words[:3] == ["train", "--dialect", "cli_reference"]
    assert read_config(words[1:]).config.lora.lora_rank == 4


def test_to_megatron(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags on standard output, one on each line; 8 cards of 4 rows are a batch of 32."""
    code, out, err = told(capsys, "c.yaml", "max_steps=10", "--to", "megatron", "--cards", "8")
    assert code == 0 and "--train-iters 10 \\\n" in out and out.endswith("--global-batch-size 32\n")
    assert "no equivalent: lora_rank 4 is not in the table of Megatron's flags" in err
    code, _, _ = told(capsys, "c.yaml", "--to=megatron", "-o", "m.sh")
    assert code == 0 and Path("m.sh").read_text().startswith('#!/bin/sh\nexec "$@" \\\n  --load demo \\\n')


def test_from_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    """Recognised; the line of each key that is not understood; no secret anywhere; the command line overrides in our names."""
    code, out, err = told(capsys, "a.yaml", "lora_rank=3", "--to", "native")
    found = yaml.safe_load(out)
    assert code == 0 and "SECRET" not in out + err
    assert {name: found[name] for name in ("model_name_or_path", "cutoff_len", "per_device_train_batch_size", "finetuning_type",
                                           "lora_rank")} == {
        "model_name_or_path": "m", "cutoff_len": 64, "per_device_train_batch_size": 2, "finetuning_type": "full", "lora_rank": 3}
    lines = err.splitlines()
    assert "no equivalent: a.yaml:4: hub_token: a secret is not copied; set the environment variable HF_TOKEN" in lines
    assert "no equivalent: a.yaml:5: plugins: not understood (axolotl's, or a misspelling); it is left out" in lines
    assert "renamed: sequence_len -> cutoff_len" in lines and lines[-1] == "2 settings have no equivalent in native"
    assert told(capsys, "a.yaml", "--to", "native", "--strict")[0] == 2


def test_from_trl_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A file with too little to be recognised."""
    Path("t.yaml").write_text("model_name_or_path: m\ndataset_name: rows.jsonl\nassistant_only_loss: true\n")
    code, out, _ = told(capsys, "t.yaml", "--from", "trl", "--to", "native")
    assert code == 0 and yaml.safe_load(out)["dataset"] == ["rows.jsonl"] and yaml.safe_load(out)["finetuning_type"] == "full"


def test_folder_and_file_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Document 002 names them apart, and keeps tables in the sub-folder `csv`; the run it means reads the same file."""
    Path("d/csv").mkdir(parents=True)
    for name in ("d/rows.jsonl", "d/csv/t.csv", "d/u.csv"):
        Path(name).write_text("")
    for given, wanted in (("d/rows.jsonl", ("d", "rows.jsonl")), ("d/csv/t.csv", ("d", "t.csv")), ("d/u.csv", (None, "d/u.csv")),
                          ("d/none.jsonl", (None, "d/none.jsonl"))):
        out = json.loads(told(capsys, "c.yaml", f"dataset={given}", "--to", "sft_json")[1])
        assert (out.get("train_file_path"), out["train_file_name"]) == wanted
    assert "value mapped: dataset d/rows.jsonl -> train_file_path d and train_file_name rows.jsonl\n" in told(
        capsys, "c.yaml", "dataset=d/rows.jsonl", "--to", "sft_json")[2]


@pytest.mark.parametrize(("words", "error"), [
    ((), None),
    (("c.yaml",), "convert needs a target; add --to and one of native, llamafactory, cli_reference, sft_json, qlora_script, "
                  "mindspeed_fsdp2, megatron"),
    (("c.yaml", "--to", "axolotl"), "--to axolotl: files of axolotl are read, not written; choose one of native, llamafactory, "
                                    "cli_reference, sft_json, qlora_script, mindspeed_fsdp2, megatron"),
    (("c.yaml", "--to", "llamafactry"), "--to: 'llamafactry' is not a vocabulary; did you mean llamafactory?"),
    (("c.yaml", "--to", "megatrn"), "--to: 'megatrn' is not a vocabulary; did you mean megatron?"),
    (("c.yaml", "--to"), "--to: a value is missing; write --to VALUE"),
    (("c.yaml", "--to", "native", "-o", "c.yaml"), "c.yaml: exists already, and convert overwrites nothing; name another file"),
    (("c.yaml", "--to", "megatron", "--cards", "x"), "--cards x: not a number; write --cards 8"),
    (("none.yaml", "--to", "native"), None),
    (("a.yaml", "c.yaml", "--to", "native"), "a conversion from axolotl takes one file, not 2"),
    (("c.yaml", "lora_rank=x", "--to", "native"), None),
])
def test_bad_usage(words: tuple[str, ...], error: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, nothing written."""
    before = sorted(Path().iterdir())
    code, out, err = told(capsys, *words)
    assert code == 2 and sorted(Path().iterdir()) == before
    assert err == f"error: {error}\n" if error else err.startswith("error: ") or out.startswith("usage: tunewright convert")


def test_it_is_quick_and_light(here: Path) -> None:
    """Under a second of the processor, and neither torch nor transformers nor numpy."""
    program = ("import sys, time; from tunewright import cli; code = cli.main(['convert', 'c.yaml', '--to', 'cli_reference']); "
               "heavy = [name for name in ('torch', 'transformers', 'numpy', 'peft', 'datasets') if name in sys.modules]; "
               "print(code, heavy, time.process_time() < 1, file=sys.stderr)")
    source = str(Path(cli.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": source})
    assert found.stderr.splitlines()[-1] == "0 [] True"
