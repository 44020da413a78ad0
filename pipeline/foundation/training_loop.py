"""The training loop of every foundation model: warm-up, decay, progress, resume; on a GPU in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from foundation_settings import WORK
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.checksums import digest

FOUNDATION = Path(__file__).parent
WARMUP_STEPS = 200
CHECKPOINT_EVERY = 200
LOOK_EVERY = 20  # steps between looks at the loss: each look waits for the GPU


def device() -> torch.device:
    """The GPU if there is one. Its weights differ in rounding from a CPU's, not in kind."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compiled(module: Any) -> Any:
    """Return a module or a method, compiled on a GPU: these networks are small, and bound by launching kernels."""
    return torch.compile(module) if device().type == "cuda" else module


@contextmanager
def half_precision() -> Iterator[None]:
    """Autocast to bfloat16 on a GPU and on a CPU that computes it faster than fp32 (AMX, AVX-512 BF16).

    A CPU's bfloat16 attention and group normalisation are several times as slow as its fp32 ones, and would cost what
    the convolutions gain: they stay in fp32. A step then takes two thirds (UNet) to half (CLIP) of the time.
    """
    if device().type == "cuda":
        with torch.autocast("cuda", torch.bfloat16):
            yield
    elif torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        functions = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "group_norm")}
        for name, function in functions.items():
            setattr(F, name, in_full_precision(function))
        try:
            with torch.autocast("cpu", torch.bfloat16):
                yield
        finally:
            for name, function in functions.items():
                setattr(F, name, function)
    else:
        yield


def in_full_precision(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `function` computed in fp32, with its result in the first argument's type."""

    def call(*args: Any, **options: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return function(*map(full, args), **{k: full(v) for k, v in options.items()}).to(args[0].dtype)

    return call


def full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def train(
    name: str,
    modules: dict[str, nn.Module],
    loss_at: Callable[[int], Tensor],
    num_steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    after_step: Callable[[int], None] = lambda step: None,
    frozen: dict[str, nn.Module] | None = None,
) -> None:
    """Minimise `loss_at(step)` over the parameters of `modules`; continues where an earlier run stopped.

    `frozen` modules are checkpointed but not optimised (an EMA copy). The seed of every random draw is the step.
    """
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    on_gpu = device().type == "cuda"
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
    )
    state = {**modules, **(frozen or {}), "optimizer": optimizer}
    path = work_file(f"{name}.safetensors")
    start = load_checkpoint(path, **state)
    progress = tqdm(range(start, num_steps), initial=start, total=num_steps, desc=name)
    average: Tensor | None = None
    for step in progress:
        set_learning_rate(optimizer, learning_rate * schedule(step, num_steps))
        torch.manual_seed(step)
        with half_precision():
            loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        after_step(step)
        average = loss.detach() if average is None else average.lerp(loss.detach(), 0.02)
        is_last = step + 1 == num_steps
        if step % LOOK_EVERY == 0 or is_last:
            if not torch.isfinite(average):
                raise ValueError(f"{name}: the loss is {loss.item()} by step {step}; lower its learning_rate")
            progress.set_postfix(loss=f"{average.item():.4f}")
        if (step + 1) % (CHECKPOINT_EVERY * (10 if on_gpu else 1)) == 0 or is_last:
            save_checkpoint(path, step + 1, **state)


def schedule(step: int, num_steps: int) -> float:
    """Learning-rate factor in (0, 1]: warm-up, constant, then linear decay over the last 40 %."""
    decay = (num_steps - step) / (0.4 * num_steps)
    return min(1.0, (step + 1) / WARMUP_STEPS, decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def half(module: nn.Module) -> dict[str, Tensor]:
    """The module's state in fp16 on the CPU, as committed."""
    state = module.state_dict().items()
    return {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in state}


def work_file(name: str) -> Path:
    """Return the path of what an interrupted training continues from; it is another for other settings or code."""
    code = [*FOUNDATION.glob("*.py"), *(FOUNDATION.parents[1] / "src/tailorset/toybox").glob("*.py")]
    folder = WORK / digest(FOUNDATION / "params.yaml", *sorted(code))[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
