"""transformers: GPT-2 by Trainer; accumulation, checkpointing, evaluation, resuming."""

# programs: needs=transformers,accelerate
import json
import math
import tempfile

import torch
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    set_seed,
)


class Repeats(Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        halves = torch.randint(0, 40, (count, 8), generator=generator)
        self.ids = torch.cat([halves, halves], dim=1)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {
            "input_ids": self.ids[i],
            "labels": self.ids[i],
            "attention_mask": torch.ones(16, dtype=torch.long),
        }


def make_model():
    set_seed(0)
    config = GPT2Config(
        vocab_size=40,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def arguments(folder, **changed):
    options = {
        "output_dir": folder,
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
        "learning_rate": 5e-3,
        "warmup_steps": 2,
        "logging_steps": 2,
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "report_to": [],
        "torch_compile": False,
        "disable_tqdm": True,
        "seed": 7,
        "dataloader_num_workers": 0,
    }
    return TrainingArguments(**{**options, **changed})


def metrics(prediction):
    guess = prediction.predictions[:, :-1].argmax(-1)
    return {"accuracy": float((guess == prediction.label_ids[:, 1:]).mean())}


figures = {}
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model=make_model(),
        args=arguments(folder),
        train_dataset=Repeats(64, 0),
        eval_dataset=Repeats(16, 1),
        compute_metrics=metrics,
    )
    figures["train"] = trainer.train().training_loss
    evaluation = trainer.evaluate()
    figures["eval"] = [evaluation["eval_loss"], evaluation["eval_accuracy"]]
    figures["perplexity"] = math.exp(evaluation["eval_loss"])
    figures["losses"] = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    predicted = trainer.predict(Repeats(5, 2))
    figures["predict"] = [
        list(predicted.predictions.shape),
        predicted.metrics["test_loss"],
    ]

    again = Trainer(
        model=make_model(),
        args=arguments(folder),
        train_dataset=Repeats(64, 0),
        eval_dataset=Repeats(16, 1),
    )
    again.train(resume_from_checkpoint=f"{folder}/checkpoint-3")
    figures["resumed"] = (
        abs(again.evaluate()["eval_loss"] - evaluation["eval_loss"]) < 1e-4
    )
    loaded = GPT2LMHeadModel.from_pretrained(f"{folder}/checkpoint-6").to(
        trainer.args.device
    )
    ids = Repeats(2, 3).ids.to(trainer.args.device)
    figures["loaded"] = loaded(input_ids=ids, labels=ids).loss.item()
print(json.dumps(figures))
