"""The one tree of errors.

    NasError                 anything the user can act on; the command line prints it and exits with status 2
    ├── ConfigError          an argument or option is off (unknown name, number out of range)
    ├── DataError            images, weights or traces that cannot be used
    ├── FormatError          a file that is not what its schema says, or of a version we do not read
    │   └── FrameError       a frame of a hand-over likewise (runtime.wire.codec)
    ├── GraphError           a network that cannot be described, cut or sliced as asked
    ├── NotApplicable        a transform declines a layer; carries the reason
    ├── VerificationError    a compiled library does not compute what its block does (compile.verify)
    ├── TransportError       no answer from the server; drawn in runtime.wire.transports.interface
    └── Busy, Draining, UnknownModel     what a server's engine says no with (runtime.server.interface)

Every message says what is, what must be, and what to do.
"""


class NasError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(NasError):
    """An argument is off."""


class DataError(NasError):
    """Images, weights or a trace cannot be used."""


class FormatError(NasError):
    """A file does not have the form its schema asks for."""


class GraphError(NasError):
    """A network cannot be described, cut or sliced as asked."""


class NotApplicable(NasError):
    """A transform does not apply to a layer, and says why."""


class Remark(UserWarning):
    """Something that the user should know, in one line; the work goes on."""


class BrokenImages(Remark):
    """Some of many images cannot be read and are left out; no error, for the rest goes on."""


def unknown(what: str, name: str, known: object) -> ConfigError:
    """An error for a name that no registry holds; lists the known ones (any iterable of names)."""
    return ConfigError(f"unknown {what} {name!r}: known are {', '.join(sorted(map(str, known)))}")  # type: ignore[call-overload]
