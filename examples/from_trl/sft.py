"""Plain fine-tuning on a mixture with TRL: python sft.py MODEL A.jsonl B.jsonl ... OUTPUT"""

import sys
from pathlib import Path

import torch
from datasets import concatenate_datasets, load_dataset
from trl import SFTConfig, SFTTrainer

model, *files, output = sys.argv[1:]
parts = {Path(file).stem: load_dataset("json", data_files=file, split="train") for file in files}
parts = {name: part.train_test_split(test_size=0.2, seed=20) for name, part in parts.items()}

args = SFTConfig(
    output_dir=output,
    num_train_epochs=3,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=1,
    learning_rate=1e-3,
    max_length=512,
    bf16=torch.cuda.is_available(),
    logging_steps=5,
)
trainer = SFTTrainer(
    model=model,
    args=args,
    train_dataset=concatenate_datasets([part["train"] for part in parts.values()]),
    eval_dataset={name: part["test"] for name, part in parts.items()},
)
trainer.train()
trainer.save_model(f"{output}/model")
