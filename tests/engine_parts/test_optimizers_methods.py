"""GaLore, BAdam and Adam-mini: restated naively from their papers, and where they must equal AdamW."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine_parts.test_optimizers_resume import tiny_model
from tunewright.config.optimization import OptimizerConfig
from tunewright.config.tuning import LoraConfig
from tunewright.engine.optimizers.adam_mini import head_counts
from tunewright.engine.optimizers.badam import Visits, adjacent, block_at, scattered
from tunewright.engine.optimizers.build import build_optimizer
from tunewright.engine.optimizers.galore import bases, targets
from tunewright.errors import InputError

RATE, DECAY = 0.01, 0.1


class Net(nn.Module):
    """One linear layer as a model whose output head is another, as `linear_layers` asks."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.layer = nn.Linear(columns, rows)

    def get_output_embeddings(self) -> None:
        return None


def config(**settings: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"optim": "adamw_torch", "learning_rate": RATE, "weight_decay": DECAY, **settings})


def walk(model: nn.Module, optimizer: Any, steps: int, seed: int = 0) -> None:
    """Steps on random gradients, which are a function of the seed; closed weights get none."""
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=chance)
            weight.grad = drawn if weight.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()


def galore(rows: int, columns: int, steps: int, **settings: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The matrix before and after, and its gradients."""
    torch.manual_seed(0)
    model = Net(rows, columns)
    before = model.layer.weight.detach().double().numpy().copy()
    optimizer = build_optimizer(model, config(use_galore=True, **settings), LoraConfig())
    chance, seen = np.random.default_rng(5), []
    for _ in range(steps):
        seen.append(chance.normal(size=(rows, columns)))
        model.layer.weight.grad = torch.from_numpy(seen[-1]).float()
        optimizer.step()
    return before, model.layer.weight.detach().double().numpy(), seen


def naive_galore(w: np.ndarray, gs: list[np.ndarray], sides: str, rank: int, interval: int, scale: float) -> np.ndarray:
    """Algorithm 2 in NumPy with NumPy's own singular vectors; `sides` of l and r."""
    m = v = np.zeros(())
    p, q = np.eye(w.shape[0]), np.eye(w.shape[1])
    for t, g in enumerate(gs):
        if t % interval == 0:
            u, _, vt = np.linalg.svd(g)
            p, q = (u[:, :rank] if "l" in sides else p), (vt[:rank].T if "r" in sides else q)
        r = p.T @ g @ q
        if sides == "lr" and t % interval == 0:
            r = np.diag(np.diag(r))  # exactly diagonal by construction; rounding aside it is no more than that
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
        n = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        w = w - RATE * DECAY * w - RATE * scale * (p @ n @ q.T)
    return w


SIDES = {("std", "wide"): "l", ("std", "tall"): "r", ("reverse_std", "wide"): "r", ("reverse_std", "tall"): "l", ("left", "wide"): "l",
         ("left", "tall"): "l", ("right", "wide"): "r", ("right", "tall"): "r", ("full", "wide"): "lr", ("full", "tall"): "lr"}


@pytest.mark.parametrize(("kind", "shape"), SIDES)
def test_galore_follows_the_paper(kind: str, shape: str) -> None:
    """Within one projection. Singular vectors have a free sign, which Adam, odd in its gradient, carries through: W is the same."""
    rows, columns = {"wide": (4, 6), "tall": (6, 4)}[shape]
    before, after, seen = galore(rows, columns, 3, galore_rank=2, galore_scale=0.5, galore_proj_type=kind)
    np.testing.assert_allclose(after, naive_galore(before, seen, SIDES[kind, shape], 2, 200, 0.5), rtol=0, atol=2e-6)


def test_galore_takes_a_new_projection_in_time_and_keeps_its_moments() -> None:
    """Every second step, seen in NumPy. A new vector's free sign does not cancel against old moments, so ours are compared up to it."""
    before, after, seen = galore(4, 6, 5, galore_rank=1, galore_update_interval=2, galore_scale=1.0, galore_proj_type="left")
    reachable = []
    for signs in itertools.product((1, -1), repeat=2):
        w, m, v = before, np.zeros((1, 6)), np.zeros((1, 6))
        for t, g in enumerate(seen):
            if t % 2 == 0:
                p = np.linalg.svd(g)[0][:, :1] * (1, *signs)[t // 2]
            r = p.T @ g
            m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
            w = w - RATE * DECAY * w - RATE * p @ ((m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8))
        reachable.append(float(np.abs(after - w).max()))
    assert min(reachable) < 2e-6 < np.abs(after - naive_galore(before, seen, "l", 1, 200, 1.0)).max()


def test_galore_of_full_rank_on_one_row_is_adamw() -> None:
    """A 1 x n matrix has one left vector, plus or minus 1: with scale 1 every step is AdamW's."""
    before, after, seen = galore(1, 6, 5, galore_rank=8, galore_scale=1.0, galore_proj_type="left", galore_update_interval=100)
    weight = nn.Parameter(torch.from_numpy(before).float())
    optimizer = torch.optim.AdamW([weight], lr=RATE, weight_decay=DECAY)
    for gradient in seen:
        weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
    np.testing.assert_allclose(after, weight.detach().numpy(), rtol=0, atol=1e-6)


def test_galore_bases_are_those_of_the_singular_values() -> None:
    """By hand: of diag(3, 1, 2) the first two directions are axes 0 and 2; the bases are orthonormal; a rank too large is cut."""
    left, right = bases(torch.diag(torch.tensor([3.0, 1.0, 2.0])), 2, "full")
    assert left is not None and right is not None
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(left.abs(), expected)
    torch.testing.assert_close(right.abs(), expected)
    whole, none = bases(torch.randn(3, 5), 99, "std")
    assert whole is not None and whole.shape == (3, 3) and none is None
    torch.testing.assert_close(whole.T @ whole, torch.eye(3), atol=1e-6, rtol=0)


def test_galore_projects_linear_layers_and_nothing_else() -> None:
    """`all` is every linear layer but the head; state of a projected 80 x 64 matrix is 80 x 3, of the head its whole shape."""
    model = tiny_model()
    optimizer = build_optimizer(model, config(use_galore=True, galore_rank=3), LoraConfig())
    walk(model, optimizer, 1)
    shapes = {name: tuple(optimizer.state[weight]["exp_avg"].shape) for name, weight in model.named_parameters()}
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (80, 3) and shapes["model.layers.1.mlp.down_proj.weight"] == (3, 80)
    assert shapes["lm_head.weight"] == (40, 64) == shapes["model.embed_tokens.weight"]
    assert shapes["model.layers.0.self_attn.q_proj.bias"] == (64,)
    decayed = [group["weight_decay"] for group in optimizer.param_groups]
    assert [(group["projected"], decay) for group, decay in zip(optimizer.param_groups, decayed, strict=True)] == [
        (True, DECAY), (False, DECAY), (False, 0.0)]


def test_galore_target_names_layers() -> None:
    model = tiny_model()
    layers = model.model.layers  # type: ignore[union-attr]
    named = targets(model, ("up_proj", r"model\.layers\.0\..*q_proj"))
    wanted = [layers[0].mlp.up_proj.weight, layers[0].self_attn.q_proj.weight, layers[1].mlp.up_proj.weight]  # type: ignore[index, union-attr]
    assert {id(one) for one in named} == {id(one) for one in wanted}
    with pytest.raises(InputError, match="galore_target: 'up_prj' matches no module of this model; use up_proj"):
        targets(model, ("up_prj",))
    for weight in named:
        weight.requires_grad_(False)
    with pytest.raises(InputError, match="none of the layers it names trains"):
        build_optimizer(model, config(use_galore=True, galore_target=("up_proj",)), LoraConfig())


VISITS: list[tuple[Visits, list[int]]] = [
    (Visits(3, None, "ascending", 2, 0), [0, 0, 1, 1, 2, 2, 0]), (Visits(3, 2, "ascending", 1, 0), [2, 0, 1, 2]),
    (Visits(3, None, "descending", 1, 0), [2, 1, 0, 2]), (Visits(3, 0, "descending", 1, 0), [0, 2, 1, 0]),
    (Visits(3, 1, "fixed", 1, 0), [1, 1, 1]), (Visits(3, None, "fixed", 1, 0), [0, 0]), (Visits(3, None, "ascending", -1, 0), [0, 0, 0]),
]


@pytest.mark.parametrize(("visits", "blocks"), VISITS)
def test_badam_order(visits: Visits, blocks: list[int]) -> None:
    """By hand."""
    assert [block_at(step, visits) for step in range(len(blocks))] == blocks


def test_badam_random_order_visits_all_and_depends_on_the_seed_and_step_only() -> None:
    """Each cycle has every block once; cycles and seeds differ; a start block comes first in the first cycle."""
    visits = Visits(8, None, "random", 3, 1)
    blocks = [block_at(step, visits) for step in range(0, 3 * 16, 3)]
    assert sorted(blocks[:8]) == sorted(blocks[8:]) == list(range(8)) and blocks[:8] != blocks[8:]
    assert blocks != [block_at(step, Visits(8, None, "random", 3, 2)) for step in range(0, 3 * 16, 3)]
    started = [block_at(step, Visits(8, 5, "random", 1, 1)) for step in range(16)]
    assert started[0] == 5 and sorted(started[:8]) == list(range(8)) and started[8:] == blocks[8:]


def test_badam_is_adamw_on_one_block_and_leaves_the_others_alone() -> None:
    """Three steps on each layer. Oracle: torch.optim.AdamW over that layer alone, started afresh at the switch; all else keeps its bits."""
    model, twin = tiny_model(), tiny_model()
    optimizer = build_optimizer(model, config(use_badam=True, badam_switch_interval=3), LoraConfig())
    for number in (0, 1):
        layer = twin.model.layers[number]  # type: ignore[union-attr, index]
        twin.requires_grad_(False)
        layer.requires_grad_(True)
        plain = build_optimizer(twin, config(), LoraConfig())
        for step in range(3):
            walk(model, optimizer, 1, seed=10 * number + step)
            walk(twin, plain, 1, seed=10 * number + step)
            assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))
    assert next(name for name, weight in model.named_parameters() if weight.requires_grad).startswith("model.layers.0.")


