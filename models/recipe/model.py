"""The llama architecture in torch: RMSNorm, SwiGLU, grouped-query attention, interleaved RoPE, tied embeddings.

`train.py` trains it, `export.py` writes it as GGUF and reads it back. Positions start at 0 in every row and
attention is causal; nothing here knows about caches, because nothing here generates more than sample text.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int = 1024
    eps: float = 1e-5
    rope_base: float = 10000.0

    @property
    def head_width(self):
        return self.width // self.heads

    def dict(self):
        return asdict(self)


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        kv = s.kv_heads * s.head_width
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.shape = s
        self.attn_norm = nn.Parameter(torch.ones(s.width))
        self.attn_q, self.attn_k, self.attn_v = linear(s.width, s.width), linear(s.width, kv), linear(s.width, kv)
        self.attn_output = linear(s.width, s.width)
        self.ffn_norm = nn.Parameter(torch.ones(s.width))
        self.ffn_gate, self.ffn_up = linear(s.width, s.hidden), linear(s.width, s.hidden)
        self.ffn_down = linear(s.hidden, s.width)

    def forward(self, h, cos, sin):
        s, (rows, length, _) = self.shape, h.shape
        x = rms_norm(h, self.attn_norm, s.eps)
        q = rotate(self.attn_q(x).view(rows, length, s.heads, -1), cos, sin).transpose(1, 2)
        k = rotate(self.attn_k(x).view(rows, length, s.kv_heads, -1), cos, sin).transpose(1, 2)
        v = self.attn_v(x).view(rows, length, s.kv_heads, -1).transpose(1, 2)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        a = attend(q, k, v)
        h = h + self.attn_output(a.transpose(1, 2).reshape(rows, length, -1))
        x = rms_norm(h, self.ffn_norm, s.eps)
        return h + self.ffn_down(F.silu(self.ffn_gate(x)) * self.ffn_up(x))


class Llama(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        self.token_embd = nn.Embedding(s.vocab, s.width)
        self.blk = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.output_norm = nn.Parameter(torch.ones(s.width))
        angle = torch.outer(torch.arange(s.context), s.rope_base ** -(torch.arange(0, s.head_width, 2) / s.head_width))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * s.layers) if residual else 0.02)

    def states(self, tokens, upto=None):
        """Hidden states after each layer, the embedding first; with `upto` only the first layers run."""
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        out = [self.token_embd(tokens)]
        for layer in self.blk[:upto]:
            out.append(layer(out[-1], cos, sin))
        return out

    def head(self, h):
        """The logits that the shared final norm and head read from any layer's state: every exit uses this one."""
        return F.linear(rms_norm(h, self.output_norm, self.shape.eps), self.token_embd.weight)

    def forward(self, tokens, exits=()):
        """Logits of the whole model, then of each exit (an exit after k layers is named k)."""
        h = self.states(tokens)
        return [self.head(h[-1])] + [self.head(h[k]) for k in exits]

    def size(self):
        return sum(p.numel() for p in self.parameters())


def rms_norm(x, weight, eps):
    f = x.float()
    return (f * torch.rsqrt(f.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def attend(q, k, v, block=128):
    """Causal attention, a block of queries at a time, which sees nothing after itself.

    The gradient of torch's own `scaled_dot_product_attention` took 40 % of a step on CPU, this one a third of that.
    """
    out, scale, length = [], q.shape[-1] ** -0.5, q.shape[2]
    for first in range(0, length, block):
        end = min(first + block, length)
        scores = (q[:, :, first:end] @ k[:, :, :end].transpose(-1, -2)).float() * scale
        later = torch.ones(end - first, end, dtype=torch.bool).triu(1 + first)
        out.append(scores.masked_fill(later, -math.inf).softmax(-1).to(v.dtype) @ v[:, :, :end])
    return torch.cat(out, 2)


def rotate(x, cos, sin):
    """RoPE on neighbouring pairs, llama.cpp's layout for this architecture: no permutation at export."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[:, None], sin[:, None]
    return torch.stack((a * c - b * s, a * s + b * c), -1).flatten(-2).to(x.dtype)
