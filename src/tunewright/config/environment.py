"""Environment variables that users of this and of other trainers set: what each does here, or why it does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. `sets`: the parameter whose value it gives, above the file and below the command line. `instead`: why
    it does nothing here, and what does; None if it is honoured."""

    name: str
    meaning: str
    sets: str | None = None
    instead: str | None = None
    secret: bool = False


_LEVELS: Final[Mapping[str, str]] = {"warn": "warning", "fatal": "critical"}


def spelled_here(variable: Variable, text: str) -> str:
    """The value of a variable as our parameter takes it: LLaMA-Factory has levels in capital letters, and two more words for them."""
    return _LEVELS.get(text.lower(), text.lower()) if variable.sets == "log_level" else text


def _not_built(name: str, meaning: str) -> Variable:
    return Variable(name, meaning, instead="not built yet")


VARIABLES: Final[tuple[Variable, ...]] = (
    Variable("TUNEWRIGHT_DEBUG", "1 shows the traceback of an error."),
    Variable("TUNEWRIGHT_CACHE", "Directory of the demo model and other downloads of our own."),
    Variable("NO_COLOR", "Set to anything: no colours in the terminal."),
    Variable("HF_HOME", "Directory of the Hugging Face cache."),
    Variable("HF_ENDPOINT", "Address of the model hub."),
    Variable("HF_TOKEN", "Token for gated models and for uploads.", secret=True),
    Variable("HF_HUB_OFFLINE", "1 never asks the network for a model."),
    Variable("CUDA_VISIBLE_DEVICES", "The GPUs that a run may use."),
    Variable("OMP_NUM_THREADS", "Threads of each process on the CPU."),
    Variable("RANK", "Number of this process, set by the launcher."),
    Variable("LOCAL_RANK", "Number of this process on its machine, set by the launcher."),
    Variable("WORLD_SIZE", "Number of processes, set by the launcher."),
    Variable("MASTER_ADDR", "Where the processes meet, set by the launcher."),
    Variable("MASTER_PORT", "The port at which they meet, set by the launcher."),
    Variable("NPROC_PER_NODE", "Processes on this machine.", sets="num_processes"),
    Variable("LLAMAFACTORY_VERBOSITY", "Least severe message that is told.", sets="log_level"),
    Variable("FORCE_TORCHRUN", "Starts several processes through torchrun.",
             instead="num_processes (or NPROC_PER_NODE) starts them; torchrun in front works too"),
    Variable("NNODES", "Machines of the run.", instead="put torchrun with --nnodes in front on each machine"),
    Variable("NODE_RANK", "Number of this machine.", instead="put torchrun with --node-rank in front on each machine"),
    Variable("RDZV_ID", "Name of an elastic run.", instead="put torchrun with --rdzv-id in front"),
    Variable("MIN_NNODES", "Least machines of an elastic run.", instead="put torchrun with --nnodes MIN:MAX in front"),
    Variable("MAX_NNODES", "Most machines of an elastic run.", instead="put torchrun with --nnodes MIN:MAX in front"),
    Variable("MAX_RESTARTS", "Restarts of an elastic run.", instead="put torchrun with --max-restarts in front; every start resumes"),
    Variable("DISABLE_VERSION_CHECK", "Skips the check of package versions.", instead="the package's own requirements pin what works"),
    Variable("FORCE_CHECK_IMPORTS", "Checks the imports of a model's code.", instead="trust_remote_code decides on a model's code"),
    Variable("ALLOW_EXTRA_ARGS", "Ignores unknown settings.", instead="an unknown setting is always an error: it would be ignored"),
    Variable("RECORD_VRAM", "Logs the memory of the GPU.", instead="skip_memory_metrics: false does"),
    Variable("OPTIM_TORCH", "Chooses torch's optimizers.", instead="optim chooses"),
    Variable("NPU_JIT_COMPILE", "Compiles operators on Ascend devices.", instead="Ascend devices are not supported"),
    Variable("ASCEND_RT_VISIBLE_DEVICES", "The Ascend devices that a run may use.", instead="Ascend devices are not supported"),
    Variable("USE_RAY", "Trains through Ray.", instead="Ray is not supported; every process is started by us or by torchrun"),
    Variable("USE_KT", "Trains through KTransformers.", instead="KTransformers is not supported"),
    Variable("USE_MCA", "Trains through Megatron.", instead="Megatron is not supported"),
    Variable("USE_MEGATRON_BRIDGE", "Trains through Megatron.", instead="Megatron is not supported"),
    Variable("USE_V1", "Chooses another version of LLaMA-Factory.", instead="there is one version of the engine"),
    _not_built("USE_MODELSCOPE_HUB", "Downloads from ModelScope."),
    _not_built("USE_OPENMIND_HUB", "Downloads from Modelers."),
    *(_not_built(f"WANDB_{name}", "Setting of Weights & Biases.") for name in ("MODE", "PROJECT", "NAME", "DISABLED")),
    Variable("WANDB_API_KEY", "Key of Weights & Biases.", instead="not built yet", secret=True),
    *(_not_built(name, "Setting of the server.") for name in (
        "API_HOST", "API_PORT", "API_MODEL_NAME", "API_VERBOSE", "FASTAPI_ROOT_PATH", "MAX_CONCURRENT")),
    Variable("API_KEY", "Key that the server asks for.", instead="not built yet", secret=True),
    *(_not_built(name, "Setting of the web interface.") for name in (
        "GRADIO_SHARE", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "GRADIO_IPV6")),
    *(_not_built(name, "Setting of images, video and audio.") for name in (
        "IMAGE_PLACEHOLDER", "VIDEO_PLACEHOLDER", "AUDIO_PLACEHOLDER", "SAFE_MEDIA_PATH", "ALLOW_LOCAL_FILES")),
)


def steering_in_vain(environment: Mapping[str, str]) -> list[Variable]:
    """The variables that are set, and with which another trainer would do what is not done here."""
    return [one for one in VARIABLES if one.instead is not None and environment.get(one.name, "") not in ("", "0", "false", "False")]
