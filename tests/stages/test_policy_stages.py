"""ppo and grpo on a tiny model in float64. Oracle: the papers' formulas written out row by row over transformers' own forward pass,
differentiated by torch; identities between splits of a step over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.harness.online import (
    LONGEST,
    LoneRank,
    Updated,
    Witness,
    copies,
    on_ranks,
    prompt_batches,
    rollouts,
    said,
    step,
    tiny_model,
    worth,
)
from tunewright.config.alignment import AlignmentConfig
from tunewright.data.collate_groups import collate_groups_flat, collate_groups_padded, collate_groups_shared
from tunewright.engine.online import _equipped
from tunewright.models.heads import new_value_head
from tunewright.rl.episodes import Episode
from tunewright.stages.grpo import GroupRelativePolicyOptimization
from tunewright.stages.ppo import Memory, ProximalPolicyOptimization
from tunewright.stages.stage import Role, StepContext

EIGHT = ([0, 1, 2, 3], [4, 5, 6, 7])
PPO = AlignmentConfig(ppo_epochs=2, ppo_init_kl_coef=0.3, ppo_target=0.4, ppo_horizon=50, ppo_gamma=0.9, ppo_lam=0.8, ppo_vf_coef=0.6,
                      ppo_cliprange=0.05, ppo_cliprange_value=0.05)
GRPO = AlignmentConfig(num_generations=3, num_iterations=2, epsilon=0.002, epsilon_high=0.004, grpo_beta=0.2)


def models(*, packed: bool = True) -> dict[Role, Any]:
    """A policy with a value head, and another model as reference."""
    policy, reference = tiny_model(packed=packed), tiny_model(8, packed=packed)
    new_value_head(policy, seed=2)
    policy.v_head.double()
    return {Role.POLICY: policy, Role.REFERENCE: reference}


def ppo(settings: AlignmentConfig, per_update: int = 1, told: Witness | None = None, penalty: float = 0.0) -> ProximalPolicyOptimization:
    return ProximalPolicyOptimization(settings, per_update, Memory.of(settings),
                                      rollouts(collate_groups_flat, told or Witness(), penalty=penalty))


def grpo(settings: AlignmentConfig, told: Witness | None = None, collate: Any = collate_groups_shared) -> GroupRelativePolicyOptimization:
    return GroupRelativePolicyOptimization(settings, LONGEST, rollouts(collate, told or Witness(), generations=settings.num_generations))


def plain_of(model: Any) -> Any:
    """The same weights under transformers' own attention."""
    found = tiny_model(packed=False)
    if hasattr(model, "v_head"):
        new_value_head(found, seed=0)
        found.v_head.double()
    found.load_state_dict(model.state_dict())
    return found.eval()


def values(plain: Any, hidden: Tensor) -> Tensor:
    return (hidden @ plain.v_head.summary.weight[0] + plain.v_head.summary.bias[0]).double()


def standardised(rows: Sequence[Tensor], *, around: bool = False) -> list[Tensor]:
    every = torch.cat(list(rows))
    mean, deviation = every.mean(), (every.var() + 1e-8).sqrt()
    return [(row - mean) / deviation + (mean if around else 0) for row in rows]


