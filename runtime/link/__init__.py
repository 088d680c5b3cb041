"""A link made slow, as a trace says: a relay that needs no rights, or network namespaces where there is root.

Also cut, stalled and damaged (`Faults`), and a real link recorded as a trace.
"""

from runtime.link.namespace import NamespaceLink
from runtime.link.relay import Relay
from runtime.link.shape import Faults, Shape

__all__ = ["Faults", "NamespaceLink", "Relay", "Shape"]
