"""The fast way from conversations to tokens gives what the exact way gives, to the last character and id.

Oracles: `Renderer.render_spans` and `encode_conversations`, which find places by tracing, and the tokenizer itself for the pieces.
"""

from __future__ import annotations

import random

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import PreTokenizer

from tests.templates.families import CORPUS, FAMILIES, ORIGIN, renderer_of, tokenizer_of
from tests.templates.test_every_name import OURS
from tests.templates.test_every_name import tokenizer_of as tokenizer_of_name
from tunewright.config.data import TemplateConfig
from tunewright.data import tokenize
from tunewright.data.masks import MaskPolicy, Rendered
from tunewright.data.piece_encoder import letters_of_bytes, piece_encoder
from tunewright.data.pieces import pieces_of, true_pieces
from tunewright.data.records import Conversation, Message
from tunewright.data.templates import Renderer, load_renderer
from tunewright.data.tokenize import encode_conversations, encode_conversations_fast
from tunewright.errors import InputError

WORDS = ["hello", "It's", "you'll", "'re", "DON'T", "1234", "3.14", "x=1;", "naïve", "你好,世界", "🙂", "👩‍👩‍👧", "ſ", "İ", "²", "ⅷ", "٣",
         "e\u0301", "\u00a0", "\u3000", "\u200b", "\x1c", "\x00", "\n", "\n\n", "  ", "\t", " \n ", "<b>", "{{x}}", "the end.",
         "\u0e19\u0e49\u0e33", "अन्न", "가각", "\u1100\u1161", "\U0001f1e9\U0001f1ea"]
SPOKEN = ["</think>", "<think>", "<tool_response>", "<|im_end|>", "</s>", "[INST]", "<|eot_id|>", "/no_think", "\U000f0002", "\U00100003",
          "### Response:", "Human:", "<｜end▁of▁sentence｜>"]


SELDOM = ("alpaca", "baichuan", "baichuan2", "deepseek_r1", "empty", "gemma", "gpt_oss", "llama2", "mistral", "qwen3")
"""Templates that go the exact way more often: they look into texts, or close answers in another way."""


def talk(draw: random.Random) -> Conversation:
    """Turns of any words with any white space; one in six says what templates look for, one in eight has a thought."""
    said = WORDS + SPOKEN if draw.random() < 1 / 6 else WORDS

    def text() -> str:
        return "".join(draw.choice(said) + draw.choice(("", " ")) for _ in range(draw.randint(1, 6)))

    turns = [Message("system", text())] if draw.random() < 0.3 else []
    for _ in range(draw.randint(1, 3)):
        thought = text() if draw.random() < 1 / 8 else None
        turns += [Message("user", text()), Message("assistant", text(), trained=draw.random() < 0.8, reasoning=thought)]
    return Conversation(tuple(turns), ORIGIN)


