"""Signal processing: FFTs, STFT and back, filters, windows, spectra, mel features."""

import json
import math

import torch
import torch.nn.functional as F

device = "cuda" if torch.cuda.is_available() else "cpu"
t = torch.arange(2048, device=device) / 1000
signal = torch.sin(2 * math.pi * 50 * t) + 0.5 * torch.sin(2 * math.pi * 120 * t)
spectrum = torch.fft.rfft(signal)
frequencies = torch.fft.rfftfreq(len(signal), 1 / 1000, device=device)
peak = frequencies[spectrum.abs().argmax()]
power = spectrum.abs().square()
filtered = torch.fft.irfft(spectrum * (frequencies < 80), n=len(signal))
window = torch.hann_window(256, device=device)
stft = torch.stft(signal, 256, 64, window=window, return_complex=True)
back = torch.istft(stft, 256, 64, window=window, length=len(signal))
magnitude, phase = stft.abs(), stft.angle()
rebuilt = torch.istft(
    torch.polar(magnitude, phase), 256, 64, window=window, length=2048
)


def mel_filters(count, bins, rate):
    top = 2595 * math.log10(1 + rate / 2 / 700)
    points = 700 * (10 ** (torch.linspace(0, top, count + 2) / 2595) - 1)
    where = torch.linspace(0, rate / 2, bins)
    lower, middle, upper = points[:-2, None], points[1:-1, None], points[2:, None]
    rise = (where - lower) / (middle - lower)
    fall = (upper - where) / (upper - middle)
    return torch.minimum(rise, fall).clamp(min=0).to(device)


mel = torch.log(mel_filters(20, 129, 1000) @ magnitude.square() + 1e-6)
n = torch.arange(20, device=device)
dct = torch.cos(math.pi / 20 * (n[None] + 0.5) * n[:, None])
mfcc = dct[:13] @ mel
image = torch.outer(torch.sin(t[:64] * 40), torch.cos(t[:64] * 60))
two = torch.fft.fftshift(torch.fft.fft2(image))
blurred = torch.fft.ifft2(torch.fft.ifftshift(two * (two.abs() > 1))).real
kernel = torch.exp(-(torch.linspace(-2, 2, 31, device=device) ** 2))
smooth = F.conv1d(signal[None, None], (kernel / kernel.sum())[None, None], padding=15)
frames = signal.unfold(0, 256, 128) * torch.hamming_window(256, device=device)
analytic = torch.fft.fft(signal)
analytic[1025:] = 0
analytic[1:1024] *= 2
envelope = torch.fft.ifft(analytic).abs()
x = signal[:64].clone().requires_grad_()
torch.fft.rfft(x).abs().sum().backward()
print(
    json.dumps(
        {
            "peak": peak.item(),
            "power": power.sum().item(),
            "filtered": filtered.std().item(),
            "stft": [list(stft.shape), str(stft.dtype)],
            "back": (back - signal).abs().max().item() < 1e-4,
            "rebuilt": (rebuilt - signal).abs().max().item() < 1e-4,
            "mel": mel.mean().item(),
            "mfcc": [list(mfcc.shape), mfcc[0].mean().item()],
            "two": two.abs().max().item(),
            "blurred": (blurred - image).abs().max().item() < 0.5,
            "smooth": smooth.abs().mean().item(),
            "frames": frames.pow(2).sum().item(),
            "envelope": envelope.mean().item(),
            "gradient": x.grad.norm().item(),
        }
    )
)
