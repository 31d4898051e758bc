"""Evaluation. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("prediction_loss_only", "Evaluation and prediction return only the loss, no predictions.",
            because="compute_accuracy and predict_with_generate say what is computed besides the loss",
            mend="remove it: without those two the loss is all", llamafactory=inert("prediction_loss_only", False)),
    refused("eval_accumulation_steps", "Number of evaluation steps whose outputs gather on the device before moving to CPU.",
            because="each batch is reduced to sums at once, so no outputs gather", llamafactory=inert("eval_accumulation_steps", None)),
    refused("jit_mode_eval", "Traces the model with PyTorch JIT for inference.",
            because="torch.jit is deprecated and its traces hold for one shape of batch only", llamafactory=inert("jit_mode_eval", False)),
    refused("use_legacy_prediction_loop", "Uses the old prediction loop.",
            because="there is one evaluation loop; the old one was of the transformers Trainer",
            llamafactory=inert("use_legacy_prediction_loop", False)),
    refused("include_inputs_for_metrics", "Passes model inputs to compute_metrics.",
            because="metrics are built in, and those that need the inputs have them; there is no compute_metrics of one's own",
            llamafactory=inert("include_inputs_for_metrics", False)),
    refused("eval_do_concat_batches", "Concatenates evaluation outputs across batches into one array.",
            because="each batch is reduced to sums at once, so there are no outputs to join",
            llamafactory=(inert("eval_do_concat_batches", True, False), inert("no_eval_do_concat_batches", False, True))),
    refused("batch_eval_metrics", "Computes evaluation metrics batch by batch to save memory; results are identical.",
            because="metrics are always computed batch by batch", llamafactory=inert("batch_eval_metrics", False, True)),
    refused("eval_use_gather_object", "Uses gather_object to collect evaluation results across processes.",
            because="what the ranks exchange are sums and texts, which need no such choice",
            llamafactory=inert("eval_use_gather_object", False, True)),
)
