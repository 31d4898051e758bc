"""Whole runs of ppo and grpo on a tiny model: what they learn, log and leave behind; killed, they go on bit for bit; two ranks as one.

The reward is the share of the letter `a` in an answer, which is counted here again on held-out prompts with transformers alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.effects.engine_runs import history, run
from tunewright.config.inference import GenerationConfig
from tunewright.errors import InputError
from tunewright.inference.generate import settings_of
from tunewright.selftest.killing import KILLED, Case, Server
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.settling import copied, go_on
from tunewright.selftest.tiny import WORDS, write_model, write_rows
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow

REWARDS = """
def share(completions, **kwargs):
    return [text.count("a") / max(len(text), 1) for text in completions]

def wanted(completions, output):
    return [float(text == answer) for text, answer in zip(completions, output)]

def broken(completions):
    return [1 / 0 for _ in completions]

def short(completions):
    return [0.0]
"""
SAMPLED = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8}
STAGES = {
    "ppo": {"stage": "ppo", "ppo_epochs": 2, "ppo_buffer_size": 2, "ppo_score_norm": True, "ppo_target": 0.05, "ppo_horizon": 20,
            **SAMPLED},
    "grpo": {"stage": "grpo", "num_generations": 4, "num_iterations": 2, "grpo_beta": 0.04, **SAMPLED}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("policies")
    write_model(path / "model")
    write_rows(path / "rows.jsonl", 22, longest=5)
    write_rows(path / "many.jsonl", 64, longest=5)
    write_rows(path / "held_out.jsonl", 24, seed=1, longest=5)
    write_pairs(path / "pairs.jsonl", 60)
    (path / "rewards.py").write_text(REWARDS)
    return Workspace(path)


def rewarded(workspace: Workspace, name: str = "share") -> str:
    return f"{workspace.path / 'rewards.py'}:{name}"


def settings(workspace: Workspace, stage: str, **changes: Any) -> dict[str, Any]:
    return {**STAGES[stage], "reward_funcs": rewarded(workspace), "sample_log_steps": 1, **changes}


def written(output_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output_dir / "rollouts.jsonl").read_text().splitlines()]


def counted(model: Path, prompts: Path) -> float:
    """The mean share of `a` in answers that transformers samples by itself, eight to each prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    shares = []
    torch.manual_seed(0)
    for line in prompts.read_text().splitlines():
        text = f"<|im_start|>user\n{json.loads(line)['instruction']}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]] * 8)
        answers = policy.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                                  max_new_tokens=8)
        for answer in tokenizer.batch_decode(answers[:, ids.shape[1]:], skip_special_tokens=True):
            shares.append(answer.count("a") / max(len(answer), 1))
    return sum(shares) / len(shares)


LEARNING = {"ppo": {"ppo_epochs": 4, "ppo_buffer_size": 1, "ppo_init_kl_coef": 0.01, "ppo_adap_kl_ctrl": False, "ppo_score_norm": False,
                    "per_device_train_batch_size": 32, "num_train_epochs": 30},
            "grpo": {"num_generations": 8, "num_iterations": 1, "grpo_beta": 0.0, "per_device_train_batch_size": 8,
                     "num_train_epochs": 8}}


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_reward_rises(workspace: Workspace, tmp_path: Path, stage: str) -> None:
    """On prompts that are not trained, counted without any of our code: at least three times what it was. The log says so, too."""
    run(workspace, tmp_path, **settings(workspace, stage, dataset=workspace.path / "many.jsonl", learning_rate=0.02, sample_log_steps=0,
                                        eval_dataset=workspace.path / "held_out.jsonl", eval_strategy="epoch", eval_on_start=True,
                                        finetuning_type="full", save_strategy="no", plot_loss=True, warmup_ratio=0,
                                        lr_scheduler_type="constant", **LEARNING[stage]))
    before, after = (counted(model, workspace.path / "held_out.jsonl") for model in (workspace.path / "model", tmp_path))
    assert before < 0.12 and after > 3 * before, (before, after)
    told = [entry["eval_reward"] for entry in history(tmp_path) if "eval_reward" in entry]
    assert told[0] == pytest.approx(before, abs=0.05) and told[-1] == pytest.approx(after, abs=0.12), (told, before, after)
    assert all(entry["eval_loss"] == pytest.approx(-entry["eval_reward"]) for entry in history(tmp_path) if "eval_loss" in entry)
    assert (tmp_path / "training_reward.png").stat().st_size > 1000
    names = {"reward", "entropy", "clip_fraction", "completion_length", "missing_eos"}
    logged = next(entry for entry in history(tmp_path) if "reward" in entry)
    assert names <= set(logged) and 0 < logged["entropy"] <= math.log(400)


