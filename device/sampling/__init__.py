"""Which of a phone's fixes go out: pure policies over a stream of fixes, and who applies them.

policies  one fix against the last that went out: is it news?
reporter  a driver's stream: the policy, the heartbeat, and what goes along
"""

from device.sampling.policies import ObservedFix, is_news, moved_m, observed_fix_of, off_by_m
from device.sampling.sampler import Sampler

__all__ = ["ObservedFix", "Sampler", "is_news", "moved_m", "observed_fix_of", "off_by_m"]
