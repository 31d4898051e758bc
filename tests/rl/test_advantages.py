"""Advantages against TRL's numbers, naive loops, hand-worked values and identities.

TRL's numbers were computed once in float64 by its own functions on the numbers below: `compute_rewards`, `compute_advantages` (discount
0.9, decay 0.95), `masked_whiten` and `RunningMoments` (which rounds to float32) of TRL 0.9.6; the group advantages with `nanstd` of 1.16.0.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from tunewright.rl.advantages import (
    Moments,
    centred_advantages,
    generalized_advantages,
    group_advantages,
    moments_of,
    normalized_scores,
    token_rewards,
    whiten,
    whiten_around_mean,
)
from tunewright.rl.kl import k1


def _tensor(values: list[list[float]] | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Three answers of 4, 1 and 3 tokens; the rows' ends are filled with rubbish that must not be seen.
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]).bool()
POLICY = _tensor([[-1.1, -1.0, -0.25, -2.0], [-1.2, math.nan, 9, 9], [-1.2, -0.6, -2.0, 9]])
REFERENCE = _tensor([[-1.0, -1.2, -0.3, -2.5], [-0.9, 9, 9, math.inf], [-1.5, -0.1, -2.2, 9]])
SCORES = _tensor([1.5, -0.5, 0.75])
VALUES = _tensor([[0.3, 0.1, -0.2, 0.4], [0.2, math.nan, 9, 9], [0.5, -0.1, 0.6, 9]])
REWARDS = [[0.02, -0.04, -0.01, 1.4], [-0.44, 0, 0, 0], [-0.06, 0.1, 0.71, 0]]


def _assert_rows(actual: Tensor, expected: list[list[float]], rel: float = 1e-12) -> None:
    assert actual.shape == (len(expected), len(expected[0]))
    assert actual.flatten().tolist() == pytest.approx([v for row in expected for v in row], rel=rel, abs=1e-14)


def test_token_rewards_of_trl() -> None:
    """Oracle: TRL with a KL coefficient of 0.2. The score is at the last token; an answer without a token gets none."""
    _assert_rows(token_rewards(SCORES, k1(POLICY, REFERENCE), MASK, 0.2), REWARDS)
    empty = token_rewards(_tensor([3.0]), torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.bool), 0.2)
    assert empty.tolist() == [[0.0, 0.0]]


def test_advantages_and_returns_of_trl() -> None:
    """Oracle: TRL: advantages whitened over the 8 tokens, and returns."""
    advantages, returns = generalized_advantages(_tensor(REWARDS), VALUES, MASK, 0.9, 0.95)
    _assert_rows(returns, [[0.86349012, 0.981275, 1.205, 1.4], [-0.44, 0, 0, 0], [0.56311275, 0.73405, 0.71, 0]], rel=1e-7)
    _assert_rows(
        whiten(advantages, MASK, moments_of(advantages[MASK])),
        [
            [0.055873339206483415, 0.5440141395244272, 1.3484940275194588, 0.7263844191601333],
            [-1.7927754764183703, 0, 0, 0],
            [-0.7127428899123248, 0.4714730870435159, -0.6407206461233228, 0],
        ],
    )


def test_whitened_rewards_of_trl() -> None:
    """Oracle: TRL with `whiten_rewards` on three answers of three tokens: rewards divided by their deviation around their mean."""
    rewards, mask = _tensor([[0.02, -0.04, 1.4], [-0.44, 0.3, -0.5], [-0.06, 0.1, 0.71]]), torch.ones(3, 3).bool()
    values = _tensor([[0.3, 0.1, -0.2], [0.2, 0.4, 0.0], [0.5, -0.1, 0.6]])
    whitened = whiten_around_mean(rewards, mask, moments_of(rewards))
    advantages, returns = generalized_advantages(whitened, values, mask, 0.9, 0.95)
    _assert_rows(
        whiten(advantages, mask, moments_of(advantages)),
        [
            [0.5338989135246709, 0.940899343100533, 1.5713618972549361],
            [-1.4069687660731087, -0.9590522154171439, -1.0621182287501405],
            [-0.20945526162764022, 0.5347526602234036, 0.056681657764489565],
        ],
    )
    _assert_rows(
        returns,
        [
            [1.4130885176233903, 1.7433291630913184, 2.2646965311959715],
            [-1.2154762120753633, -0.4319299952247059, -0.9662045204197901],
            [0.644645810929459, 1.0142007798415749, 1.091369307188142],
        ],
    )


def test_whitened_rewards_do_not_depend_on_padding() -> None:
    """Identity: two places more at the end of each row change nothing. (In TRL 0.9 they do: the mean is added to padding too.)"""
    rewards, mask = _tensor(REWARDS), MASK
    wider, wider_mask = (torch.nn.functional.pad(rows, (0, 2)) for rows in (rewards, mask))
    narrow, wide = (whiten_around_mean(r, m, moments_of(r[m])) for r, m in ((rewards, mask), (wider, wider_mask)))
    expected = generalized_advantages(narrow, VALUES, mask, 0.9, 0.95)
    actual = generalized_advantages(wide, torch.nn.functional.pad(VALUES, (0, 2)), wider_mask, 0.9, 0.95)
    assert all(torch.equal(a[:, :4], e) for a, e in zip(actual, expected, strict=True))
    assert narrow[1, 1:].tolist() == [0.0, 0.0, 0.0]


def _naive_gae(rewards: list[float], values: list[float], discount: float, decay: float) -> list[float]:
    """Schulman et al. 2015, eq. 16 as the sum it is, not as a recursion."""
    length, ends = len(rewards), [*values, 0.0]
    deltas = [rewards[t] + discount * ends[t + 1] - ends[t] for t in range(length)]
    return [math.fsum((discount * decay) ** k * deltas[t + k] for k in range(length - t)) for t in range(length)]


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.0), (0.99, 0.5)])
def test_advantages_equal_the_sum_of_the_paper(discount: float, decay: float) -> None:
    """Oracle: eq. 16 as a plain sum for each row, also where the places of a row that are tokens have a gap."""
    generator = torch.Generator().manual_seed(5)
    rewards, values = (torch.randn(4, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1, 1, 0, 0, 1, 1, 0], [0] * 7]).bool()
    advantages, returns = generalized_advantages(rewards, values, mask, discount, decay)
    for row in range(4):
        expected = _naive_gae(rewards[row][mask[row]].tolist(), values[row][mask[row]].tolist(), discount, decay)
        assert advantages[row][mask[row]].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert torch.equal(advantages[~mask], torch.zeros_like(advantages[~mask])) and torch.equal(returns[~mask], advantages[~mask])
    assert torch.allclose(returns[mask], (advantages + values)[mask])


def test_ends_of_the_decay_by_hand() -> None:
    """By hand, rewards 1, 2 and values 3, 5, discount 1/2. Decay 0: one-step errors 1 + 2.5 - 3 and 2 - 5. Decay 1: the return
    minus the value: 1 + 1 - 3 and 2 - 5."""
    rewards, values, mask = _tensor([[1.0, 2.0]]), _tensor([[3.0, 5.0]]), torch.ones(1, 2).bool()
    assert generalized_advantages(rewards, values, mask, 0.5, 0.0)[0].tolist() == [[0.5, -3.0]]
    assert generalized_advantages(rewards, values, mask, 0.5, 1.0)[0].tolist() == [[-1.0, -3.0]]
    assert generalized_advantages(rewards, values, mask, 0.5, 1.0)[1].tolist() == [[2.0, 2.0]]


def test_nothing_has_a_gradient() -> None:
    """By definition: advantages are data of the update."""
    values = VALUES.clone().requires_grad_()
    advantages, returns = generalized_advantages(_tensor(REWARDS), values, MASK, 0.9, 0.95)
    rewards = token_rewards(SCORES, k1(values, REFERENCE), MASK, 0.2)
    assert not advantages.requires_grad and not returns.requires_grad and not rewards.requires_grad


def test_whitened_tokens_have_mean_0_and_variance_1() -> None:
    """Identity, over the tokens only; around the mean the mean stays."""
    rows = 3 + 5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    moments = moments_of(rows[MASK])
    centred, around = whiten(rows, MASK, moments), whiten_around_mean(rows, MASK, moments)
    assert float(centred[MASK].mean()) == pytest.approx(0.0, abs=1e-14) and float(centred[MASK].var()) == pytest.approx(1.0, rel=1e-8)
    assert float(around[MASK].mean()) == pytest.approx(float(rows[MASK].mean()))
    assert float(around[MASK].var()) == pytest.approx(1.0, rel=1e-8)
    assert torch.equal(centred[~MASK], torch.zeros(4, dtype=torch.float64)) and torch.equal(around[~MASK], centred[~MASK])


def test_one_token_and_equal_tokens_whiten_to_zero() -> None:
    """By hand: without a spread nothing is divided by zero."""
    for row in ([2.5], [2.5, 2.5]):
        values, mask = _tensor([row]), torch.ones(1, len(row)).bool()
        assert whiten(values, mask, moments_of(values[mask])).tolist() == [[0.0] * len(row)]
        assert whiten_around_mean(values, mask, moments_of(values[mask])).tolist() == [row]
    assert moments_of(torch.zeros(0)) == Moments()
    assert moments_of(_tensor([2.5])) == Moments(1, 2.5, 0.0) and moments_of(_tensor([2.5])).variance == 0.0


def test_merged_moments_are_those_of_all_numbers() -> None:
    """Oracle: Python's `statistics` over all numbers, whatever the split; an empty part changes nothing."""
    numbers = [1e6 + x for x in (0.5, -3.0, 2.25, 9.0, 4.0, -1.5, 0.0)]
    for cuts in ((0, 7), (3, 3), (1, 5), (2, 6)):
        parts = [numbers[: cuts[0]], numbers[cuts[0] : cuts[1]], numbers[cuts[1] :]]
        moments = Moments()
        for part in parts:
            moments = moments.merged(moments_of(_tensor(part)))
        assert moments.count == 7
        assert moments.mean == pytest.approx(statistics.fmean(numbers), rel=1e-15)
        assert moments.variance == pytest.approx(statistics.variance(numbers), rel=1e-9)
    assert Moments().merged(Moments()) == Moments()


