"""What trains: optimizers, schedulers, gradients, mixed precision, several processes, data, devices."""

from __future__ import annotations

from ..rules import Rule, absent, becomes, by

__all__ = ["RULES"]

_NO_COUNTERPART = "see docs/distributed.md: gradients are added over ranks without being asked for"
_DDP = by("{module}", "module, device_ids=None, output_device=None, dim=0", special="first", kind="parallel",
          note="scripts are data parallel as they are: python -m metafuse launch")  # fmt: skip

_FROM_0: dict[str, object] = {"special": "schedule", "added": {"last_epoch": "0"}}

RULES: dict[str, Rule] = {
    # -- optimizers: the rules of both are the same; defaults of rates are written
    "torch.optim.SGD": becomes("", added={"lr": "0.001"}, dropped=("maximize",)),
    "torch.optim.Adam": becomes("", added={"lr": "0.001"}), "torch.optim.AdamW": becomes("", added={"lr": "0.001", "weight_decay": "0.01"}),
    "torch.optim.RMSprop": becomes(""),
    "torch.optim.lr_scheduler._LRScheduler": becomes("optim.LRScheduler"),
    # these begin at epoch 0, as the first step of PyTorch's constructors does
    "torch.optim.lr_scheduler.StepLR": becomes("", "optimizer, step_size, gamma=0.1, last_epoch=-1, verbose=False", **_FROM_0),
    "torch.optim.lr_scheduler.MultiStepLR": becomes("", "optimizer, milestones, gamma=0.1, last_epoch=-1, verbose=False", **_FROM_0),
    "torch.optim.lr_scheduler.ExponentialLR": becomes("", "optimizer, gamma, last_epoch=-1, verbose=False", **_FROM_0),
    "torch.optim.lr_scheduler.CosineAnnealingLR": becomes("", "optimizer, T_max, eta_min=0, last_epoch=-1, verbose=False", **_FROM_0),
    "torch.optim.lr_scheduler.OneCycleLR": becomes("", special="one_cycle", dropped=("cycle_momentum", "base_momentum", "max_momentum")),
    # -- gradients
    "torch.autograd.grad": becomes("grad", "outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, only_inputs=True, allow_unused=None", special="grad"),
    "torch.autograd.Function": becomes("Function"), "torch.autograd.function.Function": becomes("Function"),
    "torch.autograd.Variable": by("{data}", "data, requires_grad=False, volatile=False", special="first", kind="tensor"),
    "torch.autograd.no_grad": becomes("no_grad"), "torch.autograd.enable_grad": becomes("enable_grad"),
    "torch.autograd.set_detect_anomaly": by("{mf}.enable_grad()", "mode, check_nan=True", kind="other"),
    "torch.autograd.function.once_differentiable": by("{func}", "func", special="decorator"),
    "torch.autograd.backward": absent("write `optimizer.backward(loss)`, or `metafuse.grad(loss, parameters)`"),
    **{f"torch.jit.{name}": by("{obj}", "obj", special="decorator") for name in ("script", "export", "ignore", "unused", "script_method")},
    "torch.utils.checkpoint.checkpoint": by("{function}", "function, *args", special="checkpoint", kind="tensor",
                                           note="what is kept and what is computed again is the compiler's choice"),
    # -- mixed precision
    "torch.amp.autocast": becomes("amp.autocast", "device_type, dtype=None, enabled=True, cache_enabled=None", special="autocast", kind="other"),
    "torch.autocast": becomes("amp.autocast", "device_type, dtype=None, enabled=True, cache_enabled=None", special="autocast", kind="other"),
    "torch.cuda.amp.autocast": becomes("amp.autocast", "enabled=True, dtype=None, cache_enabled=True", special="autocast", kind="other"),
    "torch.amp.GradScaler": becomes("amp.GradScaler", "device='cuda', init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True", dropped=("device",), kind="scaler"),
    "torch.GradScaler": becomes("amp.GradScaler", "device='cuda', init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True", dropped=("device",), kind="scaler"),
    "torch.cuda.amp.GradScaler": becomes("amp.GradScaler", "init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True", kind="scaler"),
    # -- several processes
    "torch.nn.parallel.DistributedDataParallel": _DDP, "torch.nn.parallel.DataParallel": _DDP, "torch.nn.parallel.distributed.DistributedDataParallel": _DDP,
    "torch.distributed.init_process_group": by("{mf}.dist.world()", "backend=None, init_method=None", special="fixed", kind="other"),
    "torch.distributed.destroy_process_group": by("None", "group=None", special="nothing", kind="other"),
    "torch.distributed.get_rank": by("{mf}.rank", "group=None", special="fixed", kind="number"),
    "torch.distributed.get_world_size": by("{mf}.world_size", "group=None", special="fixed", kind="number"),
    "torch.distributed.is_initialized": by("{mf}.in_mpi", "", kind="number"), "torch.distributed.is_available": by("True", "", kind="number"),
    "torch.distributed.barrier": by("{mf}.dist.barrier()", "", special="fixed", kind="other"),
    "torch.distributed.all_reduce": by("{tensor}.assign({tensor}.mpi_all_reduce({op}))", "tensor, op=None, group=None, async_op=False", special="all_reduce", kind="other"),
    "torch.distributed.reduce": by("{tensor}.assign({tensor}.mpi_reduce({op}))", "tensor, dst=0, op=None, group=None", special="all_reduce", kind="other"),
    "torch.distributed.broadcast": by("{tensor}.assign({tensor}.mpi_broadcast({src}))", "tensor, src=0, group=None, async_op=False", kind="other"),
    "torch.distributed.ReduceOp.SUM": by('"add"'), "torch.distributed.ReduceOp.AVG": by('"mean"'), "torch.distributed.ReduceOp.MAX": by('"maximum"'),
    "torch.distributed.ReduceOp.MIN": by('"minimum"'), "torch.distributed.ReduceOp.PRODUCT": by('"multiply"'),
    "torch.distributed.all_gather": absent("write `x.mpi_all_gather()`, which answers the arrays"),
    "torch.multiprocessing.spawn": absent("ranks are started by `python -m metafuse launch -n N script.py`"),
    # -- data
    "torch.utils.data.Dataset": becomes("", "", kind="dataset"),
    "torch.utils.data.DataLoader": becomes("", special="loader", kind="loader"),
    "torch.utils.data.TensorDataset": becomes("", "*tensors", kind="dataset"),
    "torch.utils.data.DistributedSampler": by("None", special="fixed", kind="distsampler", note="ranks read their own part of every batch; batch_size counts the samples of all ranks"),
    "torch.utils.data.IterableDataset": absent("write a `Dataset` with `__getitem__`"), "torch.utils.data.Subset": absent("give the loader a `SubsetRandomSampler`"),
    "torch.utils.data.random_split": absent("give loaders a `SubsetRandomSampler` each"), "torch.utils.data.ConcatDataset": absent("write a `Dataset` over both"),
    "torch.utils.data.SubsetRandomSampler": absent("takes the data set first: `SubsetRandomSampler(dataset, indices)`"),
    "torch.utils.data.RandomSampler": becomes("", renames={"data_source": "dataset"}), "torch.utils.data.SequentialSampler": becomes("", renames={"data_source": "dataset"}),
    "torch.utils.data.Sampler": becomes("", "data_source=None", renames={"data_source": "dataset"}), "torch.utils.data.default_collate": becomes("data.collate_batch", "batch"),
    # -- devices
    "torch.cuda.is_available": by("bool({mf}.flags.use_cuda)", "", kind="number"), "torch.cuda.device_count": by("int({mf}.flags.use_cuda != 0)", "", kind="number"),
    "torch.backends.mps.is_available": by("False", "", kind="number"), "torch.cuda.is_bf16_supported": by("True", special="fixed", kind="number"),
    "torch.cuda.empty_cache": by("{mf}.gc()", "", kind="other"), "torch.cuda.synchronize": by("{mf}.sync_all(True)", "device=None", special="fixed", kind="other"),
    **{f"torch.cuda.{name}": by("None", special="nothing", kind="other") for name in ("set_device", "init", "reset_peak_memory_stats", "reset_max_memory_allocated", "ipc_collect")},
    **{f"torch.cuda.{name}": becomes("set_global_seed", "seed", kind="other") for name in ("manual_seed", "manual_seed_all")},
    "torch.random.manual_seed": becomes("set_global_seed", "seed", kind="other"), "torch.cuda.current_device": by("0", "", kind="number"),
    "torch.distributions.Normal": becomes("distributions.Normal", "loc, scale, validate_args=None", renames={"loc": "mu", "scale": "sigma"}, kind="other"),
    "torch.distributions.Categorical": becomes("distributions.Categorical", "probs=None, logits=None, validate_args=None", kind="other"),
}  # fmt: skip
