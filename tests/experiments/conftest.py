"""A sweep of tiny runs."""

from pathlib import Path

import pytest


@pytest.fixture
def sweep_file(config_file, tmp_path) -> Path:
    """Blocks 0 and 1 with seeds 0 and 1, of the small configuration, two iterations each."""
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"""
name: sweep
base: {config_file}
axes: {{model.blocks: [0, 1]}}
seeds: [0, 1]
"""
    )
    return path


@pytest.fixture
def short() -> list[str]:
    """Overrides that make every run as short as it can be."""
    return ["train.iterations=2", "train.schedule.warmup=0", "validation.every=2", "validation.samples=0"]
