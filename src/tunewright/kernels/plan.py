"""Which fast paths a run takes, and why the others were not taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tunewright.config.kernels import FAST_PATHS, KernelsConfig
from tunewright.errors import require
from tunewright.kernels import isolation

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from tunewright.config.run import RunConfig
    from tunewright.kernels.taken import Taken
    from tunewright.kernels.verdicts import Ask


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """`attention`: implementation name for transformers. `flat`: rows are laid end to end instead of padded.

    `shares_prefixes`: what rows begin with alike is there once (`kernels.prefix_sharing`), and of single rows nothing behind the last
    prediction.
    """

    attention: str
    flat: bool
    reasons: tuple[str, ...]
    shares_prefixes: bool = False

    def told(self, lines: Iterable[str]) -> KernelPlan:
        """The same plan with more to tell."""
        return replace(self, reasons=(*self.reasons, *lines))


def plan(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Choose the attention implementation and the layout of batches from the run and the model.

    Raises `InputError` where the run wants rows of one sequence kept apart and the model cannot do that.
    """
    if run.model.shift_attn:
        return _shifted(model)
    chosen = _NAMES[run.model.flash_attn]
    if not _isolates(run):
        seen = _PLAIN if run.data.packing else "each row attends to itself"
        return KernelPlan(_own(chosen, model), False, (f"attention {_own(chosen, model)}: sequences are padded, {seen}",))
    leak = isolation.barrier(model) or (None if isolation.in_chunks(model) else isolation.deafness(model))
    if leak is not None:
        require(not run.data.packing, f"packing: rows of one sequence cannot be kept apart: {leak}",
                mend="set packing: false, or neat_packing: false to let them see each other")
        return KernelPlan(_own(chosen, model), False, (f"attention {chosen}: sequences are padded: {leak}",))
    return _isolated(run, model)


_NAMES: Final = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}
"""Value of `flash_attn` -> attention implementation of transformers."""

def _isolates(run: RunConfig) -> bool:
    """Whether rows are to be laid end to end, seeing only themselves: as asked for, else wherever no padding is trained."""
    if run.data.packing:
        return run.data.neat_packing
    asked = run.batching.padding_free
    return run.loss.ignore_pad_token_for_loss if asked is None else asked


_PLAIN: Final = "the rows of a packed sequence see each other (packing without neat_packing)"


def _own(chosen: str, model: PreTrainedModel) -> str:
    """The implementation that is chosen, or eager where the model has no SDPA."""
    return "eager" if chosen == "sdpa" and not model._supports_sdpa else chosen