@pytest.mark.parametrize(("stage", "changes", "ranks"), [("ppo", {"finetuning_type": "full"}, 1), ("ppo", {}, 2), ("grpo", {}, 2)])
def test_a_killed_run_ends_as_if_it_had_not_been(
    kill_server: Server, workspace: Workspace, tmp_path: Path, stage: str, changes: dict[str, Any], ranks: int,
) -> None:
    """Among the updates of the fifth step, after the checkpoint of the third: weights, head, optimizer, log, written answers and
    what the stage remembers are those of the straight run. Between steps: `selftest.exactness`."""
    scenario, rows = ("train", 4) if ranks == 1 else ("train_on_two_ranks", 2)
    common = settings(workspace, stage, per_device_train_batch_size=rows, num_train_epochs=2, save_steps=3, logging_steps=1, **changes)
    chosen = workspace.settings(tmp_path / "run", **common)
    updates = {"ppo": 17, "grpo": 9}[stage]
    copied(kill_server, scenario, chosen, tmp_path / "copies", 0, (updates,))
    state = tmp_path / "copies" / f"step-{updates}"
    assert max(line["step"] for line in written(state)) == 5
    expected, answers, memory = results(tmp_path / "run"), (tmp_path / "run" / "rollouts.jsonl").read_bytes(), remembered(tmp_path / "run")
    assert go_on(kill_server, scenario, chosen, state) == expected
    assert (tmp_path / "run" / "rollouts.jsonl").read_bytes() == answers and remembered(tmp_path / "run") == memory
    if stage == "ppo":
        assert memory["kl_coef"] != 0.2 and memory["scores"]["count"] == 44
        assert "value_head.safetensors" in expected["final"]


