"""What replaces the arguments of other trainers that `MSFTConfig` and `MSFTTrainer` do not have."""

from __future__ import annotations

_EVALUATIONS = 'remove it; give method_kwargs={"eval_every": ...}, in epochs'
_SNAPSHOTS = "remove it; the trainer keeps each snapshot that it may need, and the best model"
_CHOSEN = "remove it; micro-batches are cut to fit into memory"
_MOMENTS = "remove it; AdamW has the values of PyTorch: betas of 0.9 and 0.999, an epsilon of 1e-8"
_DTYPE = "give bf16: weights are held in fp32, on a GPU with copies in bf16; for 4 or 8 bits give quantize"
INSTEAD = {
    "eval_strategy": _EVALUATIONS,
    "evaluation_strategy": _EVALUATIONS,
    "eval_steps": _EVALUATIONS,
    "do_eval": _EVALUATIONS,
    "save_strategy": _SNAPSHOTS,
    "save_steps": _SNAPSHOTS,
    "save_total_limit": _SNAPSHOTS,
    "load_best_model_at_end": _SNAPSHOTS,
    "metric_for_best_model": "remove it; the best average over the sub-datasets' validation scores decides, or "
    "the score of an aggregate",
    "max_steps": "give num_train_epochs",
    "warmup_steps": "give warmup_ratio, a share of num_train_epochs",
    "per_device_eval_batch_size": _CHOSEN,
    "auto_find_batch_size": _CHOSEN,
    "packing": _CHOSEN,
    "padding_free": _CHOSEN,
    "group_by_length": _CHOSEN,
    "eval_packing": _CHOSEN,
    "max_seq_length": "give max_length",
    "fp16": "give bf16; products in fp16 are not supported",
    "dataset_text_field": 'give dataset_kwargs={"NAME": {"columns": ...}}, or rename the column',
    "completion_only_loss": "remove it; completions are learned, prompts are not",
    "assistant_only_loss": "remove it; the assistant's turns are learned, other turns are not",
    "gradient_checkpointing_kwargs": "remove it; gradient_checkpointing=True is the non-reentrant kind",
    "activation_checkpointing_kwargs": "remove it; gradient_checkpointing=True is the non-reentrant kind",
    "activation_offloading": "give gradient_checkpointing=True, which saves memory for activations too",
    "torch_dtype": _DTYPE,
    "dtype": _DTYPE,
    "tf32": "remove it; bf16=True computes in bf16, bf16=False in fp32",
    "adam_beta1": _MOMENTS,
    "adam_beta2": _MOMENTS,
    "adam_epsilon": _MOMENTS,
    "lr_scheduler_kwargs": "remove it; linear and cosine schedules fall to 0 at num_train_epochs, and have no settings",
    "loss_type": "remove it; the loss is the negative log-likelihood (nll), and others are not there; loss_reduction "
    "says what it is a mean over",
    "router_aux_loss_coef": "remove it; no auxiliary loss of a router is added",
    "chat_template_path": "set the text as chat_template of a tokenizer, and give that as processing_class",
    "eos_token": "set eos_token of a tokenizer, and give that as processing_class; models learn to end with it",
    "pad_token": "remove it; no loss and no likelihood depends on what fills up a batch",
    "dataset_num_proc": "remove it; rows are made ready once, and kept for the next run on the same data",
    "shuffle_dataset": "remove it; each epoch has its own order, which seed determines",
    "truncation_mode": "remove it; rows that are longer than max_length are cut off at the end (keep_start)",
    "trust_remote_code": "save the model with its code as a folder, and run `msft train` with model.trust_remote_code",
    "packing_strategy": _CHOSEN,
    "pad_to_multiple_of": _CHOSEN,
    "use_liger_kernel": "remove it; layers are made lighter on a CPU and compiled on a GPU, where that is proven",
    "logging_strategy": "give logging_steps",
    "logging_dir": "remove it; trackers write into output_dir",
    "overwrite_output_dir": "remove the folder, or name another output_dir",
    "resume_from_checkpoint": "call train(resume_from_checkpoint=True)",
    "deepspeed": "remove it; on several GPUs: accelerate launch your_script.py",
    "fsdp": "remove it; on several GPUs: accelerate launch your_script.py",
    "neftune_noise_alpha": "remove it; it is not supported",
    "quantization_config": 'give quantize="nf4", "fp4" or "int8"',
    "load_in_4bit": 'give quantize="nf4"',
    "load_in_8bit": 'give quantize="int8"',
    "activation_checkpointing": "give gradient_checkpointing",
    "greater_is_better": "remove it; every score is one where higher is better",
    "run_name": "remove it; trackers name a run as output_dir",
    "hub_model_id": "call save_model, and push the folder; or msft export RUN --push-to-hub",
    "model_init_kwargs": "remove it; a run computes as `bf16` says and chooses the attention itself; for 4 or 8 bits "
    "give quantize; for a revision load the model, and pass it as an object",
    "push_to_hub": "call save_model, and push the folder; or msft export RUN --push-to-hub",
}
"""Arguments of transformers' and TRL's trainers, and what to do here instead."""