def answer(render: object, *arguments: object) -> Rendered | str:
    """The render, or what is refused."""
    try:
        return render(*arguments)  # type: ignore[operator,no-any-return]
    except InputError as error:
        return error.line()


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way, however few the rows."""
    monkeypatch.setattr(tokenize, "MANY_ROWS", 1)


def agree(renderer: Renderer, tokenizer: object, seed: int, number: int) -> int:
    """Assert that both ways give the same; how many conversations the fast one took."""
    draw = random.Random(seed)
    taken = 0
    for _ in range(number):
        row, masks = talk(draw), MaskPolicy(draw.random() < 0.3, draw.random() < 0.3)
        exact = answer(renderer.render_spans, row, masks)
        assert answer(renderer.render_spans_fast, row, masks) == exact, row
        taken += renderer._shapes.rendered(row, masks) is not None
        if isinstance(exact, Rendered):
            whole = answer(encode_conversations, [row], renderer, tokenizer, masks)
            fast = answer(encode_conversations_fast, [row], renderer, tokenizer, masks)
            plain = [([*map(int, ids)], [*map(int, labels)]) for ids, labels in fast] if isinstance(fast, list) else fast
            assert plain == whole, row
    return taken


@pytest.mark.parametrize("thinking", [True, None])
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, thinking: bool | None) -> None:
    """Most conversations without words that templates look for go the fast way wherever answers are closed by a token."""
    taken = agree(renderer_of(name, enable_thinking=thinking), tokenizer_of(name), 1, 60)
    assert taken > 30 or name in SELDOM, taken


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_every_name(name: str) -> None:
    tokenizer = tokenizer_of_name(name)
    agree(load_renderer(TemplateConfig(template=name), tokenizer), tokenizer, 2, 30)


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(expression: str) -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])


CUTS = {
    "gpt2": pre_tokenizers.ByteLevel(False),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "llama3": split(LLAMA3), "qwen": split(QWEN), "o200k": split(O200K),
}


def byte_level(cut: PreTokenizer, *, nfc: bool = False) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = cut
    if nfc:
        backend.normalizer = normalizers.NFC()
    backend.train_from_iterator([*CORPUS, *WORDS], trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return backend


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_pieces_are_the_tokenizers_own(cut: str, nfc: bool) -> None:
    """Every text that is cut here is cut as the tokenizer cuts it, and its tokens are those of the whole; ASCII text always is."""
    backend = byte_level(CUTS[cut], nfc=nfc)
    pieces = pieces_of(backend)
    encoder = piece_encoder(backend)
    assert pieces is not None
    assert encoder is not None
    draw = random.Random(3)
    cut_here = 0
    for _ in range(400):
        text = "".join(draw.choice(WORDS) + draw.choice(("", " ")) for _ in range(draw.randint(1, 12)))
        found = pieces.of(text)
        cut_here += found is not None
        if found is not None:
            assert found == true_pieces(backend, text), text
            rendered = Rendered(text, (), (), frozenset())
            row = encoder.row(rendered, frozenset(), frozenset())
            assert row is not None
            assert row[0].tolist() == backend.encode(text, add_special_tokens=False).ids, text
    assert cut_here > (20 if nfc else 200)
    assert pieces.of("Plain words, it's 1234 of them.\n\n\tx = y") is not None


@pytest.mark.parametrize("cut", [
    pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(True),
    pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "removed"), pre_tokenizers.ByteLevel(False, use_regex=False)]),
    split(r"(?<script>\p{Han}+)|\p{Greek}+|\s"),
])
def test_other_tokenizers_are_asked_themselves(cut: PreTokenizer) -> None:
    assert piece_encoder(byte_level(cut)) is None


def test_expressions_that_leave_gaps_are_not_trusted() -> None:
    """What lies between two matches is a piece of the tokenizer's; we ask it."""
    backend = byte_level(split(r"\p{N}+"))
    pieces = pieces_of(backend)
    assert pieces is None or pieces.of("a1b") is None


def test_a_memory_that_is_full_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright.data.piece_encoder._MOST_CHARACTERS", 100)
    backend = byte_level(CUTS["gpt2"])
    encoder = piece_encoder(backend)
    assert encoder is not None
    for text in ("one two three four five", "six seven eight nine", "one two six"):
        row = encoder.row(Rendered(text, (), (), frozenset()), frozenset(), frozenset())
        assert row is not None
        assert row[0].tolist() == backend.encode(text).ids
    assert len(encoder.memory) < 10


def test_letters_stand_for_bytes_as_in_the_tokenizers_alphabet() -> None:
    """Oracle: what `ByteLevel` itself makes of characters whose UTF-8 holds every byte that UTF-8 may hold."""
    letters = letters_of_bytes()
    assert sorted(letters) == sorted(pre_tokenizers.ByteLevel.alphabet())
    cut = pre_tokenizers.ByteLevel(False, use_regex=False)
    for character in (*map(chr, range(0x800)), "\u1234", "\ud7ff", "\ue000", "\uf123", *map(chr, range(0x10000, 0x110000, 0x8001))):
        (piece, _), = cut.pre_tokenize_str(character)
        assert piece == "".join(letters[byte] for byte in character.encode())
