"""KPAC: single image defocus deblurring with kernel-sharing parallel atrous convolutions.

    import kpac
    model = kpac.load_model("runs/quickstart")
    restored = model(views)  # tensors (N, 3, H, W) -> (N, 3, H, W), in [0, 1]
    restored = kpac.Restorer(model)(image)  # arrays H x W x 3, of any size

Names are imported on first use, so that `kpac --help` does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for editors and type checkers
    from kpac.config import load_config as load_config
    from kpac.errors import UserError as UserError
    from kpac.images import read_photograph as read_photograph
    from kpac.models import KPACBlock as KPACBlock
    from kpac.models import KPACNet as KPACNet
    from kpac.models import ScaleAttention as ScaleAttention
    from kpac.models import ShapeAttention as ShapeAttention
    from kpac.models import create_model as create_model
    from kpac.models import load_model as load_model
    from kpac.models import register as register
    from kpac.models import save_model as save_model
    from kpac.restore.restorer import Restorer as Restorer

__version__ = "0.1.0"

_HOMES = {
    "Restorer": "kpac.restore.restorer",
    "read_photograph": "kpac.images",
    "KPACBlock": "kpac.models",
    "KPACNet": "kpac.models",
    "ScaleAttention": "kpac.models",
    "ShapeAttention": "kpac.models",
    "create_model": "kpac.models",
    "load_model": "kpac.models",
    "register": "kpac.models",
    "save_model": "kpac.models",
    "load_config": "kpac.config",
    "UserError": "kpac.errors",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kpac' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
