"""The settings of tracking_api."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from doorstep.settings import Bind, BindSetting, ServiceSettings


class Settings(ServiceSettings):
    """Environment variables of tracking_api; each field's name in capitals."""

    database_url: SecretStr
    database_pool_size: int = Field(default=10, ge=1, le=200)
    tracking_api_bind: BindSetting = Bind("127.0.0.1", 8000)
    tracking_api_public_url: str = "http://127.0.0.1:8000"

    @field_validator("tracking_api_public_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")
