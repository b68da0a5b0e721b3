"""Measures the shipped GGUF files on held-out text and prints the tables of the card, in Markdown.

    python evaluate.py --data DIR --target target.gguf --drafts draft.gguf draft-small.gguf
    python evaluate.py --data DIR --target target.gguf --samples ../../benches/prompts
    python evaluate.py --data DIR --tiny tiny.gguf

Agreement is the share of held-out positions where the draft's first choice is the target's; overlap is the mean of
sum over tokens of min(p, q), the chance that a token drawn from the draft is accepted at temperature 1.
"""

import argparse
import json
import re
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F

import export
from corpus import BOS, EOS, SHARES, held_out
from model import Llama, Shape

LENGTH = 512


@torch.no_grad()
def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--target", type=Path)
    args.add_argument("--drafts", type=Path, nargs="*", default=[])
    args.add_argument("--tiny", type=Path)
    args.add_argument("--samples", type=Path, help="folder of prompts: continue the first of each kind greedily, and count right edits")
    args.add_argument("--limit", type=int, default=20000, help="held-out tokens per kind")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    load = lambda path: export.read(path, Llama, Shape)

    if args.tiny:
        for row in held_out(args.data, "tiny", ["story"], 255, args.limit).values():
            print("tiny, story:", round(nats(load(args.tiny)(row[:, :-1].clamp(min=0))[0], row), 2))
    if args.target and args.samples:
        samples(load(args.target), args.data, args.samples)
    elif args.target:
        text = held_out(args.data, "main", SHARES, LENGTH, args.limit)
        tables(load(args.target), {d.stem: load(d) for d in args.drafts}, text)


def tables(target, drafts, text):
    names = ["target"] + [f"exit after {k}" for k in range(1, target.shape.layers)] + list(drafts)
    loss, agree, overlap = ({n: [] for n in names} for _ in range(3))
    for kind, rows in text.items():
        parts = {n: [] for n in names}
        for some in rows.split(8):
            x, keep = some[:, :-1].clamp(min=0), some[:, 1:] >= 0
            out = target(x, range(1, target.shape.layers)) + [d(x)[0] for d in drafts.values()]
            truth = out[0][keep]
            for name, logits in zip(names, out):
                q = logits[keep]
                same = (q.argmax(-1) == truth.argmax(-1)).float()
                shared = torch.minimum(q.softmax(-1), truth.softmax(-1)).sum(-1)
                parts[name].append(torch.stack((F.cross_entropy(q, some[:, 1:][keep], reduction="none"), same, shared)))
        for name in names:
            a, b, c = torch.cat(parts[name], 1).mean(1).tolist()
            loss[name].append(a), agree[name].append(b), overlap[name].append(c)
    show("held-out loss, nats per token", text, loss)
    show("top-1 agreement with the target", text, {n: v for n, v in agree.items() if n != "target"})
    show("overlap with the target", text, {n: v for n, v in overlap.items() if n != "target"})


def show(title, kinds, table):
    print(f"\n| {title} | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in row) + " |")


def nats(logits, rows):
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=-1).item()


def samples(model, data, folder):
    sp = sentencepiece.SentencePieceProcessor(model_file=str(data / "main.model"))
    right, asked = 0, 0
    for kind in SHARES:
        for i, line in enumerate((folder / f"{kind}.jsonl").read_text().splitlines()):
            prompt = json.loads(line)["prompt"]
            if i == 0 or kind == "edit":
                text = sp.decode(greedy(model, [BOS] + sp.encode(prompt), 160))
                wanted = answer(prompt) if kind == "edit" else None
                if wanted:
                    asked, right = asked + 1, right + (text.strip() == wanted)
                if i == 0:
                    print(f"\n=== {kind}\n{prompt}>>>{text}")
    print(f"\nedits done without a single fault: {right} of {asked}")


def answer(prompt):
    passage, task = re.fullmatch(r"Text: (.*)\nTask: (.*)\.\nResult:", prompt, re.S).groups()
    words = re.fullmatch(r"replace (\w+) with (\w+)", task)
    return re.sub(rf"\b{words[1]}\b", words[2], passage) if words else passage


def greedy(model, ids, count):
    first = len(ids)
    while len(ids) < first + count:
        token = model(torch.tensor([ids]))[0][0, -1].argmax().item()
        if token == EOS:
            break
        ids = ids + [token]
    return ids[first:]


if __name__ == "__main__":
    main()
