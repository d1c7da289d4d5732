"""The operators' tools: `./run COMMAND` starts `python -m ops COMMAND`.

cli               the command line
commands/         one module per command
demo/             the demo
api_client        requests to the stack's own APIs
stack/            the native launcher: servers and services as plain processes
ledger            compares the devices' journals with the database
fleet_statistics  figures of a fleet since an instant
checks            `./run test`
"""
