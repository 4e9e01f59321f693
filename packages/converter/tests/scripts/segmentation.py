"""Segmentation with a small U-Net, trained with cross entropy and Dice."""
import os
import random
import argparse

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader, SubsetRandomSampler, WeightedRandomSampler
from torch.optim import lr_scheduler


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


class Shapes(Dataset):
    """Images of discs and squares with their masks."""

    def __init__(self, count, size=16):
        self.count = count
        rng = np.random.RandomState(3)
        self.images = np.zeros((count, 1, size, size), dtype=np.float32)
        self.masks = np.zeros((count, size, size), dtype=np.int64)
        yy, xx = np.mgrid[:size, :size]
        for k in range(count):
            cx, cy, r = rng.randint(4, size - 4, 2).tolist() + [rng.randint(2, 5)]
            disc = (xx - cx) ** 2 + (yy - cy) ** 2 < r * r
            square = (abs(xx - cy) < r) & (abs(yy - cx) < r)
            self.masks[k][square] = 1
            self.masks[k][disc] = 2
            self.images[k, 0] = self.masks[k] * 0.5 + rng.randn(size, size) * 0.1

    def __len__(self):
        return self.count

    def __getitem__(self, idx):
        if torch.is_tensor(idx):
            idx = idx.tolist()
        image = torch.from_numpy(self.images[idx])
        mask = torch.as_tensor(self.masks[idx], dtype=torch.long)
        return {"image": image, "mask": mask}