def remembered(output_dir: Path) -> dict[str, Any]:
    """What the stage keeps in the last checkpoint, if it keeps anything."""
    path = output_dir / results(output_dir)["name"] / "stage.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_a_killed_process_ends_as_if_it_had_not_been(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """The process itself, among the updates of the fifth step."""
    common = settings(workspace, "ppo", per_device_train_batch_size=4, num_train_epochs=2, save_steps=3, logging_steps=1)
    straight, killed = (workspace.settings(tmp_path / name, **common) for name in ("straight", "killed"))
    first = kill_server.run(Case("train", {"settings": killed, "stop_after": 17}, killed["output_dir"]))
    assert first.code == KILLED, first.output
    for chosen in (straight, killed):
        outcome = kill_server.run(Case("train", {"settings": chosen}, chosen["output_dir"]))
        assert outcome.code == 0, outcome.output
    assert results(tmp_path / "killed") == results(tmp_path / "straight")
    assert (tmp_path / "killed" / "rollouts.jsonl").read_bytes() == (tmp_path / "straight" / "rollouts.jsonl").read_bytes()


@pytest.mark.parametrize("stage", list(STAGES))
def test_two_ranks_train_what_one_does(kill_server: Server, workspace: Workspace, tmp_path: Path, stage: str) -> None:
    """The same answers, and every logged number to the rounding of float32."""
    for scenario, rows in (("train", 4), ("train_on_two_ranks", 2)):
        chosen = workspace.settings(tmp_path / scenario, **settings(
            workspace, stage, per_device_train_batch_size=rows, num_train_epochs=1, logging_steps=1, learning_rate=0.001,
            eval_dataset=workspace.path / "held_out.jsonl", eval_strategy="epoch"))
        outcome = kill_server.run(Case(scenario, {"settings": chosen}, chosen["output_dir"]))
        assert outcome.code == 0, outcome.output
    one, two = (written(tmp_path / scenario) for scenario in ("train", "train_on_two_ranks"))
    same = ("step", "sample", "number", "prompt", "answer", "reward")
    assert [[line[name] for name in same] for line in one] == [[line[name] for name in same] for line in two]
    logs = [results(tmp_path / scenario)["state"]["log_history"] for scenario in ("train", "train_on_two_ranks")]
    for ours, theirs in zip(*logs, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4)


@pytest.mark.effect("sample_log_steps")
def test_answers_are_written_down(workspace: Workspace, tmp_path: Path) -> None:
    """Every second step, all answers, with the reward that the function gives to the text; none with 0."""
    common = settings(workspace, "grpo", per_device_train_batch_size=4, max_steps=4, save_strategy="no")
    run(workspace, tmp_path / "some", **{**common, "sample_log_steps": 2})
    lines = written(tmp_path / "some")
    assert [line["step"] for line in lines] == [1] * 16 + [3] * 16 and len({line["answer"] for line in lines}) > 16
    for line in lines:
        assert line["reward"] == line["answer"].count("a") / max(len(line["answer"]), 1) == line["scores"]["share"]
        assert line["prompt"].endswith("<|im_start|>assistant\n") and (line["tokens"] == 8 or line["ended"])
    run(workspace, tmp_path / "none", **{**common, "sample_log_steps": 0})
    assert not (tmp_path / "none" / "rollouts.jsonl").exists()


@pytest.mark.effect("reward_weights", "reward_funcs")
def test_functions_get_columns_and_weights(workspace: Workspace, tmp_path: Path) -> None:
    """Two functions, one of which asks for a column of the rows: half of the first and twice the second; each is logged."""
    run(workspace, tmp_path, **settings(workspace, "grpo", reward_funcs=f"{rewarded(workspace)},{rewarded(workspace, 'wanted')}",
                                        reward_weights="0.5,2", max_steps=1, logging_steps=1, save_strategy="no",
                                        eval_dataset=workspace.path / "held_out.jsonl", eval_strategy="steps", eval_steps=1))
    for line in written(tmp_path):
        assert line["reward"] == pytest.approx(0.5 * line["scores"]["share"] + 2 * line["scores"]["wanted"])
    assert {"rewards/share", "rewards/wanted"} <= set(history(tmp_path)[0])
    assert any("eval_rewards/wanted" in entry for entry in history(tmp_path))


@pytest.mark.parametrize(("changes", "said"), [
    ({"reward_funcs": "{}:broken"}, "ZeroDivisionError"), ({"reward_funcs": "{}:short"}, "gave 1 rewards for"),
    ({"reward_funcs": "{}:absent"}, "has no function absent"), ({"max_length": 4}, "leaves no room"),
    ({"dataset": "pairs.jsonl", "reward_funcs": "{}:wanted"}, "asks for output, which the rows do not have")])
def test_failures_are_one_line(workspace: Workspace, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    given = {name: str(value).format(workspace.path / "rewards.py") for name, value in changes.items()}
    if "dataset" in given:
        rows = [{"prompt": " ".join(WORDS[:3])}]
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        given["dataset"] = str(tmp_path / "prompts.jsonl")
    with pytest.raises(InputError, match=said) as refused:
        run(workspace, tmp_path / "out", **settings(workspace, "grpo", max_steps=1, **given))
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("changes", [
    {"flash_attn": "disabled"}, {"padding_free": False}, {"gradient_checkpointing": True}, {"pure_bf16": True, "finetuning_type": "full"},
    {"streaming": True}, {"lora_dropout": 0.1}, {"slow_paths": "loss"}])
@pytest.mark.parametrize("stage", list(STAGES))
def test_layouts_and_formats(workspace: Workspace, tmp_path: Path, stage: str, changes: dict[str, Any]) -> None:
    """Identity: before the first update a policy is its own reference, and its ratios are 1, in whatever way it is computed."""
    once = {"ppo": {"ppo_epochs": 1, "ppo_buffer_size": 1}, "grpo": {"num_iterations": 1}}[stage]
    run(workspace, tmp_path, **settings(workspace, stage, max_steps=2, logging_steps=1, save_strategy="no", **once, **changes))
    first = history(tmp_path)[0]
    assert first["kl"] == pytest.approx(0, abs=0.05 if "pure_bf16" in changes else 0.02 if "lora_dropout" in changes else 1e-5)
    if "lora_dropout" not in changes:
        assert first["clip_fraction"] == 0


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_reward_model_judges(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    """ppo and grpo with a model of stage rm: the written rewards are those of `predict` for the same answers; `eval` gives the same mean
    reward as the last evaluation of the run."""
    from tunewright.cli import main

    judge = tmp_path / "judge"
    run(workspace, judge, stage="rm", dataset=workspace.path / "pairs.jsonl", finetuning_type=kind, num_train_epochs=1, save_strategy="no")
    for stage in ("ppo", "grpo"):
        root = tmp_path / stage
        chosen = {**STAGES[stage], "reward_model": judge, "reward_model_type": kind, "sample_log_steps": 1, "max_steps": 1,
                  "per_device_train_batch_size": 4, "eval_dataset": workspace.path / "held_out.jsonl", "eval_strategy": "steps",
                  "eval_steps": 1, "logging_steps": 1, "save_strategy": "no"}
        run(workspace, root, **chosen)
        lines = [line for line in written(root) if line["ended"] and told_by_text(judge, line)]
        rows = [{"instruction": line["prompt"].split("user\n")[1].split("<|im_end|>")[0], "output": line["answer"]} for line in lines]
        (root / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert len({line["reward"] for line in written(root)}) > 1
        if rows:
            assert main(["predict", str(judge), "stage=rm", f"eval_dataset={root / 'answers.jsonl'}", f"output_dir={root / 'scores'}",
                         "data_cache_dir=none"]) == 0
            scores = [json.loads(line)["score"] for line in (root / "scores" / "generated_predictions.jsonl").read_text().splitlines()]
            assert scores == pytest.approx([line["reward"] for line in lines], abs=1e-4)
        words = [f"{name}={value}" for name, value in chosen.items() if name in (
            "stage", "reward_model", "reward_model_type", "eval_dataset", *SAMPLED)]
        assert main(["eval", str(root), *words, f"output_dir={root / 'eval'}", "data_cache_dir=none"]) == 0
        found = json.loads((root / "eval" / "eval_results.json").read_text())["eval_reward"]
        assert found == pytest.approx([entry["eval_reward"] for entry in history(root) if "eval_reward" in entry][-1], abs=1e-4)


def told_by_text(model: Path, line: dict[str, Any]) -> bool:
    """Whether the text of an answer has as many tokens as the answer had: random tokens are often not those that their text becomes."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)(line["answer"], add_special_tokens=False)["input_ids"]
    return bool(line["answer"]) and "\ufffd" not in line["answer"] and len(ids) + 1 == line["tokens"]


