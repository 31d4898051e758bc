"""Draws the README's pictures from a finished demo: its preview as SVG, its loss curve.

    python scripts/pictures.py [runs/demo]
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
ROW = 0
LINES = 26


def main(demo: Path) -> None:
    """Write docs/images/preview.svg and docs/images/training_loss.png."""
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    (images / "preview.svg").write_text(preview(demo / "train.yaml"), encoding="utf-8")
    shutil.copyfile(demo / "training" / "training_loss.png", images / "training_loss.png")


def preview(settings: Path) -> str:
    """What `tunewright preview` shows of the first training sequence, as SVG."""
    from rich.console import Console

    from tunewright.commands.preview import coloured, prepared_examples
    from tunewright.data.preview import preview_lines
    from tunewright.dialects.read import read_config

    config = read_config([str(settings)], purpose="preview").resolve().config
    examples, tokenizer = prepared_examples(config, None)
    console = Console(record=True, width=110, highlight=False, file=io.StringIO(), force_terminal=True)
    for line in preview_lines(examples[ROW], tokenizer, examples.origins(ROW))[:LINES]:
        console.print(coloured(line))
    return console.export_svg(title="tunewright preview", unique_id="preview")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "demo"))
