"""LoRA adapters of text encoders in diffusers' file format (Hu et al. 2022), by peft.

Text encoders are given by their names in diffusers (`text_encoder`, `text_encoder_2`), with which keys in files begin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailorset.storage import checksums

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # suffixes: transformers moved CLIP's layers between versions
WEIGHTS = "pytorch_lora_weights.safetensors"
NOTE = "tuning.json"
HEADER_KEY = "lora_adapter_metadata"  # the name in diffusers
ADAPTER_REMEDY = (
    "tune again for this model (`dvc repro tune_text_encoder`), or name the generator.model it was tuned for"
)


def add_lora(text_encoders: nn.ModuleDict, rank: int, alpha: float, seed: int) -> None:
    """Insert trainable matrices A (from the seed) and B (zero): W x + alpha / rank * B A x.

    Raises: ValueError if there is an adapter already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _refuse_second(text_encoders)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, text_encoders)


def has_lora(text_encoders: nn.ModuleDict) -> bool:
    """Check whether an adapter is in place."""
    return any(".lora_A." in name for name, _ in text_encoders.named_parameters())


def save_lora(text_encoders: nn.ModuleDict, folder: Path) -> None:
    """Write the adapter with its alpha in the file's header, without which diffusers would use the rank instead.

    The same adapter gives the same bytes: the header has one entry only, as safetensors writes several in random order.

    Raises: ValueError without an adapter.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from safetensors.torch import save_file

    if not has_lora(text_encoders):
        raise ValueError("there is no adapter to save: call add_adapter first")
    config: Any = text_encoders.peft_config["default"]  # type: ignore[index]
    settings = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
    described = {f"{part}.{key}": value for part in text_encoders for key, value in settings.items()}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _lora_weights(text_encoders).items()}
    folder.mkdir(parents=True, exist_ok=True)
    header = {HEADER_KEY: json.dumps(described)}
    save_file(convert_state_dict_to_diffusers(weights), folder / WEIGHTS, metadata=header)


def load_lora(text_encoders: nn.ModuleDict, folder: Path) -> None:
    """Put a saved adapter in place, frozen; a folder of zero updates changes nothing.

    Raises:
        ValueError: there is no adapter, its file is damaged, or matrices do not fit; names the first of them.
    """
    _refuse_second(text_encoders)
    checksums.check(folder, ADAPTER_REMEDY)
    path = folder / WEIGHTS
    if not path.is_file() and has_zero_updates(folder):
        return
    stored, header = _read(path)
    rank = next((weight.shape[0] for name, weight in stored.items() if name.endswith(".lora_A.weight")), 0)
    _check_fit(stored, _expected_shapes(text_encoders, rank), path)
    alpha = next((header[key] for part in text_encoders if (key := f"{part}.lora_alpha") in header), rank)
    add_lora(text_encoders, rank, alpha, seed=0)
    for name, weight in _lora_weights(text_encoders).items():
        weight.data.copy_(stored[name])
        weight.requires_grad_(False)


def _refuse_second(text_encoders: nn.ModuleDict) -> None:
    if has_lora(text_encoders):
        raise ValueError("there is an adapter already: build a new generator for another one")


def _lora_weights(text_encoders: nn.ModuleDict) -> dict[str, nn.Parameter]:
    """Return the adapter's matrices as peft names them in files: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
    own = text_encoders.named_parameters()
    return {name.replace(".default.", "."): weight for name, weight in own if ".lora_" in name}


def _expected_shapes(text_encoders: nn.ModuleDict, rank: int) -> dict[str, tuple[int, int]]:
    shapes = {}
    for name, module in text_encoders.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS:
            shapes[f"{name}.lora_A.weight"] = (rank, module.in_features)
            shapes[f"{name}.lora_B.weight"] = (module.out_features, rank)
    return shapes


def _check_fit(stored: Mapping[str, Tensor], expected: Mapping[str, tuple[int, int]], path: Path) -> None:
    unknown, lacking = sorted(set(stored) - set(expected)), sorted(set(expected) - set(stored))
    if unknown or lacking:
        raise ValueError(
            f"{path} does not fit the text encoders: {len(unknown)} matrices have no place there (first {unknown[:3]}),"
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
