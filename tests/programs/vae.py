"""A variational autoencoder: noise on the device, loss in sums, samples out."""

import json

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(1)
torch.cuda.manual_seed_all(1)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 48)
        self.fc21, self.fc22 = nn.Linear(48, 6), nn.Linear(48, 6)
        self.fc3, self.fc4 = nn.Linear(6, 48), nn.Linear(48, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar, noisy):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std) if noisy else torch.zeros_like(std)
        return mu + eps * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x, noisy=True):
        mu, logvar = self.encode(x.view(-1, 64))
        return self.decode(self.reparameterize(mu, logvar, noisy)), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


x = torch.tensor(load_digits().data[:512], dtype=torch.float32) / 16
model = VAE().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
quiet = []
for epoch in range(2):
    for data in x.split(64):
        data = data.to(device)
        optimizer.zero_grad()
        recon, mu, logvar = model(data, noisy=epoch > 0)
        loss = loss_function(recon, data, mu, logvar)
        loss.backward()
        optimizer.step()
        if epoch == 0:
            quiet.append(loss.item() / len(data))
with torch.no_grad():
    sample = model.decode(torch.randn(4, 6).to(device)).cpu().view(4, 8, 8)
print(
    json.dumps(
        {
            "losses": quiet[::3],
            "noisy_is_fine": loss.item() / len(data) < quiet[0],
            "sample": list(sample.shape),
            "bounded": bool(((sample >= 0) & (sample <= 1)).all()),
        }
    )
)
