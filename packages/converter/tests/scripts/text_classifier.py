"""A text classifier: embedding, bidirectional LSTM over padded batches, attention over time, no packing."""
import collections
import re
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, random_split

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
SENTENCES = [
    ("what a wonderful and moving film", 1), ("dull plot and dull actors", 0), ("I loved every minute of it", 1),
    ("a complete waste of time", 0), ("wonderful actors , great story", 1), ("terrible , just terrible", 0),
    ("great fun for the whole family", 1), ("the worst film I have ever seen", 0), ("moving , great and fun", 1),
    ("a dull waste", 0), ("every minute was great", 1), ("I have never seen a film as dull as this one", 0),
]


def tokenize(text):
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Vocab:
    def __init__(self, texts, specials=("<pad>", "<unk>")):
        counter = collections.Counter(token for text in texts for token in tokenize(text))
        self.itos = list(specials) + [w for w, c in sorted(counter.items(), key=lambda kv: (-kv[1], kv[0]))]
        self.stoi = {w: i for i, w in enumerate(self.itos)}

    def __len__(self):
        return len(self.itos)

    def __call__(self, tokens):
        return [self.stoi.get(t, self.stoi["<unk>"]) for t in tokens]


class TextDataset(Dataset):
    def __init__(self, data, vocab):
        super(TextDataset, self).__init__()
        self.data = data
        self.vocab = vocab

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        text, label = self.data[index]
        return torch.tensor(self.vocab(tokenize(text)), dtype=torch.int64), label


def collate_batch(batch):
    label_list, text_list, lengths = [], [], []
    for _text, _label in batch:
        label_list.append(_label)
        text_list.append(_text)
        lengths.append(_text.size(0))
    label_list = torch.tensor(label_list, dtype=torch.int64)
    text_list = pad_sequence(text_list, batch_first=True, padding_value=0)
    return label_list.to(DEVICE), text_list.to(DEVICE), torch.tensor(lengths)


class LSTMClassifier(nn.Module):
    def __init__(self, vocab_size, embed_dim, hidden_dim, num_class, n_layers=2, dropout=0.0, pad_idx=0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=pad_idx)
        self.lstm = nn.LSTM(embed_dim, hidden_dim, num_layers=n_layers, bidirectional=True, dropout=dropout, batch_first=True)
        self.attention = nn.Linear(hidden_dim * 2, 1)
        self.fc = nn.Linear(hidden_dim * 2 * 2, num_class)
        self.dropout = nn.Dropout(dropout)
        self.pad_idx = pad_idx

    def forward(self, text, lengths):
        # text: [batch size, sent len]
        embedded = self.dropout(self.embedding(text))
        output, (hidden, cell) = self.lstm(embedded)
        mask = text.ne(self.pad_idx)
        scores = self.attention(output).squeeze(-1)
        scores = scores.masked_fill(~mask, -1e9)
        weights = F.softmax(scores, dim=-1)
        context = torch.bmm(weights.unsqueeze(1), output).squeeze(1)
        last = output[torch.arange(text.size(0)), lengths - 1]
        positions = torch.arange(text.shape[1], device=text.device)[None, :]
        assert bool((mask == (positions < lengths.unsqueeze(1))).all())
        return self.fc(self.dropout(torch.cat((context, last), dim=1)))


class FocalLoss(nn.Module):
    def __init__(self, gamma=2.0, alpha=None, reduction="mean"):
        super().__init__()
        self.gamma, self.alpha, self.reduction = gamma, alpha, reduction

    def forward(self, input, target):
        ce = F.cross_entropy(input, target, reduction="none", weight=self.alpha)
        pt = torch.exp(-ce)
        focal = (1 - pt) ** self.gamma * ce
        if self.reduction == "mean":
            return focal.mean()
        elif self.reduction == "sum":
            return focal.sum()
        return focal


def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train(dataloader, model, criterion, optimizer):
    model.train()
    total_acc, total_count, total_loss = 0, 0, 0.0
    start_time = time.time()
    for idx, (label, text, lengths) in enumerate(dataloader):
        optimizer.zero_grad()
        predicted_label = model(text, lengths)
        loss = criterion(predicted_label, label)
        loss.backward()
        for p in model.parameters():
            if p.grad is not None:
                p.grad.data.clamp_(-0.1, 0.1)
        optimizer.step()
        total_acc += (predicted_label.argmax(1) == label).sum().item()
        total_count += label.size(0)
        total_loss += loss.item() * label.size(0)
        elapsed = time.time() - start_time
    return total_loss / total_count, total_acc / total_count


def evaluate(dataloader, model, criterion):
    model.eval()
    total_acc, total_count = 0, 0
    preds = []
    with torch.no_grad():
        for label, text, lengths in dataloader:
            predicted_label = model(text, lengths)
            total_acc += torch.eq(predicted_label.argmax(dim=1), label).sum().item()
            total_count += label.size(0)
            preds.extend(F.softmax(predicted_label, 1)[:, 1].cpu().numpy().tolist())
    return total_acc / total_count, preds


vocab = Vocab(text for text, _ in SENTENCES)
dataset = TextDataset(SENTENCES, vocab)
train_dataloader = DataLoader(dataset, batch_size=4, shuffle=False, collate_fn=collate_batch)
part, rest = random_split(dataset, [9, 3])
results = [float(len(part)), float(len(rest)), float(len(train_dataloader)), float(len(train_dataloader.dataset))]
for loss_name in ("focal", "ce", "bce"):
    model = LSTMClassifier(len(vocab), 12, 10, 2).to(DEVICE)
    for k, (name, p) in enumerate(sorted(model.named_parameters(), key=lambda item: item[0])):
        with torch.no_grad():
            p.copy_(torch.from_numpy(np.random.RandomState(k).uniform(-0.5, 0.5, tuple(p.size())).astype(np.float32)))
    with torch.no_grad():
        model.embedding.weight[0].fill_(0)
    results.append(float(count_parameters(model)))
    if loss_name == "focal":
        criterion = FocalLoss(alpha=torch.tensor([0.4, 0.6]))
    elif loss_name == "ce":
        criterion = nn.CrossEntropyLoss(reduction="sum")
    else:
        bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=torch.tensor([2.0, 1.0]))
        criterion = lambda out, target: bce(out, F.one_hot(target, 2).to(out.dtype)).sum(1).mean()
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    best = None
    for epoch in range(1, 4):
        loss, acc = train(train_dataloader, model, criterion, optimizer)
        accu_val, preds = evaluate(train_dataloader, model, criterion)
        if best is not None and best > accu_val:
            scheduler.step()
        else:
            best = accu_val
        results += [loss, acc, accu_val] + preds[:4]
        for param_group in optimizer.param_groups:
            results.append(param_group["lr"])
print(results)
