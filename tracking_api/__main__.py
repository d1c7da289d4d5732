"""Run tracking_api: `python -m tracking_api`."""

from __future__ import annotations

import sys

from doorstep.http.serve import serve
from doorstep.telemetry import configure_logging
from tracking_api.app import build_service
from tracking_api.history.pacing import SWITCH_S
from tracking_api.live.detachable_protocol import DetachableProtocol
from tracking_api.settings import Settings


def main() -> int:
    """Serve until asked to stop."""
    settings = Settings.load_or_exit()
    configure_logging("tracking_api")
    sys.setswitchinterval(SWITCH_S)
    return serve(
        build_service(settings),
        settings.tracking_api_bind,
        settings.tracking_api_internal_bind,
        settings,
        DetachableProtocol,
    )


if __name__ == "__main__":
    sys.exit(main())
