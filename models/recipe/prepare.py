"""Text files -> documents of seven kinds, split into training and held-out, and two SentencePiece tokenizers.

    python prepare.py --data DIR --out DIR [--keep ../target.gguf]

DIR holds the sources named in `SOURCES`, documents separated by `<|endoftext|>`; see the card for where they come
from. Writes `docs.json`, `main.model` (4,096 pieces) and `tiny.model` (512 pieces, stories only).
"""

import argparse
import json
import random
import re
from pathlib import Path

import sentencepiece

import documents
import export

SOURCES = {
    "story": ["tinystories_train_cased.txt", "tinystories_train_truecased.txt", "ts_val_moebench.txt"],
    "dialogue": ["dialogues.txt"],
    "pages": ["tldr_en.txt"],
    "maths": ["gsm8k_train.txt"],
    "code": ["code_python.txt"],
}
SEED = 7
HELD_OUT = 0.02


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--keep", type=Path, metavar="GGUF", help="main.model becomes the tokenizer of this model, not a new one")
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rng = random.Random(SEED)
    train, held_out = {}, {}
    for kind, files in SOURCES.items():
        docs = unique([d for f in files for d in read(args.data / f)])
        rng.shuffle(docs)
        n = max(20, int(len(docs) * HELD_OUT))
        held_out[kind], train[kind] = docs[:n], docs[n:]
    # Held-out edits are made of held-out stories only, so that no passage of theirs was ever trained on.
    words = vocabulary(train["story"])
    held_out["edit"] = [documents.edit(rng, held_out["story"], words) for _ in range(100)]
    held_out["records"] = [documents.records(rng) for _ in range(60)]
    for kind in held_out:
        size = sum(map(len, train.get(kind, []))) / 1e6
        print(f"{kind}: {len(train.get(kind, []))} documents, {size:.2f} M characters; held out {len(held_out[kind])}")
    (args.out / "docs.json").write_text(json.dumps({"train": train, "held_out": held_out}))

    made = [documents.edit(rng, train["story"], words) for _ in range(1200)]
    made += [documents.records(rng) for _ in range(800)]
    sample = [d for docs in train.values() for d in docs[::3]] + made
    tokenizer(args.out / "main", sample, 4096, 0.9999)
    if args.keep:
        export.read_tokenizer(args.keep, args.out / "main.model", args.out / "main.model")
    tokenizer(args.out / "tiny", train["story"], 512, 0.999)


def read(path):
    text = path.read_text(errors="ignore")
    docs = text.split("<|endoftext|>")
    if len(docs) < 10:  # one source separates its stories by nothing but their first words
        docs = [d for d in re.split(r"\n\n(?=Once upon|One day|There )", text) if len(d) > 200]
    return [d.strip() for d in docs if d.strip()]


def unique(docs):
    """Drops documents that differ from an earlier one in letter case or spacing only."""
    return list({re.sub(r"\W+", " ", d.lower())[:300]: d for d in docs}.values())


def vocabulary(docs):
    return sorted({w for d in docs for w in re.findall(r"[A-Za-z]{2,}", d)})


def tokenizer(path, docs, pieces, coverage):
    lines = path.with_suffix(".txt")
    lines.write_text("\n".join(line for d in docs for line in d.split("\n") if line))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(path), model_type="bpe", vocab_size=pieces, character_coverage=coverage,
        byte_fallback=True, split_digits=True, user_defined_symbols=["\n"], allow_whitespace_only_pieces=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, max_sentence_length=8000, num_threads=2, minloglevel=2,
    )
    lines.unlink()


if __name__ == "__main__":
    main()
