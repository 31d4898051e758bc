"""A policy without its adapter, as a model of its own: the reference of preference learning where no other model is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from tunewright.adapters.lineage import lineage_of
from tunewright.errors import require

if TYPE_CHECKING:
    from peft import PeftModel


def base_projection(model: PeftModel) -> nn.Module | None:
    """What makes the base's logits: of a projection that trains in full beside the adapter, the one that it was copied from."""
    from peft.utils.other import ModulesToSaveWrapper

    found = cast("nn.Module | None", model.get_base_model().get_output_embeddings())
    return cast("nn.Module", found.original_module) if isinstance(found, ModulesToSaveWrapper) else found


class AdapterSwitchedOff(nn.Module):
    """The base of `module`, with whatever was merged into it, computed by the very same weights.

    Modules that train in full beside the adapter are those of the base, too. What trains is as before after each call.
    """

    def __init__(self, module: PeftModel) -> None:
        """Raises `InputError` for an adapter that changes the base itself, which without it is not what the policy started from."""
        super().__init__()
        _demand_whole_base(module)
        self.module = module

    def get_output_embeddings(self) -> nn.Module | None:
        """The base's own."""
        return base_projection(self.module)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The forward pass of the base."""
        trained = [weight for weight in self.module.parameters() if weight.requires_grad]
        try:
            with self.module.disable_adapter():
                return self.module(*arguments, **named)
        finally:
            for weight in trained:
                weight.requires_grad_(True)


def _demand_whole_base(policy: PeftModel) -> None:
    parts = {"pissa_init took its first factors out of the base": bool(lineage_of(policy).initial),
             "lora_bias trained biases of the base": any(cast("Any", config).bias != "none" for config in policy.peft_config.values())}
    for why, is_so in parts.items():
        require(not is_so, f"the policy without its adapter, which is the reference, is not what the adapter was put on: {why}",
                mend="name a ref_model, or set create_new_adapter: true")
