"""Measuring the link: readings of hand-overs in, an estimate with age and confidence out; probes when it is idle."""

from runtime.bandwidth.estimator import Estimate, Estimator
from runtime.bandwidth.probing import ProbePolicy, longer_probe, probe_due
from runtime.bandwidth.reading import Reading, RoundTrip
from runtime.bandwidth.rules import RULES

__all__ = ["RULES", "Estimate", "Estimator", "ProbePolicy", "Reading", "RoundTrip", "longer_probe", "probe_due"]