def test_badam_keeps_moments_of_the_block_at_work_only() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, config(use_badam=True, badam_switch_interval=2), LoraConfig())
    walk(model, optimizer, 3)
    names = {id(weight): name for name, weight in model.named_parameters()}
    held = {names[id(owner)] for owner in optimizer.state if isinstance(owner, torch.Tensor)}
    assert held == {name for name in names.values() if name.startswith("model.layers.1.")}


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 2), (2, 2)])
def test_badam_tells_the_block(verbose: int, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    with caplog.at_level(logging.INFO):
        optimizer = build_optimizer(model, config(use_badam=True, badam_switch_interval=1, badam_verbose=verbose), LoraConfig())
        walk(model, optimizer, 1)
    told = [record.getMessage() for record in caplog.records if "BAdam trains layer" in record.getMessage()]
    assert len(told) == lines
    if verbose:
        assert told[1].startswith("BAdam trains layer 1 from step 2 on")
        assert ("model.layers.1.mlp.up_proj.weight" in told[1]) == (verbose == 2)


def test_badam_refuses_a_layer_that_does_not_train() -> None:
    with pytest.raises(InputError) as caught:
        build_optimizer(tiny_model(), config(use_badam=True, badam_start_block=2), LoraConfig())
    assert caught.value.line() == (
        "badam_start_block is 2, but the decoder layers that train are 0 to 1; choose one of those")
    model = tiny_model()
    model.model.layers.requires_grad_(False)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="use_badam: no decoder layer trains"):
        build_optimizer(model, config(use_badam=True), LoraConfig())


