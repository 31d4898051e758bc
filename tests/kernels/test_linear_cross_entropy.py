"""Losses straight from hidden states. Oracle: torch's cross_entropy, and the equations written out, in float64 with autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tests.harness.memory import peak_bytes
from tunewright.kernels.linear_cross_entropy import Head, Shape, linear_cross_entropy, linear_cross_entropy_sum, top_ranked

ROWS, WIDTH, VOCABULARY = 23, 8, 31
GOLDEN = 1e-12
SHAPES = {
    "plain": Shape(), "chunks of one row": Shape(chunk=1), "chunks of 5": Shape(chunk=5), "divided logits": Shape(scale=0.125, chunk=7),
    "capped": Shape(softcap=2.0), "smoothed": Shape(smoothing=0.1, chunk=7), "z-loss": Shape(z_weight=1e-2),
    "all": Shape(scale=0.3, softcap=2.0, smoothing=0.2, z_weight=1e-3, chunk=4),
}


def inputs(*, bias: bool = False, seed: int = 0) -> tuple[Tensor, Head, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return (random(ROWS, WIDTH), Head(random(VOCABULARY, WIDTH), random(VOCABULARY) if bias else None),
            torch.randint(VOCABULARY, (ROWS,), generator=generator))


def by_the_equation(hidden: Tensor, head: Head, targets: Tensor, shape: Shape) -> Tensor:
    logits = shape.scale * (hidden @ head.weight.t() + (0 if head.bias is None else head.bias))
    if shape.softcap is not None:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    plain = cross_entropy(logits, targets, reduction="none", label_smoothing=shape.smoothing)
    return plain + shape.z_weight * torch.logsumexp(logits, -1) ** 2


def gradients(value: Tensor, hidden: Tensor, head: Head) -> list[Tensor]:
    return list(torch.autograd.grad(value, [one for one in (hidden, *head) if one is not None]))


def assert_the_equation(shape: Shape, *, bias: bool) -> None:
    """The sum of the losses and every gradient."""
    hidden, head, targets = inputs(bias=bias)
    found = linear_cross_entropy_sum(hidden, head, targets, shape)
    wanted = by_the_equation(hidden, head, targets, shape).sum()
    torch.testing.assert_close(found, wanted, rtol=GOLDEN, atol=0)
    torch.testing.assert_close(gradients(found, hidden, head), gradients(wanted, hidden, head), rtol=GOLDEN, atol=GOLDEN)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_sum_and_every_gradient(name: str, bias: bool) -> None:
    """Also with a factor behind the sum, as the engine divides by the count."""
    hidden, head, targets = inputs(bias=bias)
    found = linear_cross_entropy_sum(hidden, head, targets, SHAPES[name])
    wanted = by_the_equation(hidden, head, targets, SHAPES[name]).sum()
    torch.testing.assert_close(found, wanted, rtol=GOLDEN, atol=0)
    torch.testing.assert_close(gradients(found / 7, hidden, head), gradients(wanted / 7, hidden, head), rtol=GOLDEN, atol=GOLDEN)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_each_row_with_a_factor_of_its_own(name: str, bias: bool) -> None:
    """As preference losses weigh the log-probabilities of tokens."""
    hidden, head, targets = inputs(bias=bias)
    factors = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    found = (linear_cross_entropy(hidden, head, targets, SHAPES[name]) * factors).sum()
    wanted = (by_the_equation(hidden, head, targets, SHAPES[name]) * factors).sum()
    torch.testing.assert_close(found, wanted, rtol=GOLDEN, atol=0)
    torch.testing.assert_close(gradients(found, hidden, head), gradients(wanted, hidden, head), rtol=GOLDEN, atol=GOLDEN)


@pytest.mark.parametrize("trained", [(True, False), (False, True), (False, False)])
def test_only_what_trains_gets_a_gradient(trained: tuple[bool, bool]) -> None:
    """A frozen head, frozen hidden states (the head alone trains), nothing at all."""
    hidden, head, targets = inputs()
    hidden.requires_grad_(trained[0])
    head.weight.requires_grad_(trained[1])
    for loss in (linear_cross_entropy_sum(hidden, head, targets), linear_cross_entropy(hidden, head, targets).sum()):
        assert loss.requires_grad == any(trained)
        if any(trained):
            loss.backward()
    assert [hidden.grad is not None, head.weight.grad is not None] == list(trained)


def test_a_tied_weight_gets_both_of_its_gradients() -> None:
    """The embedding and the head are one matrix."""
    _, head, targets = inputs()
    ids = torch.arange(ROWS) % VOCABULARY
    found = torch.autograd.grad(linear_cross_entropy_sum(head.weight[ids], head, targets), head.weight)
    wanted = torch.autograd.grad(by_the_equation(head.weight[ids], head, targets, Shape()).sum(), head.weight)
    torch.testing.assert_close(found, wanted, rtol=GOLDEN, atol=GOLDEN)


def test_no_rows() -> None:
    """Zero, with zero gradients."""
    hidden, head, targets = inputs()
    loss = linear_cross_entropy_sum(hidden[:0], head, targets[:0])
    assert float(loss.detach()) == 0
    assert all(not one.any() for one in gradients(loss, hidden, head))
    assert linear_cross_entropy(hidden[:0], head, targets[:0]).shape == (0,)
    assert top_ranked(hidden[:0], head, targets[:0]) == 0


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_extreme_logits(size: float) -> None:
    """Losses and gradients as torch has them, and finite."""
    hidden, head, targets = inputs()
    big = (hidden.detach() * size).requires_grad_()
    found, wanted = linear_cross_entropy_sum(big, head, targets), by_the_equation(big, head, targets, Shape()).sum()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(found, big, head)[0], gradients(wanted, big, head)[0], rtol=1e-8, atol=1e-12)


def rows_of_extremes() -> tuple[Tensor, Tensor]:
    """Logits [22, V] in float64 and targets [22]: some large either way, one or tied, aimed at or not; all large; all nearly the same."""
    def some(size: float, count: int) -> Tensor:
        return torch.zeros(VOCABULARY, dtype=torch.float64).index_fill(0, torch.arange(count), size)

    drawn = torch.randn(4, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    sparse = [*(some(size, count) for size in (1e4, -1e4) for count in (1, 2, VOCABULARY)), some(1e4, 3) - some(1e4, 9)]
    return (torch.stack([*(row for row in sparse for _ in range(2)), *(1e4 * drawn), *(30 + 0.1 * drawn)]),
            torch.tensor([0, VOCABULARY - 1] * len(sparse) + [5] * 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_in_narrow_formats(dtype: torch.dtype) -> None:
    """Oracle: torch.logsumexp in float64 of the same rounded logits, and its softmax. The head is the identity, so that products are exact.
    A loss that is small beside its logits has all digits of float32; a gradient is as exact as its format."""
    exact, targets = rows_of_extremes()
    hidden, head = exact.to(dtype).requires_grad_(), Head(torch.eye(VOCABULARY, dtype=dtype))
    logits = hidden.detach().double()
    wanted = torch.logsumexp(logits, -1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    slope = torch.softmax(logits, -1) - one_hot(targets, VOCABULARY)
    each, total = linear_cross_entropy(hidden, head, targets), linear_cross_entropy_sum(hidden, head, targets)
    assert each.dtype == total.dtype == torch.float32
    torch.testing.assert_close(each.double(), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(total.double(), wanted.sum(), rtol=1e-6, atol=0)
    for found in (each.sum(), total):
        (ours,) = torch.autograd.grad(found, hidden)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), slope, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_ties() -> None:
    """Equal logits everywhere: log V a row, and of a tie the first token counts as ranked first, as argmax has it."""
    hidden = torch.zeros(3, WIDTH, dtype=torch.float64)
    _, head, _ = inputs()
    targets = torch.tensor([0, 1, 30])
    assert linear_cross_entropy(hidden, head, targets).tolist() == pytest.approx([3.4339872044851463] * 3, rel=1e-15)  # ln 31
    assert top_ranked(hidden, head, targets) == 1


def test_any_chunks_give_the_same() -> None:
    """Whatever the size of chunks, one larger than all rows included."""
    hidden, head, targets = inputs()
    one = linear_cross_entropy_sum(hidden, head, targets, Shape(chunk=1))
    slopes = gradients(one, hidden, head)
    for chunk in (2, 3, 22, 23, 24, 1000):
        other = linear_cross_entropy_sum(hidden, head, targets, replace(Shape(), chunk=chunk))
        torch.testing.assert_close(other, one, rtol=1e-14, atol=0)
        torch.testing.assert_close(gradients(other, hidden, head), slopes, rtol=GOLDEN, atol=GOLDEN)


def test_float32_is_closer_to_the_truth_than_torch() -> None:
    """Over 49,152 tokens: error of loss and gradient against float64 no larger than that of torch's own float32."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(96, 64, generator=generator), torch.randn(49152, 64, generator=generator) / 8
    targets = torch.randint(49152, (96,), generator=generator)

    def both(kind: torch.dtype, fast: bool) -> tuple[float, Tensor]:
        at = hidden.to(kind).requires_grad_()
        head = Head(weight.to(kind))
        loss = linear_cross_entropy_sum(at, head, targets) if fast else cross_entropy(at @ head.weight.t(), targets, reduction="sum")
        loss.backward()
        assert at.grad is not None
        return float(loss.detach()), at.grad.double()

    true_loss, true_slope = both(torch.float64, fast=False)
    ours, theirs = both(torch.float32, fast=True), both(torch.float32, fast=False)
    assert abs(ours[0] - true_loss) <= abs(theirs[0] - true_loss)
    assert (ours[1] - true_slope).norm() <= 1.05 * (theirs[1] - true_slope).norm()
    assert (ours[1] - true_slope).norm() <= 1e-5 * true_slope.norm()


