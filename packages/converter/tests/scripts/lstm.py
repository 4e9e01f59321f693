"""A language model of letters with an LSTM whose state goes from batch to batch."""
import zlib

import numpy as np
import torch
import torch.nn as nn

TEXT = "the quick brown fox jumps over the lazy dog " * 8
LETTERS = sorted(set(TEXT))
INDEX = {letter: k for k, letter in enumerate(LETTERS)}


class CharModel(nn.Module):
    """Embedding, LSTM, linear."""

    def __init__(self, letters, hidden=24, layers=2):
        super(CharModel, self).__init__()
        self.hidden, self.layers = hidden, layers
        self.encoder = nn.Embedding(letters, 12)
        self.drop = nn.Dropout(p=0.0)
        self.rnn = nn.LSTM(12, hidden, num_layers=layers, batch_first=True)
        self.decoder = nn.Linear(hidden, letters)
        self.init_weights()

    def init_weights(self):
        initrange = 0.1
        self.encoder.weight.data.uniform_(-initrange, initrange)
        self.decoder.bias.data.zero_()
        self.decoder.weight.data.uniform_(-initrange, initrange)

    def forward(self, x, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(x)), hidden)
        decoded = self.decoder(output.reshape(output.size(0) * output.size(1), output.size(2)))
        return decoded, hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        return (weight.new_zeros(self.layers, bsz, self.hidden), weight.new_zeros(self.layers, bsz, self.hidden))


def repackage_hidden(h):
    """Hidden states without their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


model = CharModel(len(LETTERS))
for name, p in model.named_parameters():
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 1000)
    p.data.copy_(torch.from_numpy((rng.rand(*p.shape) - 0.5).astype(np.float32) * 0.4))

data = torch.tensor([INDEX[c] for c in TEXT], dtype=torch.int64).view(4, -1)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, alpha=0.9)
results = []
model.train()
for epoch in range(2):
    hidden = model.init_hidden(4)
    for i in range(0, data.size(1) - 1, 22):
        seq_len = min(22, data.size(1) - 1 - i)
        inputs, targets = data[:, i : i + seq_len], data[:, i + 1 : i + 1 + seq_len].reshape(-1)
        hidden = repackage_hidden(hidden)
        model.zero_grad()
        output, hidden = model(inputs, hidden)
        loss = criterion(output, targets)
        loss.backward()
        # exploding gradients
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        results.append(loss.item())

model.eval()
with torch.no_grad():
    hidden = model.init_hidden(1)
    letter, written = torch.LongTensor([[INDEX["t"]]]), "t"
    for _ in range(10):
        output, hidden = model(letter, hidden)
        k = output.squeeze().topk(1)[1].item()
        written += LETTERS[k]
        letter = torch.full((1, 1), k, dtype=torch.long)
results.append(float(len(written)))
