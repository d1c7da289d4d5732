"""One batch of phone apps' messages: records of phone-pos to rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from doorstep.errors import MalformedFix
from doorstep.mqtt_topics import phone_topic_of
from doorstep.phones import Ignored, decode_owntracks_message, keepable
from doorstep.store.phones import HeardOf
from doorstep.store.records import row_of
from driver_events.batch import Batch, Record, Refusal, driver_id_of, instant_of_ms


@dataclass(slots=True)
class PhoneBatch:
    """A batch, the drivers that were heard of, and the messages that are no positions."""

    batch: Batch
    heard: dict[str, HeardOf] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)

    def note(self, message: HeardOf) -> None:
        """Add a message: the newest mode counts."""
        before = self.heard.get(message.driver_id, message)
        self.heard[message.driver_id] = HeardOf(
            message.driver_id,
            before.mode if message.mode is None else message.mode,
            before.has_position or message.has_position,
        )


def decode_phones(records: Sequence[Record]) -> PhoneBatch:
    """Decode records of OwnTracks. A bad record does not affect the others."""
    batch = Batch(list(records), topic_of=phone_topic_of)
    decoded = PhoneBatch(batch)
    for record_no, (key, payload, received_at_ms) in enumerate(records):
        driver_id = driver_id_of(key)
        try:
            if driver_id is None:
                raise MalformedFix("bad_id", "the key is not a driver id")
            decoded.note(HeardOf(driver_id, None, has_position=False))
            found, mode = decode_owntracks_message(payload)
        except MalformedFix as exc:
            batch.refusals.append(Refusal(record_no, exc.reason, exc.detail))
            batch.records[record_no] = Record(key, keepable(payload), received_at_ms)
            continue
        if isinstance(found, Ignored):
            decoded.ignored[found.reason] += 1
            continue
        decoded.note(HeardOf(driver_id, mode, has_position=True))
        batch.ignored.update(found.ignored)
        received_at = instant_of_ms(received_at_ms)
        batch.rows.append(row_of(len(batch.rows), driver_id, found, received_at))
        batch.record_nos.append(record_no)
    return decoded
