"""Sequences of several lengths: transformer layers with masks, smoothed labels, parts of data sets, limits on gradients."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

rng = np.random.RandomState(0)
LENGTH, WORDS, CLASSES = 5, 7, 3


class Tagger(nn.Module):
    def __init__(self, norm_first, batch_first, activation):
        super().__init__()
        self.batch_first = batch_first
        self.embedding = nn.Embedding(WORDS, 8)
        layer = nn.TransformerEncoderLayer(
            8, 2, dim_feedforward=16, dropout=0.0, activation=activation, batch_first=batch_first, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, words, lengths):
        padding = torch.arange(LENGTH)[None, :] >= lengths[:, None]  # True: left out
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, device=words.device)
        x = self.embedding(words)
        if not self.batch_first:
            x = x.transpose(0, 1)
        x = self.encoder(x, mask=mask, src_key_padding_mask=padding.float() * -1e9)
        if not self.batch_first:
            x = x.transpose(0, 1)
        return self.head(x)


def first_values(model):
    """The same in both frameworks."""
    for name, p in sorted(model.named_parameters()):
        values = np.random.RandomState(len(name)).randn(*p.shape) * 0.3
        p.data.copy_(torch.from_numpy(values.astype("float32")))


lengths = rng.randint(2, LENGTH + 1, 24)
words = rng.randint(0, WORDS, (24, LENGTH))
tags = (words + np.roll(words, 1, 1)) % CLASSES
tags[np.arange(LENGTH)[None] >= lengths[:, None]] = -100  # CrossEntropyLoss leaves these out
data = TensorDataset(torch.from_numpy(words), torch.from_numpy(lengths), torch.from_numpy(tags))

results = []
weights = torch.tensor([1.0, 0.5, 2.0])
for norm_first, batch_first, activation in ((False, True, "relu"), (True, False, "gelu")):
    torch.manual_seed(0)
    model = Tagger(norm_first, batch_first, activation)
    first_values(model)
    optimizer = optim.NAdam(model.parameters(), lr=0.01, betas=(0.9, 0.99))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    loader = DataLoader(ConcatDataset([Subset(data, range(12)), Subset(data, list(range(12, 24)))]), batch_size=8)
    for epoch in range(2):
        for x, n, y in loader:
            optimizer.zero_grad()
            scores = model(x, n)
            loss = criterion(scores.reshape(-1, CLASSES), y.view(-1))
            loss.backward()
            nn.utils.clip_grad_value_(model.parameters(), 0.05)
            optimizer.step()
            results.append(loss.item())
    model.eval()
    with torch.no_grad():
        x, n, y = next(iter(DataLoader(data, batch_size=len(data))))
        scores = model(x, n).permute(0, 2, 1)
        smoothed = F.cross_entropy(scores, y, weight=weights, reduction="none", label_smoothing=0.2)
        results += [smoothed.sum().item(), F.cross_entropy(scores, y, label_smoothing=0.3).item()]

# a split is random, but its parts make up the whole
train, test = random_split(data, [18, 6], generator=torch.Generator().manual_seed(3))
generator = torch.Generator()
generator.manual_seed(4)
halves = random_split(data, (0.5, 0.5), generator)
results += [len(train), len(test), len(halves[0]), sum(len(part) for part in halves)]
total = 0
for part in (train, test):
    for x, n, y in DataLoader(part, batch_size=4, shuffle=True):
        total += n.sum().item()
results.append(total)
print(results)
