"""Optimizer: parameter groups, gradients, and the step that runs everything.

What it is: the base class. ``step(loss)`` records gradients and updates and then computes forward, backward, updates and running
statistics as one program.
What it is not: an update rule; subclasses give it as ``update``.
Who calls it: users subclass it, and every optimizer here does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dist import buckets, parallel
from ..dtypes import accumulator, is_number
from ..errors import ArgumentError, DTypeError, GradientError, brief
from ..finite import listed
from ..ops.autograd import grad, no_grad
from ..ops.creation import array, zeros
from ..ops.elementwise import cast
from ..var import Var, sync
from .updates import Updates

__all__ = ["Optimizer", "opt_grad"]

Group = dict[str, Any]


class Optimizer:
    """Base of all optimizers.

    Args:
        params: Vars, or dictionaries (groups) with ``"params"`` and options of their own, such as ``"lr"``.
        lr: learning rate, >= 0.
        param_sync_iter: how often ranks of a distributed run exchange parameters.

    A subclass names its options in ``options`` and its state in ``slots``, and defines ``update``. Vars that take no gradient are
    skipped.

    For parameters of 16 bits gradients, state and the arithmetic of the rule are float32; the parameter itself is the only
    copy, rounded at every step, so that a change below half of its last digit is lost. Keep float32 parameters and use mixed
    precision (``flags.auto_mixed_precision_level``) where changes are that small.

    On several ranks (``docs/distributed.md``) parameters become those of rank 0 when they are given here, and gradients are
    those of the mean over all ranks' samples from ``step``, ``clip_grad_norm`` or ``opt_grad`` on, whichever comes first.

    Example:
        >>> import metafuse as mf
        >>> class Plain(mf.optim.Optimizer):
        ...     options = ("lr",)
        ...     def update(self, p, g, state, options):
        ...         p.update(p - g * options["lr"])
        >>> p = mf.nn.Parameter([1.0])
        >>> Plain([p], lr=0.25).step(p * p)
        >>> p.item()
        0.5
    """

    #: names of attributes that a group may override
    options: tuple[str, ...] = ("lr",)
    #: names of the state Vars that each parameter has; they start as ``_first_state`` says
    slots: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], lr: float, param_sync_iter: int = 10000) -> None:
        kind = type(self).__name__
        if isinstance(params, Var):
            raise DTypeError(f"[{kind}] params must be a list of Vars, got one Var; write [var]")
        self.lr = check_number(kind, "lr", lr)
        self.param_sync_iter = param_sync_iter
        self.param_groups: list[Group] = []
        self._inputs: list[Var] = []
        self.n_step = 0
        self._local = False  # whether the kept gradients are of this rank's samples only
        self._updates = Updates()
        self._compared = False  # whether ranks have seen that their parameters are the same
        given = _listed(kind, "params", params)
        if not given:
            raise ArgumentError(f"[{kind}] params is empty; give model.parameters()")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)
        parallel.join(self)

    # -- groups -------------------------------------------------------------------------------------------------
    def add_param_group(self, group: Group) -> None:
        """Add ``{"params": [...], **options}``."""
        kind = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise ArgumentError(f"[{kind}] a group must be a dictionary with 'params', got {brief(group)}")
        params = _listed(kind, "params", group["params"])
        for p in params:
            if not isinstance(p, Var):
                raise DTypeError(f"[{kind}] params must hold Vars, got {type(p).__name__}")
        group["params"] = params
        group["grads"] = [None] * len(params)
        self.param_groups.append(group)
        parallel.broadcast_vars(params)
        self._compared = False

    def set_input_into_param_group(self, inputs: Any) -> None:
        """Have ``backward`` also ask for the gradients of ``inputs``, so that hooks on the way to them are called. They are not
        changed by ``step``. An empty list ends it."""
        several = _listed(type(self).__name__, "inputs", inputs)
        for v in several:
            if not isinstance(v, Var):
                raise DTypeError(f"[{type(self).__name__}] inputs must hold Vars, got {type(v).__name__}")
        self._inputs = several

    def _trainable(self) -> list[tuple[Group, int, Var]]:
        """(group, position, Var) of every parameter that takes a gradient."""
        return [(g, k, p) for g in self.param_groups for k, p in enumerate(g["params"]) if p.requires_grad]

    def option(self, group: Group, name: str) -> Any:
        """The group's own value of an option, else the optimizer's."""
        value = group.get(name, getattr(self, name))
        return value.item() if isinstance(value, np.generic) else value

    @property
    def defaults(self) -> dict[str, Any]:
        """Options and step count by name."""
        return {name: getattr(self, name) for name in (*self.options, "n_step")}

    # -- gradients ------------------------------------------------------------------------------------------------
    def zero_grad(self) -> None:
        """Forget the gradients that ``backward`` has accumulated."""
        self._local = False
        for group in self.param_groups:
            group["grads"] = [None] * len(group["params"])

    def backward(self, loss: Var, retain_graph: bool = False) -> None:
        """Add the gradients of ``loss`` to those kept for the next ``step``."""
        kind = type(self).__name__
        if not isinstance(loss, Var):
            raise DTypeError(f"[{kind}] loss must be a Var, got {type(loss).__name__}")
        trainable = self._trainable()
        if not trainable:
            raise GradientError(f"[{kind}] no parameter takes a gradient; call train() or start_grad() first")
        watched = [v for v in self._inputs if v.requires_grad]
        self.compare_parameters(loss)
        own = parallel.weighted(loss)
        gradients = grad(own, [*(p for _, _, p in trainable), *watched], retain_graph)[: len(trainable)]
        with no_grad():
            if self._local or all(group["grads"][k] is None for group, k, _ in trainable):
                self._local = True
            else:  # what is kept is of all ranks already
                gradients = buckets.summed(gradients)
            for group in self.param_groups:  # new lists: who holds the old ones does not hold gradients
                group["grads"] = list(group["grads"])
            for (group, k, _), g in zip(trainable, gradients, strict=True):
                held = group["grads"][k]
                group["grads"][k] = g if held is None else held + g

    def sync_gradients(self) -> None:
        """Have the kept gradients be those of all ranks' samples, if they are not yet; ``step`` does so by itself."""
        if self._local:
            held = [
                (g["grads"], k)
                for g in self.param_groups
                for k, grad in enumerate(g["grads"])
                if grad is not None
            ]
            with no_grad():
                for (grads, k), total in zip(
                    held, buckets.summed([grads[k] for grads, k in held]), strict=True
                ):
                    grads[k] = total
            self._local = False

    def compare_parameters(self, loss: Var | None = None) -> None:
        """See once that ranks have the same parameters, and make them so. ``loss``: what was recorded with them, if anything."""
        if not self._compared:
            parallel.make_equal([p for group in self.param_groups for p in group["params"]], loss)
            self._compared = True

    def find_grad(self, v: Var) -> Var:
        """The gradient kept for ``v``. Errors: ``GradientError`` if there is none now."""
        if not isinstance(v, Var):
            raise DTypeError(f"[opt_grad] v must be a Var, got {type(v).__name__}")
        self.sync_gradients()
        for group in self.param_groups:
            for p, g in zip(group["params"], group["grads"], strict=True):
                if p is v and g is not None:
                    return g
        raise GradientError(
            f"[opt_grad] no gradient is kept for {v.name() or 'this Var'}; read it between optimizer.backward(loss) and step()"
        )

    def has_grad(self, v: Var) -> bool:
        """Whether a gradient is kept for ``v`` now."""
        held = (g for group in self.param_groups for p, g in zip(group["params"], group["grads"]) if p is v)
        return any(g is not None for g in held)

    def clip_grad_norm(self, max_norm: float, norm_type: float = 2) -> Var:
        """Scale all kept gradients together so that their norm is at most ``max_norm``. Answers the norm that they had."""
        check_number("clip_grad_norm", "max_norm", max_norm)
        if check_number("clip_grad_norm", "norm_type", norm_type) == 0:
            raise ArgumentError("[clip_grad_norm] norm_type must be > 0 (inf: the largest element), got 0")
        self.sync_gradients()
        held = [(g, k) for g in self.param_groups for k, grad in enumerate(g["grads"]) if grad is not None]
        if not held:
            return zeros([1])
        with no_grad():
            total: Any = None
            for group, k in held:
                size = _wide(group["grads"][k]).abs()
                if norm_type == float("inf"):
                    part = size.max()
                    total = part if total is None else total.maximum(part)
                else:
                    part = (size.sqr() if norm_type == 2 else size ** float(norm_type)).sum()
                    total = part if total is None else total + part
            norm = (
                total
                if norm_type == float("inf")
                else total.sqrt()
                if norm_type == 2
                else total ** (1.0 / norm_type)
            )
            factor = (max_norm / (norm + 1e-6)).minimum(1.0)
            for group, k in held:
                group["grads"][k] = _wide(group["grads"][k]) * factor
        answer: Var = norm
        return answer

    def clip_grad_value(self, clip_value: float) -> None:
        """Limit every element of all kept gradients to ``-clip_value`` .. ``clip_value``; NaN stays."""
        limit = check_number("clip_grad_value", "clip_value", clip_value)
        self.sync_gradients()
        with no_grad():
            for group in self.param_groups:
                group["grads"] = [
                    None if g is None else g.maximum(-limit).minimum(limit) for g in group["grads"]
                ]

    # -- the step ---------------------------------------------------------------------------------------------------
    def pre_step(self, loss: Var | None, retain_graph: bool = False) -> None:
        """What comes before the updates: ``backward`` if a loss is given, and counting."""
        if loss is not None:
            self.backward(loss, retain_graph)
        self.sync_gradients()
        self.n_step += 1

    def step(self, loss: Var | None = None, retain_graph: bool = False) -> None:
        """One step: with ``loss``, first its gradients; then the update of every parameter; then everything is computed.

        Without ``loss`` the gradients that ``backward`` has kept are used.
        """
        self.pre_step(loss, retain_graph)
        self.record_updates()
        self.post_step()

    def record_updates(self) -> list[Var]:
        """Record the update of every parameter that has a gradient, and compute nothing.

        Answers the Vars that hold something new: the parameters and their state."""
        self.sync_gradients()
        with no_grad():
            changed = self._updates.record(self)
            return (
                changed
                if changed is not None
                else self._record_each([self.group_options(g) for g in self.param_groups])
            )

    def group_options(self, group: Group) -> dict[str, Any]:
        """What the update rule of a group's parameters is told."""
        return {name: self.option(group, name) for name in self.options}

    def record_with(self, numbers: Sequence[Any]) -> None:
        """Record the updates with ``numbers`` in the place of the options' and of the count of steps, in their order."""
        rest = iter(numbers)
        told = []
        for group in self.param_groups:
            options = self.group_options(group)
            for name, value in options.items():
                if type(value) is tuple:
                    options[name] = tuple(next(rest) if type(x) in (int, float) else x for x in value)
                elif type(value) in (int, float):
                    options[name] = next(rest)
            told.append(options)
        count = self.n_step
        self.n_step = next(rest)
        try:
            self._record_each(told)
        finally:
            self.n_step = count

    def _record_each(self, told: list[dict[str, Any]]) -> list[Var]:
        changed: list[Var] = []
        for group, options in zip(self.param_groups, told, strict=True):
            for k, (p, g) in enumerate(zip(group["params"], group["grads"], strict=True)):
                if g is None or not p.requires_grad:
                    continue
                state = self._state(group, k)
                wide = _wide(p)
                self.update(wide, _wide(g) if wide is not p else g, state, options)
                if wide is not p:
                    write(p, wide)
                changed += [p, *state.values()]
        return changed

    def post_step(self) -> None:
        """What comes after the updates: gradients are forgotten and everything recorded is computed as one program."""
        self.zero_grad()
        values: list[Var] = []
        for group in self.param_groups:
            values.extend(group["params"])
            for name in self.slots:
                values.extend(v for v in group.get(name, ()) if v is not None)
        sync(values)
        buckets.forget_finished()
        if self.param_sync_iter and self.n_step % self.param_sync_iter == 0:
            parallel.broadcast_vars([p for group in self.param_groups for p in group["params"]])

    def update(self, p: Var, g: Var, state: dict[str, Var], options: dict[str, Any]) -> None:
        """The rule for one parameter: record new values of ``p`` and of its state with ``write``."""
        raise NotImplementedError(
            f"[{type(self).__name__}] has no update method; define update(p, g, state, options)"
        )

    def _state(self, group: Group, k: int) -> dict[str, Var]:
        """The state of parameter ``k`` of ``group``, made when first used."""
        found = {}
        for name in self._slots(group):
            values = group.setdefault(name, [])
            values.extend([None] * (len(group["params"]) - len(values)))
            if values[k] is None:
                values[k] = self._first_state(name, group["params"][k]).stop_grad()
            found[name] = values[k]
        return found

    def _slots(self, group: Group) -> tuple[str, ...]:
        """Those of ``slots`` that the options of ``group`` need: all, unless a subclass says otherwise."""
        return self.slots

    def _first_state(self, name: str, p: Var) -> Var:
        """With what the state ``name`` of the parameter ``p`` begins: zeros, unless a subclass says otherwise."""
        return zeros(p.shape, dtype=accumulator(p.dtype))

    # -- saving -----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Options, step count, groups' options and state arrays, as plain numbers and NumPy arrays."""
        groups = []
        for group in self.param_groups:
            entry: dict[str, Any] = {name: group[name] for name in self.options if name in group}
            entry["state"] = {
                name: [None if v is None else v.numpy() for v in group.get(name, [])] for name in self.slots
            }
            groups.append(entry)
        return {"defaults": self.defaults, "groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` of an optimizer of the same kind over the same parameters answered."""
        kind = type(self).__name__
        if not isinstance(state, Mapping) or not isinstance(state.get("defaults"), Mapping):
            raise ArgumentError(f"[{kind}] the state must be what state_dict() of a {kind} answered")
        groups = state.get("groups", [])
        if groups and len(groups) != len(self.param_groups):
            raise ArgumentError(
                f"[{kind}] the state has {len(groups)} groups, this optimizer {len(self.param_groups)}"
            )
        for group, entry in zip(self.param_groups, groups):
            for name in self.slots:
                arrays = entry["state"].get(name, [])
                for k, (p, a) in enumerate(zip(group["params"], arrays)):
                    if a is not None and self._first_state(name, p).shape != np.shape(a):
                        raise ArgumentError(
                            f"[{kind}] state {name!r} of parameter {p.name() or k} has shape {np.shape(a)}, "
                            f"the parameter {tuple(p.shape)}"
                        )
        for name, value in state["defaults"].items():
            if name in self.options or name == "n_step":
                setattr(self, name, value)
        for group, entry in zip(self.param_groups, groups):
            group.update({name: entry[name] for name in self.options if name in entry})
            for name in self.slots:
                for k, a in enumerate(entry["state"].get(name, [])):
                    if a is not None:
                        self._state(group, k)[name].update(array(a, accumulator(group["params"][k].dtype)))


def write(var: Var, value: Var) -> None:
    """Give ``var`` the value that was recorded for it, in its own dtype, and leave it as trainable as it was.

    ``value`` may hold the old value afterwards, so this comes last in a rule."""
    var._renew(cast(value, var.dtype))


def _wide(value: Var) -> Var:
    """A 16-bit float as float32."""
    return cast(value, accumulator(value.dtype))


def opt_grad(v: Var, opt: Optimizer) -> Var:
    """The gradient that ``opt.backward(loss)`` has kept for ``v``.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> optimizer = mf.optim.SGD([p], lr=0.1)
        >>> optimizer.backward(p * 3)
        >>> mf.nn.opt_grad(p, optimizer).item()
        3.0
    """
    if not isinstance(opt, Optimizer):
        raise DTypeError(f"[opt_grad] opt must be an Optimizer, got {type(opt).__name__}")
    return opt.find_grad(v)


def _listed(op: str, name: str, value: Any) -> list[Any]:
    """What a sequence or generator holds; one Var counts as a list of itself."""
    if isinstance(value, Var):
        return [value]
    if isinstance(value, (str, bytes, Mapping, np.ndarray)) or not isinstance(value, Iterable):
        raise DTypeError(f"[{op}] {name} must be a list of Vars, got {type(value).__name__}")
    return listed(op, name, value)


def check_number(op: str, name: str, value: Any, least: float = 0.0) -> Any:
    """``value`` if it is a number >= ``least``."""
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if not is_number(value) or not value >= least:
        raise ArgumentError(f"[{op}] {name} must be a number >= {least:g}, got {brief(value)}")
    return value


def check_betas(op: str, betas: Any, count: int) -> tuple[float, ...]:
    """``betas`` as ``count`` numbers in [0, 1)."""
    if not isinstance(betas, (tuple, list)) or len(betas) != count:
        raise ArgumentError(f"[{op}] betas must be {count} numbers, got {brief(betas)}")
    for b in betas:
        if check_number(op, "betas", b) >= 1:
            raise ArgumentError(f"[{op}] betas must be in 0 <= beta < 1, got {brief(tuple(betas))}")
    return tuple(betas)


setattr(Var, "opt_grad", opt_grad)  # noqa: B010 - a method by the reference API's name