def _isolated(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Rows end to end that do not see each other."""
    from tunewright.kernels import packed_attention, packed_eager

    flash_attn = run.model.flash_attn
    if isolation.in_chunks(model):
        chosen = _own(_NAMES[flash_attn], model)
        return KernelPlan(chosen, True, (f"attention {chosen} with a mask of blocks: the model attends within chunks",))
    if flash_attn == "fa2":
        return KernelPlan(_NAMES["fa2"], True, ("attention flash_attention_2, asked for by flash_attn; segments by their bounds",))
    obstacle = "flash_attn asks for it" if flash_attn == "disabled" else isolation.obstacle(model) or _wrong_in_blocks(run, model)
    if obstacle is not None:
        return KernelPlan(packed_eager.NAME, True, (f"attention {packed_eager.NAME}: eager, one call per row: {obstacle}",))
    line = f"attention {packed_attention.NAME}: each row by itself, without padding{_calls(run, model)}"
    return KernelPlan(packed_attention.NAME, True, (line,))


def _calls(run: RunConfig, model: PreTrainedModel) -> str:
    """In how many calls an NVIDIA GPU computes the attention of a batch, and why not in one."""
    import torch

    from tunewright.kernels.blocked_attention import Rule
    from tunewright.kernels.varlen_attention import Kind, obstacle

    if not torch.cuda.is_available() or run.run.use_cpu or model.device.type == "meta":
        return ""
    precision, shape = run.precision, _heads(model)
    if shape is None:
        return ""
    narrow = torch.bfloat16 if precision.bf16 or precision.pure_bf16 else torch.float16 if precision.fp16 else torch.float32
    device = torch.device("cuda", torch.cuda.current_device())
    rule = Rule(window=getattr(model.config.get_text_config(), "sliding_window", None))
    reason = obstacle(Kind(*shape, narrow, device, rule))
    return ", in one call of torch's FlashAttention" if reason is None else f", in a call for each: not FlashAttention, {reason}"


def _wrong_in_blocks(run: RunConfig, model: PreTrainedModel) -> str | None:
    """Why attention of this model's shape is not to be computed in blocks on a CPU; or None. One of shapes only is taken at its word."""
    from tunewright.kernels import blocked_attention

    weight, shape = next(model.parameters()), _heads(model)
    if weight.is_meta or is_on_accelerator(use_cpu=run.run.use_cpu) or shape is None:
        return None
    return blocked_attention.disproof(*shape, model.dtype)


def _heads(model: PreTrainedModel) -> tuple[int, int, int] | None:
    """How many heads queries and keys have, and the width of one, where the model's configuration says so."""
    settings = model.config.get_text_config()
    heads = getattr(settings, "num_attention_heads", None)
    if not isinstance(heads, int):
        return None
    width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    return heads, getattr(settings, "num_key_value_heads", None) or heads, width


def apply(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Plan for this model and switch its attention over; returns the plan."""
    from tunewright.kernels import packed_attention, packed_eager, shifted_attention

    chosen = plan(run, model)
    for kernel in (packed_attention, packed_eager, shifted_attention):
        if chosen.attention == kernel.NAME:
            kernel.register()
    if model.config._attn_implementation != chosen.attention:
        model.set_attn_implementation(chosen.attention)
    return chosen


def share_prefixes(run: RunConfig, chosen: KernelPlan, model: PreTrainedModel) -> KernelPlan:
    """The plan of a run with several answers to a prompt: whether the prompt is computed once for all of them, and a line that says so.
    Every model of the run that reads these batches must agree. One of shapes only is taken at its word.
    """
    from tunewright.kernels import prefix_sharing

    reason = _unshared(run, chosen)
    if reason is None and model.device.type != "meta":
        reason = prefix_sharing.disproof(model)
    line = "prompts: computed once for all their answers" if reason is None else f"prompts: computed once for each answer: {reason}"
    return replace(chosen.told((line,)), shares_prefixes=reason is None)


def share_beginnings(run: RunConfig, chosen: KernelPlan, model: PreTrainedModel) -> KernelPlan:
    """The plan of a run on single rows: whether what rows of a batch begin with alike (a system prompt, tools) is computed once for all of
    them, and what follows the last prediction of a row not at all; and a line that says so. For a model whose trainable weights are
    settled."""
    from tunewright.kernels import prefix_sharing
    from tunewright.kernels.verdicts import Verdicts

    if not chosen.flat:
        return chosen
    reason = _unshared(run, chosen) or _per_token(run, model)
    if reason is None and model.device.type != "meta":
        verdicts = Verdicts.of(model)
        reason = verdicts.ask("shared beginnings", partial(prefix_sharing.disproof, model))
        verdicts.keep()
    line = ("beginnings that rows of a batch have in common: computed once, and nothing behind a row's last prediction" if reason is None
            else f"beginnings that rows of a batch have in common: computed for each, as is all of a row: {reason}")
    return replace(chosen.told((line,)), shares_prefixes=reason is None)


def _unshared(run: RunConfig, chosen: KernelPlan) -> str | None:
    """Why prompts are not to be shared, or cannot be under this attention; or None. Layers with a state of their own rule out `flat`
    already."""
    from tunewright.kernels import packed_attention, packed_eager

    if "prefix" in run.kernels.slow_paths:
        return "slow_paths asks for it"
    if not chosen.flat:
        return "sequences are padded"
    if chosen.attention not in (packed_attention.NAME, packed_eager.NAME):
        return f"attention {chosen.attention} is not told of shared prompts"
    return None


def _per_token(run: RunConfig, model: PreTrainedModel) -> str | None:
    """What of this training is drawn or counted for every token, so that a shared one would count once; or None."""
    from torch import nn

    settings = model.config.get_text_config()
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    if drops or getattr(settings, "attention_dropout", None):
        return "dropout is drawn for each row"
    if run.loss.neftune_noise_alpha is not None:
        return "neftune_noise_alpha is drawn for each row"
    if run.loss.moe_aux_loss_coef or getattr(settings, "output_router_logits", False):
        return "the routers' auxiliary loss counts tokens"
    return "torch_compile would compile for every number of rows" if run.kernels.compiles else None


def hasten(run: RunConfig, model: PreTrainedModel) -> tuple[str, ...]:
    """Take the fast paths of a model whose trainable weights are settled; a line for each, or why it is not taken.

    `slow_paths` names those that are not wanted. Every one of them computes what the model's own code computes. Where layers are
    compiled, only the loss is ours: the compiler reads the model's own code, and would not see through ours.
    """
    from tunewright.kernels import compilation, lora_groups, output_head, rotary, swap
    from tunewright.kernels.verdicts import Verdicts

    lora_groups.switch_back(model)  # of a model that was hastened to be trained and is now to be evaluated
    swap.swap_back(model)
    rotary.switch_back(model)
    verdicts, lines = Verdicts.of(model), list[str]()
    if "loss" not in run.kernels.slow_paths:
        kept = output_head.adopt(model, run.kernels.chunk_loss_size, verdicts.ask)
        lines.append(f"loss: from hidden states, without logits{_trimmed(model) if kept is None else f': not here, {kept}'}")
    if run.kernels.compiles:
        lines += _weights(run, model, verdicts.ask)
        lines.append(f"decoder layers: compiled by {run.kernels.backend} ({compilation.compile_layers(model, run.kernels)} layers)")
    else:
        lines += [*_modules(run, model, verdicts.ask), *_weights(run, model, verdicts.ask)]
    return (*lines, *verdicts.keep())


def _trimmed(model: PreTrainedModel) -> str:
    from tunewright.kernels import output_head

    head = output_head.of(model)
    return "" if head is None or head.last is None else "; the last layer's MLP only where a token is predicted"


def hasten_to_evaluate(run: RunConfig, model: PreTrainedModel) -> None:
    """The fast paths of a model that does not train, or no longer. Of the options on kernels it reads those that say which paths."""
    hasten(replace(run, kernels=KernelsConfig(slow_paths=run.kernels.slow_paths, chunk_loss_size=run.kernels.chunk_loss_size)), model)


class _Path(NamedTuple):
    """A fast path of single modules: what the model has there, how we compute it and how the model does. `absent`: what it means that no
    module of the model is one, or None if there is nothing to say."""

    heading: str
    ours: str
    own: str
    absent: str | None
    switch: Callable[[PreTrainedModel, Ask], Taken]

    def line(self, taken: Taken) -> str | None:
        """How many modules have the path, and why the others have not."""
        others = ", ".join(f"{reason} ({_modules_of(number)})" for reason, number in taken.others.items())
        own = others or (None if taken.number else self.absent)
        parts = ([f"{self.ours} ({_modules_of(taken.number)})"] if taken.number else []) + ([f"{self.own}: {own}"] if own else [])
        return f"{self.heading}: {'; '.join(parts)}" if parts else None


def _modules_of(number: int) -> str:
    return f"{number} module" if number == 1 else f"{number} modules"


def _paths(run: RunConfig) -> dict[str, _Path]:
    from tunewright.kernels import lora_groups, rotary, swap

    return {
        "lora": _Path("LoRA", "layers that read one input run as one operation", "by peft's own forward", None,
                      partial(lora_groups.switch_over, narrow=mixed_format(run))),
        "mlp": _Path("gated MLPs", "one activation", _OWN, "no module has gate_proj, up_proj and down_proj", swap.swap_mlps),
        "norm": _Path("RMSNorm", "torch's own", _OWN, "no module is one", swap.swap_norms),
        "rotary": _Path("rotary positions", "in two passes", _OWN, f"no attention calls {rotary.NAME}", rotary.switch_over)}


_OWN: Final = "as the model has them"


def _modules(run: RunConfig, model: PreTrainedModel, ask: Ask) -> Iterator[str]:
    """The fast paths of single modules."""
    own = {*run.kernels.slow_paths, *(["norm"] if run.kernels.use_fused_rmsnorm is False else [])}
    for name, path in _paths(run).items():
        if name in own:
            continue
        taken = path.switch(model, ask)
        line = path.line(taken)
        if line is not None:
            yield line
        if name == "norm" and run.kernels.use_fused_rmsnorm and not taken.number:
            yield "use_fused_rmsnorm: the model has no RMSNorm that torch's own can replace"
    if own:
        yield f"slow_paths: {', '.join(name for name in FAST_PATHS if name in own)} {_OWN}"


def mixed_format(run: RunConfig) -> torch.dtype | None:
    """The number format of mixed precision, if the run has that."""
    import torch

    return torch.bfloat16 if run.precision.bf16 else torch.float16 if run.precision.fp16 else None


def keeps_frozen_narrow(run: RunConfig, model: nn.Module) -> bool:
    """Whether the model's frozen weights may be in the format of mixed precision. Those of a model that is saved whole are saved with it;
    and ppo and grpo draw answers in float32, for which they would be widened at each token."""
    is_saved_whole = run.tuning.finetuning_type != "lora" and any(weight.requires_grad for weight in model.parameters())
    wanted = mixed_format(run) is not None and "weights" not in run.kernels.slow_paths
    return wanted and not is_saved_whole and run.run.stage not in ("ppo", "grpo")


def _weights(run: RunConfig, model: PreTrainedModel, ask: Ask) -> Iterator[str]:
    """The number format of frozen weights."""
    from tunewright.kernels import frozen_weights

    narrow = mixed_format(run)
    if narrow is not None and keeps_frozen_narrow(run, model):
        kept = f"kept in {str(narrow).removeprefix('torch.')}, which holds all their digits"
        path = _Path("frozen weights", kept, "in float32", None, partial(frozen_weights.narrow, dtype=narrow))
        line = path.line(path.switch(model, ask))
        yield from [] if line is None else [line]


def offload(run: RunConfig, model: PreTrainedModel) -> tuple[str, ...]:
    """Let the checkpoints of a model keep their inputs in host memory; a line that says so, or why there is nothing to do."""
    from tunewright.kernels.offload import switch_over

    if not is_on_accelerator(use_cpu=run.run.use_cpu):
        return ("use_unsloth_gc: plain gradient checkpointing, because the model computes in host memory anyway",)
    return (f"gradient checkpointing keeps its inputs in host memory ({switch_over(model)} layers)",)


def is_on_accelerator(*, use_cpu: bool) -> bool:
    """Whether a run of this machine computes on an accelerator."""
    import torch

    return torch.accelerator.is_available() and not use_cpu


def _shifted(model: PreTrainedModel) -> KernelPlan:
    """Shifted attention. Raises `InputError` unless the model attends to everything before a position, in the usual way."""
    from tunewright.kernels import shifted_attention

    windowed = getattr(model.config.get_text_config(), "sliding_window", None)
    chunked = "the model attends within chunks" if isolation.in_chunks(model) else None
    obstacle = (isolation.barrier(model) or isolation.obstacle(model) or chunked
                or ("the model attends within a sliding window" if windowed else None))
    require(obstacle is None, f"shift_attn: {obstacle}", mend="remove it")
    groups = shifted_attention.GROUPS
    return KernelPlan(shifted_attention.NAME, False, (f"attention {shifted_attention.NAME}: in {groups} groups while training",))
