"""safetensors: saved from the device, loaded straight to it, in part and whole."""

# programs: needs=safetensors,transformers,accelerate
import json
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, load_model, save, save_file, save_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}
tensors = {
    "a": torch.randn(4, 3).to(device),
    "b": torch.arange(6).to(device),
    "c": torch.randn(2, 2).to(device).bfloat16(),
    "d": torch.tensor([True, False]).to(device),
    "empty": torch.zeros(0, 3).to(device),
}
with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/t.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    back = load_file(path, device=device)
    figures["equal"] = all(torch.equal(back[k], v) for k, v in tensors.items())
    figures["devices"] = all(v.device.type == device for v in back.values())
    with safe_open(path, framework="pt", device=device) as f:
        figures["keys"] = sorted(f.keys())
        part = f.get_slice("a")
        figures["slice"] = part[:, 1:].sum().item()
        figures["whole"] = f.get_tensor("b").tolist()
        figures["metadata"] = f.metadata()
    if device == "cuda":
        assert load_file(path, device="cuda:0")["a"].is_cuda
        assert load_file(path, device=0)["a"].is_cuda
    figures["bytes"] = len(save(tensors)) == len(save(load(save(tensors))))

    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    save_model(net, path)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    load_model(other, path, device=device)
    x = torch.randn(5, 3).to(device)
    figures["model"] = torch.equal(net.eval()(x), other.eval()(x))

    config = GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    gpt = GPT2LMHeadModel(config).to(device).eval()
    gpt.save_pretrained(folder)
    ids = torch.tensor([[1, 2, 3]], device=device)
    wanted = gpt(ids).logits
    for options in ({}, {"device_map": device}, {"dtype": torch.bfloat16}):
        loaded = AutoModelForCausalLM.from_pretrained(folder, **options).to(device)
        got = loaded.eval()(ids).logits.float()
        assert (got - wanted).abs().max().item() < 0.05, options
    auto = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")
    figures["auto"] = next(auto.parameters()).device.type == device
print(json.dumps(figures))
