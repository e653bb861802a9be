"""Reprocessing: grouping and detection once more, over a span of another lane's log, in a lane of their own."""
