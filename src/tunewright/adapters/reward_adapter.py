"""A reward model that is an adapter with a value head on the base of the policy: one base in memory for both."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from tunewright.adapters.directory import WEIGHTS_FILE, AdapterFacts, check_fits_modules, read_adapter
from tunewright.adapters.lineage import lineage_of
from tunewright.adapters.switched_off import base_projection
from tunewright.errors import refuse, require
from tunewright.models.families import shape_of
from tunewright.models.heads import ValueHead, causal_lm, detached_value_head

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)

NAME: Final = "reward"
_WHOLE: Final = "export it with `tunewright export`, and set reward_model_type: full"


class RewardAdapter(nn.Module):
    """`module` with the reward's adapter in place of the policy's, and the reward's own value head.

    What trains of the policy, and which adapter is active, is as before after each call.
    """

    def __init__(self, module: PeftModel, head: ValueHead) -> None:
        super().__init__()
        self.module = module
        self.v_head = head

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The forward pass of the base with the reward's adapter."""
        with _active(self.module):
            return self.module(*arguments, **named)

    def get_output_embeddings(self) -> nn.Module | None:
        """The base's own."""
        return base_projection(self.module)


def load_reward_adapter(policy: nn.Module, directory: Path) -> RewardAdapter:
    """The reward model of `directory` on the base of `policy`, which has an adapter of its own.

    Raises `InputError` if the directory holds no adapter with a value head, or if the adapter changes the base itself or stands on another
    one: the two could not take turns.
    """
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    require(isinstance(policy, PeftModel), "reward_model_type: lora puts the reward model's adapter on the policy's base, but the policy "
            "has no adapter", mend="set finetuning_type: lora, or export the reward model and set reward_model_type: full")
    assert isinstance(policy, PeftModel)
    facts = read_adapter(directory)
    _demand_same_base(facts, policy)
    base = causal_lm(policy).name_or_path
    if facts.base and base and facts.base != base:
        log.warning("reward_model: its adapter was trained on %s, and works on %s here: if that is another model, so are its rewards",
                    facts.base, base)
    head = detached_value_head(policy, directory)
    fields = {**facts.fields, "inference_mode": True, "base_model_name_or_path": None}
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    policy.add_adapter(NAME, LoraConfig(**fields))
    found = set_peft_model_state_dict(policy, load_file(directory / WEIGHTS_FILE), adapter_name=NAME)
    _only(policy, trained)
    lacking = [name for name in found.missing_keys if f".{NAME}." in name and ".lora_" in name]
    require(not lacking and not found.unexpected_keys, f"the adapter does not fit: {', '.join([*lacking, *found.unexpected_keys][:3])}",
            where=str(directory / WEIGHTS_FILE), mend="give the model it was trained on")
    return RewardAdapter(policy, head.requires_grad_(False))


def _demand_same_base(facts: AdapterFacts, policy: PeftModel) -> None:
    where = str(facts.directory)
    base = causal_lm(policy)
    shapes = {_plain(name): shape_of(weight) for name, weight in base.named_parameters() if ".lora_" not in name}
    check_fits_modules(facts, {name for name, _ in base.named_modules()}, shapes, type(base).__name__)
    parts = {"pissa_init": facts.is_pissa, "lora_bias": facts.fields.get("bias", "none") != "none",
             "additional_target": bool(facts.fields.get("modules_to_save")),
             "fused experts": bool(facts.fields.get("target_parameters"))}
    strange = [name for name, is_on in parts.items() if is_on]
    require(not strange, f"reward_model: the adapter was trained with {', '.join(strange)}, which the policy's base cannot take besides",
            where=where, mend=_WHOLE)
    below = tuple(str(Path(path).resolve()) for path in facts.merged)
    mine = tuple(str(Path(path).resolve()) for path in lineage_of(policy).merged)
    require(below == mine, f"reward_model: the adapter stands on a base with {_listed(below)} merged into it, the policy on one with "
            f"{_listed(mine)}", where=where, mend=_WHOLE)
    if lineage_of(policy).initial:
        refuse("reward_model_type: lora: pissa_init takes the policy's first factors out of the base, which is another one for the reward",
               mend="remove pissa_init, or set reward_model_type: full")


def _plain(name: str) -> str:
    """The name that a weight of the base has without adapters."""
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def _listed(paths: tuple[str, ...]) -> str:
    return ", ".join(paths) or "no adapter"


@contextmanager
def _active(policy: PeftModel) -> Iterator[None]:
    """Inside, the reward's adapter is the active one."""
    before = policy.active_adapter
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    try:
        policy.set_adapter(NAME, inference_mode=True)
        yield
    finally:
        policy.set_adapter(before, inference_mode=True)
        _only(policy, trained)


def _only(policy: PeftModel, trained: list[nn.Parameter]) -> None:
    """Leave `trained`, and nothing else, to be trained."""
    kept = {id(weight) for weight in trained}
    for weight in policy.parameters():
        weight.requires_grad_(id(weight) in kept)