def test_badam_by_layers_is_for_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process border: what torch says in a job of two ranks."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(InputError) as caught:
        build_optimizer(tiny_model(), config(use_badam=True), LoraConfig())
    assert caught.value.line() == (
        "use_badam: ranks cannot agree on gradients of blocks that come and go; use badam_mode: ratio, or one process")


def test_badam_of_the_whole_is_adamw() -> None:
    """Ratio 1 without switching: AdamW on everything, to the rounding of another order of operations."""
    model, twin = tiny_model(), tiny_model()
    walk(model, build_optimizer(model, config(use_badam=True, badam_mode="ratio", badam_update_ratio=1.0, badam_switch_interval=-1),
                                LoraConfig()), 4)
    walk(twin, build_optimizer(twin, config(), LoraConfig()), 4)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["adjacent", "scatter"])
def test_badam_ratio_is_adamw_on_its_share(mode: str) -> None:
    """Two visits of two steps. Oracle: torch's AdamW over the whole matrix, started afresh at each visit, of which only the numbers
    that changed here are taken; the others keep their bits."""
    torch.manual_seed(0)
    layer = nn.Linear(20, 10, bias=False)
    optimizer = build_optimizer(layer, config(use_badam=True, badam_mode="ratio", badam_update_ratio=0.1, badam_mask_mode=mode,
                                              badam_switch_interval=2), LoraConfig(), seed=3)
    shares = []
    for visit in (0, 1):
        start = layer.weight.detach().clone()
        whole = nn.Parameter(start.clone())
        exact = torch.optim.AdamW([whole], lr=RATE, weight_decay=DECAY)
        for step in (0, 1):
            gradient = torch.randn(10, 20, generator=torch.Generator().manual_seed(2 * visit + step))
            layer.weight.grad, whole.grad = gradient, gradient.clone()
            optimizer.step(), exact.step()
        moved = layer.weight.detach() != start
        torch.testing.assert_close(layer.weight.detach()[moved], whole.detach()[moved], rtol=0, atol=1e-7)
        shares.append(moved.flatten().nonzero().flatten().tolist())
    assert [len(share) for share in shares] == [20, 20] and shares[0] != shares[1]
    gaps = {(later - sooner) % 200 for sooner, later in itertools.pairwise([*shares[0], shares[0][0]])}
    assert (len(gaps - {1}) == 1) == (mode == "adjacent")


