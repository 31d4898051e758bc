"""Data sets of hubs and paths in the cloud. The hub's cache is written as huggingface_hub lays it out; fsspec's own memory is the cloud."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import huggingface_hub
import pytest
from huggingface_hub import constants

from tunewright.config.data import DataConfig
from tunewright.data import remote
from tunewright.data.hub_files import files_of
from tunewright.data.place import CLOUD, HUB, MODELSCOPE, Place, hub_place, without_count
from tunewright.data.sources import Source, rows, source_of
from tunewright.errors import InputError

ROW = '{{"instruction": "q", "output": "{}"}}\n'
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, an empty cache, and a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in ("_snapshot_download", "file_download"):  # where the setting was copied to
        copied = sys.modules.get(f"huggingface_hub.{module}")
        if copied is not None and hasattr(copied, "HF_HUB_CACHE"):
            monkeypatch.setattr(copied, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def cached(name: str, files: dict[str, str]) -> Path:
    """A data set as it lies in the cache after a download."""
    folder = Path("hub") / f"datasets--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    for path, content in files.items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_text(content)
    return snapshot


def source(spec: Any, report: list[str] | None = None, **data: Any) -> Source:
    return source_of(spec, DataConfig(dataset=(spec,), **data), "dataset", (report if report is not None else []).append)


def answers(spec: Any, **data: Any) -> list[str]:
    return [row.values["output"] for row in rows(source(spec, **data))]


def refusal(spec: Any, **data: Any) -> str:
    with pytest.raises(InputError) as caught:
        answers(spec, **data)
    assert "\n" not in caught.value.line()
    return caught.value.line()


FILES = {"data/train-00000.jsonl": ROW.format("a"), "data/train-00001.jsonl": ROW.format("b"), "data/test.jsonl": ROW.format("c"),
         "en/train.jsonl": ROW.format("e"), "script.py": "raise SystemExit('ran')"}


def test_a_data_set_of_the_hub() -> None:
    folder = cached("org/name", FILES).resolve()
    said: list[str] = []
    found = source("org/name:en", said)
    assert [row.values["output"] for row in rows(found)] == ["e"]
    assert [str(file.path.resolve()) for file in found.files] == [str(folder / "en/train.jsonl")]
    assert said == [f"org/name:en: 1 files from org/name:en, in {found.files[0].path.parent}"]


def test_the_ways_to_name_it() -> None:
    cached("org/name", FILES)
    Path("data").mkdir()
    entries = {"one": {"hf_hub_url": "org/name", "folder": "data"}, "two": {"hf_hub_url": "org/name", "subset": "en"},
               "three": {"hf_hub_url": "org/name", "ms_hub_url": "other/name", "folder": "data", "split": "test", "file_name": "gone"},
               "four": {"hf_hub_url": "org/name", "script_url": "x", "folder": "data", "num_samples": 1}}
    Path("data/dataset_info.json").write_text(json.dumps(entries))
    assert answers("one") == ["a", "b"]
    assert answers("two") == ["e"]
    assert answers("three") == ["c"]
    assert source("four").num_samples == 1
    for spec in ("HF::org/name:en", "hf://datasets/org/name:en", {"hf_hub_url": "org/name", "subset": "en"}):
        assert answers(spec) == ["e"]
    assert source("org/name:en#7").num_samples == 7
    assert answers("org/name:en", dataset_dir="ONLINE") == ["e"]
    assert answers("two", dataset_dir={"two": entries["two"]}) == ["e"]


def test_a_registry_in_a_hub() -> None:
    cached("org/registry", {"dataset_info.json": json.dumps({"mine": {"file_name": "rows/a.jsonl"}, "other": {"hf_hub_url": "org/name"}}),
                            "rows/a.jsonl": ROW.format("r")})
    cached("org/name", {"train.jsonl": ROW.format("n")})
    assert answers("mine", dataset_dir="REMOTE:org/registry") == ["r"]
    assert answers("other", dataset_dir="REMOTE:org/registry") == ["n"]
    assert refusal("gone", dataset_dir="REMOTE:org/registry") == (
        "dataset: `gone` is not a name in org/registry/dataset_info.json, a file or a folder")


def test_a_local_file_comes_before_the_hub() -> None:
    cached("org/name", FILES)
    Path("org/name").mkdir(parents=True)
    Path("org/name/rows.jsonl").write_text(ROW.format("local"))
    assert answers("org/name") == ["local"]


def test_without_a_network_it_is_said_in_one_line() -> None:
    assert refusal("org/gone").startswith(
        "dataset: org/gone is no file, folder or registered name here, and the hub did not give it (LocalEntryNotFoundError: ")
    assert refusal("org/gone").endswith("; check the spelling and the network, or download the data and name its folder")
    assert refusal("mine", dataset_dir="REMOTE:org/gone").startswith(
        "dataset: org/gone is no file, folder or registered name here, and the hub did not give it (")


def test_the_hub_is_asked_for_the_files_of_the_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network: the names come from the hub, then the README, then the files that hold the split; a script is never fetched."""
    files = {**FILES, "README.md": '---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: "data/train-*"}\n---\n'}
    folder = cached("org/name", files)
    asked: list[Any] = []

    def downloaded(name: str, **how: Any) -> str:
        asked.append(how.get("allow_patterns", how))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **how: asked.append(how) or sorted(files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name, **how: str(folder / name))
    assert answers({"hf_hub_url": "org/name", "revision": "v1"}) == ["a", "b"]
    assert asked == [{"repo_type": "dataset", "revision": "v1"}, ["data/train-00000.jsonl", "data/train-00001.jsonl"]]


