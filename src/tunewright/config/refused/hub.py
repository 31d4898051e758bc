"""Model hubs. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

_SECRET = "a token is a secret, which does not belong in a configuration or on a command line"
_INSTEAD = "set HF_TOKEN, or log in once with `hf auth login`"

REFUSED = (
    # use_auth_token: true asks for the stored token, which is always sent where there is one.
    refused("hf_hub_token", "Hugging Face Hub token for downloading or uploading models.", because=_SECRET, mend=_INSTEAD,
            llamafactory=inert("hf_hub_token", None), qlora_script=inert("use_auth_token", False, True),
            mindspeed_fsdp2=inert("hf_hub_token", None)),
    refused("ms_hub_token", "ModelScope Hub token for downloading or uploading models.",
            llamafactory=inert("ms_hub_token", None), mindspeed_fsdp2=inert("ms_hub_token", None)),
    refused("om_hub_token", "Modelers Hub token for downloading or uploading models.",
            llamafactory=inert("om_hub_token", None), mindspeed_fsdp2=inert("om_hub_token", None)),
    refused("hub_token", "Token used to push to the Hub.", because=_SECRET, mend=_INSTEAD,
            llamafactory=(inert("hub_token", None), inert("push_to_hub_token", None, deprecated=True))),
)
