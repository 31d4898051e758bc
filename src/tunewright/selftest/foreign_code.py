"""Code that lies in foreign files is not run: pickles, Python beside weights and rows, keys that choose code, templates, YAML tags.

Each plant leaves a mark if it runs. A case is one command on a folder in which one role - the model, the adapter, ... - holds plants of
one kind. It passes if there is no mark, no plant was opened, no socket was asked for, and the command ended with one of the exit codes
that its kind allows, and without a traceback.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.forked import Commands, Ended, commands
from tunewright.selftest.network import local_environment, ready

PLANTS: Final = "plants"
MARK: Final = "code-was-run"
PICKLES: Final = (
    "pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "adapter_model.bin", "value_head.bin", "optimizer.pt", "optimizer.bin",
    "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "training_args.bin", "trainer_state.pkl", "model.pkl", "state.pt", ".metadata",
    "dataset.pkl", "rows.pickle", "tokenizer.pkl", "model.ckpt", "model.joblib", "scaler.pt", "random_states_0.pkl")
"""Names under which this and other programs keep pickles."""
CODE: Final = ("modeling_planted.py", "configuration_planted.py", "tokenization_planted.py", "dataset.py", "data.py", "rows.py",
               "__init__.py", "custom_generate/generate.py", "handler.py", "setup.py")
_CLASSES: Final = {"AutoConfig": "configuration_planted.PlantedConfig", "AutoModel": "modeling_planted.PlantedModel",
                   "AutoModelForCausalLM": "modeling_planted.PlantedModel",
                   "AutoTokenizer": ["tokenization_planted.PlantedTokenizer", "tokenization_planted.PlantedTokenizer"]}
_TRUSTED: Final = {"trust_remote_code": True}
"""In a foreign file; only the user may say so."""
_KERNEL: Final = "planted/kernel"
ESCAPE: Final = "{{ cycler.__init__.__globals__.os.system('touch MARK') }}{{ ''.__class__.__mro__[1].__subclasses__() }}"
"""Public escapes from jinja without a sandbox."""
TAGS: Final = {
    "object/apply": "!!python/object/apply:os.system ['touch MARK']",
    "object/new": "!!python/object/new:os.system ['touch MARK']",
    "name": "!!python/name:os.system",
    "module": "!!python/module:planted",
}
USES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "model": {
        "train": ["train", "run.json"],
        "train in full": ["train", "run.json", "finetuning_type=full"],
        "eval": ["eval", "run.json", "eval_dataset=rows.jsonl"],
        "predict": ["predict", "run.json", "eval_dataset=rows.jsonl"],
        "chat": ["chat", "model", "max_new_tokens=2", "use_cpu=true"],
        "export": ["export", "--model", "model", "--adapter", "adapter", "--out", "merged"],
        "preview": ["preview", "run.json"],
        "prepare": ["prepare", "run.json"],
        "plan": ["plan", "run.json"],
        "check": ["check", "run.json"],
        "template check": ["template", "check", "--model", "model"],
        "reference of itself": ["train", "run.json", "stage=dpo", "dataset=pairs.jsonl", "ref_model=model"],
    },
    "adapter": {
        "train": ["train", "run.json", "adapter_name_or_path=adapter"],
        "eval": ["eval", "run.json", "eval_dataset=rows.jsonl", "adapter_name_or_path=adapter"],
        "predict": ["predict", "run.json", "eval_dataset=rows.jsonl", "adapter_name_or_path=adapter"],
        "chat": ["chat", "adapter", "max_new_tokens=2", "use_cpu=true"],
        "export": ["export", "adapter", "export_dir=merged"],
        "plan": ["plan", "run.json", "adapter_name_or_path=adapter"],
        "check": ["check", "run.json", "adapter_name_or_path=adapter"],
        "reference": ["train", "run.json", "stage=dpo", "dataset=pairs.jsonl", "ref_model=model", "ref_model_adapters=adapter"],
    },
    "tokenizer": {
        "train": ["train", "run.json", "tokenizer_name_or_path=tokenizer"],
        "predict": ["predict", "run.json", "eval_dataset=rows.jsonl", "tokenizer_name_or_path=tokenizer"],
        "chat": ["chat", "model", "max_new_tokens=2", "use_cpu=true", "tokenizer_name_or_path=tokenizer"],
        "preview": ["preview", "run.json", "tokenizer_name_or_path=tokenizer"],
        "prepare": ["prepare", "run.json", "tokenizer_name_or_path=tokenizer"],
        "plan": ["plan", "run.json", "tokenizer_name_or_path=tokenizer"],
        "check": ["check", "run.json", "tokenizer_name_or_path=tokenizer"],
    },
    "reference": {
        verb: [verb, "run.json", "stage=dpo", "dataset=pairs.jsonl", "ref_model=reference"] for verb in ("train", "check", "plan")},
    "reward": {
        verb: [verb, "run.json", "stage=ppo", "reward_model=reward", "reward_model_type=full", "max_new_tokens=2"]
        for verb in ("train", "check", "prepare")},
    "data": {
        **{verb: [verb, "run.json", "dataset=data"] for verb in ("train", "prepare", "preview", "check", "plan")},
        "data check": ["data", "check", "data"],
    },
    "checkpoint": {
        "train": ["train", "run.json", "output_dir=adapter", "max_steps=3", "allow_change=max_steps"],
        "check": ["check", "run.json", "output_dir=adapter", "max_steps=3", "allow_change=max_steps"],
        "chat": ["chat", "adapter/checkpoint-2", "max_new_tokens=2", "use_cpu=true"],
        "export": ["export", "adapter/checkpoint-2", "export_dir=merged"],
    },
}
"""Role -> command -> its words."""
PLACES: Final = {"checkpoint": "adapter/checkpoint-2"}
"""Where a role lies, if not in the folder of its name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of plant. `put`: into the directory of a role; what it put is returned, and may not be opened. `codes`: how a command
    may end. `roles`: where it makes sense."""

    name: str
    put: Callable[[Path], Collection[str]]
    codes: tuple[int, ...]
    roles: tuple[str, ...] = tuple(USES)


def pickled(mark: Path) -> bytes:
    """A pickle, written out by hand, that leaves the mark when it is read: `os.system("touch MARK")`."""
    return b"cos\nsystem\n(Vtouch " + str(mark).encode() + b"\ntR."


def archived(mark: Path) -> bytes:
    """The same as `torch.save` writes it: the pickle in an archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(mark))
        archive.writestr("archive/version", "3\n")
    return made.getvalue()


