"""One optimizer step, however it is computed. Oracle of the steps that everything is compared with: of each stage the formula of its paper,
written out row by row over transformers' own forward pass in float64, and differentiated by torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tunewright.selftest.check import Size
from tunewright.selftest.equivalence import CHECK, chosen, difference
from tunewright.selftest.equivalence_cases import END, SUBJECTS, settings, write_inputs
from tunewright.selftest.first_step import Step, first_step

GOLDEN = 1e-10
BETA, VF, KL_WEIGHT, LAM = 0.5, 0.1, 0.3, 0.95


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models and rows; verdicts on fast paths are kept there."""
    path = tmp_path_factory.mktemp("equivalence")
    write_inputs(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_CACHE", str(path / "cache"))
        yield path


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def test_every_stage_has_every_change() -> None:
    """In full, counted here: every stage and loss, splits, layouts, ranks, recomputation, fast paths, each with an adapter and without."""
    wanted = {(key, name) for group in CHECK.groups(Size.FULL) for key, found in chosen(group, Size.FULL).items() for name in found}
    assert len(wanted) == CHECK.wanted >= 350
    common = {"padded", "layers recomputed", "MLPs recomputed", "4 x 2", "2 x 4", "3 x 3", "4 x 1 on two ranks", "2 x 2 on two ranks",
              "3 x 2 on two ranks", "without the fast path loss", "without the fast path norm", "without any fast path"}
    for stage in ("pt", "sft", "rm", "dpo", "kto", "ppo", "grpo"):
        for tuning in ("LoRA", "full"):
            assert common <= {name for (subject, how), name in wanted if SUBJECTS[subject].stage == stage and how == tuning}


def test_a_sample_has_every_stage() -> None:
    """With an adapter: a split, a packed layout where there is one, a fast path not taken, two ranks; and the same for the whole model."""
    sample = chosen("every stage", Size.SAMPLE)
    for name in ("pt", "sft", "rm", "dpo, sigmoid", "kto", "ppo", "grpo, dapo"):
        packed = {"packed"} if name in ("pt", "sft") else set()
        assert {"4 x 2", "3 x 2 on two ranks", "without the fast path loss"} | packed <= sample[name, "LoRA"].keys()
        assert {"3 x 3", "padded", "3 x 2 on two ranks", "without any fast path"} <= sample[name, "full"].keys()
    assert {name for name, _ in sample} == {name for name in SUBJECTS if SUBJECTS[name].splits and SUBJECTS[name].tolerance == GOLDEN}


def test_what_differs_is_found() -> None:
    """A part in a billion of a loss, a metric or one number of a gradient; a tensor without a gradient; a number that is none."""
    gradients = {"0: a": torch.tensor([4.0, 1e-6], dtype=torch.float64), "0: b": torch.ones(2, 2, dtype=torch.float64)}
    base = Step(2.0, gradients, {"kl": 3.0})
    assert difference(base, base, GOLDEN) == "" == difference(Step(2.0, gradients, {"kl": 3 + 1e-10}), base, GOLDEN)
    others = [
        Step(2 + 4e-9, gradients, {"kl": 3.0}), Step(2.0, gradients, {"kl": 3 + 1e-8}), Step(2.0, gradients, {}),
        Step(2.0, {"0: a": gradients["0: a"]}, {"kl": 3.0}), Step(math.nan, gradients, {"kl": 3.0}),
        Step(2.0, gradients | {"0: a": gradients["0: a"] + torch.tensor([0, 1e-8])}, {"kl": 3.0}),
        Step(2.0, gradients | {"0: b": gradients["0: b"] * math.nan}, {"kl": 3.0})]
    assert all(difference(one, base, GOLDEN) for one in others)


class Row(NamedTuple):
    """A prompt and its answer, as tokens."""

    prompt: list[int]
    answer: list[int]


class Plain:
    """transformers alone: the tokenizer, and a model in float64 whose norms do not round."""

    def __init__(self, folder: Path, name: str = "model") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder, self.tokenizer = folder, AutoTokenizer.from_pretrained(folder / name)
        self.model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float64)
        for place, module in list(self.model.named_modules()):
            if type(module).__name__ == "LlamaRMSNorm":
                self.model.set_submodule(place, torch.nn.RMSNorm(32, eps=1e-6, dtype=torch.float64))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def row(self, given: dict[str, Any], answer: str) -> Row:
        """ChatML, written out."""
        prompt = (f"<|im_start|>system\n{given['system']}<|im_end|>\n<|im_start|>user\n{given['instruction']}<|im_end|>\n"
                  "<|im_start|>assistant\n")
        return Row(self.ids(prompt), self.ids(f"{answer}<|im_end|>"))

    def logps(self, row: Row) -> Tensor:
        """[a] of the tokens of an answer."""
        ids = torch.tensor([[*row.prompt, *row.answer]])
        every = torch.log_softmax(self.model(input_ids=ids).logits[0, :-1], -1)
        return every[torch.arange(len(ids[0]) - 1), ids[0, 1:]][len(row.prompt) - 1:]

    def hidden(self, row: Row) -> Tensor:
        """[p + a, D], the last ones."""
        return self.model(input_ids=torch.tensor([[*row.prompt, *row.answer]]), output_hidden_states=True).hidden_states[-1][0]


