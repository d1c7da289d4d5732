"""Run tracking_api: `python -m tracking_api`."""

from __future__ import annotations

import gc
import sys

from doorstep.http.serve import serve
from doorstep.telemetry import configure_logging
from tracking_api.app import build_service
from tracking_api.history.pacing import SWITCH_S
from tracking_api.live.detachable_protocol import DetachableProtocol
from tracking_api.settings import Settings

# Thousands of viewers that connect allocate without garbage: collections would only traverse them.
GC_THRESHOLDS = (20_000, 20, 50)


def main() -> int:
    """Serve until asked to stop."""
    settings = Settings.load_or_exit()
    configure_logging("tracking_api")
    sys.setswitchinterval(SWITCH_S)
    service = build_service(settings)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.collect()
    gc.freeze()  # modules, routes and schemas: nothing of them is ever garbage
    return serve(
        service,
        settings.tracking_api_bind,
        settings.tracking_api_internal_bind,
        settings,
        DetachableProtocol,
    )


if __name__ == "__main__":
    sys.exit(main())