def code(mark: Path) -> str:
    """Python that leaves the mark when it is imported, and has the classes that `auto_map` names."""
    return (f"open({str(mark)!r}, 'w').close()\nfrom transformers import *\nclass PlantedConfig(LlamaConfig): model_type = 'planted'\n"
            "class PlantedModel(LlamaForCausalLM): pass\nclass PlantedTokenizer(PreTrainedTokenizerFast): pass\n")


def kinds() -> tuple[Kind, ...]:
    """Every kind of plant."""
    weighty = ("model", "adapter", "reference", "reward", "checkpoint")
    opened = ("model", "tokenizer", "reference", "reward")
    return (
        Kind("pickles", lambda place: _pickles(place, pickled(_mark(place))), (0, 2)),
        Kind("archived pickles", lambda place: _pickles(place, archived(_mark(place))), (0, 2)),
        Kind("pickles alone", _pickles_alone, (0, 2), weighty),
        Kind("own code", _own_code, (0,)),
        Kind("keys that choose code", _steering, (0, 2)),
        Kind("a class that is not known", _own_class, (0, 2), opened),
        Kind("a chat template that escapes", _template, (0, 2), ("model", "tokenizer", "adapter", "checkpoint")),
    )


def cases() -> Iterator[tuple[str, str, Kind]]:
    """(role, command, kind) of all cases but those of configurations."""
    yield from ((role, verb, kind) for role, verbs in USES.items() for verb in verbs for kind in kinds() if role in kind.roles)