class Restated:
    """PPO of Schulman et al. and Ouyang et al., answer by answer: what is known before the first update, and the loss of any update."""

    def __init__(self, given: dict[Role, Any], episodes: Sequence[Episode], settings: AlignmentConfig, penalty: float) -> None:
        self.settings, self.episodes = settings, episodes
        policy, reference = plain_of(given[Role.POLICY]), plain_of(given[Role.REFERENCE])
        with torch.no_grad():
            told = [said(policy, episode) for episode in episodes]
            self.kl = [one.logps - said(reference, episode).logps for one, episode in zip(told, episodes, strict=True)]
            self.old, self.values = [one.logps for one in told], [values(policy, one.hidden) for one in told]
            scores = torch.tensor([worth(one.answer) for one in episodes], dtype=torch.float64)
            scores -= penalty * torch.tensor([float(one.answer[-1] not in (2, 9)) for one in episodes]).double()
            if settings.ppo_score_norm:
                scores = (scores - scores.mean()) / scores.std()
            rewards = [-settings.ppo_init_kl_coef * one for one in self.kl]
            for reward, score in zip(rewards, scores, strict=True):
                reward[-1] += score
            if settings.ppo_whiten_rewards:
                rewards = standardised(rewards, around=True)
            raw = [self.advantages(reward, value) for reward, value in zip(rewards, self.values, strict=True)]
            self.returns = [one + value for one, value in zip(raw, self.values, strict=True)]
            self.advantage = standardised(raw)

    def advantages(self, rewards: Tensor, known: Tensor) -> Tensor:
        """GAE as the double sum of its definition (Schulman et al. 2015, eq. 16)."""
        gamma, lam, size = self.settings.ppo_gamma, self.settings.ppo_lam, len(rewards)
        after = torch.cat((known[1:], known.new_zeros(1)))
        delta = rewards + gamma * after - known
        return torch.stack([sum((gamma * lam)**(k - t) * delta[k] for k in range(t, size)) for t in range(size)])

    def gradients(self, now: Any, numbers: Sequence[int]) -> tuple[dict[str, Tensor], float]:
        """Of the mean over the tokens of these answers, at the weights of `now`."""
        plain, total, count = plain_of(now), torch.zeros(()).double(), 0
        low, high = 1 - self.settings.ppo_cliprange, 1 + self.settings.ppo_cliprange
        for number in numbers:
            told, advantage = said(plain, self.episodes[number]), self.advantage[number]
            ratio, value = (told.logps - self.old[number]).exp(), values(plain, told.hidden)
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
            moved = (value - self.values[number]).clamp(-self.settings.ppo_cliprange_value, self.settings.ppo_cliprange_value)
            squares = torch.stack([(value - self.returns[number])**2, (self.values[number] + moved - self.returns[number])**2])
            total = total - surrogate.sum() + self.settings.ppo_vf_coef * 0.5 * squares.max(dim=0).values.sum()
            count += len(ratio)
        (total / count).backward()
        return {name: weight.grad for name, weight in plain.named_parameters()}, float(total.detach()) / count


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-10) -> bool:
    largest = max(float(one.abs().max()) for one in wanted.values())
    return largest > 1e-4 and all(torch.allclose(found[name], wanted[name], rtol=0, atol=tolerance * max(1.0, largest)) for name in wanted)


@pytest.mark.parametrize("changes", [{}, {"ppo_score_norm": True}, {"ppo_whiten_rewards": True}, {"ppo_gamma": 1.0, "ppo_lam": 1.0}])
def test_ppo_is_the_formula(changes: dict[str, Any]) -> None:
    """Two mini-batches, twice: every update's loss and gradient, at the weights it was made at."""
    settings, told, given = replace(PPO, **changes), Witness(), models()
    start, stage, found = copies(given), ppo(settings, told=told, penalty=0.7), []
    updates = step(stage, given, prompt_batches(EIGHT), LoneRank(), rate=0.1)
    episodes = sorted(told.episodes, key=lambda one: one.sample_id)
    assert {one.ended for one in episodes} == {True, False}
    restated = Restated(start, episodes, settings, 0.7)
    now = start[Role.POLICY]
    for number, update in enumerate(updates):
        gradients, loss = restated.gradients(now, EIGHT[number % 2])
        found.append((close(update.gradients, gradients), update.loss == pytest.approx(loss, abs=1e-10)))
        with torch.no_grad():
            for name, weight in now.named_parameters():
                weight -= 0.1 * update.gradients[name]
    assert found == [(True, True)] * 4
    assert updates[0].metrics["clip_fraction"][0] == 0 and updates[3].metrics["clip_fraction"][0] > 0
    divergence = sum(float(one.sum()) for one in restated.kl)
    assert updates[0].metrics["kl"][0] + updates[1].metrics["kl"][0] == pytest.approx(divergence, abs=1e-10)
    error = min(max(divergence / 8 / 0.4 - 1, -0.2), 0.2)
    assert stage.memory.penalty.coefficient == pytest.approx(0.3 * (1 + error * 8 / 50), abs=1e-12)


