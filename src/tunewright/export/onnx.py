"""A model as an ONNX graph: token ids and mask in, logits out, any number of rows and tokens. Needs the extra `onnx`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import NumericError, missing_package, refuse
from tunewright.export.probe import Difference

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ONNX_FILE: Final = "model.onnx"
OPSET: Final = 17
ALLOWED_LOGIT: Final = 1e-2
ALLOWED_DIVERGENCE: Final = 1e-6
"""The graph computes in float32 what torch computes in float32, in another order."""


def write_onnx(model: PreTrainedModel, file: Path) -> None:
    """Trace the float32 model on the CPU into `file`; weights beyond protobuf's 2 GB go into files beside it.

    Inputs `input_ids` and `attention_mask` [batch, sequence] int64, output `logits` [batch, sequence, vocabulary] float32. Raises
    `InputError` if the package is absent or the model does things that a graph cannot hold.
    """
    demand_packages()
    demand_dense(model)
    import onnx
    import torch

    ids = torch.arange(6).reshape(2, 3)
    axes = {0: "batch", 1: "sequence"}
    attention, use_cache = model.config._attn_implementation, model.config.use_cache
    model.set_attn_implementation("eager")
    model.config.use_cache = False
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _logits_only(model), (ids, torch.ones_like(ids)), str(file), input_names=["input_ids", "attention_mask"],
                output_names=["logits"], dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": axes}, opset_version=OPSET,
                dynamo=False)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, NotImplementedError, TypeError) as error:
        refuse(f"export_onnx: {type(model).__name__} cannot be written as ONNX: {' '.join(str(error).split())[:300]}",
               mend="leave export_onnx out")
    finally:
        model.set_attn_implementation(attention)
        model.config.use_cache = use_cache
    onnx.checker.check_model(str(file))


def demand_dense(model: PreTrainedModel) -> None:
    """Raise `InputError` for a mixture of experts: which expert sees which token would be frozen, or has no operator."""
    from torch import nn

    routed = [name for name, module in model.named_modules() if name.endswith("experts") and not isinstance(module, nn.Linear)]
    if routed:
        refuse(f"export_onnx: {type(model).__name__} is a mixture of experts, whose routing ONNX cannot hold", mend="leave export_onnx out")


def demand_packages() -> None:
    """Raise `InputError` unless what writes and runs graphs is installed."""
    from importlib.util import find_spec

    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise missing_package(package, feature="ONNX", parameter="export_onnx", extra="onnx")


def onnx_logits(file: Path, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits [S, V] float32 that onnxruntime computes from the graph, one tensor for each prompt."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        (logits,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()})
        found.append(torch.from_numpy(logits[0]))
    return found


def require_same(difference: Difference) -> None:
    """Raise `NumericError` if the graph does not compute what the model computes: a trace may have frozen what depends on its input."""
    if not (difference.divergence <= ALLOWED_DIVERGENCE and difference.logit <= ALLOWED_LOGIT):
        raise NumericError(f"the ONNX graph does not compute what the model does: {difference.describe()}", mend="leave export_onnx out")


def _logits_only(model: PreTrainedModel) -> Any:
    import torch

    class Logits(torch.nn.Module):
        """The model with tensors alone in its signature."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
            return logits

    return Logits().eval()