def groups(size: Size) -> Sequence[str]:
    """Where the plants are."""
    return (PLANTS,)


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """All cases, or every seventeenth; configurations for all commands, or for two."""
    is_full = size is Size.FULL
    base = ready(tools.folder / "base")
    with commands(("train", "run.json", "output_dir=adapter"), base, local_environment(base)) as process:
        _give_roles(process, base)
        for number, asked in enumerate(list(cases())[:: 1 if is_full else 17]):
            yield _case(group, process, asked, base, tools.folder / str(number))
        yield from _configurations(group, process, base, ("train", "check", "plan", "prepare", "preview", "predict")[: 6 if is_full else 2])


def _give_roles(process: Commands, base: Path) -> None:
    """The directories of the other roles; the adapter is what the first command left."""
    shutil.copytree(base / "model", base / "reference")
    shutil.copytree(base / "model", base / "tokenizer")
    for path in (*(base / "tokenizer").glob("*.safetensors"), base / "tokenizer" / "generation_config.json"):
        path.unlink()
    (base / "data").mkdir()
    shutil.copy(base / "rows.jsonl", base / "data")
    rows = [json.loads(line) for line in (base / "rows.jsonl").read_text().splitlines()]
    pairs = [{"instruction": row["instruction"], "chosen": row["output"], "rejected": row["instruction"]} for row in rows]
    (base / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    judged = process.run(["train", "run.json", "stage=rm", "dataset=pairs.jsonl", "finetuning_type=full", "output_dir=reward"], base)
    if judged.code:
        raise RuntimeError(f"the reward model could not be trained: {judged.last_line()}")


def _case(group: str, process: Commands, asked: tuple[str, str, Kind], base: Path, folder: Path) -> Outcome:
    role, verb, kind = asked
    shutil.copytree(base, folder)
    planted = kind.put(folder / PLACES.get(role, role))
    ended = process.run(USES[role][verb], folder, said="Hello\nexit\n")
    outcome = judged(group, f"{kind.name}, {role}, {verb}", ended, folder, kind.codes, planted)
    shutil.rmtree(folder)
    return outcome


def judged(group: str, case: str, ended: Ended, folder: Path, codes: Collection[int], planted: Collection[str] = ()) -> Outcome:
    """What a command came to on a folder with plants."""
    opened = sorted(path for path in ended.opened if Path(path).name in planted and _is_inside(path, folder))
    faults = (
        ("the planted code ran", any(folder.rglob(MARK)) or "Planted" in ended.out),
        (f"{opened[:1]} was opened", bool(opened)),
        (f"the network was asked: {ended.network[:1]}", bool(ended.network)),
        ("a traceback", "Traceback" in ended.err or "internal error" in ended.err),
        (f"exit code {ended.code}", ended.code not in codes),
    )
    said = next((what for what, happened in faults if happened), "")
    return Outcome(group, case, not said, f"{said}: {ended.last_line()}" if said else "")


def _is_inside(path: str, folder: Path) -> bool:
    """Whether a path that a command in `folder` opened is one of the folder; it may be relative to it."""
    return (folder / path).resolve().is_relative_to(folder.resolve())


def _mark(place: Path) -> Path:
    """The mark lies in the directory that holds the plant."""
    return place.resolve() / MARK


def _pickles(place: Path, content: bytes) -> Collection[str]:
    for name in PICKLES:
        (place / name).write_bytes(content)
    return PICKLES


def _pickles_alone(place: Path) -> Collection[str]:
    """As a repository without safetensors has them."""
    for path in place.glob("*.safetensors"):
        path.unlink()
    return _pickles(place, archived(_mark(place)))


def _own_code(place: Path) -> Collection[str]:
    """Code, and the keys by which transformers would be sent to it."""
    for name in CODE:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(code(_mark(place)))
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"):
        _add(place / name, auto_map=_CLASSES, custom_generate=str(place), **_TRUSTED)
    return [Path(name).name for name in CODE]


def _steering(place: Path) -> Collection[str]:
    """Keys that fetch kernels, import modules or read files from elsewhere."""
    (place / "planted.py").write_text(code(_mark(place)))
    chosen = dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"), _KERNEL)
    _add(place / "config.json", **chosen, use_kernels=True, custom_pipelines={"text-generation": {"impl": "planted.Planted"}},
         text_config={**chosen, "auto_map": _CLASSES})
    _add(place / "generation_config.json", custom_generate="planted/generate", assistant_model="planted/model", **_TRUSTED,
         compile_config={"backend": "planted"}, watermarking_config={"ngram_len": "planted"})
    _add(place / "tokenizer_config.json", auto_map=_CLASSES, backend_tokenizer="planted.Planted", fix_mistral_regex=True,
         init_inputs=["planted"], extra_special_tokens={"planted": "<planted>"})
    if (place / "adapter_config.json").is_file():
        _add(place / "adapter_config.json", auto_mapping={"base_model_class": "Planted", "parent_library": "planted"},
             megatron_config={"planted": True}, megatron_core="planted", eva_config={"planted": 1}, corda_config={"planted": 1},
             loftq_config={"planted": 1}, layer_replication=[[0, 1]], base_model_name_or_path_revision=_KERNEL)
    return ["planted.py"]


def _own_class(place: Path) -> Collection[str]:
    """A family and a tokenizer that only the code beside them knows."""
    planted = _own_code(place)
    _add(place / "config.json", model_type="planted", architectures=["PlantedModel"])
    _add(place / "tokenizer_config.json", tokenizer_class="PlantedTokenizer")
    return planted


def _template(place: Path) -> Collection[str]:
    (place / "chat_template.jinja").write_text(ESCAPE.replace("MARK", str(_mark(place))))
    return ()


def _add(file: Path, **values: Any) -> None:
    """More keys in a JSON file, which is made if it is not there."""
    if not file.is_file() and (file.name == "config.json" or not (file.parent / "tokenizer_config.json").is_file()):
        return  # Rows have no such files, and an adapter has no model's.
    there = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(there | values))