def test_running_scores_of_trl() -> None:
    """Oracle: TRL 0.9.6, `RunningMoments` (float32) over three batches, each normalised with all seen so far."""
    expected = [
        (0.5833333134651184, 1.010362982749939, [0.9072647179135156, -1.0722218964481196, 0.16495723752790237]),
        (1.350000023841858, 1.3181426525115967, [0.4931180816580272, 1.251761312035706]),
        (1.1666667461395264, 1.625, [-1.3333333822397084, -0.5641026130089393, -0.41025645916278547, 1.7435896946833684]),
    ]
    moments = Moments()
    for batch, (mean, deviation, scores) in zip(([1.5, -0.5, 0.75], [2.0, 3.0], [-1.0, 0.25, 0.5, 4.0]), expected, strict=True):
        moments = moments.merged(moments_of(_tensor(batch)))
        assert (moments.mean, math.sqrt(moments.variance)) == pytest.approx((mean, deviation), rel=1e-6)
        assert normalized_scores(_tensor(batch), moments).tolist() == pytest.approx(scores, rel=1e-6)
    assert Moments(**json.loads(json.dumps(asdict(moments)))) == moments


def test_scores_without_a_spread_are_only_centred() -> None:
    """By hand: a single score, then equal ones; three times 0.1 add up to more than 0.3 in binary, and their mean is not 0.1."""
    assert normalized_scores(_tensor([7.0]), moments_of(_tensor([7.0]))).tolist() == [0.0]
    assert normalized_scores(_tensor([2.0, 2.0]), moments_of(_tensor([2.0, 2.0]))).tolist() == [0.0, 0.0]
    assert sum([0.1] * 3) / 3 != 0.1
    moments = Moments().merged(moments_of(_tensor([0.1] * 3))).merged(moments_of(_tensor([0.1] * 7)))
    assert moments == Moments(10, 0.1, 0.0) and normalized_scores(_tensor([0.1] * 3), moments).tolist() == [0.0, 0.0, 0.0]


