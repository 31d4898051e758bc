"""What is added to the training loss, or to what it is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Regularisation of next-token cross-entropy; evaluation is without it."""

    label_smoothing_factor: float = param(
        0.0, "Share of each training target that is spread evenly over the vocabulary (Szegedy et al. 2016); the evaluation loss stays "
        "plain cross-entropy.", minimum=0, below=1, llamafactory="label_smoothing_factor")
    z_loss_weight: float = param(
        0.0, "Weight of the z-loss, log(Z)^2 for each trained token with Z the sum of the exponentials of its logits (PaLM, Chowdhery et "
        "al. 2022, section 5, with 1e-4): it keeps logits from drifting away together. The training loss that is logged includes it; the "
        "evaluation loss stays plain cross-entropy.", minimum=0, example="1e-4")
    neftune_noise_alpha: float | None = param(
        None, "Add uniform noise of at most alpha / sqrt(length x width) to the embeddings of each training sequence (NEFTune, Jain et "
        "al. 2023); 5 to 15 is usual.", above=0, maximum=1e4, llamafactory="neftune_noise_alpha", example="5")
    moe_aux_loss_coef: float | None = param(
        None, "Weight of the loss that spreads tokens evenly over the experts of a mixture (Fedus et al. 2021, eq. 4; over all tokens of "
        "an optimizer step); absent means what the model's configuration says.", minimum=0, llamafactory="moe_aux_loss_coef",
        cli_reference="moe_aux_loss_coef")
    ignore_pad_token_for_loss: bool = param(
        True, "Leave padding out of the training loss. False trains the model to go on with padding tokens behind each row, as far as the "
        "longest row of its batch: the loss then depends on how rows fall into batches. Evaluation never counts padding.",
        llamafactory=("ignore_pad_token_for_loss", Alias("no_ignore_pad_token_for_loss", convert="negate")),
        mindspeed_fsdp2="ignore_pad_token_for_loss")
