"""Networks: the KPAC block, KPACNet, and the registry for other networks."""

from kpac.models.kpac import KPACBlock, ScaleAttention, ShapeAttention
from kpac.models.network import KPACNet
from kpac.models.registry import create_model, model_names, register
from kpac.models.weights import load_model, save_model

register("kpac_2level", levels=2)(KPACNet)
register("kpac_3level", levels=3)(KPACNet)
register("kpac_dual", levels=3, defaults={"views": ("center", "left", "right")})(KPACNet)

__all__ = [
    "KPACBlock",
    "KPACNet",
    "ScaleAttention",
    "ShapeAttention",
    "create_model",
    "load_model",
    "model_names",
    "register",
    "save_model",
]
