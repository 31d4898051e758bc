"""RunConfig: the tree of groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunewright.config.alignment import AlignmentConfig
from tunewright.config.checkpoints import (
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
)
from tunewright.config.data import DataConfig, TemplateConfig
from tunewright.config.hub import HubConfig
from tunewright.config.inference import ExportConfig, GenerationConfig, InferenceConfig
from tunewright.config.kernels import KernelsConfig
from tunewright.config.losses import LossConfig
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.optimization import (
    BatchingConfig,
    OptimizerConfig,
    ParallelConfig,
    PrecisionConfig,
    ScheduleConfig,
)
from tunewright.config.profiling import ProfilingConfig
from tunewright.config.quantization import QuantizationConfig
from tunewright.config.run_control import RunControl
from tunewright.config.tuning import FreezeConfig, LoraConfig, TuningConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Every parameter of a run; field names of the groups are unique over the whole tree. `config.derive` fills in what follows."""

    run: RunControl = field(default_factory=RunControl)
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    profiling: ProfilingConfig = field(default_factory=ProfilingConfig)
