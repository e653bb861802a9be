"""How the parts are put together and run.

The command line, the embedded process and the tools round it. The only package that may import all the others, and the
only one that wires collaborators together.
"""
