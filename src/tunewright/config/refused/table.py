"""Every refused parameter, and those of one vocabulary by name. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from tunewright.config.param import DIALECTS
from tunewright.config.refused import (
    data,
    engine,
    evaluation,
    export,
    hub,
    inference,
    kernels,
    logging,
    losses,
    model,
    multimodal,
    optimizer,
    parallel,
    precision,
    profiling,
    quantization,
    today,
    tokenizer,
    tuning,
)
from tunewright.config.refused.declaration import Inert, Refused

REFUSED: Final[tuple[Refused, ...]] = (
    *model.REFUSED, *tokenizer.REFUSED, *data.REFUSED, *tuning.REFUSED, *quantization.REFUSED, *optimizer.REFUSED, *engine.REFUSED,
    *losses.REFUSED, *precision.REFUSED, *kernels.REFUSED, *parallel.REFUSED, *evaluation.REFUSED, *inference.REFUSED,
    *export.REFUSED, *multimodal.REFUSED, *logging.REFUSED, *hub.REFUSED, *profiling.REFUSED, *today.REFUSED)


@cache
def refused_in(dialect: str) -> Mapping[str, tuple[Refused, Inert]]:
    """The refused names of a vocabulary; in ours, the concepts themselves, with the inert values of the first that has them."""
    found: dict[str, tuple[Refused, Inert]] = {}
    for one in REFUSED:
        theirs = next(iter(one.names.values()))[0]
        for name in (Inert(one.concept, theirs.values),) if dialect == "native" else one.names.get(dialect, ()):
            if name.name in found:
                raise TypeError(f"{dialect}: {name.name} is refused twice, in {found[name.name][0].concept} and in {one.concept}")
            found[name.name] = (one, name)
    return MappingProxyType(found)


def refusers(name: str) -> list[tuple[str, Refused, Inert]]:
    """The vocabularies that have the refused name, or the one that it negates, ours first."""
    positive = name.removeprefix("no_")
    found = [(dialect, refused_in(dialect).get(name) or refused_in(dialect).get(positive)) for dialect in ("native", *DIALECTS)]
    return [(dialect, *one) for dialect, one in found if one is not None]
