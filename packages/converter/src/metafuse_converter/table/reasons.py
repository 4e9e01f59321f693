"""Why names are not offered, by pattern on the full name.

Who calls it: ``lookup``, for names without a rule and without a counterpart.
"""

from __future__ import annotations

__all__ = ["ABSENT"]

ABSENT: dict[str, str] = {
    r"sparse|_coo|_cs[rc]\b|_bs[rc]\b|crow_|ccol_|coalesce|to_dense": "sparse layouts: see `metafuse.sparse`",
    r"quantiz|quant_|quantized|qint|qscheme|per_channel|per_tensor": "there are no quantised types",
    r"(^|\.)torch\.jit\.|torch\.compile$": "there is nothing to script: everything is compiled",
    r"torch\.cuda\.|\.(is_cuda|cuda|record_stream|is_(xla|ipu|mps|maia|mtia|xpu|vulkan|meta|mkldnn|cpu))$|\.(ipu|xpu|mtia)$":
        "belongs to one vendor's hardware; backends choose by themselves",
    r"torch\.multiprocessing": "ranks are started by `python -m metafuse launch`",
    r"torch\.distributed": "see docs/distributed.md for collectives",
    r"torch\.autograd": "gradients are asked for with `metafuse.grad`",
    r"autocast|amp\.": "see docs/precision.md for mixed precision",
    r"storage|data_ptr|stride|as_strided|set_$|resize_|share_memory|is_shared|pinned|pin_memory|memory_format|contiguous_format|preserve_format|strided|layout":
        "how values are stored is the backend's matter",
    r"Lazy[A-Z]|Uninitialized": "shapes are given when a layer is made",
    r"DataPipe|datapipe": "read data with a `Dataset`",
    r"deterministic|_threads|flush_denormal|set_default|get_default|warn_always|float32_matmul_precision|anomaly":
        "see docs/flags.md for settings",
    r"conj|[cC]omplex|imag$|real$|angle$|cfloat|cdouble|chalf|resolve_neg": "complex values are `nn.ComplexNumber`",
    r"Tensor\.(retain|is_leaf|grad_fn|output_nr|_?grad|register_post|retains)":
        "a Var keeps no gradient and no record of its own",
    r"torchvision\.transforms\.functional|torchvision\.transforms": "not among the transforms that are offered",
    r"torchvision\.datasets": "not among the data sets that are offered; write a `Dataset`",
    r"torchvision\.models": "not among the networks of metafuse-models",
    r"torchvision\.ops": "operators for detection are not offered",
    r"torch\.distributions": "not among the distributions that are offered",
    r"torch\.optim\.lr_scheduler": "not among the schedulers that are offered",
    r"torch\.optim": "not among the optimizers that are offered",
    r"torch\.utils\.(data|checkpoint|tensorboard)": "not offered",
}  # fmt: skip
