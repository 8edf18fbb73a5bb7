"""Compares stores of training images by batches of crops per second: decoding PNGs per crop, our cache, and others.

    python benchmarks/data.py
    python benchmarks/data.py --worker     # only the cost of a batch in a data worker

Makes a few 1680x1120 16-bit PNG pairs in a temporary folder, and prints a Markdown table. Takes about a minute.
"""

import importlib.util
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac.config import AugmentConfig, StageConfig, load_config
from kpac.data.batches import PackedBatch
from kpac.data.cache import DecodedCache
from kpac.data.dataset import Crop, CropDataset
from kpac.data.layouts import find_scenes
from kpac.data.stream import training_loader
from kpac.data.transforms import as_float
from kpac.images import read_pixels, to_float, write_pixels

HEIGHT, WIDTH, CROP, BATCH, WORKERS = 1120, 1680, 256, 8, 2
PAIRS = 4
PAPER = Path(__file__).parents[1] / "configs" / "paper" / "kpac_2level.yaml"


class Crops(Dataset):
    """Random crops of image pairs.

    Args:
        pairs: pairs of images, in the form that `read` accepts.
        read: (image, top, left) -> float32 crop in [0, 1], H x W x 3.
        height, width: size of the images.
    """

    def __init__(self, pairs: list, read: Callable, height: int = HEIGHT, width: int = WIDTH):
        self.pairs, self.read, self.height, self.width = pairs, read, height, width

    def __getitem__(self, position: int) -> tuple[torch.Tensor, ...]:
        generator = np.random.default_rng(position)
        top, left = generator.integers(self.height - CROP + 1), generator.integers(self.width - CROP + 1)
        crops = [self.read(image, top, left) for image in self.pairs[position % len(self.pairs)]]
        return tuple(torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))) for crop in crops)


def decode_as_the_field(path: Path, top: int, left: int) -> np.ndarray:
    """Decodes, converts the whole image to float, crops, and swaps the channels, as loaders based on BasicSR do."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED).astype(np.float32) / 65535
    return cv2.cvtColor(image[top : top + CROP, left : left + CROP], cv2.COLOR_BGR2RGB)


def decode_then_cut(path: Path, top: int, left: int) -> np.ndarray:
    """Decodes, crops, and converts only the crop to float: the minimum for a loader without a store."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return to_float(cv2.cvtColor(image[top : top + CROP, left : left + CROP], cv2.COLOR_BGR2RGB))


def read_whole_array(path: Path, top: int, left: int) -> np.ndarray:
    return to_float(np.load(path)[top : top + CROP, left : left + CROP])


def open_memory_map(path: Path, top: int, left: int) -> np.ndarray:
    return to_float(np.load(path, mmap_mode="r")[top : top + CROP, left : left + CROP])


def batches_per_second(dataset: Dataset, seconds: float) -> float:
    """Measures at least three batches and `seconds` seconds, after the workers have started and filled their queue."""
    if isinstance(dataset, CropDataset):
        stage = StageConfig(until=100_000, crop=CROP, batch_size=BATCH)
        loader = training_loader(dataset, [stage], (0, 100_000), workers=WORKERS)
    else:
        order = [range(step * BATCH, (step + 1) * BATCH) for step in range(100_000)]
        loader = DataLoader(dataset, batch_sampler=order, num_workers=WORKERS)
    batches = iter(loader)
    for _ in range(2 * WORKERS + 1):  # skips batches that were prefetched
        next(batches)
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count / (time.perf_counter() - start)


