"""transformers: BERT classification by Trainer in bfloat16 and float16."""

# programs: needs=transformers,accelerate tolerance=5e-2 slow
import json
import tempfile

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

has_gpu = torch.cuda.is_available()
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def samples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(6, 20, (1,), generator=generator))
        ids = torch.randint(5, 50, (length,), generator=generator)
        label = int((ids < 27).float().mean() > 0.5)
        pad = 20 - length
        made.append(
            {
                "input_ids": torch.cat([ids, torch.zeros(pad, dtype=torch.long)]),
                "attention_mask": torch.tensor([1] * length + [0] * pad),
                "labels": label,
            }
        )
    return made


def run(**options):
    set_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            logging_steps=5,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            **options,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=samples(64, 0))
        loss = trainer.train().training_loss
        return loss, trainer.predict(samples(32, 1)).metrics["test_loss"]


figures = {"float32": run(), "bfloat16": run(bf16=True, use_cpu=not has_gpu)}
if has_gpu:
    loss, test = run(fp16=True)
    assert loss < 1.0, loss
    loss, test = run(bf16=True, bf16_full_eval=True, optim="adamw_torch_fused")
    assert loss < 1.0, loss

set_seed(1)
device = "cuda" if has_gpu else "cpu"
config = BertConfig(**SIZES, attn_implementation="eager")
masked = BertForMaskedLM(config).to(device)
batch = {
    k: torch.stack([torch.as_tensor(s[k]) for s in samples(8, 2)]).to(device)
    for k in ("input_ids", "attention_mask")
}
labels = batch["input_ids"].clone()
hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.15
labels[~hidden.to(device)] = -100
batch["input_ids"][hidden.to(device)] = 3
out = masked(**batch, labels=labels, output_attentions=True, output_hidden_states=True)
out.loss.backward()
figures["masked"] = out.loss.item()
figures["layers"] = [len(out.attentions), len(out.hidden_states)]
print(json.dumps(figures))
