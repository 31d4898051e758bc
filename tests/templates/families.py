"""The families of the bundled templates: small tokenizers with each family's special tokens, and what closes its answers.

The tokenizers are byte-level BPE, trained on the spot; special tokens, BOS and EOS are as the vendors publish them.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunewright.config.data import TemplateConfig
from tunewright.data.records import Conversation, Message, Origin
from tunewright.data.templates import Renderer, load_renderer

ORIGIN = Origin("rows.jsonl", 6, 7)


class Family(NamedTuple):
    """Special tokens, BOS, EOS, further added tokens, and the literal that closes an answer."""

    special: tuple[str, ...]
    bos: str | None
    eos: str
    end: str
    added: tuple[str, ...] = ()
    end_before: str = ""


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN = Family(CHATML, None, "<|im_end|>", "<|im_end|>", ("<tool_call>", "</tool_call>"))
LLAMA = ("<s>", "</s>")
FAMILIES: dict[str, Family] = {
    "alpaca": Family(LLAMA, "<s>", "</s>", "</s>"),
    "baichuan": Family((*LLAMA, "<reserved_102>", "<reserved_103>"), "<s>", "</s>", "</s>"),
    "baichuan2": Family((*LLAMA, "<reserved_106>", "<reserved_107>"), "<s>", "</s>", "</s>"),
    "chatglm3": Family(("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "</s>"), None, "</s>",
                       "<|user|>"),
    "chatml": QWEN,
    "deepseek": Family(("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                       "<｜end▁of▁sentence｜>"),
    "deepseek3": Family(("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
                        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek_r1": Family(("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
                          "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("<think>", "</think>")),
    "default": Family(LLAMA, "<s>", "</s>", "</s>"),
    "empty": Family(LLAMA, "<s>", "</s>", "</s>"),
    "gemma": Family(("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", "<end_of_turn>"),
    "glm4": Family(("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"), None,
                   "<|endoftext|>", "<|user|>"),
    "internlm2": Family((*LLAMA, "<|im_start|>", "<|im_end|>"), "<s>", "</s>", "<|im_end|>"),
    "llama2": Family(LLAMA, "<s>", "</s>", "</s>", end_before=" "),
    "llama3": Family(("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                     "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    "mistral": Family((*LLAMA, "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
                       "[/TOOL_RESULTS]"), "<s>", "</s>", "</s>"),
    "phi3": Family(("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), None, "<|endoftext|>", "<|end|>"),
    "phi4": Family(("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"), None, "<|endoftext|>", "<|im_end|>"),
    "qwen2.5": QWEN,
    "qwen3": QWEN._replace(added=("<tool_call>", "</tool_call>", "<think>", "</think>")),
    "smollm2": Family(CHATML, "<|im_start|>", "<|im_end|>", "<|im_end|>"),
    "vicuna": Family(LLAMA, "<s>", "</s>", "</s>"),
    "zephyr": Family(LLAMA, "<s>", "</s>", "</s>"),
}
CORPUS = ["hello there, what is the weather in Oslo today? It rains.", "system user assistant human instruction response",
          "the capital of France is Paris", "你好，世界", "Be brief. Bye. Later."] * 4


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family."""
    return make_tokenizer(FAMILIES[name])


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a few hundred tokens with the family's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(family.special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos,
                                   clean_up_tokenization_spaces=False)


def renderer_of(name: str, **settings: str | bool | None) -> Renderer:
    """The bundled template `name` with its family's tokenizer; thinking is on unless `enable_thinking` says otherwise."""
    return load_renderer(TemplateConfig(template=name, **settings), tokenizer_of(name))


def conversation(*turns: tuple[str, str] | Message, tools: tuple = ()) -> Conversation:
    """A conversation of (role, content) pairs or messages."""
    return Conversation(tuple(turn if isinstance(turn, Message) else Message(*turn) for turn in turns), ORIGIN, tools)
