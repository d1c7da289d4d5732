"""What operators run: `./run COMMAND` starts `python -m ops`.

cli        the commands of ./run
stack/     the native launcher: servers and services as plain processes
commands/  one module per operator's command
ledger     devices' journals compared with the database
"""