def test_the_first_ratio_of_ppo_is_one() -> None:
    """Bit for bit: the surrogate is minus the sum of the advantages, which are white, and no token is clipped."""
    first = step(ppo(replace(PPO, ppo_epochs=1), 2), models(), prompt_batches(EIGHT), LoneRank())[0]
    assert first.metrics["policy_loss"][0] == pytest.approx(0, abs=1e-12) and first.metrics["clip_fraction"] == (0, pytest.approx(
        first.metrics["entropy"][1]))


def reference_gradients(given: dict[Role, Any], episodes: Sequence[Episode], settings: AlignmentConfig, now: Any) -> dict[str, Tensor]:
    """GRPO and its variants, answer by answer."""
    old, reference, plain = plain_of(given[Role.POLICY]), plain_of(given[Role.REFERENCE]), plain_of(now)
    size = settings.num_generations
    rewards = torch.tensor([worth(one.answer) for one in episodes], dtype=torch.float64).view(-1, size)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    scale = {"group": rewards.std(dim=1, keepdim=True) + 1e-4, "batch": rewards.std() + 1e-4, "none": torch.ones(1)}
    advantages = (centred / scale[settings.scale_rewards]).flatten()
    parts, tokens = [], 0
    for episode, advantage in zip(episodes, advantages, strict=True):
        with torch.no_grad():
            before, other = said(old, episode).logps, said(reference, episode).logps
        logps = said(plain, episode).logps
        ratio = (logps - before).exp()
        if settings.importance_sampling_level == "sequence":
            ratio = (logps - before).mean().exp().expand(len(logps))
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - settings.epsilon, 1 + (settings.epsilon_high or 0)) * advantage)
        x = logps - other
        divergence = {"k1": x, "k2": x**2 / 2, "k3": (-x).exp() - 1 + x}[settings.kl_estimator]
        parts.append(-surrogate + settings.grpo_beta * divergence)
        tokens += len(logps)
    middle = len(parts) // 2
    loss = {"grpo": lambda: sum(one.mean() for one in parts) / len(parts),
            "dapo": lambda: torch.cat(parts).mean(),
            "dr_grpo": lambda: torch.cat(parts).sum() / (LONGEST * len(parts)),
            "bnpo": lambda: (torch.cat(parts[:middle]).mean() + torch.cat(parts[middle:]).mean()) / 2}[settings.grpo_loss_type]()
    loss.backward()
    return {name: weight.grad for name, weight in plain.named_parameters() if not name.startswith("v_head")}


@pytest.mark.parametrize("changes", [
    {"grpo_loss_type": "grpo"}, {"grpo_loss_type": "dapo", "scale_rewards": "batch"},
    {"grpo_loss_type": "dr_grpo", "scale_rewards": "none"},
    {"grpo_loss_type": "bnpo", "kl_estimator": "k2"},
    {"grpo_loss_type": "grpo", "importance_sampling_level": "sequence"}, {"grpo_loss_type": "dapo", "kl_estimator": "k1"}])
