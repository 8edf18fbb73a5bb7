"""The interface that every registered network has, for type checkers."""

from typing import TYPE_CHECKING, Any

from torch import nn


class ImageNetwork(nn.Module):
    """The type of the networks that `create_model` and `load_model` return.

    Used in annotations only: no network derives from it.

    Attributes:
        views: names of the views that the network reads, "center" first.
        config: its registered name and its options, as JSON values.

    Shape: (N, 3 * len(views), H, W) -> (N, 3, H, W), both in [0, 1].
    """

    views: tuple[str, ...]
    config: dict[str, Any]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Gives all other attributes the type `Any`; PyTorch types them all as `Tensor | Module`."""
