"""What a device waits for: PUBACKs from the broker, and acks from the platform."""

from __future__ import annotations

MAX_IN_FLIGHT = 16  # below Mosquitto's default max_inflight_messages, 20
PUBACK_TIMEOUT_S = (
    20.0  # below the keepalive: a connection that drops all packets has no other sign
)
ACK_TIMEOUT_PERIODS = 3
MAX_DOUBLINGS = 5


class InFlightWindow:
    """The QoS 1 messages without a PUBACK, MAX_IN_FLIGHT at most."""

    def __init__(self) -> None:
        self._sent_at_s: dict[int, float] = {}  # by message id, oldest first

    def __len__(self) -> int:
        return len(self._sent_at_s)

    @property
    def is_full(self) -> bool:
        """Whether the next message has to wait for a PUBACK."""
        return len(self._sent_at_s) >= MAX_IN_FLIGHT

    def add(self, message_id: int, now_s: float) -> None:
        """Note a sent message."""
        self._sent_at_s[message_id] = now_s

    def remove(self, message_id: int) -> bool:
        """Note a PUBACK. Returns whether its message was in flight."""
        return self._sent_at_s.pop(message_id, None) is not None

    def is_overdue(self, now_s: float) -> bool:
        """Whether the oldest PUBACK is overdue: the connection is dead."""
        oldest_s = next(iter(self._sent_at_s.values()), now_s)
        return now_s - oldest_s > PUBACK_TIMEOUT_S

    def clear(self) -> None:
        """Forget all messages: the connection is closed."""
        self._sent_at_s.clear()


class AckTimeout:
    """Expires when fixes wait and no ack with news comes for three ack periods.

    Each timeout in a row doubles the next one. `was_silent` tells whether no ack at all came before
    the last expiry: the platform may stand still, and its queues must not fill with copies.
    """

    def __init__(self, ack_every_s: float) -> None:
        self.base_s = ACK_TIMEOUT_PERIODS * ack_every_s
        self.was_silent = False
        self._has_heard = False  # an ack without news, since the timeout runs
        self._running_since_s: float | None = None
        self._doublings = 0

    @property
    def is_running(self) -> bool:
        """Whether a sent fix waits for an ack."""
        return self._running_since_s is not None

    def start(self, now_s: float) -> None:
        """Start unless running: a fix was sent."""
        if self._running_since_s is None:
            self._run_from(now_s)

    def stop(self) -> None:
        """Stop: the connection is new, and nothing was sent on it."""
        self._running_since_s = None

    def on_ack(self, now_s: float, *, covers_all: bool, is_new: bool) -> None:
        """Stop if the ack covers all sent fixes; restart on an ack that differs from the last."""
        self._doublings = 0
        if covers_all:
            self._running_since_s = None
        elif is_new or self._running_since_s is None:
            self._run_from(now_s)
        else:
            self._has_heard = True

    def has_expired(self, now_s: float) -> bool:
        """Whether the timeout has expired. If so, it starts again, with twice the duration."""
        if self._running_since_s is None:
            return False
        timeout_s = self.base_s * float(2 ** min(self._doublings, MAX_DOUBLINGS))
        if now_s - self._running_since_s <= timeout_s:
            return False
        self.was_silent = not self._has_heard
        self._run_from(now_s)
        self._doublings += 1
        return True

    def _run_from(self, now_s: float) -> None:
        self._running_since_s, self._has_heard = now_s, False
