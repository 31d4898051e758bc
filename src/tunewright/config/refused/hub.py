"""Model hubs. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("hf_hub_token", "Hugging Face Hub token for downloading or uploading models.",
            llamafactory=inert("hf_hub_token", None), qlora_script=inert("use_auth_token", False),
            mindspeed_fsdp2=inert("hf_hub_token", None)),
    refused("ms_hub_token", "ModelScope Hub token for downloading or uploading models.",
            llamafactory=inert("ms_hub_token", None), mindspeed_fsdp2=inert("ms_hub_token", None)),
    refused("om_hub_token", "Modelers Hub token for downloading or uploading models.",
            llamafactory=inert("om_hub_token", None), mindspeed_fsdp2=inert("om_hub_token", None)),
    refused("push_to_hub", "Uploads the model to the Hub after training.", llamafactory=inert("push_to_hub", False)),
    refused("hub_model_id", "Organization under which the model is pushed.",
            llamafactory=(inert("hub_model_id", None), inert("push_to_hub_organization", None),
                          inert("push_to_hub_model_id", None, deprecated=True))),
    refused("hub_strategy", "When to push: at the end, at every save, or with checkpoints.",
            llamafactory=inert("hub_strategy", "every_save")),
    refused("hub_token", "Token used to push to the Hub.",
            llamafactory=(inert("hub_token", None), inert("push_to_hub_token", None, deprecated=True))),
    refused("hub_private_repo", "Creates the Hub repository as private.", llamafactory=inert("hub_private_repo", False)),
    refused("hub_always_push", "Pushes each checkpoint even when the previous push has not finished.",
            llamafactory=inert("hub_always_push", False)),
)
