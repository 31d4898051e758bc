"""Logs. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("logging_nan_inf_filter", "Leaves NaN and infinite losses out of the logged loss.",
            because="the step of a loss that is not finite is left out, and never logged",
            llamafactory=(inert("logging_nan_inf_filter", True, False), inert("no_logging_nan_inf_filter", False, True))),
)
