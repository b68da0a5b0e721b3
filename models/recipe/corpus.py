"""Documents -> rows of tokens. The training stream keeps each kind of text at its share of the tokens."""

import json
import random

import numpy
import sentencepiece
import torch

import documents

BOS, EOS = 1, 2
SHARES = {"story": 31, "dialogue": 12, "pages": 8, "maths": 8, "code": 8, "edit": 28, "records": 5}


class Stream:
    """Rows that begin where a document begins, filled with whole documents; a long one goes on in a later row."""

    def __init__(self, folder, tokenizer, kinds, seed):
        self.rng = random.Random(seed)
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{tokenizer}.model"))
        self.train = json.loads((folder / "docs.json").read_text())["train"]
        self.words = sorted({w for d in self.train["story"][:800] for w in d.split() if w.isalpha()})
        self.queue = {k: [] for k in kinds}
        self.seen = {k: 0 for k in kinds}
        self.left = []

    def batch(self, rows, length):
        """rows × (length + 1) tokens: the last column is only a label."""
        return torch.tensor(numpy.array([self.row(length + 1) for _ in range(rows)]))

    def row(self, length):
        row, self.left = self.left, []
        while len(row) < length:
            # The kind furthest behind its share comes next.
            kind = min(self.seen, key=lambda k: self.seen[k] / SHARES[k])
            ids = [BOS] + self.tokenizer.encode(self.document(kind)) + [EOS]
            self.seen[kind] += len(ids)
            row = row + ids
            if kind not in ("edit", "records"):
                self.left = row[length:] if len(row) - length > 100 else []
        if len(self.left) >= length:
            self.left = self.left[-length:]
        return row[:length]

    def document(self, kind):
        if kind == "records":
            return documents.records(self.rng)
        if kind == "edit":
            source = self.train["story"] if self.rng.random() < 0.8 else self.train[self.rng.choice(["dialogue", "code", "pages"])]
            return documents.edit(self.rng, source, self.words)
        if not self.queue[kind]:
            self.queue[kind] = self.train[kind][:]
            self.rng.shuffle(self.queue[kind])
        return self.queue[kind].pop()


def held_out(folder, tokenizer, kinds, length, limit=20000):
    """Per kind, documents cut to rows of their own: padded with -1, at most `limit` tokens."""
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{tokenizer}.model"))
    docs = json.loads((folder / "docs.json").read_text())["held_out"]
    out = {}
    for kind in kinds:
        rows, total = [], 0
        for d in docs[kind]:
            ids = ([BOS] + sp.encode(d) + [EOS])[: length + 1]
            rows.append(ids + [-1] * (length + 1 - len(ids)))
            total += len(ids)
            if total > limit:
                break
        out[kind] = torch.tensor(rows)
    return out
