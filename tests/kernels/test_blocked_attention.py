"""Attention in blocks of queries. Oracle: softmax over the whole masked matrix in float64, forward and gradient."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_packed_attention import naive
from tunewright.kernels import blocked_attention
from tunewright.kernels.blocked_attention import Rule, _blocks, attend_blocks, disproof, fits
from tunewright.kernels.packed_attention import attend_segments
from tunewright.kernels.prefix_sharing import segments, stacked

LENGTHS = (97, 1, 0, 200, 130, 130, 130)


def drawn(length: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(length)
    return [torch.randn(1, heads, length, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]


def slopes(output: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    return torch.autograd.grad(output, inputs, torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype))


@pytest.mark.parametrize("window", [None, 1, 50, 64, 150])
def test_rows_of_several_blocks(window: int | None) -> None:
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()])
    inputs = drawn(sum(LENGTHS))
    expected = naive(*inputs, bounds.tolist(), window)
    found = attend_blocks(*inputs, stacked(segments(bounds, None)), Rule(window=window))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(slopes(found, inputs), slopes(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("window", [None, 1, 30, 110, 260])
def test_rows_that_continue_another(window: int | None) -> None:
    """The same rows with the prefix written out. Gradients of what is shared are the sums over the copies."""
    lengths, prefixes = (210, 120, 3, 3), (0, 150, 8, 8)
    inputs = drawn(sum(lengths))
    starts = [0, 210, 330, 333]
    copies = torch.cat([torch.cat((torch.arange(prefix), torch.arange(start, start + length)))
                        for start, length, prefix in zip(starts, lengths, prefixes, strict=True)])
    written = [one[:, :, copies] for one in inputs]
    whole = torch.tensor([0, 210, 480, 491, 502])
    expected = naive(*written, whole.tolist(), window)
    kept = torch.cat((torch.arange(210), torch.arange(210 + 150, 480), torch.arange(480 + 8, 491), torch.arange(491 + 8, 502)))
    parts = stacked(segments(torch.tensor([0, 210, 330, 333, 336]), torch.tensor(prefixes)))
    found = attend_blocks(*inputs, parts, Rule(window=window))
    torch.testing.assert_close(found, expected[:, kept], rtol=0, atol=1e-12)
    for ours, theirs in zip(slopes(found, inputs), slopes(expected[:, kept], inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "groups", "width"), [(9, 3, 64), (4, 4, 128), (3, 1, 20), (8, 1, 256)])
def test_a_shape_is_tried_against_torch(heads: int, groups: int, width: int, dtype: torch.dtype) -> None:
    """It passes, and leaves torch's random numbers alone; half of the queries blind to their first key, and it fails."""
    before = torch.get_rng_state()
    assert disproof(heads, groups, width, dtype) is None
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked_attention, "_blocks", lambda *given: (
            one._replace(first=one.first + (one.start >= 64)) for one in _blocks(*given)))
        assert disproof(heads, groups, width, dtype) == (
            f"blocks of queries give something else here than torch's attention, of {heads} heads of {width}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_as_exact_as_torch_on_whole_rows(dtype: torch.dtype) -> None:
    """Relative to float64, no worse than one call of torch's own attention for each row."""
    inputs = drawn(400, dtype)
    exact = [one.detach().double().requires_grad_() for one in inputs]
    wanted = naive(*exact, [0, 400], None)
    torch_own = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True).transpose(1, 2)
    ours = attend_blocks(*inputs, segments(torch.tensor([0, 400]), None), Rule())
    pairs = zip((ours, *slopes(ours, inputs)), (torch_own, *slopes(torch_own, inputs)), (wanted, *slopes(wanted, exact)), strict=True)
    for mine, theirs, right in pairs:
        assert mine.dtype == dtype
        assert (mine.double() - right).norm() <= 1.1 * (theirs.double() - right).norm()


def test_one_row_sees_nothing_of_another() -> None:
    """Bit for bit."""
    inputs = drawn(300)
    parts = segments(torch.tensor([0, 170, 300]), None)
    before = attend_blocks(*inputs, parts, Rule())
    changed = [one.detach().clone() for one in inputs]
    for one in changed:
        one[:, :, :170] = torch.randn(1, one.shape[1], 170, 8, dtype=torch.float64)
    assert torch.equal(attend_blocks(*changed, parts, Rule())[:, 170:], before[:, 170:])


def test_how_rows_are_divided() -> None:
    """Short rows and long ones are not, unless they continue another or see a window: their masks stay small."""
    def sizes(length: int, prefix: int = 0, window: int | None = None) -> list[int]:
        return [block.end - block.start for block in _blocks(length, prefix + length, window)]

    assert sizes(0) == []
    assert sizes(96) == [96] and sizes(97) == [64, 33]
    assert sizes(2000) == [125] * 16
    assert sizes(10_000) == [10_000]
    for long in (sizes(10_000, prefix=5), sizes(10_000, window=4096)):
        assert set(long[:-1]) == {256} and sum(long) == 10_000


def test_a_factor_of_the_models_own() -> None:
    inputs = drawn(150)
    parts = segments(torch.tensor([0, 150]), None)
    expected = naive(inputs[0] * 0.3 * 8**0.5, *inputs[1:], [0, 150], None)
    torch.testing.assert_close(attend_blocks(*inputs, parts, Rule(scale=0.3)), expected, rtol=0, atol=1e-12)


def test_what_the_kernel_does_not_take_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, and values of another width (DeepSeek's)."""
    query, key, value = drawn(20)
    wide = torch.randn(1, 2, 20, 12, dtype=torch.float64)
    assert fits(query, key, value, Rule())
    assert not fits(query, key, wide, Rule())
    assert not fits(query, key, value, Rule(dropout=0.1))
    assert not fits(query, key.float(), value, Rule())
    with torch.autocast("cpu", torch.bfloat16):  # which torch's function narrows
        assert fits(query, key, value, Rule())
        assert not fits(*(one.float() for one in (query, key, value)), Rule())
        assert fits(*(one.bfloat16() for one in (query, key, value)), Rule())
    monkeypatch.setattr("tunewright.kernels.packed_attention.attend_blocks", None)
    parts = segments(torch.tensor([0, 12, 20]), None)
    torch.testing.assert_close(attend_segments(query, key, wide, parts, Rule()), naive(query, key, wide, [0, 12, 20], None))
    assert attend_segments(query, key, value, parts, Rule(dropout=0.5)).shape == (1, 20, 4, 8)


def test_the_result_is_kept_once() -> None:
    """What the gradient needs is query, key, value, the result itself, and one number for each query and head."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = drawn(300)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = attend_blocks(*inputs, segments(torch.tensor([0, 200, 300]), torch.tensor([0, 100])), Rule())
    given = sum(one.untyped_storage().nbytes() for one in (*inputs, found))
    assert sum(kept.values()) == given + 4 * 300 * 8
