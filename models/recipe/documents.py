"""The two kinds of document that are written here rather than read: edits and records.

Copying is their task, which free prose hardly has: an edit repeats a passage with at most one word replaced, a
record list repeats its keys. `prepare.py` uses them to train the tokenizer, `train.py` draws fresh ones all the time.
"""

import json
import random
import re

NAMES = (
    "Lily Tom Ben Sue Max Anna Tim Mia Sam Jack Lucy Bob Ella Leo Nora Finn Rosa Hugo Ivy Oscar Clara Noah Jane Paul "
    "Emma Peter Kate John Ruby Fred Alice Mark Zoe Nick Maria Luke Sara Adam Molly Ted Grace Dan Amy Bill Daisy Spot "
    "Sally Joe Timmy Mimi Lola Billy Benny Tina Roxy Kitty Buddy Polly"
).split()
NOUNS = "cat dog bird ball car tree house park boy girl fish bear box toy book flower cake hat boat frog".split()
CITIES = "Paris Oslo Lima Cairo Delhi Rome Tokyo Quito Berlin Accra Madrid Seoul".split()
COLORS = "red blue green yellow black white orange purple".split()
ANIMALS = "cat dog owl fox horse rabbit duck goat".split()


def edit(rng: random.Random, passages, words):
    """A passage and the order to repeat it, or to repeat it with one word replaced.

    A third of the passages are words at random, many of them short: nothing but copying predicts their result, so
    attention learns to look back (without them, 3 million tokens taught it no copying at all).
    """
    if rng.random() < 0.35:
        passage = " ".join(rng.choices(words, k=int(4 * 12 ** rng.random()))) + "."
    else:
        passage = cut(rng, rng.choice(passages))
    swappable = [w for w in NAMES + NOUNS if re.search(rf"\b{w}\b", passage)]
    if swappable and rng.random() < 0.6:
        old = rng.choice(swappable)
        new = rng.choice([w for w in (NAMES if old in NAMES else NOUNS) if w != old])
        return f"Text: {passage}\nTask: replace {old} with {new}.\nResult: " + re.sub(rf"\b{old}\b", new, passage)
    return f"Text: {passage}\nTask: repeat the text.\nResult: {passage}"


def cut(rng, text):
    """A piece of the text that starts with a sentence or line; short ones are as likely as long ones."""
    starts = [0] + [m.end() for m in re.finditer(r"[.!?\"]\s+|\n", text) if m.end() < len(text) - 80]
    start = rng.choice(starts) if rng.random() < 0.5 else 0
    piece = text[start : start + int(40 * 20 ** rng.random())]
    return piece.rsplit(" ", 1)[0].strip() or text[:60].strip()


def records(rng: random.Random):
    values = {
        "name": lambda: rng.choice(NAMES),
        "age": lambda: rng.randint(3, 90),
        "city": lambda: rng.choice(CITIES),
        "color": lambda: rng.choice(COLORS),
        "animal": lambda: rng.choice(ANIMALS),
        "score": lambda: round(rng.random() * 100, 1),
        "active": lambda: rng.random() < 0.5,
    }
    keys = rng.sample(list(values), rng.randint(2, 6))
    rows = [{"id": i + 1, **{k: values[k]() for k in keys}} for i in range(rng.randint(3, 14))]
    return "Fields: " + ", ".join(["id"] + keys) + "\nJSON:\n" + json.dumps(rows, indent=1)
