"""What the life cycle is judged by, measured on held-out orders with transformers, peft and safetensors alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

COURTESIES = (" thank you", " gladly ", " have a lovely day")
Turns = list[dict[str, str]]


def courtesies(answer: str) -> int:
    """How many of the three courtesies an answer has; said twice counts once."""
    padded = f" {answer.lower()} "
    return sum(padded.find(phrase) >= 0 for phrase in COURTESIES)


def facts(answer: str, row: dict[str, Any]) -> int:
    """How many of the order's four facts an answer states."""
    return sum(len(answer.split(row[name])) > 1 for name in ("name", "item", "quantity", "city"))


class Judge:
    """Opens models and adapters as anyone would, without tunewright."""

    def __init__(self, directory: Path) -> None:
        """The model in a directory, on which adapters are put one after the other."""
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def wear(self, adapter: Path) -> None:
        """Put on this adapter alone."""
        name = adapter.name
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(str(adapter), adapter_name=name)
        else:
            self.model = PeftModel.from_pretrained(self.model, str(adapter), adapter_name=name)
        self.model.set_adapter(name)
        self.model.eval()

    def ids(self, prompt: Turns, answer: Turns) -> tuple[list[int], int]:
        """The tokens of prompt and answer up to the end of the turn, and how many of them are the prompt's."""
        asked = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        whole = self.tokenizer.apply_chat_template([*prompt, *answer], tokenize=False).removesuffix("\n")
        assert whole.startswith(asked)
        before = self.tokenizer(asked, add_special_tokens=False).input_ids
        return before + self.tokenizer(whole[len(asked):], add_special_tokens=False).input_ids, len(before)

    @torch.inference_mode()
    def logps(self, prompt: Turns, answer: Turns) -> Tensor:
        """The log-probability of each token of an answer."""
        ids, start = self.ids(prompt, answer)
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, start - 1:-1].float()
        return logits.log_softmax(-1).gather(1, torch.tensor(ids[start:])[:, None])[:, 0]

    @torch.inference_mode()
    def reward(self, prompt: Turns, answer: Turns, head: dict[str, Tensor]) -> float:
        """The value head's number at the last token."""
        hidden = self.model(input_ids=torch.tensor([self.ids(prompt, answer)[0]]), output_hidden_states=True).hidden_states[-1][0, -1]
        return float(head["v_head.summary.weight"][0] @ hidden + head["v_head.summary.bias"][0])

    @torch.inference_mode()
    def answer(self, prompt: Turns, tokens: int) -> str:
        """The likeliest answer, token by token."""
        text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([self.tokenizer(text, add_special_tokens=False).input_ids])
        made = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
        return str(self.tokenizer.decode(made[0, ids.shape[1]:], skip_special_tokens=True))


def ranked_right(judge: Judge, pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of pairs whose chosen answer is the likelier one: by its whole log-probability (`sum`), and by token (`mean`)."""
    won = {"sum": 0, "mean": 0}
    for pair in pairs:
        chosen, rejected = judge.logps(pair["prompt"], pair["chosen"]), judge.logps(pair["prompt"], pair["rejected"])
        won["sum"] += int(chosen.sum() > rejected.sum())
        won["mean"] += int(chosen.mean() > rejected.mean())
    return {name: count / len(pairs) for name, count in won.items()}


def rewarded_right(judge: Judge, adapter: Path, pairs: Sequence[dict[str, Any]], scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """The share of pairs whose chosen answer has the higher reward, and how far `scores`, from `tunewright predict`, are from these."""
    head = load_file(adapter / "value_head.safetensors")
    own = [{name: judge.reward(pair["prompt"], pair[name], head) for name in ("chosen", "rejected")} for pair in pairs]
    return {"accuracy": sum(one["chosen"] > one["rejected"] for one in own) / len(own),
            "difference": max(abs(one[name] - said[name]) for one, said in zip(own, scores, strict=True) for name in one)}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
