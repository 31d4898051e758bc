"""Which files of a hub's data set are a split of one of its subsets. Pure: names in, names out.

A README may say it, under `configs`; else the names do, as the package `datasets` reads them: a file whose name or folder has the word
`train` in it is of that split, and where no file has any such word all are `train`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunewright.data.files import kind_of
from tunewright.data.place import Place
from tunewright.errors import InputError

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def files_of(place: Place, names: Sequence[str], readme: str | None) -> list[str]:
    """The data files, sorted, among all `names` of the repository. Raises `InputError` naming what there is if there are none."""
    data = [name for name in sorted(names) if kind_of(name) is not None and not name.rpartition("/")[2].startswith(".")]
    configs = {str(one.get("config_name", "default")): one for one in _configs(readme)}
    inside = [name for name in data if name.startswith(f"{place.folder.strip('/')}/")] if place.folder else data
    if place.folder and not inside:
        raise InputError(f"{place}: no data files in the folder `{place.folder}`", mend=_instead("folders", _folders(data)))
    if place.subset is not None and place.subset not in configs:
        found = [name for name in inside if name.startswith(f"{place.subset}/")]
        if not found:
            raise InputError(f"{place.name}: no subset `{place.subset}`", mend=_instead("subsets", sorted(configs) or _folders(data)))
        return _of_split(place, found)
    config = _chosen(place, configs)
    if config is None or config.get("data_files") is None:
        below = f"{str(config['data_dir']).strip('/')}/" if config and config.get("data_dir") else ""
        return _of_split(place, [name for name in inside if name.startswith(below)])
    return _declared(place, config["data_files"], inside)


def _chosen(place: Place, configs: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if not configs or place.folder is not None:
        return None
    if place.subset is not None:
        return configs[place.subset]
    marked = [name for name, one in configs.items() if one.get("default")]
    if marked or "default" in configs or len(configs) == 1:
        return configs[marked[0]] if marked else configs.get("default") or next(iter(configs.values()))
    raise InputError(f"{place.name}: has several subsets", mend=f"name one, such as {place.name}:{next(iter(configs))}; "
                     f"there are {', '.join(configs)}")


def _declared(place: Place, data_files: Any, names: Sequence[str]) -> list[str]:
    """The files that a README's `data_files` gives the split: a pattern, several, or one entry for each split."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        split, path = (str(entry.get("split", "train")), entry.get("path")) if isinstance(entry, Mapping) else ("train", entry)
        splits.setdefault(split, []).extend(str(one) for one in (path if isinstance(path, list) else [path]))
    if place.split not in splits:
        raise InputError(f"{place}: no split `{place.split}`", mend=_instead("splits", list(splits)))
    found = [name for name in names if any(fnmatch.fnmatch(name, pattern.removeprefix("./")) for pattern in splits[place.split])]
    if not found:
        raise InputError(f"{place}: no data files for the split `{place.split}`", mend="download the data and set file_name")
    return found


def _of_split(place: Place, names: Sequence[str]) -> list[str]:
    if not names:
        raise InputError(f"{place}: the repository holds no data files that can be read", mend="a script there is not run; "
                         "save its rows as JSONL yourself and set file_name")
    by_split = {split: [name for name in names if _has_word(name, words)] for split, words in _WORDS.items()}
    if not any(by_split.values()):
        by_split = {"train": list(names)}
    words = by_split.get(place.split) or [name for name in names if _has_word(name, (place.split,))]
    if not words:
        raise InputError(f"{place}: no split `{place.split}`", mend=_instead("splits", [name for name, some in by_split.items() if some]))
    return words


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(re.search(rf"(?:^|[^a-zA-Z]){re.escape(word)}(?:[^a-zA-Z]|$)", name) for word in words)


def _configs(readme: str | None) -> list[Mapping[str, Any]]:
    """The subsets that the front matter of a README names."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\s*(?:\n|$)", readme or "", re.DOTALL)
    if found is None:
        return []
    import yaml

    try:
        said = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return []  # a README is prose: what cannot be read of it says nothing of files
    configs = said.get("configs") if isinstance(said, dict) else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def _folders(names: Sequence[str]) -> list[str]:
    return sorted({name.rpartition("/")[0] for name in names if "/" in name})


def _instead(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else f"it has no {what}"
