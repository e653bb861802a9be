"""The part of Cordon that runs on a device: reads what Windows left behind of a crash and reports it. See README.md."""
