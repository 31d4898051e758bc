"""SmolLM2's own tokenizer and chat template. Oracle: transformers' apply_chat_template and its tokenisation."""

from __future__ import annotations

import pytest

from tests.templates.families import conversation
from tunewright.config.data import TemplateConfig
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.templates import load_renderer
from tunewright.data.tokenize import encode_conversation, encode_prompt

pytestmark = pytest.mark.real

ROWS = [
    conversation(("user", "What is the capital of France?"), ("assistant", "Paris.")),
    conversation(("system", "Be brief."), ("user", "你好 🙂\n"), ("assistant", " 世界\n\n"), ("user", "\n\nBye"), ("assistant", "Ciao 👋")),
]


@pytest.mark.parametrize("template", ["auto", "smollm2"])
@pytest.mark.parametrize("row", ROWS, ids=["one turn", "several"])
def test_smollm2(template: str, row: object) -> None:
    """Ids of the whole conversation and of the prompt are transformers' own; trained are the answers with <|im_end|>."""
    from transformers import AutoTokenizer

    from tunewright.models.demo_model import ensure

    tokenizer = AutoTokenizer.from_pretrained(ensure())
    renderer = load_renderer(TemplateConfig(template=template), tokenizer)
    turns = [{"role": message.role, "content": message.content} for message in row.messages]
    ids, labels = encode_conversation(row, renderer, tokenizer)
    own = tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=True, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids) == tokenizer.decode(own)
    if row is ROWS[0]:
        # With an answer that begins with white space the text is cut where the prompt ends, hence only here.
        assert ids == own
    assert encode_prompt(row.messages[:-1], renderer, tokenizer) == prompt
    trained = tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
    assert trained == "".join(message.content + "<|im_end|>" for message in row.messages if message.role == "assistant")
    special = [one for one in ids if one in tokenizer.all_special_ids]
    assert labels.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == sum(message.role == "assistant" for message in row.messages)
    assert special == [one for one in own if one in tokenizer.all_special_ids]
