"""Which rows of its data sets a run uses, one set after the other."""

from __future__ import annotations

from tunewright.config.derive import data_seed
from tunewright.config.run import RunConfig
from tunewright.data.chunks import Choice
from tunewright.data.sources import Settled, rows

_NUMPY = "num-samples-numpy"


class Draws:
    """Makes the choice of each data set of `run`, in the order in which they are asked for: training sets, then evaluation sets.

    With the quirk `num-samples-numpy` all sets draw from one generator, so that a draw depends on how many rows the sets before it have.
    """

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        self._seed = data_seed(run)
        self._drawn: list[Settled] = []
        self._counted: list[tuple[int, int]] = []

    def choice(self, settled: Settled) -> Choice:
        """The rows of the next data set."""
        source, most = settled.source, self._run.data.max_samples
        if source.num_samples is None or _NUMPY not in source.quirks:
            return Choice(source.num_samples, most, self._seed)
        self._counted += [_drawn_from(one) for one in self._drawn[len(self._counted) :]]
        self._drawn.append(settled)
        return Choice(source.num_samples, most, self._run.run.seed, tuple(self._counted))


def _drawn_from(settled: Settled) -> tuple[int, int]:
    """How many rows a data set has, which are counted by reading it, and how many of them were drawn."""
    return sum(1 for _ in rows(settled.source)), settled.source.num_samples or 0
