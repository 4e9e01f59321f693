"""Methods and attributes, by the kind of what they belong to: tensors, modules, optimizers, data, ways of several processes."""

from __future__ import annotations

from ..rules import Rule, absent, becomes, by

__all__ = ["RULES"]

_TENSOR: dict[str, Rule] = {
    # -- where and as what it is kept
    "to": Rule(special="to"), "cuda": by("{self}", "device=None, non_blocking=False, memory_format=None"),
    "pin_memory": by("{self}", "device=None"), "share_memory_": by("{self}", ""),
    "is_contiguous": by("True", "memory_format=None"), "contiguous": becomes("", "memory_format=None"),
    "type": Rule(special="cast", certain=True), "byte": becomes("uint8", ""), "char": becomes("int8", ""),
    "short": becomes("int16", ""), "data": Rule(special="data", certain=True),
    "device": by('"cpu"', certain=True), "is_cuda": by("bool({mf}.flags.use_cuda)"),
    "new_tensor": by("{mf}.array({data}, {self}.dtype)", "data, *, dtype=None, device=None, requires_grad=False",
        dropped=("dtype",)),
    "requires_grad_": Rule(special="requires_grad"), "detach_": becomes("stop_grad", ""),
    "retain_grad": by("None", ""), "numpy": becomes("", "*, force=False", dropped=("force",)),
    "grad": Rule(special="grad_of", certain=True), "is_leaf": absent("a Var keeps no record of its own"),
    "nelement": becomes("numel", ""), "ndimension": becomes("dim", ""),
    "itemsize": by("{self}.dtype.itemsize", certain=True), "element_size": by("{self}.dtype.itemsize", ""),
    "is_floating_point": by("{self}.dtype.is_float", ""), "clone": becomes("", "*, memory_format=None"),
    "copy_": becomes("update", "src, non_blocking=False", renames={"src": "value"}),
    "T": by("{self}.t()", certain=True), "H": by("{self}.t()", certain=True),
    "mT": by("{self}.swapaxes(-1, -2)", certain=True),
    # -- shapes
    "transpose": becomes("swapaxes", "dim0, dim1"), "transpose_": becomes("swapaxes_", "dim0, dim1"),
    "permute": becomes("", "*dims"), "view": becomes("", "*size"), "reshape": becomes("", "*shape"),
    "reshape_as": becomes("view_as", "other"), "expand": becomes("", "*size"),
    "repeat": becomes("", "*repeats"), "flip": becomes("flip", "*dims", special="pack"),
    "tile": becomes("tile", "*dims", special="pack"), "broadcast_to": becomes("expand", "*size"),
    "ravel": becomes("flatten", ""), "split": becomes("", "split_size, dim=0"),
    "new_zeros": becomes("", "*size, dtype=None, device=None, requires_grad=False", special="new"),
    "new_ones": becomes("", "*size, dtype=None, device=None, requires_grad=False", special="new"),
    "new_empty": becomes("new_zeros", "*size, dtype=None, device=None, requires_grad=False", special="new"),
    "new_full": becomes("", "size, fill_value, *, dtype=None, device=None, requires_grad=False"),
    "size": becomes("", "dim=None"), "roll": becomes("", "shifts, dims=None"),
    "unflatten": absent("write `reshape`"), "narrow": absent("write a slice"),
    "select": absent("write `x[..., index]`"),
    # -- element by element
    "eq": becomes("equal", "other"), "ne": becomes("not_equal", "other"), "gt": becomes("greater", "other"),
    "ge": becomes("greater_equal", "other"), "lt": becomes("less", "other"),
    "le": becomes("less_equal", "other"), "neg": becomes("negative", ""), "neg_": becomes("negative_", ""),
    "square": becomes("sqr", ""), "square_": becomes("sqr_", ""), "absolute": becomes("abs", ""),
    "true_divide": becomes("divide", "other"), "fix": becomes("trunc", ""), "sgn": becomes("sign", ""),
    "remainder": becomes("mod", "other"), "equal": by("bool(({self} == {other}).all())", "other", certain=True),
    "clamp": becomes("", "min=None, max=None"), "clip": becomes("", "min=None, max=None"),
    "clamp_": becomes("", "min=None, max=None"), "clamp_min": becomes("clamp", "min", renames={"min": "min_v"}),
    "clamp_max": becomes("clamp", "max", renames={"max": "max_v"}),
    "clamp_min_": becomes("clamp_", "min", renames={"min": "min_v"}),
    "clamp_max_": becomes("clamp_", "max", renames={"max": "max_v"}),
    **{name: becomes("", "other, *, alpha=1") for name in ("add", "sub", "subtract")},
    **{f"{name}_": by(f"{{self}}.{name}_({{alpha}} * {{other}})", "other, *, alpha=1", needs=("alpha",
        )) for name in ("add", "sub")},
    "div": becomes("", "other, *, rounding_mode=None"), "div_": becomes("", "other, *, rounding_mode=None"),
    "uniform_": becomes("", "from=0.0, to=1.0, *, generator=None", renames={"from": "low", "to": "high"}),
    "normal_": becomes("", "mean=0.0, std=1.0, *, generator=None"), "fill_": becomes("", "value"),
    "zero_": becomes("", ""), "softmax": becomes("", "dim, dtype=None"),
    "log_softmax": becomes("", "dim, dtype=None"), "masked_fill": becomes("", "mask, value"),
    "masked_fill_": becomes("", "mask, value"),
    # -- reductions
    "max": Rule(parameters="dim=None, keepdim=False", special="extreme", certain=False),
    "min": Rule(parameters="dim=None, keepdim=False", special="extreme"),
    "amax": becomes("max", "dim=None, keepdim=False"), "amin": becomes("min", "dim=None, keepdim=False"),
    "median": Rule(parameters="dim=None, keepdim=False", special="middle"),
    "argmax": becomes("argmax", "dim=None, keepdim=False", wrap="{call}[0]", kind="tensor"),
    "argmin": becomes("argmin", "dim=None, keepdim=False", wrap="{call}[0]", kind="tensor"),
    "argsort": becomes("argsort", "dim=-1, descending=False", wrap="{call}[0]", kind="tensor"),
    "sort": becomes("", "dim=-1, descending=False, stable=False"),
    "topk": becomes("", "k, dim=-1, largest=True, sorted=True", alike=("dim",)),
    "std": becomes("", "dim=None, unbiased=True, keepdim=False", certain=True),
    "var": becomes("", "dim=None, unbiased=True, keepdim=False", added={"unbiased": "True"}, certain=True,
        special="variance"),
    "sum": becomes("", "dim=None, keepdim=False, *, dtype=None"),
    "mean": becomes("", "dim=None, keepdim=False, *, dtype=None"),
    "prod": becomes("", "dim=None, keepdim=False, *, dtype=None"),
    "all": becomes("", "dim=None, keepdim=False"), "any": becomes("", "dim=None, keepdim=False"),
    "cumsum": becomes("", "dim, *, dtype=None"),
    "norm": Rule(parameters="p='fro', dim=None, keepdim=False, dtype=None", special="norm", kind="tensor"),
    "logsumexp": becomes("", "dim, keepdim=False"),
    "kthvalue": becomes("", "k, dim=-1, keepdim=False", alike=("dim",)),
    "nonzero": becomes("", "as_tuple=False"),
    "unique": becomes("", "sorted=True, return_inverse=False, return_counts=False, dim=None", dropped=("sorted",)),
    "count_nonzero": becomes("", "dim=None"),
    # -- indexing
    "gather": becomes("", "dim, index, *, sparse_grad=False"),
    "scatter": becomes("", "dim, index, src, *, reduce=None"),
    "scatter_": becomes("", "dim, index, src, *, reduce=None"),
    "scatter_add": becomes("scatter", "dim, index, src", added={"reduce": '"add"'}),
    "scatter_add_": becomes("scatter_", "dim, index, src", added={"reduce": '"add"'}),
    "index_select": becomes("", "dim, index", renames={"index": "indices"}),
    "index_add_": becomes("", "dim, index, source, *, alpha=1"),
    "index_add": becomes("", "dim, index, source, *, alpha=1"),
    "diagonal": becomes("", "offset=0, dim1=0, dim2=1"), "fill_diagonal_": absent("write an index assignment"),
    "trace": by("{self}.diag().sum()", ""),
    # -- products
    "mm": becomes("matmul", "mat2", renames={"mat2": "b"}),
    "bmm": becomes("matmul", "mat2", renames={"mat2": "b"}),
    "mv": becomes("matmul", "vec", renames={"vec": "b"}), "inverse": by("{mf}.linalg.inv({self})", ""),
    "ger": becomes("outer", "vec2"), "bernoulli": by("{mf}.bernoulli({self})", "*, generator=None"),
    "multinomial": by("{mf}.multinomial({self}, {num_samples})", "num_samples, replacement=False, *, generator=None"),
    "unfold": absent("write slices, or `reindex`"),
    "baddbmm": by("{mf}.baddbmm({self}, {batch1}, {batch2})", "batch1, batch2, *, beta=1, alpha=1"),
    "backward": Rule(special="backward"), "erfc": by("1 - {self}.erf()", ""),
    "register_hook": becomes("", "hook"),
}  # fmt: skip

