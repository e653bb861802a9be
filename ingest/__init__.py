"""A report comes in, a cohort window goes out; owns the wire types and the shared words of all packages."""