class DoubleConv(nn.Module):
    """(convolution => [BN] => ReLU) * 2"""

    def __init__(self, in_channels, out_channels, mid_channels=None):
        super().__init__()
        if not mid_channels:
            mid_channels = out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding="same", bias=False),
            nn.GroupNorm(2, out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, in_channels, out_channels, bilinear=True):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x1, x2):
        x1 = self.up(x1)
        # input is CHW
        diffY = x2.size()[2] - x1.size()[2]
        diffX = x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diffX // 2, diffX - diffX // 2, diffY // 2, diffY - diffY // 2])
        x = torch.cat([x2, x1], dim=1)
        return self.conv(x)


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes, bilinear=False):
        super(UNet, self).__init__()
        self.n_channels = n_channels
        self.n_classes = n_classes
        self.inc = DoubleConv(n_channels, 4)
        self.down1 = Down(4, 8)
        factor = 2 if bilinear else 1
        self.down2 = Down(8, 16 // factor)
        self.up1 = Up(16, 8 // factor, bilinear)
        self.up2 = Up(8, 4, bilinear)
        self.outc = nn.Conv2d(4, n_classes, kernel_size=1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                if m.bias is not None:
                    nn.init.constant_(m.bias, 0)
            elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.ones_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.up1(x3, x2)
        x = self.up2(x, x1)
        return self.outc(x)


class DiceLoss(nn.Module):
    """One minus the Dice coefficient, mean over classes."""

    def __init__(self, smooth: float = 1.0, ignore_background: bool = False):
        super().__init__()
        self.smooth = smooth
        self.ignore_background = ignore_background

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        num_classes = logits.shape[1]
        probs = F.softmax(logits, dim=1)
        onehot = F.one_hot(target, num_classes).permute(0, 3, 1, 2).float()
        if self.ignore_background:
            probs, onehot = probs[:, 1:], onehot[:, 1:]
        dims = (0,) + tuple(range(2, logits.ndimension()))
        intersection = torch.sum(probs * onehot, dims)
        cardinality = torch.sum(probs + onehot, dims)
        dice = (2.0 * intersection + self.smooth) / (cardinality + self.smooth)
        return (1.0 - dice).mean()


def dice_coeff(input: torch.Tensor, target: torch.Tensor, epsilon: float = 1e-6):
    assert input.size() == target.size()
    inter = 2 * (input * target).sum(dim=(-1, -2))
    sets_sum = input.sum(dim=(-1, -2)) + target.sum(dim=(-1, -2))
    sets_sum = torch.where(sets_sum == 0, inter, sets_sum)
    return ((inter + epsilon) / (sets_sum + epsilon)).mean()


@torch.inference_mode()
def evaluate(net, loader, device):
    net.eval()
    dice_score, confusion = 0, torch.zeros(3, 3, dtype=torch.long)
    for batch in loader:
        image, mask_true = batch["image"], batch["mask"]
        image = image.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)
        mask_true = mask_true.to(device=device, dtype=torch.long)
        mask_pred = net(image)
        mask_true_1h = F.one_hot(mask_true, net.n_classes).permute(0, 3, 1, 2).float()
        mask_pred_1h = F.one_hot(mask_pred.argmax(dim=1), net.n_classes).permute(0, 3, 1, 2).float()
        dice_score += dice_coeff(mask_pred_1h[:, 1:], mask_true_1h[:, 1:])
        hist = torch.bincount(mask_true.view(-1) * 3 + mask_pred.argmax(1).view(-1), minlength=9).reshape(3, 3)
        confusion += hist
    net.train()
    iou = torch.diag(confusion).float() / (confusion.sum(0) + confusion.sum(1) - torch.diag(confusion)).clamp(min=1).float()
    return dice_score / max(len(loader), 1), iou.mean()


def get_args():
    parser = argparse.ArgumentParser(description="Train the UNet on images and target masks")
    parser.add_argument("--epochs", "-e", metavar="E", type=int, default=2)
    parser.add_argument("--bilinear", action="store_true", default=False)
    return parser.parse_args([])


args = get_args()
seed_everything(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dataset = Shapes(24)
n_val = int(len(dataset) * 0.25)
indices = list(range(len(dataset)))
val_loader = DataLoader(dataset, batch_size=3, sampler=indices[:n_val], num_workers=0, pin_memory=True)
results = []
train_indices = np.arange(n_val, len(dataset))
sampler = SubsetRandomSampler(indices[n_val:])
sampled = DataLoader(dataset, batch_size=6, sampler=sampler)
results.append(float(len(sampled)))
results.append(float(sum(batch["image"].shape[0] for batch in sampled)))
weighted = DataLoader(dataset, batch_size=6, sampler=WeightedRandomSampler(torch.ones(24).tolist(), num_samples=12, replacement=True))
results.append(float(sum(batch["mask"].size(0) for batch in weighted)))
train_loader = DataLoader(torch.utils.data.Subset(dataset, train_indices), shuffle=False, batch_size=6, drop_last=True)

for bilinear in (args.bilinear, True):
    model = UNet(n_channels=1, n_classes=3, bilinear=bilinear)
    model = model.to(memory_format=torch.channels_last)
    model.to(device=device)
    n_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    results.append(float(n_params))
    for k, (name, p) in enumerate((n, q) for n, q in model.named_parameters() if "running" not in n):
        p.data.copy_(torch.from_numpy(np.random.RandomState(k).uniform(-0.4, 0.4, tuple(p.shape)).astype(np.float32)))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 1.5]).to(device))
    dice_loss = DiceLoss(ignore_background=True)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, weight_decay=1e-4, momentum=0.9, foreach=True)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=0)  # goal: maximize Dice score
    global_step = 0
    for epoch in range(1, args.epochs + 1):
        model.train()
        epoch_loss = 0.0
        for i, batch in enumerate(train_loader):
            images, true_masks = batch["image"], batch["mask"]
            assert images.shape[1] == model.n_channels, "wrong number of channels"
            images = images.to(device=device, dtype=torch.float32)
            true_masks = true_masks.to(device=device, dtype=torch.long)
            with torch.autocast(device.type if device.type != "mps" else "cpu", enabled=False):
                masks_pred = model(images)
                loss = criterion(masks_pred, true_masks)
                loss += dice_loss(masks_pred, true_masks)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            global_step += 1
            epoch_loss += loss.item()
            results.append(loss.item())
        val_score, iou = evaluate(model, val_loader, device)
        scheduler.step(val_score)
        results += [val_score.item(), iou.item(), optimizer.param_groups[0]["lr"]]
    state_dict = model.state_dict()
    state_dict["mask_values"] = [0, 1, 2]
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pth")
    checkpoint = torch.load("checkpoint.pth", map_location=device)
    model.load_state_dict(checkpoint["model"])
    results.append(float(checkpoint["epoch"]))
    os.remove("checkpoint.pth")
