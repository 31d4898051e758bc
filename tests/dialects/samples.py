"""A complete run in each vocabulary as its document shows it: names, values and defaults of the document."""

from __future__ import annotations

SFT_JSON = """{
  "output_dir": "output/qwen1.5-7b-sft-lora",
  "model_name_or_path": "modles/Qwen",
  "train_file_path": "data",
  "train_file_name": "aspcoder_train.csv",
  "template_name": "qwen",
  "train_mode": "lora",
  "num_train_epochs": 1,
  "per_device_train_batch_size": 1,
  "gradient_accumulation_steps": 16,
  "learning_rate": 2e-4,
  "max_seq_length": 1024,
  "logging_steps": 100,
  "save_steps": 100,
  "save_total_limit": 1,
  "lr_scheduler_type": "constant_with_warmup",
  "warmup_steps": 100,
  "lora_rank": 64,
  "lora_alpha": 16,
  "lora_dropout": 0.05,
  "gradient_checkpointing": true,
  "disable_tqdm": false,
  "optim": "paged_adamw_32bit",
  "seed": 42,
  "fp16": true,
  "report_to": "tensorboard",
  "dataloader_num_workers": 0,
  "save_strategy": "steps",
  "weight_decay": 0,
  "max_grad_norm": 0.3,
  "remove_unused_columns": false
}
"""

QLORA_SCRIPT = """\
model_name: ./chatglm3-6b-base
data_path: formatted_samples.json
output_dir: ./trained_model
training_recipe: lora
optim: paged_adamw_8bit
batch_size: 4
gradient_accumulation_steps: 1
n_epochs: 5
weight_decay: 0.0
learning_rate: 1e-4
max_grad_norm: 0.3
gradient_checkpointing: True
do_train: True
lr_scheduler_type: cosine
warmup_ratio: 0.03
logging_steps: 1
group_by_length: True
save_strategy: epoch
save_total_limit: 3
fp16: False
tokenizer_type: llama
trust_remote_code: True
compute_dtype: torch.float16
max_tokens: 4096
do_eval: True
evaluation_strategy: epoch
use_auth_token: False
use_fast: False
bits: 4
double_quant: True
quant_type: nf4
lora_r: 64
lora_alpha: 16
lora_dropout: 0.05
"""

MINDSPEED_FSDP2 = """\
model:
  model_name_or_path: ./Qwen3-8B
  trust_remote_code: False
  train_from_scratch: False
  tokenizer_name_or_path: None
data:
  dataset:
    file_name: ./my_data.json
    formatting: alpaca
  template: qwen3
  cutoff_len: 2048
  max_samples: 100000
  overwrite_cache: True
  preprocessing_num_workers: 1
  enable_thinking: True
parallel:
  tp_size: 1
  fsdp_size: 1
  recompute: True
  ep_size: 1
  ep_fsdp_size: 1
training:
  stage: sft
  output_dir: ./output
  per_device_train_batch_size: 1
  gradient_accumulation_steps: 1
  dataloader_num_workers: 0
  seed: 42
  optimizer: adamw
  lr: 1e-05
  weight_decay: 0.01
  adam_beta1: 0.9
  adam_beta2: 0.95
  adam_epsilon: 1e-08
  max_grad_norm: 1.0
  lr_scheduler_type: cosine
  warmup_ratio: 0.03
  min_lr: 1e-06
  num_train_epochs: 3.0
  max_steps: -1
  save_steps: 500
  save_total_limit: 3
  logging_steps: 1
  resume_from_checkpoint: None
"""

LLAMAFACTORY = """\
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 1024
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/llama3-8b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""

CLI_REFERENCE = """\
--model_name_or_path Qwen/Qwen2.5-7B --finetuning_type lora --dataset alpaca_zh,identity --dataset-dir data --template auto \
--lora-rank 8 --lora-alpha 32 --lora_dropout 0.05 --lora_target q_proj,v_proj --cutoff-len 512 --use_fast_tokenizer true \
--attn-implementation eager --tuner_backend peft --learning-rate 5e-5 --num_train_epochs 3.0 --per-device-train-batch-size 8 \
--gradient_accumulation_steps 1 --lr_scheduler_type cosine --warmup-ratio 0.03 --weight_decay 0.0 --max_grad_norm 1.0 \
--evaluation-strategy steps --eval_steps 500 --val-size 0.1 --load_best_model_at_end true --metric_for_best_model loss \
--greater_is_better false --early-stopping-patience 3 --logging_steps 10 --save-steps 500 --save_total_limit 3 \
--output_dir output --overwrite_output_dir true --plot-loss --report_to none --no_use_cache"""

LLAMAFACTORY_LINE = """\
--stage sft --do_train --model_name_or_path meta-llama/Llama-2-7b-hf --dataset alpaca_gpt4_en --dataset_dir data --template default \
--finetuning_type lora --lora_target q_proj,v_proj --output_dir saves/sft --overwrite_cache --overwrite_output_dir \
--per_device_train_batch_size 1 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --logging_steps 10 --save_steps 500 \
--learning_rate 5e-5 --num_train_epochs 1.0 --plot_loss --fp16"""