def test_modelscope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package is asked for the repository; without it one line says what is missing."""
    monkeypatch.setitem(sys.modules, "modelscope", None)
    assert refusal({"ms_hub_url": "org/name"}) == (
        "dataset: org/name lies on ModelScope, which needs the package `modelscope`, which is not installed; "
        "run: pip install modelscope, or download the data and set file_name")
    folder = cached("org/name", FILES)
    package, hub, module = (ModuleType(name) for name in ("modelscope", "modelscope.hub", "modelscope.hub.snapshot_download"))
    asked: list[Any] = []
    module.dataset_snapshot_download = (  # type: ignore[attr-defined]
        lambda name, revision, allow_patterns: asked.append((name, revision, "*.py" in allow_patterns)) or str(folder))
    for one in (package, hub, module):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    assert answers({"ms_hub_url": "org/name", "folder": "data"}) == answers("MS::org/name:data") == ["a", "b"]
    assert asked == [("org/name", None, False)] * 2


README = """---
license: mit
configs:
- config_name: en
  data_files:
  - {split: train, path: ["en/*.jsonl", "more.jsonl"]}
  - {split: test, path: test/en.jsonl}
- config_name: de
  default: true
  data_files: "de/*"
- config_name: fr
  data_dir: fr
---
# A data set
"""
NAMES = ["README.md", "en/a.jsonl", "en/b.jsonl", "de/a.parquet", "fr/train.csv", "fr/test.csv", "more.jsonl", "test/en.jsonl", "x.png",
         ".hidden.jsonl"]
CHOSEN: dict[str, tuple[Place, str | None, list[str]]] = {
    "default": (Place(HUB, "o/n"), README, ["de/a.parquet"]),
    "subset": (Place(HUB, "o/n", "en"), README, ["en/a.jsonl", "en/b.jsonl", "more.jsonl"]),
    "its split": (Place(HUB, "o/n", "en", "test"), README, ["test/en.jsonl"]),
    "a folder of it": (Place(HUB, "o/n", "fr"), README, ["fr/train.csv"]),
    "its test": (Place(HUB, "o/n", "fr", "test"), README, ["fr/test.csv"]),
    "folder": (Place(HUB, "o/n", folder="en"), README, ["en/a.jsonl", "en/b.jsonl"]),
    "no README": (Place(HUB, "o/n"), None, ["fr/train.csv"]),
    "README without front matter": (Place(HUB, "o/n", split="test"), "# words", ["fr/test.csv", "test/en.jsonl"]),
    "README that is no YAML": (Place(HUB, "o/n"), "---\na: [\n---\n", ["fr/train.csv"]),
    "subset by its folder": (Place(HUB, "o/n", "en"), None, ["en/a.jsonl", "en/b.jsonl"]),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_files_of_a_split(case: str) -> None:
    place, readme, expected = CHOSEN[case]
    assert files_of(place, NAMES, readme) == expected


@pytest.mark.parametrize(("names", "split", "expected"), [
    (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
    (["train.jsonl", "valid.jsonl"], "validation", ["valid.jsonl"]),
    (["dev/a.jsonl", "train/a.jsonl"], "validation", ["dev/a.jsonl"]),
    (["trainer.jsonl", "constraint.jsonl"], "train", ["constraint.jsonl", "trainer.jsonl"]),
    (["extra_split.jsonl", "train.jsonl"], "extra_split", ["extra_split.jsonl"]),
])
def test_splits_by_name(names: list[str], split: str, expected: list[str]) -> None:
    assert files_of(Place(HUB, "o/n", split=split), names, None) == expected


REFUSED: dict[str, tuple[Place, list[str], str | None, str]] = {
    "subset": (Place(HUB, "o/n", "it"), NAMES, README, "o/n: no subset `it`; subsets: de, en, fr"),
    "split": (Place(HUB, "o/n", "en", "val"), NAMES, README, "o/n:en: no split `val`; splits: train, test"),
    "split by name": (Place(HUB, "o/n", split="validation"), ["train.jsonl"], None, "o/n: no split `validation`; splits: train"),
    "folder": (Place(HUB, "o/n", folder="it"), ["en/a.jsonl"], None, "o/n: no data files in the folder `it`; folders: en"),
    "only a script": (Place(HUB, "o/n"), ["n.py"], None, "o/n: the repository holds no data files that can be read; "
                      "a script there is not run; save its rows as JSONL yourself and set file_name"),
    "several": (Place(HUB, "o/n"), ["a.jsonl"],
                "---\nconfigs:\n- {config_name: a, data_files: a}\n- {config_name: b, data_files: b}\n---\n",
                "o/n: has several subsets; name one, such as o/n:a; there are a, b"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_repository_lacks(case: str) -> None:
    place, names, readme, expected = REFUSED[case]
    with pytest.raises(InputError) as caught:
        files_of(place, names, readme)
    assert caught.value.line() == expected


@pytest.fixture
def cloud() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_paths_in_the_cloud(cloud: fsspec.AbstractFileSystem) -> None:
    for name in ("b", "a"):
        cloud.pipe(f"/bucket/{name}.jsonl", ROW.format(name).encode())
    cloud.pipe("/bucket/c.jsonl.gz", gzip.compress(ROW.format("c").encode()))
    cloud.pipe("/bucket/notes.md", b"x")
    assert answers("memory://bucket/a.jsonl") == ["a"]
    assert answers("memory://bucket/[ab].jsonl") == ["a", "b"]
    assert answers("memory://bucket") == ["a", "b", "c"]
    assert answers({"cloud_file_name": "memory://bucket/c.jsonl.gz"}) == ["c"]
    assert source("memory://bucket/a.jsonl#3").num_samples == 3


def test_a_copy_is_kept_until_the_file_changes(cloud: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    get_file = type(cloud).get_file
    monkeypatch.setattr(type(cloud), "get_file", lambda self, name, to, **how: fetched.append(name) or get_file(self, name, to, **how))
    cloud.pipe("/bucket/a.jsonl", ROW.format("a").encode())
    assert answers("memory://bucket/a.jsonl") == answers("memory://bucket/a.jsonl") == ["a"]
    assert fetched == ["/bucket/a.jsonl"]
    cloud.pipe("/bucket/a.jsonl", ROW.format("new").encode())
    assert answers("memory://bucket/a.jsonl") == ["new"]
    assert not list(remote.cache_folder().rglob("*.new"))


def test_a_file_url_is_the_file_itself() -> None:
    path = Path("a.jsonl").resolve()
    path.write_text(ROW.format("a"))
    assert [file.path for file in source(f"file://{path}").files] == [path]


CLOUDS = {
    "s3://bucket/a.jsonl": "dataset: s3://bucket/a.jsonl needs the package `s3fs`, which is not installed; "
                           "run: pip install s3fs, or copy the file here",
    "gs://bucket/a.jsonl": "dataset: gs://bucket/a.jsonl needs the package `gcsfs`, which is not installed; "
                           "run: pip install gcsfs, or copy the file here",
    "memory://bucket/gone.jsonl": "dataset: memory://bucket/gone.jsonl names no data file; check the path and your access to it",
    "memory://bucket/*.jsonl": "dataset: memory://bucket/*.jsonl names no data file; check the path and your access to it",
    "nowhere://a.jsonl": "dataset: nowhere://a.jsonl: ValueError: Protocol not known: nowhere; schemes: s3, gs, file and others of fsspec",
}


@pytest.mark.parametrize("url", CLOUDS)
@pytest.mark.usefixtures("cloud")
def test_clouds_that_cannot_be_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    assert refusal(url) == CLOUDS[url]


def test_an_error_of_a_cloud_is_one_line(cloud: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentials(Exception):
        """What a cloud's package may raise: no error of Python's own."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentials("Unable to locate credentials\nmore")

    cloud.pipe("/bucket/a.jsonl", b"x")
    monkeypatch.setattr(type(cloud), "get_file", refuse)
    assert refusal("memory://bucket/a.jsonl") == (
        "dataset: memory://bucket/a.jsonl cannot be read: NoCredentials: Unable to locate credentials; "
        "check the path and your access to it")


