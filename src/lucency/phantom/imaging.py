"""From shapes in centimetres to a film: the frame, the masks and the exposure of a phantom.

Letters: `h w` pixels of the film, `p` points. The body's frame has x in cm from the midline towards
the patient's left (the film's right), y in cm downwards from the apices of the lungs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Real, UInt8

CENTRE = 13.5  # y of the centre of the film, cm
FRACTION = 4  # binary places of OpenCV's drawing coordinates
WATER = 0.2  # attenuation of water at about 110 kVp, 1/cm

Map = Float32[np.ndarray, "h w"]  # a number a pixel: a share, or a thickness in cm of water
Points = Real[np.ndarray, "... 2"]  # x and y, in cm
Ends = Real[np.ndarray, "*n 2"]  # points of several curves
Outline = Float[np.ndarray, "_ 2"]  # of a shape, or a line
Grey = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the body lies on a square film of `size` pixels; `width` and `height` are in cm.

    Like NIH's, a film that was not square is squeezed into the square.
    """

    size: int
    width: float
    height: float
    angle: float = 0.0  # radians
    x: float = 0.0  # cm, of the body's midline from the film's
    y: float = 0.0
    magnification: float = 1.0

    @property
    def density(self) -> float:
        """Pixels per centimetre of the body, the mean of both directions."""
        return self.size * self.magnification * (1 / self.width + 1 / self.height) / 2

    def at(self, size: int) -> Frame:
        """The same view of the body on a film of another size."""
        return replace(self, size=size)

    def project(self, point: Points) -> Float[np.ndarray, "... 2"]:
        """Pixel coordinates (column, row) of points of the body in cm."""
        x, y = point[..., 0], point[..., 1] - CENTRE
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        across = self.magnification * (x * cos - y * sin) + self.x
        down = self.magnification * (x * sin + y * cos) + self.y
        pixel = [(across / self.width + 0.5) * self.size, (down / self.height + 0.5) * self.size]
        return np.stack(pixel, axis=-1)

    def ink(self, point: Points) -> np.ndarray:
        """Points as OpenCV's fixed-point integers."""
        return np.rint((self.project(point) - 0.5) * 2**FRACTION).astype(np.int32)

    def fill(self, *outlines: Points, soft: float = 0.0) -> Map:
        """The share 0..1 of each pixel that the outlines cover, its edge softened by `soft` cm."""
        small = self._reduced(soft)
        mask = np.zeros((small.size, small.size), np.uint8)
        for outline in outlines:
            cv2.fillPoly(mask, [small.ink(outline)], 255, cv2.LINE_AA, FRACTION)
        return enlarge(small.soften(mask.astype(np.float32) / 255, soft=soft), self.size)

    def stroke(self, path: Points, *, width: float, soft: float = 0.0, closed: bool = False) -> Map:
        """Lines of `width` cm; one thinner than a pixel is as faint as it is thin."""
        mask = np.zeros((self.size, self.size), np.uint8)
        self.trace(mask, path, width=width, closed=closed)
        return self.soften(mask.astype(np.float32) / 255, soft=soft)

    def trace(
        self, mask: Grey, path: Points, *, width: float, value: float = 1.0, closed: bool = False
    ) -> None:
        """Draw lines into `mask` over what it holds."""
        thick = width * self.density
        pixels = max(1, round(thick))
        colour = int(255 * value * min(1.0, thick / pixels))
        lines = list(self.ink(path.reshape(-1, *path.shape[-2:])))
        cv2.polylines(mask, lines, closed, colour, pixels, cv2.LINE_AA, FRACTION)

    def soften(self, thickness: Map, *, soft: float) -> Map:
        """A map blurred by a Gaussian of `soft` cm; wide ones are computed on a smaller grid."""
        sigma = soft * self.density
        if sigma < 0.3:
            return thickness
        small = self._reduced(soft)
        if small.size == self.size:
            reach = 2 * round(3 * sigma) + 1
            return cv2.GaussianBlur(thickness, (reach, reach), sigma)
        shrunk = cv2.resize(thickness, (small.size, small.size), interpolation=cv2.INTER_AREA)
        return enlarge(small.soften(shrunk, soft=soft), self.size)

    def clouds(self, rng: np.random.Generator, *, grain: float) -> Map:
        """A random texture of mean 0 and deviation about 1 whose blobs measure `grain` cm."""
        count = max(4, round(self.width / grain))
        coarse = rng.standard_normal((count, count), dtype=np.float32)
        return cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC) * 1.2

    def _reduced(self, soft: float) -> Frame:
        """A smaller frame on which a blur of `soft` cm is still more than a pixel wide."""
        halvings = int(np.log2(max(soft * self.density / 1.5, 1.0)))
        return self.at(max(self.size >> halvings, 16))


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How a film was exposed and displayed."""

    dose: float = 1.0  # relative to a well-exposed PA film
    scatter: float = 0.25  # scattered share of the mean primary exposure
    centre: float = 2.45  # optical path that is displayed mid-grey
    contrast: float = 62.0  # grey levels a unit of optical path
    blur: float = 0.07  # cm


def smooth(point: Real[np.ndarray, "n 2"], *, steps: int = 6, closed: bool = True) -> Outline:
    """A Catmull-Rom curve through the points, `steps` points a span; doubled points are corners."""
    around = np.vstack([point[-1:], point, point[:2]] if closed else [point[:1], point, point[-1:]])
    a, b, c, d = (around[k : len(around) - 3 + k, None] for k in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve.reshape(-1, 2)


def bend(start: Ends, control: Ends, end: Ends, *, steps: int = 14) -> Float[np.ndarray, "*n p 2"]:
    """Quadratic Bezier curves from `start` to `end`."""
    t = np.linspace(0, 1, steps)[:, None]
    a, b, c = start[..., None, :], control[..., None, :], end[..., None, :]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def disc(centre: Real[np.ndarray, 2], across: float, down: float = 0.0) -> Outline:
    """An ellipse about `centre` with half-axes in cm; a circle where `down` is 0."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return centre + np.stack([across * np.cos(angle), (down or across) * np.sin(angle)], axis=-1)


