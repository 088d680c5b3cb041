"""A link shaped to a trace: a relay that needs no rights, or network namespaces where there is root."""

from runtime.link.namespace import NamespaceLink
from runtime.link.relay import Relay
from runtime.link.shape import Faults, Shape

__all__ = ["Faults", "NamespaceLink", "Relay", "Shape"]
