"""Describes the images that an evaluation scored: number, sizes, bit depths, and hashes of names and pixels."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kpac.data.dataset import Scene
from kpac.data.layouts import SceneFiles
from kpac.data.published import kinship
from kpac.images import read_header


def scene_facts(files: SceneFiles, scene: Scene) -> dict[str, Any]:
    """Facts about a scene's images, for its record.

    Args:
        files: files of the scene.
        scene: the scene at its original size.

    Returns:
        "size", as "WIDTHxHEIGHT"; "bit_depth" of the center view's file; "pixels", a hash of the center view and the
        target. Other views are not hashed, so that scores of single-image and dual-pixel networks are comparable.
    """
    height, width = scene.views.shape[-2:]
    header = read_header(files.paths[0])
    digest = hashlib.blake2b(digest_size=16)
    for image in (scene.views[:3], *([] if scene.target is None else [scene.target])):
        digest.update(image.contiguous().numpy().data)
    depth = header.bit_depth if header else scene.bit_depth
    return {"size": f"{width}x{height}", "bit_depth": depth, "pixels": digest.hexdigest()}


def scored_images(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summary of all scored images for results.json, from records with `scene_facts`.

    Returns:
        "count"; "sizes" and "bit_depths", each with the number of images; "names" and "pixels", SHA-256 over all images
        in the order of their names; "published", a phrase on their relation to a published split of DPDD, or None.
    """
    ordered = sorted(records, key=lambda record: record["name"])
    sizes, depths = (Counter(record[key] for record in records) for key in ("size", "bit_depth"))
    kin = kinship([record["name"] for record in records], sizes, depths)
    return {
        "count": len(records),
        "sizes": dict(sizes.most_common()),
        "bit_depths": {str(depth): count for depth, count in depths.most_common()},
        **{key: _sha256([record[entry] for record in ordered]) for key, entry in (("names", "name"), ("pixels",) * 2)},
        "published": kin and kin.text(),
    }


def data_set_of(records: Sequence[dict[str, Any]]) -> str | None:
    """Name of the published split, such as "DPDD test", if exactly its scenes were scored; else None.

    Size and bit depth of the images must also match the published split.
    """
    facts = ({record[key] for record in records} for key in ("name", "size", "bit_depth"))
    kin = kinship(*facts)
    return f"DPDD {kin.split}" if kin and kin.is_published else None


def _sha256(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