def rollouts(step: Step) -> list[Row]:
    """The answers of the one batch of a step, read from its layout: where a segment has a prefix, this is that of the one before it."""
    (batch,) = step.batches[0]
    assert batch.bounds is not None and batch.sequences is not None
    sizes, found = torch.bincount(batch.sequences.owners).tolist(), list[Row]()
    for number, size in enumerate(sizes):
        ids = batch.input_ids[0, batch.bounds[number]: batch.bounds[number + 1]].tolist()
        prefix = 0 if batch.prefixes is None else int(batch.prefixes[number])
        whole = (found[-1].prompt[:prefix] if prefix else []) + ids
        found.append(Row(whole[:len(whole) - size], whole[len(whole) - size:]))
    return found


def mean(plain: Plain, rows: list[Row]) -> Tensor:
    """The cross-entropy of all tokens of the answers."""
    return -torch.cat([plain.logps(row) for row in rows]).mean()


def pretraining(plain: Plain, step: Step) -> Tensor:
    """Every token but the first of a document is told from those before it, and its end."""
    documents = [[*plain.ids(one["text"]), END] for one in plain.rows("documents")]
    return mean(plain, [Row(ids[:1], ids[1:]) for ids in documents])


def fine_tuning(plain: Plain, step: Step) -> Tensor:
    return mean(plain, [plain.row(one, one["output"]) for one in plain.rows("rows")])


def reward(plain: Plain, step: Step) -> Tensor:
    """-log sigmoid of the difference of the values at the last tokens (Ouyang et al. 2022, eq. 1)."""
    values = [[plain.hidden(plain.row(one, one[side]))[-1] @ head(plain, step) for side in ("chosen", "rejected")]
              for one in plain.rows("pairs")]
    return torch.stack([torch.log1p(torch.exp(rejected - chosen)) for chosen, rejected in values]).mean()


def head(plain: Plain, step: Step) -> Tensor:
    """The weight of the value head [D], as a weight of the plain model."""
    if not hasattr(plain.model, "v_head"):
        plain.model.v_head = torch.nn.Linear(32, 1, dtype=torch.float64)
        for name in ("weight", "bias"):
            getattr(plain.model.v_head, name).data = step.weights[f"v_head.summary.{name}"].clone()
    return plain.model.v_head.weight[0]