def test_grpo_is_the_formula(changes: dict[str, Any]) -> None:
    """Three answers to each of eight prompts in two micro-batches, two updates: in the second the ratios differ from 1."""
    settings, told, given = replace(GRPO, **changes), Witness(), models()
    start = copies(given)
    updates = step(grpo(settings, told), given, prompt_batches(EIGHT), LoneRank(), rate=0.3)
    episodes, now = sorted(told.episodes, key=lambda one: (one.sample_id, one.number)), copies(start)[Role.POLICY]
    assert len(updates) == 2 and len(episodes) == 24
    for update in updates:
        wanted = reference_gradients(start, episodes, settings, now)
        assert close({name: update.gradients[name] for name in wanted}, wanted)
        with torch.no_grad():
            for name, weight in now.named_parameters():
                weight -= 0.3 * update.gradients[name]
    assert updates[0].metrics["clip_fraction"][0] == 0 and updates[1].metrics["clip_fraction"][0] > 0
    spread = torch.tensor([worth(one.answer) for one in episodes]).view(-1, 3).std(dim=1)
    assert updates[0].metrics["reward_std"] == (pytest.approx(float(spread.sum()), rel=1e-6), 8)
    assert updates[0].metrics["zero_std_groups"] == (float((spread == 0).sum()), 8)


def test_one_update_needs_no_pass_of_its_own() -> None:
    """With one update on each rollout, the gradient is that of the first of two."""
    found = [step(grpo(replace(GRPO, num_iterations=number)), models(), prompt_batches(EIGHT), LoneRank())[0] for number in (1, 2)]
    assert close(found[0].gradients, found[1].gradients, 1e-13)


def same(found: list[Updated], wanted: list[Updated]) -> bool:
    pairs = list(zip(found, wanted, strict=True))
    figures = [{name: pytest.approx(part, rel=1e-9, abs=1e-9) for name, part in one.metrics.items()} for one in wanted]
    is_close = all(close(one.gradients, other.gradients) and one.loss == pytest.approx(other.loss, abs=1e-10) for one, other in pairs)
    return is_close and [one.metrics for one in found] == figures


STAGES: dict[str, Callable[[int], Any]] = {
    "ppo": lambda per_update: ppo(replace(PPO, ppo_score_norm=True, ppo_whiten_rewards=True), per_update),
    "grpo": lambda per_update: grpo(replace(GRPO, scale_rewards="batch")),
    "gspo": lambda per_update: grpo(replace(GRPO, importance_sampling_level="sequence", grpo_loss_type="grpo"))}


@pytest.mark.parametrize("name", list(STAGES))
def test_splits_of_a_step_compute_the_same(name: str) -> None:
    """Batch 4 = 2 x 2 = two ranks x 2, over two steps, with gradient descent in between: gradients, losses, metrics, memory."""
    def two_steps(per_update: int, parts: Sequence[Sequence[int]], ranks: Any, given: dict[Role, Any]) -> list[Updated]:
        stage = STAGES[name](per_update)
        found = [one for number in (0, 1) for one in step(stage, given, prompt_batches(parts), ranks, number)]
        if name == "ppo":
            states.append(stage.state())
        return found

    states: list[dict[str, Any]] = []
    whole = two_steps(1, EIGHT, LoneRank(), models())
    assert same(two_steps(2, ([0, 1], [2, 3], [4, 5], [6, 7]), LoneRank(), models()), whole)
    shares, each = (([0, 1], [4, 5]), ([2, 3], [6, 7])), (models(), models())  # threads share the stream that weights are drawn from
    for found in on_ranks(lambda ranks: two_steps(1, shares[ranks.rank], ranks, each[ranks.rank]), 2):
        assert same(found, whole)
    for state in states:
        assert state["kl_coef"] == pytest.approx(states[0]["kl_coef"], abs=1e-12)
        assert state["scores"] == pytest.approx(states[0]["scores"], abs=1e-10)
    assert len({str(state) for state in states[2:]}) <= 1


