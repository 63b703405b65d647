"""transformers: T5 learns to reverse; Adafactor, teacher forcing, beam search."""

# programs: needs=transformers tolerance=1e-2 slow
import json

import torch
from transformers import T5Config, T5ForConditionalGeneration, set_seed
from transformers.optimization import Adafactor

device = "cuda" if torch.cuda.is_available() else "cpu"
set_seed(0)
config = T5Config(
    vocab_size=30,
    d_model=32,
    d_kv=8,
    d_ff=64,
    num_layers=2,
    num_heads=4,
    dropout_rate=0.0,
    decoder_start_token_id=0,
    feed_forward_proj="gated-gelu",
)
model = T5ForConditionalGeneration(config).to(device)
optimizer = Adafactor(
    model.parameters(), lr=1e-2, relative_step=False, scale_parameter=False
)
generator = torch.Generator().manual_seed(0)
losses = []
for _ in range(8):
    source = torch.randint(2, 30, (16, 6), generator=generator).to(device)
    labels = source.flip(1)
    out = model(input_ids=source, labels=labels)
    out.loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(out.loss.item())
model.eval()
source = torch.randint(2, 30, (2, 6), generator=generator).to(device)
mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6], device=device)
greedy = model.generate(source, attention_mask=mask, max_new_tokens=6)
beams = model.generate(source, num_beams=4, num_return_sequences=2, max_new_tokens=6)
contrast = model.generate(source, do_sample=True, top_p=0.9, max_new_tokens=6)
with torch.no_grad():
    encoded = model.get_encoder()(input_ids=source, attention_mask=mask)
print(
    json.dumps(
        {
            "losses": losses,
            "greedy": greedy[:, :3].tolist(),
            "beams": len(beams),
            "sampled": len(contrast),
            "encoded": encoded.last_hidden_state.std().item(),
        }
    )
)
