"""transformers: Llama's generate with caches; greedy, beams, sampling, streaming."""

# programs: needs=transformers
import json
import warnings

import torch
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    set_seed,
)

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
set_seed(0)
config = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
model = LlamaForCausalLM(config).to(device).eval()
prompt = torch.tensor([[1, 5, 9, 33], [1, 7, 8, 9]], device=device)
mask = torch.ones_like(prompt)
figures = {}


class Enough(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        done = input_ids.shape[1] >= 10
        return torch.full((len(input_ids),), done, device=input_ids.device)


common = {"attention_mask": mask, "max_new_tokens": 12, "min_new_tokens": 12}
greedy = model.generate(prompt, do_sample=False, **common)
figures["greedy"] = greedy.tolist()
figures["no_cache"] = model.generate(
    prompt, do_sample=False, use_cache=False, **common
).tolist()
figures["beam"] = model.generate(
    prompt, num_beams=3, do_sample=False, **common
).tolist()
static = model.generate(
    prompt,
    do_sample=False,
    cache_implementation="static",
    disable_compile=True,
    **common,
)
figures["static"] = static.tolist()
sampled = model.generate(
    prompt, do_sample=True, top_k=10, top_p=0.9, temperature=0.7, **common
)
figures["sampled"] = list(sampled.shape)
scored = model.generate(
    prompt,
    do_sample=False,
    return_dict_in_generate=True,
    output_scores=True,
    logits_processor=LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3)]),
    stopping_criteria=StoppingCriteriaList([Enough()]),
    **common,
)
figures["scored"] = [scored.sequences.tolist(), len(scored.scores)]

padded = torch.tensor([[0, 0, 1, 5], [1, 7, 8, 9]], device=device)
out = model.generate(padded, attention_mask=(padded != 0).long(), max_new_tokens=5)
figures["padded"] = out.tolist()

with torch.no_grad():
    cache = DynamicCache(config=config)
    logits = model(prompt[:, :2], past_key_values=cache, use_cache=True).logits
    logits = model(prompt[:, 2:], past_key_values=cache, use_cache=True).logits
    whole = model(prompt).logits
    figures["cache"] = (logits[:, -1] - whole[:, -1]).abs().max().item() < 1e-4
    figures["logits"] = whole[0, -1, :8].tolist()
    fixed = StaticCache(config=config, max_cache_len=16)
    model(prompt, past_key_values=fixed, use_cache=True)
    figures["cached"] = int(fixed.get_seq_length())

loss = model.train()(prompt, labels=prompt).loss
loss.backward()
figures["loss"] = loss.item()
figures["gradient"] = model.model.embed_tokens.weight.grad.norm().item()
half = model.to(torch.bfloat16)
figures["bfloat16"] = round(half(prompt).logits.float().std().item(), 2)
print(json.dumps(figures))
