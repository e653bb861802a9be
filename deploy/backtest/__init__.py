"""Backtests: scenarios, the pipeline and recorded traffic, judged by Cordon's detectors and by what others use."""
