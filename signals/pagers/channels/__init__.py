"""What speaks to vendors: one channel a file, all behind `interface.Channel`."""
