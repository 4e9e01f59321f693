"""Layers, losses and functions of networks, first values: ``torch.nn``, ``torch.nn.functional``, ``torch.nn.init``."""

from __future__ import annotations

from ..rules import Rule, absent, becomes, by

__all__ = ["RULES"]

_F = "torch.nn.functional"
#: parameters that old versions had in the place of ``reduction``
_OLD = ("size_average", "reduce")
_RECURRENT = (
    "input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, proj_size=0, device=None, dtype=None"
)

RULES: dict[str, Rule] = {
    # -- layers
    **{f"torch.nn.{name}": becomes("", "p=0.5, inplace=False", added={"is_train": "True"}) for name in ("Dropout", "Dropout2d")},
    "torch.nn.LSTM": becomes("", _RECURRENT, alike=("dropout",)), "torch.nn.GRU": becomes("", _RECURRENT, alike=("dropout",)),
    "torch.nn.RNN": becomes("", _RECURRENT.replace("bias=True", "nonlinearity='tanh', bias=True"), alike=("dropout",)),
    "torch.nn.LeakyReLU": becomes("", "negative_slope=0.01, inplace=False"),
    "torch.nn.PReLU": becomes("", "num_parameters=1, init=0.25, device=None, dtype=None"),
    "torch.nn.GELU": becomes("", "approximate='none'"), "torch.nn.Identity": becomes("", "*args, **kwargs"),
    "torch.nn.Sequential": becomes("", "*args"), "torch.nn.ModuleList": becomes("", "modules=None"),
    "torch.nn.MaxPool1d": becomes("", "kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False", alike=("dilation", "return_indices")),
    "torch.nn.MaxPool2d": becomes("", "kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False", alike=("dilation", "return_indices")),
    "torch.nn.MaxPool3d": becomes("", "kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False", alike=("dilation", "return_indices")),
    "torch.nn.MultiheadAttention": becomes("attention.MultiheadAttention"),
    "torch.nn.SyncBatchNorm": becomes("nn.BatchNorm"), "torch.nn.SyncBatchNorm.convert_sync_batchnorm": by("{module}", "module, process_group=None", special="first"),
    "torch.nn.Upsample": becomes("", alike=("align_corners",), special="upsample"),
    "torch.nn.Module": becomes("", ""), "torch.nn.Parameter": becomes("", "data, requires_grad=True"),
    "torch.nn.Buffer": absent("write `register_buffer`"),
    "torch.nn.DataParallel": by("{module}", "module, device_ids=None, output_device=None, dim=0", special="first", kind="parallel",
                                note="scripts are data parallel as they are: python -m metafuse launch"),
    "torch.nn.TransformerEncoderLayer": absent("write it with `attention.MultiheadAttention`"),
    "torch.nn.TransformerEncoder": absent("write it with `attention.MultiheadAttention`"),
    "torch.nn.Transformer": absent("write it with `attention.MultiheadAttention`"),
    "torch.nn.RMSNorm": absent("write `x * (x.sqr().mean(-1, True) + eps).rsqrt()`"),
    "torch.nn.Dropout1d": absent("write `Dropout2d` on 4 dimensions"),
    # -- losses
    "torch.nn.CrossEntropyLoss": becomes("", "weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean', label_smoothing=0.0", dropped=_OLD, alike=("ignore_index",)),
    "torch.nn.MSELoss": becomes("", "size_average=None, reduce=None, reduction='mean'", dropped=_OLD),
    "torch.nn.L1Loss": becomes("", "size_average=None, reduce=None, reduction='mean'", dropped=_OLD),
    "torch.nn.SmoothL1Loss": becomes("", "size_average=None, reduce=None, reduction='mean', beta=1.0", dropped=_OLD),
    "torch.nn.NLLLoss": becomes("", "weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean'", dropped=_OLD),
    "torch.nn.KLDivLoss": becomes("", "size_average=None, reduce=None, reduction='mean', log_target=False", dropped=_OLD),
    "torch.nn.BCELoss": becomes("", "weight=None, size_average=None, reduce=None, reduction='mean'", special="averaged", alike=("size_average",)),
    "torch.nn.BCEWithLogitsLoss": becomes("", "weight=None, size_average=None, reduce=None, reduction='mean', pos_weight=None", special="averaged", alike=("size_average",)),
    # -- functions
    f"{_F}.cross_entropy": becomes("nn.cross_entropy_loss", dropped=_OLD, alike=("ignore_index",)),
    f"{_F}.nll_loss": becomes("", dropped=_OLD), f"{_F}.mse_loss": becomes("", dropped=(*_OLD, "weight")),
    f"{_F}.l1_loss": becomes("", dropped=_OLD), f"{_F}.smooth_l1_loss": becomes("", "input, target, size_average=None, reduce=None, reduction='mean', beta=1.0",
                                                                              dropped=_OLD, renames={"input": "y_true", "target": "y_pred"}),
    f"{_F}.kl_div": becomes("nn.kl_div", dropped=_OLD), f"{_F}.huber_loss": becomes("nn.huber_loss"),
    f"{_F}.binary_cross_entropy": becomes("nn.bce_loss", special="averaged", alike=("size_average",), kind="tensor"),
    f"{_F}.binary_cross_entropy_with_logits": becomes("nn.binary_cross_entropy_with_logits", special="averaged", alike=("size_average",), kind="tensor"),
    f"{_F}.dropout": becomes("nn.dropout", "input, p=0.5, training=True, inplace=False", added={"is_train": "True"}),
    f"{_F}.dropout2d": becomes("nn.dropout2d", "input, p=0.5, training=True, inplace=False", added={"is_train": "True"}),
    f"{_F}.interpolate": becomes("nn.interpolate", "input, size=None, scale_factor=None, mode='nearest', align_corners=None, recompute_scale_factor=None, antialias=False",
                                 added={"mode": '"nearest"'}, alike=("align_corners",)),
    f"{_F}.upsample": becomes("nn.interpolate", "input, size=None, scale_factor=None, mode='nearest', align_corners=None", added={"mode": '"nearest"'}, alike=("align_corners",)),
    f"{_F}.relu_": becomes("Var.relu_", "input"), f"{_F}.logsigmoid": becomes("log_sigmoid", "input"),
    f"{_F}.leaky_relu": becomes("nn.leaky_relu", "input, negative_slope=0.01, inplace=False"),
    f"{_F}.softmax": becomes("nn.softmax", "input, dim=None, _stacklevel=3, dtype=None"),
    f"{_F}.log_softmax": becomes("nn.log_softmax", "input, dim=None, _stacklevel=3, dtype=None"),
    f"{_F}.softplus": becomes("nn.softplus", "input, beta=1, threshold=20"), f"{_F}.gelu": becomes("nn.gelu", "input, *, approximate='none'"),
    f"{_F}.max_pool1d": absent("use `nn.MaxPool1d`"), f"{_F}.avg_pool1d": absent("use `nn.AvgPool1d`"),
    f"{_F}.max_pool2d": becomes("nn.max_pool2d", "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False", alike=("dilation", "return_indices")),
    f"{_F}.max_pool3d": becomes("nn.max_pool3d", "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False", alike=("dilation", "return_indices")),
    f"{_F}.avg_pool2d": becomes("nn.avg_pool2d", "input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None"),
    f"{_F}.adaptive_avg_pool2d": becomes("nn.adaptive_avg_pool", "input, output_size"),
    f"{_F}.adaptive_max_pool2d": becomes("nn.adaptive_max_pool", "input, output_size, return_indices=False"),
    f"{_F}.normalize": becomes("normalize", "input, p=2.0, dim=1, eps=1e-12", alike=("eps",)), f"{_F}.pad": becomes("nn.pad", "input, pad, mode='constant', value=0"),
    f"{_F}.one_hot": becomes("nn.one_hot", "input, num_classes=-1"),
    f"{_F}.layer_norm": becomes("nn.layer_norm", "input, normalized_shape, weight=None, bias=None, eps=1e-05", alike=("weight", "bias")),
    f"{_F}.batch_norm": becomes("nn.batch_norm", "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-05", alike=("weight", "bias"), renames={"training": "training"}),
    f"{_F}.group_norm": becomes("nn.group_norm", "input, num_groups, weight=None, bias=None, eps=1e-05", alike=("weight", "bias")),
    f"{_F}.scaled_dot_product_attention": becomes("nn.scaled_dot_product_attention", "query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None"),
    f"{_F}.conv1d": becomes("nn.conv1d", "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"),
    f"{_F}.conv2d": becomes("nn.conv2d", "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"),
    f"{_F}.conv3d": becomes("nn.conv3d", "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"),
    f"{_F}.conv_transpose2d": becomes("nn.conv_transpose2d", "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1"),
    f"{_F}.embedding": becomes("nn.embedding", "input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False", dropped=("sparse", "padding_idx")),
    f"{_F}.linear": becomes("nn.linear", "input, weight, bias=None"),
    f"{_F}.unfold": becomes("nn.unfold"), f"{_F}.pixel_shuffle": becomes("nn.pixel_shuffle", "input, upscale_factor"),
    f"{_F}.tanh": becomes("tanh", "input"), f"{_F}.sigmoid": becomes("sigmoid", "input"), f"{_F}.glu": becomes("nn.glu", "input, dim=-1"),
    f"{_F}.cosine_similarity": becomes("nn.cosine_similarity", "x1, x2, dim=1, eps=1e-08"),
    f"{_F}.grid_sample": becomes("nn.grid_sample", alike=("align_corners",)), f"{_F}.affine_grid": becomes("nn.affine_grid", alike=("align_corners",)),
    f"{_F}.gumbel_softmax": absent("write it with `rand` and `softmax`"), f"{_F}.mish": becomes("nn.mish", "input, inplace=False"),
    **{f"{_F}.{name}": becomes(f"nn.{name}", dropped=_OLD) for name in (
        "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "triplet_margin_loss")},
    # -- first values
    "torch.nn.init.normal_": becomes("init.gauss_", "tensor, mean=0.0, std=1.0, generator=None"),
    "torch.nn.init.uniform_": becomes("init.uniform_", "tensor, a=0.0, b=1.0, generator=None"),
    "torch.nn.init.constant_": becomes("init.constant_", "tensor, val"), "torch.nn.init.zeros_": becomes("init.zero_", "tensor"),
    "torch.nn.init.ones_": becomes("init.one_", "tensor"), "torch.nn.init.xavier_normal_": becomes("init.xavier_gauss_", "tensor, gain=1.0, generator=None"),
    "torch.nn.init.normal": becomes("init.gauss_", "tensor, mean=0.0, std=1.0"), "torch.nn.init.constant": becomes("init.constant_", "tensor, val"),
    "torch.nn.init.uniform": becomes("init.uniform_", "tensor, a=0.0, b=1.0"), "torch.nn.init.xavier_uniform": becomes("init.xavier_uniform_", "tensor, gain=1.0"),
    "torch.nn.init.xavier_normal": becomes("init.xavier_gauss_", "tensor, gain=1.0"), "torch.nn.init.eye": becomes("init.eye_", "tensor"),
    # -- tools
    "torch.nn.utils.clip_grad_norm_": becomes("optim.Optimizer.clip_grad_norm", "parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None", special="clip", kind="other"),
    "torch.nn.utils.clip_grad_norm": becomes("optim.Optimizer.clip_grad_norm", "parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None", special="clip", kind="other"),
    "torch.nn.utils.clip_grad_value_": absent("clip by the norm: `optimizer.clip_grad_norm`"),
    "torch.nn.utils.weight_norm": absent("see `metafuse.weightnorm.weight_norm(module, name, dim)`"),
    "torch.nn.utils.spectral_norm": absent("has no counterpart"),
}  # fmt: skip
