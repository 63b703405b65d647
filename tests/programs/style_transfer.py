"""Neural style by LBFGS over an image: closures, Gram matrices, total variation."""

# programs: tolerance=2e-2
import json

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_default_dtype(torch.float32)
torch.manual_seed(0)
cnn = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),
    nn.ReLU(inplace=False),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1),
    nn.ReLU(inplace=False),
).to(device)
cnn.eval().requires_grad_(False)
mean = torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1).to(device)
std = torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1).to(device)
content = torch.rand(1, 3, 16, 16).to(device)
style = torch.rand(1, 3, 16, 16).to(device)


def gram_matrix(t):
    a, b, c, d = t.size()
    features = t.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)


def features(image):
    found, t = [], (image - mean) / std
    for layer in cnn:
        t = layer(t)
        if isinstance(layer, nn.ReLU):
            found.append(t)
    return found


wanted = [gram_matrix(f).detach() for f in features(style)]
kept = features(content)[1].detach()
image = content.clone().requires_grad_(True)
optimizer = torch.optim.LBFGS([image], max_iter=5, line_search_fn="strong_wolfe")
history = []
for _ in range(3):

    def closure():
        with torch.no_grad():
            image.clamp_(0, 1)
        optimizer.zero_grad()
        found = features(image)
        style_loss = sum(
            F.mse_loss(gram_matrix(f), w) for f, w in zip(found, wanted, strict=True)
        )
        content_loss = F.mse_loss(found[1], kept)
        variation = (image[..., 1:] - image[..., :-1]).abs().mean()
        loss = 1e3 * style_loss + content_loss + 1e-2 * variation
        loss.backward()
        history.append(loss.item())
        return loss

    optimizer.step(closure)
with torch.no_grad():
    image.clamp_(0, 1)
picture = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
print(
    json.dumps(
        {
            "first": history[0],
            "better": history[-1] < history[0],
            "picture": [list(picture.shape), str(picture.dtype)],
        }
    )
)
