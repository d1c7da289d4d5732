"""`./run drivers phone`: the credentials of drivers' phone apps, and how to enter them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from doorstep.errors import UnknownDriver
from doorstep.phones.links import Phone, owntracks_link
from doorstep.phones.qr_code import qr_text
from doorstep.settings import is_loopback
from ops.commands.broker_users import not_found, refusal
from ops.console import print_line
from ops.stack.phones import end_phone, give_phone, invite
from ops.stack.stack import Stack

LOOPBACK_HINT = "this link works on this machine only; see docs/how-to/tls.md for phones"
ACTIONS = ("invite", "phone", "new-phone", "end-phone")


def phones(stack: Stack, action: str, ids: Sequence[str]) -> int:
    """Run one action; the return value is the exit status."""
    if not ids:
        print_line(f"run: name at least one id: ./run drivers {action} ID...")
        return 2
    for driver_id in ids:
        try:
            if action == "invite":
                link, expires_at = invite(stack, driver_id)
                print(f"{qr_text(link)}{driver_id}, once, until {expires_at:%F %H:%M %Z}: {link}")
                if is_loopback(urlsplit(link).hostname or ""):
                    print_line(LOOPBACK_HINT)
            elif action == "end-phone":
                end_phone(stack, driver_id)
                print_line(f"the phone of {driver_id} may not send any more")
            else:
                print(describe(give_phone(stack, driver_id, again=action == "new-phone")))
        except UnknownDriver:
            print_line(_refusal(stack, driver_id))
            return 1
    return 0


def _refusal(stack: Stack, driver_id: str) -> str:
    """Return why a driver has no phone, and the next command."""
    devices = {one.device_id: one for one in stack.devices("driver")}
    if driver_id not in devices:
        present = [name for name, one in devices.items() if one.state != "removed"]
        return not_found("driver", [driver_id], present)
    if devices[driver_id].state != "active":
        return refusal(devices[driver_id])
    return f"run: {driver_id} has no phone; to add: ./run drivers phone {driver_id}"


def describe(phone: Phone) -> str:
    """Return what to enter in each app. An answer over HTTP means committed."""
    http, mqtt = phone.owntracks_http(), phone.owntracks_mqtt()
    return f"""{phone.driver_id}: OwnTracks over HTTP
  address   {phone.owntracks_url}
  user      {http["username"]}
  password  {phone.token}
  link      {owntracks_link(http)}
{phone.driver_id}: OwnTracks over MQTT
  broker    {phone.broker}
  user      {mqtt["username"]}
  password  {phone.token}
  topic     {mqtt["pubTopicBase"]}
  link      {owntracks_link(mqtt)}
{phone.driver_id}: Traccar Client
  address   {phone.traccar_url}
  device    {phone.token}
  link      {phone.traccar_link()}
{phone.driver_id}: Overland
  address   {phone.overland_url}
  token     {phone.token}"""