def test_badam_places() -> None:
    """A share side by side goes round the end; a scattered one has no place twice; both depend on the key only."""
    runs = [adjacent(10, 4, (1, turn)).tolist() for turn in range(20)]
    assert all([(place - run[0]) % 10 for place in run] == [0, 1, 2, 3] for run in runs) and any(run[0] > 6 for run in runs)
    drawn = scattered(100, 30, (1, 2)).tolist()
    assert len(set(drawn)) == 30 and drawn == scattered(100, 30, (1, 2)).tolist() != scattered(100, 30, (1, 3)).tolist()


def test_adam_mini_by_hand() -> None:
    """A 2 x 2 matrix with rows as blocks and a bias as one. Row gradients (3, 1) and (0, 2): mean squares 5 and 2, which after bias
    correction are v^, so the step is rate g / sqrt(5) and rate g / sqrt(2); the bias (1, 7) has the mean square 25."""
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"up_proj": layer})
    model.config = _Config()  # type: ignore[assignment]
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    optimizer = build_optimizer(model, config(use_adam_mini=True), LoraConfig())
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([1.0, 7.0])
    optimizer.step()
    root5, root2 = 5**0.5, 2**0.5
    torch.testing.assert_close(layer.weight.detach(), -RATE * torch.tensor([[3 / root5, 1 / root5], [0, root2]]))
    torch.testing.assert_close(layer.bias.detach(), -RATE * torch.tensor([0.2, 1.4]))
    assert optimizer.state[layer.weight]["exp_avg_sq"].tolist() == pytest.approx(np.array([[0.005], [0.002]]))


class _Config:
    """What Adam-mini asks of a model's configuration."""

    head_dim = 2

    def get_text_config(self) -> _Config:
        return self


def test_adam_mini_splits_query_and_key_by_heads() -> None:
    """Heads of 16 rows: 64 x 64 queries are 4 heads, 32 x 64 keys are 2; values go by their 32 rows, the embedding by its 40 tokens,
    a norm is one block. Oracle for the step of a query: the naive formula over the heads."""
    model = tiny_model()
    layer = model.model.layers[0].self_attn  # type: ignore[union-attr, index]
    counts = head_counts(model)
    assert (counts[layer.q_proj.weight], counts[layer.k_proj.weight]) == (4, 2) and len(counts) == 4
    before = layer.q_proj.weight.detach().clone()
    optimizer = build_optimizer(model, config(use_adam_mini=True), LoraConfig())
    chance = torch.Generator().manual_seed(0)
    m, v = torch.zeros(4, 1024), torch.zeros(4)
    w = before.clone()
    for t in (1, 2):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=chance)
        g = layer.q_proj.weight.grad.view(4, 1024)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g * g).mean(1)
        direction = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)[:, None]
        w = w - RATE * DECAY * w - RATE * direction.view(64, 64)
        optimizer.step()
    torch.testing.assert_close(layer.q_proj.weight.detach(), w, rtol=0, atol=1e-6)
    blocks = {name: optimizer.state[weight]["exp_avg_sq"].numel() for name, weight in model.named_parameters()}
    assert blocks["model.layers.0.self_attn.v_proj.weight"] == 32 and blocks["model.embed_tokens.weight"] == 40
    assert blocks["model.norm.weight"] == 1 == blocks["model.layers.0.self_attn.q_proj.bias"]


def test_adam_mini_on_single_numbers_is_adamw() -> None:
    """Rows of one number are blocks of one number: Adam."""
    layer, twin = nn.Linear(1, 5, bias=False), nn.Linear(1, 5, bias=False)
    twin.load_state_dict(layer.state_dict())
    model = nn.ModuleDict({"up_proj": layer})
    model.config = _Config()  # type: ignore[assignment]
    walk(layer, build_optimizer(model, config(use_adam_mini=True), LoraConfig()), 4)
    walk(twin, torch.optim.AdamW(twin.parameters(), lr=RATE, weight_decay=DECAY), 4)
    torch.testing.assert_close(layer.weight, twin.weight, rtol=0, atol=1e-6)
