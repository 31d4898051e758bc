"""What ppo and grpo need besides models: who answers and judges, and how answers become batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tunewright.data.collate_groups import CollateGroups, collate_groups_flat, collate_groups_padded, collate_groups_shared
from tunewright.data.columns import column_names, read_columns
from tunewright.data.streaming.stream import Stream
from tunewright.engine.samples import FILE_NAME, SampleLog
from tunewright.errors import require
from tunewright.inference.generate import answering
from tunewright.rl.episodes import Judge, Player
from tunewright.rl.reward_functions import OWN, FunctionScorer, demand_columns
from tunewright.rl.rewards import open_scorers
from tunewright.rl.rollout import Sampling
from tunewright.stages.grpo import GroupRelativePolicyOptimization
from tunewright.stages.online import Rollouts
from tunewright.stages.ppo import ProximalPolicyOptimization
from tunewright.stages.stage import ExampleKind, Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Example
    from tunewright.data.prepared import Prepared
    from tunewright.data.records import Origin
    from tunewright.data.templates import Renderer
    from tunewright.engine.batches import Examples
    from tunewright.engine.training import Parts
    from tunewright.kernels.plan import KernelPlan
    from tunewright.rl.rewards import Scorer
    from tunewright.stages.stage import Models, Stage

STRIDE: Final = 1 << 56
"""Samples of the n-th evaluation set are numbered from n times this on, so that a number names one prompt of the run."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the rows and texts of a run are made with; `renderer` is there, because prompts are rendered."""

    run: RunConfig
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Numbered:
    """A set whose samples are numbered from `first` on."""

    examples: Examples
    first: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] in tokens."""
        return self.examples.lengths

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]._replace(sample_id=self.first + index)


def numbered(kind: ExampleKind, sets: Mapping[str, Examples]) -> Mapping[str, Examples]:
    """The evaluation sets; those of prompts with numbers of their own."""
    if kind is not ExampleKind.PROMPT:
        return sets
    return {name: Numbered(sets[name], place * STRIDE) for place, name in enumerate(sorted(sets), start=1)}


def demand_rewards(run: RunConfig, prepared: Prepared) -> None:
    """Raise `InputError`, before a model is opened, for an address that cannot be one, and for reward functions that are not there or ask
    for columns that the rows lack."""
    functions = [scorer for scorer in open_scorers(run.alignment, None, 0, 1) if isinstance(scorer, FunctionScorer)]
    if not _are_kept(prepared, functions):
        return
    for scorer in functions:
        demand_columns(scorer, dict.fromkeys(column_names(_sources(prepared))))


def with_rollouts(parts: Parts) -> Parts:
    """The parts of a run whose stage, if it learns from its own answers, can make them."""
    if parts.stage.examples is not ExampleKind.PROMPT:
        return parts
    assert parts.renderer is not None, "prompts are rendered"
    around = Around(parts.run, parts.tokenizer, parts.renderer, parts.prepared)
    player = player_of(around, parts.others)
    told = SampleLog(parts.start.store.root / FILE_NAME, parts.run.alignment.sample_log_steps, player.judge.names)
    collate = group_collation(parts.kernels, parts.tokenizer.pad_token_id or 0)
    return replace(parts, stage=_equipped(parts.stage, Rollouts(player, collate, told)))


def for_evaluation(stage: Stage, around: Around, others: Models) -> Stage:
    """The stage, which answers prompts, of an evaluation by itself, which trains nothing."""
    return _equipped(stage, Rollouts(player_of(around, others), collate_groups_flat, _untold))


def player_of(around: Around, others: Models) -> Player:
    """Who answers and judges as the run says."""
    run, tokenizer = around.run, around.tokenizer
    padding = tokenizer.pad_token_id or 0
    scorers = open_scorers(run.alignment, others.get(Role.REWARD), padding, run.alignment.rollout_batch_size)
    require(bool(scorers), f"stage {run.run.stage} needs something that scores answers", mend="set reward_model or reward_funcs")
    weights = run.alignment.reward_weights or (1.0,) * len(scorers)
    how = answering(run.generation, around.renderer.stop_token_ids(tokenizer))
    require(how.generation.do_sample and how.generation.num_beams == 1, f"stage {run.run.stage} tries answers out by chance",
            where=run.generation.generation_config, mend="set do_sample: true and num_beams: 1")
    return Player(Sampling(how, padding, run.alignment.rollout_batch_size),
                  Judge(scorers, weights, run.alignment.missing_eos_penalty), _decoder(tokenizer), columns_of(around.prepared, scorers),
                  run.alignment.num_generations if run.run.stage == "grpo" else 1)


def group_collation(kernels: KernelPlan, pad_token_id: int) -> CollateGroups:
    """How answers become a batch, on the layout that the kernels read."""
    if kernels.shares_prefixes:
        return collate_groups_shared
    return collate_groups_flat if kernels.flat else partial(collate_groups_padded, pad_token_id=pad_token_id)


def columns_of(prepared: Prepared, scorers: Sequence[Scorer]) -> Callable[[Sequence[int]], Mapping[str, Sequence[Any]]]:
    """Numbers of samples -> what the functions ask for of their rows. Raises InputError where the rows cannot be looked up."""
    functions = [scorer for scorer in scorers if isinstance(scorer, FunctionScorer)]
    asked = {name for one in functions for name in one.takes or () if name not in OWN}
    takes_all = any(one.takes is None for one in functions)
    if not asked and not takes_all:
        return lambda samples: {}
    if not _are_kept(prepared, functions):
        return lambda samples: {}
    found = read_columns(_sources(prepared), None if takes_all else asked)
    return lambda samples: found.of(_origin(prepared, sample) for sample in samples)


def _are_kept(prepared: Prepared, functions: Sequence[FunctionScorer]) -> bool:
    """Whether the rows can be looked up. Raises InputError if they cannot and a function needs a column of theirs."""
    is_stream = isinstance(prepared.train, Stream)
    if not is_stream and _sources(prepared):
        return True
    known = "the rows of a stream are not kept" if is_stream else "tokenized_path holds tokens alone"
    needed = {name for one in functions for name in one.needs}
    require(not needed, f"reward_funcs: {', '.join(sorted(needed))} cannot be handed over: {known}",
            mend="remove streaming and tokenized_path, or write functions of prompts and completions")
    return False


def _sources(prepared: Prepared) -> list[Any]:
    """The data sets of the run, those of evaluations among them, each once."""
    every = [*prepared.trained_from, *(one for some in prepared.sources.values() for one in some)]
    return [one for place, one in enumerate(every) if all(one is not other for other in every[:place])]


def _origin(prepared: Prepared, sample: int) -> Origin:
    """Where the row of a sample is, of whichever set."""
    place, index = divmod(sample, STRIDE)
    if place:
        return prepared.evaluation[sorted(prepared.evaluation)[place - 1]].origin(index)
    assert prepared.train is not None, "what is trained is there"
    return prepared.train.origin(index)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int], bool], str]:
    return lambda ids, is_plain: str(tokenizer.decode(list(ids), skip_special_tokens=is_plain))


def _equipped(stage: Stage, rollouts: Rollouts) -> Stage:
    if isinstance(stage, GroupRelativePolicyOptimization):  # a file with generation settings may say how long answers get
        return replace(stage, rollouts=rollouts, longest=rollouts.player.sampling.answering.generation.max_new_tokens)
    assert isinstance(stage, ProximalPolicyOptimization), "only they answer prompts"
    return replace(stage, rollouts=rollouts)


def _untold(*_: Any) -> None:
    """Evaluations write no answers down."""