def test_group_advantages_of_trl() -> None:
    """Oracle: TRL 1.16.0, three prompts with four answers each; the last prompt's rewards are all equal."""
    rewards = _tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.9, 0.4, 0.1], [0.1, 0.1, 0.1, 0.1]])
    _assert_rows(
        group_advantages(rewards),
        [
            [0.8658754297607016, -0.8658754297607016, -0.8658754297607016, 0.8658754297607016],
            [-0.5617936365643035, 1.4044840914107588, 0, -0.8426904548464553],
            [0, 0, 0, 0],
        ],
    )


def test_group_baselines_by_hand() -> None:
    """By hand: rewards 1, 2, 6 have mean 3 and a variance of 7. Of 0 and 1 the deviation is the root of 1/2."""
    pair = _tensor([[0.0, 1.0]])
    _assert_rows(group_advantages(pair), [[-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4)]])
    rewards = _tensor([[1.0, 2.0, 6.0]])
    _assert_rows(centred_advantages(rewards), [[-2, -1, 3]])
    _assert_rows(group_advantages(rewards), [[-2 / (math.sqrt(7) + 1e-4), -1 / (math.sqrt(7) + 1e-4), 3 / (math.sqrt(7) + 1e-4)]])


@pytest.mark.parametrize("advantages", [group_advantages, centred_advantages])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_and_groups_of_one_are_exactly_zero(advantages: object, dtype: torch.dtype) -> None:
    """Identity: no signal, no push, not even of a rounding error divided by 1e-4; 0.1 has no exact mean in binary."""
    assert callable(advantages)
    ties = torch.tensor([[0.1] * 7, [1e8] * 7, [-3.3] * 7], dtype=dtype)
    assert torch.equal(advantages(ties), torch.zeros(3, 7, dtype=dtype))
    assert torch.equal(advantages(ties[:, :1]), torch.zeros(3, 1, dtype=dtype))


def test_groups_do_not_see_each_other() -> None:
    """Identity: shifting one prompt's rewards, or scaling another's, changes nothing in the first."""
    rewards = torch.rand(3, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    changed = rewards * torch.tensor([[1.0], [3.0], [1.0]]) + torch.tensor([[0.0], [0.0], [2.0]])
    assert torch.equal(centred_advantages(changed)[0], centred_advantages(rewards)[0])
    assert torch.allclose(centred_advantages(changed), centred_advantages(rewards) * torch.tensor([[1.0], [3.0], [1.0]]), atol=1e-14)
