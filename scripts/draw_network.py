"""Draws a network and its block as SVG files, with kernel sizes, channels and dilations taken from the modules.

    python scripts/draw_network.py [--output docs/images] [--network kpac_2level]

The README shows both files; a test compares them with what this script draws.
"""

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from torch import nn

import kpac
from kpac.models.kpac import KPACBlock
from kpac.models.network import KPACNet

COLORS = {  # kind of box -> fill and border
    "image": ("#ffffff", "#57606a"),
    "conv": ("#ddf4ff", "#0969da"),
    "resize": ("#fff8c5", "#9a6700"),
    "block": ("#fbefff", "#8250df"),
    "attention": ("#dafbe1", "#1a7f37"),
}
LINE, FONT = 17, 13  # line height and font size, in pixels


@dataclass
class Box:
    """A rectangle with lines of text, the first of them bold."""

    x: int
    y: int
    lines: list[str]
    kind: str = "conv"
    width: int = 150

    @property
    def height(self) -> int:
        return LINE * len(self.lines) + 14

    @property
    def left(self) -> tuple[int, int]:
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        return self.x + self.width, self.y + self.height // 2

    @property
    def top(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y

    @property
    def bottom(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y + self.height

    def svg(self) -> str:
        fill, border = COLORS[self.kind]
        middle = self.x + self.width // 2
        weights = [' font-weight="600"', *[""] * (len(self.lines) - 1)]
        texts = [
            f'<text x="{middle}" y="{self.y + LINE * row + 2}"{weight}>{escape(line)}</text>'
            for row, (line, weight) in enumerate(zip(self.lines, weights, strict=True), 1)
        ]
        frame = (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6" fill="{fill}" '
            f'stroke="{border}"/>'
        )
        return "\n".join([frame, *texts])


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """A line through points, with an arrowhead at the last one."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="#57606a" stroke-width="1.4" marker-end="url(#head)"{dash}/>'


def sign(x: int, y: int, text: str) -> str:
    """A small circle with an operation in it."""
    return (
        f'<circle cx="{x}" cy="{y}" r="12" fill="#ffffff" stroke="#57606a"/>'
        f'<text x="{x}" y="{y + 5}">{escape(text)}</text>'
    )


def note(x: int, y: int, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" fill="#57606a" font-style="italic" text-anchor="{anchor}">{escape(text)}</text>'


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="Helvetica, Arial, sans-serif" font-size="{FONT}" text-anchor="middle" fill="#1f2328">'
    )
    marker = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#57606a"/></marker></defs>'
    )
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", marker, ground, *parts, "</svg>"]) + "\n"


def words(layer: nn.Module) -> str:
    """Describes a convolution in words: kernel size, kind, output channels."""
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        raise TypeError(f"{type(layer).__name__} has no words here")
    kind = "transposed" if isinstance(layer, nn.ConvTranspose2d) else "conv"
    facts = [f"{layer.kernel_size[0]}x{layer.kernel_size[1]} {kind}"]
    facts += [f"{name} {value}" for name in ("stride", "dilation") if (value := getattr(layer, name)[0]) > 1]
    return f"{', '.join(facts)}: {layer.out_channels}"


def draw_network(network: KPACNet, name: str) -> str:
    """Draws encoder, chain of blocks, fusion and decoder, with the skips."""
    levels = len(network.decoder)
    row = [70 + 120 * level for level in range(levels + 1)]
    channels = network.encoder[0][0].in_channels
    views = "center view" if channels == 3 else "left and right views"
    image = Box(20, row[0] + LINE // 2, [views, f"{channels} channels in [-1, 1]"], "image")
    encoder = [
        Box(210, row[level], [f"encoder, 1/{2**level} size" if level else "encoder, full size", *map(words, stage)])
        for level, stage in enumerate(network.encoder)
    ]
    for box, kind in zip(encoder, ["conv", *["resize"] * levels], strict=True):
        box.kind, box.width = kind, 190
    chain = [encoder[-1]]
    for index, block in enumerate(network.blocks, 1):
        filters = block.kernels[0].shape[0]
        lines = [f"KPAC block {index}", f"{len(block.dilations)} dilations of one", f"kernel of {filters} filters"]
        chain.append(Box(chain[-1].x + chain[-1].width + 40, row[levels], lines, "block"))
    fusion = Box(chain[-1].x + chain[-1].width + 90, row[levels], ["fusion", *map(words, network.fusion)], width=190)
    decoder = [
        Box(fusion.x, row[levels - 1 - index], ["decoder", words(stage.up), words(stage.merge)], "resize", 190)
        for index, stage in enumerate(network.decoder)
    ]
    result = Box(fusion.x + 300, row[0] + LINE // 2, ["restored image", "3 channels"], "image")
    plus = (fusion.x + 245, decoder[-1].right[1])
    parts = [box.svg() for box in (image, *encoder, *chain[1:], fusion, *decoder, result)]
    parts.append(arrow(image.right, encoder[0].left))
    parts += [arrow(above.bottom, below.top) for above, below in itertools.pairwise(encoder)]
    parts += [arrow(before.right, after.left) for before, after in itertools.pairwise(chain)]
    join, low = (fusion.x - 45, fusion.left[1]), row[levels] + 95
    for index, box in enumerate(chain):
        depth = low + 12 * (len(chain) - 1 - index)
        last = box is chain[-1]
        parts.append(
            arrow(box.right, (join[0] - 12, join[1]))
            if last
            else arrow(box.bottom, (box.bottom[0], depth), (join[0], depth), (join[0], join[1] + 12))
        )
    parts += [sign(*join, "C"), arrow((join[0] + 12, join[1]), fusion.left)]
    steps = [fusion, *decoder]
    parts += [arrow(below.top, above.bottom) for below, above in itertools.pairwise(steps)]
    for level in range(levels):
        parts.append(arrow(encoder[level].right, decoder[levels - 1 - level].left, dashed=True))
        parts.append(note((encoder[level].right[0] + fusion.x) // 2, encoder[level].right[1] - 8, "skip, concatenated"))
    parts += [arrow(decoder[-1].right, (plus[0] - 12, plus[1])), sign(*plus, "+")]
    parts.append(arrow((plus[0] + 12, plus[1]), result.left))
    parts.append(arrow(image.top, (image.top[0], 35), (plus[0], 35), (plus[0], plus[1] - 12)))
    parts.append(note(plus[0] // 2 + 100, 29, "the center view, to which the decoder's output is added"))
    parts.append(
        note(20, low + 40, "C: concatenation. Every convolution but the last is followed by a leaky ReLU.", "start")
    )
    return picture(result.right[0] + 20, low + 55, f"The network {name}", parts)


def draw_block(block: KPACBlock, name: str) -> str:
    """Draws the parallel branches of a KPAC block, and its two attentions."""
    filters, channels, side, _ = block.kernels[0].shape
    step, first = 56, 70
    count = len(block.dilations)
    branches = [
        Box(250, first + step * index, [f"{side}x{side}, dilation {dilation}: {filters}"], "block", 170)
        for index, dilation in enumerate(block.dilations)
    ]
    middle = (branches[0].left[1] + branches[-1].left[1]) // 2
    x = Box(20, middle - 24, ["input", f"{channels} channels"], "image", 120)
    below = first + step * count + 30
    parts = [box.svg() for box in (x, *branches)]
    label = "one kernel, shared by all branches" if len(block.kernels) == 1 else "a kernel for each branch"
    parts.append(note(335, first - 14, label))
    parts.append(
        f'<rect x="222" y="{first - 34}" width="226" height="{step * count + 22}" rx="8" fill="none" stroke="#8250df" '
        'stroke-dasharray="5 4"/>'
    )
    times = 540
    join = (660, middle)
    for box in branches:
        y = box.right[1]
        parts.append(arrow(x.right, (190, x.right[1]), (190, y), box.left))
        parts.append(arrow(box.right, (times - 12, y)))
        end = (join[0], join[1] + 12 * ((y > join[1]) - (y < join[1]))) if y != join[1] else (join[0] - 12, y)
        parts.append(arrow((times + 12, y), (join[0], y), end) if y != join[1] else arrow((times + 12, y), end))
    fusion = Box(710, middle - 24, ["fusion", words(block.fusion)], width=150)
    output = Box(900, middle - 24, ["output", f"{block.fusion.out_channels} channels"], "image", 120)
    parts += [sign(*join, "C"), arrow((join[0] + 12, join[1]), fusion.left), arrow(fusion.right, output.left)]
    parts += [fusion.svg(), output.svg()]
    bottom = below
    if block.scale_attention is not None:
        attention = block.scale_attention
        kinds = [words(layer) for layer in (*attention.features, attention.weigh)]
        scale = Box(238, below, ["scale attention", *kinds, "sigmoid"], "attention", 210)
        parts += [scale.svg(), arrow(x.bottom, (x.bottom[0], scale.left[1]), scale.left)]
        parts.append(arrow(scale.right, (times, scale.right[1]), (times, branches[0].right[1] + 12)))
        parts.append(note(times + 8, scale.right[1] + 22, f"{count} weights a pixel,", "start"))
        parts.append(note(times + 8, scale.right[1] + 39, "one for each branch", "start"))
        bottom = scale.y + scale.height + 24
    if block.shape_attention is not None:
        attention = block.shape_attention
        pooled = "mean over the image" if attention.window is None else "mean over a window"
        shape = Box(
            238, bottom, ["shape attention", pooled, words(attention.squeeze), words(attention.weigh), "sigmoid"]
        )
        shape.kind, shape.width = "attention", 210
        parts += [shape.svg(), arrow((x.bottom[0], x.bottom[1]), (x.bottom[0], shape.left[1]), shape.left)]
        parts.append(arrow(shape.right, (times, shape.right[1]), (times, branches[0].right[1] + 12)))
        parts.append(note(times + 8, shape.right[1] + 22, f"{filters} weights an image,", "start"))
        parts.append(note(times + 8, shape.right[1] + 39, "one for each filter", "start"))
        bottom = shape.y + shape.height + 24
    parts += [
        sign(times, box.right[1], "\N{MULTIPLICATION SIGN}") for box in branches
    ]  # drawn on top of the lines from the attentions
    parts.append(
        note(
            20,
            bottom + 16,
            "\N{MULTIPLICATION SIGN}: product with the weights of both attentions. C: concatenation.",
            "start",
        )
    )
    return picture(output.right[0] + 20, bottom + 32, f"The KPAC block of {name}", parts)


def drawings(name: str) -> dict[str, str]:
    """File name -> SVG text, for a registered KPAC network."""
    network = kpac.create_model(name)
    return {"network.svg": draw_network(network, name), "block.svg": draw_block(network.blocks[0], name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--network", default="kpac_2level", choices=("kpac_2level", "kpac_3level", "kpac_dual"))
    options = parser.parse_args()
    for file, text in drawings(options.network).items():
        (options.output / file).write_text(text, encoding="utf-8")
        print(options.output / file)


if __name__ == "__main__":
    main()
