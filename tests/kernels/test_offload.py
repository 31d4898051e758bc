"""Checkpoints whose inputs lie elsewhere. Oracle: checkpoints alone, and no checkpoints."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.test_isolation import gradients, tiny, with_adapter
from tunewright.kernels.offload import HOST, Storage, switch_over

IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))


def checkpointed(*, reentrant: bool) -> nn.Module:
    """With dropout, whose random numbers must be drawn again."""
    model = with_adapter(tiny("llama")).train()
    for layer in model.modules():
        if hasattr(layer, "attention_dropout"):
            layer.attention_dropout = 0.2
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    return model


def step(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(5)
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


@pytest.mark.parametrize("reentrant", [False, True])
def test_inputs_of_layers_lie_elsewhere_and_gradients_are_the_same(reentrant: bool) -> None:
    """Bit for bit; one tensor [2, 9, D] for each of two layers is put away and fetched once, the last first, and nothing else."""
    wanted = step(checkpointed(reentrant=reentrant))
    model, kept, fetched = checkpointed(reentrant=reentrant), [], []

    def put(tensor: Tensor) -> int:
        kept.append(tensor.detach().clone())
        return len(kept) - 1

    def fetch(place: int) -> Tensor:
        fetched.append(place)
        return kept[place]

    assert switch_over(model, Storage(put, fetch)) == 2
    found = step(model)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], one) for name, one in wanted.items())
    assert [tensor.shape for tensor in kept] == [(2, 9, 32)] * 2
    assert fetched == [1, 0]


def test_the_models_own_tensor_goes() -> None:
    """Between the passes nothing holds the second layer's input but its copy."""
    model, originals = checkpointed(reentrant=False), []

    def put(tensor: Tensor) -> Tensor:
        originals.append(weakref.ref(tensor.untyped_storage()))
        return tensor.detach().clone()

    switch_over(model, Storage(put, lambda kept: kept))
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    gc.collect()
    assert originals[1]() is None
    loss.backward()


def test_in_host_memory_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert HOST.put(tensor) is tensor and HOST.fetch(tensor) is tensor


def test_without_checkpoints_there_is_nothing_to_switch() -> None:
    assert switch_over(tiny("llama")) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies between a GPU and its host")
def test_on_a_gpu() -> None:
    """Bit for bit, and between the passes the copies are in page-locked memory."""
    global IDS
    before, IDS = IDS, IDS.cuda()
    try:
        wanted = step(checkpointed(reentrant=False).cuda())
        model = checkpointed(reentrant=False).cuda()
        switch_over(model)
        found = step(model)
    finally:
        IDS = before
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
    parked = HOST.put(torch.arange(5.0, device="cuda"))
    assert parked.copy.is_pinned() and torch.equal(HOST.fetch(parked).cpu(), torch.arange(5.0))