def enlarge(thickness: Float32[np.ndarray, "_ _"], size: int) -> Map:
    """A map resized to `size` × `size` pixels, linearly."""
    if thickness.shape[0] == size:
        return thickness
    return cv2.resize(thickness, (size, size), interpolation=cv2.INTER_LINEAR)


def expose(frame: Frame, water: Map, exposure: Exposure, *, rng: np.random.Generator) -> Grey:
    """The displayed film behind `water` cm of water: scatter, blur, quantum noise, display curve.

    Primary exposure falls as exp(-0.2 water); scatter is its wide blur; the noise of the optical
    path goes as one over the root of what arrives. Dense parts are bright, as films are displayed.
    """
    primary = cv2.exp(frame.soften(water, soft=exposure.blur) * np.float32(-WATER))
    scattered = frame.soften(np.minimum(primary, 0.4), soft=3.0)
    path = cv2.log(cv2.scaleAdd(scattered, exposure.scatter, primary))  # of the opposite sign
    mottle = 0.0035 * frame.density / 12 / np.sqrt(exposure.dose)
    grain = cv2.multiply(_grain(rng, frame.size), cv2.exp(path * np.float32(-0.5)), scale=mottle)
    return _displayed(cv2.subtract(grain, path), exposure)


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Nearly normal noise of mean 0 and deviation 1: the sum of three uniform bytes a pixel."""
    byte = np.frombuffer(rng.bytes(3 * size * size), np.uint8).reshape(3, size, size)
    total = cv2.add(byte[0], byte[1], dtype=cv2.CV_16U)
    total = cv2.add(total, byte[2], dtype=cv2.CV_16U)
    return cv2.addWeighted(total, 1 / 128, total, 0, -382.5 / 128, dtype=cv2.CV_32F)


def _displayed(path: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Grey levels: linear about the middle with soft shoulders, x / sqrt(1 + x^2)."""
    level = (path - np.float32(exposure.centre)) * np.float32(exposure.contrast / 115)
    root = cv2.sqrt(cv2.multiply(level, level) + np.float32(1))
    return cv2.convertScaleAbs(cv2.divide(level, root), alpha=127.5, beta=127.5)