REMOVE = "remove it; there is nothing of this kind here"
"""For the other arguments of transformers' trainer."""
_LOSS = "remove it; a model is trained on the tokens of its answers: loss_reduction, mixing and repeat weigh them"
_OPTIMIZER = "give optim, learning_rate, lr_scheduler_type and weight_decay in args"
INSTEAD_IN_TRAINER = {
    "compute_metrics": "give MSFTConfig(scorer=...): a scorer by name, or your own function of a module file",
    "preprocess_logits_for_metrics": "give MSFTConfig(scorer=...)",
    "formatting_func": "make the rows with dataset.map(...), or give MSFTConfig(dataset_kwargs="
    '{"NAME": {"template": {"prompt": ..., "completion": ...}}})',
    "tokenizer": "give processing_class",
    "data_collator": "remove it; batches are made of the rows' prompts and answers, each padded or filled up",
    "model_init": "load the model, and pass it as model; a search returns to it whenever it must",
    "compute_loss_func": _LOSS,
    "optimizers": _OPTIMIZER,
    "optimizer_cls_and_kwargs": _OPTIMIZER,
    **INSTEAD,
}
"""Arguments of transformers' and TRL's trainers themselves, and what to do here instead."""

_METRICS = "use what train() or evaluate() returns; all numbers are in trainer.summary, and in summary.json of the run"
_CALLBACKS = "give callbacks=[...] to MSFTTrainer"
_ROWS = "use the data sets that you gave"
_BATCHES = "remove it; batches are made in the run; `msft preview` shows examples as the model sees them"
_SCORES = "run `msft eval RUN --split test`, or use trainer.model after training"
_PROCESSES = "remove it; a run sets up its processes itself; the first has os.environ.get('RANK', '0') == '0'"
INSTEAD_OF_MEMBERS = {
    **dict.fromkeys(("push_to_hub", "init_hf_repo", "hub_model_id"), "run `msft export RUN --push-to-hub user/name`"),
    "create_model_card": "remove it; README.md in the folder of the final model is one",
    **dict.fromkeys(("log_metrics", "save_metrics", "metrics_format"), _METRICS),
    "save_state": "remove it; a run keeps its state; trainer.state.save_to_json(FILE) writes the logs",
    **dict.fromkeys(("add_callback", "pop_callback", "remove_callback", "callback_handler"), _CALLBACKS),
    "control": "set it in a callback",
    "log": "give report_to and logging_steps in args; trainer.state.log_history has all logs",
    **dict.fromkeys(("train_dataset", "eval_dataset"), _ROWS),
    **dict.fromkeys(
        ("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader", "get_batch_samples", "num_examples",
         "data_collator"), _BATCHES
    ),
    **dict.fromkeys(("predict", "prediction_step", "evaluation_loop"), _SCORES),
    "compute_metrics": INSTEAD_IN_TRAINER["compute_metrics"],
    "tokenizer": "use trainer.processing_class, after training",
    "model_wrapped": "use trainer.model, after training",
    **dict.fromkeys(("compute_loss", "training_step", "compute_loss_func"), _LOSS),
    **dict.fromkeys(
        ("optimizer", "lr_scheduler", "create_optimizer", "create_scheduler", "create_optimizer_and_scheduler",
         "get_optimizer_cls_and_kwargs", "get_optimizer_group", "get_decay_parameter_names"), _OPTIMIZER
    ),
    "get_learning_rates": "see trainer.state.log_history, which has the learning rate of each log",
    "get_num_trainable_parameters": "run `msft check`, which counts them",
    "hyperparameter_search": "train once for each value, or compare methods with `msft compare`",
    **dict.fromkeys(("accelerator", "is_world_process_zero", "is_local_process_zero"), _PROCESSES),
}  # fmt: skip
"""Members of transformers' and TRL's trainers, and what to do here instead."""
OVERRIDDEN = (
    "compute_loss", "training_step", "prediction_step", "evaluation_loop", "get_train_dataloader",
    "get_eval_dataloader", "get_test_dataloader", "create_optimizer", "create_scheduler", "log",
)  # fmt: skip
"""Those that subclasses of theirs override; here nothing would call them."""
