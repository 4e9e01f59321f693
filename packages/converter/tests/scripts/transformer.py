"""A transformer encoder that finds the largest of several numbers: attention, masks, clipping, warming up."""
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_len=50):
        super().__init__()
        pe = torch.zeros(max_len, d_model)
        position = torch.arange(0, max_len, dtype=torch.float).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2).float() * (-math.log(10000.0) / d_model))
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        return x + self.pe[:, : x.size(1)]


class EncoderLayer(nn.Module):
    def __init__(self, d_model, heads, hidden, dropout=0.0):
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(d_model, hidden)
        self.linear2 = nn.Linear(hidden, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-6)
        self.dropout = nn.Dropout(p=dropout)
        self.activation = nn.GELU()

    def forward(self, src, src_mask=None):
        attended, weights = self.attention(src, src, src, attn_mask=src_mask)
        src = self.norm1(src + self.dropout(attended))
        return self.norm2(src + self.linear2(self.activation(self.linear1(src))))


class SelfAttention(nn.Module):
    """The same by hand."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn.masked_fill(mask == 0, float("-inf"))
        attn = F.softmax(attn, dim=-1)
        x = torch.einsum("bhij,bhjd->bhid", attn, v).transpose(1, 2).contiguous().view(B, N, C)
        return self.proj(x)


class Model(nn.Module):
    def __init__(self, tokens, d_model=16, heads=4, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(tokens, d_model)
        self.position = PositionalEncoding(d_model)
        self.layers = nn.ModuleList([EncoderLayer(d_model, heads, 32) for _ in range(layers)])
        self.causal = SelfAttention(d_model, heads)
        self.head = nn.Linear(d_model, tokens)
        self.apply(self._init_weights)

    def _init_weights(self, m):
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm):
            nn.init.ones_(m.weight)
            nn.init.constant_(m.bias, val=0.0)

    def forward(self, tokens):
        x = self.position(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x)
        mask = torch.tril(torch.ones(x.size(1), x.size(1), device=x.device))
        x = x + self.causal(x, mask)
        return self.head(x.mean(dim=1))


rng = np.random.RandomState(3)
model = Model(10)
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "pe" != name.split(".")[-1] and "norm" not in name:
            values = np.random.RandomState(len(name)).randn(*parameter.shape) * 0.2
            parameter.data.copy_(torch.tensor(values, dtype=torch.float32))
inputs = torch.from_numpy(rng.randint(0, 10, (32, 6)))
targets = inputs.max(dim=1)[0]

optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lambda step: min(1.0, (step + 1) / 4))
results = []
for step in range(8):
    optimizer.zero_grad()
    logits = model(inputs)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    warmup.step()
    results.append(loss.item())
    results.append(warmup.get_last_lr()[0])
correct = (torch.argmax(model(inputs), dim=-1) == targets).float().mean().item()
results.append(correct)
