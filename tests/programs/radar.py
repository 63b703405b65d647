"""Complex signals: a chirp, matched filter, range-Doppler map, a complex network learnt."""

import json
import math

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
n, pulses = 128, 16
t = torch.arange(n, device=device) / n
chirp = torch.exp(1j * math.pi * 40 * t**2)
echo = torch.zeros(pulses, n, dtype=torch.cfloat, device=device)
for pulse in range(pulses):
    doppler = torch.exp(torch.tensor(2j * math.pi * 0.2 * pulse, device=device))
    echo[pulse] = 0.7 * doppler * torch.roll(chirp, 37) + 0.3 * torch.roll(chirp, 90)
noise = torch.view_as_complex(torch.randn(pulses, n, 2).to(device)) * 0.1
spectrum = torch.fft.fft(echo + noise) * torch.fft.fft(chirp).conj()
compressed = torch.fft.ifft(spectrum)
window = torch.hann_window(pulses, device=device)[:, None]
picture = torch.fft.fftshift(torch.fft.fft(compressed * window, dim=0), dim=0).abs()
peak = picture.flatten().argmax().item()


class ComplexLinear(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(fan_out, fan_in, dtype=torch.cfloat) / fan_in**0.5
        )
        self.bias = nn.Parameter(torch.zeros(fan_out, dtype=torch.cfloat))

    def forward(self, x):
        return x @ self.weight.mT + self.bias


class ModReLU(nn.Module):
    def forward(self, z):
        size = z.abs()
        return torch.polar(torch.relu(size - 0.1), z.angle())


net = nn.Sequential(ComplexLinear(8, 16), ModReLU(), ComplexLinear(16, 4)).to(device)
x = torch.randn(32, 8, dtype=torch.cfloat).to(device)
target = torch.stack(
    [x[:, 0] * 1j, x[:, 1].conj(), x[:, 2] + x[:, 3], x[:, 4] * x[:, 5]], 1
)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
losses = []
for _ in range(15):
    optimizer.zero_grad()
    error = net(x) - target
    loss = (error * error.conj()).real.mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
q, r = torch.linalg.qr(net[0].weight.detach())
eig = (
    torch.linalg.eigvals(torch.view_as_complex(torch.randn(4, 4, 2).to(device)))
    .abs()
    .sort()
    .values
)
print(
    json.dumps(
        {
            "peak": [peak // n, peak % n],
            "power": picture.square().sum().item(),
            "losses": losses[::4],
            "unitary": (q.mH @ q - torch.eye(q.size(1), device=device))
            .abs()
            .max()
            .item()
            < 1e-4,
            "eig": eig.tolist(),
            "rfft": torch.fft.irfft(torch.fft.rfft(t, norm="ortho"), n=n, norm="ortho")
            .sum()
            .item(),
        }
    )
)
