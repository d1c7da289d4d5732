"""Run driver_api: `python -m driver_api`."""

from __future__ import annotations

import sys

from doorstep.http.serve import serve
from doorstep.telemetry import configure_logging
from driver_api.app import build_service
from driver_api.settings import Settings


def main() -> int:
    """Serve until asked to stop."""
    settings = Settings.load_or_exit()
    configure_logging("driver_api")
    return serve(
        build_service(settings),
        settings.driver_api_bind,
        settings.driver_api_internal_bind,
        settings,
    )


if __name__ == "__main__":
    sys.exit(main())