_MODULE: dict[str, Rule] = {
    "to": Rule(special="to"),
    "cuda": by("{self}", "device=None", note="flags.use_cuda says where everything is computed"),
    "cpu": by("{self}", ""), "float": becomes("float32", ""), "double": becomes("float64", ""),
    "half": becomes("half", ""), "bfloat16": becomes("", ""), "forward": becomes("execute", "*input"),
    "train": Rule(special="train"), "zero_grad": Rule(special="zero_grad"), "share_memory": by("{self}", ""),
    "module": Rule(special="unwrap"),
    "buffers": by("[var for _, var in {self}.named_buffers(True)]", "recurse=True", dropped=("recurse",)),
    "register_parameter": by("setattr({self}, {name}, {param})", "name, param"),
    "register_forward_pre_hook": becomes("register_pre_forward_hook", "hook, *, prepend=False, with_kwargs=False",
        renames={"hook": "func"}),
    "register_forward_hook": becomes("", "hook, *, prepend=False, with_kwargs=False", renames={"hook": "func"}),
    "register_full_backward_hook": becomes("register_backward_hook", "hook, prepend=False", renames={"hook": "func"}),
    "register_buffer": Rule(special="buffer", parameters="name, tensor, persistent=True"),
    "load_state_dict": becomes("", "state_dict, strict=True, assign=False", renames={"state_dict": "params"}),
    "type": Rule(special="cast_module"), "parameters": Rule(special="walked", parameters="recurse=True"),
    "named_parameters": Rule(special="walked", parameters="prefix='', recurse=True"),
    "state_dict": becomes("", "*args, destination=None, prefix='', keep_vars=False"),
    "named_buffers": becomes("", "prefix='', recurse=True", added={"recurse": "True"}),
    "apply": becomes("", "fn", renames={"fn": "func"}), "compile": by("None"),
}  # fmt: skip

_OPTIMIZER: dict[str, Rule] = {
    "zero_grad": becomes("zero_grad", "set_to_none=True", dropped=("set_to_none",)),
    "step": Rule(special="optimizer_step", parameters="closure=None"),
}  # fmt: skip

_OTHERS: dict[str, dict[str, Rule]] = {
    "tensor": _TENSOR,
    "module": _MODULE,
    "parallel": {**_MODULE, "no_sync": absent("gradients are sent once, by `step`")},
    "optimizer": _OPTIMIZER,
    "scaler": {"scale": becomes("", ""), "step": becomes("", "")},
    "loader": {"dataset": by("{self}"), "sampler": absent("ranks read their parts by themselves")},
    "distsampler": {"set_epoch": by("None", "epoch", dropped=("epoch",))},
    "generator": {
        "manual_seed": by("{self}", "seed", dropped=("seed",)),
        **{
            name: absent("random numbers have no generators of their own")
            for name in ("seed", "initial_seed", "get_state", "set_state")
        },
    },
    "device": {"type": by('{self}.split(":")[0]'), "index": by("0")},
}

RULES: dict[str, Rule] = {
    f"{kind}.{name}": rule for kind, rules in _OTHERS.items() for name, rule in rules.items()
}
