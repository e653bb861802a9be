"""`python -m deploy.cli`: the same as the `cordon` command."""

from deploy.cli.main import main

main(prog_name="cordon")
