"""A DCGAN: two networks, transposed convolutions, labels filled in, spectral norm."""

import json

import torch
from torch import nn

device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
torch.manual_seed(999)
nz, ngf = 8, 8


def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Conv") != -1 and hasattr(m, "weight"):
        nn.init.normal_(m.weight.data, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


netG = nn.Sequential(
    nn.ConvTranspose2d(nz, ngf * 2, 4, 1, 0, bias=False),
    nn.BatchNorm2d(ngf * 2),
    nn.ReLU(True),
    nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
    nn.BatchNorm2d(ngf),
    nn.ReLU(True),
    nn.ConvTranspose2d(ngf, 1, 4, 2, 1, bias=False),
    nn.Tanh(),
)
netD = nn.Sequential(
    nn.Conv2d(1, ngf, 4, 2, 1, bias=False),
    nn.LeakyReLU(0.2, inplace=True),
    nn.utils.parametrizations.spectral_norm(
        nn.Conv2d(ngf, ngf * 2, 4, 2, 1, bias=False)
    ),
    nn.LeakyReLU(0.2, inplace=True),
    nn.Conv2d(ngf * 2, 1, 4, 1, 0, bias=False),
    nn.Sigmoid(),
)
netG.apply(weights_init)
netD.apply(weights_init)
netG.to(device)
netD.to(device)
criterion = nn.BCELoss()
optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
real_label, fake_label = 1.0, 0.0
grid = torch.linspace(-1, 1, 16)
history = []
for i in range(10):
    phase = torch.rand(8, 1, 1, 1)
    data = torch.sin(grid.view(1, 1, 1, 16) * 3 + phase) * torch.cos(
        grid.view(1, 1, 16, 1)
    )
    netD.zero_grad()
    real = data.to(device)
    label = torch.full((real.size(0),), real_label, dtype=torch.float, device=device)
    output = netD(real).view(-1)
    errD_real = criterion(output, label)
    errD_real.backward()
    D_x = output.mean().item()
    noise = torch.randn(8, nz, 1, 1).to(device)
    fake = netG(noise)
    label.fill_(fake_label)
    output = netD(fake.detach()).view(-1)
    errD_fake = criterion(output, label)
    errD_fake.backward()
    optimizerD.step()
    netG.zero_grad()
    label.fill_(real_label)
    output = netD(fake).view(-1)
    errG = criterion(output, label)
    errG.backward()
    optimizerG.step()
    history.append([(errD_real + errD_fake).item(), errG.item(), D_x])
    print(f"[{i}] Loss_D: {history[-1][0]:.4f} Loss_G: {errG.item():.4f}")

interpolated = real.detach().requires_grad_()
score = netD(interpolated)
gradient = torch.autograd.grad(score.sum(), interpolated, create_graph=True)[0]
penalty = ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
netD.zero_grad()
penalty.backward()
with torch.no_grad():
    sample = netG(torch.ones(2, nz, 1, 1, device=device)).cpu().numpy()
print(
    json.dumps(
        {
            "history": [history[0], history[4]],
            "penalty": penalty.item(),
            "sample": [list(sample.shape), str(sample.dtype)],
        }
    )
)
