"""The streams listener's routes, a module for each thing that is asked for."""
