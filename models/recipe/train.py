"""Trains one model and saves checkpoints that `export.py` turns into GGUF.

    python train.py target      --data DIR
    python train.py draft       --data DIR --teacher DIR/target.pt
    python train.py draft-small --data DIR --teacher DIR/target.pt
    python train.py tiny        --data DIR
    python train.py target      --data DIR --start ../target.gguf

DIR is what `prepare.py` wrote; checkpoints and the log land there too. The budget is a number of steps, so a run that
is stopped and continued (SIGSTOP, or killed and started again with --resume) ends in the same place.

The target learns to answer early (LayerSkip, arXiv 2404.16710): besides the loss of the last layer, each step trains
the shared norm and head on the state after one earlier layer. The drafts learn from the target's distribution
besides the text.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

import export
from corpus import SHARES, Stream, held_out
from model import Llama, Shape

torch.set_float32_matmul_precision("medium")


@dataclass
class Plan:
    shape: Shape
    steps: int
    rows: int
    length: int = 512
    long_from: float = 1.0  # share of the steps after which rows are twice as long and half as many
    matrix_rate: float = 0.02  # Muon
    other_rate: float = 0.004  # AdamW: embedding and norms
    exit_weight: float = 0.0
    teacher_weight: float = 0.0
    tokenizer: str = "main"
    kinds: tuple = tuple(SHARES)


PLANS = {
    "target": Plan(Shape(4096, 256, 6, 8, 4, 704), steps=6000, rows=8, long_from=0.8, exit_weight=0.3),
    "draft": Plan(Shape(4096, 96, 2, 3, 3, 256), steps=3000, rows=8, teacher_weight=0.7),
    "draft-small": Plan(Shape(4096, 16, 1, 2, 1, 32), steps=1500, rows=8, other_rate=0.01, teacher_weight=0.7),
    "tiny": Plan(Shape(512, 64, 4, 4, 2, 192, context=256), steps=2500, rows=16, length=256, tokenizer="tiny", kinds=("story",)),
}
# Which earlier layer a step trains, at rotation: half the steps the middle one.
ROTATION = [3, 2, 3, 4, 3, 1, 3, 5]
WARM_UP, DECAY_FROM = 100, 0.6


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("name", choices=PLANS)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--teacher", type=Path, help="checkpoint of the target, for the drafts")
    args.add_argument("--steps", type=int, help="instead of the plan's")
    start = args.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    start.add_argument("--start", type=Path, metavar="GGUF", help="begin with the weights of an exported model")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    plan = PLANS[args.name]
    steps = args.steps or plan.steps

    model = Llama(plan.shape)
    optimizers = make_optimizers(model, plan)
    path, first, tokens, spent = args.data / f"{args.name}.pt", 0, 0, 0.0
    if args.resume:
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        for o, state in zip(optimizers, saved["optimizers"]):
            o.load_state_dict(state)
        first, tokens, spent = saved["step"], saved["tokens"], saved["spent"]
    if args.start:
        model.load_state_dict(export.read(args.start, Llama, Shape).state_dict())
    teacher = load(args.teacher) if plan.teacher_weight else None
    stream = Stream(args.data, plan.tokenizer, plan.kinds, args.seed + first)
    loss_of = torch.compile(make_loss(model, teacher, plan), dynamic=False)
    print(f"{args.name}: {model.size()} parameters, steps {first}..{steps}", flush=True)

    def save(step):
        unfinished = path.with_suffix(".part")
        states = [o.state_dict() for o in optimizers]
        torch.save({"shape": plan.shape.dict(), "model": model.state_dict(), "optimizers": states, "step": step,
                    "tokens": tokens, "spent": spent}, unfinished)
        unfinished.rename(path)

    mean, clock = None, time.time()
    for step in range(first, steps):
        long = step >= plan.long_from * steps
        batch = stream.batch(plan.rows // 2, plan.length * 2) if long else stream.batch(plan.rows, plan.length)
        exit = torch.tensor([ROTATION[step % len(ROTATION)] if plan.exit_weight else 0])
        loss, total = loss_of(batch, exit)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = schedule(step, steps)
        for o in optimizers:
            for g in o.param_groups:
                g["lr"] = g["full"] * rate
            o.step()
            o.zero_grad()
        tokens += batch.shape[0] * (batch.shape[1] - 1)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            now = time.time()
            pace, spent, clock = 50 / (now - clock), spent + now - clock, now
            print(f"step {step + 1} loss {mean:.3f} tokens {tokens / 1e6:.2f}M {pace:.2f} steps/s {spent / 60:.1f} min", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save(step + 1)
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            print("held out", json.dumps(losses(model, args.data, plan)), flush=True)
            clock = time.time()


def make_optimizers(model, plan):
    """Muon for the layers' matrices, AdamW for the embedding (also the head) and the norms."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blk.") and p.ndim == 2]
    others = [p for n, p in model.named_parameters() if not (n.startswith("blk.") and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, lr=plan.matrix_rate, momentum=0.95, weight_decay=0.02)
    adam = torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for o in (muon, adam):
        for g in o.param_groups:
            g["full"] = g["lr"]
    return [muon, adam]


def schedule(step, steps):
    """Warm up, stay, and from DECAY_FROM on fall linearly to zero."""
    return min(1.0, (step + 1) / WARM_UP, max(0.01, (steps - step) / steps / (1 - DECAY_FROM)))


def make_loss(model, teacher, plan):
    """-> (cross-entropy of the whole model, what is minimised)"""

    def loss(batch, exit):
        x, y = batch[:, :-1], batch[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            states = model.states(x)
            logits = model.head(states[-1]).float().flatten(0, 1)
        own = total = F.cross_entropy(logits, y.flatten())
        if plan.exit_weight:
            with torch.autocast("cpu", torch.bfloat16):  # every second row is enough, and cheaper
                early = model.head(torch.stack(states).index_select(0, exit)[0, ::2])
            total = total + plan.exit_weight * F.cross_entropy(early.float().flatten(0, 1), y[::2].flatten())
        if teacher is not None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                wanted = teacher(x)[0].float().flatten(0, 1).softmax(-1)
            # Cross-entropy with the teacher's distribution: its gradient is that of KL(teacher || draft).
            distance = -(wanted * logits.log_softmax(-1)).sum(-1).mean()
            total = (1 - plan.teacher_weight) * own + plan.teacher_weight * distance
        return own, total

    return loss


@torch.no_grad()
def losses(model, data, plan):
    """Held-out nats per token by kind, whole model; `evaluate.py` gives the full tables."""
    out = {}
    for kind, rows in held_out(data, plan.tokenizer, plan.kinds, plan.length, limit=6000).items():
        logits = model(rows[:, :-1].clamp(min=0))[0]
        out[kind] = round(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=-1).item(), 3)
    return out


def load(path):
    saved = torch.load(path, weights_only=True)
    model = Llama(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
