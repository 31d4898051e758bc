"""Uploads to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """What a run uploads, where and when. The token is read from HF_TOKEN or from the file of `hf auth login`, never from here."""

    push_to_hub: bool = param(False, "Upload what is trained to the Hugging Face hub.", llamafactory="push_to_hub", recorded=False)
    hub_model_id: str | None = param(
        None, "Repository to upload to, `owner/name`, `name` or `owner/`; what is left out is the owner of the token and the last part "
        "of output_dir.", example="org/model", recorded=False,
        llamafactory=("hub_model_id", Alias("push_to_hub_model_id", convert="null_is_absent", deprecated=True),
                      Alias("push_to_hub_organization", convert="owner")))
    hub_strategy: str = param(
        "every_save", "What is uploaded: the result at the end; the weights at every save too; also the newest checkpoint, as "
        "last-checkpoint; or all checkpoints.", choices=("end", "every_save", "checkpoint", "all_checkpoints"),
        llamafactory="hub_strategy", recorded=False)
    hub_private_repo: bool = param(
        True, "Make the repository private if it has to be made.", llamafactory=Alias("hub_private_repo", default=False), recorded=False)
    hub_always_push: bool = param(
        False, "Queue the upload of a checkpoint while another is still under way, instead of leaving it out.",
        llamafactory="hub_always_push", recorded=False)
