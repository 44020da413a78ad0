"""LoRA adapters of text encoders or of a UNet in diffusers' file format (Hu et al. 2022), by peft.

Networks are given by their names in diffusers (`text_encoder`, `text_encoder_2`, `unet`), with which keys in files
begin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailorset.storage import checksums
from tailorset.storage.files import write_json

# Suffixes of layer names, as transformers moved CLIP's layers between versions. In a UNet, convolutions, self-attention
# and feed-forward layers are adapted, but no layer that reads the prompt (attn2; in SDXL time_emb_proj): what labels
# look like must not change.
_TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
_UNET_LAYERS = (
    *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    *("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"),
)
WEIGHTS = "pytorch_lora_weights.safetensors"
NOTE = "tuning.json"
HEADER_KEY = "lora_adapter_metadata"  # the name in diffusers
ADAPTER_REMEDY = "tune again for this model (`dvc repro generate_images`), or name the generator.model it was tuned for"


def add_lora(networks: nn.ModuleDict, rank: int, alpha: float, seed: int) -> None:
    """Insert trainable matrices A (from the seed) and B (zero): W x + alpha / rank * B A x.

    Raises: ValueError if there is an adapter already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _refuse_second(networks)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(_layers(networks)))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, networks)
    for weight in _lora_weights(networks).values():
        weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))  # half would lose small updates


def has_lora(networks: nn.ModuleDict) -> bool:
    """Check whether an adapter is in place."""
    return any(".lora_A." in name for name, _ in networks.named_parameters())


def save_lora(networks: nn.ModuleDict, folder: Path) -> None:
    """Write the adapter with its alpha in the file's header, without which diffusers would use the rank instead.

    The same adapter gives the same bytes: the header has one entry only, as safetensors writes several in random order.

    Raises: ValueError without an adapter.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from safetensors.torch import save_file

    if not has_lora(networks):
        raise ValueError("there is no adapter to save: call add_adapter first")
    config: Any = networks.peft_config["default"]  # type: ignore[index]
    settings = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
    described = {f"{part}.{key}": value for part in networks for key, value in settings.items()}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _lora_weights(networks).items()}
    folder.mkdir(parents=True, exist_ok=True)
    header = {HEADER_KEY: json.dumps(described)}
    named = weights if "unet" in networks else convert_state_dict_to_diffusers(weights)  # as diffusers does
    save_file(named, folder / WEIGHTS, metadata=header)


def seal_adapter(folder: Path, num_updates: int) -> None:
    """Add the number of updates and checksums to a folder of tuning; after zero updates it holds nothing else."""
    write_json(folder / NOTE, {"num_updates": num_updates})
    checksums.seal(folder)


def load_lora(networks: nn.ModuleDict, folder: Path) -> None:
    """Put a saved adapter in place, frozen; a folder of zero updates changes nothing.

    Raises:
        ValueError: there is no adapter, its file is damaged, or matrices do not fit; names the first of them.
    """
    _refuse_second(networks)
    checksums.check(folder, ADAPTER_REMEDY)
    path = folder / WEIGHTS
    if not path.is_file() and has_zero_updates(folder):
        return
    stored, header = _read(path)
    rank = next((weight.shape[0] for name, weight in stored.items() if name.endswith(".lora_A.weight")), 0)
    _check_fit(stored, _expected_shapes(networks, rank), path)
    alpha = next((header[key] for part in networks if (key := f"{part}.lora_alpha") in header), rank)
    add_lora(networks, rank, alpha, seed=0)
    for name, weight in _lora_weights(networks).items():
        weight.data.copy_(stored[name])
        weight.requires_grad_(False)
    if "unet" in networks:
        _merge(networks)


def _merge(networks: nn.ModuleDict) -> None:
    """Merge the adapter into the weights of its layers, so that it costs no time."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in networks.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()


def _refuse_second(networks: nn.ModuleDict) -> None:
    if has_lora(networks):
        raise ValueError("there is an adapter already: build a new generator for another one")


def _lora_weights(networks: nn.ModuleDict) -> dict[str, nn.Parameter]:
    """Return the adapter's matrices as peft names them in files: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
    own = networks.named_parameters()
    return {name.replace(".default.", "."): weight for name, weight in own if ".lora_" in name}


def _layers(networks: nn.ModuleDict) -> tuple[str, ...]:
    return _UNET_LAYERS if "unet" in networks else _TEXT_LAYERS


def _expected_shapes(networks: nn.ModuleDict, rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the adapter's matrices; that of a convolution has its kernel in A."""
    shapes: dict[str, tuple[int, ...]] = {}
    ends = tuple(f".{layer}" for layer in _layers(networks))
    for name, module in networks.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and name.endswith(ends):
            out, into, *kernel = module.weight.shape
            shapes[f"{name}.lora_A.weight"] = (rank, into, *kernel)
            shapes[f"{name}.lora_B.weight"] = (out, rank, *[1] * len(kernel))
    return shapes


def _check_fit(stored: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    unknown, lacking = sorted(set(stored) - set(expected)), sorted(set(expected) - set(stored))
    if unknown or lacking:
        raise ValueError(
            f"{path} does not fit this model: {len(unknown)} matrices have no place there (first {unknown[:3]}),"
            f" {len(lacking)} are missing (first {lacking[:3]}); {ADAPTER_REMEDY}"
        )
    for name, shape in expected.items():
        if tuple(stored[name].shape) != shape:
            raise ValueError(
                f"{path}: {name} is {tuple(stored[name].shape)}, but must be {shape} here; {ADAPTER_REMEDY}"
            )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return matrices under peft's names, and the adapter's settings from the header."""
    from diffusers.utils import convert_state_dict_to_peft
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"there is no adapter {path}; {ADAPTER_REMEDY}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); {ADAPTER_REMEDY}") from error
    if any(".lora_linear_layer." in name for name in weights):  # diffusers' names
        weights = convert_state_dict_to_peft(weights)
    return weights, header


def has_zero_updates(folder: Path) -> bool:
    """Check whether a folder is the product of tuning with zero updates."""
    note = folder / NOTE
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")).get("num_updates") == 0


def check_zero_updates(folder: Path, reason: str) -> None:
    """Check a folder of tuning for a generator that cannot be tuned, with the reason for that.

    Raises:
        ValueError: there is an adapter, or no folder of tuning.
    """
    checksums.check(folder, ADAPTER_REMEDY)
    if not has_zero_updates(folder):
        raise ValueError(f"{folder} holds an adapter or nothing: {reason}; {ADAPTER_REMEDY}")
