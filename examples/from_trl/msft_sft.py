"""The same mixture, each sub-dataset until its own peak: python msft_sft.py MODEL A.jsonl B.jsonl ... OUTPUT"""

import sys
from pathlib import Path

import torch
from datasets import load_dataset

from msft import MSFTConfig, MSFTTrainer

model, *files, output = sys.argv[1:]
parts = {Path(file).stem: load_dataset("json", data_files=file, split="train") for file in files}
parts = {name: part.train_test_split(test_size=0.2, seed=20) for name, part in parts.items()}

args = MSFTConfig(
    output_dir=output,
    method="auto",
    num_train_epochs=3,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=1,
    learning_rate=1e-3,
    max_length=512,
    bf16=torch.cuda.is_available(),
    logging_steps=5,
)
trainer = MSFTTrainer(
    model=model,
    args=args,
    train_dataset={name: part["train"] for name, part in parts.items()},
    eval_dataset={name: part["test"] for name, part in parts.items()},
)
trainer.train()
trainer.save_model(f"{output}/model")
