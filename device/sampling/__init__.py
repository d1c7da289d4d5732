"""Sampling: which of a phone's fixes are worth sending.

policies  whether one fix is news, compared with the last one sent
sampler   applies a policy to the stream of fixes, with its heartbeat
"""

from device.sampling.policies import ObservedFix, is_news, moved_m, observed_fix_of, off_by_m
from device.sampling.sampler import Sampler

__all__ = ["ObservedFix", "Sampler", "is_news", "moved_m", "observed_fix_of", "off_by_m"]
