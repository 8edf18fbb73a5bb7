"""torch.hub entry points: torch.hub.load("OWNER/REPOSITORY", "kpac_2level", weights="kpac_2level.safetensors")."""

from typing import Any

from torch import nn

dependencies = ["torch", "numpy", "pydantic", "safetensors", "yaml"]


def kpac_2level(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's 2-level network.

    Args:
        weights: a .safetensors file (ours) or .npz file (the authors') of this network; None draws fresh weights.
        options: of a network with fresh weights; see `kpac.KPACNet`.
    """
    return _load("kpac_2level", weights, options)


def kpac_3level(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's 3-level network.

    Args:
        weights: a .safetensors file (ours) or .npz file (the authors') of this network; None draws fresh weights.
        options: of a network with fresh weights; see `kpac.KPACNet`.
    """
    return _load("kpac_3level", weights, options)


def kpac_dual(weights: str | None = None, **options: Any) -> nn.Module:
    """The paper's dual-pixel network.

    Args:
        weights: a .safetensors file (ours) or .npz file (the authors') of this network; None draws fresh weights.
        options: of a network with fresh weights; see `kpac.KPACNet`.
    """
    return _load("kpac_dual", weights, options)


def _load(name: str, weights: str | None, options: dict[str, Any]) -> nn.Module:
    import kpac
    from kpac.models.official import load_official

    if weights is None:
        return kpac.create_model(name, **options)
    if options:
        raise kpac.UserError(f"{weights}: decides the options itself; leave out {', '.join(options)}")
    model = load_official(weights) if weights.endswith(".npz") else kpac.load_model(weights)
    if model.config["name"] != name:
        raise kpac.UserError(f"{weights}: holds {model.config['name']}; load it by that name instead of {name}")
    return model