def preference(loss: str, plain: Plain, step: Step) -> Tensor:
    """The formula of each preference loss, with the mean log-likelihood of the chosen answer added where there is a reference."""
    other, pairs = Plain(plain.folder, "other"), []
    for one in plain.rows("pairs"):
        rows = [plain.row(one, one[side]) for side in ("chosen", "rejected")]
        pairs.append([(plain.logps(row), other.logps(row).detach()) for row in rows])
    ratios = [[(own - past).sum() for own, past in pair] for pair in pairs]
    kls = [max(0.0, sum(float(pair[side].detach()) for pair in ratios) / len(ratios)) for side in (0, 1)]
    return torch.stack([FORMULAS[loss](pair, *both, *kls) for pair, both in zip(pairs, ratios, strict=True)]).mean() - (
        0 if loss in ("orpo", "simpo") else 0.25 * torch.stack([chosen.mean() for (chosen, _), _ in pairs]).mean())


def cost(margin: Tensor) -> Tensor:
    """-log sigmoid."""
    return torch.log1p(torch.exp(-margin))


def odds(logps: Tensor) -> Tensor:
    return torch.log(logps.mean().exp() / (1 - logps.mean().exp()))


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "sigmoid": lambda pair, c, r, *kls: 0.9 * cost(BETA * (c - r)) + 0.1 * cost(BETA * (r - c)),
    "robust": lambda pair, c, r, *kls: (0.9 * cost(BETA * (c - r)) - 0.1 * cost(BETA * (r - c))) / 0.8,
    "hinge": lambda pair, c, r, *kls: (1 - BETA * (c - r)).clamp(min=0),
    "ipo": lambda pair, c, r, *kls: (c / len(pair[0][0]) - r / len(pair[1][0]) - 1 / (2 * BETA)) ** 2,
    "kto_pair": lambda pair, c, r, kl_c, kl_r: (torch.sigmoid(BETA * (kl_r - c)) + torch.sigmoid(BETA * (r - kl_c))) / 2,
    "orpo": lambda pair, c, r, *kls: -pair[0][0].mean() + 0.1 * cost(odds(pair[0][0]) - odds(pair[1][0])),
    "simpo": lambda pair, c, r, *kls: cost(0.1 * (pair[0][0].mean() - pair[1][0].mean()) - 0.5)}
"""Rafailov et al. 2023, eq. 7 with labels smoothed by 0.1 (Mitchell 2023); Chowdhury et al. 2024, section 3.1; Liu et al. 2024; Azar et al.
2023, eq. 17, over means; Ethayarajh et al. 2023, eq. 7; Hong et al. 2024, eq. 6; Meng et al. 2024, eq. 6."""


def feedback(plain: Plain, step: Step) -> Tensor:
    """KTO (Ethayarajh et al. 2024, eq. 8), with the divergence of each prompt with the answer of the row after it in the step."""
    other, rows, beta = Plain(plain.folder, "other"), plain.rows("marked"), 0.1
    found = [plain.row(rows[number], rows[number]["output"]) for number in step.batches[0][0].sample_ids]
    marks = [rows[number]["kto_tag"] for number in step.batches[0][0].sample_ids]
    ratios = [plain.logps(row).sum() - other.logps(row).sum().detach() for row in found]
    mixed = [Row(row.prompt, found[(place + 1) % len(found)].answer) for place, row in enumerate(found)]
    divergence = max(0.0, sum(float((plain.logps(row) - other.logps(row)).detach().sum()) for row in mixed) / len(mixed))
    assert step.metrics["kl"] == pytest.approx(divergence, rel=GOLDEN) and divergence > 0
    return torch.stack([1.5 * (1 - torch.sigmoid(beta * (ratio - divergence))) if good else 1 - torch.sigmoid(beta * (divergence - ratio))
                        for ratio, good in zip(ratios, marks, strict=True)]).mean()


def worth(plain: Plain, row: Row) -> float:
    text = plain.tokenizer.decode(row.answer, skip_special_tokens=True)
    return text.count("a") - len(text) / 9


