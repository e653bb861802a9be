"""Send a simulated fleet through a running Cordon over HTTP, and obey its kill switch like a real rollout system."""
