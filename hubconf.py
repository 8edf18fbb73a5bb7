"""torch.hub entry points: torch.hub.load("OWNER/REPOSITORY", "kpac_2level", weights="kpac_2level.safetensors")."""

from typing import Any

from torch import nn

dependencies = ["torch", "numpy", "pydantic", "safetensors", "yaml"]


def kpac_2level(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's 2-level network; see `_load` for the arguments."""
    return _load("kpac_2level", weights, options)


def kpac_3level(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's 3-level network; see `_load` for the arguments."""
    return _load("kpac_3level", weights, options)


def kpac_dual(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's dual-pixel network; see `_load` for the arguments."""
    return _load("kpac_dual", weights, options)


def _load(name: str, weights: str | None, options: dict[str, Any]) -> nn.Module:
    """A network with fresh weights, or those of a .safetensors file (ours) or .npz file (the authors').

    Args:
        name: of the network.
        weights: path of a file; it must hold this network.
        options: see `kpac.KPACNet`; with weights the file decides.
    """
    import kpac
    from kpac.models.official import load_official

    if weights is None:
        return kpac.create_model(name, **options)
    model = load_official(weights) if weights.endswith(".npz") else kpac.load_model(weights)
    if model.config["name"] != name:
        raise kpac.UserError(f"{weights}: holds {model.config['name']}; load it by that name instead of {name}")
    return model