def proximal(plain: Plain, step: Step) -> Tensor:
    """PPO before its first update (Schulman et al. 2017, eq. 9): advantages by GAE as the double sum of its definition, white over the
    step; a reward at the last token, and what the divergence from the reference costs at each."""
    other, weight = Plain(plain.folder, "other"), head(plain, step)
    told = []
    for row in rollouts(step):
        logps, values = plain.logps(row), plain.hidden(row)[len(row.prompt) - 1: -1] @ weight + plain.model.v_head.bias[0]
        rewards, known = -KL_WEIGHT * (logps - other.logps(row)).detach(), values.detach()
        rewards[-1] += worth(plain, row)
        delta, size = rewards + torch.cat([known[1:], known.new_zeros(1)]) - known, len(known)
        advantages = torch.stack([sum((LAM ** (k - t) * delta[k] for k in range(t, size)), torch.zeros(())) for t in range(size)])
        told.append(((logps - logps.detach()).exp(), advantages, VF * 0.5 * (values - advantages - known) ** 2))
    ratios, every, costs = (torch.cat(parts) for parts in zip(*told, strict=True))
    return (-ratios * (every - every.mean()) / (every.var() + 1e-8).sqrt() + costs).mean()


def group_relative(plain: Plain, step: Step) -> Tensor:
    """GRPO before its first update (Shao et al. 2024, eq. 3), over all tokens as DAPO has it; the divergence as Schulman's k3."""
    other, rows = Plain(plain.folder, "other"), rollouts(step)
    rewards = torch.tensor([worth(plain, row) for row in rows], dtype=torch.float64).view(-1, 3)
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    losses = []
    for row, advantage in zip(rows, advantages, strict=True):
        logps = plain.logps(row)
        apart = other.logps(row).detach() - logps
        losses.append(-(logps - logps.detach()).exp() * advantage + 0.2 * (apart.exp() - 1 - apart))
    return torch.cat(losses).mean()


ONE_UPDATE = {"ppo_epochs": 1, "num_iterations": 1}
ORACLES: dict[str, Callable[[Plain, Step], Tensor]] = {
    "pt": pretraining, "sft": fine_tuning, "rm": reward, "kto": feedback, "ppo": proximal, "grpo, dapo": group_relative,
    **{f"dpo, {loss}": partial(preference, loss) for loss in FORMULAS}}


@pytest.mark.parametrize("name", list(ORACLES))
def test_a_step_is_the_formula_of_its_stage(folder: Path, tmp_path: Path, name: str) -> None:
    """Loss and every gradient, all weights trained."""
    chosen = settings(folder, name, "full")
    step = first_step(chosen | {key: value for key, value in ONE_UPDATE.items() if key in chosen}, tmp_path)
    plain = Plain(folder)
    expected = ORACLES[name](plain, step)
    expected.backward()
    wanted = {f"0: {place.replace('v_head', 'v_head.summary')}": one.grad for place, one in plain.model.named_parameters()
              if one.grad is not None}
    assert difference(step, Step(float(expected.detach()), wanted, {}), GOLDEN) == ""


def test_a_step_of_an_adapter_is_that_of_its_product(folder: Path, tmp_path: Path) -> None:
    """W + alpha / r B A in the place of each weight (Hu et al. 2021, eq. 3)."""
    step = first_step(settings(folder, "sft", "LoRA") | {"lora_rank": 4, "lora_alpha": 6}, tmp_path)
    plain = Plain(folder)
    adapters = {name: weight.requires_grad_() for name, weight in step.weights.items() if "lora_" in name}
    merged = {}
    for name in adapters:
        if "lora_A" in name:
            place = name.removeprefix("base_model.model.").replace("lora_A.default.", "")
            own = plain.model.get_parameter(place).detach()
            merged[place] = own + 6 / 4 * adapters[name.replace("lora_A", "lora_B")] @ adapters[name]
    assert len(merged) == 14
    model, plain.model = plain.model, lambda **given: torch.func.functional_call(model, merged, kwargs=given)
    expected = fine_tuning(plain, step)
    expected.backward()
    assert difference(step, Step(float(expected.detach()), {f"0: {name}": one.grad for name, one in adapters.items()}, {}), GOLDEN) == ""