@pytest.mark.parametrize("name", list(STAGES))
def test_a_rank_without_rows_takes_part(name: str) -> None:
    """Five prompts in batches of four: the second rank has none in the last micro-batch, and the sums are those of one rank."""
    whole = step(STAGES[name](1), models(), prompt_batches(([0, 1, 2, 3], [4])), LoneRank())
    shares, each = (([0, 1], [4]), ([2, 3], [])), (models(), models())
    for found in on_ranks(lambda ranks: step(STAGES[name](1), each[ranks.rank], prompt_batches(shares[ranks.rank]), ranks), 2):
        assert same(found, whole)


def test_a_mini_batch_without_rows_is_no_update() -> None:
    """Rows of a stream may all have been dropped: the updates are those of the other mini-batches, on one rank and on two."""
    whole = step(ppo(PPO), models(), prompt_batches(([0, 1, 2, 3],)), LoneRank())
    assert len(whole) == 2 and same(step(ppo(PPO), models(), prompt_batches(([], [0, 1, 2, 3], [])), LoneRank()), whole)
    shares, each = (([], [0, 1]), ([], [2, 3])), (models(), models())
    for found in on_ranks(lambda ranks: step(ppo(PPO), each[ranks.rank], prompt_batches(shares[ranks.rank]), ranks), 2):
        assert same(found, whole)


def test_how_long_answers_get_is_that_of_the_rollouts() -> None:
    """A file with generation settings may say otherwise than the run; Dr. GRPO divides by the limit that answers have."""
    equipped = _equipped(GroupRelativePolicyOptimization(GRPO, 99), rollouts(collate_groups_shared, Witness()))
    assert isinstance(equipped, GroupRelativePolicyOptimization) and equipped.longest == LONGEST


def test_layouts_compute_the_same() -> None:
    """Shared prompts, end to end, padded."""
    whole = step(grpo(GRPO), models(), prompt_batches(EIGHT), LoneRank())
    assert same(step(grpo(GRPO, collate=collate_groups_flat), models(), prompt_batches(EIGHT), LoneRank()), whole)
    padded = grpo(GRPO, collate=partial(collate_groups_padded, pad_token_id=0))
    assert same(step(padded, models(packed=False), prompt_batches(EIGHT), LoneRank()), whole)


def test_memory_goes_through_json() -> None:
    """A stage that is restored goes on with the same bits as one that was not."""
    import json

    settings = replace(PPO, ppo_score_norm=True)
    stage, given = ppo(settings), models()
    step(stage, given, prompt_batches(EIGHT), LoneRank(), 0)
    other, beside = ppo(settings), copies(given)
    other.restore(json.loads(json.dumps(stage.state())))
    assert other.state() == stage.state() != ppo(settings).state()
    one, two = (step(some, those, prompt_batches(EIGHT), LoneRank(), 1) for some, those in ((stage, given), (other, beside)))
    assert [each.loss for each in one] == [each.loss for each in two] and stage.state() == other.state()


@pytest.mark.parametrize("stage", [ppo(PPO), grpo(GRPO)], ids=lambda stage: stage.name)
def test_an_evaluation_is_the_mean_reward_of_fixed_answers(stage: Any) -> None:
    """Whatever the step and the batches, one answer to each prompt; the loss is minus its reward; the memory stays."""
    given, before = models(), stage.state() if stage.name == "ppo" else None
    found = []
    for number, parts in ((0, EIGHT), (3, ([0, 1, 2, 3, 4, 5, 6, 7], []))):
        context = StepContext(LoneRank(), number, 5, training=False)  # type: ignore[arg-type]
        with torch.no_grad():
            losses = [stage.loss(given, batch) for one in prompt_batches(parts) for update in stage.updates(given, [one], context)
                      for batch in update]
        total, count = (sum(one) for one in zip(*(loss.metrics["reward"] for loss in losses), strict=True))
        assert count == 8 == sum(loss.count for loss in losses) and sum(float(loss.sum) for loss in losses) == pytest.approx(-total)
        found.append(total)
    assert found[0] == pytest.approx(found[1]) and before == (stage.state() if stage.name == "ppo" else None)
