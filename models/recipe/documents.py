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
MARKS = [""] * 8 + [",", ".", "!", "?"]
ANIMALS = "cat dog owl fox horse rabbit duck goat".split()


def edit(rng: random.Random, passages, words):
    """A passage and the order to repeat it, or to repeat it with one word replaced.

    A third of the passages are words at random, many of them short: nothing but copying predicts their result, so
    attention learns to look back (without them, 3 million tokens taught it no copying at all).
    """
    passage = scattered(rng, words) if rng.random() < 0.35 else recast(rng, cut(rng, rng.choice(passages)))
    swappable = [w for w in NAMES + NOUNS if re.search(rf"\b{w}\b", passage)]
    if swappable and rng.random() < 0.7:
        old = rng.choice(swappable)
        new = rng.choice([w for w in (NAMES if old in NAMES else NOUNS) if w != old])
        return f"Text: {passage}\nTask: replace {old} with {new}.\nResult: " + re.sub(rf"\b{old}\b", new, passage)
    return f"Text: {passage}\nTask: repeat the text.\nResult: {passage}"


def scattered(rng, words):
    """Words at random, with a few names and things among them again and again: which to replace is not to be guessed."""
    cast = rng.sample(NAMES, rng.randint(1, 4)) + rng.sample(NOUNS, rng.randint(0, 2))
    share = rng.choice([0.0, 0.15, 0.3])
    drawn = [rng.choice(cast) if rng.random() < share else rng.choice(words) for _ in range(int(4 * 12 ** rng.random()))]
    return " ".join(w + rng.choice(MARKS) for w in drawn).rstrip(" ,.!?") + "."


def recast(rng, text):
    """The text, half the time with other names in it: a few names make most of the stories' people."""
    if rng.random() < 0.5:
        return text
    present = [w for w in NAMES if re.search(rf"\b{w}\b", text)]
    other = dict(zip(present, rng.sample(NAMES, len(present))))
    return re.sub(r"\b[A-Z][a-z]+\b", lambda m: other.get(m.group(), m.group()), text)


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
