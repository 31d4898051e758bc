"""How far two models are apart on a few fixed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "user: What is the capital of France?\nassistant: The capital of France is",
    '{"name": "Ada", "year": 1843, "tags": ["note", "G"]}',
    "机器学习是人工智能的一个分支。",
)
RANDOM_PROMPTS: Final = 2
LENGTH: Final = 48


@dataclass(frozen=True, slots=True)
class Difference:
    """`logit`: largest difference of a logit. `divergence`: mean KL(expected || found) per position, in nats. `agree`: argmax."""

    logit: float
    divergence: float
    agree: float

    def describe(self) -> str:
        """One phrase for people."""
        return (f"largest logit difference {self.logit:.2g}, mean KL divergence {self.divergence:.2g} nats, "
                f"same first choice {self.agree:.1%}")


def probe_ids(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[list[int]]:
    """Fixed prompts as ids: a few texts, and random ids that reach rows of the embedding which no text does."""
    import torch

    generator = torch.Generator().manual_seed(0)
    spread = torch.randint(vocabulary, (RANDOM_PROMPTS, LENGTH), generator=generator).tolist()
    texts = [tokenizer(text, add_special_tokens=True)["input_ids"][:LENGTH] for text in TEXTS]
    return [ids for ids in (*texts, *spread) if ids]


def probe_logits(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits [S, V] float32 on the CPU, one tensor for each prompt."""
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0].float().cpu() for ids in prompts]


def compare(expected: Sequence[Tensor], found: Sequence[Tensor]) -> Difference:
    """How far `found` is from `expected`, over all positions of all prompts; not-a-number if either holds one."""
    import torch

    one, other = torch.cat(list(expected)).double(), torch.cat(list(found)).double()
    log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    agree = (one.argmax(-1) == other.argmax(-1)).double().mean()
    return Difference(float((one - other).abs().max()), float(divergence), float(agree))
