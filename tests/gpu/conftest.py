"""What the tests on a GPU share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    """`train.compute` sets switches of the whole process."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    yield
    cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()
