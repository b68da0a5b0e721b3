"""Writes training documents as one text file, each kind at its share: what `foretoken prepare medusa` and
`foretoken prepare early-exit --search` read.

    python texts.py --data DIR --tokens 300000 --out texts.txt
"""

import argparse
from pathlib import Path

from corpus import SHARES, Stream

args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
args.add_argument("--data", type=Path, required=True)
args.add_argument("--tokens", type=int, default=300_000)
args.add_argument("--seed", type=int, default=5)
args.add_argument("--out", type=Path, required=True)
args = args.parse_args()

stream = Stream(args.data, "main", tuple(SHARES), args.seed)
seen, texts = dict.fromkeys(SHARES, 0), []
while sum(seen.values()) < args.tokens:
    kind = min(seen, key=lambda k: seen[k] / SHARES[k])
    text = stream.document(kind)
    seen[kind] += len(stream.tokenizer.encode(text)) + 2
    texts.append(text)
args.out.write_text("\n<|endoftext|>\n".join(texts))
