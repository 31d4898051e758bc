"""Runs on Megatron's files: configuration to sequences, training, resumption, the command that writes them. Oracles: tokens by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.effects.engine_runs import config, history, losses, resumed_equals_whole, run
from tunewright.cli import main
from tunewright.commands.preflight import read_ready
from tunewright.config.run import RunConfig
from tunewright.data.collate import Example
from tunewright.data.megatron import prepare as preparing
from tunewright.data.megatron.layout import HEADER
from tunewright.data.megatron.prepare import prepare
from tunewright.data.megatron.reader import open_tokens
from tunewright.data.megatron.sets import Weighed, weighed
from tunewright.data.megatron.writer import IndexedWriter
from tunewright.data.probe import probe
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError, InputError
from tunewright.selftest.tiny import WORDS
from tunewright.selftest.workspace import Workspace

VOCABULARY = 1000


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def own_random() -> Any:
    with torch.random.fork_rng():
        yield


def write(name: str, documents: list[list[int]], dtype: str = "uint16") -> str:
    with IndexedWriter(Path(name), np.dtype(dtype)) as writer:
        for document in documents:
            writer.add(document)
    return name


def hundreds(first: int, count: int, length: int = 9) -> list[list[int]]:
    """Documents of which each token is another number."""
    return [list(range(first + length * number, first + length * (number + 1))) for number in range(count)]


def settings(*words: str, stage: str = "pt") -> RunConfig:
    return read_config([f"stage={stage}", "data_manager_type=mg", "cutoff_len=9", "model_name_or_path=demo", "output_dir=out", *words],
                       purpose="train").resolve().config


def prepared(*words: str, said: list[str] | None = None) -> Any:
    return prepare(settings(*words), VOCABULARY, [].append if said is None else said.append)


def tokens(examples: Any) -> list[list[int]]:
    return [example.input_ids.tolist() for example in examples]


def documents_of(examples: Any) -> set[int]:
    return {origin.index for number in range(len(examples)) for origin in examples.origins(number)}


@pytest.mark.effect("data_manager_type", "split")
def test_split_divides_the_documents_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """Of ten documents the first seven train, the next two are evaluated, the last is for commands that do not train."""
    write("t", hundreds(0, 10))
    found = prepared("dataset=t", "split=7,2,1")
    assert documents_of(found.train) == set(range(7)) and found.train.num_trained_tokens == 7 * 8
    assert tokens(found.evaluation["validation"]) == hundreds(63, 2) and list(found.evaluation) == ["validation"]
    untrained = prepared("dataset=t", "split=7,2,1", "do_train=false", "do_eval=true")
    assert untrained.train is None and tokens(untrained.evaluation["test"]) == hundreds(81, 1)
    whole = prepared("dataset=t")
    assert documents_of(whole.train) == set(range(10)) and whole.evaluation == {}
    with pytest.raises(ConfigError, match=r"`t` is the prefix of Megatron's files of tokens, not of rows; set data_manager_type: mg"):
        read_ready(["stage=pt", "model_name_or_path=demo", "output_dir=out", "dataset=t"], "train")


def test_order_of_documents_depends_on_the_seed_alone() -> None:
    write("t", hundreds(0, 30))
    one, again, other = (prepared("dataset=t", f"seed={seed}").train for seed in (1, 1, 2))
    assert tokens(one) == tokens(again) != tokens(other) and one.digest() == again.digest() != other.digest()
    in_order = prepared("dataset=t", "disable_shuffling=true", "neat_packing=false").train
    assert tokens(in_order) == [list(range(start, min(start + 9, 270))) for start in range(0, 269, 8)]


def test_isolation_is_neat_packing() -> None:
    """Three documents of nine tokens in sequences of 20: with neat_packing each is a segment; without, a sequence is one."""
    write("t", hundreds(0, 3))
    words = ("dataset=t", "cutoff_len=20", "disable_shuffling=true")
    apart = prepared(*words).train
    assert [example.bounds.tolist() for example in apart] == [[0, 9, 18, 20], [0, 8]]
    assert [int(label) for label in apart[0].labels] == [-100, *range(1, 9), -100, *range(10, 18), -100, 19]
    plain = prepared(*words, "neat_packing=false").train
    assert [example.bounds.tolist() for example in plain] == [[0, 20], [0, 8]] and plain.num_trained_tokens == 26
    assert [example.bounds.tolist() for example in prepared(*words, "neat_packing=false", "packing=false").train] == [[0, 20], [0, 8]]


def test_blends_of_the_configuration() -> None:
    """Weights in YAML, on the command line and as Megatron's own text; 3 : 1 of equal sets draws the first three times."""
    write("a", hundreds(0, 8))
    write("b", hundreds(100, 8))
    Path("c.yaml").write_text("stage: pt\ndata_manager_type: mg\nmodel_name_or_path: demo\noutput_dir: out\ncutoff_len: 9\n"
                              "dataset: [3, a, 1.0, b]\n")
    said: list[str] = []
    from_file = prepare(read_config(["c.yaml"], purpose="train").resolve().config, VOCABULARY, said.append)
    assert from_file.train is not None
    for text in ("3,a,1,b", "3 a 1 b", "[3, 'a', 1, 'b']", "0.75,a,0.25,b"):
        assert prepared(f"dataset={text}").train.digest() == from_file.train.digest()
    counts = [sum(example.input_ids[0] // 100 == number for example in from_file.train) for number in (0, 1)]
    assert counts[1] == 9 and abs(counts[0] - 27) <= 3
    assert said[2].startswith(f"train: {sum(counts)} sequences of up to 9 tokens, ")
    assert said[4] == f"  {counts[1] / sum(counts):.2%} b: 9 sequences, each drawn once"
    together = prepared("dataset=a,b")
    assert len(together.train) == 18 and together.train.num_trained_tokens == 2 * 8 * 8


def test_every_number_is_told() -> None:
    with IndexedWriter(Path("t"), np.dtype("uint16")) as writer:
        for document in ([1, 2, 3], [], [4, 5], [6, 7, 8, 9]):
            writer.add(document)
    index = Path("t.idx").read_bytes()
    Path("t.bin").write_bytes(Path("t.bin").read_bytes() + b"\1\0")
    said: list[str] = []
    found = prepared("dataset=t", "split=50,50", said=said)
    assert Path("t.idx").read_bytes() == index
    assert said == [
        "t: Megatron's format, 4 documents, 9 tokens of uint16",
        "t: 1 tokens of t.bin are in no document of its index, and are not read",
        "t: by split 50,50, 2 documents are for training, 2 for validation, 0 for testing, which a run that trains leaves aside",
        "train: 1 sequences of up to 9 tokens, 2 tokens to predict; documents do not see each other",
        "validation: 2 sequences of up to 9 tokens, 4 of them trained",
        "t: 3 of 4 rows used",
        "  1 dropped: the document holds no token (first: t.bin row 2)",
    ]
    assert tokens(found.train) == [[1, 2, 3]] and tokens(found.evaluation["validation"]) == [[4, 5], [6, 7, 8, 9]]


def test_first_documents_and_an_evaluation_set() -> None:
    write("a", hundreds(0, 8))
    write("b", hundreds(100, 3))
    found = prepared("dataset=a", "max_samples=2", "eval_dataset=b", "neat_packing=false")
    assert documents_of(found.train) == {0, 1}
    assert tokens(found.evaluation["validation"]) == [list(range(100, 109)), list(range(108, 117)), [116, 117]]


def spoiled(name: str, at: int, content: bytes) -> Callable[[], None]:
    def spoil() -> None:
        data = bytearray(Path(name).read_bytes())
        data[at : at + len(content)] = content
        Path(name).write_bytes(data)
    return spoil


def nothing() -> None:
    """Leave the files as they are."""


ANOTHER = "write the path of the two files without their endings"
REFUSED: dict[str, tuple[str, Callable[[], None], str]] = {
    "damaged": ("t", spoiled("t.idx", 9, b"\2"), "t.idx: version 2 of the format, but only 1 is known; write or copy both files anew"),
    "cut": ("t", lambda: Path("t.bin").write_bytes(b"\0\0"),
            "t.bin: cut off: 2 bytes, but sequence 0 ends at byte 18; write or copy both files anew"),
    "misspelt": ("u", nothing, "dataset: neither u.idx nor u.bin is there, nor in data; prefixes there: floats, t"),
    "one file of two": ("t.bin", lambda: Path("t.idx").unlink(),
                        "t.idx: the file is missing, its partner is there; write or copy both files anew"),
    "floats": ("floats", nothing, "floats.idx: the numbers are float32, not token ids"),
    "pictures": ("t", lambda: Path("t.idx").write_bytes(Path("t.idx").read_bytes() + b"\0\0\1\0"),
                 "t.idx: sequence 2 is of mode 1, which is not text; use files of text alone"),
    "mapping": ('{"file_name": "t"}', nothing,
                "dataset: data_manager_type mg reads prefixes of .bin and .idx files, not mappings; " + ANOTHER),
    "two weights": ("0.3,0.7,t", nothing, "dataset: the weights 0.3 and 0.7 follow one another; write a prefix after each weight"),
    "last weight": ("0.3,t,0.7", nothing, "dataset: no prefix follows the weight 0.7; write a prefix after each weight"),
    "some weights": ("t,0.3,t", nothing, "dataset: t has no weight, others have one; write a weight before each prefix, or before none"),
    "weight 0": ("0,t,1,t", nothing, "dataset: the weight 0 is not above 0; take the set out, or give it a part of the whole"),
    "mostly empty": ("t", spoiled("t.idx", HEADER.size, bytes(12)),
                     "t: the document holds no token in 3 of 4 rows: t.bin row 1, t.bin row 2, t.bin row 3; "
                     "mend the rows or raise max_dropped_fraction (now 0.5)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_check_says_before_a_model_is_opened(case: str) -> None:
    dataset, spoil, expected = REFUSED[case]
    write("t", hundreds(0, 4))
    write("floats", [[1]], "float32")
    spoil()
    assert [problem.line() for problem in probe(settings(f"dataset={dataset}"))] == [expected]


def test_good_files_have_no_problems() -> None:
    write("t", hundreds(0, 4))
    Path("data").mkdir()
    write("data/u", hundreds(0, 4))
    assert probe(settings("dataset=t,t.bin,t.idx,u", "split=1,1")) == []


PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "too few to train": (("split=1,9",), "split: 1,9 of 4 documents leaves none of t to train on; change it, or take the set out"),
    "one token": (("dataset=one",), "one: its training part, 1 of 1 documents, has no token to predict; change split, or take the set out"),
    "too few to evaluate": (("split=99,1",), "split: 99,1 of 4 documents leaves none for validation; give it a larger part, or none"),
    "nothing to evaluate": (("do_train=false", "do_eval=true", "eval_dataset=one"),
                            "split: 100,0,0 leaves no documents to evaluate; write 90,10,0, or name an eval_dataset"),
    "endless": (("dataset=1e-9,t,1,one2",), "t: with its weight of 1e-09 an epoch takes 5e+09 sequences until all its 5 are drawn; "
                "give it a larger weight, or fewer documents by max_samples"),
    "foreign token": (("dataset=large",), f"large.bin row 2: token id {VOCABULARY} is none of the tokenizer, which has {VOCABULARY} "
                      "tokens; use the tokenizer that the file was written with"),
}


@pytest.mark.parametrize("case", PARTS)
def test_what_cannot_be_trained_on(case: str) -> None:
    words, expected = PARTS[case]
    write("t", hundreds(0, 4))
    write("one", [[1]])
    write("one2", [[1, 2]])
    write("large", [[1, 2], [3, VOCABULARY]])
    run_of = settings("dataset=t", *words)
    told = [problem.line() for problem in probe(run_of)]
    if not told:
        with pytest.raises(InputError) as caught:
            prepare(run_of, VOCABULARY, lambda line: None)
        told = [caught.value.line()]
    assert told == [expected]


def test_large_files_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block apart from the foreign token passes; reading the sequence does not."""
    from tunewright.data.megatron import sets

    monkeypatch.setattr(sets, "_WHOLE", 10)
    monkeypatch.setattr(sets, "_BLOCK", 4)
    monkeypatch.setattr(sets, "_BLOCKS", 2)
    write("t", [[1, 2, 3, 4, 5], [6, 7, 8, VOCABULARY, 9], [1, 2, 3, 4, 5]])
    train = prepared("dataset=t", "disable_shuffling=true").train
    with pytest.raises(InputError, match=r"t\.bin row 2: token id 1000 is none of the tokenizer"):
        [train[number] for number in range(len(train))]
    write("t", [[VOCABULARY, 2, 3, 4, 5], [6, 7, 8, 9, 9], [1, 2, 3, 4, 5]])
    with pytest.raises(InputError, match=r"t\.bin row 1: token id 1000"):
        prepared("dataset=t")


def test_lists_of_prefixes() -> None:
    assert weighed(["0.3", "a b", "7", "c"], "dataset") == [Weighed("a b", 0.3), Weighed("c", 7.0)]
    assert weighed(["30 a 70 b"], "dataset") == [Weighed("a", 30.0), Weighed("b", 70.0)]
    assert weighed(["a b", "./7"], "dataset") == [Weighed("a b", None), Weighed("./7", None)]


def test_examples_of_a_run_are_what_the_engine_takes() -> None:
    write("t", hundreds(0, 3))
    example = prepared("dataset=t").train[2]
    assert isinstance(example, Example) and example.sample_id == 2
    assert {array.dtype for array in (example.input_ids, example.labels, example.bounds)} == {np.dtype("int32")}
    assert preparing.MOST_DRAWS == 134_217_728


def corpus(path: Path, count: int = 40) -> Path:
    chance = np.random.default_rng(0)
    path.write_text("".join(json.dumps({"text": " ".join(chance.choice(WORDS, chance.integers(1, 30)))}) + "\n" for _ in range(count)))
    return path


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """What it writes is what the tokenizer makes of each document, closed once; two processes write the same bytes."""
    from transformers import AutoTokenizer

    path = corpus(Path("docs.jsonl"))
    path.write_text(path.read_text() + '{"text": "  "}\n{"text": "anchor"}\n')
    model = ("--model_name_or_path", str(workspace.path / "model"))
    assert main(["data", "megatron", "docs.jsonl", "--output", "out/t", *model]) == 0
    told = capsys.readouterr()
    tokenizer = AutoTokenizer.from_pretrained(workspace.path / "model")
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    expected = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts if text.strip()]
    found = open_tokens(Path("out/t"))
    assert [found.document(number).tolist() for number in range(found.num_documents)] == expected
    assert told.out.startswith(f"out/t: 41 documents, {sum(map(len, expected))} tokens of uint16, ")
    assert "docs.jsonl: 41 of 42 rows used\n  1 dropped: empty document (first: docs.jsonl:41)\n" in told.err
    assert json.loads(Path("out/t.audit.jsonl").read_text())["line"] == 41
    assert main(["data", "megatron", "docs.jsonl", "--output", "out/u.bin", *model, "preprocessing_num_workers=2"]) == 0
    assert all(Path(f"out/t{end}").read_bytes() == Path(f"out/u{end}").read_bytes() for end in (".bin", ".idx"))
    Path("one, two.txt").write_text("anchor\nbridge\n")
    assert main(["data", "megatron", "one, two.txt", "docs.jsonl", "--output", "out/u", "--overwrite", *model, "max_samples=1"]) == 0
    again = open_tokens(Path("out/u"))
    assert [again.document(number).tolist() for number in range(again.num_documents)] == [
        [*tokenizer("anchor")["input_ids"], tokenizer.eos_token_id], expected[0]]
    assert not Path("out/u.audit.jsonl").exists()


@pytest.mark.parametrize(("words", "line"), [
    (["--output", "t"], "no INPUT is named; name the documents before the options, see tunewright data megatron --help"),
    (["a.jsonl"], "--output is missing; say what the two files are called, without .bin and .idx"),
    (["a.jsonl", "--output"], "--output needs a value; see tunewright data megatron --help"),
    (["a.jsonl", "--output", "there"], "--output: there.bin is there already; name another, or add --overwrite"),
    (["missing.jsonl", "--output", "t", "model_name_or_path=demo"],
     "command line: dataset: `missing.jsonl` is not a name in data/dataset_info.json, a file or a folder"),
])
def test_what_the_command_refuses(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.bin").write_bytes(b"")
    assert main(["data", "megatron", *words]) == 2
    assert capsys.readouterr().err.strip() == f"error: {line}"
    assert [path.name for path in Path().iterdir()] == ["there.bin"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "megatron", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: tunewright data megatron INPUT... --output PREFIX")


@pytest.fixture
def token_files(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Settings of a run on 40 documents in sequences of 24 tokens."""
    main(["data", "megatron", str(corpus(Path("docs.jsonl"))), "--output", "t", "--model_name_or_path", str(workspace.path / "model")])
    return {"dataset": Path("t").absolute(), "data_manager_type": "mg", "stage": "pt", "cutoff_len": 24, "split": "90,10,0",
            "data_cache_dir": "null", "logging_steps": 1}


def test_two_steps_as_from_the_text(workspace: Workspace, token_files: dict[str, Any]) -> None:
    """The first loss of a run on one batch of all sequences is that of transformers over the same documents, each by itself."""
    from transformers import AutoModelForCausalLM

    everything = {**token_files, "cutoff_len": 128, "split": "100,0,0", "per_device_train_batch_size": 64, "max_steps": 2}
    run(workspace, Path("run"), **everything)
    model = AutoModelForCausalLM.from_pretrained(workspace.path / "model").eval()
    found = open_tokens(Path("t"))
    total, count = 0.0, 0
    examples = prepare(config(workspace, Path("run"), **everything), 10**6, lambda line: None).train
    assert examples is not None
    for example in examples:
        for begin, end in zip(example.bounds, example.bounds[1:], strict=False):
            ids = torch.tensor(example.input_ids[begin:end].astype(np.int64)).unsqueeze(0)
            if ids.shape[1] > 1:
                with torch.no_grad():
                    total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
    assert count == sum(int(length) - 1 for length in found.lengths)
    assert losses(Path("run"))[0] == pytest.approx(total / count, rel=1e-5)  # float32, summed in another order
    assert len(losses(Path("run"))) == 2


def test_plain_and_isolated_runs_differ_and_are_evaluated(workspace: Workspace, token_files: dict[str, Any]) -> None:
    for name, neat in (("isolated", True), ("plain", False)):
        run(workspace, Path(name), **token_files, neat_packing=neat, max_steps=2, eval_strategy="steps", eval_steps=2)
    assert losses(Path("isolated"))[0] != losses(Path("plain"))[0]
    assert all(any("eval_loss" in entry for entry in history(Path(name))) for name in ("isolated", "plain"))


def test_a_resumed_run_is_the_whole_run(workspace: Workspace, token_files: dict[str, Any]) -> None:
    """A blend, with two workers: bit for bit, from the middle of an epoch."""
    prefix = token_files["dataset"]
    changes = {**token_files, "dataset": f"0.3,{prefix},0.7,{prefix}", "split": "50,50", "max_steps": 12, "dataloader_num_workers": 2}
    assert resumed_equals_whole(workspace, Path("run"), **changes)


def test_other_files_are_another_run(workspace: Workspace, token_files: dict[str, Any]) -> None:
    """Documents written anew with one token changed: continuing is refused."""
    settings_of = {**token_files, "max_steps": 4, "save_steps": 2}
    run(workspace, Path("run"), **settings_of)
    for path in Path("run").glob("*model*.safetensors"):
        path.unlink()
    data = bytearray(Path("t.bin").read_bytes())
    data[0] ^= 1
    Path("t.bin").write_bytes(data)
    with pytest.raises(InputError, match="training data"):
        run(workspace, Path("run"), **{**settings_of, "max_steps": 6, "allow_change": "max_steps"})
