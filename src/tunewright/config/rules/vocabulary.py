"""Rules on tokens that a run adds to the tokenizer."""

from __future__ import annotations

from tunewright.config.rules.rule import Broken, Case, Purpose, Rule
from tunewright.config.run import RunConfig

_OPENS_A_TOKENIZER: tuple[Purpose, ...] = ("train", "eval", "predict", "chat", "export", "preview")


def unusable_token(case: Case) -> list[Broken]:
    given = {"add_tokens": case.run.tokenizer.add_tokens, "add_special_tokens": case.run.tokenizer.add_special_tokens}
    return [Broken(field, f"'{text}' is " + ("empty" if not text else "white space")) for field, texts in given.items()
            for text in texts if not text.strip()]


def token_given_twice(case: Case) -> list[Broken]:
    seen: set[str] = set()
    found = []
    for field, texts in (("add_tokens", case.run.tokenizer.add_tokens), ("add_special_tokens", case.run.tokenizer.add_special_tokens)):
        for text in texts:
            if text in seen:
                found.append(Broken(field, f"'{text}' is given twice"))
            seen.add(text)
    return found


def description_without_file(case: Case) -> str | None:
    tokens = case.run.tokenizer
    wanted = tokens.init_special_tokens != "noise_init" and tokens.new_special_tokens_config is None
    return f"{tokens.init_special_tokens} reads descriptions, but there are none" if wanted else None


def descriptions_without_use(case: Case) -> str | None:
    tokens = case.run.tokenizer
    wanted = tokens.new_special_tokens_config is not None and tokens.init_special_tokens == "noise_init"
    return "only the names of the tokens are read: init_special_tokens is noise_init" if wanted else None


def tokens_without_rows(case: Case) -> str | None:
    is_denied = "resize_vocab" in case.given and not case.run.tokenizer.resize_vocab
    return "is false, but tokens are added: where the embedding has no rows for them, it grows all the same" if (
        is_denied and adds_tokens(case.run)) else None


def split_new_tokens(case: Case) -> str | None:
    tokens = case.run.tokenizer
    wanted = tokens.split_special_tokens and case.run.run.stage == "pt" and (
        tokens.add_special_tokens or tokens.new_special_tokens_config is not None)
    return "splits the special tokens that this run adds" if wanted else None


def adds_tokens(run: RunConfig) -> bool:
    """Whether the run adds tokens to the tokenizer."""
    tokens = run.tokenizer
    return bool(tokens.add_tokens or tokens.add_special_tokens or tokens.new_special_tokens_config is not None)


RULES = (
    Rule("unusable-token", ("add_tokens", "add_special_tokens"), unusable_token, "name a token by its text"),
    Rule("token-given-twice", ("add_tokens", "add_special_tokens"), token_given_twice, "name it once"),
    Rule("description-without-file", ("init_special_tokens", "new_special_tokens_config"), description_without_file,
         "name a file of descriptions with new_special_tokens_config, or remove it"),
    Rule("descriptions-without-use", ("new_special_tokens_config", "init_special_tokens"), descriptions_without_use,
         "set init_special_tokens: desc_init to begin from the descriptions", purposes=_OPENS_A_TOKENIZER, is_error=False),
    Rule("tokens-without-rows", ("resize_vocab", "add_tokens", "add_special_tokens", "new_special_tokens_config"), tokens_without_rows,
         "remove it", purposes=_OPENS_A_TOKENIZER, is_error=False),
    Rule("split-new-tokens", ("split_special_tokens", "add_special_tokens", "new_special_tokens_config", "stage"), split_new_tokens,
         "remove split_special_tokens, or use add_tokens"),
)