@pytest.mark.parametrize(("spec", "place"), [
    ("org/name", Place(HUB, "org/name")), ("org/name:sub", Place(HUB, "org/name", "sub")), ("HF::name", Place(HUB, "name")),
    ("MS::org/name", Place(MODELSCOPE, "org/name")), ("hf://datasets/org/name", Place(HUB, "org/name")), ("name", None),
    ("./org/name", None), ("a/b/c", None), ("/org/name", None), ("~/name", None)])
def test_names_of_repositories(spec: str, place: Place | None) -> None:
    assert hub_place(spec) == place


@pytest.mark.parametrize(("spec", "expected"), [("a#5", ("a", 5)), ("a", ("a", None)), ("a#", ("a#", None)), ("a#x", ("a#x", None)),
                                                ("a#0", ("a#0", None)), ("a#1#2", ("a#1", 2))])
def test_numbers_after_a_name(spec: str, expected: tuple[str, int | None]) -> None:
    assert without_count(spec) == expected


def test_a_name_with_a_number_sign_is_a_file_first() -> None:
    Path("a.jsonl").write_text(ROW.format("a"))
    assert source("a.jsonl#2").num_samples == 2
    Path("b#2.jsonl").write_text(ROW.format("b"))
    assert (answers("b#2.jsonl"), source("b#2.jsonl").num_samples) == (["b"], None)


def test_check_fetches_nothing() -> None:
    """What lies elsewhere is left for the run."""
    from tunewright.config.run import RunConfig
    from tunewright.data.probe import probe

    assert probe(RunConfig(data=DataConfig(dataset=("org/name", "s3://bucket/a.jsonl")))) == []
    assert Place(CLOUD, "s3://bucket/a.jsonl").kind == "cloud"
