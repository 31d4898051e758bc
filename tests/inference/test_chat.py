"""Chat: the prompt is the training render, the stream is the whole decode, commands and interruptions work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tunewright
from tests.export.test_merge import base_at, trained
from tunewright.config.inference import GenerationConfig
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.data.records import Message
from tunewright.inference.chat import ChatSession, TextStream, converse
from tunewright.inference.opening import Opened, open_model

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=10)


def opened_at(path: Path) -> Opened:
    return open_model(RunConfig(model=ModelConfig(model_name_or_path=str(path))))


def session_at(path: Path, system: str | None = None, generation: GenerationConfig = GREEDY) -> tuple[ChatSession, list[str]]:
    pieces: list[str] = []
    return ChatSession(opened_at(path), generation, system, pieces.append), pieces


def plain_answer(directory: Path, messages: list[dict[str, str]], adapter: Path | None = None) -> str:
    """Oracle: transformers' own chat template, generate and decode."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(adapter or directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    output = model.generate(input_ids=prompt, do_sample=False, max_new_tokens=10, eos_token_id=end, pad_token_id=0)
    return str(tokenizer.decode(output[0, prompt.shape[1]:], skip_special_tokens=True))


def test_answers_equal_plain_transformers_over_two_turns(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    session, pieces = session_at(base, system="be brief")
    first = session.answer("anchor bridge")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "anchor bridge"}]
    assert first == plain_answer(base, messages)
    assert "".join(pieces) == first
    second = session.answer("candle")
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "candle"}]
    assert second == plain_answer(base, messages)
    assert session.messages == [Message("system", "be brief"), Message("user", "anchor bridge"), Message("assistant", first),
                                Message("user", "candle"), Message("assistant", second)]
    session.clear()
    assert session.messages == [Message("system", "be brief")]


def test_adapter_and_merged_directory_answer_alike(tmp_path: Path) -> None:
    from tests.export.test_merge import export_run
    from tunewright.export import merge

    base = base_at(tmp_path / "base")
    _, run = trained(tmp_path, base)
    merge.export(export_run(run, tmp_path / "merged"))
    expected = plain_answer(base, [{"role": "user", "content": "dune"}], adapter=run)
    assert expected != plain_answer(base, [{"role": "user", "content": "dune"}])
    for directory in (run, tmp_path / "merged"):
        session, _ = session_at(directory)
        assert session.answer("dune") == expected


def test_beam_search_answers_at_once(tmp_path: Path) -> None:
    session, pieces = session_at(base_at(tmp_path / "base"), generation=GenerationConfig(do_sample=False, max_new_tokens=6, num_beams=3))
    assert pieces == ([answer] if (answer := session.answer("ember")) else [])


def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    """The third piece is interrupted; the session goes on with two pieces as the answer."""
    session, pieces = session_at(base_at(tmp_path / "base"))

    def interrupted(piece: str) -> None:
        if len(pieces) == 2:
            pieces.append("")
            raise KeyboardInterrupt
        pieces.append(piece)

    session._write = interrupted
    kept = session.answer("falcon")
    assert kept.startswith("".join(pieces[:2])) and len(pieces) >= 3
    assert session.messages[-1] == Message("assistant", kept)


def test_no_room_for_an_answer(tmp_path: Path) -> None:
    session, pieces = session_at(base_at(tmp_path / "base"), generation=GenerationConfig(do_sample=False, max_length=2))
    assert (session.answer("falcon"), pieces) == ("", [])


def test_stream_holds_back_half_a_character(tmp_path: Path) -> None:
    """`é` is two byte tokens here: nothing is shown after the first, the whole after the second."""
    tokenizer = AutoTokenizer.from_pretrained(base_at(tmp_path / "base"))
    ids = tokenizer("é!", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    pieces: list[str] = []
    stream = TextStream(tokenizer, (99,), pieces.append)
    stream.put(torch.tensor([[1, 2, 3]]))
    shown = []
    for token in (*ids, 99):
        stream.put(torch.tensor([token]))
        shown.append("".join(pieces))
    stream.end()
    assert shown == ["", "é", "é!", "é!"]
    assert stream.text == "é!"


def test_commands() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def answer(self, text: str) -> None:
            self.calls.append(f"answer {text}")

        def clear(self) -> None:
            self.calls.append("clear")

    recorder, written = Recorder(), []
    converse(recorder, [" hello \n", "\n", "clear\n", "again\n", "exit\n", "never\n"], written.append)  # type: ignore[arg-type]
    assert recorder.calls == ["answer hello", "clear", "answer again"]
    assert written == ["\n", "(cleared)\n", "\n"]


def test_a_bare_directory_is_the_model(tmp_path: Path) -> None:
    """By hand: the value of an option is left alone."""
    from tunewright.commands.chat import directories_as_models

    place = str(tmp_path)
    assert directories_as_models([place, "--adapter_name_or_path", place, f"--cache_dir={place}", "x.yaml", "a=1"]) == [
        f"model_name_or_path={place}", "--adapter_name_or_path", place, f"--cache_dir={place}", "x.yaml", "a=1"]


@pytest.mark.slow
def test_lines_from_a_pipe(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    expected = plain_answer(base, [{"role": "user", "content": "garden"}])
    source = str(Path(tunewright.__file__).parents[1])
    done = subprocess.run([sys.executable, "-m", "tunewright", "chat", str(base), "do_sample=false", "max_new_tokens=10"],
                          input="garden\nexit\n", capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": source})
    assert (done.returncode, done.stdout) == (0, expected + "\n"), done.stderr
