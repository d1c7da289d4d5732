"""Which of a phone's fixes go out: pure policies over a stream of fixes, and who applies them.

policies  one fix against the last that went out: is it news?
reporter  a driver's stream: the policy, the heartbeat, and what goes along
"""

from device.sampling.policies import Seen, is_news, moved_m, off_by_m, seen_of
from device.sampling.sampler import Reporter

__all__ = ["Reporter", "Seen", "is_news", "moved_m", "off_by_m", "seen_of"]
