"""`python -m driver_events`: run until SIGTERM or Ctrl-C."""

from __future__ import annotations

import gc
import signal
import sys
import threading

from doorstep.telemetry import configure_logging, get_logger
from driver_events.service import run_service
from driver_events.settings import DriverEventsSettings

# A batch is thousands of short-lived tuples, none in a cycle: collecting after each 700 of them, as
# Python does, costs 0.4 to 0.7 µs a fix.
GC_THRESHOLDS = (50_000, 20, 50)

# One thread decodes while another hands a batch to the database, and needs Python for a moment ten
# times a batch: 5 ms, which is how long the first one keeps it else, is a quarter of a batch.
SWITCH_S = 0.000_5


def main() -> None:
    """Read the settings and run with the chosen sink until told to stop."""
    settings = DriverEventsSettings.load_or_exit()
    configure_logging("driver_events")
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    get_logger().info("started", sink=settings.fix_sink, topic=settings.kafka_topic)
    run_service(settings, stopping)
    get_logger().info("stopped")


if __name__ == "__main__":
    main()
