"""A checkpoint of `train.py` -> GGUF of the llama architecture, tokenizer inside.

    python export.py --checkpoint target.pt --tokenizer main.model --type f16 --out target.gguf

The file is written beside its final name and then renamed, so a reader never sees half a model.
"""

import argparse
from pathlib import Path

import gguf
import numpy
import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--checkpoint", type=Path, required=True)
    args.add_argument("--tokenizer", type=Path, required=True)
    args.add_argument("--type", choices=["f16", "f32"], default="f16", help="type of the matrices; norms stay f32")
    args.add_argument("--out", type=Path, required=True)
    args = args.parse_args()

    saved = torch.load(args.checkpoint, weights_only=True)
    s, name = saved["shape"], args.out.stem
    unfinished = args.out.with_name(f".{args.out.name}.part")
    w = gguf.GGUFWriter(str(unfinished), "llama")
    w.add_name(name)
    w.add_context_length(s["context"])
    w.add_embedding_length(s["width"])
    w.add_block_count(s["layers"])
    w.add_feed_forward_length(s["hidden"])
    w.add_head_count(s["heads"])
    w.add_head_count_kv(s["kv_heads"])
    w.add_layer_norm_rms_eps(s["eps"])
    w.add_rope_freq_base(s["rope_base"])
    w.add_rope_dimension_count(s["width"] // s["heads"])
    w.add_vocab_size(s["vocab"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if args.type == "f16" else gguf.LlamaFileType.ALL_F32)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    tokenizer(w, sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer)))
    for key, value in saved["model"].items():
        a = value.float().numpy()
        key = key if key.endswith(".weight") else key + ".weight"
        w.add_tensor(key, a.astype(numpy.float16) if a.ndim == 2 and args.type == "f16" else a)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    unfinished.rename(args.out)
    print(f"{args.out}: {sum(v.numel() for v in saved['model'].values())} parameters, {args.out.stat().st_size} bytes")


def tokenizer(w, sp):
    def kind(i):
        if sp.is_byte(i):
            return gguf.TokenType.BYTE
        if sp.is_control(i):
            return gguf.TokenType.CONTROL
        if sp.is_unknown(i):
            return gguf.TokenType.UNKNOWN
        return gguf.TokenType.USER_DEFINED if sp.id_to_piece(i) == "\n" else gguf.TokenType.NORMAL

    ids = range(sp.get_piece_size())
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i).encode() for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([kind(i) for i in ids])
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)


def read_tokenizer(path, like, out):
    """The tokenizer of an exported model as a SentencePiece file again; `like` is one trained with the same settings."""
    fields = gguf.GGUFReader(str(path)).fields
    pieces = sentencepiece_model_pb2.ModelProto()
    pieces.ParseFromString(like.read_bytes())
    types = {piece.piece: piece.type for piece in pieces.pieces}
    normal = sentencepiece_model_pb2.ModelProto.SentencePiece.NORMAL
    del pieces.pieces[:]
    scores = fields["tokenizer.ggml.scores"].contents()
    for token, score in zip(fields["tokenizer.ggml.tokens"].contents(), scores, strict=True):
        pieces.pieces.add(piece=token, score=score, type=types.get(token, normal))
    out.write_bytes(pieces.SerializeToString())


def read(path, model_class, shape_class):
    """A GGUF back as a torch model, to measure the very file that is shipped."""
    r = gguf.GGUFReader(str(path))
    get = lambda key: r.fields[f"llama.{key}"].contents()
    shape = shape_class(
        vocab=get("vocab_size"), width=get("embedding_length"), layers=get("block_count"),
        heads=get("attention.head_count"), kv_heads=get("attention.head_count_kv"), hidden=get("feed_forward_length"),
        context=get("context_length"), eps=get("attention.layer_norm_rms_epsilon"),
    )
    model = model_class(shape)
    tensors = {t.name: torch.tensor(numpy.array(t.data), dtype=torch.float32) for t in r.tensors}
    model.load_state_dict({k: tensors[k if k.endswith(".weight") else k + ".weight"] for k in model.state_dict()})
    return model.eval()


if __name__ == "__main__":
    main()
