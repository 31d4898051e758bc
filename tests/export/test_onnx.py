"""Exported ONNX graphs: what onnxruntime computes from them is what torch computes, for any number of rows and tokens."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from tests.export.test_merge import base_at, export_run, trained
from tests.models.tiny import VOCABULARY, tiny_model
from tunewright.cli import main
from tunewright.errors import InputError, NumericError
from tunewright.export import merge
from tunewright.export.onnx import ONNX_FILE, require_same, write_onnx
from tunewright.export.probe import Difference

pytestmark = pytest.mark.filterwarnings("ignore")


def by_onnxruntime(file: Path, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma"])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (3, 11), (2, 40)])
def test_logits_equal_those_of_torch(tmp_path: Path, family: str, rows: int, tokens: int) -> None:
    """Oracle: torch's own logits of the same model. Rows padded on the left: where the mask is 0, nothing is promised."""
    model = tiny_model(family)
    write_onnx(model, tmp_path / ONNX_FILE)
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, : tokens // 3] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
    found = by_onnxruntime(tmp_path / ONNX_FILE, ids, mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 0.1


@pytest.mark.effect("export_onnx")
def test_the_command_writes_the_merged_model_as_a_graph_too(tmp_path: Path) -> None:
    """Beside the safetensors, only if asked; the graph is that of base and adapter together, and passes ONNX's own checker."""
    model, directory = trained(tmp_path, base_at(tmp_path / "base"))
    merge.export(export_run(directory, tmp_path / "plain"))
    assert not (tmp_path / "plain" / ONNX_FILE).exists()
    words = ["export", "--dialect", "cli_reference", "--model", str(directory), "--out", str(tmp_path / "out"), "--export-onnx"]
    assert main(words) == 0
    onnx.checker.check_model(str(tmp_path / "out" / ONNX_FILE))
    ids = torch.arange(5, 17).reshape(2, 6)
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
    torch.testing.assert_close(by_onnxruntime(tmp_path / "out" / ONNX_FILE, ids, torch.ones_like(ids)), expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_graph_of_a_narrow_export_stays_float32(tmp_path: Path) -> None:
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    merge.export(export_run(directory, tmp_path / "out", export_onnx=True, export_dtype="bfloat16"))
    graph = onnx.load(str(tmp_path / "out" / ONNX_FILE)).graph
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_mixture_of_experts_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    _, directory = trained(tmp_path, base_at(tmp_path / "base", "qwen3_moe"))
    with pytest.raises(InputError, match="export_onnx: Qwen3MoeForCausalLM is a mixture of experts"):
        merge.export(export_run(directory, tmp_path / "out", export_onnx=True))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "run"}


@pytest.mark.parametrize(("logit", "divergence"), [(0.1, 0.0), (0.0, 1e-3), (float("nan"), float("nan"))])
def test_a_graph_that_computes_something_else_is_refused(logit: float, divergence: float) -> None:
    require_same(Difference(1e-5, 1e-9, 1.0))
    with pytest.raises(NumericError, match="ONNX"):
        require_same(Difference(logit, divergence, 1.0))


def test_without_the_packages_the_command_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(InputError, match=r'`onnxruntime`, which is not installed; run: pip install "tunewright\[onnx\]"'):
        write_onnx(tiny_model("llama"), tmp_path / ONNX_FILE)


@pytest.mark.slow
def test_nothing_is_left_of_an_export_whose_graph_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    monkeypatch.setattr(merge, "onnx_logits", lambda _file, prompts: [torch.zeros(len(one), 389) for one in prompts])
    with pytest.raises(NumericError):
        merge.export(replace(export_run(directory, tmp_path / "out", export_onnx=True)))
    assert not (tmp_path / "out").exists()


def test_onnx_is_not_imported_by_an_ordinary_export() -> None:
    """The extra is needed only where it is asked for."""
    code = "import sys, tunewright.export.merge; assert not {'onnx', 'onnxruntime'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
