"""`./run drivers`: lists, adds and removes drivers, and prints or ends their credentials."""

from __future__ import annotations

import argparse

from ops.commands import drivers_csv, phone_command
from ops.commands.broker_users import CHANGES, DeviceCommand
from ops.stack.stack import Stack

ACTIONS = ("list", "add", "token", "password", *CHANGES, drivers_csv.ACTION, *phone_command.ACTIONS)
DESCRIPTION = "List, add and remove drivers, and print or end the credentials of their devices."
EXAMPLES = """examples:
  ./run drivers                      list all drivers that may log in
  ./run drivers list --all           and the revoked and removed ones
  ./run drivers add anna bruno       register drivers; may be repeated
  ./run drivers import fleet.csv     register those of a file, with name, vehicle and phone
  ./run drivers token anna           the bearer token for driver_api
  ./run drivers password anna        the password for MQTT; the user name is the driver's id
  ./run drivers rotate anna          new secrets; the old ones end, open connections included
  ./run drivers revoke anna          end the secrets until `rotate`
  ./run drivers remove anna          end them, and take the driver off all lists; history stays
  ./run drivers invite anna          a link and a QR code that set a phone up, once, for a day
  ./run drivers phone anna           what to enter in OwnTracks, Traccar Client or Overland
  ./run drivers new-phone anna       the same for another phone; the old one's token ends
  ./run drivers end-phone anna       end the phone's token

With one id, `token` and `password` print the secret only; with several, `id secret` lines. A
removed id that is added again gets new secrets."""

COMMAND = DeviceCommand(
    "driver",
    {"token": lambda secrets: secrets.token, "password": lambda secrets: secrets.mqtt_password},
    lambda stack, ids: stack.add_drivers(ids, again=True),
)


def drivers(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    if options.action in phone_command.ACTIONS:
        return phone_command.phones(stack, options.action, options.ids)
    if options.action == drivers_csv.ACTION:
        return drivers_csv.import_drivers(stack, options.ids)
    return COMMAND.run(stack, options.action, options.ids, show_all=options.all)
