"""Tokenizers and vocabulary. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("use_fast_tokenizer", "Uses the Rust tokenizer.",
            because="there is one implementation of each tokenizer, the one whose character offsets masks need",
            llamafactory=(inert("use_fast_tokenizer", True, False), inert("no_use_fast_tokenizer", False, True)),
            cli_reference=(inert("use_fast_tokenizer", True, False), inert("no_use_fast_tokenizer", False, True)),
            qlora_script=inert("use_fast", False, True), mindspeed_fsdp2=inert("use_fast_tokenizer", True, False)),
    refused("tokenizer_type", "Chooses the tokenizer class family.",
            because="the class of a tokenizer comes from its own files", mend="leave it out",
            qlora_script=inert("tokenizer_type", "llama", "auto")),
    refused("resize_vocab", "Resizes the tokenizer vocabulary and output_layer/lm_head dimensions to fit added tokens.",
            llamafactory=inert("resize_vocab", False), cli_reference=inert("resize_vocab", False),
            mindspeed_fsdp2=inert("resize_vocab", False)),
    refused("add_tokens", "Adds these comma-separated ordinary (non-special) tokens to the tokenizer.",
            llamafactory=inert("add_tokens", None, today=True),
            cli_reference=inert("add_tokens", None), mindspeed_fsdp2=inert("add_tokens", None)),
    refused("add_special_tokens", "Adds these comma-separated special tokens to the tokenizer so each encodes to one id.",
            llamafactory=(inert("new_special_tokens", None), inert("add_special_tokens", None, today=True)),
            cli_reference=inert("add_special_tokens", None),
            mindspeed_fsdp2=inert("add_special_tokens", None)),
    refused("new_special_tokens_config", "YAML file mapping new special tokens to descriptions used for semantic initialization.",
            llamafactory=inert("new_special_tokens_config", None, today=True),
            mindspeed_fsdp2=inert("new_special_tokens_config", None)),
    refused("init_special_tokens", "Embedding initialization for new special tokens: noise around the mean, description-based, or both.",
            llamafactory=inert("init_special_tokens", "noise_init", today=True),
            mindspeed_fsdp2=inert("init_special_tokens", "noise_init")),
)