def _configurations(group: str, process: Commands, folder: Path, verbs: Sequence[str]) -> Iterator[Outcome]:
    """Tags of YAML that name Python, at the top and below it, and Python where a value is expected."""
    (folder / "planted.py").write_text(code(_mark(folder)))
    plain = "".join(f"{key}: {json.dumps(value)}\n" for key, value in json.loads((folder / "run.json").read_text()).items())
    values = {f"tag {name}": value.replace("MARK", str(_mark(folder))) for name, value in TAGS.items()}
    values |= {"code as a value": f"\"__import__('os').system('touch {_mark(folder)}')\"",
               "shell in a value": f"\"$(touch {_mark(folder)})\"",
               "jinja in a value": "\"" + ESCAPE.replace("MARK", str(_mark(folder))).replace("\"", "'") + "\""}
    for verb in verbs:
        for name, value in values.items():
            (folder / "planted.yaml").write_text(f"{plain}lora_target: {value}\n")
            # A text in lora_target is refused where modules are looked at; commands that open no model do not.
            codes = (2,) if name.startswith("tag") else (0, 2)
            yield judged(group, f"{name}, {verb}", process.run([verb, "planted.yaml"], folder), folder, codes, ["planted.py"])


CHECK: Final = Check(
    "foreign-code", "No code in foreign files is run: not in pickles, beside weights or rows, in templates or in YAML tags.", 300, groups,
    run)
