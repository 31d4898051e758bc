"""Known graphics cards: memory, peak rates of dense matrix products without sparsity, bandwidth; from their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Card:
    """`half_tflops`: bfloat16 or float16 into float32; `single_tflops`: float32 without TensorFloat-32; in 10^12 operations a second."""

    name: str
    memory_gib: float
    half_tflops: float
    single_tflops: float
    bandwidth_gbs: float


CARDS: Final = (
    Card("B200", 180, 2250, 75, 8000), Card("H200", 141, 989, 67, 4800), Card("H100 NVL", 94, 835, 60, 3900),
    Card("H100 PCIe", 80, 756, 51, 2000), Card("H100", 80, 989, 67, 3350), Card("H800", 80, 989, 67, 3350), Card("H20", 96, 148, 44, 4000),
    Card("GH200", 96, 989, 67, 4000), Card("A100-SXM4-80GB", 80, 312, 19.5, 2039), Card("A100-SXM4-40GB", 40, 312, 19.5, 1555),
    Card("A100", 80, 312, 19.5, 1935), Card("A800", 80, 312, 19.5, 2039), Card("L40S", 48, 362, 91.6, 864), Card("L40", 48, 181, 90.5, 864),
    Card("L4", 24, 121, 30.3, 300), Card("A40", 48, 150, 37.4, 696), Card("A10G", 24, 70, 35, 600), Card("A10", 24, 125, 31.2, 600),
    Card("A6000", 48, 155, 38.7, 768), Card("RTX 6000 Ada", 48, 364, 91.1, 960), Card("V100", 32, 125, 15.7, 900),
    Card("T4", 16, 65, 8.1, 320), Card("RTX 5090", 32, 210, 105, 1792), Card("RTX 4090", 24, 165, 82.6, 1008),
    Card("RTX 4080", 16, 97, 48.7, 717), Card("RTX 3090", 24, 71, 35.6, 936), Card("RTX 3080", 10, 60, 29.8, 760),
    Card("RTX 3060", 12, 25, 12.7, 360),
)
_PER_PROCESSOR: Final = Card("", 0, 1.6, 0.25, 20)
"""A multiprocessor of a card that is not listed: about one of Ampere's."""


def card_of(name: str, processors: int = 0) -> Card:
    """The card that a driver calls `name`; the entry whose name is longest wins. An unknown one is made up from its multiprocessors."""
    plain = name.upper().replace("-", " ")
    fits = [card for card in CARDS if card.name.upper().replace("-", " ") in plain]
    if fits:
        return max(fits, key=lambda card: len(card.name))
    count = max(1, processors)
    unit = _PER_PROCESSOR
    return Card(name, 0, unit.half_tflops * count, unit.single_tflops * count, unit.bandwidth_gbs * count)
