"""Tokenizers. Standard library only."""

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
)
