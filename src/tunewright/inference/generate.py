"""Answers in batches. Longest prompts first, so that rows of one batch are alike in length; padding on the left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunewright.config.generation_file import read_generation_file
from tunewright.config.inference import GenerationConfig
from tunewright.errors import refuse

if TYPE_CHECKING:
    from transformers import GenerationConfig as Decoding
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Answering:
    """How answers are made: our settings, those that a file adds in transformers' names, and the ids that end an answer."""

    generation: GenerationConfig
    stop_ids: tuple[int, ...]
    further: Mapping[str, Any]


def answering(generation: GenerationConfig, stop_ids: Sequence[int]) -> Answering:
    """The settings, with what the file `generation_config` names taken from there. Raises `InputError` if it cannot be."""
    if generation.generation_config is None:
        return Answering(generation, tuple(stop_ids), {})
    file = read_generation_file(generation.generation_config)
    return Answering(replace(generation, **file.fields), tuple(dict.fromkeys((*stop_ids, *file.stop_ids))), file.further)


def settings_of(generation: GenerationConfig) -> dict[str, Any]:
    """How answers are made, as JSON values; of the file `generation_config` what it says, wherever it is."""
    if generation.generation_config is None:
        return asdict(generation)
    how = answering(generation, ())
    return {**asdict(how.generation), "generation_config": {"further": dict(how.further), "stop_ids": list(how.stop_ids)}}


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], generation: GenerationConfig,
    stop_ids: Sequence[int], batch: int = 8,
) -> list[list[int]]:
    """One answer for each prompt, in the order of the prompts, up to and without its first stop id.

    Greedy answers do not depend on `batch`. Sampled ones are a function of the prompts, `batch` and torch's initial seed;
    the caller's random stream is left where it was. The model is put into evaluation mode meanwhile.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    how = answering(generation, stop_ids)
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    with evaluating(model), own_stream():
        for start in range(0, len(order), batch):
            rows = order[start:start + batch]
            for row, answer in zip(rows, _answers(model, tokenizer, [prompts[row] for row in rows], how), strict=True):
                answers[row] = answer
    return answers


def decode(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]]) -> list[str]:
    """The answers as text, control tokens left out."""
    return [tokenizer.decode(list(answer), skip_special_tokens=True) for answer in answers]


def decoding(how: Answering, pad_token_id: int, max_new_tokens: int) -> Decoding:
    """The settings in transformers' form; every sampling value is stated, so that none comes from the model's own file."""
    from transformers import GenerationConfig as Decoding

    generation, sampling = how.generation, how.generation.do_sample
    try:
        return Decoding(
            do_sample=sampling, temperature=generation.temperature if sampling else 1.0, top_p=generation.top_p if sampling else 1.0,
            top_k=generation.top_k if sampling else 50, num_beams=generation.num_beams, max_new_tokens=max_new_tokens,
            repetition_penalty=generation.repetition_penalty, length_penalty=generation.length_penalty,
            eos_token_id=list(how.stop_ids), pad_token_id=pad_token_id, use_cache=generation.use_cache, **how.further)
    except (ValueError, TypeError) as error:
        refuse(f"generation_config: {' '.join(str(error).split())[:300]}", where=generation.generation_config, mend="correct the file")


def room(generation: GenerationConfig, prompt_length: int) -> int:
    """Tokens that an answer may have after a prompt of that length."""
    if generation.max_length is None:
        return generation.max_new_tokens
    return max(0, min(generation.max_new_tokens, generation.max_length - prompt_length))


def until_stop(answer: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """The ids before the first stop id."""
    stops = set(stop_ids)
    return list(answer[:next((place for place, token in enumerate(answer) if token in stops), len(answer))])


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode, and afterwards in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def own_stream() -> Iterator[None]:
    """Random numbers from torch's initial seed inside, the caller's stream untouched outside."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(torch.initial_seed())
        yield


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], how: Answering,
) -> list[list[int]]:
    import torch

    rooms = [room(how.generation, len(prompt)) for prompt in prompts]
    if max(rooms) == 0:
        return [[] for _ in prompts]
    longest = max(len(prompt) for prompt in prompts)
    padding = int(tokenizer.pad_token_id)
    ids = torch.tensor([[padding] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    with torch.inference_mode():
        # Through the keyword only: peft's generate() takes no positional arguments.
        output = model.generate(input_ids=ids, attention_mask=mask,
                                generation_config=decoding(how, padding, max(rooms)))
    return [until_stop(row[:allowed], how.stop_ids) for row, allowed in zip(output[:, longest:].tolist(), rooms, strict=True)]