def test_nothing_of_rows_by_vocabulary_is_kept() -> None:
    """What autograd saves for the backward pass is the size of the hidden states, however large the vocabulary."""
    saved: list[int] = []
    hidden, weight = torch.randn(512, 4, requires_grad=True), torch.randn(5000, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one.numel()) or one, lambda one: one):
        linear_cross_entropy_sum(hidden, Head(weight), torch.zeros(512, dtype=torch.int64))
    assert saved == [512 * 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_memory_does_not_grow_with_rows_by_vocabulary(dtype: torch.dtype, added: bool, trained: bool,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch's profiler, over the loss and its gradients. 512 rows more hold no more than their hidden states and the gradients of
    those; 4,096 words more no more than the head's gradient, which is a sum in float32. Chunks are of 512 kB; all logits would be 8 MB."""
    from tunewright.kernels import linear_cross_entropy as kernel

    for name in ("_CHUNK_BYTES", "_HEAP_BYTES", "_TRAINED_CHUNK_BYTES"):
        monkeypatch.setattr(kernel, name, 512 << 10)

    def peak(rows: int, vocabulary: int) -> int:
        hidden, weight = torch.randn(rows, 16, dtype=dtype).requires_grad_(), torch.randn(vocabulary, 16, dtype=dtype)
        head, targets = Head(weight.requires_grad_(trained)), torch.arange(rows)

        def compute() -> None:
            loss = (linear_cross_entropy_sum if added else linear_cross_entropy)(hidden, head, targets)
            loss.sum().backward()

        return peak_bytes(compute)

    base = peak(512, 4096)
    assert 512 << 10 <= base < 3 << 19, "chunks are what it takes most for"
    assert peak(1024, 4096) - base <= 2 * 512 * 16 * dtype.itemsize
    assert peak(512, 8192) - base <= (4096 * 16 * 4 if trained else 0)


def test_rows_of_a_chunk() -> None:
    """64 MB of logits: 64 * 2^20 / (49152 * 4) = 341.3, in sixteens 336; 16 MB: 85.3, 80; 31 MB on a CPU: 165.3, 160, but not
    for a vocabulary of 151,936, of which they hold 53 rows, and 64 MB 110.4; never under 16; what is asked for."""
    assert Shape().rows(49152, 4) == 336
    assert Shape().rows(49152, 4, trained=True) == Shape().rows(49152, 4, trained=True, on_cpu=True) == 80
    assert (Shape().rows(49152, 4, on_cpu=True), Shape().rows(151936, 4, on_cpu=True)) == (160, 96)
    assert Shape().rows(10_000_000, 4) == 16
    assert Shape(chunk=7).rows(49152, 4) == 7


def test_under_autocast_as_a_linear_layer_would_be() -> None:
    """bfloat16 products, float32 losses, gradients in the format of what they belong to."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, WIDTH, generator=generator).requires_grad_()
    head = Head(torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_())
    targets = torch.randint(VOCABULARY, (20,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy_sum(hidden, head, targets)
        wanted = cross_entropy(torch.nn.functional.linear(hidden, head.weight).float(), targets, reduction="sum")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    for ours, theirs in zip(gradients(found, hidden, head), gradients(wanted, hidden, head), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()


@pytest.mark.parametrize("name", SHAPES)
def test_rows_that_a_cache_holds_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is turned into its gradient three rows at a time: 800 bytes hold 3 rows of 31 float64."""
    from tunewright.kernels import linear_cross_entropy as kernel

    monkeypatch.setattr(kernel, "_CACHED_BYTES", 800)
    assert_the_equation(SHAPES[name], bias=True)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_columns_that_a_cache_holds_at_a_time(name: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of 31 entries are formed 12 at a time, chunks of more than 24 rows whole."""
    from tunewright.kernels import linear_cross_entropy as kernel

    monkeypatch.setattr(kernel, "_COLUMNS", 12)
    assert_the_equation(SHAPES[name], bias=bias)