def worker_cost(dataset: CropDataset, as_floats: bool) -> tuple[float, int]:
    """Processor time in milliseconds that a data worker needs for a batch, and the batch's size in bytes.

    Args:
        dataset: data set of the crops.
        as_floats: converts crops to floats in the worker, as most loaders do, instead of sending integers.
    """

    def pack(first: int) -> PackedBatch:
        crops = [dataset[position] for position in range(first, first + BATCH)]
        if as_floats:
            crops = [Crop(one.name, tuple(map(as_float, one.views)), as_float(one.target)) for one in crops]
        return PackedBatch.pack(crops, first, BATCH)

    times = []
    for step in range(60):
        start = time.process_time()
        batch = pack(step * BATCH)
        times.append(time.process_time() - start)
    return 1e3 * sorted(times)[len(times) // 2], batch.nbytes


def print_worker_cost(datasets: dict[str, CropDataset]) -> None:
    """Prints a table of a data worker's cost per batch, for crops sent as integers and as floats."""
    print("\n| crops | sent as | processor a batch [ms] | a batch [MB] |\n|---|---|---:|---:|")
    for name, dataset in datasets.items():
        for kind, as_floats in (("floats", True), ("integers", False)):
            milliseconds, size = worker_cost(dataset, as_floats)
            print(f"| {name} | {kind} | {milliseconds:.1f} | {size / 1e6:.1f} |", flush=True)


def make_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Makes images of smooth colour with sensor noise, whose PNGs are about as large as DPDD's."""
    generator = np.random.default_rng(0)
    for index in range(PAIRS):
        for folder in ("source", "target"):
            coarse = generator.random((35, 52, 3), dtype=np.float32)
            image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 0.8 + 0.1
            image += generator.normal(0, 0.004, image.shape).astype(np.float32)
            write_pixels(root / "train_c" / folder / f"{index}.png", (image.clip(0, 1) * 65535).astype(np.uint16))
    return [(scene.views["center"], scene.target) for scene in find_scenes(root, "train")]


def cut_in_patches(pairs: list, folder: Path) -> list[tuple[Path, Path]]:
    """Cuts images into 512x512 PNGs, as in the preparation step of Restormer and its followers."""
    folder.mkdir()
    for number, pair in enumerate(pairs):
        for side, path in enumerate(pair):
            write_pixels(folder / f"{number}-{side}.png", read_pixels(path)[:512, :512])
    return [(folder / f"{number}-0.png", folder / f"{number}-1.png") for number in range(len(pairs))]


def lmdb_crops(pairs: list, folder: Path) -> Dataset:
    """Stores raw pixels as LMDB values; transactions return views of the memory map without a copy."""
    import lmdb

    with lmdb.open(str(folder), map_size=1 << 32) as store, store.begin(write=True) as transaction:
        for pair in pairs:
            for path in pair:
                transaction.put(os.fsencode(path), read_pixels(path).tobytes())
    transactions = {}

    def read(path: Path, top: int, left: int) -> np.ndarray:
        if os.getpid() not in transactions:
            transactions[os.getpid()] = lmdb.open(str(folder), readonly=True, lock=False).begin(buffers=True)
        image = np.frombuffer(transactions[os.getpid()].get(os.fsencode(path)), np.uint16)
        return to_float(image.reshape(HEIGHT, WIDTH, 3)[top : top + CROP, left : left + CROP])

    return Crops(pairs, read)


def zarr_crops(pairs: list, folder: Path) -> Dataset:
    """Stores zarr chunks of 256x256, with zarr's default compression."""
    import zarr

    arrays = []
    for number, pair in enumerate(pairs):
        arrays.append([])
        for side, path in enumerate(pair):
            pixels = read_pixels(path)
            array = zarr.open(
                str(folder / f"{number}-{side}"), mode="w", shape=pixels.shape, chunks=(256, 256, 3), dtype="uint16"
            )
            array[:] = pixels
            arrays[-1].append(array)
    return Crops(arrays, lambda array, top, left: to_float(array[top : top + CROP, left : left + CROP]))


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "data"
        pairs = make_pairs(root)
        png = sum(path.stat().st_size for pair in pairs for path in pair)
        cache = DecodedCache(Path(temporary) / "cache")
        start = time.perf_counter()
        cache.prepare([path for pair in pairs for path in pair])
        build = time.perf_counter() - start
        plain, augmented = (
            CropDataset(find_scenes(root, "train"), cache, CROP, augment, seed=0)
            for augment in (AugmentConfig(), load_config(PAPER).data.augment)
        )
        if "--worker" in sys.argv:
            print_worker_cost({"plain": plain, "augmented as configs/paper says": augmented})
            return
        arrays = [tuple(cache.stored(path) for path in pair) for pair in pairs]
        rows: list[tuple[str, Dataset | None]] = [
            ("PNGs decoded per crop, as the field's loaders do", Crops(pairs, decode_as_the_field)),
            ("PNGs decoded per crop, only the crop made float", Crops(pairs, decode_then_cut)),
            (
                "PNG patches of 512x512 decoded per crop",
                Crops(cut_in_patches(pairs, Path(temporary) / "patches"), decode_then_cut, 512, 512),
            ),
            ("**our `CropDataset`: one .npy an image, mapped, kept open**", plain),
            ("the same, augmented as configs/paper says", augmented),
            ("the same files, mapped anew for each crop", Crops(arrays, open_memory_map)),
            ("the same files, read whole for each crop", Crops(arrays, read_whole_array)),
        ]
        for name, make in (("lmdb", lmdb_crops), ("zarr", zarr_crops)):
            there = importlib.util.find_spec(name) is not None
            rows.append((f"{name}, raw pixels" if name == "lmdb" else "zarr, chunks of 256x256",
                         make(pairs, Path(temporary) / name) if there else None))  # fmt: skip
        print(
            f"\n{HEIGHT}x{WIDTH} 16-bit pairs, {CROP}x{CROP} crops, batch {BATCH}, {WORKERS} workers; {PAIRS} pairs, "
        )
        print(f"{png / 2 / PAIRS / 1e6:.1f} MB a PNG, {cache.size(pairs[0]) / 2e6:.1f} MB decoded; ", end="")
        print(f"cache built in {build / 2 / PAIRS:.2f} s an image; {os.cpu_count()} cores, {platform.machine()}, ")
        print(f"OpenCV {cv2.__version__}, PyTorch {torch.__version__}, numpy {np.__version__}\n")
        print("| store | batches/s | ratio |\n|---|---:|---:|")
        field = None
        for label, dataset in rows:
            if dataset is None:
                print(f"| {label} | not installed | |")
                continue
            rate = batches_per_second(dataset, seconds=4)
            field = field or rate
            print(f"| {label} | {rate:.2f} | {rate / field:.1f} |", flush=True)
        print_worker_cost({"plain": plain, "augmented as configs/paper says": augmented})


if __name__ == "__main__":
    main()
