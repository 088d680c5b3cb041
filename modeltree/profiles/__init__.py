"""Device profiles: what an operator costs on a device, in time.

Latency is linear in MACs with one coefficient per operator kind [Wang 2020, sec. V-B], plus a cost per layer, per
byte of weights and per output element for what MACs do not see. A profile is one JSON file; those shipped lie beside
this module, and `benchmarks/fit_profiles.py` and `benchmarks/measure_cpu_profile.py` write them; `nas profile` measures
others.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modeltree.energy import Energy
from modeltree.errors import ConfigError, DataError, FormatError, unknown
from modeltree.files import write_bytes
from modeltree.layers import KINDS, LayerSpec
from modeltree.units import ms_from_ns, ms_from_us

PROFILES = (
    "cloud_cpu", "cloud_gpu", "phone", "pi3_ncnn", "pi3_ncnn_1t", "pi4", "pi4_ncnn", "pi4_ncnn_1t", "pi5_ncnn",
    "pi5_ncnn_1t", "sdm660_ncnn", "sdm660_ncnn_1t", "sm8150_ncnn", "sm8150_ncnn_1t", "tx2", "zero2w_ncnn",
    "zero2w_ncnn_1t",
)  # fmt: skip
"""Names of the shipped profiles."""

PROFILE_VERSION = 1
"""The version of the file format that we read and write."""

ELEMENT_KINDS = ("pool", "elementwise", "move")
MAC_KINDS = tuple(kind for kind in KINDS if kind not in ELEMENT_KINDS)

WEBP_ENCODE, WEBP_DECODE = 5.0, 2.0
"""Times that JPEG takes, as measured on x86-64 with Pillow on photographs at 224."""

_FOLDER = Path(__file__).parent


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured latency that a profile was fitted to."""

    network: str
    latency_ms: float
    note: str = ""


class FormatPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What layers with weights cost in a number format; fields as the profile's own.

    ns_per_weight_byte, ns_per_map_byte : per byte of float32, as there, however the format holds it.

    Raises
    ------
    ConfigError : a coefficient is missing, unknown, negative or not finite.
    """

    ns_per_mac: dict[str, float]
    overhead_us: float
    ns_per_weight_byte: float = 0.0
    ns_per_map_byte: float = 0.0
    strided_ratio: float = 1.0

    def __post_init__(self) -> None:
        if set(self.ns_per_mac) != set(MAC_KINDS):
            raise ConfigError(f"ns_per_mac has {sorted(self.ns_per_mac)}: it must have exactly {sorted(MAC_KINDS)}")
        names = ("overhead_us", "ns_per_weight_byte", "ns_per_map_byte", "strided_ratio")
        scalars = {name: getattr(self, name) for name in names}
        for what, value in (self.ns_per_mac | scalars).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"coefficient {what} is {value}: it must be finite and at least 0")


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one image costs on one device, batch 1, 32-bit floats.

    origin : where the coefficients come from, in words: measured, fitted or estimated, and by whom.
    fitted_to : the measurements behind them.
    ns_per_mac : for each of `MAC_KINDS`. ns_per_element : for each of `ELEMENT_KINDS`, per number in the output.
    overhead_us : once per layer with weights (launch, batch normalisation that is not folded, cache misses).
    jpeg_ns_per_pixel : to encode or decode one RGB pixel.
    ns_per_weight_byte : beside the MACs, for reading weights; 0 in profiles that were made without it.
    webp_ns_per_pixel : to encode one RGB pixel as WebP; 0: not measured, then it is `WEBP_ENCODE` times JPEG's.
    ns_per_map_byte : of what a layer with weights reads and writes beside them, as float32; 0 in profiles without it.
    strided_ratio : what a MAC of a 3x3 convolution with stride or groups costs, over that of one without: fast kernels
        (Winograd) serve the latter alone.
    codec_ns_per_number : to encode (device) or decode (cloud) one number of a quantised hand-over; 0: not known.
    frame_ns_per_byte : to pack a byte of a hand-over that is not coded; 0: not known.
    call_ms : once for every block that is run (device) or asked for (cloud), beside its layers; 0: not known.
    energy : what computing and sending take from its battery, above idle; None where nobody asked.
    number_formats : prices in other formats than f32, by their names in `nas compile --weights`.
    lanes : float32 numbers in a vector of what was measured; 0: not known, or of several.

    Raises
    ------
    ConfigError : a coefficient is missing, unknown, negative or not finite, or the version is not ours.
    """

    name: str
    description: str
    origin: str
    fitted_to: tuple[Measurement, ...]
    ns_per_mac: dict[str, float]
    ns_per_element: dict[str, float]
    overhead_us: float
    jpeg_ns_per_pixel: float
    ns_per_weight_byte: float = 0.0
    codec_ns_per_number: float = 0.0
    webp_ns_per_pixel: float = 0.0
    ns_per_map_byte: float = 0.0
    strided_ratio: float = 1.0
    frame_ns_per_byte: float = 0.0
    call_ms: float = 0.0
    energy: Energy | None = None
    number_formats: dict[str, FormatPrice] = {}
    lanes: int = 0
    version: int = PROFILE_VERSION

    def __post_init__(self) -> None:
        if self.version != PROFILE_VERSION:
            raise ConfigError(f"version is {self.version}: we read {PROFILE_VERSION}; measure the device again")
        for field, kinds in (("ns_per_mac", MAC_KINDS), ("ns_per_element", ELEMENT_KINDS)):
            if set(getattr(self, field)) != set(kinds):
                raise ConfigError(f"{field} has {sorted(getattr(self, field))}: it must have exactly {sorted(kinds)}")
        scalars = {
            "overhead_us": self.overhead_us,
            "jpeg_ns_per_pixel": self.jpeg_ns_per_pixel,
            "ns_per_weight_byte": self.ns_per_weight_byte,
            "codec_ns_per_number": self.codec_ns_per_number,
            "webp_ns_per_pixel": self.webp_ns_per_pixel,
            "ns_per_map_byte": self.ns_per_map_byte,
            "strided_ratio": self.strided_ratio,
            "frame_ns_per_byte": self.frame_ns_per_byte,
            "call_ms": self.call_ms,
            "lanes": self.lanes,
        }
        for what, value in (self.ns_per_mac | self.ns_per_element | scalars).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"coefficient {what} is {value}: it must be finite and at least 0")

    def layer_ms(self, spec: LayerSpec, number_format: str = "f32") -> float:
        """Time of one layer. Counts dense MACs: without sparse kernels a zero costs as much as any other weight."""
        if spec.kind in self.ns_per_element:
            return ms_from_ns(self.ns_per_element[spec.kind] * spec.elements)
        price: DeviceProfile | FormatPrice = self
        if number_format != "f32":
            if number_format not in self.number_formats:
                raise unknown(f"number format of profile {self.name}", number_format, ["f32", *self.number_formats])
            price = self.number_formats[number_format]
        strided = spec.kind == "conv3x3" and not spec.plain
        work_ns = (price.strided_ratio if strided else 1.0) * price.ns_per_mac[spec.kind] * spec.dense_macs
        read_ns = price.ns_per_weight_byte * spec.weight_bytes + price.ns_per_map_byte * spec.map_bytes
        return ms_from_ns(work_ns + read_ns) + ms_from_us(price.overhead_us)

    def compute_ms(self, layers: Iterable[LayerSpec], number_format: str = "f32") -> float:
        """Time of layers run one after the other.

        Raises
        ------
        ConfigError : the profile has no prices for the format.
        """
        return math.fsum(self.layer_ms(layer, number_format) for layer in layers)

    def jpeg_ms(self, height: int, width: int) -> float:
        """Time to encode (or decode) an RGB image of that size as JPEG."""
        return ms_from_ns(self.jpeg_ns_per_pixel * height * width)

    def encode_ms(self, kind: str, pixels: int) -> float:
        """Time to code so many RGB pixels as `jpeg` or `webp`."""
        webp_ns = self.webp_ns_per_pixel or WEBP_ENCODE * self.jpeg_ns_per_pixel
        return ms_from_ns((webp_ns if kind == "webp" else self.jpeg_ns_per_pixel) * pixels)

    def decode_ms(self, kind: str, pixels: int) -> float:
        """Time to decode so many."""
        return ms_from_ns((WEBP_DECODE if kind == "webp" else 1.0) * self.jpeg_ns_per_pixel * pixels)

    def frame_ms(self, size_bytes: int) -> float:
        """Time to pack so many bytes of a hand-over as they are."""
        return ms_from_ns(self.frame_ns_per_byte * size_bytes)

    def codec_ms(self, numbers: int) -> float:
        """Time to encode (or decode) a quantised hand-over of so many numbers."""
        return ms_from_ns(self.codec_ns_per_number * numbers)


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """A shipped profile by name, or a JSON file (a path that ends in `.json` or names a folder).

    Raises
    ------
    ConfigError : an unknown name. DataError : the file cannot be read. FormatError : it is not a profile.
    """
    text = str(name_or_path)
    if text in PROFILES:
        path = _FOLDER / f"{text}.json"
    elif text.endswith(".json") or Path(text).name != text:
        path = Path(text)
    else:
        raise unknown("device profile", text, PROFILES)
    try:
        return msgspec.json.decode(path.read_bytes(), type=DeviceProfile)
    except OSError as error:
        raise DataError(f"cannot read profile {path}: {error.strerror or error}: check the path") from error
    except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not a device profile: {error}: mend it or measure the device again") from error


def save_profile(profile: DeviceProfile, path: str | Path) -> None:
    """Write a profile as indented JSON, whole or not at all."""
    write_bytes(Path(path), msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
