"""A conversation in the terminal: answers stream as they are made, Ctrl-C stops an answer and not the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.inference import GenerationConfig
from tunewright.data.records import Message
from tunewright.data.tokenize import encode_prompt
from tunewright.inference.generate import answering, decoding, evaluating, room, until_stop
from tunewright.inference.opening import Opened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELP: Final = "Type a message; `clear` starts afresh, `exit` ends, Ctrl-C stops an answer."
CUT_OFF: Final = "�"
"""What a tokenizer decodes half a character to."""


class ChatSession:
    """The turns so far and what answers them. `write` receives the answer piece by piece."""

    def __init__(self, opened: Opened, generation: GenerationConfig, system: str | None, write: Callable[[str], object]) -> None:
        self._opened = opened
        self._how = answering(generation, opened.renderer.stop_token_ids(opened.tokenizer))
        self._system = system
        self._write = write
        self.messages: list[Message] = []
        self.clear()

    def clear(self) -> None:
        """Forget all turns but the system prompt."""
        self.messages = [Message("system", self._system)] if self._system else []

    def answer(self, text: str) -> str:
        """The answer to `text`, streamed to `write`; on Ctrl-C what there is so far. Both turns are remembered.

        A prompt that leaves no room for an answer gets an empty one.
        """
        self.messages.append(Message("user", text))
        prompt = list(encode_prompt(self.messages, self._opened.renderer, self._opened.tokenizer))
        stream = TextStream(self._opened.tokenizer, self._how.stop_ids, self._write)
        try:
            self._generate(prompt, stream)
        except KeyboardInterrupt:
            stream.end()
        self.messages.append(Message("assistant", stream.text))
        return stream.text

    def _generate(self, prompt: list[int], stream: TextStream) -> None:
        import torch

        allowed = room(self._how.generation, len(prompt))
        if allowed == 0:
            return
        model, tokenizer = self._opened.model, self._opened.tokenizer
        settings = decoding(self._how, int(tokenizer.pad_token_id), allowed)
        ids = torch.tensor([prompt], device=model.device)
        # Beam search has no first token before it has them all: nothing to stream, the answer comes at once.
        streamer = {"streamer": stream} if self._how.generation.num_beams == 1 else {}
        with evaluating(model), torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, **streamer)
        if not streamer:
            stream.put(ids)
            stream.put(output[0, len(prompt):])
            stream.end()


class TextStream:
    """Decodes ids as they come and hands on finished text; the interface that transformers calls a streamer.

    Text is held back while it ends in half a character. `text` is all text so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Iterable[int], write: Callable[[str], object]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = tuple(stop_ids)
        self._write = write
        self._ids: list[int] = []
        self._prompt_seen = False
        self.text = ""

    def put(self, value: Any) -> None:
        """Take the next ids; the first call brings the prompt, which is not shown."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._ids += value.flatten().tolist()
        self._show(self._decoded(), final=False)

    def end(self) -> None:
        """Hand on what was held back."""
        self._show(self._decoded(), final=True)

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(until_stop(self._ids, self._stop_ids), skip_special_tokens=True))

    def _show(self, whole: str, *, final: bool) -> None:
        if not final and whole.endswith(CUT_OFF):
            return
        piece = whole[len(self.text):]
        self.text = whole
        if piece:
            self._write(piece)


def converse(session: ChatSession, lines: Iterable[str], write: Callable[[str], object]) -> None:
    """Answer line by line until `exit` or the end of the lines."""
    for line in lines:
        said = line.strip()
        if said == "exit":
            return
        if said == "clear":
            session.clear()
            write("(cleared)\n")
        elif said:
            session.answer(said)
            write("\n")
