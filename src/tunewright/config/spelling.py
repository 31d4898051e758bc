"""Which known names a misspelt one may have meant. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "lr": ("learning_rate",), "rate": ("learning_rate",), "eta": ("learning_rate",),
    "epochs": ("num_train_epochs", "n_epochs"), "num_epochs": ("num_train_epochs", "n_epochs"), "n_epoch": ("num_train_epochs",),
    "steps": ("max_steps",), "num_steps": ("max_steps",), "train_steps": ("max_steps",), "total_steps": ("max_steps",),
    "batch": ("per_device_train_batch_size", "batch_size"), "batch_size": ("per_device_train_batch_size",),
    "train_batch_size": ("per_device_train_batch_size", "batch_size"), "micro_batch_size": ("per_device_train_batch_size", "batch_size"),
    "bs": ("per_device_train_batch_size", "batch_size"), "eval_batch_size": ("per_device_eval_batch_size",),
    "grad_accum": ("gradient_accumulation_steps",), "accumulation_steps": ("gradient_accumulation_steps",),
    "max_len": ("cutoff_len", "max_seq_length", "max_tokens"), "max_length": ("cutoff_len", "max_seq_length", "max_tokens"),
    "max_seq_length": ("cutoff_len", "max_tokens"), "max_seq_len": ("cutoff_len", "max_seq_length", "max_tokens"),
    "sequence_length": ("cutoff_len", "max_seq_length", "max_tokens"), "sequence_len": ("cutoff_len", "max_seq_length", "max_tokens"),
    "seq_len": ("cutoff_len", "max_seq_length", "max_tokens"), "context_length": ("cutoff_len", "max_seq_length", "max_tokens"),
    "rank": ("lora_rank", "lora_r"), "r": ("lora_rank", "lora_r"), "lora_r": ("lora_rank",), "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",), "target_modules": ("lora_target",), "lora_modules": ("lora_target",),
    "modules_to_save": ("additional_target",), "wd": ("weight_decay",), "warmup": ("warmup_ratio", "warmup_steps"),
    "scheduler": ("lr_scheduler_type",), "lr_scheduler": ("lr_scheduler_type",), "grad_clip": ("max_grad_norm",),
    "gradient_clipping": ("max_grad_norm",), "model": ("model_name_or_path", "model_name"),
    "model_path": ("model_name_or_path", "model_name"),
    "base_model": ("model_name_or_path", "model_name"), "model_name": ("model_name_or_path",), "adapter": ("adapter_name_or_path",),
    "data": ("dataset", "data_path", "train_file_name"), "train_data": ("dataset", "data_path", "train_file_name"),
    "train_file": ("dataset", "data_path", "train_file_name"), "datasets": ("dataset",), "eval_data": ("eval_dataset",),
    "validation_data": ("eval_dataset",), "val_dataset": ("eval_dataset",), "val_set_size": ("val_size",), "output": ("output_dir",),
    "save_dir": ("output_dir",), "random_seed": ("seed",), "method": ("finetuning_type", "train_mode", "training_recipe"),
    "peft_type": ("finetuning_type", "train_mode", "training_recipe"), "chat_template": ("template", "template_name"),
}
"""Names that other trainers use, or that people say -> names of ours and of the vocabularies, of which the known ones are offered."""


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that `name` may have meant, best first: synonyms, slips of the keyboard, the same words in another order, or at
    least similar names."""
    known = list(dict.fromkeys(candidates))
    meanings = {one: tuple(each for each in several if each in known) for one, several in SYNONYMS.items()
                if len(one) > 3 or one == name.lower()}
    close = slips(name, dict.fromkeys([*known, *(one for one, several in meanings.items() if several)]))
    found = [one for each in close for one in (*((each,) if each in known else ()), *meanings.get(each, ()))]
    return list(dict.fromkeys(found))[:count] or _similar(name, known, count)


def slips(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates few edits away, case and separators apart, best first; those clearly further away than the best are left out."""
    typed = _fold(name)
    near = sorted((distance, _edits(name.lower(), one.lower(), 9), place, one)
                  for place, one in enumerate(candidates) if (distance := _distance(typed, _fold(one))) is not None)
    return [one for distance, _, _, one in near if distance == near[0][0] or _rivals(distance, near[0][0], one)]


def _rivals(distance: int, best: int, known: str) -> bool:
    """Whether a name further away than the best may be what was meant too; short ones are all alike."""
    return distance == best + 1 and distance * 5 <= len(known) * 2


def did_you_mean(close: Sequence[str], quote: str = "") -> str | None:
    """`did you mean A?`, `did you mean A or B?`, `did you mean A, B or C?`; None of nothing."""
    quoted = [f"{quote}{one}{quote}" for one in close]
    if not quoted:
        return None
    return f"did you mean {', '.join(quoted[:-1])}{' or ' if quoted[1:] else ''}{quoted[-1]}?"


@cache
def _fold(name: str) -> str:
    """The name without case and separators: `loraRank`, `lora-rank` and `LORA_RANK` are one."""
    return "".join(letter for letter in name.lower() if letter not in "-_. ")


@cache
def _letters(folded: str) -> int:
    """The set of letters as bits."""
    bits = 0
    for letter in folded:
        bits |= 1 << (ord(letter) & 63)
    return bits


def _distance(typed: str, known: str) -> int | None:
    """The number of edits between two folded names; None if there are too many for a slip: 2, and more in long names."""
    longer = max(len(typed), len(known))
    limit = min(longer - 1, 2 + longer // 16)
    if abs(len(typed) - len(known)) > limit:
        return None
    ours, theirs = _letters(typed), _letters(known)
    if (ours & ~theirs).bit_count() > limit or (theirs & ~ours).bit_count() > limit:
        return None
    found = _edits(typed, known, limit)
    return found if found <= limit else None


def _edits(first: str, second: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that make one of the other; any number above the limit if more."""
    before: list[int] = []
    last = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            best = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == second[column - 2] and first[row - 2] == other:
                best = min(best, before[column - 2] + 1)
            now.append(best)
        if min(now) > limit:
            return limit + 1
        before, last = last, now
    return last[-1]


def _similar(name: str, known: Sequence[str], count: int) -> list[str]:
    """Names of the same words in another order, or with much in common."""
    words = sorted(name.lower().replace("-", "_").split("_"))
    same = [one for one in known if sorted(one.lower().split("_")) == words]
    folded = {one.lower(): one for one in known}
    return same or [folded[one] for one in difflib.get_close_matches(name.lower().replace("-", "_"), folded, count, cutoff=0.6)]
