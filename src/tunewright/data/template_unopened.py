"""What can be known of a chat template before the tokenizer is opened: that it exists, its size, that it is text, its syntax."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tunewright.data.template_sources import MAX_TEMPLATE_BYTES, bundled_names, file_source, named_policy
from tunewright.errors import refuse, require

FILE_ENDINGS: Final = (".jinja", ".jinja2", ".j2")


def check_template(template: str, own: tuple[str, Path] | None) -> None:
    """Raise `InputError` if `template` names nothing, or what it names is too large, not text or not jinja.

    `own` is the template in the tokenizer's files with the file that holds it, for `auto`; None if there is none.
    """
    if template.lower() == "auto":
        if own is None:
            refuse("model_name_or_path: the tokenizer has no chat template",
                   mend=f"set template to the format the model was trained with: {', '.join(bundled_names())}, or a jinja file")
        _check_text(*own)
    elif template.endswith(FILE_ENDINGS) or "/" in template:
        path = Path(os.path.expanduser(template))
        if os.path.isfile(path):  # a rule reports one that is not there
            _check_text(file_source(path).text, path)
    else:
        policy = named_policy(template)
        if policy.tokenizer is not None and own is not None:
            _check_text(*own)


def _check_text(text: str, file: Path) -> None:
    """Parses and never runs: what is not jinja for our parser but has a tag of transformers' own is judged later."""
    from jinja2 import Environment, TemplateSyntaxError

    require(len(text.encode("utf-8")) <= MAX_TEMPLATE_BYTES, f"the template is larger than {MAX_TEMPLATE_BYTES // 1024} kB",
            where=str(file), mend="use a smaller template")
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True).parse(text)
    except TemplateSyntaxError as error:
        if "generation" not in text:
            line = error.lineno if file.suffix != ".json" else 1
            refuse(f"the chat template is not valid jinja: {error.message}", where=f"{file}:{line}", mend="correct the template")
    except ValueError:  # Python reads no longer ones from a text.
        refuse("a number of thousands of digits is in the chat template", where=str(file), mend="correct the template")
    except RecursionError:
        refuse("the chat template is nested too deeply", where=str(file), mend="use a simpler template")
