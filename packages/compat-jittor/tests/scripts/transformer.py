"""Attention, einops and layers for sequences."""

import jittor as jt
import numpy as np
from jittor import nn
from jittor.attention import MultiheadAttention
from jittor.einops import rearrange, reduce, repeat
from jittor.einops.layers.jittor import Rearrange

jt.set_global_seed(4)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 2), nn.GELU(), nn.Linear(dim * 2, dim))

    def execute(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, classes=2, dim=16, patch=4, size=8):
        super().__init__()
        self.to_patches = Rearrange("b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=patch, p2=patch)
        self.embed = nn.Linear(patch * patch, dim)
        self.token = jt.zeros((1, 1, dim)).start_grad()
        self.position = nn.Parameter(jt.randn(1, (size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.ModuleList([Block(dim, 4), Block(dim, 4)])
        self.head = nn.Linear(dim, classes)

    def execute(self, images):
        x = self.embed(self.to_patches(images))
        token = repeat(self.token, "1 1 d -> b 1 d", b=x.shape[0])
        x = jt.concat([token, x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


rng = np.random.default_rng(0)
images = rng.normal(size=(32, 1, 8, 8)).astype(np.float32)
labels = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).astype(np.int32)
model = ViT()
optimizer = jt.optim.AdamW(model.parameters(), lr=3e-3)
losses = []
for _ in range(40):
    loss = nn.cross_entropy_loss(model(jt.array(images)), jt.array(labels))
    optimizer.step(loss)
    losses.append(loss.item())

x = jt.randn(2, 3, 4, 4)
heads = rearrange(x, "b (h d) x y -> b h d (x y)", h=3)
pooled = reduce(x, "b c (h 2) (w 2) -> b c h w", "max")
pool_error = np.abs((pooled - nn.Pool(2, 2)(x)).numpy()).max()
