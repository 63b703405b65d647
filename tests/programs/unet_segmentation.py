"""U-Net segmentation: skips, bilinear upsampling, Dice and BCE, IoU, augmentation."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


def double_conv(cin, cout):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
        nn.Conv2d(cout, cout, 3, padding=1, bias=False),
        nn.InstanceNorm2d(cout, affine=True),
        nn.PReLU(cout),
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inc, self.down = double_conv(1, 8), double_conv(8, 16)
        self.deep = double_conv(16, 16)
        self.up1, self.up2 = double_conv(32, 8), double_conv(16, 8)
        self.out = nn.Conv2d(8, 1, 1)
        self.drop = nn.Dropout2d(0.0)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down(F.max_pool2d(x1, 2))
        x3 = self.drop(self.deep(F.avg_pool2d(x2, 2, ceil_mode=True)))
        u = F.interpolate(x3, size=x2.shape[2:], mode="bilinear", align_corners=True)
        u = self.up1(torch.cat([x2, u], dim=1))
        u = F.interpolate(u, scale_factor=2, mode="nearest")
        u = F.pad(
            u, (0, x1.size(3) - u.size(3), 0, x1.size(2) - u.size(2)), mode="replicate"
        )
        return self.out(self.up2(torch.cat([x1, u], dim=1)))


def circles(count):
    y, x = torch.meshgrid(torch.arange(17.0), torch.arange(17.0), indexing="ij")
    center = torch.rand(count, 2, 1, 1) * 9 + 4
    radius = torch.rand(count, 1, 1) * 3 + 2
    mask = ((y - center[:, 0]) ** 2 + (x - center[:, 1]) ** 2) < radius**2
    image = mask.float() + 0.3 * torch.randn(count, 17, 17)
    return image[:, None], mask[:, None].float()


def dice_loss(logits, target):
    p = torch.sigmoid(logits)
    overlap = (p * target).sum(dim=(1, 2, 3))
    return (
        1 - ((2 * overlap + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)).mean()
    )


model = UNet().to(device, memory_format=torch.channels_last)
optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3, momentum=0.5)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", patience=1)
losses = []
for step in range(8):
    image, mask = circles(6)
    image = image.to(device, memory_format=torch.channels_last)
    mask = mask.to(device)
    if step % 2:
        image, mask = image.flip(-1), mask.flip(-1)
    logits = model(image)
    loss = F.binary_cross_entropy_with_logits(
        logits, mask, pos_weight=torch.tensor([2.0], device=device)
    ) + dice_loss(logits, mask)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    scheduler.step(loss)
    losses.append(loss.item())
model.eval()
with torch.no_grad():
    image, mask = circles(4)
    prediction = (model(image.to(device)).sigmoid() > 0.5).cpu()
    truth = mask.bool()
    iou = (prediction & truth).sum() / (prediction | truth).sum()
print(
    json.dumps(
        {
            "losses": losses[::3],
            "iou": 0 <= iou.item() <= 1,
            "last": logits.is_contiguous(memory_format=torch.channels_last),
        }
    )
)
