"""Mixed precision: the context that turns it on, and the scaler that keeps small gradients of float16 from vanishing.

What it is: ``autocast``, which sets the flags for a while, and ``GradScaler``, which multiplies a loss by a large number,
divides the gradients by it again, leaves out steps whose gradients overflowed, and adapts the number.
What it is not: the choice of types (``ops.precision``); bfloat16 has the range of float32 and needs no scaler.
Who calls it: users.

Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018; names and defaults are those of PyTorch's
``torch.amp.GradScaler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .arguments import checked
from .config import flag_scope
from .dtypes import float32, int32
from .errors import ArgumentError, DTypeError, brief
from .finite import nested
from .ops.autograd import no_grad
from .ops.creation import array
from .ops.elementwise import cast
from .ops.meta import fill
from .ops.scalar import ternary
from .optim.optimizer import Optimizer, write
from .var import Var

__all__ = ["GradScaler", "autocast"]


@checked
def autocast(enabled: bool = True, dtype: Any = "bfloat16", level: int = 4) -> flag_scope:
    """A scope (or decorator) in which mixed precision is on: sets ``auto_mixed_precision_level`` and ``amp_dtype``.

    Example:
        >>> import metafuse as mf
        >>> with mf.amp.autocast():
        ...     y = mf.ones(2, 3) @ mf.ones(3, 4)
        ...     loss = y.sum()
        >>> y.dtype, loss.dtype
        (metafuse.bfloat16, metafuse.float32)
    """
    with nested("autocast", "dtype"):
        name = str(dtype)
    return flag_scope(auto_mixed_precision_level=level if enabled else 0, amp_dtype=name)


@checked
class GradScaler:
    """Scales losses so that gradients of float16 neither vanish nor overflow.

    The scale, the test for overflow and the choice between new and old parameters are part of the recorded programs: a step
    waits for nothing, and what it adds to a program are a few kernels for all parameters together. Whether a step counted is
    only read, for the step count of the optimizer, when the next one is recorded.

    Args:
        init_scale: the scale to begin with.
        growth_factor: what the scale is multiplied by after ``growth_interval`` steps in a row without overflow; > 1.
        backoff_factor: what it is multiplied by after a step that overflowed; between 0 and 1.
        growth_interval: an integer >= 1.
        enabled: ``False``: every method does what is done without a scaler.

    Example:
        >>> import metafuse as mf
        >>> p = mf.nn.Parameter([1.0])
        >>> optimizer, scaler = mf.optim.SGD([p], lr=0.5), mf.amp.GradScaler(init_scale=1024.0)
        >>> optimizer.backward(scaler.scale((p * p).sum()))
        >>> scaler.step(optimizer)
        >>> scaler.update()
        >>> p.item(), scaler.get_scale()
        (0.0, 1024.0)
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if not init_scale > 0:
            raise ArgumentError(f"[GradScaler] init_scale must be > 0, got {brief(init_scale)}")
        self._enabled = bool(enabled)
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)
        self._scale = _number(init_scale)
        self._streak = fill((1,), 0, int32)  # steps in a row without overflow
        self._found: dict[
            int, Var
        ] = {}  # optimizer -> whether its gradients overflowed, once they are unscaled
        self._counted: list[tuple[Optimizer, Var]] = []  # steps whose count may have to be taken back

    # -- one iteration ----------------------------------------------------------------------------------------------
    def scale(self, outputs: Any) -> Any:
        """A loss, or a list of losses, times the scale, in float32."""
        if not self._enabled:
            return outputs
        with nested("GradScaler", "outputs"):
            return self._scaled(outputs)

    def _scaled(self, outputs: Any) -> Any:
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self._scaled(y) for y in outputs)
        if not isinstance(outputs, Var) or not outputs.dtype.is_float:
            raise DTypeError(f"[GradScaler] scale takes floating Vars, got {_kind(outputs)}")
        return cast(outputs, float32) * self._scale

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients that ``optimizer`` keeps by the scale, now instead of in ``step``: to clip them, say.

        Errors: ``ArgumentError`` if that was done since the last ``update``, or if there are no gradients."""
        if not self._enabled:
            return
        if id(optimizer) in self._found:
            raise ArgumentError("[GradScaler] unscale_ was called already since the last update")
        optimizer.sync_gradients()
        held = [
            (g["grads"], k) for g in optimizer.param_groups for k, x in enumerate(g["grads"]) if x is not None
        ]
        if not held:
            raise ArgumentError(
                "[GradScaler] the optimizer keeps no gradients; call optimizer.backward(scaler.scale(loss))"
            )
        with no_grad():
            inverse = 1.0 / self._scale
            found: Any = None
            for grads, k in held:
                grads[k] = cast(grads[k], float32) * inverse
                bad: Any = grads[k].isfinite().logical_not().any()
                found = bad if found is None else found.logical_or(bad)
        self._found[id(optimizer)] = found

    def step(self, optimizer: Optimizer, loss: Var | None = None) -> None:
        """``optimizer.step``, unless gradients overflowed: then its parameters and state stay as they are.

        With ``loss``, first the gradients of the scaled loss. Steps that were left out do not count for the optimizer."""
        if loss is not None:
            optimizer.backward(self.scale(loss))
        if not self._enabled:
            optimizer.step()
            return
        self._settle()
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        found = self._found[id(optimizer)]
        if type(optimizer).step is not Optimizer.step:  # a rule of its own: there is no way around knowing
            if found.item():
                optimizer.zero_grad()
            else:
                optimizer.step()
            return
        optimizer.pre_step(None)
        with no_grad():
            before = {id(v): v.detach() for v in _changeable(optimizer)}
            for var in optimizer.record_updates():
                old = before.get(id(var))  # state that is made in this step starts from zero
                old = fill(tuple(var.shape), 0, var.dtype) if old is None else old
                write(var, ternary(found, old, var.detach()))
        self._counted.append((optimizer, found))
        optimizer.post_step()

    def update(self, new_scale: float | Var | None = None) -> None:
        """Adapt the scale to what the steps since the last ``update`` met; or set it to ``new_scale``.

        Errors: ``ArgumentError`` if there was no step."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = (
                cast(new_scale, float32).detach() if isinstance(new_scale, Var) else _number(new_scale)
            )
        elif not self._found:
            raise ArgumentError(
                "[GradScaler] update comes after step; there was no step since the last update"
            )
        else:
            with no_grad():
                self._adapt()
        self._found.clear()

    def _adapt(self) -> None:
        found: Any = None
        for one in self._found.values():
            found = one if found is None else found.logical_or(one)
        streak: Any = self._streak + 1
        full = streak == self._interval
        grown: Any = self._scale * self._growth
        grown = ternary(grown.isfinite(), grown, self._scale)
        self._scale = ternary(found, self._scale * self._backoff, ternary(full, grown, self._scale))
        self._streak = ternary(found.logical_or(full), 0, streak)

    def _settle(self) -> None:
        """Take back the counts of steps that were left out. The programs that found it out have run by now."""
        for optimizer, found in self._counted:
            if found.item():
                optimizer.n_step -= 1
        self._counted.clear()

    # -- settings and state ------------------------------------------------------------------------------------------
    def is_enabled(self) -> bool:
        """Whether it scales at all."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale now; waits for what it depends on. 1 where the scaler is not enabled."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """See the class."""
        return self._growth

    def set_growth_factor(self, new_factor: float) -> None:
        """Change it."""
        if not new_factor > 1:
            raise ArgumentError(f"[GradScaler] growth_factor must be > 1, got {brief(new_factor)}")
        self._growth = float(new_factor)

    def get_backoff_factor(self) -> float:
        """See the class."""
        return self._backoff

    def set_backoff_factor(self, new_factor: float) -> None:
        """Change it."""
        if not 0 < new_factor < 1:
            raise ArgumentError(
                f"[GradScaler] backoff_factor must be between 0 and 1, got {brief(new_factor)}"
            )
        self._backoff = float(new_factor)

    def get_growth_interval(self) -> int:
        """See the class."""
        return self._interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Change it."""
        if isinstance(new_interval, bool) or not isinstance(new_interval, int) or new_interval < 1:
            raise ArgumentError(
                f"[GradScaler] growth_interval must be an integer >= 1, got {brief(new_interval)}"
            )
        self._interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """Scale, settings and the number of steps in a row without overflow, as plain numbers; empty if not enabled."""
        if not self._enabled:
            return {}
        self._settle()
        return {
            "scale": self.get_scale(), "growth_factor": self._growth, "backoff_factor": self._backoff,
            "growth_interval": self._interval, "_growth_tracker": int(self._streak.item()),
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` answered. Errors: ``ArgumentError`` for an empty one."""
        if not self._enabled:
            return
        if not state_dict:
            raise ArgumentError(
                "[GradScaler] the state is empty: it was saved by a scaler that was not enabled"
            )
        self.set_growth_factor(state_dict["growth_factor"])
        self.set_backoff_factor(state_dict["backoff_factor"])
        self.set_growth_interval(state_dict["growth_interval"])
        self._scale = _number(state_dict["scale"])
        self._streak = array([int(state_dict["_growth_tracker"])], int32)


def _number(value: float) -> Var:
    """A number that programs read from memory, so that another one is the same program."""
    return array([float(value)], float32).stop_grad()


def _changeable(optimizer: Optimizer) -> list[Var]:
    """The parameters and the state that exists."""
    found: list[Var] = []
    for group in optimizer.param_groups:
        found += group["params"]
        for name in optimizer.slots:
            found += [v for v in group.get(name, ()) if v is not None]
    return found


def _kind(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Var) else type(value).__name__
