"""Files to examples on a tokenizer made on the spot: one token per word, ChatML."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunewright.config.data import DataConfig, TemplateConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data.pipeline import Prepared, PromptRow, build
from tunewright.data.records import Message, Origin
from tunewright.data.templates import Renderer, load_renderer
from tunewright.errors import InputError

WORDS = ["<unk>", "<|im_start|>", "<|im_end|>", "\n", "user", "assistant", "system",
         *(f"w{number}" for number in range(60))]
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
START, END, BREAK, USER, ASSISTANT = (WORDS.index(word) for word in ("<|im_start|>", "<|im_end|>", "\n", "user",
                                                                     "assistant"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"),
                                                  pre_tokenizers.Split(" ", "removed")])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<unk>",
                                   additional_special_tokens=["<|im_start|>"])
    fast.chat_template = CHATML
    return fast


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerFast) -> Renderer:
    return load_renderer(TemplateConfig(), tokenizer)


Build = Callable[..., Prepared]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, renderer: Renderer,
         said: list[str]) -> Build:
    """`make(stage=..., **data)` builds in an empty folder that holds the files of the test."""
    monkeypatch.chdir(tmp_path)

    def made(*, stage: str = "sft", do_train: bool = True, vocab_size: int | None = None, **data: object) -> Prepared:
        run = RunConfig(run=RunControl(stage=stage, do_train=do_train),
                        data=DataConfig(**{"data_cache_dir": "cache", **data}))  # type: ignore[arg-type]
        said.clear()
        return build(run, tokenizer, renderer, report=said.append, vocab_size=vocab_size)

    return made


def word(number: int) -> int:
    return WORDS.index(f"w{number}")


def conversation(question: int, answer: int, length: int = 1) -> str:
    """One question and an answer of `length` words."""
    turns = [{"role": "user", "content": f"w{question}"},
             {"role": "assistant", "content": " ".join([f"w{answer}"] * length)}]
    return json.dumps({"messages": turns}) + "\n"


def tokens(question: int, answer: int, length: int = 1) -> tuple[list[int], list[int]]:
    """Oracle: ids and labels written out; the answer and what ends it are trained."""
    prompt = [START, USER, BREAK, word(question), END, BREAK, START, ASSISTANT, BREAK]
    ids = [*prompt, *[word(answer)] * length, END, BREAK]
    return ids, [*[-100] * len(prompt), *[word(answer)] * length, END, -100]


def rows(examples: object) -> list[tuple[list[int], list[int]]]:
    return [(example.input_ids.tolist(), example.labels.tolist()) for example in examples]  # type: ignore[attr-defined]


@pytest.mark.effect("preprocessing_num_workers")
@pytest.mark.parametrize(("workers", "processes"), [(None, 0), (1, 0), (2, 2), (3, 3)])
def test_so_many_processes_tokenise(
    make: Build, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, processes: int,
) -> None:
    """700 documents are three portions. Who called the tokenizer is noted by each process itself; the rows are the same, in order."""
    plain = type(tokenizer).__call__

    def watched(self: PreTrainedTokenizerFast, *arguments: object, **settings: object) -> object:
        with (tmp_path / "diary").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return plain(self, *arguments, **settings)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    Path("a.jsonl").write_text("".join(json.dumps({"text": f"w{number % 60} w{number // 60}"}) + "\n" for number in range(700)))
    prepared = make(stage="pt", dataset=("a.jsonl",), packing=False, preprocessing_num_workers=workers, preprocessing_batch_size=250)
    others = set((tmp_path / "diary").read_text().split()) - {str(os.getpid())}
    assert len(others) == processes
    assert rows(prepared.train) == [
        ([word(number % 60), word(number // 60), END], [-100, word(number // 60), END]) for number in range(700)]


def test_rows_become_examples(make: Build, said: list[str]) -> None:
    Path("a.jsonl").write_text(conversation(1, 2) + conversation(3, 4, 2))
    prepared = make(dataset=("a.jsonl",))
    assert prepared.train is not None
    assert rows(prepared.train) == [tokens(1, 2), tokens(3, 4, 2)]
    assert prepared.train.lengths.tolist() == [12, 13]
    assert [prepared.train.origin(row) for row in range(2)] == [Origin("a.jsonl", 0, 1), Origin("a.jsonl", 1, 2)]
    assert prepared.evaluation == {}
    assert said == [
        "a.jsonl: openai (messages=messages, tools=tools, system=system), detected from the first row",
        "token cache: miss for a.jsonl: not tokenised before",
        "a.jsonl: 2 of 2 rows used",
        "train: 2 rows, 25 tokens, 5 of them trained, longest 13",
    ]


@pytest.mark.effect("overwrite_cache")
def test_cache_is_hit_and_missed_for_the_right_reasons(make: Build, said: list[str]) -> None:
    Path("a.jsonl").write_text(conversation(1, 2))
    first = make(dataset=("a.jsonl",))

    def why(**data: object) -> str:
        make(**{"dataset": ("a.jsonl",), **data})
        return next(line for line in said if line.startswith("token cache"))

    assert why() == "token cache: hit for a.jsonl: the same data files, tokenizer, template, settings and code"
    assert why(packing=True) == "token cache: hit for a.jsonl: the same data files, tokenizer, template, settings and code"
    assert why(preprocessing_num_workers=2) == "token cache: hit for a.jsonl: the same data files, tokenizer, template, settings and code"
    assert why(overwrite_cache=True) == "token cache: a.jsonl is tokenised anew (overwrite_cache)"
    assert why(cutoff_len=64) == "token cache: miss for a.jsonl: cutoff_len changed since it was last tokenised"
    assert why(mask_history=True) == "token cache: miss for a.jsonl: mask_history changed since it was last tokenised"
    assert why(max_samples=1) == "token cache: miss for a.jsonl: max_samples changed since it was last tokenised"
    Path("a.jsonl").write_text(conversation(1, 3))
    assert why() == "token cache: miss for a.jsonl: data files changed since it was last tokenised"
    Path("a.jsonl").write_text(conversation(1, 2))
    hit = make(dataset=("a.jsonl",))
    assert first.train is not None
    assert hit.train is not None
    assert rows(first.train) == rows(hit.train) == [tokens(1, 2)]


def test_edited_template_is_a_miss(make: Build, said: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    Path("a.jsonl").write_text(conversation(1, 2))
    make(dataset=("a.jsonl",))
    tokenizer_with_other = load_renderer(TemplateConfig(default_system="w9"), tokenizer)
    run = RunConfig(data=DataConfig(dataset=("a.jsonl",), data_cache_dir="cache"))
    build(run, tokenizer, tokenizer_with_other, report=said.append)
    assert "token cache: miss for a.jsonl: template changed since it was last tokenised" in said


@pytest.mark.effect("data_cache_dir")
def test_no_cache(make: Build, said: list[str]) -> None:
    Path("a.jsonl").write_text(conversation(1, 2))
    make(dataset=("a.jsonl",), data_cache_dir="none")
    assert not Path("none").exists()
    assert not any(line.startswith("token cache") for line in said)


@pytest.mark.effect("cutoff_len", "cutoff_policy")
def test_truncation_is_counted(make: Build) -> None:
    """cutoff_len 12: the row of 12 tokens is whole, that of 14 is cut, dropped or cut at its start."""
    Path("a.jsonl").write_text(conversation(1, 2) + conversation(3, 4, 3))
    reason = "longer than cutoff_len 12"
    for policy, kept, note in (
        ("cut_right", [tokens(1, 2), tuple(part[:12] for part in tokens(3, 4, 3))],
         ("changed", f"{reason}: cut at its end")),
        ("drop", [tokens(1, 2)], ("dropped", reason)),
    ):
        prepared = make(dataset=("a.jsonl",), cutoff_len=12, cutoff_policy=policy)
        assert prepared.train is not None
        assert rows(prepared.train) == kept
        found = prepared.audit.sets[0].notes[0]
        assert (found.action, found.reason, found.detail, found.origin.line) == (*note, "14 tokens", 2)


def test_rows_cut_to_their_prompt_are_dropped(make: Build) -> None:
    """Nine tokens of prompt and cutoff_len 9: nothing is left to train."""
    Path("a.jsonl").write_text(conversation(1, 2) + conversation(3, 4, 3))
    with pytest.raises(InputError) as caught:
        make(dataset=("a.jsonl",), cutoff_len=9)
    assert caught.value.line() == (
        "a.jsonl: no trainable token in 2 of 2 rows: a.jsonl:1 (12 tokens, longer than cutoff_len 9: cut at its end), "
        "a.jsonl:2 (14 tokens, longer than cutoff_len 9: cut at its end); raise cutoff_len")


@pytest.mark.effect("max_dropped_fraction")
def test_dropped_rows_are_in_the_audit(make: Build, said: list[str], tmp_path: Path) -> None:
    bad = json.dumps({"messages": [{"role": "user", "content": "w1"}]}) + "\n"
    Path("a.jsonl").write_text(conversation(1, 2) + bad + conversation(3, 4))
    for _ in ("built", "from the cache"):
        prepared = make(dataset=("a.jsonl",))
        assert prepared.train is not None
        assert rows(prepared.train) == [tokens(1, 2), tokens(3, 4)]
        assert "a.jsonl: 2 of 3 rows used" in said
        assert "  1 dropped: turns out of order (first: a.jsonl:2)" in said
        prepared.audit.write(tmp_path / "audit.jsonl")
        assert json.loads((tmp_path / "audit.jsonl").read_text())["line"] == 2
    with pytest.raises(InputError) as caught:
        make(dataset=("a.jsonl",), max_dropped_fraction=0.3)
    assert caught.value.line() == (
        "a.jsonl: turns out of order in 1 of 3 rows: the last turn is user: no answer follows: a.jsonl:2; "
        "mend the rows or raise max_dropped_fraction (now 0.3)")


def test_workers_change_nothing(make: Build) -> None:
    Path("a.jsonl").write_text("".join(conversation(row % 50, (row + 1) % 50, 1 + row % 5) for row in range(1000)))
    one = make(dataset=("a.jsonl",), data_cache_dir="none")
    two = make(dataset=("a.jsonl",), data_cache_dir="none", preprocessing_num_workers=2)
    assert one.train is not None
    assert two.train is not None
    assert len(one.train) == 1000
    assert rows(one.train) == rows(two.train)
    assert [one.train.origin(row) for row in range(1000)] == [two.train.origin(row) for row in range(1000)]


@pytest.mark.effect("val_size")
def test_validation_split(make: Build, said: list[str]) -> None:
    """Held-out rows are gone from training; both together are all rows; the same seed gives the same split."""
    Path("a.jsonl").write_text("".join(conversation(row, row + 1) for row in range(20)))
    prepared = make(dataset=("a.jsonl",), val_size=0.25)
    assert prepared.train is not None
    train = [prepared.train.origin(row).index for row in range(15)]
    held_out = [prepared.evaluation["validation"].origin(row).index for row in range(5)]
    assert sorted(train + held_out) == list(range(20))
    assert train == sorted(train)
    assert "validation: 5 rows, 60 tokens, 10 of them trained, longest 12, not packed" in said
    assert rows(make(dataset=("a.jsonl",), val_size=5).evaluation["validation"]) == rows(prepared.evaluation["validation"])
    assert make(dataset=("a.jsonl",), val_size=5, do_train=False).train is None


def test_prompts_of_held_out_rows(make: Build) -> None:
    Path("a.jsonl").write_text("".join(conversation(row, row + 1) for row in range(20)))
    prepared = make(dataset=("a.jsonl",), val_size=3)
    held_out = [prepared.evaluation["validation"].origin(row) for row in range(3)]
    assert prepared.prompts() == [
        PromptRow((Message("user", f"w{origin.index}"),), f"w{origin.index + 1}", origin) for origin in held_out]


@pytest.mark.effect("eval_dataset", "max_samples")
def test_evaluation_sets_are_one_and_not_packed(make: Build) -> None:
    Path("a.jsonl").write_text(conversation(1, 2) * 4)
    Path("b.jsonl").write_text(conversation(5, 6))
    prepared = make(dataset=("a.jsonl",), eval_dataset=("b.jsonl", "a.jsonl"), packing=True, max_samples=2)
    assert rows(prepared.evaluation["validation"]) == [tokens(5, 6), tokens(1, 2), tokens(1, 2)]
    assert prepared.prompts()[0] == PromptRow((Message("user", "w5"),), "w6", Origin("b.jsonl", 0, 1))
    assert [len(prepared.audit.sets), prepared.audit.sets[0].rows] == [3, 2]
    with pytest.raises(InputError, match=r"^val_size and eval_dataset are both given; keep one of them$"):
        make(dataset=("a.jsonl",), eval_dataset=("b.jsonl",), val_size=1)
    with pytest.raises(InputError, match=r"^dataset is not given; name a file, a folder or a registered data set$"):
        make()


@pytest.mark.effect("packing")
def test_packing(make: Build, said: list[str]) -> None:
    """Rows of 12, 14 and 12 tokens in sequences of 26: 14 + 12, and 12."""
    Path("a.jsonl").write_text(conversation(1, 2) + conversation(3, 4, 3) + conversation(5, 6))
    prepared = make(dataset=("a.jsonl",), packing=True, cutoff_len=26)
    assert prepared.train is not None
    assert prepared.train.lengths.tolist() == [26, 12]
    assert prepared.train[0].bounds.tolist() == [0, 12, 26]
    assert rows(prepared.train)[0] == tuple(a + b for a, b in zip(tokens(1, 2), tokens(3, 4, 3), strict=True))
    assert said[-1] == "packing: 3 rows in 2 sequences of up to 26 tokens, 73.1% full"


def test_num_samples(make: Build) -> None:
    Path("a.jsonl").write_text("".join(conversation(row, row + 1) for row in range(10)))
    inline = {"file_name": "a.jsonl", "formatting": "openai", "num_samples": 4}
    first, second = (make(dataset=(inline,), data_cache_dir=folder).train for folder in ("none", "cache"))
    assert first is not None
    assert second is not None
    drawn = [first.origin(row).index for row in range(4)]
    assert len(set(drawn)) == 4
    assert drawn == [second.origin(row).index for row in range(4)]


@pytest.mark.effect("stage")
def test_documents(make: Build) -> None:
    """Pre-training packs, ends each document once, and continues a long one in pieces."""
    Path("a.txt").write_text(f"w1 w2 w3\n{' '.join(['w4'] * 18)}\n")
    prepared = make(stage="pt", dataset=("a.txt",), cutoff_len=8)
    assert prepared.train is not None
    pieces = [[word(1), word(2), word(3), END], [word(4)] * 8, [word(4)] * 8, [word(4), word(4), END]]
    found = sorted(example.input_ids[begin:end].tolist() for example in prepared.train
                   for begin, end in zip(example.bounds[:-1], example.bounds[1:], strict=True))
    assert found == sorted(pieces)
    for example in prepared.train:
        assert (example.labels[example.bounds[:-1]] == -100).all()
        inside = np.delete(np.arange(len(example.labels)), example.bounds[:-1])
        assert (example.labels[inside] == example.input_ids[inside]).all()
    assert prepared.audit.summary()[1] == "  1 changed: longer than cutoff_len 8: split (first: a.txt:2)"
    unpacked = make(stage="pt", dataset=("a.txt",), cutoff_len=8, packing=False)
    assert unpacked.train is not None
    assert [example.input_ids.tolist() for example in unpacked.train] == [pieces[0], pieces[1]]


def test_pieces_of_a_document_stay_on_one_side(make: Build) -> None:
    Path("a.txt").write_text("".join(f"{' '.join([f'w{row}'] * 20)}\n" for row in range(10)))
    prepared = make(stage="pt", dataset=("a.txt",), cutoff_len=8, val_size=4)
    assert prepared.train is not None
    train = {origin.line for row in range(len(prepared.train)) for origin in prepared.train.origins(row)}
    held_out = {prepared.evaluation["validation"].origin(row).line for row in range(len(prepared.evaluation["validation"]))}
    assert (len(train), len(held_out), train & held_out) == (6, 4, set())


def test_token_ids_must_fit_the_model(make: Build) -> None:
    Path("a.jsonl").write_text(conversation(1, 2) + conversation(1, 40))
    make(dataset=("a.jsonl",), vocab_size=word(40) + 1)
    with pytest.raises(InputError) as caught:
        make(dataset=("a.jsonl",), vocab_size=word(40))
    assert caught.value.line() == (
        f"a.jsonl:2: token id {word(40)} is none of the vocabulary, which has {word(40)}; "
        "use the tokenizer that belongs to the model")


def drawn(prepared: Prepared) -> list[int]:
    """The numbers of the questions that are trained, in order."""
    return [ids[3] - word(0) for ids, _ in rows(prepared.train)]


def test_rows_are_drawn_as_llamafactory_draws_them(make: Build) -> None:
    """num-samples-numpy. Oracle: numpy's own global generator, seeded once as the run, through the sets in their order: a permutation,
    and beyond its rows further ones one by one. Every set with num_samples changes the draws of the next; max_samples comes after."""
    for name, number, begin in (("a", 6, 0), ("b", 4, 10), ("c", 5, 20)):
        Path(f"{name}.jsonl").write_text("".join(conversation(begin + row, 1) for row in range(number)))
    sets = ({"file_name": "a.jsonl", "num_samples": 4}, "c.jsonl", {"file_name": "b.jsonl", "num_samples": 7})
    np.random.seed(42)
    first = np.random.permutation(6)[:4]
    second = np.concatenate([np.random.permutation(4), np.random.choice(4, 3)])
    wanted = [*first.tolist(), *range(20, 25), *(10 + second).tolist()]
    theirs = {"dataset": sets, "data_compat": ("num-samples-numpy",)}
    assert drawn(make(**theirs)) == wanted
    assert drawn(make(**theirs)) == wanted, "from the cache"
    assert drawn(make(**theirs, max_samples=3)) == [*first[:3].tolist(), 20, 21, 22, *(10 + second[:3]).tolist()]
    np.random.seed(42)
    alone = np.random.permutation(4).tolist()
    assert drawn(make(dataset=({"file_name": "b.jsonl", "num_samples": 4},), data_compat=("num-samples-numpy", "listdir-order"))) == [
        10 + one for one in alone]
    ours = drawn(make(dataset=sets))
    assert ours != wanted and ours == drawn(make(dataset=(sets[2], *sets[:2])))[7:] + drawn(make(dataset=(sets[2],)))
