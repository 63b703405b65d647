"""transformers: ViT on the digits, by hand: AdamW, warm-up, label smoothing, mixup."""

# programs: needs=transformers slow
import json

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    get_cosine_schedule_with_warmup,
    set_seed,
)

device = "cuda" if torch.cuda.is_available() else "cpu"
set_seed(0)
digits = load_digits()
pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None].to(device) / 8 - 1
labels = torch.tensor(digits.target).to(device)
config = ViTConfig(
    image_size=8,
    patch_size=2,
    num_channels=1,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    num_labels=10,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
model = ViTForImageClassification(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
schedule = get_cosine_schedule_with_warmup(optimizer, 5, 20)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
mix = torch.distributions.Beta(0.4, 0.4)
losses = []
for step in range(20):
    index = torch.randint(0, 1500, (64,), generator=torch.Generator().manual_seed(step))
    images, target = pixels[index.to(device)], labels[index.to(device)]
    share = 0.5 + 0.4 * (step % 2)
    other = torch.arange(63, -1, -1, device=device)
    mixed = share * images + (1 - share) * images[other]
    logits = model(pixel_values=mixed).logits
    loss = share * criterion(logits, target) + (1 - share) * criterion(
        logits, target[other]
    )
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    losses.append(loss.detach())
model.eval()
with torch.inference_mode():
    out = model(pixel_values=pixels[1500:], output_hidden_states=True)
    accuracy = (out.logits.argmax(-1) == labels[1500:]).float().mean()
    bigger = nn.functional.interpolate(pixels[:4], size=12, mode="bicubic")
    moved = model(pixel_values=bigger, interpolate_pos_encoding=True).logits
figures = {
    "losses": torch.stack(losses)[::6].tolist(),
    "better_than_chance": bool(accuracy > 0.2),
    "hidden": [len(out.hidden_states), out.hidden_states[-1].std().item()],
    "interpolated": list(moved.shape),
}
print(json.dumps(figures))
