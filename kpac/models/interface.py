"""What every network of the registry has, for type checkers."""

from typing import TYPE_CHECKING, Any

from torch import nn


class ImageNetwork(nn.Module):
    """A network that `create_model` or `load_model` made; only annotations use this class, no network derives from it.

    Attributes:
        views: names of the views that it reads, "center" first.
        config: its registered name and its options, JSON.

    Shape: (N, 3 * len(views), H, W) -> (N, 3, H, W), both in [0, 1].
    """

    views: tuple[str, ...]
    config: dict[str, Any]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Other attributes are the network's own business; PyTorch calls them all `Tensor | Module`."""
