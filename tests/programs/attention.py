"""Attention in all its forms: modules with masks, the fast path, the function."""

import json
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}

mha = nn.MultiheadAttention(32, 4, batch_first=True).to(device)
x = torch.randn(3, 10, 32).to(device).requires_grad_()
padding = torch.zeros(3, 10, dtype=torch.bool, device=device)
padding[1, 7:] = True
padding[2, 4:] = True
causal = nn.Transformer.generate_square_subsequent_mask(10, device=device)
out, weights = mha(x, x, x, key_padding_mask=padding, average_attn_weights=False)
out.pow(2).mean().backward()
figures["mha"] = [out.norm().item(), weights.sum().item(), x.grad.norm().item()]
out, _ = mha(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)
figures["mha_causal"] = out.norm().item()
cross = nn.MultiheadAttention(32, 4, kdim=16, vdim=12, add_bias_kv=True).to(device)
k, v = torch.randn(6, 3, 16).to(device), torch.randn(6, 3, 12).to(device)
out, weights = cross(x.detach().transpose(0, 1), k, v)
figures["mha_cross"] = [out.norm().item(), list(weights.shape)]

layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).to(device)
encoder.eval()
with torch.inference_mode():
    fast = encoder(x.detach())
    masked = encoder(x.detach(), mask=causal, is_causal=True)
figures["encoder"] = [fast.norm().item(), masked.norm().item()]
plain = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(device).eval()
with torch.no_grad():
    padded = plain(x.detach(), src_key_padding_mask=padding)
figures["encoder_padded"] = padded[~padding].norm().item()

whole = nn.Transformer(32, 4, 1, 1, 48, dropout=0.0, batch_first=True).to(device)
target = torch.randn(3, 6, 32).to(device)
tgt_mask = whole.generate_square_subsequent_mask(6).to(device)
out = whole(x.detach(), target, tgt_mask=tgt_mask, src_key_padding_mask=padding)
out.sum().backward()
figures["transformer"] = out.norm().item()

q = torch.randn(2, 4, 9, 16).to(device).requires_grad_()
k = torch.randn(2, 4, 9, 16).to(device).requires_grad_()
v = torch.randn(2, 4, 9, 16).to(device)
bias = torch.randn(2, 1, 9, 9).to(device)
forms = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool_mask": {"attn_mask": bias > -1},
    "float_mask": {"attn_mask": bias},
}
for name, options in forms.items():
    q.grad = k.grad = None
    out = F.scaled_dot_product_attention(q, k, v, **options)
    out.pow(2).sum().backward()
    figures[name] = [out.norm().item(), q.grad.norm().item(), k.grad.norm().item()]
for backend in (SDPBackend.MATH, [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION]):
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    figures[f"kernel_{backend}"] = out.norm().item()
few = torch.randn(2, 2, 9, 16).to(device)
out = F.scaled_dot_product_attention(q, few, few, enable_gqa=True)
figures["gqa"] = out.norm().item()
half = F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
figures["bfloat16"] = [str(half.dtype), round(half.float().norm().item(), 1)]
dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
figures["dropout"] = bool((dropped != out).any())
short = q[:, :, :5].detach()
for make in (causal_upper_left, causal_lower_right):
    out = F.scaled_dot_product_attention(short, k, v, attn_mask=make(5, 9))
    figures[make.__name__] = out.norm().item()
empty = F.scaled_dot_product_attention(q[:, :, :0], k, v)
figures["empty"] = list(empty.shape)
print(json.dumps(figures))
