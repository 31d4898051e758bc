"""Readers of data: files of rows, every format of a row, tool calls, chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from fuzz.target import Target, words_in, written

_ORIGIN_FILE: Final = Path("rows.jsonl")
_BETWEEN: Final = b"\n%%%\n"
"""Stands between the template and the row that it renders."""

_COLUMNS = words_in(
    "instruction input output response question answer prompt completion chosen rejected messages conversations role content from value "
    "human gpt user assistant system tool tools functions function function_call tool_calls arguments name label kto_tag weight loss text "
    "input_ids labels attention_mask history images reasoning_content thinking preferred_output non_preferred_output rejected_response "
    "observation developer conversation context type parts id tool_call_id true false null 1 0 -100 [] {} \"\"")
_JINJA = (b"{{ ", b" }}", b"{% ", b" %}", b"{%- ", b"-%}", b"{# ", b" #}", *words_in(
    "for message in messages endfor if else endif set macro endmacro call endcall loop.index0 loop.first message['content'] "
    "message.role tools tool_calls add_generation_prompt bos_token eos_token range(9999) namespace(a=1) raise_exception('no') tojson "
    "strftime_now('%Y') generation endgeneration break continue ~ ** * // % + |length |trim |join |map |list |string |safe |attr "
    "|format |center(999999) |indent(9999) __class__ self._TemplateReference__context cycler lipsum joiner dict( include import "
    "autoescape filter block extends |sort |unique |batch(1) |sum [::-1] is defined is string and not or 'a'*999999999 9**9999999"))


def json_rows(content: bytes) -> None:
    """A file of rows in JSON, read to its end as an array, as lines, and as far as a quick look goes."""
    from tunewright.data.files import DataFile, read_head, read_rows

    array, lines = DataFile(written("rows.json", content), "json"), DataFile(written("rows.jsonl", content), "jsonl")
    _each(partial(_exhaust, read_rows(array)), partial(_exhaust, read_rows(lines)), partial(_exhaust, read_head(array, 256)))


def csv_rows(content: bytes) -> None:
    """The same of a CSV file, and of a text file."""
    from tunewright.data.files import DataFile, read_rows

    table, text = DataFile(written("rows.csv", content), "csv"), DataFile(written("rows.txt", content), "txt")
    _each(partial(_exhaust, read_rows(table)), partial(_exhaust, read_rows(text)))


def arrow_rows(content: bytes) -> None:
    """The same of a Parquet and of an Arrow file."""
    from tunewright.data.files import DataFile, count_rows, read_head, read_rows

    parquet, arrow = DataFile(written("rows.parquet", content), "parquet"), DataFile(written("rows.arrow", content), "arrow")
    _each(partial(_exhaust, read_rows(parquet)), partial(_exhaust, read_rows(arrow)), partial(count_rows, parquet),
          partial(_exhaust, read_head(parquet, 64)))


def packed_rows(content: bytes) -> None:
    """Lines of JSON in a packed file."""
    from tunewright.data.files import DataFile, read_rows

    _each(*(partial(_exhaust, read_rows(DataFile(written(f"rows.jsonl{ending}", content), "jsonl"))) for ending in (".gz", ".bz2", ".xz")))


def row_formats(content: bytes) -> None:
    """A row, given to the format that it seems to have and to every other."""
    from tunewright.data.formats.convert import convert, detect
    from tunewright.data.formats.layout import FORMATTINGS, layout, ranked
    from tunewright.data.json_rows import Row
    from tunewright.data.records import Origin

    values = _row(content)
    row = Row(values, Origin("rows.jsonl", 0, 1))
    found = [detect(values, stage) for stage in ("sft", "kto", "ppo")]
    named = [one for name in FORMATTINGS for one in (layout(name), ranked(layout(name)))]
    marked = [layout(name, {"kto_tag": "label"}) for name in ("alpaca", "sharegpt", "openai")]
    _each(*(partial(convert, row, one) for one in (*found, *named, *marked) if one is not None))


def tool_calls(content: bytes) -> None:
    """A text that should hold calls, and one that should hold descriptions of functions."""
    from tunewright.data.formats.fields import calls_in, tools_of
    from tunewright.data.records import Origin

    text, origin = content.decode("utf-8", "replace"), Origin("rows.jsonl", 0, 1)
    _each(partial(calls_in, text, "content", origin), partial(tools_of, text, "tools", origin))


def template(content: bytes) -> None:
    """A foreign chat template, loaded under the guard, and a conversation rendered by it with its trained spans."""
    from tunewright.config.data import TemplateConfig
    from tunewright.data.formats.convert import convert
    from tunewright.data.formats.fields import Converted
    from tunewright.data.formats.layout import layout
    from tunewright.data.json_rows import Row
    from tunewright.data.records import Conversation, Origin
    from tunewright.data.template_unopened import check_template
    from tunewright.data.templates import load_renderer

    text, _, said = content.partition(_BETWEEN)
    path = written("foreign.jinja", text)
    check_template(str(path), None)
    renderer = load_renderer(TemplateConfig(template=str(path)), _tokenizer())
    found = convert(Row(_row(said), Origin("rows.jsonl", 0, 1)), layout("openai"))
    if isinstance(found, Converted) and isinstance(found.record, Conversation):
        renderer.render_spans(found.record)
        renderer.render_spans_fast(found.record)


def _row(content: bytes) -> dict[str, Any]:
    from tunewright.data.json_rows import parse_strict
    from tunewright.errors import require

    values = parse_strict(_ORIGIN_FILE, content.decode("utf-8", "replace"))
    require(isinstance(values, dict), "a row is a JSON object")
    return dict(values)


def _exhaust(rows: Iterable[Any]) -> None:
    for _ in rows:
        pass


def _each(*calls: Any) -> None:
    """Every call, though one before it was refused; the first refusal is raised at the end."""
    from tunewright.errors import TunewrightError

    refused = []
    for call in calls:
        try:
            call()
        except TunewrightError as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: len(str(error).splitlines()))


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>")


def _lines(*rows: Any) -> bytes:
    return b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)


_CALL: Final = {"name": "f", "arguments": {"a": [1, {"b": None}]}}
_TOOL: Final = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}
_TURNS: Final = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 1}]
_CALLING: Final = [
    {"role": "user", "content": [{"type": "text", "text": "q"}]},
    {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [{"id": "1", "type": "function", "function": {
        "name": "f", "arguments": "{\"a\": 1}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "{}"}, {"role": "assistant", "content": "a"}]
_ROWS: Final[tuple[dict[str, Any], ...]] = (
    {"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]], "system": "s"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": json.dumps([_TOOL])},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(_CALL)},
                       {"from": "observation", "value": "{}"}, {"from": "gpt", "value": "a"}]},
    {"messages": _TURNS, "tools": [_TOOL]}, {"messages": _CALLING, "label": True},
    {"prompt": "q", "completion": "a", "kto_tag": False}, {"prompt": _TURNS[:2], "chosen": _TURNS[2:], "rejected": _TURNS[2:]},
    {"chosen": _TURNS, "rejected": _TURNS}, {"text": "t"}, {"prompt": "q"}, {"conversation": [{"human": "q", "assistant": "a"}]},
    {"input": {"messages": _TURNS[:2]}, "preferred_output": _TURNS[2:], "non_preferred_output": _TURNS[2:]},
    {"messages": [{"role": "user", "content": [{"type": "text", "value": "q"}]}, {"role": "assistant", "content": [
        {"type": "text", "value": "a"}]}]},
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]},
)
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def _templates() -> list[bytes]:
    from tunewright.data.template_sources import bundled_names, bundled_source

    texts = [CHATML, *(bundled_source(name).text for name in bundled_names()[:12])]
    return [text.encode() + _BETWEEN + _lines({"messages": turns}) for text in texts for turns in (_TURNS, _CALLING)]


def _tables() -> list[bytes]:
    import io

    import pyarrow
    from pyarrow import ipc, parquet

    table = pyarrow.Table.from_pylist([{"messages": _TURNS, "n": 1}, {"messages": _TURNS[:2], "n": None}])
    found = []
    for compression in ("snappy", "none", "zstd"):
        stream = io.BytesIO()
        parquet.write_table(table, stream, compression=compression)
        found.append(stream.getvalue())
    for writer in (ipc.new_file, ipc.new_stream):
        stream = io.BytesIO()
        with writer(stream, table.schema) as out:
            out.write_table(table)
        found.append(stream.getvalue())
    return found


def _packed() -> list[bytes]:
    import bz2
    import gzip
    import lzma

    return [pack(_lines(*_ROWS)) for pack in (gzip.compress, bz2.compress, lzma.compress)]


TARGETS = (
    Target("json_rows", "rows in JSON and JSON lines", json_rows,
           lambda: [_lines(*_ROWS), json.dumps(_ROWS, indent=1).encode(), b"\xef\xbb\xbf" + _lines({"text": "\u00e9\ud7ff\U0001f600"})],
           _COLUMNS),
    Target("csv_rows", "rows in CSV and text", csv_rows, lambda: [b'human,assistant,n\r\n"q, ""r""\nx",a,1\nq,a,2\n', b"text\na\n\nb\n"],
           words_in('"" , ; \t \r\n " human assistant')),
    Target("arrow_rows", "rows in Parquet and Arrow", arrow_rows, _tables),
    Target("packed_rows", "packed rows", packed_rows, _packed),
    Target("row_formats", "every format of a row", row_formats, lambda: [_lines(row) for row in _ROWS], _COLUMNS),
    Target("tool_calls", "tool calls and descriptions", tool_calls,
           lambda: [_lines(one) for one in (_CALL, [_CALL, _CALL], [_TOOL], _TOOL["function"], [{"name": "f", "arguments": "{}"}])],
           _COLUMNS),
    Target("template", "chat templates", template, _templates, (*_JINJA, *_COLUMNS), cpu_s=3.0),
)
