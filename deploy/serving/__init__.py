"""What every process of Cordon stands on: its event loop, its listeners, and what it is told before it starts."""
