"""Ways to end, or to go on, at a place: hand-overs, plain and coded, and early exits."""

import math
from collections.abc import Collection, Sequence

from modeltree.image_codes import BASELINE, image_code
from nas.compression.predictor import Predictor
from nas.exits.catalogue import KnownCode, KnownEndings, KnownPicture
from nas.treesearch.options.scenario import Scenario
from nas.treesearch.problem import CONFIDENT, EXIT, HAND, ON, Ending
from transforms import Network


def worth_sending(pictures: Sequence[Ending]) -> list[Ending]:
    """Ways to send the picture that no other one beats in time on both ends, in bytes and in accuracy.

    What one would try first stays in any case, for it is compared with.
    """

    def beats(one: Ending, other: Ending) -> bool:
        pairs = [(getattr(one, name), getattr(other, name)) for name in ("device_ms", "cloud_ms", "bytes", "damage")]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [one for one in pictures if one.picture == BASELINE or not any(beats(rival, one) for rival in pictures)]


class EndingOptions:
    """The endings of every place.

    cuts : places at which the network is sliced: there alone samples may leave by confidence.
    known : exits and codes, trained and measured.
    """

    def __init__(
        self, network: Network, predictor: Predictor, scenario: Scenario, cuts: Collection[int], known: KnownEndings
    ) -> None:
        self._network, self._predictor, self._scenario = network, predictor, scenario
        self._cuts, self._known = cuts, known

    def at(self, place: int) -> tuple[Ending, ...]:
        """Ways in which a path may end at a place: a plain hand-over, coded ones, an exit."""
        spec, scenario = self._network.spec, self._scenario
        rest = spec.layers(place, len(spec.segments))
        cloud_ms = scenario.cloud.call_ms + scenario.cloud.compute_ms(rest)
        rest_ms = scenario.device.call_ms + scenario.device.compute_ms(rest)
        plain = spec.places[place].bytes
        packing_ms = scenario.device.frame_ms(plain)
        endings = [
            Ending(
                kind=HAND, device_ms=packing_ms, encode_ms=packing_ms,
                transfer_ms=scenario.transfer_ms(plain, rest_ms), cloud_ms=cloud_ms, bytes=plain,
            )
        ]  # fmt: skip
        if place == 0:
            endings += worth_sending([self._pictured(picture, cloud_ms, rest_ms) for picture in self._known.pictures])
        endings += [self._coded(code, cloud_ms, rest_ms) for code in self._known.codes_at(place)]
        if (leaves := self._known.exit_at(place)) is not None:
            endings.append(
                Ending(
                    kind=EXIT,
                    exit=leaves.exit,
                    device_ms=scenario.device.compute_ms(leaves.layers),
                    transfer_ms=scenario.no_transfer_ms,
                    damage=self._predictor.damage_of(leaves.drop),
                )
            )
        return tuple(endings)

    def behind(self, place: int) -> tuple[Ending, ...]:
        """Ways to go on behind a block: all samples, or those alone of which the exit there is not sure."""
        scenario = self._scenario
        endings = [Ending(kind=ON, transfer_ms=scenario.no_transfer_ms)]
        leaves = self._known.exit_at(place)
        if leaves is not None and leaves.rate > 0 and place in self._cuts:
            endings.append(
                Ending(
                    kind=CONFIDENT,
                    exit=leaves.exit,
                    device_ms=scenario.device.call_ms + scenario.device.compute_ms(leaves.layers),
                    transfer_ms=scenario.no_transfer_ms,
                    rate=leaves.rate,
                    loss=leaves.loss,
                )
            )
        return tuple(endings)

    def _pictured(self, known: KnownPicture, cloud_ms: float, rest_ms: float) -> Ending:
        device, cloud, code = self._scenario.device, self._scenario.cloud, image_code(known.code)
        pixels = round(known.pixels)
        coding_ms = 0.0 if code.kind == "came" else device.encode_ms(code.kind, pixels)
        return Ending(
            kind=HAND,
            device_ms=coding_ms,
            encode_ms=coding_ms,
            transfer_ms=self._scenario.transfer_ms(round(known.bytes), rest_ms),
            cloud_ms=cloud_ms + cloud.decode_ms(code.kind, pixels),
            damage=self._predictor.damage_of(known.drop),
            bytes=round(known.bytes),
            picture=known.code,
        )

    def _coded(self, code: KnownCode, cloud_ms: float, rest_ms: float) -> Ending:
        device, cloud = self._scenario.device, self._scenario.cloud
        numbers = math.prod(code.shape)
        return Ending(
            kind=HAND,
            device_ms=device.compute_ms(code.encoder) + device.codec_ms(numbers),
            encode_ms=device.codec_ms(numbers),
            transfer_ms=self._scenario.transfer_ms(round(code.bytes), rest_ms),
            cloud_ms=cloud_ms + cloud.compute_ms(code.decoder) + cloud.codec_ms(numbers),
            damage=self._predictor.damage_of(code.drop),
            bits=code.bits,
            bytes=round(code.bytes),
            kept=code.kept,
        )
