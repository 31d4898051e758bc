"""Logs. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("log_level", "Log level of the main process; passive leaves it unchanged.", llamafactory=inert("log_level", "passive")),
    refused("log_level_replica", "Log level of non-main processes.", llamafactory=inert("log_level_replica", "warning")),
    refused("log_on_each_node", "In multi-node runs logs on every node rather than only the main one.",
            llamafactory=(inert("log_on_each_node", True), inert("no_log_on_each_node", False))),
    refused("logging_nan_inf_filter", "Leaves NaN and infinite losses out of the logged loss.",
            llamafactory=(inert("logging_nan_inf_filter", True), inert("no_logging_nan_inf_filter", False))),
    refused("include_tokens_per_second", "Adds tokens per second to the speed metrics.",
            llamafactory=inert("include_tokens_per_second", False)),
    refused("include_num_input_tokens_seen", "Tracks and logs the total input tokens seen in training.",
            llamafactory=inert("include_num_input_tokens_seen", False)),
)
