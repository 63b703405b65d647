"""transformers: one forward and backward pass through many small architectures."""

# programs: needs=transformers slow tolerance=1e-2
import json
import sys
import warnings

import torch
import transformers as T
from transformers import set_seed

warnings.simplefilter("ignore")
T.logging.set_verbosity_error()
device = "cuda" if torch.cuda.is_available() else "cpu"
TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DECODER = {**TEXT, "num_key_value_heads": 2}
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
SEQ = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
ids = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(0))
pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
wave = torch.randn(2, 1600, generator=torch.Generator().manual_seed(2))
text = {"input_ids": ids}
causal = {"input_ids": ids, "labels": ids}
both = {"input_ids": ids, "decoder_input_ids": ids[:, :5]}
image = {"pixel_values": pixels}
cases = {
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", DECODER, causal),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**DECODER, "head_dim": 8}, causal),
    "mistral": (
        "MistralForCausalLM",
        "MistralConfig",
        {**DECODER, "sliding_window": 4},
        causal,
    ),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**DECODER, "num_local_experts": 4},
        causal,
    ),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**DECODER, "head_dim": 8}, causal),
    "phi": ("PhiForCausalLM", "PhiConfig", TEXT, causal),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT, causal),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32},
        causal,
    ),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        causal,
    ),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", {**OLD, "rotary_dim": 4}, causal),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        causal,
    ),
    "roberta": ("RobertaModel", "RobertaConfig", TEXT, text),
    "electra": ("ElectraModel", "ElectraConfig", {**TEXT, "embedding_size": 16}, text),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        text,
    ),
    "deberta": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        text,
    ),
    "albert": ("AlbertModel", "AlbertConfig", {**TEXT, "embedding_size": 16}, text),
    "bart": ("BartModel", "BartConfig", SEQ, both),
    "whisper": (
        "WhisperModel",
        "WhisperConfig",
        {
            **SEQ,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 20,
        },
        {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": ids[:, :5]},
    ),
    "wav2vec2": (
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        {
            **TEXT,
            "conv_dim": (16, 16),
            "conv_stride": (5, 4),
            "conv_kernel": (10, 8),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "mask_time_prob": 0.0,
        },
        {"input_values": wave},
    ),
    "deit": ("DeiTModel", "DeiTConfig", VISION, image),
    "beit": ("BeitModel", "BeitConfig", VISION, image),
    "dinov2": ("Dinov2Model", "Dinov2Config", VISION, image),
    "convnext": (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
        image,
    ),
    "resnet": (
        "ResNetModel",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        image,
    ),
    "swin": (
        "SwinModel",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        image,
    ),
    "segformer": (
        "SegformerModel",
        "SegformerConfig",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "num_attention_heads": [1, 2],
            "sr_ratios": [2, 1],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
        },
        image,
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": TEXT, "vision_config": VISION, "projection_dim": 16},
        {"input_ids": ids, "pixel_values": pixels, "return_loss": True},
    ),
}
figures = {}
for name, (model_name, config_name, options, inputs) in cases.items():
    set_seed(0)
    config = getattr(T, config_name)(**options)
    model = getattr(T, model_name)(config).to(device).eval()
    batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    out = model(**batch)
    value = out.loss if getattr(out, "loss", None) is not None else out[0].pow(2).mean()
    value.backward()
    gradient = torch.stack(
        [p.grad.norm() for p in model.parameters() if p.grad is not None]
    )
    figures[name] = [value.item(), gradient.norm().item()]
    print(name, figures[name], file=sys.stderr)
print(json.dumps(figures))
