"""Evaluation. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("prediction_loss_only", "Evaluation and prediction return only the loss, no predictions.",
            llamafactory=inert("prediction_loss_only", False)),
    refused("eval_accumulation_steps", "Number of evaluation steps whose outputs gather on the device before moving to CPU.",
            llamafactory=inert("eval_accumulation_steps", None)),
    refused("jit_mode_eval", "Traces the model with PyTorch JIT for inference.", llamafactory=inert("jit_mode_eval", False)),
    refused("use_legacy_prediction_loop", "Uses the old prediction loop.", llamafactory=inert("use_legacy_prediction_loop", False)),
    refused("include_inputs_for_metrics", "Passes model inputs to compute_metrics.",
            llamafactory=inert("include_inputs_for_metrics", False)),
    refused("eval_do_concat_batches", "Concatenates evaluation outputs across batches into one array.",
            llamafactory=(inert("eval_do_concat_batches", True), inert("no_eval_do_concat_batches", False))),
    refused("batch_eval_metrics", "Computes evaluation metrics batch by batch to save memory; results are identical.",
            llamafactory=inert("batch_eval_metrics", False)),
    refused("eval_use_gather_object", "Uses gather_object to collect evaluation results across processes.",
            llamafactory=inert("eval_use_gather_object", False)),
    refused("generation_config", "Loads a GenerationConfig JSON from a file or URL for evaluation generation.",
            llamafactory=inert("generation_config", None)),
    refused("eval_on_each_dataset", "Evaluates each dataset separately instead of together.",
            mindspeed_fsdp2=inert("eval_on_each_dataset", False)),
)
