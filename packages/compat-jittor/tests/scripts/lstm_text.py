"""A character model: predict the next letter."""

import jittor as jt
import numpy as np
from jittor import nn

jt.set_global_seed(2)
text = "a small text that is repeated, " * 12
letters = sorted(set(text))
index = {c: k for k, c in enumerate(letters)}
data = np.array([index[c] for c in text], dtype=np.int32)


class TextModel(nn.Module):
    def __init__(self, count, embed=16, hidden=32):
        super().__init__()
        self.embedding = nn.Embedding(count, embed)
        self.lstm = nn.LSTM(embed, hidden, num_layers=1)
        self.decoder = nn.Linear(hidden, count)
        self.hidden = hidden

    def init_hidden(self, batch):
        return (jt.zeros((1, batch, self.hidden)), jt.zeros((1, batch, self.hidden)))

    def execute(self, tokens, state):
        output, state = self.lstm(self.embedding(tokens), state)
        return self.decoder(output.reshape(-1, self.hidden)), state


def get_batch(rng, batch, length):
    begins = rng.integers(0, len(data) - length - 1, batch)
    x = np.stack([data[b : b + length] for b in begins], 1)
    y = np.stack([data[b + 1 : b + length + 1] for b in begins], 1)
    return jt.array(x), jt.array(y).reshape((-1,))


model = TextModel(len(letters))
optimizer = nn.Adam(model.parameters(), lr=0.02)
rng = np.random.default_rng(0)
losses = []
for step in range(60):
    x, y = get_batch(rng, 8, 12)
    scores, _ = model(x, model.init_hidden(8))
    loss = nn.CrossEntropyLoss()(scores, y)
    optimizer.zero_grad()
    optimizer.backward(loss)
    optimizer.clip_grad_norm(5.0)
    optimizer.step()
    losses.append(loss.item())
print("perplexity", np.exp(losses[0]), "->", np.exp(losses[-1]))

model.eval()
state = model.init_hidden(1)
written = "a small"
for c in written:
    scores, state = model(jt.array([[index[c]]]), state)
for _ in range(20):
    k = jt.argmax(scores, dim=1)[0].item()
    written += letters[k]
    scores, state = model(jt.array([[k]]), state)
print(written)
