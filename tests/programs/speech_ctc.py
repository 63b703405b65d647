"""Speech in small: spectrogram features, convolutions, a GRU, CTC, greedy decoding."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


class Recognizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(17, 16, 5, stride=2, padding=2), nn.BatchNorm1d(16), nn.GELU()
        )
        self.rnn = nn.GRU(16, 12, bidirectional=True, batch_first=True)
        self.out = nn.Linear(24, 6)

    def forward(self, wave):
        window = torch.hann_window(32, device=wave.device)
        spectrum = torch.stft(wave, 32, 16, window=window, return_complex=True).abs()
        features = torch.log1p(spectrum)
        features = (features - features.mean(-1, keepdim=True)) / (
            features.std(-1, keepdim=True) + 1e-5
        )
        return self.out(self.rnn(self.conv(features).transpose(1, 2))[0]).log_softmax(
            -1
        )


def speak(words):
    t = torch.arange(160) / 160
    return torch.cat([torch.sin(2 * torch.pi * (w + 1) * 6 * t) for w in words])


model = Recognizer().to(device)
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
losses = []
for step in range(6):
    generator = torch.Generator().manual_seed(step)
    words = torch.randint(1, 6, (8, 4), generator=generator)
    wave = torch.stack([speak(row.tolist()) for row in words]).to(device)
    log_probs = model(wave).transpose(0, 1)
    lengths = torch.full((8,), log_probs.size(0), dtype=torch.long)
    targets = torch.full((8,), 4, dtype=torch.long)
    loss = F.ctc_loss(log_probs, words.to(device), lengths, targets, zero_infinity=True)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
decoded = torch.unique_consecutive(model(wave)[0].argmax(-1))
decoded = decoded[decoded != 0].tolist()
mask = torch.ones(8, 1, 20, device=device)
mask[:, :, 5:8] = 0
features = F.interpolate(wave[:, None], size=20, mode="linear") * mask
print(
    json.dumps(
        {
            "losses": losses,
            "decoded": len(decoded) >= 0,
            "masked": features.abs().sum().item(),
        }
    )
)
