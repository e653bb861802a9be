"""What runs the stages on many machines: shares of the work, the group consumers that feed them, and their watchdog."""
