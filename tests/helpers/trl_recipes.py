"""Config files for `trl grpo`, as its documentation and its users write them."""

# The examples of TRL's page on its command line, for `trl grpo`.
TRL_PLAIN = """
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: HuggingFaceH4/Polaris-Dataset-53K
reward_funcs:
  - accuracy_reward
"""
TRL_PROCESSES = TRL_PLAIN + "num_processes: 4\n"
TRL_ACCELERATE = TRL_PLAIN + "accelerate_config: zero2  # or path/to/my/accelerate/config.yaml\n"
TRL_MIXTURE = """
model_name_or_path: Qwen/Qwen2.5-0.5B
datasets:
  - path: HuggingFaceH4/Polaris-Dataset-53K
  - path: trl-lib/DeepMath-103K
reward_funcs:
  - accuracy_reward
"""
# What recipes for `trl grpo` set, in the forms that their files have.
RECIPE = """
# Model
model_name_or_path:
  Qwen/Qwen2.5-0.5B
model_revision: main
dtype: bfloat16
attn_implementation: sdpa
trust_remote_code: false
model_init_kwargs: {low_cpu_mem_usage: true}
use_peft: true
lora_r: 16
lora_target_modules: all-linear

# Data
dataset_name: open-r1/OpenR1-Math-220k
dataset_config: default
dataset_train_split: train
prompt_column: problem

# Training
use_vllm: false
do_eval: 'false'
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
chat_template_kwargs:
  enable_thinking: false
generation_kwargs: '{"top_k": 50}'
learning_rate: 1e-6
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs:
  min_lr_rate: 0.1
beta: 0
max_steps: -1
num_train_epochs: 1
save_strategy: "no"
save_total_limit: null
log_completions: yes
report_to:
- tensorboard
hub_model_id: null
reward_funcs: accuracy_reward
reward_weights: [1.0]
"""
