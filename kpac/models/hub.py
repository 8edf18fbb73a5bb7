"""Sharing models on the Hugging Face hub, or in a folder of the same form.

Needs the extra `hub`: pip install 'kpac[hub]'.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import Tensor, nn

from kpac.models.interface import ImageNetwork
from kpac.models.weights import load_model, save_model

FILE_NAME = "model.safetensors"


class HubModel(nn.Module, ModelHubMixin, library_name="kpac", tags=["image-restoration", "defocus-deblurring"]):
    """Wraps any registered network with `save_pretrained`, `from_pretrained` and `push_to_hub`.

        HubModel(kpac.load_model("runs/quickstart")).save_pretrained("my_model")
        model = HubModel.from_pretrained("my_model")   # or "user/repository"

    The saved folder holds a model card and model.safetensors, which `kpac.load_model` can also read directly.

    Args:
        network: made by `create_model` or `load_model`.

    Shape: as the network, (N, 3V, H, W) -> (N, 3, H, W), both in [0, 1].
    """

    def __init__(self, network: ImageNetwork):
        super().__init__()
        self.network = network
        self.views = network.views
        self.config = network.config

    def forward(self, views: Tensor) -> Tensor:
        return self.network(views)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.network, save_directory / FILE_NAME)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "HubModel":
        path = Path(model_id) / FILE_NAME
        if not path.is_file():
            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            chosen = {name: options[name] for name in known if name in options}
            path = Path(hf_hub_download(model_id, FILE_NAME, **chosen))
        return cls(load_model(path))
