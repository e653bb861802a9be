"""The lease demonstration: a real Cordon is killed, and every kind of client goes to hold when its lease ends."""