def test_a_generation_file_is_told_by_what_it_says(tmp_path: Path) -> None:
    """A resumed run compares its settings: another file of the same content is the same, the same file with another content is not."""
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    for path in (one, other):
        path.write_text('{"top_p": 0.5, "min_p": 0.1, "eos_token_id": 7}')
    before = settings_of(GenerationConfig(generation_config=str(one)))
    assert json.loads(json.dumps(before)) == before == settings_of(GenerationConfig(generation_config=str(other)))
    assert before["top_p"] == 0.5 and before["generation_config"] == {"further": {"min_p": 0.1}, "stop_ids": [7]}
    one.write_text('{"top_p": 0.5, "min_p": 0.2, "eos_token_id": 7}')
    assert settings_of(GenerationConfig(generation_config=str(one))) != before


def test_the_reference_of_grpo_is_opened_only_where_it_counts(workspace: Workspace, tmp_path: Path) -> None:
    """With grpo_beta 0 a reference that cannot be opened does no harm; the value head of ppo is saved, grpo has none."""
    common = settings(workspace, "grpo", max_steps=1, save_strategy="no", logging_steps=1)
    run(workspace, tmp_path / "without", **{**common, "grpo_beta": 0.0})
    assert "kl" not in history(tmp_path / "without")[0] and not (tmp_path / "without" / "value_head.safetensors").exists()
    run(workspace, tmp_path / "ppo", **settings(workspace, "ppo", max_steps=1, save_strategy="no"))
    assert load_file(tmp_path / "ppo" / "value_head.safetensors")["v_head.summary.weight"].shape == (1, 32)
