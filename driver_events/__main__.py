"""`python -m driver_events`: run until SIGTERM or Ctrl-C."""

from __future__ import annotations

import gc
import signal
import sys
import threading

from doorstep.telemetry import configure_logging, get_logger
from driver_events.service import run_service
from driver_events.settings import DriverEventsSettings

# A batch is thousands of short-lived tuples without cycles. Python's default of a collection per
# 700 allocations costs 0.4 to 0.7 µs per fix.
GC_THRESHOLDS = (50_000, 20, 50)

# The recorder's thread needs the GIL about ten times per batch while another thread decodes. With
# the default of 5 ms the waits would add up to a quarter of a batch.
SWITCH_S = 0.000_5


def main() -> None:
    """Read the settings and run the configured sink until a signal stops it."""
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
