"""The looks of ``scenes``: 8 objects and 4 things to hide them in, each a stack of shapes within [-1, 1]².

A look maps coordinates (u right, v down) to layers ``(signed distance, tone)``, painted in order; the
first layer is the silhouette, which also gets an outline. Tones are names of the object's colours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from pipelines.corpora.synthetic.shapes import bar, box, circle, convex, ellipse, ring, union

Layers = list[tuple[np.ndarray, str]]
Look = Callable[[np.ndarray, np.ndarray], Layers]


def bell(u: np.ndarray, v: np.ndarray) -> Layers:
    """Dome with a flared rim, a knob on top and a clapper below."""
    dome = np.maximum(ellipse(u, v, 0, 0.1, 0.58, 0.85), v - 0.45)
    flare = convex(u, v, [(-0.55, 0.1), (0.55, 0.1), (0.95, 0.6), (-0.95, 0.6)])
    knob, clapper = circle(u, v, 0, -0.82, 0.16), circle(u, v, 0, 0.78, 0.2)
    return [
        (union(dome, flare, knob, clapper), "body"),
        (clapper, "dark"),
        (box(u, v, 0, 0.5, 0.88, 0.07), "accent"),
        (ellipse(u, v, -0.25, -0.15, 0.1, 0.35), "light"),
    ]


def drum(u: np.ndarray, v: np.ndarray) -> Layers:
    """Cylinder with a light skin and zigzag cords."""
    side = union(box(u, v, 0, 0.1, 0.85, 0.5), ellipse(u, v, 0, 0.6, 0.85, 0.28))
    skin = ellipse(u, v, 0, -0.42, 0.85, 0.3)
    tops, bottoms = (-0.85, -0.28, 0.28, 0.85), (-0.57, 0.0, 0.57)
    corners = [(x, -0.1 if i % 2 == 0 else 0.65) for i, x in enumerate(sorted(tops + bottoms))]
    cords = [bar(u, v, a, b, 0.05) for a, b in itertools.pairwise(corners)]
    return [
        (union(side, skin), "body"),
        (union(*cords), "accent"),
        (skin, "light"),
        (ring(skin, 0.05), "dark"),
    ]


def flute(u: np.ndarray, v: np.ndarray) -> Layers:
    """Long slanted tube with a row of holes."""
    tube = bar(u, v, (-0.85, 0.5), (0.85, -0.5), 0.2)
    holes = [circle(u, v, x, -x * 0.5 / 0.85, 0.085) for x in (-0.5, -0.25, 0.0, 0.25, 0.6)]
    end = np.maximum(tube, 0.72 - u * 0.862 + v * 0.507)
    return [(tube, "body"), (end, "accent"), (union(*holes), "dark")]


def guitar(u: np.ndarray, v: np.ndarray) -> Layers:
    """Figure of eight with a round hole and a long neck."""
    body = union(circle(u, v, 0, 0.5, 0.5), circle(u, v, 0, -0.05, 0.36))
    neck = union(box(u, v, 0, -0.55, 0.1, 0.45), box(u, v, 0, -0.88, 0.2, 0.12))
    bridge = box(u, v, 0, 0.7, 0.24, 0.06)
    return [
        (union(body, neck), "body"),
        (neck, "accent"),
        (circle(u, v, 0, 0.22, 0.19), "dark"),
        (bridge, "dark"),
        (box(u, v, 0, -0.05, 0.025, 0.75), "light"),
    ]


def horn(u: np.ndarray, v: np.ndarray) -> Layers:
    """Tube with a loop that opens into a wide funnel to the right."""
    tube = box(u, v, -0.3, -0.1, 0.65, 0.1)
    funnel = convex(u, v, [(0.2, -0.2), (0.95, -0.75), (0.95, 0.55), (0.2, 0.0)])
    loop = ring(ellipse(u, v, -0.25, 0.2, 0.42, 0.3), 0.09)
    return [
        (union(tube, funnel, loop), "body"),
        (ellipse(u, v, 0.93, -0.1, 0.13, 0.66), "accent"),
        (box(u, v, -0.92, -0.1, 0.06, 0.2), "dark"),
    ]


def cat(u: np.ndarray, v: np.ndarray) -> Layers:
    """Round head with two pointed ears, light eyes and whiskers."""
    ears = union(
        convex(u, v, [(-0.75, -0.9), (-0.1, -0.4), (-0.65, 0.1)]),
        convex(u, v, [(0.75, -0.9), (0.65, 0.1), (0.1, -0.4)]),
    )
    whiskers = [bar(u, v, (0.2 * s, 0.4), (0.95 * s, 0.25 + d), 0.03) for s in (-1, 1) for d in (0, 0.3)]
    eyes = [circle(u, v, s * 0.3, 0.02, 0.17) for s in (-1, 1)]
    pupils = [ellipse(u, v, s * 0.3, 0.02, 0.05, 0.15) for s in (-1, 1)]
    return [
        (union(ellipse(u, v, 0, 0.2, 0.78, 0.68), ears), "body"),
        (union(*whiskers), "dark"),
        (union(*eyes), "light"),
        (union(*pupils), "dark"),
        (convex(u, v, [(-0.13, 0.27), (0.13, 0.27), (0, 0.43)]), "accent"),
    ]


def bird(u: np.ndarray, v: np.ndarray) -> Layers:
    """Oval body with a wing, a tail, thin legs and a beak to the right."""
    body = union(ellipse(u, v, -0.1, 0.15, 0.58, 0.4), circle(u, v, 0.4, -0.4, 0.32))
    tail = convex(u, v, [(-1.0, -0.35), (-0.4, 0.05), (-0.5, 0.3)])
    beak = convex(u, v, [(0.62, -0.58), (1.0, -0.38), (0.62, -0.24)])
    legs = union(*(bar(u, v, (x, 0.45), (x + 0.05, 0.92), 0.05) for x in (-0.2, 0.1)))
    return [
        (union(body, tail, beak, legs), "body"),
        (legs, "dark"),
        (beak, "accent"),
        (ellipse(u, v, -0.2, 0.12, 0.33, 0.2), "accent"),
        (circle(u, v, 0.48, -0.45, 0.1), "light"),
        (circle(u, v, 0.5, -0.45, 0.05), "dark"),
    ]


def frog(u: np.ndarray, v: np.ndarray) -> Layers:
    """Flat wide face with two eyes on top and a wide mouth."""
    bumps = union(*(circle(u, v, s * 0.5, -0.35, 0.3) for s in (-1, 1)))
    eyes = union(*(circle(u, v, s * 0.5, -0.38, 0.2) for s in (-1, 1)))
    pupils = union(*(box(u, v, s * 0.5, -0.38, 0.14, 0.05) for s in (-1, 1)))
    mouth = np.maximum(ring(ellipse(u, v, 0, 0.1, 0.7, 0.4), 0.05), 0.15 - v)
    spots = union(*(circle(u, v, s * 0.25, 0.05, 0.08) for s in (-1, 1)))
    face = union(ellipse(u, v, 0, 0.25, 0.98, 0.55), bumps)
    return [(face, "body"), (eyes, "light"), (union(pupils, spots), "dark"), (mouth, "accent")]


def crate(u: np.ndarray, v: np.ndarray) -> Layers:
    """Square of planks with a frame and a diagonal brace."""
    square = box(u, v, 0, 0, 0.85, 0.85)
    gaps = np.maximum(np.abs((v + 0.14) % 0.28 - 0.14) - 0.025, square)
    frame = np.maximum(ring(square, 0.2), square)
    brace = np.maximum(bar(u, v, (-0.8, 0.8), (0.8, -0.8), 0.12), square)
    return [(square, "body"), (gaps, "dark"), (union(brace, frame), "accent"), (ring(frame, 0.02), "dark")]


def sack(u: np.ndarray, v: np.ndarray) -> Layers:
    """Fat drop with a tied neck and a patch."""
    bag = ellipse(u, v, 0, 0.32, 0.8, 0.62)
    neck = convex(u, v, [(-0.5, -0.95), (0.5, -0.95), (0.15, -0.5), (-0.15, -0.5)])
    throat = convex(u, v, [(-0.18, -0.6), (0.18, -0.6), (0.5, 0.0), (-0.5, 0.0)])
    patch = box(u, v, 0.22, 0.42, 0.22, 0.22)
    return [
        (union(bag, neck, throat), "body"),
        (box(u, v, 0, -0.52, 0.26, 0.08), "dark"),
        (patch, "accent"),
        (ring(patch, 0.03), "dark"),
    ]


def tent(u: np.ndarray, v: np.ndarray) -> Layers:
    """Triangle with upright stripes, a dark door and a flag."""
    canvas = convex(u, v, [(0, -0.7), (0.95, 0.85), (-0.95, 0.85)])
    stripes = np.maximum(np.abs((u + 0.2) % 0.4 - 0.2) - 0.09, canvas)
    flag = convex(u, v, [(0, -1.0), (0.4, -0.85), (0, -0.68)])
    door = convex(u, v, [(0, 0.1), (0.28, 0.85), (-0.28, 0.85)])
    return [(union(canvas, flag), "body"), (stripes, "accent"), (flag, "light"), (door, "dark")]


def basket(u: np.ndarray, v: np.ndarray) -> Layers:
    """Bowl of a chequered weave under a round handle."""
    bowl = convex(u, v, [(-0.95, 0.0), (0.95, 0.0), (0.6, 0.85), (-0.6, 0.85)])
    handle = np.maximum(ring(ellipse(u, v, 0, 0.0, 0.7, 0.85), 0.08), v - 0.05)
    cell = np.sin(u * np.pi / 0.24) * np.sin(v * np.pi / 0.21 + 0.6)
    weave = np.maximum(-cell * 0.1, bowl)
    rim = box(u, v, 0, 0.04, 0.98, 0.09)
    return [(union(bowl, handle, rim), "body"), (weave, "accent"), (rim, "dark")]


LOOKS: dict[str, Look] = {
    look.__name__: look for look in (bell, drum, flute, guitar, horn, cat, bird, frog, crate, sack, tent, basket)
}
# Each look's usual hue (0 red, 1/3 green, 2/3 blue); single clips stray from it far enough to meet the next.
HUES = {
    look: place / len(LOOKS)
    for place, look in enumerate(
        ("drum", "guitar", "bell", "crate", "frog", "sack", "flute", "bird", "tent", "horn", "cat", "basket")
    )
}
